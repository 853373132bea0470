"""DNS, connections and TLS as a mail client uses them, each within a time."""

import errno
import io
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, TypeVar

import dns.exception
import dns.inet
import dns.message
import dns.rcode
import dns.rdatatype
import dns.resolver

from automx.deadline import after, remaining
from automx.errors import SettingsError

_Value = TypeVar("_Value")

MAX_ALIASES = 8  # CNAME records in a row
MAX_HOSTS = 16  # that a name leads to, and addresses of a host, that are tried

# OpenSSL's reasons for a server that does not answer with TLS.
_NO_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST"}
_NO_TLS |= {"PACKET_LENGTH_TOO_LONG", "HTTPS_PROXY_REQUEST"}
# This machine has no route to such an address, but other machines may have one.
_NO_ROUTE = {errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class NetworkError(Exception):
    """A failed use of the network; ``advice`` says what to do, "" if that is not known."""

    def __init__(self, text: str = "no answer in time", advice: str = "") -> None:
        super().__init__(text)
        self.advice = advice


class NameServerError(NetworkError):
    """A name server gave no usable answer."""


class NoAnswerError(NetworkError):
    """A server accepted a connection, but did not answer in time."""


class NoTlsError(NetworkError):
    """A server does not speak TLS."""


class CertificateError(NetworkError):
    """TLS works, but the certificate is not trusted, or is for other names."""


class Network:
    """Uses the network as a mail client does; safe for threads. Answers are remembered.

    ``name_server`` is an IP address, "" for those of the system. ``timeout`` (seconds) limits each
    query to the name servers, and each connection with everything that is sent on it. ``ca_file``
    holds authorities (PEM) to trust beside those of the system. Raises SettingsError if the file
    holds none, or if the system has no name server.
    """

    def __init__(
        self,
        *,
        name_server: str = "",
        port: int = 53,
        ca_file: str | None = None,
        timeout: float = 5,
        now: datetime | None = None,
    ) -> None:
        self.timeout = timeout
        self.now = now or datetime.now(UTC)
        try:
            self._resolver = dns.resolver.Resolver(configure=not name_server)
        except dns.exception.DNSException as error:
            raise SettingsError("the system names no name server: give one by --dns") from error
        if name_server:
            self._resolver.nameservers = [name_server]
            self._resolver.port = port
        self._resolver.lifetime = timeout
        self._context = ssl.create_default_context()
        try:
            if ca_file:
                self._context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"{ca_file} holds no authorities in PEM") from error
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, ...], Future[Any]] = {}

    def once(self, key: tuple[str, ...], work: Callable[[], _Value]) -> _Value:
        """Return or raise what ``work`` does; it runs once for each key."""
        with self._lock:
            is_first = key not in self._answers
            answer: Future[_Value] = self._answers.setdefault(key, Future())
        if is_first:
            try:
                answer.set_result(work())
            except Exception as error:  # every caller gets it
                answer.set_exception(error)
        if failure := answer.exception():
            raise failure.with_traceback(None)  # else each raise would make its traceback longer
        return answer.result()

    def exists(self, name: str) -> bool:
        """Return whether there is a name, or a name below it. Raises NameServerError."""
        return self._resolve(name, "SOA") is not None

    def is_usable(self, domain: str) -> bool:
        """Return whether a domain exists and its name servers answer."""
        try:
            return self.exists(domain)
        except NameServerError:
            return False

    def records(self, name: str, type_: str) -> list[str]:
        """Return the data of the records of a name as in a zone file, [] if there are none.

        Aliases are followed, except for the type CNAME. The strings of a TXT record are joined,
        without quotes. Raises NameServerError.
        """
        return self._resolve(name, type_) or []

    def _resolve(self, name: str, type_: str) -> list[str] | None:
        return self.once(("dns", name, type_), lambda: self._follow(name, type_))

    def _follow(self, name: str, type_: str) -> list[str] | None:
        """Return the data at the end of the aliases, None if a name does not exist.

        A server that only knows its own zones does not follow aliases to other zones.
        """
        name = f"{name}."
        for _ in range(MAX_ALIASES):
            answer = self._ask(name, type_)
            if answer is None:
                return None
            if answer.rrset is not None:
                if answer.rdtype == dns.rdatatype.TXT:
                    return [b"".join(r.strings).decode(errors="replace") for r in answer.rrset]
                return [record.to_text() for record in answer.rrset]
            end = answer.canonical_name.to_text()
            if end == name:
                return []
            name = end
        raise NameServerError("the CNAME records form a loop")

    def _ask(self, name: str, type_: str) -> dns.resolver.Answer | None:
        try:
            return self._resolver.resolve(name, type_, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            return None
        except dns.exception.DNSException as error:
            raise NameServerError(_dns_error(error)) from error

    def addresses(self, name: str) -> list[str]:
        """Return the IP addresses of a host, IPv4 first; [] if it has none.

        Raises NameServerError.
        """
        if dns.inet.is_address(name):
            return [name]
        return [*self.records(name, "A"), *self.records(name, "AAAA")]

    def connect(self, name: str, port: int, deadline: float) -> socket.socket:
        """Return a connection to the first address of a host that accepts it.

        Raises NetworkError.
        """
        addresses = self.addresses(name)[:MAX_HOSTS]
        if not addresses:
            advice = f"add an address record for {name}, or correct the name"
            raise NetworkError("the name has no address", advice)
        reasons = []
        for index, address in enumerate(addresses):
            try:
                # An address that does not answer must leave time for the next ones.
                share = remaining(deadline) / (len(addresses) - index)
                return socket.create_connection((address, port), share)
            except OSError as error:
                reasons.append(f"{address} port {port}: {_reason(error)}")
        raise NetworkError("; ".join(reasons))

    def dead_addresses(self, name: str, port: int) -> list[str]:
        """Return why addresses of a host refuse connections, as far as it has several.

        Clients that try such an address first lose time. Raises NetworkError.
        """

        def work() -> list[str]:
            reasons = []
            addresses = self.addresses(name)[:MAX_HOSTS]
            for address in addresses if len(addresses) > 1 else ():
                try:
                    socket.create_connection((address, port), self.timeout).close()
                except OSError as error:
                    if error.errno not in _NO_ROUTE:
                        reasons.append(f"{address} port {port}: {_reason(error)}")
            return reasons

        return self.once(("dead", name, str(port)), work)

    def encrypt(self, sock: socket.socket, name: str, deadline: float) -> ssl.SSLSocket:
        """Return a connection with TLS, its certificate checked for the name.

        Raises CertificateError, NoTlsError and NetworkError; the connection is closed then.
        """
        try:
            sock.settimeout(remaining(deadline))
            return self._context.wrap_socket(sock, server_hostname=name)
        except (OSError, ValueError) as error:
            sock.close()
            raise _tls_error(error, name) from error

    def not_after(self, name: str, port: int = 443) -> datetime:
        """Return the end of the validity of the certificate of a server that begins with TLS.

        Raises CertificateError, NoTlsError and NetworkError.
        """
        return self._handshake(name, port)[0]

    def tls_version(self, name: str, port: int = 443) -> str:
        """Return the newest version of TLS that a server offers, such as TLSv1.3.

        Raises as not_after().
        """
        return self._handshake(name, port)[1]

    def _handshake(self, name: str, port: int) -> tuple[datetime, str]:
        def work() -> tuple[datetime, str]:
            deadline = self.deadline()
            with self.encrypt(self.connect(name, port, deadline), name, deadline) as sock:
                return certificate_end(sock), sock.version() or ""

        return self.once(("tls", name, str(port)), work)

    def deadline(self) -> float:
        """Return the end (monotonic time) of a connection that begins now."""
        return after(self.timeout)


class _Reader(io.RawIOBase):
    """What a socket receives before a deadline, however slowly single bytes arrive."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(remaining(self._deadline))
        return self._sock.recv_into(buffer)


def reader(sock: socket.socket, deadline: float) -> io.BufferedReader:
    """Return a file to read from a socket; reading raises OSError."""
    return io.BufferedReader(_Reader(sock, deadline))


def certificate_end(sock: ssl.SSLSocket) -> datetime:
    """Return the end of the validity of the other side's certificate."""
    certificate = sock.getpeercert() or {}
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)


