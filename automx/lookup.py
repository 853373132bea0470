"""From the rows of a domain to its ClientConfig.

The domain's own row decides, else the nearest wildcard (``*.example.com``), else ``*``. A row that
no client could use is found here, once for all formats: it is left out and named in the log.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import cache
from threading import Lock
from time import monotonic
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from cachetools import TTLCache
from sqlalchemy import Connection, Row, Select, bindparam, select
from sqlalchemy.orm import Session

from automx import ldap
from automx.address import PLACEHOLDER, EmailAddress, parse_domain, spellings
from automx.clientconfig import (
    LOGO_TYPES,
    Authentication,
    ClientConfig,
    DavServer,
    DavType,
    Documentation,
    Logo,
    MailServer,
    OAuth2,
    ProviderDetails,
    ServerType,
    SocketType,
)
from automx.errors import AddressError, AutomxError, BadRecordError, UnknownDomainError
from automx.models import DavServer as DavServerRow
from automx.models import Documentation as DocumentationRow
from automx.models import (
    Domain,
    LdapServer,
    Provider,
    ProviderDetail,
    Server,
    database_errors,
    davserver_domain,
    lower_name,
    server_domain,
)

log = logging.getLogger(__name__)

# Words of the columns type, socket_type and authentication, in lower case; some are automx2's.
SERVER_TYPES = {
    "imap": ServerType.IMAP,
    "pop": ServerType.POP3,
    "pop3": ServerType.POP3,
    "smtp": ServerType.SMTP,
    "managesieve": ServerType.MANAGESIEVE,
    "sieve": ServerType.MANAGESIEVE,
}
SOCKET_TYPES = {
    "ssl": SocketType.SSL,
    "starttls": SocketType.STARTTLS,
    "plain": SocketType.PLAIN,
    "none": SocketType.PLAIN,
    "": SocketType.PLAIN,
}
AUTHENTICATIONS = {
    **{word.lower(): word for word in Authentication},
    "plain": Authentication.PASSWORD_CLEARTEXT,
    "secure": Authentication.PASSWORD_ENCRYPTED,
}
DAV_TYPES = {word.value: word for word in DavType}

_Word = TypeVar("_Word")
_Rendered = TypeVar("_Rendered")
_Item = TypeVar("_Item", MailServer, DavServer, Documentation)

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ue000-\ue00f\ufffe\uffff]")
_FORBIDDEN_IN_URL = re.compile(_FORBIDDEN.pattern + r'|[\s<>"]')


class _BadRowError(ValueError):
    """A row that no client could use; the text names the column and what it holds."""


def find(session: Session, domain: str, ldap_options: ldap.Options) -> "FoundConfig":
    """Return the settings of a domain, given as A-label in lower case, and its directory.

    Raises UnknownDomainError if no row fits, BadRecordError if rows fit that cannot be served, and
    DatabaseError if the database does not answer.
    """
    with database_errors():
        row = _domain_row(session, domain)
        if row is None:
            raise UnknownDomainError(cause=f"domain {domain}")
        connection = session.connection()
        servers = connection.execute(_SERVERS, {"domain_id": row.id}).all()
        dav_servers = connection.execute(_DAV_SERVERS, {"domain_id": row.id}).all()
        directory = _directory_row(connection, row) if row.ldapserver_id is not None else None
        details = _details(connection, row) if row.details_of is not None else ProviderDetails()
    if row.provider_name is None:
        raise BadRecordError(cause=f"table domain, id {row.id}: there is no such provider")
    config = ClientConfig(
        domain=domain,
        provider_name=_text(row.provider_name) or domain,
        provider_short_name=_text(row.short_name) or domain,
        mail_servers=tuple(_usable("server", servers, _mail_server)),
        dav_servers=tuple(_usable("davserver", dav_servers, _dav_server)),
        details=details,
    )
    if not config.incoming and not config.outgoing:
        raise BadRecordError(cause=f"table domain, id {row.id}: no usable mail server")
    if not config.incoming or not config.outgoing:
        missing = "outgoing" if config.incoming else "incoming"
        log.warning("table domain, id %s: no usable %s mail server", row.id, missing)
    return FoundConfig(config, ldap.ldap_server(directory, ldap_options) if directory else None)


def knows(session: Session, domain: str) -> bool:
    """Tell whether a row of ``domain`` fits, a wildcard included; raises DatabaseError."""
    return deciding_row(session, domain) is not None


def domain_names(session: Session) -> Iterator[tuple[int, str]]:
    """Yield id and name of all rows of the table ``domain``, as they are; raises DatabaseError."""
    with database_errors():
        for row in session.execute(select(Domain.id, Domain.name).order_by(Domain.id)):
            yield row.id, row.name


def deciding_row(session: Session, domain: str) -> int | None:
    """Return the id of the row of the table ``domain`` that decides for a domain (an A-label).

    Raises DatabaseError.
    """
    with database_errors():
        row = _domain_row(session, domain)
    return row.id if row is not None else None


def bad_rows(session: Session, ldap_options: ldap.Options) -> Iterator[tuple[str, int, str]]:
    """Yield table, id and defect of each row that is served in part only, or not at all.

    Raises DatabaseError.
    """
    checks: tuple[tuple[type[Any], Select[Any], Callable[[Row[Any]], object]], ...] = (
        (Server, select(Server.__table__), _mail_server),
        (DavServerRow, select(DavServerRow.__table__), _dav_server),
        (LdapServer, select(LdapServer.__table__), lambda row: _directory(row, ldap_options)),
        (ProviderDetail, _ALL_DETAILS, _check_details),
        (DocumentationRow, select(DocumentationRow.__table__), _page),
    )
    with database_errors():
        for model, query, check in checks:
            table = model.__table__
            [key] = table.primary_key
            for row in session.execute(query.order_by(key)):
                try:
                    check(row)
                except _BadRowError as error:
                    yield table.name, getattr(row, key.name), str(error)


def _directory(row: Row[Any], options: ldap.Options) -> ldap.LdapServer:
    try:
        return ldap.ldap_server(row, options)
    except BadRecordError as error:
        raise _BadRowError((error.cause or "").partition(": ")[2]) from error


def _check_details(row: Row[Any]) -> None:
    for column, read in _DETAIL_COLUMNS.items():
        try:
            read(getattr(row, column))
        except _BadRowError as error:
            raise _BadRowError(f"{column} {error}") from error
    _logo(row)


def first_domains(session: Session, number: int) -> list[str]:
    """Return the first names of the table ``domain``, no wildcards, at most ``number`` of them."""
    names = select(Domain.name).where(Domain.name.not_like("*%"))
    return list(session.scalars(names.order_by(Domain.name).limit(number)))


class FoundConfig:
    """The settings of a domain, with its directory and with what the formats made of them."""

    def __init__(self, config: ClientConfig, ldap_server: ldap.LdapServer | None = None) -> None:
        self.config = config
        self.ldap_server = ldap_server
        self._rendered: dict[Callable[[ClientConfig], object], object] = {}

    def rendered(self, render: Callable[[ClientConfig], _Rendered]) -> _Rendered:
        """Return ``render(config)``, computed once; ``render`` must be a pure function."""
        try:
            return cast("_Rendered", self._rendered[render])
        except KeyError:
            rendered = self._rendered[render] = render(self.config)
            return rendered

    def person(self, address: EmailAddress, directories: ldap.Directories) -> ldap.Person:
        """Return what the domain's directory says of an address, if the domain has one.

        A person whom the directory does not know is no different from one of whom it says nothing.
        Raises DirectoryError if the directory cannot be asked.
        """
        if self.ldap_server is None:
            return ldap.NOBODY
        return directories.find(self.ldap_server, address) or ldap.NOBODY


class ConfigCache:
    """Remembers what look-ups gave, for a bounded time and number of domains.

    ``seconds`` is how long an answer is kept; 0 keeps none. Unknown domains and unusable rows are
    remembered as well, an unreachable database is not. Threads may share a cache.
    """

    def __init__(
        self, seconds: float, *, size: int = 2_000, now: Callable[[], float] = monotonic
    ) -> None:
        self._lock = Lock()
        self._answers: TTLCache[str, FoundConfig | AutomxError] | None = (
            TTLCache(size, seconds, now) if seconds > 0 else None
        )

    def get(self, domain: str, look_up: Callable[[str], FoundConfig]) -> FoundConfig:
        """Return or raise what ``look_up(domain)`` does, from memory if possible."""
        if self._answers is None:
            return look_up(domain)
        with self._lock:
            answer = self._answers.get(domain)
        if answer is None:
            try:
                answer = look_up(domain)
            except (UnknownDomainError, BadRecordError) as error:
                answer = copy(error)  # without the traceback, whose frames hold the whole request
            with self._lock:
                self._answers[domain] = answer
        if isinstance(answer, AutomxError):
            raise copy(answer)
        return answer

    def clear(self) -> None:
        """Forget everything, because the database was changed by this very process."""
        if self._answers is not None:
            with self._lock:
                self._answers.clear()


def _domain_row(session: Session, domain: str) -> Row[int, str, int | None, str, str, int] | None:
    """Return the row that decides for a domain, with its provider's names."""
    names = _names_in_order(domain)
    connection = session.connection()
    rows = connection.execute(_domain_query(connection.dialect.name), {"names": names}).all()
    ranks = {name: rank for rank, name in enumerate(names)}
    # A collation may find too much ("muller.de" for "müller.de"): compare once more.
    fitting = [(ranks[name], row) for row in rows if (name := row.name.lower()) in ranks]
    return min(fitting, key=lambda pair: pair[0])[1] if fitting else None


