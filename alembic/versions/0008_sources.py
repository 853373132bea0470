"""Sources of domains: what is gone there, when each was read last, and which process reads them.

Each table is made only where it is missing, so that a run that was cut off can be repeated: MariaDB
commits each statement by itself.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.schema import CreateTable

from automx.errors import DatabaseError

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def tables(can_refer: bool = True) -> Sequence[sa.Table]:
    """Return the tables; ``can_refer`` is whether they can refer to ``domain``."""
    metadata = sa.MetaData()
    options = {f"{dialect}_engine": "InnoDB" for dialect in ("mysql", "mariadb")}
    options |= {f"{dialect}_collate": "utf8mb4_bin" for dialect in ("mysql", "mariadb")}
    sa.Table("domain", metadata, sa.Column("id", sa.Integer, primary_key=True))
    reference = [sa.ForeignKey("domain.id", ondelete="CASCADE")] if can_refer else []
    sa.Table(
        "synced_domain",
        metadata,
        sa.Column("domain_id", sa.Integer, *reference, primary_key=True, autoincrement=False),
        sa.Column("gone_at", sa.DateTime),
        sa.Column("disabled_at", sa.DateTime),
        **options,
    )
    numbers = ("found", "added", "changed", "removed", "problems")
    sa.Table(
        "source_sync",
        metadata,
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("began_at", sa.DateTime, nullable=False),
        sa.Column("succeeded_at", sa.DateTime),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("message", sa.String(255), nullable=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in numbers),
        **options,
    )
    sa.Table(
        "lease",
        metadata,
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("until", sa.DateTime, nullable=False),
        **options,
    )
    return [table for table in metadata.sorted_tables if table.name != "domain"]


def upgrade() -> None:
    existing = {} if context.is_offline_mode() else columns_by_table()
    for table in tables():
        wanted = set(table.columns.keys())
        for column in sorted(wanted - existing.get(table.name, wanted)):
            raise DatabaseError(
                cause=f"the table {table.name} has no column {column}, so it is another program's:"
                " give automx a database of its own"
            )
    for table in tables(can_refer=is_referable()):
        if table.name not in existing:
            op.execute(CreateTable(table))


def is_referable() -> bool:
    """Return whether the table ``domain`` can be referred to: one of MyISAM cannot."""
    if context.is_offline_mode() or op.get_bind().dialect.name not in {"mysql", "mariadb"}:
        return True
    return "InnoDB" in sa.inspect(op.get_bind()).get_table_options("domain").values()


def downgrade() -> None:
    """Drop the tables if all are empty: what they hold would be lost."""
    bind = op.get_bind()
    existing = columns_by_table()
    ours = [table for table in tables() if table.name in existing]
    if not any(bind.scalar(sa.select(1).select_from(table).limit(1)) for table in ours):
        for table in ours:
            op.drop_table(table.name)


def columns_by_table() -> dict[str, set[str]]:
    """Return table -> columns, of those of the tables that exist."""
    inspector = sa.inspect(op.get_bind())
    existing = set(inspector.get_table_names())
    return {
        table.name: {column["name"] for column in inspector.get_columns(table.name)}
        for table in tables()
        if table.name in existing
    }
