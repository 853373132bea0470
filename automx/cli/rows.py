"""``automx provider``, ``server``, ``domain``, ``service`` and ``directory``: rows of the database.

The five groups are made from the definitions of members: options, JSON and columns have the same
names.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import click

from automx import members
from automx.changes import Changes, described, name_of, selection, stored
from automx.changes.dependents import Dependents, dependents
from automx.cli import names, options, rowtext
from automx.cli.context import Context, with_json
from automx.cli.rownames import read_names
from automx.cli.subcommands import Subcommands
from automx.cli.terminal import (
    EXIT_STATUS,
    complain,
    confirm,
    say,
    say_json_list,
    say_table,
    with_progress,
)
from automx.database import Session
from automx.members import Item

_HELP = {
    "provider": """Add, list, show, change and delete providers.

    A provider is the operator of mail servers; people see its name.""",
    "server": """Add, list, show, change and delete mail servers.""",
    "service": """Add, list, show, change and delete calendars and the like.

    A service is reached by a URL: calendars, address books, files, chat.""",
    "directory": """Add, list, show, change and delete directories (LDAP).

    A directory knows people's login names.""",
    "domain": """Add, show, change, link, disable and delete domains.""",
}
_CALLED = {
    "provider": "its name, its short name, or its id",
    "server": "its host name, HOST:PORT, or its id",
    "service": "its URL, or its id",
    "directory": "its host name, or its id",
    "domain": "its name in any spelling, or its id; - reads names from standard input",
}

_PORTS = {"port", "type", "socket_type", "use_ssl"}  # members that have to fit each other

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Change nothing: only print what would be done."
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
skip_option = click.option(
    "--skip-existing", is_flag=True, help="Pass over domains that exist already."
)


class Row(NamedTuple):
    """A row as it was when the command began."""

    kind: str
    item: Item
    origin: str | None

    @property
    def id(self) -> int:
        """Its id."""
        row_id: int = self.item["id"]
        return row_id

    @property
    def name(self) -> str:
        """The row in words."""
        return described(self.kind, self.item)


def group(kind: str) -> click.Group:
    """Return the group of commands for a kind of row."""
    found = Subcommands(kind, help=_HELP[kind], epilog=EXIT_STATUS)
    if kind != "domain":  # cli.domain has its own
        _command(found, "add", _add(kind), options.of_members(kind, is_new=True), dry_run_option)
    _command(found, "list", _list(kind), _filters(kind))
    _command(found, "show", _show(kind), [_name(kind, many=False)])
    setters = [_name(kind, many=kind == "domain"), *options.of_members(kind, is_new=False)]
    _command(found, "set", _set(kind), setters, dry_run_option, yes_option)
    unlink = click.option(
        "--unlink", is_flag=True, help="Delete it although domains use it, which lose it."
    )
    some = [] if kind in {"provider", "domain"} else [unlink]
    _command(
        found, "del", _delete(kind), [_name(kind, many=True), *some], dry_run_option, yes_option
    )
    return found


def _command(
    found: click.Group,
    name: str,
    function: Callable[..., None],
    decorators: Sequence[options.Decorator],
    *more: options.Decorator,
) -> None:
    command = with_json(function)
    for decorator in reversed([*decorators, *more]):
        command = decorator(command)
    found.command(name, epilog=EXIT_STATUS)(command)


def _name(kind: str, *, many: bool) -> options.Decorator:
    return click.argument(
        "given_names",
        metavar="NAME..." if many else "NAME",
        nargs=-1 if many else 1,
        required=True,
        shell_complete=names.of(kind),
    )


