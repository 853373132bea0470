"""What a mail server says before anybody logs in: its greeting, TLS, the methods to log in.

Standards: RFC 9051 (IMAP), RFC 1939, RFC 2449 and RFC 2595 (POP3), RFC 5321, RFC 3207 and RFC 4954
(SMTP), RFC 5804 (ManageSieve).
"""

import socket
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from automx.check.network import Network, NetworkError, NoAnswerError, certificate_end, reader
from automx.clientconfig import Authentication, MailServer, ServerType, SocketType

MAX_LINES = 100
MAX_LINE = 8192  # bytes

_EHLO = b"EHLO automx.invalid\r\n"


@dataclass(frozen=True, slots=True)
class _Protocol:
    """A protocol: the beginnings of the lines that a server sends, and the command for TLS.

    ``preceding`` are lines before a greeting or an answer.
    """

    greeting: bytes
    agreed: bytes
    refusals: tuple[bytes, ...]
    preceding: tuple[bytes, ...]
    starttls: bytes = b"STARTTLS\r\n"


_PROTOCOLS = {
    ServerType.IMAP: _Protocol(
        b"* OK", b"a OK", (b"* BYE", b"a NO", b"a BAD"), (b"* ",), b"a STARTTLS\r\n"
    ),
    ServerType.POP3: _Protocol(b"+OK", b"+OK", (b"-ERR",), (), b"STLS\r\n"),
    ServerType.SMTP: _Protocol(b"220 ", b"220 ", (b"4", b"5"), (b"220-", b"250-")),
    ServerType.MANAGESIEVE: _Protocol(b"OK", b"OK", (b"NO", b"BYE"), (b'"',)),
}
# The command that lists capabilities, and how the last line of its answer begins.
_CAPABILITIES = {
    ServerType.IMAP: (b"a CAPABILITY\r\n", b"a OK"),
    ServerType.POP3: (b"CAPA\r\n", b"."),
    ServerType.SMTP: (_EHLO, b"250 "),
}
# The best first: within TLS, a password that is sent as it is works for the most clients.
_SASL = {
    Authentication.PASSWORD_CLEARTEXT: {"PLAIN", "LOGIN"},
    Authentication.PASSWORD_ENCRYPTED: {
        *("CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"),
    },
    Authentication.OAUTH2: {"XOAUTH2", "OAUTHBEARER"},
    Authentication.GSSAPI: {"GSSAPI"},
}


class _RefusedError(NetworkError):
    """A server refuses a command."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a server has shown: the end of its certificate, None without TLS.

    ``method`` is the method to log in for the most clients; None if there is none that clients
    know, or if it was not asked for.
    """

    not_after: datetime | None
    method: Authentication | None = None


def greet(
    network: Network, server: MailServer, hostname: str, *, asks_methods: bool = False
) -> Greeting:
    """Connect to a server as a mail client does, up to the point where it would log in.

    Raises NetworkError with what is wrong, and with advice if the reason is known. NoAnswerError
    and NoTlsError tell that the server may expect another encryption.
    """
    protocol = _PROTOCOLS[server.type]
    deadline = network.deadline()
    sock = network.connect(hostname, server.port, deadline)
    try:
        if server.socket_type is SocketType.SSL:
            sock = network.encrypt(sock, hostname, deadline)
        _read_until(sock, protocol, protocol.greeting, deadline)
        if server.socket_type is SocketType.STARTTLS:
            _start_tls(sock, server.type, deadline)
            sock = network.encrypt(sock, hostname, deadline)
        end = certificate_end(sock) if isinstance(sock, ssl.SSLSocket) else None
        method = _method(sock, server.type, deadline) if asks_methods else None
        return Greeting(end, method)
    except TimeoutError:
        raise NoAnswerError from None
    except OSError as error:
        raise NetworkError((error.strerror or str(error)).lower()) from error
    finally:
        sock.close()


def _start_tls(sock: socket.socket, type_: ServerType, deadline: float) -> None:
    """Ask for TLS. Raises NetworkError if the server refuses."""
    protocol = _PROTOCOLS[type_]
    if type_ is ServerType.SMTP:
        sock.sendall(_EHLO)
        _read_until(sock, protocol, b"250 ", deadline)
    try:
        sock.sendall(protocol.starttls)
        _read_until(sock, protocol, protocol.agreed, deadline)
    except _RefusedError as error:
        advice = "let the server offer STARTTLS, or set socket_type to what it offers"
        raise NetworkError(f"no STARTTLS: {error}", advice) from error


def _method(sock: socket.socket, type_: ServerType, deadline: float) -> Authentication | None:
    """Return the method to log in that the most clients know, of those that a server offers."""
    command, last = _CAPABILITIES[type_]
    sock.sendall(command)
    any_line = (b"",) if type_ is ServerType.POP3 else ()
    try:
        lines = _read_until(sock, _PROTOCOLS[type_], last, deadline, any_line)
    except _RefusedError:
        return Authentication.PASSWORD_CLEARTEXT if type_ is ServerType.POP3 else None
    offered = set(_mechanisms(type_, lines))
    return next((method for method, names in _SASL.items() if names & offered), None)


def _mechanisms(type_: ServerType, lines: Iterable[bytes]) -> Iterator[str]:
    """Yield the mechanisms (SASL) of the lines of an answer; LOGIN for the old commands, too."""
    begin = 4 if type_ is ServerType.SMTP else 0  # behind the status
    for line in lines:
        words = line[begin:].decode("ascii", "replace").upper().split()
        if type_ is ServerType.IMAP and words[:2] == ["*", "CAPABILITY"]:
            yield from (word.removeprefix("AUTH=") for word in words if word.startswith("AUTH="))
            if "LOGINDISABLED" not in words:
                yield "LOGIN"
        elif type_ is ServerType.POP3 and words[:1] == ["SASL"]:
            yield from words[1:]
        elif type_ is ServerType.POP3 and words == ["USER"]:
            yield "LOGIN"
        elif type_ is ServerType.SMTP and words[:1] == ["AUTH"]:
            yield from words[1:]


def _read_until(
    sock: socket.socket,
    protocol: _Protocol,
    wanted: bytes,
    deadline: float,
    preceding: tuple[bytes, ...] = (),
) -> list[bytes]:
    """Return lines up to one that begins as wanted.

    ``preceding`` may come before it, beside those of the protocol. Raises _RefusedError, or
    NetworkError for another protocol.
    """
    lines = reader(sock, deadline)
    found: list[bytes] = []
    for _ in range(MAX_LINES):
        line = lines.readline(MAX_LINE)
        found.append(line)
        is_whole = line.endswith(b"\n")
        if not is_whole and len(line) < MAX_LINE:
            raise NetworkError("the server closed the connection")
        if line.startswith(wanted):
            return found
        if line.startswith(protocol.refusals):
            raise _RefusedError(f"the server says {_shown(line)}")
        if not is_whole or not line.startswith(protocol.preceding + preceding):
            break
    advice = "see which service has this port, and the type of the row"
    raise NetworkError(f"another protocol is spoken there: {_shown(line)}", advice)


def _shown(line: bytes) -> str:
    text = line[:80].decode(errors="replace").strip()
    return repr(text if text.isprintable() else text[:20])  # each escape is up to 10 characters
