"""``automx db``: the schema of the database."""

import click

from automx import migrations
from automx.cli.context import Context, pass_context
from automx.cli.terminal import pass_on, say
from automx.database import is_in_memory


@click.group()
def db() -> None:
    """Create, update and show the database schema."""


@db.command()
@click.argument("revision", default="head")
@pass_context
def upgrade(context: Context, revision: str) -> None:
    """Bring the database to REVISION (default: the newest).

    Creates the schema in an empty database and adopts a database of automx2.
    """
    db_uri = context.settings.db_uri
    if is_in_memory(db_uri):
        say("There is nothing to upgrade: the database is in memory.")
        say("The web server makes its tables at each start, and loses all data at its end.")
        return
    for step in migrations.upgrade(db_uri, revision):
        say(f"Upgraded to {step.revision}: {step.title}")
    say(f"The database is up to date ({migrations.current(db_uri)}).")


@db.command()
@click.argument("revision")
@pass_context
def downgrade(context: Context, revision: str) -> None:
    """Take the database back to REVISION, or to "base".

    Tables that hold rows are left in place.
    """
    db_uri = context.settings.db_uri
    for step in migrations.downgrade(db_uri, revision):
        say(f"Undone {step.revision}: {step.title}")
    say(f"The database is at {migrations.current(db_uri) or 'base'}.")


@db.command()
@pass_context
def current(context: Context) -> None:
    """Print the revision of the database."""
    revision = migrations.current(context.settings.db_uri)
    is_newest = revision == migrations.head()
    state = "up to date" if is_newest else "run automx db upgrade"
    say(f"{revision or 'none'} ({state})")


@db.command()
@click.option(
    "--dialect",
    required=True,
    type=click.Choice(migrations.DIALECTS),
    help="For which database.",
)
def schema(dialect: str) -> None:
    """Print the SQL that creates the schema in an empty database."""
    pass_on(migrations.schema_sql(dialect))
