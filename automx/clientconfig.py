"""What a mail client has to know, independent of any protocol.

Lookup makes one :class:`ClientConfig` for a domain; the formats only write it down. All values are
checked: ports are in range, types are known, and no text holds control characters. Server names,
URLs and user names may hold placeholders (see :mod:`automx.address`).
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class ServerType(StrEnum):
    """The protocol of a mail server, as Autoconfig writes it."""

    IMAP = "imap"
    POP3 = "pop3"
    SMTP = "smtp"


class SocketType(StrEnum):
    """How a connection is encrypted, as Autoconfig writes it."""

    SSL = "SSL"
    STARTTLS = "STARTTLS"
    PLAIN = "plain"


class Authentication(StrEnum):
    """How a person logs in, as Autoconfig writes it (draft-ietf-mailmaint-autoconfig)."""

    PASSWORD_CLEARTEXT = "password-cleartext"  # noqa: S105 - the name of a method
    PASSWORD_ENCRYPTED = "password-encrypted"  # noqa: S105 - the name of a method
    OAUTH2 = "OAuth2"
    GSSAPI = "GSSAPI"
    NTLM = "NTLM"
    TLS_CLIENT_CERT = "TLS-client-cert"
    CLIENT_IP_ADDRESS = "client-IP-address"
    NONE = "none"


class DavType(StrEnum):
    """The protocol of a service that is reached by URL."""

    CALDAV = "caldav"
    CARDDAV = "carddav"
    WEBDAV = "webdav"


@dataclass(frozen=True, slots=True)
class MailServer:
    """One way to fetch or to submit mail; ``authentication`` is sorted best first, never empty."""

    type: ServerType
    hostname: str
    port: int
    socket_type: SocketType
    user_name: str
    authentication: tuple[Authentication, ...]


@dataclass(frozen=True, slots=True)
class DavServer:
    """A calendar, an address book or a file share.

    ``url`` is complete, with its port if that is not the scheme's.
    """

    type: DavType
    url: str
    user_name: str
    domain_required: bool


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """All settings of one domain (an A-label), or of one of its people; servers best first.

    ``display_name`` is the name of the person, "" where it is not known.
    """

    domain: str
    provider_name: str
    provider_short_name: str
    mail_servers: tuple[MailServer, ...]
    dav_servers: tuple[DavServer, ...]
    display_name: str = ""

    def for_person(self, login_name: str, display_name: str = "") -> "ClientConfig":
        """Return the settings of a person who logs in by this name everywhere, unless it is ""."""
        if not login_name:
            return replace(self, display_name=display_name)
        return replace(
            self,
            mail_servers=tuple(replace(s, user_name=login_name) for s in self.mail_servers),
            dav_servers=tuple(replace(s, user_name=login_name) for s in self.dav_servers),
            display_name=display_name,
        )

    @property
    def incoming(self) -> tuple[MailServer, ...]:
        """The IMAP and POP3 servers, best first."""
        return tuple(server for server in self.mail_servers if server.type is not ServerType.SMTP)

    @property
    def outgoing(self) -> tuple[MailServer, ...]:
        """The SMTP servers, best first."""
        return tuple(server for server in self.mail_servers if server.type is ServerType.SMTP)
