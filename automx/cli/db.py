"""``automx db``: the schema of the database."""

from collections.abc import Sequence

import click

from automx import migrations
from automx.cli.context import Context, with_json
from automx.cli.terminal import pass_on
from automx.database import is_in_memory

_IN_MEMORY = """There is nothing to upgrade: the database is in memory.
The web server makes its tables at each start, and loses all data at its end."""


@click.group()
def db() -> None:
    """Create, update and show the database schema."""


@db.command()
@click.argument("revision", default="head")
@with_json
def upgrade(context: Context, revision: str) -> None:
    """Bring the database to REVISION (default: the newest).

    Creates the schema in an empty database and adopts a database of automx2.
    """
    db_uri = context.settings.db_uri
    if is_in_memory(db_uri):
        context.write(_document(None, []), lambda: _IN_MEMORY)
        return
    steps = migrations.upgrade(db_uri, revision)
    found = migrations.current(db_uri)
    lines = [f"Upgraded to {step.revision}: {step.title}" for step in steps]
    lines.append(f"The database is up to date ({found}).")
    context.write(_document(found, steps), lambda: "\n".join(lines))


@db.command()
@click.argument("revision")
@with_json
def downgrade(context: Context, revision: str) -> None:
    """Take the database back to REVISION, or to "base".

    Tables that hold rows are left in place.
    """
    db_uri = context.settings.db_uri
    steps = migrations.downgrade(db_uri, revision)
    found = migrations.current(db_uri)
    lines = [f"Undone {step.revision}: {step.title}" for step in steps]
    lines.append(f"The database is at {found or 'base'}.")
    context.write(_document(found, steps), lambda: "\n".join(lines))


@db.command()
@with_json
def current(context: Context) -> None:
    """Print the revision of the database."""
    revision = migrations.current(context.settings.db_uri)
    newest = migrations.head()
    state = "up to date" if revision == newest else "run automx db upgrade"
    document = {"revision": revision, "newest": newest, "is_newest": revision == newest}
    context.write(document, lambda: f"{revision or 'none'} ({state})")


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


def _document(revision: str | None, steps: Sequence[migrations.Applied]) -> dict[str, object]:
    """Return the revision of the database, and what was run, for programs."""
    return {"revision": revision, "steps": [step._asdict() for step in steps]}