def _filters(kind: str) -> list[options.Decorator]:
    found = [
        click.argument("pattern", required=False, default="", shell_complete=names.of(kind)),
        click.option("--names", "names_only", is_flag=True, help="Print names only, one per line."),
    ]
    others = {"provider": (), "domain": ("provider", "server", "service", "directory")}
    which = "of" if kind == "domain" else "that domains use of"
    found += [
        click.option(
            f"--{other}",
            metavar="NAME",
            shell_complete=names.of(other),
            help=f"Only those {which} this {other}.",
        )
        for other in others.get(kind, ("provider",))
    ]
    if kind == "domain":
        return [
            *found,
            click.option(
                "--disabled/--enabled", default=None, help="Only those that are off, or on."
            ),
            click.option("--unused", is_flag=True, help="Only those without a mail server."),
        ]
    return [*found, click.option("--unused", is_flag=True, help="Only those no domain uses.")]


def _add(kind: str) -> Callable[..., None]:
    def add(context: Context, /, dry_run: bool, **given: Any) -> None:
        value = options.given(kind, given)
        change(context, lambda changes: changes.add(kind, value), dry_run=dry_run)

    add.__doc__ = f"""Add a {selection.WORDS[kind]}.

    What is left out has the defaults of seed documents.
    """
    return add


def _list(kind: str) -> Callable[..., None]:
    def list_(context: Context, /, pattern: str, names_only: bool, **given: Any) -> None:
        with context.session() as session:
            for other in ("provider", "server", "service", "directory"):
                if given.get(other) is not None:
                    given[other] = selection.find(session, other, given[other])
            wanted = selection.Filter(pattern, **given)
            where = selection.conditions(session, kind, wanted)
            found = stored.items(session, kind, where=where)
            if names_only:
                for _, item in found:
                    say(name_of(kind, item))
                return
            rows = rowtext.with_origins(session, kind, found)
            if context.as_json:
                say_json_list(rowtext.document(item, origin) for item, origin in rows)
            elif not (selection.count(session, kind, where)):
                say(f"There are no {'such ' * bool(where)}{selection.plural(kind)}.")
            else:
                say_table(rowtext.lines(session, kind, rows))

    list_.__doc__ = f"""Print {selection.plural(kind)}, in the order of their ids.

    PATTERN is a name, in which * stands for any characters, and ? for one; quote it.
    """
    return list_


def _show(kind: str) -> Callable[..., None]:
    def show(context: Context, /, given_names: str) -> None:
        with context.session() as session:
            [row] = read_rows(session, kind, [given_names])
            used = ", ".join(map(str, _dependents(session, row)))
            text = rowtext.details(session, kind, row.item, row.origin, used)
        context.write(rowtext.document(row.item, row.origin), lambda: text)

    show.__doc__ = f"""Print all of a {selection.WORDS[kind]}; a secret is not shown.

    NAME is {_CALLED[kind].partition(";")[0]}.
    """
    return show


def _set(kind: str) -> Callable[..., None]:
    def set_(
        context: Context,
        /,
        given_names: str | tuple[str, ...],
        dry_run: bool,
        yes: bool,
        **given: Any,
    ) -> None:
        patch = options.given(kind, given)
        if not patch:
            raise click.UsageError("Say what to change; --help lists the options.")
        wanted = [given_names] if isinstance(given_names, str) else read_names(given_names)
        with context.session() as session:
            patch = resolved(session, patch)
            rows = read_rows(session, kind, wanted)
            if kind == "domain":
                ask_for_many(rows, "change", yes=yes or dry_run)
            else:
                _ask_for_dependents(session, rows, "change", yes=yes or dry_run)
        set_rows(context, [(row, patch) for row in rows], dry_run=dry_run)

    set_.__doc__ = f"""Change a {selection.WORDS[kind]}; what is left out stays.

    NAME is {_CALLED[kind]}.
    """
    return set_


def _delete(kind: str) -> Callable[..., None]:
    def delete(
        context: Context,
        /,
        given_names: tuple[str, ...],
        dry_run: bool,
        yes: bool,
        unlink: bool = False,
    ) -> None:
        wanted = read_names(given_names) if kind == "domain" else given_names
        with context.session() as session:
            rows = read_rows(session, kind, wanted)
            if kind == "domain":
                ask_for_many(rows, "delete", yes=yes or dry_run)
            elif unlink:
                _ask_for_dependents(session, rows, "delete", yes=yes or dry_run)

        def work(changes: Changes) -> None:
            for row in with_progress(rows, len(rows)):
                changes.delete(kind, row.id, unlink=unlink, expected=row.item)

        change(context, work, dry_run=dry_run, rows=rows)

    delete.__doc__ = f"""Delete {selection.plural(kind)} on which nothing depends.

    NAME is {_CALLED[kind]}.
    """
    return delete