@cache
def _domain_query(dialect: str) -> Select[int, str, int | None, str, str, int]:
    """Return the query for the rows of ``domain`` that have one of several ``names``."""
    return (
        select(
            Domain.id,
            Domain.name,
            Domain.ldapserver_id,
            Provider.name.label("provider_name"),
            Provider.short_name,
            ProviderDetail.provider_id.label("details_of"),
        )
        .join(Provider, Provider.id == Domain.provider_id, isouter=True)
        .join(ProviderDetail, ProviderDetail.provider_id == Provider.id, isouter=True)
        .where(lower_name(dialect).in_(bindparam("names", expanding=True)))
        .order_by(Domain.id)
    )


# Building a query takes longer than asking SQLite, so it is done once.
_SERVERS = (
    select(Server.__table__)
    .join(server_domain, server_domain.c.server_id == Server.id)
    .where(server_domain.c.domain_id == bindparam("domain_id"))
    .order_by(Server.prio, Server.id)
)
_DAV_SERVERS = (
    select(DavServerRow.__table__)
    .join(davserver_domain, davserver_domain.c.davserver_id == DavServerRow.id)
    .where(davserver_domain.c.domain_id == bindparam("domain_id"))
    .order_by(DavServerRow.id)
)


_LDAP_SERVER = select(LdapServer.__table__).where(LdapServer.id == bindparam("id"))


