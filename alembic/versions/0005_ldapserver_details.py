"""Details of directories: longer filters, several search bases, login names.

The columns of automx2 stay as they are; what they cannot hold stands in a table of its own. It is
made only where it is missing, so that a run that was cut off can be repeated: MariaDB commits each
statement by itself.
"""

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.schema import CreateTable

from automx.errors import DatabaseError

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def table(*, refer_to_ldapserver: bool = True) -> sa.Table:
    """Return the table; it refers to the other table unless that cannot be referred to."""
    reference = [sa.ForeignKey("ldapserver.id", ondelete="CASCADE")] if refer_to_ldapserver else []
    metadata = sa.MetaData()
    options = {f"{dialect}_engine": "InnoDB" for dialect in ("mysql", "mariadb")}
    options |= {f"{dialect}_collate": "utf8mb4_general_ci" for dialect in ("mysql", "mariadb")}
    sa.Table("ldapserver", metadata, sa.Column("id", sa.Integer, primary_key=True))
    return sa.Table(
        "ldapserver_detail",
        metadata,
        sa.Column("ldapserver_id", sa.Integer, *reference, primary_key=True, autoincrement=False),
        sa.Column("search_base", sa.String(1024)),
        sa.Column("search_filter", sa.String(512)),
        sa.Column("login_name", sa.String(128)),
        **options,
    )


def upgrade() -> None:
    existing = set() if context.is_offline_mode() else columns()
    if existing:
        for column in sorted(set(table().columns.keys()) - existing):
            raise DatabaseError(
                cause=f"the table ldapserver_detail has no column {column}, so it is another"
                " program's: give automx a database of its own"
            )
    else:
        op.execute(CreateTable(table(refer_to_ldapserver=can_refer_to_ldapserver())))


def downgrade() -> None:
    """Drop the table if it is empty: what it holds would be lost."""
    query = sa.select(1).select_from(table()).limit(1)
    if columns() and not op.get_bind().scalar(query):
        op.drop_table("ldapserver_detail")


def can_refer_to_ldapserver() -> bool:
    """Tell whether the table of automx2 can be referred to: MyISAM's cannot."""
    if context.is_offline_mode() or op.get_bind().dialect.name not in {"mysql", "mariadb"}:
        return True
    options = sa.inspect(op.get_bind()).get_table_options("ldapserver")
    return "InnoDB" in options.values()


def columns() -> set[str]:
    """Return the columns of the table, none if it does not exist."""
    inspector = sa.inspect(op.get_bind())
    if not inspector.has_table("ldapserver_detail"):
        return set()
    return {column["name"] for column in inspector.get_columns("ldapserver_detail")}
