"""A seed document: JSON that says what the tables shall hold, read and checked as a whole.

The documents are automx2's, version 1 and version 2. Where version 2 cannot hold what the tables
hold, keys are added to it; ``docs/seed.md`` explains each.
"""

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from automx import kinds, rows
from automx.errors import SeedError
from automx.kinds import Kind, shown
from automx.words import SERVER_TYPES, SERVICE_TYPES

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

Row = dict[str, Any]  # column -> value

# The tables of a document; each stands after those that it refers to.
_TABLES = (
    *("provider", "provider_detail", "documentation"),
    *("ldapserver", "ldapserver_detail", "server", "davserver", "domain"),
)


@dataclass
class SeedRows:
    """The rows of a checked document, by table; rows may have None as id.

    ``warnings`` are about keys that have no effect.

    The ``provider_id`` of details is the index of the provider; a domain without one belongs to
    the document's only provider. ``links`` has, by the
    table of servers, the ids that each domain names, None for all servers of the document.
    ``paths`` says where each id of the document is, ``outside`` where an id that the document
    does not hold, and that must therefore be in the database: (table, id) -> path.
    """

    rows: dict[str, list[Row]] = field(default_factory=lambda: {table: [] for table in _TABLES})
    domains: dict[str, int] = field(default_factory=dict)  # A-label -> index
    links: dict[str, list[tuple[int, ...] | None]] = field(
        default_factory=lambda: {"server": [], "davserver": []}
    )
    paths: dict[tuple[str, int], str] = field(default_factory=dict)
    outside: dict[tuple[str, int], str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(self, table: str, row: Row, path: str) -> None:
        """Add a row; raises SeedError if another one of the document has its id."""
        self.rows[table].append(row)
        row_id = row["id"]
        if row_id is not None and (first := self.paths.setdefault((table, row_id), path)) != path:
            raise SeedError(f"{path}.id: expected another id than that of {first}, found {row_id}")

    def refer(self, table: str, row_id: int, path: str) -> None:
        """Note that the document refers to a row; its own rows are known by then."""
        if (table, row_id) not in self.paths:
            self.outside.setdefault((table, row_id), path)


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


def read(document: object) -> SeedRows:
    """Return the rows of a document.

    Raises SeedError for the first thing that is wrong: with the path of the key, what was expected
    and what was found.
    """
    seed = SeedRows()
    version = document.get("version", 1) if isinstance(document, dict) else 2
    keys = _COMMON_KEYS if version == 1 else DOCUMENT_KEYS
    top = _fields(document, keys, "", ("domains", "servers"))
    _read_providers(seed, top)
    for index, item in enumerate(top.get("ldapservers", ())):
        path = f"ldapservers[{index}]"
        fields = _fields(item, LDAPSERVER_KEYS, path, ("id", "name", "search_base"))
        columns = rows.ldapserver_defaults(fields.get("port")) | fields
        row, detail = rows.split_ldapserver(columns)
        seed.add("ldapserver", row, path)
        seed.rows["ldapserver_detail"] += [detail] if detail else []
    for index, item in enumerate(top["servers"]):
        path = f"servers[{index}]"
        row = _server_row(seed, item, path)
        seed.add("davserver" if "url" in row else "server", row, path)
    _read_domains(seed, top["domains"], version)
    return seed


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
    items = [{"name": top["provider"]} | names] if is_one else top["providers"]
    for index, item in enumerate(items):
        path = "" if is_one else f"providers[{index}]"
        fields = _fields(item, PROVIDER_KEYS, path, ("name",))
        if "details" in fields:
            _read_details(seed, index, fields.pop("details"), _below(path, "details"))
        short_name = rows.default_short_name(fields["name"])
        seed.add("provider", {"id": None, "short_name": short_name} | fields, path)


def _read_domains(seed: SeedRows, items: list[Any], version: object) -> None:
    for index, item in enumerate(items):
        path = f"domains[{index}]"
        domain = {"name": _value(item, DOMAIN_KEYS["name"], path)} if version == 1 else item
        row: Row = dict.fromkeys(DOMAIN_KEYS) | _fields(domain, DOMAIN_KEYS, path, ("name",))
        first = seed.domains.setdefault(kinds.domain_a_label(row["name"]), index)
        if first != index:
            raise SeedError(
                f"{path}: expected another domain than that of domains[{first}], "
                f"found {shown(row['name'])}"
            )
        if row["provider"] is None and len(seed.rows["provider"]) != 1:
            raise SeedError(
                f"{path}: the key provider is missing; expected the id of a provider, because "
                f"the document does not have exactly one"
            )
        for key, table in _REFERENCES.items():
            found = row[key]
            for row_id in found if isinstance(found, tuple) else (found,):
                if row_id is not None:
                    seed.refer(table, row_id, f"{path}.{key}")
        for table, links in seed.links.items():
            links.append(row.pop(f"{table}s"))
        row["provider_id"] = row.pop("provider")
        seed.add("domain", row, path)


def _read_details(seed: SeedRows, provider: int, item: object, path: str) -> None:
    fields = _fields(item, _DETAIL_KEYS, path, ())
    columns: Row = {"provider_id": provider, **dict.fromkeys(rows.PROVIDER_DETAIL)}
    if "logo" in fields:
        logo = _fields(fields.pop("logo"), _LOGO_KEYS, f"{path}.logo", _LOGO_KEYS)
        columns |= {"logo": logo.pop("data")} | {f"logo_{key}": logo[key] for key in logo}
    if "oauth2" in fields:
        oauth2 = _fields(fields.pop("oauth2"), _OAUTH2_KEYS, f"{path}.oauth2", ("issuer",))
        columns |= {f"oauth2_{key}": oauth2[key] for key in oauth2}
    for index, page in enumerate(fields.pop("documentation", ())):
        where = f"{path}.documentation[{index}]"
        page_row: Row = {"provider_id": provider, "lang": "", "text": ""}
        page_row |= _fields(page, rows.DOCUMENTATION, where, ("url",))
        seed.rows["documentation"].append(page_row)
    seed.rows["provider_detail"].append(columns | fields)


def _server_row(seed: SeedRows, item: object, path: str) -> Row:
    """Return the columns of a mail server or (those with a ``url``) of a service, complete.

    Raises SeedError.
    """
    type_ = item.get("type") if isinstance(item, dict) else None
    if type_ is not None:  # an unknown type explains all other errors
        type_ = _value(type_, _TYPE, f"{path}.type")
    if type_ in SERVICE_TYPES:
        if isinstance(item, dict) and "name" in item:  # as in documents of automx2
            item = {key: value for key, value in item.items() if key != "name"}
            seed.warnings.append(f"{path}.name has no effect: a service has a url")
        fields = _fields(item, SERVICE_KEYS, path, ("type", "url"))
        for defect in rows.unfit_url(fields):
            raise SeedError(f"{path}.{defect}")
        return {"id": None} | rows.service_defaults(fields["url"]) | fields
    if isinstance(item, dict):
        item = rows.with_clear_socket_type(item, rows.MAIL_PORTS.get(str(type_)))
    fields = _fields(item, SERVER_KEYS, path, ("type", "name"))
    return {"id": None} | rows.server_defaults(fields["type"], fields.get("port")) | fields


def _ids(value: Any) -> tuple[int, ...]:
    return tuple(sorted({rows.ID.normalise(item) for item in kinds.instance(value, list)}))


_IDS = Kind("a list of ids such as [1, 2]", _ids)
_TYPE = kinds.word({**SERVER_TYPES, **SERVICE_TYPES})
_DETAILS = kinds.object_of('{"webmail_url": "https://…"}')
_COMMON_KEYS = {
    "version": Kind("1 or 2", kinds.number(1, 2).normalise),
    "provider": rows.PROVIDER["name"],
    "domains": kinds.list_of('"example.com"'),
    "servers": kinds.list_of('{"type": "imap", "name": "imap.example.com"}'),
}
DOCUMENT_KEYS = _COMMON_KEYS | {
    "short_name": rows.PROVIDER["short_name"],
    "details": _DETAILS,
    "providers": kinds.list_of('{"id": 1, "name": "Example Inc."}'),
    "domains": kinds.list_of('{"name": "example.com"}'),
    "ldapservers": kinds.list_of(
        '{"id": 1, "name": "ldap.example.com", "search_base": "dc=example"}'
    ),
}
PROVIDER_KEYS = {"id": rows.ID, **rows.PROVIDER, "details": _DETAILS}
LDAPSERVER_KEYS = {"id": rows.ID, **rows.LDAPSERVER}
SERVER_KEYS = {"id": rows.ID, **rows.SERVER, "type": _TYPE}
SERVICE_KEYS = {"id": rows.ID, **rows.DAVSERVER, "type": _TYPE}
DOMAIN_KEYS = {
    "id": rows.ID,
    "name": rows.DOMAIN["name"],
    "provider": rows.ID,
    "ldapserver_id": rows.DOMAIN["ldapserver_id"],
    "servers": _IDS,
    "davservers": _IDS,
}


# The keys of a domain that refer to rows, and their tables.
_REFERENCES = {
    "provider": "provider",
    "ldapserver_id": "ldapserver",
    "servers": "server",
    "davservers": "davserver",
}
_LOGO_KEYS = {column.partition("_")[2] or "data": kind for column, kind in rows.LOGO.items()}
_OAUTH2_KEYS = {column.partition("_")[2]: kind for column, kind in rows.OAUTH2.items()}
_DETAIL_KEYS = {
    **rows.CONTACT,
    "logo": kinds.object_of('{"type": "image/png", "data": …}'),
    "oauth2": kinds.object_of('{"issuer": "login.example.com"}'),
    "documentation": kinds.list_of(
        '{"url": "https://…", "lang": "en", "text": "Set up your mail"}'
    ),
}


def _fields(
    value: object, keys: Mapping[str, Kind], path: str, required: Iterable[str]
) -> dict[str, Any]:
    """Return the checked values of one object's keys, without ``_comment`` and the like.

    ``path`` is "" for the document itself.
    """
    here = path or "the document"
    if not isinstance(value, dict):
        raise SeedError(f"{here}: expected an object ({{…}}), found {shown(value)}")
    fields: dict[str, Any] = {}
    for key, item in value.items():
        if kind := keys.get(key):
            fields[key] = _value(item, kind, _below(path, key))
        elif not key.startswith("_"):
            near = " or ".join(difflib.get_close_matches(key, keys))
            hint = f"did you mean {near}?" if near else f"expected one of {', '.join(keys)}"
            raise SeedError(f"{here}: the key {shown(key)} is not known here; {hint}")
    for key in required:
        if key not in fields:
            raise SeedError(f"{here}: the key {key} is missing; expected {keys[key].expected}")
    return fields


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _value(value: object, kind: Kind, path: str) -> Any:
    try:
        return kind.read(value)
    except kinds.BadValueError as error:
        raise SeedError(f"{path}: {error}") from None