def _directory_row(connection: Connection, domain: Row[*tuple[Any, ...]]) -> Row[Any]:
    """Return the row of ``ldapserver`` that a domain names; BadRecordError if there is none."""
    row = connection.execute(_LDAP_SERVER, {"id": domain.ldapserver_id}).one_or_none()
    if row is None:
        cause = f"table domain, id {domain.id}: there is no ldapserver {domain.ldapserver_id}"
        raise BadRecordError(cause=cause)
    return row


_ALL_DETAILS = select(
    *(column for column in ProviderDetail.__table__.c if column.name != "logo"),
    ProviderDetail.logo.is_not(None).label("has_logo"),
)
_DETAILS = _ALL_DETAILS.where(ProviderDetail.provider_id == bindparam("id"))
_DOCUMENTATION = (
    select(DocumentationRow.__table__)
    .where(DocumentationRow.provider_id == bindparam("id"))
    .order_by(DocumentationRow.id)
)
_LOGO = select(ProviderDetail.logo_type, ProviderDetail.logo)


def logo(session: Session, domain: str) -> tuple[str, bytes] | None:
    """Return content type and bytes of the logo of a domain's provider, or None if it has none.

    Raises UnknownDomainError if no row fits, and DatabaseError.
    """
    with database_errors():
        row = _domain_row(session, domain)
        if row is None:
            raise UnknownDomainError(cause=f"domain {domain}")
        found = session.execute(_LOGO.where(ProviderDetail.provider_id == row.details_of)).first()
    if found is None or found.logo is None or found.logo_type not in LOGO_TYPES:
        return None
    return found.logo_type, found.logo


