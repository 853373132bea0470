"""The members of the objects by which documents, commands and the API say what a row holds.

An *item* is such an object, read and complete: each member has a value in its normal form. Members
have the names of columns where there is a column.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from automx import kinds, rows
from automx.errors import SeedError
from automx.kinds import Kind, shown
from automx.words import SERVER_TYPES, SERVICE_TYPES

Item = dict[str, Any]  # member -> value

# Kind of row -> its table.
TABLES = {
    "provider": "provider",
    "directory": "ldapserver",
    "server": "server",
    "service": "davserver",
    "domain": "domain",
}


def _ids(value: Any) -> tuple[int, ...]:
    return tuple(sorted({kinds.ID.normalise(item) for item in kinds.instance(value, list)}))


IDS = Kind(
    "a list of ids such as [1, 2]",
    _ids,
    schema={"type": "array", "items": kinds.ID.schema, "uniqueItems": True},
)
TYPE = kinds.word({**SERVER_TYPES, **SERVICE_TYPES})
_DETAILS = kinds.object_of('{"webmail_url": "https://…"}')
PROVIDER = {"id": kinds.ID, **rows.PROVIDER, "details": _DETAILS}
DIRECTORY = {"id": kinds.ID, **rows.LDAPSERVER}
SERVER = {"id": kinds.ID, **rows.SERVER, "type": TYPE}
SERVICE = {"id": kinds.ID, **rows.DAVSERVER, "type": TYPE}
DOMAIN = {
    "id": kinds.ID,
    "name": rows.DOMAIN["name"],
    "provider": kinds.ID,
    "ldapserver_id": rows.DOMAIN["ldapserver_id"],
    "servers": IDS,
    "davservers": IDS,
    "disabled": kinds.BOOLEAN,
}
# Kind of row -> its members.
MEMBERS: dict[str, Mapping[str, Kind]] = {
    "provider": PROVIDER,
    "directory": DIRECTORY,
    "server": SERVER,
    "service": SERVICE,
    "domain": DOMAIN,
}
# Kind of row -> the members that have no default.
REQUIRED = {
    "provider": ("name",),
    "directory": ("name", "search_base"),
    "server": ("type", "name"),
    "service": ("type", "url"),
    "domain": ("name",),
}
# Member of a domain -> the kind of the row, or rows, that it refers to.
REFERENCES = {
    "provider": "provider",
    "ldapserver_id": "directory",
    "servers": "server",
    "davservers": "service",
}
LINKS = ("servers", "davservers")  # those that refer to several
LOGO = {column.partition("_")[2] or "data": kind for column, kind in rows.LOGO.items()}
OAUTH2 = {column.partition("_")[2]: kind for column, kind in rows.OAUTH2.items()}
DETAILS = {
    **rows.CONTACT,
    "logo": kinds.object_of('{"type": "image/png", "data": …}'),
    "oauth2": kinds.object_of('{"issuer": "login.example.com"}'),
    "documentation": kinds.list_of(
        '{"url": "https://…", "lang": "en", "text": "Set up your mail"}'
    ),
}


def read(kind: str, value: object, path: str = "") -> Item:
    """Return the item of an object; members that it leaves out have their defaults.

    The default of ``id`` is None: the next free one. ``path`` names the object in errors. Raises
    SeedError with the path of the member, what was expected and what was found.
    """
    if kind == "server":
        value = _with_clear_socket_type(value)
    item = fields(value, MEMBERS[kind], path, REQUIRED[kind])
    defaults: Item
    match kind:
        case "provider":
            defaults = {"short_name": rows.default_short_name(item["name"]), "details": {}}
            item["details"] = _details(item.get("details", {}), below(path, "details"))
        case "directory":
            defaults = rows.ldapserver_defaults(item.get("port"))
        case "server":
            if item["type"] not in SERVER_TYPES:
                where, found = below(path, "type"), shown(item["type"])
                raise SeedError(f"{where}: expected that of a mail server, found {found}")
            defaults = rows.server_defaults(item["type"], item.get("port"))
        case "service":
            defaults = rows.service_defaults(item["url"])
            for defect in rows.unfit_url(item):
                raise SeedError(f"{path}.{defect}" if path else defect)
        case _:
            defaults = dict.fromkeys(DOMAIN) | {"disabled": False}
    return {"id": None} | defaults | item


def changed(kind: str, item: Item, patch: Mapping[str, Any], path: str = "") -> Item:
    """Return an item with the members of ``patch`` (JSON Merge Patch, RFC 7396).

    A member that is null gets its default if it cannot be null. Raises SeedError as read().
    """
    merged = _merged(item, patch)
    nulls = {key: None for key, value in patch.items() if value is None and _may_be_null(kind, key)}
    return read(kind, merged | nulls, path)


def _may_be_null(kind: str, member: str) -> bool:
    try:
        return MEMBERS[kind][member].read(None) is None
    except (KeyError, kinds.BadValueError):
        return False


def _merged(old: object, patch: Mapping[str, Any]) -> Item:
    found = old.items() if isinstance(old, Mapping) else ()
    merged = {key: _plain(value) for key, value in found if value is not None}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value) if isinstance(value, Mapping) else value
    return merged


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _with_clear_socket_type(server: object) -> object:
    if not isinstance(server, dict):
        return server
    type_ = str(server.get("type")).strip().lower()
    return dict(rows.with_clear_socket_type(server, rows.MAIL_PORTS.get(type_)))


def _details(value: object, path: str) -> Item:
    """Return the details that have a value: null says the same as nothing."""
    given = fields(value, DETAILS, path, ())
    item: Item = {key: each for key, each in given.items() if each is not None}
    if "logo" in item:
        item["logo"] = fields(item["logo"], LOGO, f"{path}.logo", LOGO)
    if "oauth2" in item:
        item["oauth2"] = fields(item["oauth2"], OAUTH2, f"{path}.oauth2", ("issuer",))
    pages = enumerate(item.pop("documentation", ()))
    found = [
        {"lang": "", "text": ""}
        | fields(page, rows.DOCUMENTATION, f"{path}.documentation[{index}]", ("url",))
        for index, page in pages
    ]
    return item | ({"documentation": found} if found else {})


def fields(
    value: object, keys: Mapping[str, Kind], path: str, required: Iterable[str]
) -> dict[str, Any]:
    """Return the checked values of one object's keys, without ``_comment`` and the like.

    ``path`` is "" for the document itself. Raises SeedError.
    """
    here = path or "the document"
    if not isinstance(value, dict):
        raise SeedError(f"{here}: expected an object ({{…}}), found {shown(value)}")
    found: dict[str, Any] = {}
    for key, item in value.items():
        if kind := keys.get(key):
            found[key] = one(item, kind, below(path, key))
        elif not key.startswith("_"):
            near = " or ".join(difflib.get_close_matches(key, keys))
            hint = f"did you mean {near}?" if near else f"expected one of {', '.join(keys)}"
            raise SeedError(f"{here}: the key {shown(key)} is not known here; {hint}")
    for key in required:
        if key not in found:
            raise SeedError(f"{here}: the key {key} is missing; expected {keys[key].expected}")
    return found


def below(path: str, key: str) -> str:
    """Return the path of a member of the object at a path."""
    return f"{path}.{key}" if path else key


def one(value: object, kind: Kind, path: str) -> Any:
    """Return the normal form of a value at a path. Raises SeedError."""
    try:
        return kind.read(value)
    except kinds.BadValueError as error:
        raise SeedError(f"{path}: {error}") from None
