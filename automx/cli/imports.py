"""``automx import-autoconfig`` and ``automx import-csv``: domains from files of other programs."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import click

from automx import autoconfigfile, imports, kinds
from automx.autoconfigfile import MAX_SIZE
from automx.changes import Changes, selection
from automx.cli import names
from automx.cli.addresses import FILE
from automx.cli.caller import give_up
from automx.cli.context import Context, with_json
from automx.cli.documents import read_file
from automx.cli.domain import add_records
from automx.cli.rownames import COLUMNS, Records
from automx.cli.rows import dry_run_option, skip_option, yes_option
from automx.cli.rowtext import names_in, report
from automx.cli.terminal import EXIT_STATUS, complain, confirm
from automx.errors import SeedError
from automx.imports import Imported, Wishes

_SECONDS = 10  # for each connection
_DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t"}


def _domain_names(
    _context: click.Context, _option: click.Parameter, texts: Sequence[str]
) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(kinds.DOMAIN_NAME.read(text) for text in texts))
    except kinds.BadValueError as error:
        raise click.BadParameter(f"{error}.") from error


@click.command(epilog=EXIT_STATUS)
@click.argument("sources", type=FILE, metavar="FILE|URL|-...", nargs=-1, required=True)
@click.option(
    "--domain",
    "domains",
    metavar="DOMAIN",
    multiple=True,
    callback=_domain_names,
    help="Import for this domain, and not for those that the file names; may be repeated.",
)
@click.option(
    "--provider",
    metavar="PROVIDER",
    shell_complete=names.of("provider"),
    help="Use this provider, by its name or id, as it is.",
)
@skip_option
@dry_run_option
@yes_option
@with_json
def import_autoconfig(
    context: Context,
    /,
    sources: tuple[str, ...],
    domains: tuple[str, ...],
    provider: str | None,
    skip_existing: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Import Autoconfig files: domains with their provider, servers and services.

    FILE is config-v1.1.xml of a server of one's own, or a file of ISPDB; - is standard input. A URL
    begins with https or http. Servers that the provider has already are used. What automx cannot
    keep is listed. All files are imported, or none.
    """
    files = [(name, autoconfigfile.read(data, name)) for name, data in map(_content, sources)]

    def run(*, dry_run: bool, is_shown: bool) -> int:
        """Return how many rows are new."""
        with context.session() as session:
            changes = Changes(session, context.actor, now=context.now, dry_run=dry_run)
            wishes = Wishes(
                domains,
                None if provider is None else selection.find(session, "provider", provider),
                skip_existing,
            )
            found = [imports.add_file(changes, file, name, wishes) for name, file in files]
            shown = names_in(session, [one.after for one in changes.made if one.after])
            warnings = [*changes.warnings()]
            changes.finish()
        for line in warnings if dry_run or yes else ():  # not again after the question
            complain(line)
        if is_shown:
            _report(context, changes, found, shown, dry_run=dry_run)
        return sum(changes.numbers.values())

    if not (yes or dry_run):
        number = run(dry_run=True, is_shown=not context.as_json)
        if not number:
            return
        confirm(f"this would add {number} rows", question=f"Add {number} rows?", yes=False)
    run(dry_run=dry_run, is_shown=True)


def _report(
    context: Context, changes: Changes, found: list[Imported], shown: Any, *, dry_run: bool
) -> None:
    skipped = sum(file.skipped for file in found)
    files = [file._asdict() for file in found]
    report(context, changes, names=shown, dry_run=dry_run, skipped=skipped, files=files)
    for file in found if not context.as_json else ():
        for line in file.lost:
            complain(f"{file.name}: {line}")


def _content(source: str) -> tuple[str, bytes]:
    """Return the name of a file for people, and what it holds. Raises SeedError."""
    if source.lower().startswith(("http://", "https://")):
        return source, _fetched(source)
    if "://" in source:
        raise SeedError(f"{source}: expected a URL that begins with https or http")
    return read_file(source, MAX_SIZE)


def _fetched(url: str) -> bytes:
    """Return the document at a URL, asked as mail clients ask."""
    from automx.check import http  # noqa: PLC0415 - the doctor's libraries are for URLs only
    from automx.check.network import Network, NetworkError  # noqa: PLC0415

    try:
        _, answer = http.follow(Network(timeout=_SECONDS), url, None)
    except NetworkError as error:
        raise SeedError(f"{url}: {error}") from error
    if answer.status != 200:
        raise SeedError(f"{url}: the server answers with status {answer.status}")
    if len(answer.body) >= http.MAX_BODY:
        raise SeedError(f"{url}: the document is larger than {http.MAX_BODY} bytes")
    return answer.body


@click.command(
    epilog=EXIT_STATUS,
    help=f"""Import domains from a table in CSV: FILE, or - for standard input.

    The first line names the columns, in any order: {", ".join(COLUMNS)}; only name is needed.
    provider is a name or an id; servers are host names or ids, services URLs or ids, several with
    blanks between; directory is a host name or an id; disabled is yes or no. An empty cell is as in
    automx domain add without the option. All domains are imported, or none.
    """,
)
@click.argument("file", type=FILE, metavar="FILE|-")
@click.option(
    "--delimiter",
    type=click.Choice([*_DELIMITERS]),
    help="What stands between cells; by default, the first line tells.",
)
@click.option(
    "--provider",
    metavar="PROVIDER",
    shell_complete=names.of("provider"),
    help="The provider of domains whose line names none.",
)
@skip_option
@dry_run_option
@with_json
def import_csv(
    context: Context,
    /,
    file: str,
    delimiter: str | None,
    provider: str | None,
    skip_existing: bool,
    dry_run: bool,
) -> None:
    """Import domains from a table in CSV."""
    name, data = read_file(file)
    give_up()
    value = {} if provider is None else {"provider": provider}
    with closing(Records()) as records:
        records.append_csv(data, name, _DELIMITERS.get(delimiter or "", ""))
        add_records(context, records, value, skip_existing=skip_existing, dry_run=dry_run)
