"""What each column of each table may hold, and the records that rows become.

This is the only such place, but for ``accountcolumns``: look-up, seed documents, export, the doctor
and tokens read rows and their parts here. A row that no client could use raises BadRowError.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Boolean, ColumnElement, Integer, func, select, type_coerce

from automx import kinds
from automx.accountcolumns import ACCOUNT, API_KEY, TOKEN
from automx.address import parse_host
from automx.clientconfig import (
    IMPLICIT_TLS_PORTS,
    LOGO_TYPES,
    STARTTLS_PORTS,
    Documentation,
    Logo,
    MailServer,
    OAuth2,
    ProviderDetails,
    ServerType,
    Service,
)
from automx.directory import kinds as directory_kinds
from automx.directory.row import LOGIN_NAME, LdapServer, read_bases, read_hosts
from automx.kinds import BadValueError, Kind
from automx.models import metadata
from automx.words import (
    AUTHENTICATION_SYNONYMS,
    AUTHENTICATIONS,
    SERVER_TYPES,
    SERVICE_TYPES,
    SOCKET_TYPE_SYNONYMS,
    SOCKET_TYPES,
)

MAX_LOGO = 65_535  # bytes: what a BLOB of MariaDB holds

_LANGUAGE = kinds.optional(
    kinds.pattern(
        'a language such as "en" or "pt-BR"', r"(?=.{2,35}$)[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*"
    ),
    nothing="",
)

USER_NAME = "%EMAILADDRESS%"  # where nothing is said

PROVIDER = {"name": kinds.label(128), "short_name": kinds.label(32)}
SERVER = {
    "type": kinds.word(SERVER_TYPES),
    "name": kinds.HOST,
    "port": kinds.number(1, 65535),
    "prio": kinds.number(-kinds.MAX_INTEGER - 1, kinds.MAX_INTEGER),
    "socket_type": kinds.word(SOCKET_TYPES, SOCKET_TYPE_SYNONYMS),
    "user_name": kinds.user_name(64, empty=""),
    "authentication": kinds.word_list(AUTHENTICATIONS, 32, AUTHENTICATION_SYNONYMS),
}
DAVSERVER = {
    "type": kinds.word(SERVICE_TYPES),
    "url": kinds.SERVICE_URL,
    "port": kinds.number(0, 65535),
    "use_ssl": kinds.BOOLEAN,
    "domain_required": kinds.BOOLEAN,
    "user_name": kinds.user_name(64, empty=USER_NAME),
}
LDAPSERVER = {
    "name": directory_kinds.HOSTS,
    "port": kinds.number(0, 65535),
    "use_ssl": kinds.BOOLEAN,
    "search_base": directory_kinds.SEARCH_BASE,
    "search_filter": directory_kinds.SEARCH_FILTER,
    "attr_uid": kinds.text(32),
    "attr_cn": kinds.optional(kinds.text(32)),
    "bind_password": kinds.or_null(kinds.exact_text(128, secret=True)),
    "bind_user": kinds.or_null(kinds.exact_text(128)),
    "login_name": kinds.optional(directory_kinds.LOGIN_NAME),
}
# The columns of ``ldapserver`` that a row of ``ldapserver_detail`` can replace or add.
_LDAPSERVER_DETAILS = ("search_base", "search_filter", "login_name")
DOMAIN = {
    "name": kinds.DOMAIN_NAME,
    "provider_id": kinds.ID,
    "ldapserver_id": kinds.or_null(kinds.ID),
}
LOGO = {
    "logo_type": kinds.word({word: word for word in LOGO_TYPES}),
    "logo_width": kinds.number(1, 10_000),
    "logo_height": kinds.number(1, 10_000),
    "logo": kinds.image(MAX_LOGO),
}
OAUTH2 = {
    "oauth2_issuer": kinds.label(255),
    "oauth2_auth_url": kinds.LINK,
    "oauth2_token_url": kinds.LINK,
    "oauth2_scope": kinds.label(255),
    "oauth2_client_id": kinds.label(255),
}
CONTACT = {
    "webmail_url": kinds.optional(kinds.LINK),
    "help_url": kinds.optional(kinds.LINK),
    "support_address": kinds.optional(kinds.MAIL_ADDRESS),
    "color": kinds.optional(kinds.pattern('a colour such as "#1a5fb4"', r"#[0-9A-Fa-f]{6}")),
}
PROVIDER_DETAIL = CONTACT | {
    column: kinds.optional(kind) for column, kind in (LOGO | OAUTH2).items()
}
DOCUMENTATION = {"url": kinds.LINK, "lang": _LANGUAGE, "text": kinds.label(255, empty=True)}
# A look-up asks for the size of a logo, not for its bytes.
_DETAIL_READ = {column: kind for column, kind in PROVIDER_DETAIL.items() if column != "logo"} | {
    "logo_size": kinds.optional(kinds.number(1, MAX_LOGO))
}
_LOGO = ("logo_size", "logo_type", "logo_width", "logo_height")
DISABLED_DOMAIN = {"domain_id": kinds.ID, "since": kinds.MOMENT}
SYNCED_DOMAIN = {
    "domain_id": kinds.ID,
    "gone_at": kinds.or_null(kinds.MOMENT),
    "disabled_at": kinds.or_null(kinds.MOMENT),
}
# The tables but ``domain``, and what is read of each.
TABLES: dict[str, Mapping[str, Kind]] = {
    "provider": PROVIDER,
    "server": SERVER,
    "davserver": DAVSERVER,
    "ldapserver": LDAPSERVER,
    "provider_detail": _DETAIL_READ,
    "documentation": DOCUMENTATION,
    "disabled_domain": DISABLED_DOMAIN,
    "synced_domain": SYNCED_DOMAIN,
    "token": TOKEN | {"created_at": kinds.MOMENT},
    "account": ACCOUNT,
    "api_key": API_KEY | {"created_at": kinds.MOMENT},
}

Values = Mapping[Any, Any]  # the columns of a row, by name

# What a row has where nothing is said.
MAIL_PORTS = {"imap": 993, "pop": 995, "smtp": 465, "managesieve": 4190}


def server_defaults(type_: str, port: int | None = None) -> dict[str, Any]:
    """Return the columns of a mail server of which only the type, and perhaps the port, is said."""
    port = MAIL_PORTS[type_] if port is None else port
    return {
        "prio": 10,
        "port": port,
        "socket_type": "SSL" if port in IMPLICIT_TLS_PORTS.values() else "STARTTLS",
        "user_name": USER_NAME,
        "authentication": "plain",
    }


def service_defaults(url: str) -> dict[str, Any]:
    """Return the columns of a service of which only the URL is said."""
    is_http = url.lower().startswith(("http:", "ws:"))
    columns = {"port": 0, "use_ssl": not is_http, "domain_required": True}
    return columns | {"user_name": USER_NAME}


def ldapserver_defaults(port: int | None = None) -> dict[str, Any]:
    """Return the columns of a directory of which only the host, and perhaps the port, is said."""
    return {
        "port": port or 389,
        "use_ssl": port == 636,
        "search_filter": "(mail={0})",
        "attr_uid": "uid",
        "attr_cn": "cn",
        "bind_password": None,
        "bind_user": None,
        "login_name": None,
    }


def split_ldapserver(values: Values) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the row of ``ldapserver`` of checked values, and that of ``ldapserver_detail``.

    What automx2's columns cannot hold stands in the latter; it is {} if they hold everything.
    """
    columns = metadata.tables["ldapserver"].columns
    row = {column.name: values[column.name] for column in columns}
    detail = dict.fromkeys(_LDAPSERVER_DETAILS) | {"login_name": values["login_name"]}
    for name in ("search_base", "search_filter"):
        kept: Any = columns[name].type
        if len(row[name]) > kept.length:
            detail[name], row[name] = row[name], ""
    is_empty = not any(detail.values())
    return row, {} if is_empty else {"ldapserver_id": row["id"], **detail}


