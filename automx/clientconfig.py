"""The settings of a mail client, independent of any protocol.

Lookup makes one :class:`ClientConfig` for a domain; the formats write it. All values are checked:
ports are in range, types are known, and no text holds control characters. Server names,
URLs and user names may hold placeholders (see :mod:`automx.address`).
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from automx.address import EmailAddress, expand, expand_url, fill_in, fill_in_url
from automx.errors import BadRecordError

_Record = TypeVar("_Record", "MailServer", "Service", "Documentation", "ProviderDetails")

# Characters that no text of a record holds: those that XML cannot hold, other control characters,
# and those that templates use as slots (formats/template.py).
FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ue000-\ue00f\ufffe\uffff]")


class ServerType(StrEnum):
    """The protocol of a mail server, as Autoconfig writes it."""

    IMAP = "imap"
    POP3 = "pop3"
    SMTP = "smtp"
    MANAGESIEVE = "managesieve"  # RFC 5804


class SocketType(StrEnum):
    """How a connection is encrypted, as Autoconfig writes it."""

    SSL = "SSL"
    STARTTLS = "STARTTLS"
    PLAIN = "plain"


class Authentication(StrEnum):
    """A method to log in, as Autoconfig writes it (draft-ietf-mailmaint-autoconfig)."""

    PASSWORD_CLEARTEXT = "password-cleartext"  # noqa: S105 - the name of a method
    PASSWORD_ENCRYPTED = "password-encrypted"  # noqa: S105 - the name of a method
    OAUTH2 = "OAuth2"
    GSSAPI = "GSSAPI"
    NTLM = "NTLM"
    TLS_CLIENT_CERT = "TLS-client-cert"
    CLIENT_IP_ADDRESS = "client-IP-address"
    NONE = "none"


_PASSWORDS = {Authentication.PASSWORD_CLEARTEXT, Authentication.PASSWORD_ENCRYPTED}
_NO_LOGIN = {Authentication.NONE, Authentication.CLIENT_IP_ADDRESS}


class ServiceType(StrEnum):
    """The protocol of a service with a URL."""

    CALDAV = "caldav"
    CARDDAV = "carddav"
    WEBDAV = "webdav"
    JMAP = "jmap"
    ACTIVESYNC = "activesync"
    EWS = "ews"  # Exchange Web Services
    GRAPH = "graph"  # Microsoft Graph
    XMPP = "xmpp"
    MATRIX = "matrix"


@dataclass(frozen=True, slots=True)
class MailServer:
    """One way to fetch or to submit mail; ``authentication`` is sorted best first, never empty.

    ``user_name`` is "" for a server without login whose row names no user.
    """

    type: ServerType
    hostname: str
    port: int
    socket_type: SocketType
    user_name: str
    authentication: tuple[Authentication, ...]

    @property
    def takes_password(self) -> bool:
        """Whether a client can log in with a password."""
        return not _PASSWORDS.isdisjoint(self.authentication)

    @property
    def needs_login(self) -> bool:
        """Whether a client has to log in."""
        return not _NO_LOGIN.issuperset(self.authentication)

    @property
    def is_plain(self) -> bool:
        """Whether the connection is not encrypted."""
        return self.socket_type is SocketType.PLAIN

    @property
    def unfit_type(self) -> ServerType | None:
        """The protocol of a usual port, if the server has another one; else None."""
        usual = USUAL_PORTS.get(self.port)
        return usual[0] if usual and usual[0] is not self.type else None

    @property
    def unfit_socket_type(self) -> SocketType | None:
        """The encryption of a usual port, if the server has another one; else None.

        A port for STARTTLS fits a server without encryption, too.
        """
        usual = USUAL_PORTS.get(self.port)
        if usual is None or usual[1] is self.socket_type:
            return None
        return None if self.is_plain and usual[1] is SocketType.STARTTLS else usual[1]

    @property
    def excludes_clients(self) -> bool:
        """Whether clients that only know passwords and OAuth2 cannot use the server."""
        return not self.takes_password and Authentication.OAUTH2 not in self.authentication


@dataclass(frozen=True, slots=True)
class Service:
    """A service with a URL: calendar, address book, file share, JMAP, chat and the like.

    ``url`` is complete, with its port if that is not the scheme's.
    """

    type: ServiceType
    url: str
    user_name: str
    domain_required: bool


@dataclass(frozen=True, slots=True)
class Documentation:
    """A page that explains the settings, its language (BCP 47) and its title; "" if not known."""

    url: str
    language: str
    text: str


@dataclass(frozen=True, slots=True)
class OAuth2:
    """The OAuth 2.0 server of a provider (RFC 6749), and the client ID of mail clients there."""

    issuer: str
    auth_url: str
    token_url: str
    scope: str
    client_id: str

    def for_domain(self, domain: str) -> "OAuth2":
        """Return the settings with the domain filled in."""
        issuer, auth_url, token_url = (
            fill_in_url(url, domain, None) for url in (self.issuer, self.auth_url, self.token_url)
        )
        return replace(self, issuer=issuer, auth_url=auth_url, token_url=token_url)


# What usual ports are for (RFC 8314, RFC 5804, IANA).
USUAL_PORTS = {
    993: (ServerType.IMAP, SocketType.SSL),
    995: (ServerType.POP3, SocketType.SSL),
    465: (ServerType.SMTP, SocketType.SSL),
    143: (ServerType.IMAP, SocketType.STARTTLS),
    110: (ServerType.POP3, SocketType.STARTTLS),
    587: (ServerType.SMTP, SocketType.STARTTLS),
    25: (ServerType.SMTP, SocketType.STARTTLS),
    4190: (ServerType.MANAGESIEVE, SocketType.STARTTLS),
}
IMPLICIT_TLS_PORTS = {
    type_: port for port, (type_, socket) in USUAL_PORTS.items() if socket is SocketType.SSL
}
STARTTLS_PORTS = tuple(
    port for port, (_, socket) in USUAL_PORTS.items() if socket is SocketType.STARTTLS
)

# Image formats that browsers and mail clients can show.
LOGO_TYPES = ("image/png", "image/svg+xml", "image/jpeg", "image/webp")


@dataclass(frozen=True, slots=True)
class Logo:
    """The form of a provider's logo (size in pixels); its bytes stay in the database."""

    content_type: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class ProviderDetails:
    """Information about a provider for people; "", None or empty if it is not known.

    ``color`` has the form of CSS: ``#`` and six hexadecimal digits. URLs may hold %EMAILDOMAIN%.
    """

    webmail_url: str = ""
    help_url: str = ""
    support_address: str = ""
    color: str = ""
    logo: Logo | None = None
    oauth2: OAuth2 | None = None
    documentation: tuple[Documentation, ...] = ()

    def for_domain(self, domain: str) -> "ProviderDetails":
        """Return the details with the domain filled in."""

        def filled_in(url: str) -> str:
            return fill_in_url(url, domain, None)

        return _with(
            self,
            webmail_url=filled_in(self.webmail_url),
            help_url=filled_in(self.help_url),
            oauth2=self.oauth2 and self.oauth2.for_domain(domain),
            documentation=tuple(
                _with(page, url=filled_in(page.url)) for page in self.documentation
            ),
        )


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """All settings of a domain (an A-label), or of one person in it; servers best first.

    ``display_name`` is the name of the person, "" if it is not known.
    """

    domain: str
    provider_name: str
    provider_short_name: str
    mail_servers: tuple[MailServer, ...]
    services: tuple[Service, ...]
    display_name: str = ""
    details: ProviderDetails = ProviderDetails()

    @property
    def display_names(self) -> tuple[str, str]:
        """Name and short name of the provider, not longer than Autoconfig and PACC allow."""
        return self.provider_name[:60].rstrip(), self.provider_short_name[:20].rstrip()

    def for_person(self, login_name: str, display_name: str = "") -> "ClientConfig":
        """Return the settings with a login name for all servers, unless it is "", and a name."""
        if not login_name:
            return replace(self, display_name=display_name)
        return replace(
            self,
            mail_servers=tuple(
                replace(s, user_name=s.user_name and login_name) for s in self.mail_servers
            ),
            services=tuple(replace(s, user_name=login_name) for s in self.services),
            display_name=display_name,
        )

    def special_login(self, login_name: str, address: EmailAddress) -> str:
        """Return a login name, or "" if that of all servers is the same for this address anyway.

        Then the documents of a person who exists do not differ from those of one who does not.
        Mail servers read login names in any case.
        """
        if not login_name:
            return ""
        texts = {s.user_name for s in self.mail_servers if s.user_name}
        texts |= {s.user_name for s in self.services}
        names = {(expand(text, self.domain, address) or "").lower() for text in texts}
        return "" if names <= {login_name.lower()} else login_name

    def for_address(self, address: EmailAddress | None) -> "ClientConfig":
        """Return the settings with all placeholders expanded.

        With None, only the domain is known: servers and services whose host name or URL needs an
        address are left out, and a user name that needs one is "".
        """
        return self._filled_in(
            lambda text: expand(text, self.domain, address) or "",
            lambda url: expand_url(url, self.domain, address) or "",
        )

    def for_client(self, address: EmailAddress | None) -> "ClientConfig":
        """Return the settings for a client that fills in placeholders itself, as far as it can.

        All values that are known are filled in; a user name that is exactly %EMAILADDRESS% stays,
        because every client knows it. With None, only the domain is known.
        """
        return self._filled_in(
            lambda text: fill_in(text, self.domain, address),
            lambda url: fill_in_url(url, self.domain, address),
        )

    def _filled_in(self, text: Callable[[str], str], url: Callable[[str], str]) -> "ClientConfig":
        """Return the settings with all texts replaced, without those that have no host then."""
        servers = (
            _with(s, hostname=text(s.hostname), user_name=text(s.user_name))
            for s in self.mail_servers
        )
        services = (_with(s, url=url(s.url), user_name=text(s.user_name)) for s in self.services)
        return replace(
            self,
            mail_servers=tuple(server for server in servers if server.hostname),
            services=tuple(service for service in services if service.url),
        )

    def having(self, is_usable: Callable[[MailServer], bool]) -> "ClientConfig":
        """Return the settings without the mail servers that a client cannot use."""
        return replace(self, mail_servers=tuple(filter(is_usable, self.mail_servers)))

    def encrypted(self) -> "ClientConfig":
        """Return the settings without plain servers whose place an encrypted one can take."""
        return replace(self, mail_servers=_without(self.mail_servers, lambda s: s.is_plain))

    def general(self) -> "ClientConfig":
        """Return the settings with the mail servers that a document for all clients may show.

        Some clients take the last server, and some refuse a document that has a server which they
        cannot use. So no plain server stands beside an encrypted one, and none that excludes
        clients beside one with a password or OAuth2.
        """
        servers = _without(self.encrypted().mail_servers, lambda s: s.excludes_clients)
        return replace(self, mail_servers=servers)

    def left_out(self) -> list[tuple[MailServer, str]]:
        """Return the mail servers that general() leaves out, each with the reason."""
        encrypted, shown = self.encrypted().mail_servers, self.general().mail_servers
        return [
            (server, _EXCLUDES_CLIENTS if server in encrypted else _PLAIN)
            for server in self.mail_servers
            if server not in shown
        ]

    @property
    def missing(self) -> tuple[str, ...]:
        """Which of "incoming" and "outgoing" there is no mail server for."""
        kinds = (("incoming", self.incoming), ("outgoing", self.outgoing))
        return tuple(kind for kind, servers in kinds if not servers)

    def check_complete(self) -> None:
        """Raise BadRecordError if there is no incoming or no outgoing mail server."""
        for kind in self.missing:
            raise BadRecordError(cause=f"domain {self.domain}: no usable {kind} mail server")

    def servers(self, *types: ServerType) -> tuple[MailServer, ...]:
        """Return the mail servers of some types, best first."""
        return tuple(server for server in self.mail_servers if server.type in types)

    @property
    def incoming(self) -> tuple[MailServer, ...]:
        """The IMAP and POP3 servers, best first."""
        return self.servers(ServerType.IMAP, ServerType.POP3)

    @property
    def outgoing(self) -> tuple[MailServer, ...]:
        """The SMTP servers, best first."""
        return self.servers(ServerType.SMTP)

    @property
    def sieve(self) -> tuple[MailServer, ...]:
        """The ManageSieve servers, best first."""
        return self.servers(ServerType.MANAGESIEVE)


# Why a server is left out.
_PLAIN = "it has no encryption, and another server has"
_EXCLUDES_CLIENTS = "it takes neither a password nor OAuth2, and another server does"


def _with(record: _Record, **values: Any) -> _Record:
    """Return a record with some values: the same one if it has them, as most have."""
    if all(getattr(record, name) == value for name, value in values.items()):
        return record
    return replace(record, **values)


def _without(
    servers: tuple[MailServer, ...], is_worse: Callable[[MailServer], bool]
) -> tuple[MailServer, ...]:
    """Return servers without the worse ones, as far as a better one can take their place.

    IMAP can take the place of POP3, but not the other way round.
    """
    better = {server.type for server in servers if not is_worse(server)}
    if ServerType.IMAP in better:
        better.add(ServerType.POP3)
    return tuple(s for s in servers if not is_worse(s) or s.type not in better)


def best_first(servers: Iterable[MailServer]) -> list[MailServer]:
    """Return servers sorted: IMAP before POP3, else as they are."""
    return sorted(servers, key=lambda server: server.type is ServerType.POP3)
