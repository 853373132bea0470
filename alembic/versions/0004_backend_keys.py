"""Keys of mail servers: whether they are accepted.

The table is made only where it is missing, so that a run that was cut off can be repeated: MariaDB
commits each statement by itself.
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.schema import CreateTable

from automx.errors import DatabaseError

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def table() -> sa.Table:
    """Return the table."""
    options = {f"{dialect}_engine": "InnoDB" for dialect in ("mysql", "mariadb")}
    options |= {f"{dialect}_collate": "utf8mb4_bin" for dialect in ("mysql", "mariadb")}
    return sa.Table(
        "backend_key",
        sa.MetaData(),
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("changed_at", sa.DateTime, nullable=False),
        **options,
    )


def upgrade() -> None:
    wanted = table()
    existing = None if context.is_offline_mode() else columns(wanted.name)
    if existing is None:
        op.execute(CreateTable(wanted))
        return
    for column in sorted(set(wanted.columns.keys()) - existing):
        raise DatabaseError(
            cause=f"the table {wanted.name} has no column {column}, so it is another program's:"
            " give automx a database of its own"
        )


def downgrade() -> None:
    """Drop the table if it is empty."""
    ours = table()
    if columns(ours.name) is None:
        return
    if not op.get_bind().scalar(sa.select(1).select_from(ours).limit(1)):
        op.drop_table(ours.name)


def columns(name: str) -> set[str] | None:
    """Return the names of the columns of a table, None if there is no such table."""
    inspector = sa.inspect(op.get_bind())
    if not inspector.has_table(name):
        return None
    return {column["name"] for column in inspector.get_columns(name)}
