"""Tokens and accounts of Delta Chat.

Each table is made only where it is missing, so that a run that was cut off can be repeated: MariaDB
commits each statement by itself.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.schema import CreateIndex, CreateTable

from automx.errors import DatabaseError

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def tables() -> Sequence[sa.Table]:
    """Return the two tables in an order in which they can be created."""
    metadata = sa.MetaData()
    options = {f"{dialect}_engine": "InnoDB" for dialect in ("mysql", "mariadb")}
    # Addresses and names that differ in one accent are two; both are kept in lower case.
    options |= {f"{dialect}_collate": "utf8mb4_bin" for dialect in ("mysql", "mariadb")}
    sa.Table(
        "token",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
        sa.Column("token", sa.String(255), nullable=False),
        sa.Column("token_digest", sa.String(64), nullable=False, unique=True),
        sa.Column("domain", sa.String(255), nullable=False),
        sa.Column("prefix", sa.String(64), nullable=False),
        sa.Column("address", sa.String(320)),
        sa.Column("expiry", sa.String(16), nullable=False),
        sa.Column("maxuse", sa.Integer, nullable=False),
        sa.Column("usecount", sa.Integer, nullable=False),
        sa.Column("valid_until", sa.DateTime),
        sa.Column("is_revoked", sa.Boolean, nullable=False),
        sa.Column("backend", sa.String(32), nullable=False),
        sa.Column("spare_active", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        **options,
    )
    sa.Table(
        "account",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("address", sa.String(320), nullable=False, unique=True),
        sa.Column("token_id", sa.Integer, sa.ForeignKey("token.id"), nullable=False, index=True),
        sa.Column("mark", sa.String(32), nullable=False),
        sa.Column("backend", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("expires_at", sa.DateTime, index=True),
        sa.Column("changed_at", sa.DateTime, nullable=False),
        sa.Column("warned_at", sa.DateTime),
        **options,
    )
    return metadata.sorted_tables


def upgrade() -> None:
    existing = {} if context.is_offline_mode() else columns_by_table()
    for table in tables():
        wanted = set(table.columns.keys())
        for column in sorted(wanted - existing.get(table.name, wanted)):
            raise DatabaseError(
                cause=f"the table {table.name} has no column {column}, so it is another program's:"
                " give automx a database of its own"
            )
    for table in tables():
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
