"""A seed document: JSON that says what the tables shall hold, read and checked as a whole.

The documents are automx2's, version 1 and version 2. Where version 2 cannot hold what the tables
hold, keys are added to it; ``docs/seed.md`` explains each.
"""

import base64
import difflib
import ipaddress
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from automx.address import PLACEHOLDER, EmailAddress, parse_domain, unicode_domain
from automx.clientconfig import LOGO_TYPES, Authentication, DavType, SocketType
from automx.errors import AddressError, SeedError
from automx.ldap import read_hosts

# What is not said in a document, and so not written into an export.
MAIL_PORTS = {  # type -> port
    "imap": 993,
    "pop": 995,
    "pop3": 995,
    "smtp": 465,
    "managesieve": 4190,
}
PRIO = 10
USER_NAME = "%EMAILADDRESS%"
AUTHENTICATION = "plain"  # automx2's word for password-cleartext
DAV_PORT = 0  # that of the URL

MAX_LOGO = 32 * 1024  # bytes

MAX_INTEGER = 2**31 - 1  # of a column, in all databases

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


class DetailRows(NamedTuple):
    """The columns of a provider's details, and the rows of its documentation."""

    columns: Row
    documentation: list[Row]


class DomainRow(NamedTuple):
    """A checked domain: its name as it is stored, and as A-label.

    ``provider`` None means the document's only one; ``servers`` and ``davservers`` None mean all
    servers of the document.
    """

    id: int | None
    name: str
    a_label: str
    provider: int | None
    ldapserver_id: int | None
    servers: tuple[int, ...] | None
    davservers: tuple[int, ...] | None


@dataclass
class SeedRows:
    """The rows of a checked document; rows may have None as id.

    ``paths`` tells where each id of the document is, ``outside`` where an id that the document
    does not hold, and that must therefore be in the database: (table, id) -> path.
    """

    providers: list[Row] = field(default_factory=list)
    details: dict[int, DetailRows] = field(default_factory=dict)  # by the index of the provider
    ldapservers: list[Row] = field(default_factory=list)
    servers: list[Row] = field(default_factory=list)
    davservers: list[Row] = field(default_factory=list)
    domains: list[DomainRow] = field(default_factory=list)
    paths: dict[tuple[str, int], str] = field(default_factory=dict)
    outside: dict[tuple[str, int], str] = field(default_factory=dict)

    def define(self, table: str, row_id: int | None, path: str) -> None:
        """Note that the document holds a row with this id, if it has one."""
        if row_id is None:
            return
        first = self.paths.setdefault((table, row_id), path)
        if first != path:
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
        return json.loads(content, object_pairs_hook=_object)
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


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKeyError(shown(next(key for key in keys if keys.count(key) > 1)))
    return result


def read(document: object) -> SeedRows:
    """Return the rows of a document.

    Raises SeedError for the first thing that is wrong: with the path of the key, what was expected
    and what was found.
    """
    rows = SeedRows()
    version = document.get("version", 1) if isinstance(document, dict) else 2
    kinds = _DOCUMENT_KEYS_1 if version == 1 else _DOCUMENT_KEYS_2
    top = _fields(document, kinds, "", ("domains", "servers"))
    _read_providers(rows, top)
    for index, item in enumerate(top.get("ldapservers", ())):
        path = f"ldapservers[{index}]"
        row = ldapserver_row(item, path)
        rows.define("ldapserver", row["id"], path)
        rows.ldapservers.append(row)
    for index, item in enumerate(top["servers"]):
        path = f"servers[{index}]"
        row = server_row(item, path)
        is_dav = "url" in row
        rows.define("davserver" if is_dav else "server", row["id"], path)
        (rows.davservers if is_dav else rows.servers).append(row)
    _read_domains(rows, top["domains"], version)
    return rows


