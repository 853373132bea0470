"""An index of domain names with blanks around them, on PostgreSQL.

A look-up asks for these beside the names without blanks. The index is empty in most databases.
Other databases find them by the index of all names.
"""

from alembic import context, op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

NAME = "ix_domain_padded_name"
BLANKS = r"E' \t\r\n'"


def upgrade() -> None:
    if context.get_context().dialect.name == "postgresql":
        op.execute(
            f"CREATE INDEX IF NOT EXISTS {NAME} ON domain (btrim(lower(name), {BLANKS}))"
            f" WHERE name <> btrim(name, {BLANKS})"
        )


def downgrade() -> None:
    if context.get_context().dialect.name == "postgresql":
        op.execute(f"DROP INDEX IF EXISTS {NAME}")
