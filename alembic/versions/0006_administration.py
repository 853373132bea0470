"""Administration: domains that are off, origins of rows, the log of changes, the audit.

Each table is made only where it is missing, so that a run that was cut off can be repeated: MariaDB
commits each statement by itself.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.schema import CreateIndex, CreateTable

from automx.errors import DatabaseError

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

REFERRED = ("provider", "server", "davserver", "ldapserver", "domain")


def tables(referable: Sequence[str] = REFERRED) -> Sequence[sa.Table]:
    """Return the tables in an order in which they can be created; they refer to those tables."""
    metadata = sa.MetaData()
    options = {f"{dialect}_engine": "InnoDB" for dialect in ("mysql", "mariadb")}
    options |= {f"{dialect}_collate": "utf8mb4_bin" for dialect in ("mysql", "mariadb")}

    def key(table: str) -> sa.Column[int]:
        reference = [sa.ForeignKey(f"{table}.id", ondelete="CASCADE")]
        reference = reference if table in referable else []
        name = f"{table}_id"
        return sa.Column(name, sa.Integer, *reference, primary_key=True, autoincrement=False)

    for table in REFERRED:
        sa.Table(table, metadata, sa.Column("id", sa.Integer, primary_key=True))
        origin = sa.Column("origin", sa.String(64), nullable=False, index=True)
        sa.Table(f"{table}_origin", metadata, key(table), origin, **options)
    since = sa.Column("since", sa.DateTime, nullable=False)
    sa.Table("disabled_domain", metadata, key("domain"), since, **options)
    sa.Table(
        "change_count",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer, nullable=False),
        **options,
    )
    sa.Table(
        "change_log",
        metadata,
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("table_name", sa.String(32), nullable=False),
        sa.Column("row_key", sa.String(255), nullable=False),
        **options,
    )
    sa.Table(
        "audit",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.DateTime, nullable=False, index=True),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(255), nullable=False, index=True),
        sa.Column("details", sa.Text, nullable=False),
        **options,
    )
    return [table for table in metadata.sorted_tables if table.name not in REFERRED]


def upgrade() -> None:
    existing = {} if context.is_offline_mode() else columns_by_table()
    for table in tables():
        wanted = set(table.columns.keys())
        for column in sorted(wanted - existing.get(table.name, wanted)):
            raise DatabaseError(
                cause=f"the table {table.name} has no column {column}, so it is another program's:"
                " give automx a database of its own"
            )
    for table in tables(referable_tables()):
        if table.name not in existing:
            op.execute(CreateTable(table))
        there = index_names(table.name) if table.name in existing else set()
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            if index.name not in there:
                op.execute(CreateIndex(index))


def downgrade() -> None:
    """Drop the tables if all are empty: what they hold would be lost."""
    bind = op.get_bind()
    existing = columns_by_table()
    ours = [table for table in tables() if table.name in existing]
    if not any(bind.scalar(sa.select(1).select_from(table).limit(1)) for table in ours):
        for table in reversed(ours):
            op.drop_table(table.name)


def referable_tables() -> Sequence[str]:
    """Return the tables of automx2 that can be referred to: those of MyISAM cannot."""
    if context.is_offline_mode() or op.get_bind().dialect.name not in {"mysql", "mariadb"}:
        return REFERRED
    inspector = sa.inspect(op.get_bind())
    return [table for table in REFERRED if "InnoDB" in inspector.get_table_options(table).values()]


def columns_by_table() -> dict[str, set[str]]:
    """Return table -> columns, of those of the tables that exist."""
    inspector = sa.inspect(op.get_bind())
    existing = set(inspector.get_table_names())
    return {
        table.name: {column["name"] for column in inspector.get_columns(table.name)}
        for table in tables()
        if table.name in existing
    }


def index_names(table: str) -> set[str | None]:
    return {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}