def _details(connection: Connection, domain: Row[*tuple[Any, ...]]) -> ProviderDetails:
    """Return the details of a domain's provider; what nobody could use is left out and logged."""
    row = connection.execute(_DETAILS, {"id": domain.details_of}).one()
    pages = connection.execute(_DOCUMENTATION, {"id": domain.details_of}).all()
    values: dict[str, Any] = {}
    for column, read in _DETAIL_COLUMNS.items():
        try:
            values[column] = read(getattr(row, column))
        except _BadRowError as error:
            log.error("table provider_detail, id %s: %s %s", row.provider_id, column, error)
    logo = None
    try:
        logo = _logo(row)
    except _BadRowError as error:
        log.error("table provider_detail, id %s: %s", row.provider_id, error)
    oauth2 = OAuth2(
        issuer=_text(row.oauth2_issuer),
        auth_url=values.pop("oauth2_auth_url", ""),
        token_url=values.pop("oauth2_token_url", ""),
        scope=_text(row.oauth2_scope),
        client_id=_text(row.oauth2_client_id),
    )
    return ProviderDetails(
        **values,
        logo=logo,
        oauth2=oauth2 if oauth2.issuer else None,
        documentation=tuple(_usable("documentation", pages, _page)),
    )


def _names_in_order(domain: str) -> list[str]:
    """Return the values of the column ``domain.name`` that fit a domain, best first."""
    labels = domain.split(".")
    names = [domain, *("*." + ".".join(labels[i:]) for i in range(1, len(labels))), "*"]
    return [spelling for name in names for spelling in spellings(name)]


def _usable(
    table: str, rows: Sequence[Row[Any]], check: Callable[[Row[Any]], _Item]
) -> Iterator[_Item]:
    """Yield what ``check`` makes of each row; name a bad row in the log and leave it out."""
    for row in rows:
        try:
            yield check(row)
        except _BadRowError as error:
            log.error("table %s, id %s: %s; this row is left out", table, row.id, error)


def _mail_server(row: Row[Any]) -> MailServer:
    if not isinstance(row.port, int) or not 1 <= row.port <= 65535:
        raise _BadRowError(f"port is {row.port!r}, it must be from 1 to 65535")
    return MailServer(
        type=_word("type", row.type, SERVER_TYPES),
        hostname=_hostname(row.name),
        port=row.port,
        socket_type=_word("socket_type", row.socket_type, SOCKET_TYPES),
        user_name=_user_name(row.user_name),
        authentication=_authentication(row.authentication),
    )


def _dav_server(row: Row[Any]) -> DavServer:
    return DavServer(
        type=_word("type", row.type, DAV_TYPES),
        url=_url(row.url, row.port, use_ssl=row.use_ssl),
        user_name=_user_name(row.user_name),
        domain_required=bool(row.domain_required),
    )


def _link(value: object) -> str:
    """Return a URL that people follow, or "" for none."""
    text = str(value or "").strip()
    try:
        parts = urlsplit(text)
        is_web = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        is_web = False
    if text and (not is_web or _FORBIDDEN_IN_URL.search(text)):
        raise _BadRowError(f"is {value!r}, it must be an http or https URL")
    return text


def _page(row: Row[Any]) -> Documentation:
    try:
        url = _link(row.url)
    except _BadRowError as error:
        raise _BadRowError(f"url {error}") from None
    if not url:
        raise _BadRowError("url is empty")
    return Documentation(url, _language(row.lang), _text(row.text) or url)