def _read_providers(rows: SeedRows, top: dict[str, Any]) -> None:
    if ("provider" in top) == ("providers" in top):
        found = "both" if "provider" in top else "none"
        raise SeedError(
            f"the document: expected one of the keys provider and providers, found {found}"
        )
    if "provider" in top:
        names = {"name": top["provider"]} | {k: top[k] for k in ("short_name",) if k in top}
        rows.providers.append(provider_row(names, ""))
        if "details" in top:
            rows.details[0] = detail_rows(top["details"], "details")
    for key in ("short_name", "details"):
        if key in top and "provider" not in top:
            raise SeedError(f"{key}: expected beside provider only, found beside providers")
    for index, item in enumerate(top.get("providers", ())):
        path = f"providers[{index}]"
        row = provider_row(item, path)
        if "details" in item:
            rows.details[index] = detail_rows(item["details"], f"{path}.details")
        rows.define("provider", row["id"], path)
        rows.providers.append(row)


def _read_domains(rows: SeedRows, items: list[Any], version: object) -> None:
    indices: dict[str, int] = {}  # A-label -> index
    for index, item in enumerate(items):
        path = f"domains[{index}]"
        domain = domain_row(item, path) if version != 1 else _plain_domain_row(item, path)
        rows.define("domain", domain.id, path)
        first = indices.setdefault(domain.a_label, index)
        if first != index:
            raise SeedError(
                f"{path}: expected another domain than that of domains[{first}], "
                f"found {shown(domain.name)}"
            )
        if domain.provider is not None:
            rows.refer("provider", domain.provider, f"{path}.provider")
        elif len(rows.providers) != 1:
            raise SeedError(
                f"{path}: the key provider is missing; expected the id of a provider, because "
                f"the document does not have exactly one"
            )
        if domain.ldapserver_id is not None:
            rows.refer("ldapserver", domain.ldapserver_id, f"{path}.ldapserver_id")
        for server_id in domain.servers or ():
            rows.refer("server", server_id, f"{path}.servers")
        for server_id in domain.davservers or ():
            rows.refer("davserver", server_id, f"{path}.davservers")
        rows.domains.append(domain)


def provider_row(item: object, path: str) -> Row:
    """Return the columns of a provider, checked and complete; raises SeedError."""
    fields = _fields(item, _PROVIDER_KEYS, path, ("name",))
    fields.pop("details", None)
    return {"id": None, "short_name": default_short_name(fields["name"])} | fields


def detail_rows(item: object, path: str) -> DetailRows:
    """Return the details of a provider, checked and complete; raises SeedError."""
    fields = _fields(item, _DETAIL_KEYS, path, ())
    columns: Row = dict.fromkeys(DETAIL_COLUMNS) | fields
    if "logo" in fields:
        required = ("type", "data", "width", "height")
        logo = _fields(columns.pop("logo"), _LOGO_KEYS, f"{path}.logo", required)
        columns |= {"logo": logo.pop("data")}
        columns |= {f"logo_{key}": value for key, value in logo.items()}
    if "oauth2" in fields:
        oauth2 = _fields(columns.pop("oauth2"), _OAUTH2_KEYS, f"{path}.oauth2", ("issuer",))
        columns |= {f"oauth2_{key}": value for key, value in oauth2.items()}
    pages: list[object] = columns.pop("documentation", None) or []
    return DetailRows(
        columns,
        [
            _fields(page, _PAGE_KEYS, f"{path}.documentation[{index}]", ("url", "lang", "text"))
            for index, page in enumerate(pages)
        ],
    )


def ldapserver_row(item: object, path: str) -> Row:
    """Return the columns of a directory, checked and complete; raises SeedError."""
    fields = _fields(item, _LDAPSERVER_KEYS, path, ("id", "name", "search_base"))
    return {
        "port": 389,
        "use_ssl": fields.get("port") == 636,
        "search_filter": "(mail={0})",
        "attr_uid": "uid",
        "attr_cn": "cn",
        "bind_password": None,
        "bind_user": None,
    } | fields


def server_row(item: object, path: str) -> Row:
    """Return the columns of a mail server or (those with a ``url``) of a DAV server, complete.

    Raises SeedError.
    """
    server_type = item.get("type") if isinstance(item, dict) else None
    if server_type is not None:  # an unknown type explains all other errors
        _value(server_type, _TYPE, f"{path}.type")
    if isinstance(server_type, str) and server_type.lower() not in MAIL_PORTS:
        fields = _fields(item, _DAV_KEYS, path, ("type", "url"))
        return {
            "id": None,
            "port": DAV_PORT,
            "use_ssl": default_use_ssl(fields["url"]),
            "domain_required": True,
            "user_name": USER_NAME,
        } | fields
    fields = _fields(item, _MAIL_KEYS, path, ("type", "name"))
    port = fields.get("port", MAIL_PORTS[fields["type"].lower()])
    return {
        "id": None,
        "prio": PRIO,
        "port": port,
        "socket_type": default_socket_type(port),
        "user_name": USER_NAME,
        "authentication": AUTHENTICATION,
    } | fields


