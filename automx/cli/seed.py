"""``automx seed``, ``automx export``, ``automx purge``: documents into the database and back."""

import click

from automx import export as exporting
from automx import schema
from automx import seed as seeding
from automx.cli.addresses import FILE
from automx.cli.context import Context, pass_context, with_json
from automx.cli.documents import Given, read_document
from automx.cli.output import open_output
from automx.cli.terminal import complain, printable_json
from automx.database import begin_snapshot
from automx.seeddocument import SAMPLE


@click.command
@click.argument("file", type=FILE, required=False)
@click.option("--sample", is_flag=True, help="Add the sample: example.com, .net and .org.")
@click.option("--if-empty", is_flag=True, help="Do nothing if the database has a provider.")
@with_json
def seed(context: Context, file: str | None, sample: bool, if_empty: bool) -> None:
    """Add the rows of a seed document.

    The document is FILE, or standard input for "-".
    """
    if (file is None) != sample:
        raise click.UsageError("Name either a FILE (- for standard input) or --sample.")
    given = Given(SAMPLE, seeding.digest_of(SAMPLE)) if file is None else read_document(file)
    with context.session() as session:
        if if_empty and not seeding.is_empty(session):
            nothing = {"added": seeding.NOTHING._asdict()}
            text = "The database has a provider already; nothing was added."
            context.write(nothing, lambda: text)
            return
        counts = seeding.populate(
            session,
            given.document,
            actor=context.actor,
            now=context.now,
            digest=given.digest,
            warn=complain,
        )
    context.write({"added": counts._asdict()}, lambda: f"Added {counts}.")


@click.command
@click.argument("file", type=FILE, required=False)
@click.option("--with-secrets", is_flag=True, help="Include the passwords of LDAP servers.")
@click.option("--schema", "is_schema", is_flag=True, help="Write the JSON Schema of documents.")
@pass_context
def export(context: Context, file: str | None, with_secrets: bool, is_schema: bool) -> None:
    """Write a document that seeds an equal database.

    It is written to FILE, else to standard output. automx apply changes nothing by it. It is no
    backup: tokens, accounts and keys are not in it, which standard error says. automx backup
    writes them as well.
    """
    if is_schema:
        with open_output(file) as output:
            output.write(printable_json(schema.text()).encode())
        return
    with context.session() as session, open_output(file) as output:
        begin_snapshot(session)
        for piece in exporting.export(session, with_secrets=with_secrets, warn=complain):
            output.write(printable_json(piece).encode())
        missing = exporting.left_out(session)
    if missing:
        complain(f"left out: {missing}; automx backup keeps them")


@click.command
@click.option("--yes", is_flag=True, help="Really do it.")
@with_json
def purge(context: Context, yes: bool) -> None:
    """Delete all providers, domains and servers."""
    with context.session() as session:
        counts = seeding.count(session)
        if yes:
            seeding.purge(session, actor=context.actor, now=context.now)
    if not yes:
        complain(f"this would delete {counts}; say --yes to do it")
        raise click.exceptions.Exit(2)
    context.write({"deleted": counts._asdict()}, lambda: f"Deleted {counts}.")
