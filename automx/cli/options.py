"""Options from the definitions of members: ``socket_type`` becomes ``--socket-type``.

Details of a provider have an option each: ``oauth2.issuer`` becomes ``--oauth2-issuer``.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from automx import members, rows
from automx.cli import logo, names
from automx.cli.addresses import PATH
from automx.cli.terminal import read_secret
from automx.kinds import BOOLEAN, BadValueError, Kind

Decorator = Callable[[Any], Any]

_SECRET = "_stdin"  # noqa: S105 - the end of the name of an option
# What a member is for, where its name and its values do not tell.
_PURPOSES = {
    "id": "the id, by default the next free one",
    "prio": "the server with the lowest number is preferred",
    "user_name": "the login name",
    "domain_required": "whether the login name has the domain",
    "use_ssl": "whether the connection is encrypted",
    "disabled": "whether the domain is answered as an unknown one",
    "search_base": "where people are looked for, several with ; between",
    "search_filter": "the filter of the search; {0} is the address",
    "attr_uid": "the attribute with the login name",
    "attr_cn": "the attribute with the display name",
    "login_name": "a template of login names",
    "bind_user": "who looks for people",
}


def of_members(kind: str, *, is_new: bool) -> list[Decorator]:
    """Return the options of a command that adds (``is_new``) or sets a row of a kind."""
    found = []
    columns = dict(members.MEMBERS[kind])
    if "type" in columns:  # documents allow the types of both kinds, for a better error
        columns["type"] = rows.TABLES[members.TABLES[kind]]["type"]
    for member, values in columns.items():
        if member in {"details", "id"} or (kind == "domain" and member == "name" and is_new):
            continue
        is_needed = is_new and member in members.REQUIRED[kind]
        found.append(
            _reference(member)
            if member in members.REFERENCES
            else _plain(member, values, required=is_needed)
        )
    if kind == "provider":
        found += _details()
    if is_new:
        return [*found, _plain("id", members.MEMBERS[kind]["id"])] if kind != "domain" else found
    unset = click.option(
        "--unset",
        multiple=True,
        metavar="MEMBER",
        type=click.Choice(list(_unsettable(kind))),
        help="Give a member its default again, or no value; may be repeated.",
    )
    return [*found, unset]


def _plain(member: str, kind: Kind, *, required: bool = False) -> Decorator:
    option = "--" + member.replace("_", "-")
    purpose = _PURPOSES.get(member, "")
    if kind is BOOLEAN:
        pair = f"{option}/--no-{option[2:]}"
        return click.option(pair, default=None, help=_sentence(purpose))
    if kind.secret:
        secret = member.replace("_", " ")
        return click.option(
            f"{option}-stdin",
            is_flag=True,
            help=f"Read the {secret} from standard input; a terminal asks for it.",
        )
    help_ = _sentence(": ".join(filter(None, (purpose, kind.expected))))
    metavar = "WORD" if kind.words else "FILE" if member == "logo" else "VALUE"
    return click.option(
        option,
        member,
        metavar=metavar,
        required=required,
        callback=_reader(member, kind),
        shell_complete=_words(kind),
        help=help_,
    )


def _reference(member: str) -> Decorator:
    kind = members.REFERENCES[member]
    is_list = member in members.LINKS
    may = "; may be repeated" if is_list else ""
    named = (f"--{kind}", "--" + member.replace("_", "-"))
    return click.option(
        *dict.fromkeys(named),
        member,
        metavar=kind.upper(),
        multiple=is_list,
        shell_complete=names.of(kind),
        help=f"The {kind}, by its name or id{may}.",
    )


def _details() -> Iterator[Decorator]:
    for member, kind in members.DETAILS.items():
        match member:
            case "logo":
                yield click.option(
                    "--logo",
                    type=PATH,
                    metavar="FILE",
                    callback=lambda _context, _option, path: path and logo.read(path),
                    help="An image in PNG, JPEG, WebP or SVG, which says its size in pixels.",
                )
            case "oauth2":
                for part, values in members.OAUTH2.items():
                    yield _plain(f"oauth2_{part}", values)
            case "documentation":
                yield click.option(
                    "--documentation",
                    multiple=True,
                    metavar="'URL [LANG [TEXT]]'",
                    callback=_pages,
                    help="A page that explains the settings; may be repeated, and replaces all.",
                )
            case _:
                yield _plain(member, kind)


def _pages(
    _context: click.Context, _option: click.Parameter, pages: Sequence[str]
) -> list[dict[str, str]]:
    """Return pages with their URL, language and text."""
    found = []
    for page in pages:
        parts = page.split(None, 2) or [""]
        try:
            parts[0] = rows.DOCUMENTATION["url"].read(parts[0])
        except BadValueError as error:
            raise click.BadParameter(f"{error}.") from error
        found.append(dict(zip(("url", "lang", "text"), parts, strict=False)))
    return found


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _reader(member: str, kind: Kind) -> Callable[..., Any]:
    """Return the callback that reads a value as the kind of its member does."""

    def read(_context: click.Context, _option: click.Parameter, text: str | None) -> Any:
        if text is None or (member == "socket_type" and text.upper() == "TLS"):
            return text  # what TLS means depends on the port
        try:
            return kind.read(text)
        except BadValueError as error:
            if not re.fullmatch(r"[+-]?[0-9]{1,20}", text):
                raise click.BadParameter(f"{error}.") from error
        try:
            return kind.read(int(text))
        except BadValueError as error:
            raise click.BadParameter(f"{error}.") from error

    return read


def _words(kind: Kind) -> names.Complete:
    def complete(
        _context: click.Context, _option: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        begin = incomplete.lower()
        return [CompletionItem(word) for word in kind.words if word.lower().startswith(begin)]

    return complete


def given(kind: str, options: Mapping[str, Any]) -> members.Item:
    """Return the members that options of of_members() give; rows that they name are names still."""
    found: members.Item = {}
    for member, values in members.MEMBERS[kind].items():
        value = options.get(member)
        if values.secret:
            if options.get(f"{member}{_SECRET}"):
                found[member] = read_secret(member.replace("_", " "))
        elif value is not None and value != ():
            found[member] = value
    if kind == "provider" and (details := _given_details(options)):
        found["details"] = details
    for name in options.get("unset", ()):
        *path, last = _unsettable(kind)[name]
        place: members.Item | None = found
        for part in path:
            place = None if place is None else place.setdefault(part, {})
        if place is None:  # all around it is unset as well
            continue
        if place.get(last) is not None:
            raise click.UsageError(f"{name} is both given and unset.")
        place[last] = None
    return found


def _given_details(options: Mapping[str, Any]) -> members.Item:
    found = {
        member: options[member]
        for member in members.DETAILS
        if member not in {"oauth2", "documentation"} and options.get(member) is not None
    }
    oauth2 = {part: options.get(f"oauth2_{part}") for part in members.OAUTH2}
    if oauth2 := {part: value for part, value in oauth2.items() if value is not None}:
        found["oauth2"] = oauth2
    if pages := options.get("documentation"):
        found["documentation"] = pages
    return found


def _unsettable(kind: str) -> dict[str, tuple[str, ...]]:
    """Return the names for --unset, each with the path of its member."""
    needed = {"id", "name", "type", "url", "provider", "details", "disabled"}
    found: dict[str, tuple[str, ...]] = {
        name: (name,) for name in members.MEMBERS[kind] if name not in needed
    }
    if kind == "provider":
        found |= {name: ("details", name) for name in members.DETAILS}
        parts = [part for part in members.OAUTH2 if part != "issuer"]
        found |= {f"oauth2_{part}": ("details", "oauth2", part) for part in parts}
    return found
