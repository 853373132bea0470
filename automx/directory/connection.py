"""A connection to one host of a directory: TLS, bind and search, each within a time."""

import select
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic
from typing import Any, Literal

from automx.deadline import remaining
from automx.directory.row import LdapServer, ldap3

IDLE_SECONDS = 60.0  # how long an unused connection is kept: firewalls forget them silently

_SUCCESS, _SIZE_LIMIT_EXCEEDED = 0, 4  # result codes of RFC 4511, appendix A


LogInStep = Literal["Connect", "StartTLS", "TLS", "Bind"]


class HostError(Exception):
    """A host does not do its work; the text is the reason, for the administrator."""


class BrokenError(HostError):
    """The connection to a host failed, or could not be made."""


class TlsMode(StrEnum):
    """How a connection to a host is encrypted."""

    LDAPS = "LDAPS"
    STARTTLS = "StartTLS"
    TRY_STARTTLS = "StartTLS if possible"
    NONE = "not encrypted"


@dataclass(frozen=True, slots=True)
class Host:
    """One server of a directory, and how it is asked."""

    name: str
    port: int
    tls: TlsMode

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"


class Connection:
    """A bound connection to a host.

    ``deadline`` is the time, by ``monotonic()``, until which each step has to be done. All methods
    raise HostError, and BrokenError where the connection itself fails.
    """

    def __init__(self, host: Host, context: ssl.SSLContext) -> None:
        self.host = host
        self.is_encrypted = False
        self.last_used = 0.0
        self._context = context
        self._ldap: Any = None

    def log_in(
        self,
        server: LdapServer,
        password: str,
        deadline: float,
        report: Callable[[LogInStep, str], None] = lambda step, trouble: None,
    ) -> None:
        """Connect, encrypt as the host is to be asked, and bind as the row says.

        ``report`` is called after each step, with an error text if a step failed that is optional.
        """
        self.connect(deadline)
        report("Connect", "")
        if self.host.tls in {TlsMode.STARTTLS, TlsMode.TRY_STARTTLS}:
            try:
                self.start_tls(deadline)
            except HostError as error:
                # A host with a wrong certificate is a BrokenError: it must not get the password.
                if self.host.tls is TlsMode.STARTTLS or isinstance(error, BrokenError):
                    raise
                report("StartTLS", str(error))
                self.close()
                self.connect(deadline)
        report("TLS", "")
        self.bind(server.bind_user, password, deadline)
        report("Bind", "")

    def connect(self, deadline: float) -> None:
        """Connect, by TLS from the beginning if the host is to be asked by LDAPS."""
        library = ldap3()
        tls = library.Tls()
        # Python's own check of the certificate, host name included, in place of ldap3's.
        tls.wrap_socket = self._encrypt
        with _broken():
            server = library.Server(
                self.host.name,
                self.host.port,
                use_ssl=self.host.tls is TlsMode.LDAPS,
                tls=tls,
                get_info=library.NONE,
                connect_timeout=remaining(deadline),
            )
            self._ldap = library.Connection(
                server,
                client_strategy=library.SYNC,
                auto_referrals=False,
                auto_range=False,
                check_names=False,
                read_only=True,
                return_empty_attributes=False,
            )
            self._ldap.open(read_server_info=False)
        self.is_encrypted = self.host.tls is TlsMode.LDAPS

    def _encrypt(self, connection: Any, do_handshake: bool = False) -> None:
        """Put TLS on the socket of a connection of ldap3's, which calls this."""
        connection.socket = self._context.wrap_socket(
            connection.socket, server_hostname=self.host.name
        )

    def start_tls(self, deadline: float) -> None:
        """Encrypt the connection (RFC 4513, section 3)."""
        from ldap3.core.exceptions import LDAPStartTLSError

        with _broken():
            self._limit(deadline)
            try:
                self._ldap.start_tls(read_server_info=False)
            except LDAPStartTLSError:
                description = (self._ldap.result or {}).get("description")
                if description == "success":  # what went wrong came later: the certificate, say
                    raise
                raise HostError(f"StartTLS was refused: {description}") from None
        self.is_encrypted = True

    def bind(self, user: str, password: str, deadline: float) -> None:
        """Log in, anonymously if there is no user."""
        with _broken():
            self._limit(deadline)
            if user:
                self._ldap.user, self._ldap.password = user, password
                self._ldap.authentication = "SIMPLE"
            is_bound = self._ldap.bind(read_server_info=False)
        if not is_bound:
            raise HostError(f"the bind was refused: {self._ldap.result['description']}")

    def search(
        self, base: str, search_filter: str, attributes: Sequence[str], deadline: float
    ) -> list[Any]:
        """Return at most two entries.

        Where the host has a limit of its own, an entry is returned twice rather than taken for the
        only one.
        """
        with _broken():
            self._limit(deadline)
            self._ldap.search(base, search_filter, attributes=list(attributes), size_limit=2)
        result = self._ldap.result
        if result["result"] not in {_SUCCESS, _SIZE_LIMIT_EXCEEDED}:
            raise HostError(f"the search was refused: {result['description']}")
        # Active Directory also sends referrals to other partitions; they are not followed.
        entries = [entry for entry in self._ldap.response if entry["type"] == "searchResEntry"]
        return entries if result["result"] == _SUCCESS else (entries * 2)[:2]

    def certificate(self) -> Mapping[str, Any]:
        """Return the certificate of an encrypted connection as ``ssl`` does, {} if not checked."""
        return self._ldap.socket.getpeercert() or {}

    def is_fresh(self) -> bool:
        """Return whether the connection may be used again: it is young, and it is not closed."""
        if monotonic() - self.last_used > IDLE_SECONDS:
            return False
        # Nothing is expected: what can be read is the end, or the announcement of it.
        try:
            return not select.select([self._ldap.socket], [], [], 0)[0]
        except (OSError, ValueError):
            return False

    def close(self) -> None:
        """Close the connection without a word; a thread that waits for an answer ends."""
        sock = self._ldap.socket if self._ldap is not None else None
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            with suppress(OSError):
                sock.close()

    def _limit(self, deadline: float) -> None:
        self._ldap.socket.settimeout(remaining(deadline))


@contextmanager
def _broken() -> Iterator[None]:
    """Raise BrokenError for what goes wrong with a connection; its text holds no secret."""
    try:
        yield
    except HostError:
        raise
    except TimeoutError as error:
        raise BrokenError("no answer in time") from error
    except Exception as error:  # ldap3 raises whatever its decoder stumbles over
        # ldap3 wraps the texts of ssl like a tuple.
        text = " ".join(str(error).split()).removeprefix("('").removesuffix("',)")
        raise BrokenError(text or type(error).__name__) from error
