"""Names, connections and TLS, each within a time, by a name server of one's choice."""

import errno
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
import dns.resolver

from automx.errors import SettingsError

_Value = TypeVar("_Value")

MAX_ALIASES = 8  # CNAME records in a row
# Automatic renewal comes earlier: a certificate that ends so soon has been forgotten.
NEAR_END = timedelta(days=14)

# How OpenSSL says that the other side did not begin with TLS.
_NO_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST"}
_NO_TLS |= {"PACKET_LENGTH_TOO_LONG", "HTTPS_PROXY_REQUEST"}
# This machine has no way to such an address, which says nothing about others.
_NO_ROUTE = {errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class NetworkError(Exception):
    """A step that failed; the text tells why, ``advice`` what to do, or "" if that is not known."""

    def __init__(self, text: str, advice: str = "") -> None:
        super().__init__(text)
        self.advice = advice


class NameServerError(NetworkError):
    """A question about a name got no usable answer."""


class SilentError(NetworkError):
    """The other side accepted a connection and did not say in time what was expected."""

    def __init__(self, advice: str = "") -> None:
        super().__init__("no answer in time", advice)


class NoTlsError(NetworkError):
    """The other side does not speak TLS."""


class CertificateError(NetworkError):
    """TLS worked, but the certificate is not to be trusted, or not the name's."""


class Network:
    """Asks the network as a client would; safe for threads. What was asked once is remembered.

    ``timeout`` (seconds) bounds each question to the name servers, and each connection together
    with all that is said on it. ``ca_file`` holds authorities (PEM) to trust beside those of the
    system. Raises SettingsError if the file, or the system's list of name servers, is of no use.
    """

    def __init__(
        self,
        *,
        name_server: str = "",
        port: int = 53,
        ca_file: str = "",
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
        self._ready: dict[tuple[str, ...], threading.Event] = {}
        self._answers: dict[tuple[str, ...], object] = {}

    def once(self, key: tuple[str, ...], work: Callable[[], _Value]) -> _Value:
        """Return or raise what ``work`` does; it is done once for each key."""
        with self._lock:
            ready = self._ready.get(key)
            is_first = ready is None
            if ready is None:
                ready = self._ready[key] = threading.Event()
        if is_first:
            try:
                self._answers[key] = work()
            except Exception as error:  # whoever asks gets it
                self._answers[key] = error
            finally:
                ready.set()
        ready.wait()
        answer = self._answers[key]
        if isinstance(answer, Exception):
            # Each time it is raised, its traceback would grow.
            raise answer.with_traceback(None)
        return answer  # type: ignore[return-value] # what work() returned

    def exists(self, name: str) -> bool:
        """Tell whether there is a name, or a name below it. Raises NameServerError."""
        return self._resolve(name, "SOA") is not None

    def records(self, name: str, type_: str) -> list[str]:
        """Return the data of the records of a name as in a zone file, [] if there are none.

        Aliases are followed, unless it is they that are asked for. The strings of a TXT record are
        joined, without quotes. Raises NameServerError.
        """
        return self._resolve(name, type_) or []

    def _resolve(self, name: str, type_: str) -> list[str] | None:
        return self.once(("dns", name, type_), lambda: self._follow(name, type_))

    def _follow(self, name: str, type_: str) -> list[str] | None:
        """Return the data at the end of the aliases, None if a name does not exist.

        A server that only knows its own zones leaves aliases to other zones to whoever asks.
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
        raise NameServerError("the CNAME records lead in a circle")

    def _ask(self, name: str, type_: str) -> dns.resolver.Answer | None:
        try:
            return self._resolver.resolve(name, type_, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            return None
        except dns.exception.Timeout:
            raise NameServerError("the name server did not answer in time") from None
        except dns.resolver.NoNameservers as error:
            raise NameServerError(_refusal(error)) from error
        except dns.exception.DNSException as error:
            raise NameServerError(f"DNS: {type(error).__name__}") from error

    def addresses(self, name: str) -> list[str]:
        """Return the IP addresses of a host, IPv4 first; [] if it has none.

        Raises NameServerError.
        """
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
            advice = f"add an address record for {name}, or correct the name"
            raise NetworkError("the name has no address", advice)
        reasons = []
        for index, address in enumerate(addresses):
            # What is left is shared: a silent address must not use up the time of the next one.
            share = remaining(deadline) / (len(addresses) - index)
            try:
                return socket.create_connection((address, port), share)
            except OSError as error:
                reasons.append(f"{address} port {port}: {_reason(error)}")
        raise NetworkError("; ".join(reasons))

    def dead_addresses(self, name: str, port: int) -> list[str]:
        """Return, for a host some of whose addresses accept connections, why others do not.

        A client that tries these first waits for nothing. Raises NetworkError.
        """
        return self.once(("dead", name, str(port)), lambda: self._dead_addresses(name, port))

    def _dead_addresses(self, name: str, port: int) -> list[str]:
        reasons = []
        addresses = self.addresses(name)
        for address in addresses if len(addresses) > 1 else ():
            try:
                socket.create_connection((address, port), self.timeout).close()
            except OSError as error:
                if error.errno not in _NO_ROUTE:
                    reasons.append(f"{address} port {port}: {_reason(error)}")
        return reasons

    def encrypt(self, sock: socket.socket, name: str, deadline: float) -> ssl.SSLSocket:
        """Put TLS on a connection, with a check of the certificate for the name.

        Raises CertificateError, NoTlsError and NetworkError; the connection is closed then.
        """
        try:
            sock.settimeout(remaining(deadline))
            return self._context.wrap_socket(sock, server_hostname=name)
        except ssl.SSLCertVerificationError as error:
            sock.close()
            raise _certificate_error(error, name) from error
        except TimeoutError:
            sock.close()
            raise SilentError from None
        except (OSError, ValueError) as error:
            sock.close()
            reason = getattr(error, "reason", None) or ""
            if reason in _NO_TLS:
                raise NoTlsError("the server does not speak TLS there") from error
            words = reason.replace("_", " ").lower() or _reason(error)
            raise NetworkError(f"TLS: {words}") from error

    def https(self, name: str, port: int = 443) -> datetime:
        """Return when the certificate of a web server ends.

        Raises CertificateError, NoTlsError and NetworkError.
        """

        def work() -> datetime:
            deadline = self.deadline()
            with self.encrypt(self.connect(name, port, deadline), name, deadline) as sock:
                return certificate_end(sock)

        return self.once(("https", name, str(port)), work)

    def deadline(self) -> float:
        """Return when a step that begins now must have ended."""
        return time.monotonic() + self.timeout


def remaining(deadline: float) -> float:
    """Return the seconds that are left; raises SilentError if there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise SilentError
    return seconds


def certificate_end(sock: ssl.SSLSocket) -> datetime:
    """Return until when the certificate on the other side is valid."""
    certificate = sock.getpeercert() or {}
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)


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


def _refusal(error: dns.resolver.NoNameservers) -> str:
    """Return what the last name server said."""
    for *_, reason, response in reversed(error.kwargs.get("errors", [])):
        if isinstance(reason, dns.message.ChainTooLong):
            return "the CNAME records lead in a circle"
        if response is not None:
            return f"the name server answers {dns.rcode.to_text(response.rcode())}"
    return "the name server cannot be reached"


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or error).lower()
