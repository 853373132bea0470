"""Names, connections and TLS, each step within a time, by a name server of one's choice."""

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import dns.exception
import dns.rdatatype
import dns.resolver

_Value = TypeVar("_Value")


class NetworkError(Exception):
    """A step that failed; the text tells why, in a few words."""


class CertificateError(NetworkError):
    """TLS worked, but the certificate is not to be trusted, or not the name's."""


class Network:
    """Asks the network as a client would; safe for threads. What was asked once is remembered."""

    def __init__(
        self, *, name_server: str = "", port: int = 53, ca_file: str = "", timeout: float = 5
    ) -> None:
        self.timeout = timeout
        self._resolver = dns.resolver.Resolver(configure=not name_server)
        if name_server:
            self._resolver.nameservers = [name_server]
            self._resolver.port = port
        self._resolver.lifetime = timeout
        self.context = ssl.create_default_context(cafile=ca_file or None)
        self._lock = threading.Lock()
        self._known: dict[tuple[str, ...], threading.Event] = {}
        self._answers: dict[tuple[str, ...], object] = {}

    def once(self, key: tuple[str, ...], work: Callable[[], _Value]) -> _Value:
        """Return what ``work`` returns or raises; it is done once for each key."""
        with self._lock:
            event = self._known.get(key)
            is_first = event is None
            if event is None:
                event = self._known[key] = threading.Event()
        if is_first:
            try:
                self._answers[key] = work()
            except NetworkError as error:
                self._answers[key] = error
            finally:
                event.set()
        event.wait()
        answer = self._answers[key]
        if isinstance(answer, NetworkError):
            raise answer
        return answer  # type: ignore[return-value] # what work() returned

    def records(self, name: str, type_: str) -> list[str]:
        """Return the data of the records of a name as in a zone file, [] if there are none.

        The strings of a TXT record are joined, without quotes. Raises NetworkError.
        """
        return self.once(("dns", name, type_), lambda: self._ask(name, type_))

    def _ask(self, name: str, type_: str) -> list[str]:
        try:
            answer = self._resolver.resolve(f"{name}.", type_, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            return []
        except dns.exception.Timeout:
            raise NetworkError("the name server did not answer") from None
        except dns.exception.DNSException as error:
            raise NetworkError(f"DNS: {type(error).__name__}") from error
        if answer.rrset is None:
            return []
        if answer.rdtype == dns.rdatatype.TXT:
            return [b"".join(data.strings).decode(errors="replace") for data in answer.rrset]
        return [data.to_text() for data in answer.rrset]

    def addresses(self, name: str) -> list[str]:
        """Return the IP addresses of a host, IPv4 first; [] if it has none. Raises NetworkError."""
        try:
            return [str(ipaddress.ip_address(name))]
        except ValueError:
            return [*self.records(name, "A"), *self.records(name, "AAAA")]

    def connect(self, name: str, port: int, deadline: float) -> socket.socket:
        """Return a connection to the first address of a host that accepts it.

        Raises NetworkError.
        """
        addresses = self.addresses(name)
        if not addresses:
            raise NetworkError("the name has no address")
        reason = ""
        for address in addresses:
            try:
                return socket.create_connection((address, port), remaining(deadline))
            except TimeoutError:
                reason = f"{address} port {port}: no answer in time"
            except OSError as error:
                reason = f"{address} port {port}: {(error.strerror or str(error)).lower()}"
        raise NetworkError(reason)

    def encrypt(self, sock: socket.socket, name: str, deadline: float) -> ssl.SSLSocket:
        """Put TLS on a connection, with a check of the certificate for the name.

        Raises CertificateError and NetworkError; the connection is closed then.
        """
        try:
            sock.settimeout(remaining(deadline))
            return self.context.wrap_socket(sock, server_hostname=name)
        except ssl.SSLCertVerificationError as error:
            sock.close()
            raise CertificateError(
                error.verify_message or "the certificate is not valid"
            ) from error
        except TimeoutError:
            sock.close()
            raise NetworkError("TLS: no answer in time") from None
        except OSError as error:
            sock.close()
            reason = getattr(error, "reason", None) or error.strerror or str(error)
            raise NetworkError(f"TLS: {reason}".replace("_", " ").lower()) from error

    def deadline(self) -> float:
        """Return when a step that begins now must have ended."""
        return time.monotonic() + self.timeout


def remaining(deadline: float) -> float:
    """Return the seconds that are left; raises NetworkError if there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise NetworkError("no answer in time")
    return seconds
