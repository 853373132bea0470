"""Keys of the API, and requests that make an account once.

Each table is made only where it is missing, so that a run that was cut off can be repeated: MariaDB
commits each statement by itself.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.schema import CreateTable

from automx.errors import DatabaseError

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def tables() -> Sequence[sa.Table]:
    metadata = sa.MetaData()
    options = {f"{dialect}_engine": "InnoDB" for dialect in ("mysql", "mariadb")}
    options |= {f"{dialect}_collate": "utf8mb4_bin" for dialect in ("mysql", "mariadb")}
    sa.Table(
        "api_key",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(60), unique=True, nullable=False),
        sa.Column("digest", sa.String(64), unique=True, nullable=False),
        sa.Column("old_digest", sa.String(64), unique=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("provider_id", sa.Integer),
        sa.Column("domains", sa.Text, nullable=False),
        sa.Column("networks", sa.Text, nullable=False),
        sa.Column("valid_until", sa.DateTime),
        sa.Column("is_revoked", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("used_on", sa.Date),
        **options,
    )
    sa.Table(
        "api_request",
        metadata,
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("address", sa.String(320)),
        sa.Column("made_at", sa.DateTime, nullable=False),
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