def default_short_name(name: str) -> str:
    """Return the first word of a provider's name, as far as the column can hold it."""
    return "".join(name.split()[:1])[:32]


class BadRowError(ValueError):
    """A row that no client could use; the text names the columns and what they hold."""


def selected(table: str) -> list[ColumnElement[Any]]:
    """Return the columns of a table, key included, that are to be read by this module.

    Booleans come as they are: SQLite lets a column hold anything.
    """
    columns = metadata.tables[table].c
    if table == "provider_detail":
        size = func.length(columns.logo).label("logo_size")
        return [*(column for column in columns if column.name != "logo"), size]
    if table == "ldapserver":
        return _with_details()
    return _as_they_are(columns)


def _as_they_are(columns: Iterable[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    return [
        type_coerce(column, Integer).label(column.name)
        if isinstance(column.type, Boolean)
        else column
        for column in columns
    ]


def _with_details() -> list[ColumnElement[Any]]:
    """Return the columns of ``ldapserver``, each as ``ldapserver_detail`` replaces it."""
    columns = {column.name: column for column in metadata.tables["ldapserver"].c}
    details = metadata.tables["ldapserver_detail"].c
    found: dict[str, ColumnElement[Any]] = {
        column.name: column for column in _as_they_are(columns.values())
    }
    for name in _LDAPSERVER_DETAILS:
        query = select(details[name]).where(details.ldapserver_id == columns["id"])
        value = func.nullif(query.scalar_subquery(), "")
        found[name] = (func.coalesce(value, found[name]) if name in found else value).label(name)
    return list(found.values())


def read(columns: Mapping[str, Kind], row: Values) -> tuple[dict[str, Any], list[str]]:
    """Return the normal forms of the columns that can be read, and what is wrong with others."""
    values: dict[str, Any] = {}
    bad = []
    for column, kind in columns.items():
        try:
            values[column] = kind.read(row[column])
        except BadValueError as error:
            bad.append(f"{column}: {error}")
    return values, bad


def read_row(table: str, row: Values) -> tuple[dict[str, Any], list[str]]:
    """Return what read() does for a row of one of TABLES, and what its columns lack together."""
    values, bad = read(TABLES[table], with_clear_socket_type(row) if table == "server" else row)
    check = _TOGETHER.get(table)
    return values, bad + (check(values) if check else [])


def unfit_url(service: Values) -> list[str]:
    """Return what is wrong with the URL of a service for its type: XMPP alone has WebSockets."""
    url = str(service.get("url", ""))
    if url.lower().startswith(("ws:", "wss:")) and service.get("type", "xmpp") != "xmpp":
        text = f"expected a URL that begins with http or https for {service['type']}"
        return [f"url: {text}, found {kinds.shown(url)}"]
    return []


def with_clear_socket_type(row: Values, port: int | None = None) -> Values:
    """Return a row of ``server`` in which the socket type TLS is replaced by what it means.

    Some programs say TLS for SSL, others for STARTTLS: the port decides, and at another port than
    the usual ones, TLS stays. ``port`` is that of a row without one.
    """
    word = row.get("socket_type")
    if not isinstance(word, str) or word.strip().upper() != "TLS":
        return row
    found = row.get("port", port)
    if found in STARTTLS_PORTS:
        return {**row, "socket_type": "STARTTLS"}
    return {**row, "socket_type": "SSL"} if found in [*IMPLICIT_TLS_PORTS.values()] else row


def missing_parts(details: Values) -> list[str]:
    """Return which columns of a row of ``provider_detail`` are missing beside others."""
    has_logo = details.get("logo_size") or details.get("logo")
    parts = ("logo_type", "logo_width", "logo_height")
    return [
        f"{part}: it is missing, and a logo needs it"
        for part in parts
        if has_logo and details.get(part, "") is None
    ]


# What the columns of a row lack together.
_TOGETHER = {"provider_detail": missing_parts, "davserver": unfit_url}


def _checked(table: str, row: Values) -> dict[str, Any]:
    values, bad = read_row(table, row)
    if bad:
        raise BadRowError("; ".join(bad))
    return values


def mail_server(row: Values) -> MailServer:
    """Return the record of a row of the table ``server``; raises BadRowError."""
    values = _checked("server", row)
    name = values["name"]
    server = MailServer(
        type=SERVER_TYPES[values["type"]],
        hostname=name if "%" in name else parse_host(name),
        port=values["port"],
        socket_type=SOCKET_TYPES[values["socket_type"]],
        user_name=values["user_name"],
        authentication=tuple(AUTHENTICATIONS[word] for word in values["authentication"].split()),
    )
    if server.user_name or (server.type is ServerType.SMTP and not server.needs_login):
        return server
    return replace(server, user_name=USER_NAME)


def service(row: Values) -> Service:
    """Return the record of a row of the table ``davserver``; raises BadRowError."""
    values = _checked("davserver", row)
    url = values["url"]
    if "://" not in url:
        url = f"{'https' if values['use_ssl'] else 'http'}://{url}"
    parts = urlsplit(url)
    default = 443 if parts.scheme in {"https", "wss"} else 80
    if values["port"] not in {0, default} and parts.port is None:
        parts = parts._replace(netloc=f"{parts.netloc}:{values['port']}")
    return Service(
        type=SERVICE_TYPES[values["type"]],
        url=parts.geturl(),
        user_name=values["user_name"],
        domain_required=values["domain_required"],
    )


def ldap_server(row: Values) -> LdapServer:
    """Return the record of a row of the table ``ldapserver``; raises BadRowError."""
    values = _checked("ldapserver", row)
    texts = {key: values.pop(key) or "" for key in ("attr_cn", "bind_user", "bind_password")}
    values |= texts | {
        "id": row["id"],
        "hosts": read_hosts(values.pop("name")),
        "search_bases": read_bases(values.pop("search_base")),
        "login_name": values["login_name"] or LOGIN_NAME,
    }
    return LdapServer(**values)


def documentation(row: Values) -> Documentation:
    """Return the record of a row of the table ``documentation``; raises BadRowError."""
    values = _checked("documentation", row)
    return Documentation(values["url"], values["lang"], values["text"])


def provider_details(row: Values) -> tuple[ProviderDetails, list[str]]:
    """Return the record of a row of ``provider_detail``, and what is wrong with its columns.

    Columns that no client could use are left out of the record.
    """
    values, bad = read_row("provider_detail", row)
    texts: dict[str, Any] = {column: values.get(column) or "" for column in CONTACT | OAUTH2}
    oauth2 = OAuth2(**{column.removeprefix("oauth2_"): texts.pop(column) for column in OAUTH2})
    logo = None
    if all(values.get(part) for part in _LOGO):
        logo = Logo(values["logo_type"], values["logo_width"], values["logo_height"])
    details = ProviderDetails(**texts, logo=logo, oauth2=oauth2 if oauth2.issuer else None)
    return details, bad
