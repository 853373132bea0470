"""``automx domain``: the commands that only domains have, and how they are added."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import click

from automx.changes import Changes, bulk, selection
from automx.changes.bulk import NewDomain
from automx.cli import names, options
from automx.cli.context import Context, with_json
from automx.cli.rownames import COLUMNS, Records, read_names, read_records, words
from automx.cli.rows import (
    Row,
    ask_for_many,
    change,
    dry_run_option,
    group,
    read_rows,
    resolved,
    set_rows,
    skip_option,
    yes_option,
)
from automx.cli.terminal import EXIT_STATUS, complain, with_progress
from automx.errors import SeedError, UnknownRowError
from automx.kinds import BOOLEAN
from automx.members import LINKS, Item, one

_NO_PROVIDER = "There is no provider yet: automx provider add --name NAME adds one."

domain = group("domain")


def _with_members(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(options.of_members("domain", is_new=True)):
        command = option(command)
    return command


@domain.command(epilog=EXIT_STATUS)
@click.argument("given_names", metavar="[NAME...]", nargs=-1)
@_with_members
@click.option(
    "--like",
    metavar="DOMAIN",
    shell_complete=names.of("domain"),
    help="Use provider, servers, services and directory of this domain.",
)
@click.option(
    "--csv",
    "is_csv",
    is_flag=True,
    help=f"Read CSV from standard input, with a head of these columns: {', '.join(COLUMNS)}."
    " Several servers or services have blanks between; an empty cell is what options say.",
)
@skip_option
@dry_run_option
@with_json
def add(
    context: Context,
    /,
    given_names: tuple[str, ...],
    like: str | None,
    is_csv: bool,
    skip_existing: bool,
    dry_run: bool,
    **given: Any,
) -> None:
    """Add domains; - reads names from standard input, one on each line.

    Without --server, --service and --like, a domain gets the mail servers and services that all
    domains of its provider share. --provider may be left out if there is only one.
    """
    if not given_names and not is_csv:
        raise click.UsageError("Name a domain, or - to read names from standard input.")
    value = options.given("domain", given)
    with closing(read_records(given_names, is_csv=is_csv)) as records:
        add_records(
            context, records, value, like=like, skip_existing=skip_existing, dry_run=dry_run
        )


def add_records(
    context: Context,
    records: Records,
    value: Item,
    *,
    like: str | None = None,
    skip_existing: bool,
    dry_run: bool,
) -> None:
    """Add the domains of records, with the members of ``value`` where these say nothing."""

    def work(changes: Changes) -> int:
        new = _New(changes, value, like)
        found = with_progress(new.domains(records), records.number)
        added = bulk.add_domains(changes, found, records.number, skip_existing=skip_existing)
        new.warn()
        return added.existing

    change(context, work, dry_run=dry_run)


class _New:
    """Domains that are added, with what they have in common; rows are looked for once each."""

    def __init__(self, changes: Changes, value: Item, like: str | None) -> None:
        self._session = changes.session
        self._ids: dict[tuple[str, str], int] = {}
        self._shared: dict[int, Item] = {}
        self._without: list[str] = []
        self._number_without = 0
        self._value = resolved(self._session, value)
        if like is not None:
            [row] = read_rows(self._session, "domain", [like])
            copied = ("provider", "ldapserver_id", *LINKS)
            self._value = {
                member: list(row.item[member]) if member in LINKS else row.item[member]
                for member in copied
            } | self._value
        elif "provider" not in self._value and (found := selection.only_provider(self._session)):
            self._value["provider"] = found

    def domains(self, records: Records) -> Iterator[NewDomain]:
        """Yield the objects of domains."""
        for place, record in records:
            value = self._value | self._of_record(record, place)
            if value.get("provider") is None:
                if "provider" in record:  # a table has the column
                    raise SeedError(f"{place}, column provider: there is not exactly one provider")
                if not selection.count(self._session, "provider"):
                    raise UnknownRowError(_NO_PROVIDER)
                raise click.UsageError("Say which provider, as in --provider NAME.")
            if not any(member in value for member in LINKS):
                value |= self._shared_by(value["provider"])
            if not value.get("servers"):
                self._number_without += 1
                if len(self._without) < 5:
                    self._without.append(record["name"])
            yield NewDomain(value, place)

    def _of_record(self, record: dict[str, str], place: str) -> Item:
        found: Item = {"name": record["name"]}
        for column, member, kind in (
            ("provider", "provider", "provider"),
            ("directory", "ldapserver_id", "directory"),
        ):
            if text := record.get(column):
                found[member] = self._id(kind, text, f"{place}, column {column}")
        for column, member, kind in (
            ("servers", "servers", "server"),
            ("services", "davservers", "service"),
        ):
            if some := words(record.get(column)):
                found[member] = [self._id(kind, text, f"{place}, column {column}") for text in some]
        if text := record.get("disabled"):
            found["disabled"] = one(text, BOOLEAN, f"{place}, column disabled")
        return found

    def _id(self, kind: str, text: str, place: str) -> int:
        if (kind, text) not in self._ids:
            try:
                self._ids[kind, text] = selection.find(self._session, kind, text)
            except (UnknownRowError, selection.AmbiguousNameError) as error:
                raise SeedError(f"{place}: {error}") from error
        return self._ids[kind, text]

    def _shared_by(self, provider: int) -> Item:
        """Return what all domains of a provider share that were there before."""
        if provider not in self._shared:
            found = selection.shared_links(self._session, provider)
            self._shared[provider] = {member: list(ids) for member, ids in found.items()}
        return self._shared[provider]

    def warn(self) -> None:
        """Warn of domains without a mail server."""
        if self._number_without:
            some = ", ".join(self._without) + ", …" * (self._number_without > len(self._without))
            verb = "have" if self._number_without > 1 else "has"
            complain(
                f"{some} {verb} no mail server: the domains of the provider share none;"
                " automx domain link DOMAIN SERVER gives one"
            )


def _links(command: Callable[..., None]) -> Callable[..., None]:
    for decorator in (
        dry_run_option,
        click.option(
            "--service",
            "services",
            multiple=True,
            metavar="SERVICE",
            shell_complete=names.of("service"),
            help="A service, by its URL or id; may be repeated.",
        ),
        click.argument("servers", nargs=-1, metavar="SERVER...", shell_complete=names.of("server")),
        click.argument("name", metavar="DOMAIN", shell_complete=names.of("domain")),
    ):
        command = decorator(command)
    return command


@domain.command(epilog=EXIT_STATUS)
@_links
@with_json
def link(context: Context, /, **given: Any) -> None:
    """Let DOMAIN use servers: their host names, or ids."""
    _relink(context, is_link=True, **given)


@domain.command(epilog=EXIT_STATUS)
@_links
@with_json
def unlink(context: Context, /, **given: Any) -> None:
    """Let DOMAIN no longer use servers: their host names, or ids."""
    _relink(context, is_link=False, **given)


def _relink(
    context: Context,
    *,
    name: str,
    servers: tuple[str, ...],
    services: tuple[str, ...],
    dry_run: bool,
    is_link: bool,
) -> None:
    if not servers and not services:
        raise click.UsageError("Name a server, or a service by --service.")
    with context.session() as session:
        [row] = read_rows(session, "domain", [name])
        given = resolved(session, {"servers": servers, "davservers": services})
    patch: Item = {}
    for member in LINKS:
        before = row.item[member]
        ids = given[member]
        if ids:
            patch[member] = (
                [*dict.fromkeys([*before, *ids])]
                if is_link
                else [row_id for row_id in before if row_id not in ids]
            )
    set_rows(context, [(row, patch)], dry_run=dry_run)
    if not is_link and patch.get("servers") == [] and row.item["servers"]:
        complain(f"{row.item['name']} has no mail server now")


def _switch(context: Context, given_names: tuple[str, ...], is_off: bool, **given: bool) -> None:
    yes, dry_run = given["yes"], given["dry_run"]
    wanted = read_names(given_names)
    with context.session() as session:
        rows: list[Row] = read_rows(session, "domain", wanted)
    verb = "disable" if is_off else "enable"
    ask_for_many(rows, verb, yes=yes or dry_run)
    set_rows(context, [(row, {"disabled": is_off}) for row in rows], dry_run=dry_run)


def _switches(command: Callable[..., None]) -> Callable[..., None]:
    argument = click.argument(
        "given_names",
        metavar="NAME...",
        nargs=-1,
        required=True,
        shell_complete=names.of("domain"),
    )
    return argument(dry_run_option(yes_option(command)))


@domain.command(epilog=EXIT_STATUS)
@_switches
@with_json
def disable(context: Context, /, given_names: tuple[str, ...], **given: bool) -> None:
    """Answer domains as unknown ones; all that belongs to them stays.

    - reads names from standard input, one on each line.
    """
    _switch(context, given_names, True, **given)


@domain.command(epilog=EXIT_STATUS)
@_switches
@with_json
def enable(context: Context, /, given_names: tuple[str, ...], **given: bool) -> None:
    """Answer domains that were disabled again.

    - reads names from standard input, one on each line.
    """
    _switch(context, given_names, False, **given)
