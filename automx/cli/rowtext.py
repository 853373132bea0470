"""Rows and their changes, as commands print them: JSON for programs, lines for people."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from automx import audit, members, rows
from automx.changes import Change, Changes, described, selection, stored
from automx.cli.context import Context
from automx.cli.terminal import complain, table
from automx.clientconfig import USUAL_PORTS
from automx.database import Session, chunks
from automx.members import Item

# Kind -> the members that a list shows to people.
COLUMNS = {
    "provider": ("id", "name", "short_name"),
    "directory": ("id", "name", "port", "use_ssl", "search_base"),
    "server": (*("id", "type", "name", "port", "prio", "socket_type"), "authentication"),
    "service": ("id", "type", "url", "port"),
    "domain": ("id", "name", "provider", "servers", "davservers", "ldapserver_id", "disabled"),
}
_VERBS = {"add": ("Added", "add"), "set": ("Changed", "change"), "delete": ("Deleted", "delete")}
_JSON_LISTS = {"add": "added", "set": "changed", "delete": "removed"}
_AT_ONCE = 500  # rows whose names are read by one query

Names = Mapping[tuple[str, int], str]  # (kind, id) -> name


def document(item: Item, origin: str | None) -> dict[str, Any]:
    """Return a row as JSON holds it: the members of documents, and its origin."""
    return {**audit.masked_row(item), "origin": origin}


def with_origins(
    session: Session, kind: str, found: Iterable[tuple[int, Item]]
) -> Iterator[tuple[Item, str | None]]:
    """Yield items with their origins."""
    for chunk in chunks(found, _AT_ONCE):
        origins = stored.origins(session, kind, [row_id for row_id, _ in chunk])
        for row_id, item in chunk:
            yield item, origins.get(row_id)


def lines(
    session: Session, kind: str, found: Iterable[tuple[Item, str | None]]
) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a table for people, its head first."""
    yield (*COLUMNS[kind], "origin")
    for chunk in chunks(found, _AT_ONCE):
        names = names_in(session, (item for item, _ in chunk))
        for item, origin in chunk:
            cells = (cell(column, item[column], names, short=True) for column in COLUMNS[kind])
            yield (*cells, origin or "")


def names_in(session: Session, items: Iterable[Item]) -> dict[tuple[str, int], str]:
    """Return the names of the rows that items refer to."""
    wanted: dict[str, set[int]] = {}
    for item in items:
        for member, kind in members.REFERENCES.items():
            value = item.get(member)
            ids = value if isinstance(value, list | tuple) else (value,)
            wanted.setdefault(kind, set()).update(row_id for row_id in ids if row_id is not None)
    return {
        (kind, row_id): name
        for kind, ids in wanted.items()
        for row_id, name in selection.names(session, kind, ids).items()
    }


def cell(member: str, value: object, names: Names, *, short: bool = False) -> str:
    """Return the value of a member for people; ``short``: the names of rows only."""
    if member not in members.REFERENCES:
        return _text(value, "" if short else "none")
    kind = members.REFERENCES[member]
    values = value if isinstance(value, list | tuple) else () if value is None else (value,)
    shown = [names.get((kind, row_id), "") for row_id in values]
    if not short:
        shown = [
            f"{row_id} ({name})" if name else str(row_id)
            for row_id, name in zip(values, shown, strict=True)
        ]
    return ", ".join(dict.fromkeys(shown)) or ("" if short else "none")


def _text(value: object, nothing: str) -> str:
    match value:
        case None | "" | () | []:
            return nothing
        case bool():
            return "yes" if value else "no"
        case Mapping() | list() | tuple():
            return json.dumps(audit.masked(value), ensure_ascii=False)
        case _:
            return str(value)


