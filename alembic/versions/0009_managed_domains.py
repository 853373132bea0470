"""Domains whose records automx writes into their zones.

The table is made only where it is missing, so that a run that was cut off can be repeated: MariaDB
commits each statement by itself.
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.schema import CreateTable

from automx.errors import DatabaseError

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def table() -> sa.Table:
    options = {f"{dialect}_engine": "InnoDB" for dialect in ("mysql", "mariadb")}
    options |= {f"{dialect}_collate": "utf8mb4_bin" for dialect in ("mysql", "mariadb")}
    return sa.Table(
        "managed_domain",
        sa.MetaData(),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.Column("next_document", sa.LargeBinary),
        sa.Column("old_document", sa.LargeBinary),
        sa.Column("step", sa.String(16), nullable=False),
        sa.Column("ttl", sa.Integer, nullable=False),
        sa.Column("changed_at", sa.DateTime, nullable=False),
        sa.Column("due_at", sa.DateTime),
        sa.Column("version", sa.Integer, nullable=False),
        **options,
    )


def upgrade() -> None:
    ours = table()
    existing = set() if context.is_offline_mode() else existing_columns()
    for column in sorted(set(ours.columns.keys()) - existing if existing else ()):
        raise DatabaseError(
            cause=f"the table {ours.name} has no column {column}, so it is another program's: give"
            " automx a database of its own"
        )
    if not existing:
        op.execute(CreateTable(ours))


def downgrade() -> None:
    """Drop the table if it is empty: what it holds would be lost."""
    ours = table()
    if existing_columns() and not op.get_bind().scalar(sa.select(1).select_from(ours).limit(1)):
        op.drop_table(ours.name)


def existing_columns() -> set[str]:
    """Return the columns of the table, none if it does not exist."""
    inspector = sa.inspect(op.get_bind())
    name = table().name
    if name not in inspector.get_table_names():
        return set()
    return {column["name"] for column in inspector.get_columns(name)}