def _logo(row: Row[*tuple[Any, ...]]) -> Logo | None:
    """Return the form of a logo, None if there is none."""
    if not row.has_logo:
        return None
    if row.logo_type not in LOGO_TYPES:
        allowed = ", ".join(LOGO_TYPES)
        raise _BadRowError(f"logo_type is {row.logo_type!r}, it must be one of {allowed}")
    width, height = row.logo_width or 0, row.logo_height or 0
    if width < 1 or height < 1:
        raise _BadRowError("logo_width and logo_height must be 1 or more")
    return Logo(row.logo_type, width, height)


def _language(value: object) -> str:
    text = str(value or "").strip()
    if not re.fullmatch(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*", text):
        raise _BadRowError(f"lang is {value!r}, it must be a language such as en or pt-BR")
    return text


def _color(value: object) -> str:
    text = str(value or "").strip()
    if text and not re.fullmatch(r"#[0-9A-Fa-f]{6}", text):
        raise _BadRowError(f"is {value!r}, it must be a color such as #1a5fb4")
    return text


def _address(value: object) -> str:
    try:
        return str(EmailAddress.parse(str(value))) if value else ""
    except AddressError:
        raise _BadRowError(f"is {value!r}, it must be a mail address") from None


_DETAIL_COLUMNS: dict[str, Callable[[object], str]] = {
    "webmail_url": _link,
    "help_url": _link,
    "support_address": _address,
    "color": _color,
    "oauth2_auth_url": _link,
    "oauth2_token_url": _link,
}


def _word(column: str, value: object, words: Mapping[str, _Word]) -> _Word:
    """Return what a column's word means; the words are compared in any case."""
    key = str(value or "").strip().lower()
    if key not in words:
        allowed = ", ".join(word for word in words if word)
        raise _BadRowError(f"{column} is {value!r}, it must be one of {allowed}")
    return words[key]


def _authentication(value: object) -> tuple[Authentication, ...]:
    """Return the methods of a column that holds one or several, best first."""
    words = re.split(r"[\s,]+", str(value or "").strip())
    methods = (_word("authentication", word, AUTHENTICATIONS) for word in words)
    return tuple(dict.fromkeys(methods))


def _text(value: object) -> str:
    """Return a column's text without what XML cannot hold and without white space around it."""
    return _FORBIDDEN.sub("", str(value or "")).strip()


def _user_name(value: object) -> str:
    text = str(value or "").strip()
    if _FORBIDDEN.search(text):
        raise _BadRowError("user_name holds control characters")
    return text or "%EMAILADDRESS%"


def _hostname(value: object) -> str:
    """Return a host name as A-label; one with placeholders stays as it is."""
    text = str(value or "").strip()
    try:
        name = parse_domain(PLACEHOLDER.sub("x", text))
    except AddressError:
        raise _BadRowError(f"name is {value!r}, it must be a host name") from None
    return text if PLACEHOLDER.search(text) else name


def _url(value: object, port: object, *, use_ssl: bool) -> str:
    """Return a complete URL; the column ``port`` fills in what the URL does not say."""
    text = str(value or "").strip()
    if "://" not in text:
        text = f"{'https' if use_ssl else 'http'}://{text}"
    try:
        parts = urlsplit(text)
        url_port = parts.port
        parse_domain(PLACEHOLDER.sub("x", parts.hostname or ""))
    except (ValueError, AddressError):
        raise _BadRowError(f"url is {value!r}, it must be a URL") from None
    if parts.scheme not in {"http", "https"} or _FORBIDDEN_IN_URL.search(text):
        raise _BadRowError(f"url is {value!r}, it must be an http or https URL")
    if not isinstance(port, int) or not 0 <= port <= 65535:
        raise _BadRowError(f"port is {port!r}, it must be from 0 to 65535")
    default = 443 if parts.scheme == "https" else 80
    if port and url_port is None and port != default:
        parts = parts._replace(netloc=f"{parts.netloc}:{port}")
    return parts.geturl()
