"""Runs the revisions as ``automx.migrations`` asks: on its connection, or printing their SQL."""

from alembic import context

context.configure(**context.config.attributes["options"])
with context.begin_transaction():
    context.run_migrations()