def flat(kind: str, item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of an item by the names of options, in their order."""
    found = {member: item[member] for member in members.MEMBERS[kind] if member in item}
    found |= {member: value for member, value in item.items() if member not in found}
    details = dict(found.pop("details", None) or {})
    for part, value in dict(details.pop("oauth2", None) or {}).items():
        details[f"oauth2_{part}"] = value
    return {**found, **details}


def masked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as people see them: without secrets and images."""
    return {name: audit.masked(value, name) for name, value in values.items()}


def details(session: Session, kind: str, item: Item, origin: str | None, used: str) -> str:
    """Return all of a row, a member on each line."""
    names = names_in(session, [item])
    values = {**dict.fromkeys(members.MEMBERS[kind]), **masked(flat(kind, item))}
    values.pop("details", None)
    lines = [(name, cell(name, value, names)) for name, value in values.items()]
    if kind != "domain":
        lines.append(("used by", used or "no domain"))
    elif used:
        lines.append(("has", used))
    return table([*lines, ("origin", origin or "none")])


def report(
    context: Context,
    changes: Changes,
    *,
    names: Names,
    dry_run: bool,
    skipped: int = 0,
    **more: object,
) -> None:
    """Print what was changed, or with ``dry_run`` what would be; ``more`` is for JSON."""
    numbers: dict[str, int] = {}
    for (action, _), number in changes.numbers.items():
        numbers[action] = numbers.get(action, 0) + number
    found: dict[str, Any] = {name: [] for name in _JSON_LISTS.values()}
    for change in changes.made:
        found[_JSON_LISTS[change.action]].append(change.document())
    found["numbers"] = {name: numbers.get(action, 0) for action, name in _JSON_LISTS.items()}
    found |= {"skipped": skipped, "dry_run": dry_run, **more}
    context.write(found, lambda: "\n".join(_report(changes, names, dry_run, skipped)))


def _report(changes: Changes, names: Names, dry_run: bool, skipped: int) -> Iterator[str]:
    for change in changes.made:
        yield _line(change, names, dry_run)
    for (action, kind), number in changes.numbers.items():
        shown = sum((one.action, one.kind) == (action, kind) for one in changes.made)
        if number > shown:
            verb = f"Would {_VERBS[action][1]}" if dry_run else _VERBS[action][0]
            more = " more" if shown else ""
            word = selection.plural(kind) if number - shown > 1 else selection.WORDS[kind]
            yield f"{verb} {number - shown}{more} {word}."
    if skipped:
        exist = "exist" if skipped > 1 else "exists"
        yield f"Passed over {skipped} that {exist} already."
    if not changes.numbers and not skipped:
        yield "Nothing would change." if dry_run else "Nothing was changed: it is so already."


def _line(change: Change, names: Names, dry_run: bool) -> str:
    done, verb = _VERBS[change.action]
    what = described(change.kind, change.item)
    line = f"Would {verb} {what}" if dry_run else f"{done} {what}"
    if change.action == "delete":
        return f"{line}."
    if change.before is None:
        new = masked(flat(change.kind, change.after or {}))
        parts = [
            f"{member} {cell(member, value, names)}"
            for member, value in new.items()
            if value not in (None, "", (), [], False) and member not in {"id", "name"}
        ]
    else:
        parts = list(differences(change, names))
    return f"{line}: {', '.join(parts)}." if parts else f"{line}."


def differences(change: Change, names: Names) -> Iterator[str]:
    """Yield the members of a row that are changed, each with its values before and after."""
    before, after = (flat(change.kind, side or {}) for side in (change.before, change.after))
    shown_before, shown_after = masked(before), masked(after)
    for member in {**before, **after}:
        if before.get(member) != after.get(member):
            old, new = (cell(member, of.get(member), names) for of in (shown_before, shown_after))
            yield f"{member} {old} -> {new}" if old != new else f"{member} (a secret)"


def warn_of_port(kind: str, item: Item) -> None:
    """Warn that the port of a mail server or a directory is usual for something else."""
    if kind == "server":
        usual, said, options = _unfit_server(item)
    elif kind == "directory":
        usual, said, options = _unfit_directory(item)
    else:
        return
    if options:
        at = f"{described(kind, item)}: port {item['port']} is usual for {usual}"
        complain(f"{at}, and this is {said}: {' or '.join(options)} may be meant")


def _unfit_server(item: Item) -> tuple[str, str, list[str]]:
    """Return what the port is usual for, what is said, and options that fit; none if it fits."""
    server = rows.mail_server(item)
    said = server.type, server.socket_type
    options = []
    if type_ := server.unfit_type:
        options.append(f"--type {type_}")
    if socket_type := server.unfit_socket_type:
        options.append(f"--socket-type {socket_type}")
    if options:
        options += [f"--port {port}" for port, pair in USUAL_PORTS.items() if pair == said][:1]
    usual = USUAL_PORTS.get(server.port, said)
    return " with ".join(usual), " with ".join(said), options


def _unfit_directory(item: Item) -> tuple[str, str, list[str]]:
    """Return the same for a directory; a URL as its name says more than the port."""
    use_ssl = rows.ldapserver_defaults(item["port"])["use_ssl"]
    fits = item["use_ssl"] == use_ssl or item["port"] not in {389, 636} or "://" in item["name"]
    said, usual = ("LDAPS", "LDAP") if item["use_ssl"] else ("LDAP", "LDAPS")
    return usual, said, [] if fits else ["--use-ssl" if use_ssl else "--no-use-ssl"]


def warn_of_origin(kind: str, item: Item, origin: str | None) -> None:
    """Warn that a row which is changed by hand comes from a file or a source."""
    if origin is not None:
        what = described(kind, item)
        complain(f"{what} comes from {origin}, whose file or source may change it back")
