"""A connection to one host of a directory: TLS, bind and search, each within a time."""

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from time import monotonic
from typing import Any, Literal
from urllib.parse import quote

from automx.address import is_ip
from automx.deadline import left, remaining
from automx.directory.row import ldap3

IDLE_SECONDS = 60.0  # how long an unused connection is kept: firewalls forget them silently

_SUCCESS, _SIZE_LIMIT_EXCEEDED = 0, 4  # result codes of RFC 4511, appendix A
_PAGED_RESULTS = "1.2.840.113556.1.4.319"  # the control of RFC 2696
_PAGE = 500  # entries


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
    SOCKET = "socket of this machine"


@dataclass(frozen=True, slots=True)
class Host:
    """One server of a directory, and how it is asked.

    The ``name`` of a socket is its path. ``address`` is the one of several addresses that is asked,
    "" if the name is one or none is chosen yet.
    """

    name: str
    port: int
    tls: TlsMode
    address: str = ""

    def __str__(self) -> str:
        if self.tls is TlsMode.SOCKET:
            return f"ldapi://{self.name}"
        return f"{self.name}:{self.port}" + (f" at {self.address}" if self.address else "")

    def each_address(self) -> list["Host"]:
        """Return this host once for each address that the system's resolver gives, in its order.

        Raises BrokenError if there is none.
        """
        if self.tls is TlsMode.SOCKET or is_ip(self.name):
            return [self]
        try:
            found = socket.getaddrinfo(self.name, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise BrokenError(f"the host name has no address: {_text_of(error)}") from error
        addresses = dict.fromkeys(str(address[0]) for *_, address in found)
        return [replace(self, address=address) for address in addresses]


@dataclass(frozen=True, slots=True)
class Credentials:
    """How automx proves to the hosts of a directory who it is, and how it checks who they are.

    ``has_certificate`` is whether ``context`` shows a certificate of automx to a host.
    """

    context: ssl.SSLContext
    has_certificate: bool
    user: str
    password: str = field(repr=False)


class Connection:
    """A bound connection to a host.

    ``deadline`` is the time, by ``monotonic()``, until which each step has to be done. All methods
    raise HostError, and BrokenError where the connection itself fails.
    """

    def __init__(self, host: Host, credentials: Credentials) -> None:
        self.host = host
        self.is_encrypted = False
        self.bound_as = ""
        self.last_used = 0.0
        self._credentials = credentials
        self._ldap: Any = None

    def log_in(
        self,
        deadline: float,
        report: Callable[[LogInStep, str], None] = lambda step, trouble: None,
    ) -> None:
        """Connect, encrypt as the host is to be asked, and bind.

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
        self.bind(deadline)
        report("Bind", "")

    @contextmanager
    def ending(self, deadline: float) -> Iterator[None]:
        """Close the connection if a block takes longer: each step waits anew for each octet.

        A host may send entries without end, or an octet now and then.
        """
        watch = threading.Timer(left(deadline), self.close)
        watch.daemon = True
        watch.start()
        try:
            yield
        except HostError as error:
            if left(deadline):
                raise
            raise BrokenError("no answer in time") from error  # closed, it says something else
        finally:
            watch.cancel()

    def connect(self, deadline: float) -> None:
        """Connect, by TLS from the beginning if the host is to be asked by LDAPS."""
        library = ldap3()
        tls = library.Tls()
        # Python's own check of the certificate, host name included, in place of ldap3's.
        tls.wrap_socket = self._encrypt
        is_socket = self.host.tls is TlsMode.SOCKET
        with _broken():
            server = library.Server(
                f"ldapi://{quote(self.host.name, safe='')}" if is_socket else self._address,
                None if is_socket else self.host.port,
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

    @property
    def _address(self) -> str:
        return self.host.address or self.host.name

    def _encrypt(self, connection: Any, do_handshake: bool = False) -> None:
        """Put TLS on the socket of a connection of ldap3's, which calls this."""
        connection.socket = self._credentials.context.wrap_socket(
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

    def bind(self, deadline: float) -> None:
        """Log in by name and password.

        Without a name, log in by SASL EXTERNAL (RFC 4422, appendix A) where the host knows already
        who automx is: from the socket, or from a certificate; else anonymously.
        """
        is_known = self.host.tls is TlsMode.SOCKET
        is_known |= self.is_encrypted and self._credentials.has_certificate
        with _broken():
            self._limit(deadline)
            if user := self._credentials.user:
                self._ldap.user, self._ldap.password = user, self._credentials.password
                self._ldap.authentication = "SIMPLE"
            elif is_known:
                self._ldap.authentication = "SASL"
                self._ldap.sasl_mechanism, self._ldap.sasl_credentials = "EXTERNAL", ""
            is_bound = self._ldap.bind(read_server_info=False)
        if not is_bound:
            raise HostError(f"the bind was refused: {self._ldap.result['description']}")
        self.bound_as = user or ("SASL EXTERNAL" if is_known else "anonymous")

    def search(
        self, bases: Sequence[str], search_filter: str, attributes: Sequence[str], deadline: float
    ) -> list[Any]:
        """Return at most two entries below several bases.

        Where the host has a limit of its own, an entry is returned twice rather than taken for the
        only one.
        """
        found: dict[str, Any] = {}
        for base in bases:
            entries, is_cut = self._search(base, search_filter, attributes, deadline)
            if is_cut:
                return ([*found.values(), *entries] * 2)[:2]
            # A base may lie below another one.
            found |= {entry["dn"].lower(): entry for entry in entries}
        return list(found.values())[:2]

    def _search(
        self, base: str, search_filter: str, attributes: Sequence[str], deadline: float
    ) -> tuple[list[Any], bool]:
        """Return at most two entries below a base, and whether a limit has cut others off."""
        with _broken():
            self._limit(deadline)
            self._ldap.search(base, search_filter, attributes=list(attributes), size_limit=2)
        result = self._ldap.result
        if result["result"] not in {_SUCCESS, _SIZE_LIMIT_EXCEEDED}:
            raise HostError(f"the search was refused: {result['description']}")
        # Active Directory also sends referrals to other partitions; they are not followed.
        entries = [entry for entry in self._ldap.response if entry["type"] == "searchResEntry"]
        return entries, result["result"] == _SIZE_LIMIT_EXCEEDED

    def entries(
        self, bases: Sequence[str], search_filter: str, attributes: Sequence[str], deadline: float
    ) -> list[Any]:
        """Return all entries below several bases, each once; they come in pages (RFC 2696).

        A host whose limit of entries cuts some off raises HostError.
        """
        found: dict[str, Any] = {}
        for base in bases:
            cookie = None
            while True:
                with _broken():
                    self._limit(deadline)
                    self._ldap.search(
                        base,
                        search_filter,
                        attributes=list(attributes),
                        paged_size=_PAGE,
                        paged_cookie=cookie,
                    )
                result = self._ldap.result
                if result["result"] == _SIZE_LIMIT_EXCEEDED:
                    raise HostError(
                        f"it gives no more than {len(found) + len(self._ldap.response)} entries to"
                        f" {self.bound_as}: its limit must be raised"
                    )
                if result["result"] != _SUCCESS:
                    raise HostError(f"the search was refused: {result['description']}")
                found |= {
                    entry["dn"].lower(): entry
                    for entry in self._ldap.response
                    if entry["type"] == "searchResEntry"
                }
                control = result.get("controls", {}).get(_PAGED_RESULTS, {})
                cookie = control.get("value", {}).get("cookie")
                if not cookie:
                    break
        return list(found.values())

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
        raise BrokenError(_text_of(error)) from error


def _text_of(error: Exception) -> str:
    # ldap3 wraps the texts of ssl like a tuple.
    text = " ".join(str(error).split()).removeprefix("('").removesuffix("',)")
    return text or type(error).__name__
