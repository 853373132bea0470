"""Whether each mail server answers with the encryption that its row names.

Standards: RFC 9051 (IMAP), RFC 1939 and RFC 2595 (POP3), RFC 5321 and RFC 3207 (SMTP), RFC 5804
(ManageSieve).
"""

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from automx.address import expand
from automx.check import clients
from automx.check.finding import Check, DomainChecks, Finding, Level
from automx.check.network import (
    CertificateError,
    NetworkError,
    NoAnswerError,
    NoTlsError,
    certificate_end,
    reader,
)
from automx.clientconfig import ClientConfig, MailServer, ServerType, SocketType

MAX_LINES = 100
MAX_LINE = 8192  # bytes

_SEE_SERVER = "see that the server runs and is not behind a firewall, and the row's name and port"


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


class _RefusedError(NetworkError):
    """A server refuses a command."""


@dataclass(frozen=True, slots=True)
class MailChecks(DomainChecks):
    """The checks of mail servers."""

    config: ClientConfig

    def checks(self) -> Iterator[Check]:
        """Yield a check for each server; each server is asked once for all domains."""
        for server in self.config.mail_servers:
            hostname = expand(server.hostname, self.domain, None)
            if hostname is not None:  # else each person has another host
                yield partial(self._check, server, hostname)

    def _check(self, server: MailServer, hostname: str) -> Iterator[Finding]:
        subject = clients.subject(replace(server, hostname=hostname))
        try:
            end = self.network.once(("mail", subject), lambda: self._not_after(server, hostname))
        except NetworkError as error:
            yield self.failure(Level.ERROR, subject, error, _SEE_SERVER)
            return
        if end is not None:
            yield from self.near_end(subject, end)
        yield from self.dead_addresses(subject, "server", hostname, server.port)
        yield from self.ipv6_only(subject, self.network.addresses(hostname))

    def _not_after(self, server: MailServer, hostname: str) -> datetime | None:
        """Connect as a mail client does; return the end of the certificate, None without TLS.

        Raises NetworkError with what is wrong, and with advice if the reason is known.
        """
        try:
            return self._connect(server, hostname)
        except NoTlsError as error:
            if server.socket_type is SocketType.STARTTLS:
                raise
            text = "the server does not begin with TLS on this port"
            advice = "set socket_type to STARTTLS if the server offers it, or correct the port"
            raise NetworkError(text, advice) from error
        except NoAnswerError:
            # A server that begins with TLS waits for the client.
            if server.socket_type is SocketType.SSL or not self._begins_with_tls(server, hostname):
                raise
            text = "the server begins with TLS on this port"
            advice = "set socket_type to SSL, or correct the port"
            raise NetworkError(text, advice) from None

    def _begins_with_tls(self, server: MailServer, hostname: str) -> bool:
        try:
            self.network.not_after(hostname, server.port)
        except NetworkError as error:
            return isinstance(error, CertificateError)
        return True

    def _connect(self, server: MailServer, hostname: str) -> datetime | None:
        protocol = _PROTOCOLS[server.type]
        deadline = self.network.deadline()
        sock = self.network.connect(hostname, server.port, deadline)
        try:
            if server.socket_type is SocketType.SSL:
                sock = self.network.encrypt(sock, hostname, deadline)
            _read_until(sock, protocol, protocol.greeting, deadline)
            if server.socket_type is SocketType.STARTTLS:
                _start_tls(sock, server.type, deadline)
                sock = self.network.encrypt(sock, hostname, deadline)
            return certificate_end(sock) if isinstance(sock, ssl.SSLSocket) else None
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
        sock.sendall(b"EHLO automx.invalid\r\n")
        _read_until(sock, protocol, b"250 ", deadline)
    try:
        sock.sendall(protocol.starttls)
        _read_until(sock, protocol, protocol.agreed, deadline)
    except _RefusedError as error:
        advice = "let the server offer STARTTLS, or set socket_type to what it offers"
        raise NetworkError(f"no STARTTLS: {error}", advice) from error


def _read_until(sock: socket.socket, protocol: _Protocol, wanted: bytes, deadline: float) -> None:
    """Read lines until one begins as wanted.

    Raises _RefusedError, or NetworkError for another protocol.
    """
    lines = reader(sock, deadline)
    for _ in range(MAX_LINES):
        line = lines.readline(MAX_LINE)
        is_whole = line.endswith(b"\n")
        if not is_whole and len(line) < MAX_LINE:
            raise NetworkError("the server closed the connection")
        if line.startswith(wanted):
            return
        if line.startswith(protocol.refusals):
            raise _RefusedError(f"the server says {_shown(line)}")
        if not is_whole or not line.startswith(protocol.preceding):
            break
    advice = "see which service has this port, and the type of the row"
    raise NetworkError(f"another protocol is spoken there: {_shown(line)}", advice)


def _shown(line: bytes) -> str:
    return repr(line[:80].decode(errors="replace").strip())
