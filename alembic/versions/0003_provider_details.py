"""Details of providers: what people and newer protocols want to know of them.

Each table is made only where it is missing, so that a run that was cut off can be repeated: MariaDB
commits each statement by itself.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.schema import CreateIndex, CreateTable

from automx.errors import DatabaseError

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def tables(*, refer_to_provider: bool = True) -> Sequence[sa.Table]:
    """Return the two tables in an order in which they can be created."""
    reference = [sa.ForeignKey("provider.id", ondelete="CASCADE")] if refer_to_provider else []
    metadata = sa.MetaData()
    options = {f"{dialect}_engine": "InnoDB" for dialect in ("mysql", "mariadb")}
    options |= {f"{dialect}_collate": "utf8mb4_general_ci" for dialect in ("mysql", "mariadb")}
    sa.Table("provider", metadata, sa.Column("id", sa.Integer, primary_key=True))
    sa.Table(
        "provider_detail",
        metadata,
        sa.Column(
            "provider_id",
            sa.Integer,
            *reference,
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("webmail_url", sa.String(255)),
        sa.Column("help_url", sa.String(255)),
        sa.Column("support_address", sa.String(320)),
        sa.Column("color", sa.String(7)),
        sa.Column("logo_type", sa.String(32)),
        sa.Column("logo_width", sa.Integer),
        sa.Column("logo_height", sa.Integer),
        sa.Column("logo", sa.LargeBinary),
        sa.Column("oauth2_issuer", sa.String(255)),
        sa.Column("oauth2_auth_url", sa.String(255)),
        sa.Column("oauth2_token_url", sa.String(255)),
        sa.Column("oauth2_scope", sa.String(255)),
        sa.Column("oauth2_client_id", sa.String(255)),
        **options,
    )
    sa.Table(
        "documentation",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "provider_id",
            sa.Integer,
            sa.ForeignKey("provider_detail.provider_id", ondelete="CASCADE"),
            nullable=False,
            index=True,
        ),
        sa.Column("url", sa.String(255), nullable=False),
        sa.Column("lang", sa.String(35), nullable=False),
        sa.Column("text", sa.String(255), nullable=False),
        **options,
    )
    return [table for table in metadata.sorted_tables if table.name != "provider"]


def upgrade() -> None:
    existing = {} if context.is_offline_mode() else columns_by_table()
    for table in tables():
        wanted = set(table.columns.keys())
        for column in sorted(wanted - existing.get(table.name, wanted)):
            raise DatabaseError(
                cause=f"the table {table.name} has no column {column}, so it is another program's:"
                " give automx a database of its own"
            )
    for table in tables(refer_to_provider=can_refer_to_provider()):
        if table.name not in existing:
            op.execute(CreateTable(table))
        there = index_names(table.name) if table.name in existing else set()
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            if index.name not in there:
                op.execute(CreateIndex(index))


def downgrade() -> None:
    """Drop the tables if both are empty: what they hold would be lost."""
    bind = op.get_bind()
    existing = columns_by_table()
    ours = [table for table in tables() if table.name in existing]
    if not any(bind.scalar(sa.select(1).select_from(table).limit(1)) for table in ours):
        for table in reversed(ours):
            op.drop_table(table.name)


def can_refer_to_provider() -> bool:
    """Return whether the table of automx2 can be referred to: MyISAM's cannot."""
    if context.is_offline_mode() or op.get_bind().dialect.name not in {"mysql", "mariadb"}:
        return True
    options = sa.inspect(op.get_bind()).get_table_options("provider")
    return "InnoDB" in options.values()


def columns_by_table() -> dict[str, set[str]]:
    """Return table -> columns, of those of the two tables that exist."""
    inspector = sa.inspect(op.get_bind())
    existing = set(inspector.get_table_names())
    return {
        table.name: {column["name"] for column in inspector.get_columns(table.name)}
        for table in tables()
        if table.name in existing
    }


def index_names(table: str) -> set[str | None]:
    return {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}
