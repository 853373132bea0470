"""${message}.

Every step looks at the database first, so that a run that was cut off can be repeated: MariaDB
commits each statement by itself. Only what this file says counts here: the classes of
``automx.models`` change, a revision never does.
"""

${imports if imports else "from alembic import op"}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
