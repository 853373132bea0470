"""A seed document: JSON that says what the tables shall hold, read and checked as a whole.

The documents are automx2's, version 1 and version 2. Where version 2 cannot hold what the tables
hold, keys are added to it; ``docs/seed.md`` explains each.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from automx import kinds, members, rows
from automx.errors import SeedError
from automx.kinds import Kind, shown
from automx.words import SERVICE_TYPES

SAMPLE: dict[str, Any] = {
    "version": 2,
    "provider": "Example Mail Services",
    "domains": [{"name": "example.com"}, {"name": "example.net"}, {"name": "example.org"}],
    "servers": [
        {"type": "imap", "name": "imap.example.com", "port": 993},
        {"type": "pop", "name": "pop3.example.com", "port": 995, "prio": 20},
        {"type": "smtp", "name": "smtp.example.com", "port": 465},
        {"type": "smtp", "name": "smtp.example.com", "port": 587, "prio": 20},
        {"type": "caldav", "url": "https://dav.example.com/calendars/%EMAILADDRESS%/"},
        {"type": "carddav", "url": "https://dav.example.com/contacts/%EMAILADDRESS%/"},
        {"type": "webdav", "url": "https://dav.example.com/files/%EMAILADDRESS%/"},
    ],
}

_NAME = kinds.text(64)
# Rows that keys and sources make have origins that begin so, and no document can take them.
_TAKEN = ("key:", "source:")


def _origin(value: Any) -> str:
    name: str = _NAME.normalise(value)
    if name.lower().startswith(_TAKEN):
        begin = " or ".join(_TAKEN)
        raise kinds.BadValueError(f"expected a name that does not begin with {begin}, found {name}")
    return name


# The name that a document gives to what its rows come from.
ORIGIN = replace(
    _NAME,
    normalise=_origin,
    schema=kinds.string_schema(64, pattern="^(?!([Kk][Ee][Yy]|[Ss][Oo][Uu][Rr][Cc][Ee]):)"),
)

_NAMED = 5  # domains in a warning
_INCOMING, _OUTGOING = {"imap", "pop"}, {"smtp"}

Row = dict[str, Any]  # column -> value

# The tables of a document; each stands after those that it refers to.
_TABLES = (
    *("provider", "provider_detail", "documentation"),
    *("ldapserver", "ldapserver_detail", "server", "davserver", "domain", "disabled_domain"),
)


class Object(NamedTuple):
    """An object of a document; ``kept`` are the members of which it says nothing, not a default."""

    path: str
    item: members.Item
    kept: tuple[str, ...] = ()


@dataclass
class SeedRows:
    """The rows of a checked document, by table; rows may have None as id.

    ``warnings`` are about keys that have no effect, and about rows that serve no client.
    ``origin`` is what the document says.
    ``objects`` has the objects of the document, by kind of row, if they are asked for.

    Rows that belong to another one have its index in place of its id: details and pages of a
    provider, details of a directory, ``disabled_domain``. A domain without provider belongs to the
    document's only provider. ``links`` has, by the
    table of servers, the ids that each domain names, None for all servers of the document.
    ``paths`` says where each id of the document is, ``outside`` where an id that the document
    does not hold, and that must therefore be in the database: (table, id) -> path. ``named`` says
    the same of the names by which domains refer to providers and directories.
    """

    rows: dict[str, list[Row]] = field(default_factory=lambda: {table: [] for table in _TABLES})
    domains: dict[str, int] = field(default_factory=dict)  # A-label -> index
    links: dict[str, list[tuple[int, ...] | None]] = field(
        default_factory=lambda: {"server": [], "davserver": []}
    )
    paths: dict[tuple[str, int], str] = field(default_factory=dict)
    outside: dict[tuple[str, int], str] = field(default_factory=dict)
    named: dict[tuple[str, str], str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    origin: str | None = None
    objects: dict[str, list[Object]] = field(default_factory=dict)

    def add(self, table: str, row: Row, path: str) -> None:
        """Add a row; raises SeedError if another one of the document has its id."""
        self.rows[table].append(row)
        row_id = row["id"]
        if row_id is not None and (first := self.paths.setdefault((table, row_id), path)) != path:
            raise SeedError(f"{path}.id: expected another id than that of {first}, found {row_id}")

    def add_item(self, kind: str, item: members.Item, path: str) -> None:
        """Add the rows of an item (see members); raises SeedError as add()."""
        match kind:
            case "provider":
                self.rows["provider_detail"] += detail_rows(item, len(self.rows["provider"]))
                self.rows["documentation"] += page_rows(item, len(self.rows["provider"]))
                self.add("provider", {key: item[key] for key in ("id", *rows.PROVIDER)}, path)
            case "directory":
                row, detail = rows.split_ldapserver(item)
                if detail:
                    index = {"ldapserver_id": len(self.rows["ldapserver"])}
                    self.rows["ldapserver_detail"].append(detail | index)
                self.add("ldapserver", row, path)
            case "domain":
                for key, referred in members.REFERENCES.items():
                    table, found = members.TABLES[referred], item[key]
                    for row_id in found if isinstance(found, tuple) else (found,):
                        if isinstance(row_id, str):
                            self.named.setdefault((table, row_id), members.below(path, key))
                        elif row_id is not None:
                            self.refer(table, row_id, members.below(path, key))
                for table, links in self.links.items():
                    links.append(item[f"{table}s"])
                row = {key: item[key] for key in ("id", "name", "ldapserver_id")}
                if item["disabled"]:
                    disabled = {"domain_id": len(self.rows["domain"])}
                    self.rows["disabled_domain"].append(disabled)
                self.add("domain", row | {"provider_id": item["provider"]}, path)
            case _:
                self.add(members.TABLES[kind], item, path)

    def refer(self, table: str, row_id: int, path: str) -> None:
        """Note that the document refers to a row; its own rows are known by then."""
        if (table, row_id) not in self.paths:
            self.outside.setdefault((table, row_id), path)

    def row_named(self, table: str, name: str, ids: Collection[int]) -> int:
        """Return the only one of the ids of rows that have a name; SeedError if there is none."""
        if len(ids) == 1:
            return next(iter(ids))
        path = self.named[table, name]
        if ids:
            found = ", ".join(map(str, sorted(ids)))
            raise SeedError(f"{path}: expected one of the ids {found}, found the name of all these")
        raise SeedError(
            f"{path}: expected the name of a {table} in this document or in the database, "
            f"found {shown(name)}"
        )


def detail_rows(provider: members.Item, provider_id: int) -> list[Row]:
    """Return the row of ``provider_detail`` of the item of a provider, or none."""
    details = dict(provider["details"])
    if not details:
        return []
    columns: Row = dict.fromkeys(rows.PROVIDER_DETAIL)
    logo, oauth2 = details.pop("logo", {}), details.pop("oauth2", {})
    details.pop("documentation", None)
    if logo:
        columns |= {"logo": logo["data"]}
        columns |= {f"logo_{key}": value for key, value in logo.items() if key != "data"}
    columns |= {f"oauth2_{key}": value for key, value in oauth2.items()}
    return [{"provider_id": provider_id, **columns, **details}]


def page_rows(provider: members.Item, provider_id: int) -> list[Row]:
    """Return the rows of ``documentation`` of the item of a provider."""
    pages = provider["details"].get("documentation", ())
    return [{"provider_id": provider_id, **page} for page in pages]


def parse(data: bytes, source: str) -> object:
    """Return what the JSON text ``data`` holds; ``source`` names it in errors, such as a file.

    Raises SeedError with line and column if it is not JSON (RFC 8259) in UTF-8.
    """
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise SeedError(f"{source}: line {line}, column {column} is not UTF-8") from error
    try:
        return json.loads(content, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        reason = error.msg[0].lower() + error.msg[1:]
        raise SeedError(f"{source}: {where} is not valid JSON: {reason}") from error
    except _DuplicateKeyError as error:
        raise SeedError(f"{source}: the key {error} stands twice in one object") from error
    except (ValueError, RecursionError) as error:  # an absurdly long number, absurd nesting
        raise SeedError(f"{source} cannot be read as JSON: {error}") from error


class _DuplicateKeyError(Exception):
    """A key that stands twice in one object, where the first value would silently be lost."""


def _constant(word: str) -> None:
    raise ValueError(f"{word} is no value of JSON")  # Python reads NaN and Infinity


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        numbers = Counter(key for key, _ in pairs)
        raise _DuplicateKeyError(shown(next(key for key in numbers if numbers[key] > 1)))
    return result


def read(document: object, *, with_objects: bool = False) -> SeedRows:
    """Return the rows of a document, and its objects if these are asked for.

    Raises SeedError for the first thing that is wrong: with the path of the key, what was expected
    and what was found.
    """
    seed = SeedRows()
    if with_objects:
        seed.objects = {kind: [] for kind in members.TABLES}
    version = document.get("version", 1) if isinstance(document, dict) else 2
    keys = _COMMON_KEYS if version == 1 else DOCUMENT_KEYS
    top = members.fields(document, keys, "", ("domains", "servers"))
    seed.origin = top.get("origin")
    _read_providers(seed, top)
    for index, value in enumerate(top.get("ldapservers", ())):
        path = f"ldapservers[{index}]"
        item = members.read("directory", value, path)
        is_said = isinstance(value, dict) and "bind_password" in value
        _add(seed, "directory", item, path, () if is_said else ("bind_password",))
    for index, value in enumerate(top["servers"]):
        path = f"servers[{index}]"
        _add(seed, *_server(seed, value, path), path)
    _read_domains(seed, top["domains"], version)
    seed.warnings += _domains_without_servers(seed)
    return seed


def _add(
    seed: SeedRows, kind: str, item: members.Item, path: str, kept: tuple[str, ...] = ()
) -> None:
    seed.add_item(kind, item, path)
    if seed.objects:
        seed.objects[kind].append(Object(path, item, kept))


def _read_providers(seed: SeedRows, top: dict[str, Any]) -> None:
    is_one = "provider" in top
    if is_one == ("providers" in top):
        found = "both" if is_one else "none"
        raise SeedError(
            f"the document: expected one of the keys provider and providers, found {found}"
        )
    names: Row = {key: top[key] for key in ("short_name", "details") if key in top}
    if names and not is_one:
        raise SeedError(
            f"{next(iter(names))}: expected beside provider only, found beside providers"
        )
    values = [{"name": top["provider"]} | names] if is_one else top["providers"]
    for index, value in enumerate(values):
        path = "" if is_one else f"providers[{index}]"
        _add(seed, "provider", members.read("provider", value, path), path)


def _read_domains(seed: SeedRows, values: list[Any], version: object) -> None:
    for index, value in enumerate(values):
        path = f"domains[{index}]"
        is_name = version == 1
        domain = {"name": members.one(value, members.DOMAIN["name"], path)} if is_name else value
        item = _domain(domain, path)
        first = seed.domains.setdefault(kinds.domain_a_label(item["name"]), index)
        if first != index:
            raise SeedError(
                f"{path}: expected another domain than that of domains[{first}], "
                f"found {shown(item['name'])}"
            )
        if item["provider"] is None and len(seed.rows["provider"]) != 1:
            raise SeedError(
                f"{path}: the key provider is missing; expected the id of a provider, because "
                f"the document does not have exactly one"
            )
        _add(seed, "domain", item, path)


def _domains_without_servers(seed: SeedRows) -> Iterator[str]:
    """Yield warnings of domains without mail servers, or without those for one direction."""
    types = {row["id"]: row["type"] for row in seed.rows["server"]}
    of_all = {row["type"] for row in seed.rows["server"]}
    off = {row["domain_id"] for row in seed.rows["disabled_domain"]}
    found: dict[str, list[str]] = {}
    for index, ids in enumerate(seed.links["server"]):
        if index in off or any(row_id not in types for row_id in ids or ()):
            continue  # servers of the database
        lacks = _lacks(of_all if ids is None else {types[row_id] for row_id in ids})
        if lacks:
            found.setdefault(lacks, []).append(seed.rows["domain"][index]["name"])
    for lacks, names in found.items():
        some = ", ".join(names[:_NAMED]) + ", …" * (len(names) > _NAMED)
        verb = "have" if len(names) > 1 else "has"
        number = f"{len(names)} domains: " * (len(names) > _NAMED)
        yield f"{number}{some} {verb} {lacks}: most clients need incoming and outgoing ones"


def _lacks(types: set[str]) -> str:
    has_incoming, has_outgoing = bool(types & _INCOMING), bool(types & _OUTGOING)
    match has_incoming, has_outgoing:
        case True, True:
            return ""
        case True, False:
            return "incoming mail servers only"
        case False, True:
            return "outgoing mail servers only"
    return "no mail server"


def _domain(value: object, path: str) -> members.Item:
    """Return the item of a domain, which may name its provider and its directory by their names."""
    names: members.Item = {}
    if isinstance(value, dict):
        for key, kind in BY_NAME.items():
            if isinstance(name := value.get(key), str):
                names[key] = members.one(name, kind, f"{path}.{key}")
    if names and isinstance(value, dict):
        value = {key: item for key, item in value.items() if key not in names}
    return members.read("domain", value, path) | names


def _server(seed: SeedRows, value: object, path: str) -> tuple[str, members.Item]:
    """Return the kind and the item of a mail server or (those with a ``url``) of a service."""
    type_ = value.get("type") if isinstance(value, dict) else None
    if type_ is not None:  # an unknown type explains all other errors
        type_ = members.one(type_, members.TYPE, f"{path}.type")
    if type_ not in SERVICE_TYPES:
        return "server", members.read("server", value, path)
    if isinstance(value, dict) and "name" in value:  # as in documents of automx2
        value = {key: item for key, item in value.items() if key != "name"}
        seed.warnings.append(f"{path}.name has no effect: a service has a url")
    return "service", members.read("service", value, path)


_COMMON_KEYS = {
    "$schema": Kind("the address of a JSON Schema", kinds.string),
    "origin": ORIGIN,
    "version": Kind("1 or 2", kinds.number(1, 2).normalise),
    "provider": rows.PROVIDER["name"],
    "domains": kinds.list_of('"example.com"'),
    "servers": kinds.list_of('{"type": "imap", "name": "imap.example.com"}'),
}
DOCUMENT_KEYS = _COMMON_KEYS | {
    "short_name": rows.PROVIDER["short_name"],
    "details": members.PROVIDER["details"],
    "providers": kinds.list_of('{"id": 1, "name": "Example Inc."}'),
    "domains": kinds.list_of('{"name": "example.com"}'),
    "ldapservers": kinds.list_of(
        '{"id": 1, "name": "ldap.example.com", "search_base": "dc=example"}'
    ),
}

# The members of a domain that may be the name of a row, and what such a name is.
BY_NAME = {"provider": rows.PROVIDER["name"], "ldapserver_id": rows.LDAPSERVER["name"]}