def domain_row(item: object, path: str) -> DomainRow:
    """Return a domain of version 2, checked; raises SeedError."""
    fields = _fields(item, _DOMAIN_KEYS, path, ("name",))
    name, a_label = fields["name"]
    return DomainRow(
        fields.get("id"),
        name,
        a_label,
        fields.get("provider"),
        fields.get("ldapserver_id"),
        fields.get("servers"),
        fields.get("davservers"),
    )


def _plain_domain_row(item: object, path: str) -> DomainRow:
    name, a_label = _value(item, _DOMAIN_NAME, path)
    return DomainRow(None, name, a_label, None, None, None, None)


def default_short_name(name: str) -> str:
    """Return the first word of a provider's name, as far as the column can hold it."""
    return "".join(name.split()[:1])[:32]


def default_socket_type(port: object) -> str:
    """Return the socket type that is expected at a port (RFC 8314)."""
    return SocketType.SSL.value if port in {465, 993, 995} else SocketType.STARTTLS.value


def default_use_ssl(url: str) -> bool:
    """Tell whether a URL is one of https."""
    return url.lower().startswith("https:")


def read_domain(value: object) -> tuple[str, str]:
    """Return a domain's name as it is stored, and its A-label form; both may begin with ``*``.

    The stored form is one that look-up asks for: A-label or U-label as it is written, in lower
    case. Raises AddressError or ValueError.
    """
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - the one error of all kinds
    if value == "*":
        return "*", "*"
    wildcard = "*." if value.startswith("*.") else ""
    a_label = parse_domain(value.removeprefix(wildcard))
    name = wildcard + (a_label if value.isascii() else unicode_domain(a_label))
    if len(name) > 128:
        raise ValueError
    return name, wildcard + a_label


# Each kind of value is explained once, for the checks and for the texts of their errors.


@dataclass(frozen=True)
class _Kind:
    """A kind of value: in words, and as the function that returns the value to be stored.

    The function raises ValueError or AddressError if the value is not of this kind.
    """

    expected: str
    read: Callable[[Any], Any]
    secret: bool = False


def _text(length: int, *, empty: bool = False, secret: bool = False) -> _Kind:
    def read_text(value: Any) -> str:
        if not isinstance(value, str) or len(value) > length or not (value or empty):
            raise ValueError
        if any(unicodedata.category(char) in {"Cc", "Cs"} for char in value):
            raise ValueError
        if value != value.strip() and not secret:
            raise ValueError
        return value

    least = 0 if empty else 1
    blanks = "" if secret else " or blanks at its ends"
    expected = f"a text of {least} to {length} characters without control characters{blanks}"
    return _Kind(expected, read_text, secret)


