"""Whether each mail server answers with the encryption that its row promises.

Standards: RFC 9051 (IMAP), RFC 1939 and RFC 2595 (POP3), RFC 5321 and RFC 3207 (SMTP), RFC 5804
(ManageSieve).
"""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from automx.address import expand
from automx.check.finding import Finding, Level, Step
from automx.check.network import (
    CertificateError,
    Network,
    NetworkError,
    NoTlsError,
    SilentError,
    certificate_end,
    remaining,
)
from automx.check.web import certificate_end as check_end
from automx.clientconfig import ClientConfig, MailServer, ServerType, SocketType

MAX_LINES = 100
MAX_LINE = 8192  # bytes

_SEE_SERVER = "see that the server runs and is not behind a firewall, and the row's name and port"


@dataclass(frozen=True, slots=True)
class _Protocol:
    """How the lines begin that greet, that agree to STARTTLS, that refuse, and that may precede."""

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
    """A server does not do what it was asked for."""


def steps(config: ClientConfig, network: Network) -> Iterator[Step]:
    """Yield what is to be done for a domain; each server is asked once for all domains."""
    for server in config.mail_servers:
        hostname = expand(server.hostname, config.domain, None)
        if hostname is not None:  # else each person has a host of their own
            yield partial(_check, config.domain, network, server, hostname)


def _check(domain: str, network: Network, server: MailServer, hostname: str) -> Iterator[Finding]:
    subject = f"{server.type} {hostname}:{server.port} {server.socket_type}"
    key = ("mail", server.type, hostname, str(server.port), server.socket_type)
    try:
        end = network.once(key, lambda: _talk(network, server, hostname))
    except NetworkError as error:
        yield Finding(domain, Level.ERROR, subject, str(error), error.advice or _SEE_SERVER)
        return
    if end is not None:
        yield from check_end(domain, network, subject, end)
    for reason in network.dead_addresses(hostname, server.port):
        advice = "let the server listen at all addresses of the name, or delete this one"
        yield Finding(domain, Level.WARNING, subject, reason, advice)
    if all(":" in address for address in network.addresses(hostname)):
        text = "the name has IPv6 addresses only, which many clients cannot reach"
        yield Finding(domain, Level.WARNING, subject, text, "add an IPv4 address")


def _talk(network: Network, server: MailServer, hostname: str) -> datetime | None:
    """Connect as a client does; return when the certificate ends, if there is one.

    Raises NetworkError with what is wrong, and with what to do if more than that is known.
    """
    try:
        return _connect(network, server, hostname)
    except NoTlsError as error:
        if server.socket_type is SocketType.STARTTLS:
            raise
        text = "the server does not begin with TLS on this port"
        advice = "set socket_type to STARTTLS if the server offers it, or correct the port"
        raise NetworkError(text, advice) from error
    except SilentError:
        # A server that begins with TLS waits for the client.
        if server.socket_type is SocketType.SSL or not _begins_with_tls(network, server, hostname):
            raise
        text = "the server begins with TLS on this port"
        advice = "set socket_type to SSL, or correct the port"
        raise NetworkError(text, advice) from None


def _begins_with_tls(network: Network, server: MailServer, hostname: str) -> bool:
    deadline = network.deadline()
    try:
        sock = network.connect(hostname, server.port, deadline)
        network.encrypt(sock, hostname, deadline).close()
    except CertificateError:
        return True
    except NetworkError:
        return False
    return True


def _connect(network: Network, server: MailServer, hostname: str) -> datetime | None:
    protocol = _PROTOCOLS[server.type]
    deadline = network.deadline()
    sock: socket.socket = network.connect(hostname, server.port, deadline)
    end = None
    try:
        if server.socket_type is SocketType.SSL:
            encrypted = sock = network.encrypt(sock, hostname, deadline)
            end = certificate_end(encrypted)
        _read_until(sock, protocol, protocol.greeting, deadline)
        if server.socket_type is SocketType.STARTTLS:
            if server.type is ServerType.SMTP:
                sock.sendall(b"EHLO automx.invalid\r\n")
                _read_until(sock, protocol, b"250 ", deadline)
            try:
                sock.sendall(protocol.starttls)
                _read_until(sock, protocol, protocol.agreed, deadline)
            except _RefusedError as error:
                advice = "let the server offer STARTTLS, or set socket_type to what it offers"
                raise NetworkError(f"no STARTTLS: {error}", advice) from error
            encrypted = sock = network.encrypt(sock, hostname, deadline)
            end = certificate_end(encrypted)
    except TimeoutError:
        raise SilentError from None
    except OSError as error:
        raise NetworkError((error.strerror or str(error)).lower()) from error
    finally:
        sock.close()
    return end


def _read_until(sock: socket.socket, protocol: _Protocol, wanted: bytes, deadline: float) -> None:
    """Read lines until one begins as wanted.

    Raises _RefusedError, or NetworkError for something else than this protocol.
    """
    buffer = b""
    for _ in range(MAX_LINES):
        while b"\n" not in buffer:
            sock.settimeout(remaining(deadline))
            piece = sock.recv(4096)
            if not piece:
                raise NetworkError("the server hung up")
            buffer += piece
            if len(buffer) > MAX_LINE:
                break
        line, newline, buffer = buffer.partition(b"\n")
        if line.startswith(wanted):
            return
        if line.startswith(protocol.refusals):
            raise _RefusedError(f"the server says {_shown(line)}")
        if not newline or not line.startswith(protocol.preceding):
            break
    advice = "see which service has this port, and the type of the row"
    raise NetworkError(f"another protocol is spoken there: {_shown(line)}", advice)


def _shown(line: bytes) -> str:
    return repr(line[:80].decode(errors="replace").strip())