def read_rows(session: Session, kind: str, wanted: Sequence[str]) -> list[Row]:
    """Return the rows that names mean, each once. Raises UnknownRowError, AmbiguousNameError."""
    ids = list(dict.fromkeys(selection.find(session, kind, name) for name in wanted))
    found = {
        item["id"]: Row(kind, item, origin)
        for item, origin in rowtext.with_origins(session, kind, stored.items(session, kind, ids))
    }
    return [found[row_id] for row_id in ids]


def resolved(session: Session, patch: Item) -> Item:
    """Return members with ids for the names of rows that options give."""
    found = dict(patch)
    for member, kind in members.REFERENCES.items():
        value = found.get(member)
        if member in members.LINKS and value is not None:
            ids = {selection.find(session, kind, name): None for name in value}
            found[member] = list(ids)
        elif value is not None:
            found[member] = selection.find(session, kind, value)
    return found


def _dependents(session: Session, row: Row) -> list[Dependents]:
    return dependents(session, row.kind, row.id, name_of(row.kind, row.item))


def _ask_for_dependents(session: Session, rows: Sequence[Row], verb: str, *, yes: bool) -> None:
    """Ask before a row is changed or deleted that more than one domain uses."""
    used = [(row, found) for row in rows for found in _dependents(session, row)]
    session.rollback()  # a question holds no transaction
    for row, found in used:
        if found.number > 1:
            what = f"{verb} {row.name}, which {found} use"
            confirm(f"this would {what}", question=f"{_capital(what)}?", yes=yes)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def ask_for_many(rows: Sequence[Row], verb: str, *, yes: bool) -> None:
    """Ask before several domains are changed."""
    if len(rows) > 1:
        some = ", ".join(row.item["name"] for row in rows[:5]) + ", …" * (len(rows) > 5)
        what = f"{verb} {len(rows)} domains: {some}"
        confirm(f"this would {what}", question=f"{_capital(what)}?", yes=yes)


def set_rows(context: Context, wanted: Sequence[tuple[Row, Item]], *, dry_run: bool) -> None:
    """Change rows, unless others have changed them meanwhile, and print what was changed."""

    def work(changes: Changes) -> None:
        for row, patch in with_progress(wanted, len(wanted)):
            changes.set(row.kind, row.id, patch, expected=row.item)

    change(context, work, dry_run=dry_run, rows=[row for row, _ in wanted])


def change(
    context: Context,
    work: Callable[[Changes], int | object],
    *,
    dry_run: bool,
    rows: Sequence[Row] = (),
) -> None:
    """Make changes in one transaction, and print them; warn of ``rows`` that have an origin.

    ``work`` makes them; a number that it returns is how many domains it has passed over.
    """
    with context.session() as session:
        changes = Changes(session, context.actor, now=context.now, dry_run=dry_run)
        skipped = work(changes)
        sides = [side for one in changes.made for side in (one.before, one.after) if side]
        shown = rowtext.names_in(session, sides)
        warnings = [*changes.warnings()]
        changes.finish()
    for line in warnings:
        complain(line)
    for one in changes.made:
        if one.after and not _PORTS.isdisjoint(one.difference()):
            rowtext.warn_of_port(one.kind, one.after)
    changed = {(one.kind, one.id) for one in changes.made}
    for row in rows:
        if (row.kind, row.id) in changed:
            rowtext.warn_of_origin(row.kind, row.item, row.origin)
    passed = skipped if isinstance(skipped, int) else 0
    rowtext.report(context, changes, names=shown, dry_run=dry_run, skipped=passed)


provider, server, service, directory = map(group, ("provider", "server", "service", "directory"))