def _number(least: int, most: int) -> _Kind:
    def read_number(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:  # True is an int, too
            raise ValueError
        return value

    return _Kind(f"a whole number from {least} to {most}", read_number)


def _word(*words: str) -> _Kind:
    """One of some words in any case; it is stored as it is written, and look-up reads any case."""
    lower_words = {word.lower() for word in words}

    def read_word(value: Any) -> str:
        if not isinstance(value, str) or value.lower() not in lower_words:
            raise ValueError
        return value

    return _Kind(f"one of {', '.join(words)}", read_word)


def _words(word: _Kind) -> _Kind:
    """One word or several with blanks or commas between them, which look-up splits again."""

    def read_words(value: Any) -> str:
        if not isinstance(value, str) or len(value) > 32:
            raise ValueError
        for part in re.split(r"[ ,]+", value):
            word.read(part)
        return value

    return _Kind(f"{word.expected}, or several with blanks between", read_words)


def _or_null(kind: _Kind) -> _Kind:
    def read_or_null(value: Any) -> Any:
        return None if value is None else kind.read(value)

    return _Kind(f"{kind.expected}, or null", read_or_null, kind.secret)


def _list_of(example: str) -> _Kind:
    def read_list(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError  # noqa: TRY004 - the one error of all kinds
        return value

    return _Kind(f"a list such as [{example}]", read_list)


def _read_boolean(value: Any) -> bool:
    """Return a boolean; automx2 takes numbers and words as well."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(value).lower() not in words:
        raise ValueError
    return words[str(value).lower()]


def _read_ids(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError  # noqa: TRY004 - the one error of all kinds
    return tuple(sorted({_ID.read(item) for item in value}))


def _read_host(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 128:
        raise ValueError
    parse_domain(PLACEHOLDER.sub("a", value))
    return value


def _read_hosts(value: Any) -> str:
    """Return the hosts of a directory as they are written."""
    if not isinstance(value, str) or len(value) > 128 or not value.isprintable():
        raise ValueError
    for _, name, _ in read_hosts(value):
        try:
            parse_domain(name)
        except AddressError:
            ipaddress.ip_address(name)
    return value


def _read_url(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 128 or not value.isprintable() or " " in value:
        raise ValueError
    parts = urlsplit(PLACEHOLDER.sub("a", value))
    if parts.scheme not in {"http", "https"} or parts.port == 0:
        raise ValueError
    _read_host(parts.hostname or "")
    return value


def _read_link(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 255 or not re.fullmatch(r"[!-~]+", value):
        raise ValueError
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or re.search(r'[<>"]', value):
        raise ValueError
    return value


def _read_address(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - the one error of all kinds
    return str(EmailAddress.parse(value))


def _read_logo_type(value: Any) -> str:
    if not isinstance(value, str) or value.lower() not in LOGO_TYPES:
        raise ValueError
    return value.lower()


def _read_logo(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - the one error of all kinds
    data = base64.b64decode(value, validate=True)
    if not 0 < len(data) <= MAX_LOGO:
        raise ValueError
    return data


def _pattern(expected: str, pattern: str) -> _Kind:
    def read_text(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError
        return value

    return _Kind(expected, read_text)


def _read_object(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError  # noqa: TRY004 - the one error of all kinds
    return value


_ID = _number(1, MAX_INTEGER)
_IDS = _Kind("a list of ids such as [1, 2]", _read_ids)
_PORT = _number(1, 65535)
_BOOLEAN = _Kind("true or false", _read_boolean)
_DOMAIN_NAME = _Kind(
    'a domain name of at most 128 characters such as "example.com", "*.example.com" or "*"',
    read_domain,
)
_HOST = _Kind('a host name of at most 128 characters such as "mail.example.com"', _read_host)
_HOSTS = _Kind(
    'a host name such as "ldap.example.com" or "ldaps://ldap.example.com:636", an IP address, or'
    " several with blanks between, of at most 128 characters",
    _read_hosts,
)
_URL = _Kind(
    'a URL of at most 128 characters such as "https://dav.example.com/calendars/"', _read_url
)
_TYPE = _word(*MAIL_PORTS, *DavType)
_DETAILS = _Kind('an object such as {"webmail_url": "https://…"}', _read_object)
_VERSION = _Kind("1 or 2", _number(1, 2).read)
_SERVERS = _list_of('{"type": "imap", "name": "imap.example.com"}')

_DOCUMENT_KEYS_1 = {
    "version": _VERSION,
    "provider": _text(128),
    "domains": _list_of('"example.com"'),
    "servers": _SERVERS,
}
_DOCUMENT_KEYS_2 = {
    "version": _VERSION,
    "provider": _text(128),
    "short_name": _text(32),
    "details": _DETAILS,
    "providers": _list_of('{"id": 1, "name": "Example Inc."}'),
    "domains": _list_of('{"name": "example.com"}'),
    "ldapservers": _list_of('{"id": 1, "name": "ldap.example.com", "search_base": "dc=example"}'),
    "servers": _SERVERS,
}
_PROVIDER_KEYS = {"id": _ID, "name": _text(128), "short_name": _text(32), "details": _DETAILS}
_LINK = _Kind('a URL of at most 255 characters such as "https://www.example.com/"', _read_link)
_DETAIL_KEYS = {
    "webmail_url": _LINK,
    "help_url": _LINK,
    "support_address": _Kind('a mail address such as "help@example.com"', _read_address),
    "color": _pattern('a color such as "#1a5fb4"', r"#[0-9A-Fa-f]{6}"),
    "logo": _Kind('an object such as {"type": "image/png", "data": …}', _read_object),
    "oauth2": _Kind('an object such as {"issuer": "login.example.com"}', _read_object),
    "documentation": _list_of('{"url": "https://…", "lang": "en", "text": "Set up your mail"}'),
}
_LOGO_KEYS = {
    "type": _Kind(f"one of {', '.join(LOGO_TYPES)}", _read_logo_type),
    "data": _Kind(f"an image in Base64, of at most {MAX_LOGO} bytes", _read_logo),
    "width": _number(1, 10_000),
    "height": _number(1, 10_000),
}
_OAUTH2_KEYS = {
    "issuer": _text(255),
    "auth_url": _LINK,
    "token_url": _LINK,
    "scope": _text(255),
    "client_id": _text(255),
}
_PAGE_KEYS = {
    "url": _LINK,
    "lang": _pattern('a language such as "en" or "pt-BR"', r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*"),
    "text": _text(255),
}
# The columns of the table provider_detail but its key.
DETAIL_COLUMNS = (
    *("webmail_url", "help_url", "support_address", "color"),
    *("logo_type", "logo_width", "logo_height", "logo"),
    *(f"oauth2_{key}" for key in _OAUTH2_KEYS),
)
_LDAPSERVER_KEYS = {
    "id": _ID,
    "name": _HOSTS,
    "port": _PORT,
    "use_ssl": _BOOLEAN,
    "search_base": _text(128, empty=True),
    "search_filter": _text(128),
    "attr_uid": _text(32),
    "attr_cn": _or_null(_text(32)),
    "bind_password": _or_null(_text(128, empty=True, secret=True)),
    "bind_user": _or_null(_text(128, empty=True)),
}
_MAIL_KEYS = {
    "id": _ID,
    "type": _TYPE,
    "name": _HOST,
    "port": _PORT,
    "prio": _number(-MAX_INTEGER - 1, MAX_INTEGER),
    "socket_type": _word(*SocketType, "none"),
    "user_name": _text(64),
    "authentication": _words(_word(*Authentication, "plain", "secure")),
}
_DAV_KEYS = {
    "id": _ID,
    "type": _TYPE,
    "url": _URL,
    "port": _number(0, 65535),
    "use_ssl": _BOOLEAN,
    "domain_required": _BOOLEAN,
    "user_name": _or_null(_text(64, empty=True)),
}
_DOMAIN_KEYS = {
    "id": _ID,
    "name": _DOMAIN_NAME,
    "provider": _ID,
    "ldapserver_id": _or_null(_ID),
    "servers": _IDS,
    "davservers": _IDS,
}


def _fields(
    value: object, kinds: Mapping[str, _Kind], path: str, required: Iterable[str]
) -> dict[str, Any]:
    """Return the checked values of one object's keys, without ``_comment`` and the like.

    ``path`` is "" for the document itself.
    """
    here = path or "the document"
    if not isinstance(value, dict):
        raise SeedError(f"{here}: expected an object ({{…}}), found {shown(value)}")
    fields: dict[str, Any] = {}
    for key, item in value.items():
        if kind := kinds.get(key):
            fields[key] = _value(item, kind, f"{path}.{key}" if path else key)
        elif not key.startswith("_"):
            near = " or ".join(difflib.get_close_matches(key, kinds))
            hint = f"did you mean {near}?" if near else f"expected one of {', '.join(kinds)}"
            raise SeedError(f"{here}: the key {shown(key)} is not known here; {hint}")
    for key in required:
        if key not in fields:
            raise SeedError(f"{here}: the key {key} is missing; expected {kinds[key].expected}")
    return fields


def _value(value: object, kind: _Kind, path: str) -> Any:
    try:
        return kind.read(value)
    except (ValueError, AddressError):
        found = shown(value, secret=kind.secret)
        raise SeedError(f"{path}: expected {kind.expected}, found {found}") from None


def shown(value: object, *, secret: bool = False) -> str:
    """Return a value in one short line of JSON; of a secret only that there is one."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if secret and value is not None:
        return "something else"
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"
