"""Keys of the API: which programs may change what.

The table is made only where it is missing, so that a run that was cut off can be repeated: MariaDB
commits each statement by itself.
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.schema import CreateTable

from automx.errors import DatabaseError

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def table() -> sa.Table:
    options = {f"{dialect}_engine": "InnoDB" for dialect in ("mysql", "mariadb")}
    options |= {f"{dialect}_collate": "utf8mb4_bin" for dialect in ("mysql", "mariadb")}
    return sa.Table(
        "api_key",
        sa.MetaData(),
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


def upgrade() -> None:
    existing = set() if context.is_offline_mode() else columns()
    if existing:
        for column in sorted(set(table().columns.keys()) - existing):
            raise DatabaseError(
                cause=f"the table api_key has no column {column}, so it is another program's:"
                " give automx a database of its own"
            )
    else:
        op.execute(CreateTable(table()))


def downgrade() -> None:
    """Drop the table if it is empty: what it holds would be lost."""
    query = sa.select(1).select_from(table()).limit(1)
    if columns() and not op.get_bind().scalar(query):
        op.drop_table("api_key")


def columns() -> set[str]:
    """Return the columns of the table, none if it does not exist."""
    inspector = sa.inspect(op.get_bind())
    if not inspector.has_table("api_key"):
        return set()
    return {column["name"] for column in inspector.get_columns("api_key")}
