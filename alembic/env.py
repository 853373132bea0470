"""Runs the revisions as ``automx.migrations`` asks: on its connection, or printing their SQL.

The command ``alembic`` of a checkout has the database of the settings.
"""

from contextlib import nullcontext

from alembic import context
from alembic.util import CommandError

from automx import migrations
from automx.errors import AutomxError

given = context.config.attributes.get("options")
is_offline = context.is_offline_mode()
try:
    with (
        nullcontext(given) if given else migrations.options_of_command(offline=is_offline) as found
    ):
        context.configure(**found)
        with context.begin_transaction():
            context.run_migrations()
except AutomxError as error:
    if given:
        raise
    raise CommandError(error.reason) from error