def _tls_error(error: OSError | ValueError, name: str) -> NetworkError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_error(error, name)
    if isinstance(error, TimeoutError):
        return NoAnswerError()
    reason = getattr(error, "reason", None) or ""
    if reason in _NO_TLS:
        return NoTlsError("the server does not speak TLS there")
    return NetworkError(f"TLS: {reason.replace('_', ' ').lower() or _reason(error)}")


def _certificate_error(error: ssl.SSLCertVerificationError, name: str) -> CertificateError:
    """Return what is wrong with a certificate; the codes are OpenSSL's (X509_V_ERR_…)."""
    match error.verify_code:
        case 9:
            text, advice = "is not valid yet", "see the clocks of the server and of this machine"
        case 10:
            text, advice = "has ended", "renew it, and let the server load the new one"
        case 62 | 64:
            text, advice = f"is not for {name}", f"get a certificate that names {name}"
        case 2 | 18 | 19 | 20 | 21:
            text = "comes from an authority that clients do not know"
            advice = "use a public authority, and let the server send the intermediate certificates"
        case _:
            text, advice = f"is refused: {error.verify_message}", "get another certificate"
    return CertificateError(f"the certificate {text}", advice)


def _dns_error(error: dns.exception.DNSException) -> str:
    """Return why a name was not looked up; if all name servers failed, what the last one said."""
    if isinstance(error, dns.exception.Timeout):
        return "the name server did not answer in time"
    if not isinstance(error, dns.resolver.NoNameservers):
        return f"DNS: {type(error).__name__}"
    for *_, reason, response in reversed(error.kwargs.get("errors", [])):
        if isinstance(reason, dns.message.ChainTooLong):
            return "the CNAME records form a loop"
        if response is not None:
            return f"the name server answers {dns.rcode.to_text(response.rcode())}"
    return "the name server cannot be reached"


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or error).lower()
