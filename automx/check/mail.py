"""Whether each mail server answers with the encryption that its row promises."""

import socket
from collections.abc import Iterator

from automx.address import expand
from automx.check.finding import Finding, Level
from automx.check.network import CertificateError, Network, NetworkError, remaining
from automx.clientconfig import ClientConfig, MailServer, ServerType, SocketType

# What is sent for STARTTLS, and how the line begins that agrees.
_STARTTLS = {
    ServerType.IMAP: (b"a STARTTLS\r\n", b"a OK"),
    ServerType.POP3: (b"STLS\r\n", b"+OK"),
    ServerType.SMTP: (b"STARTTLS\r\n", b"220"),
    ServerType.MANAGESIEVE: (b"STARTTLS\r\n", b"OK"),
}
# How the greeting begins, or ends in the case of ManageSieve, which lists capabilities before it.
_GREETINGS = {
    ServerType.IMAP: (b"* OK", b"* PREAUTH"),
    ServerType.POP3: (b"+OK",),
    ServerType.SMTP: (b"220 ",),
    ServerType.MANAGESIEVE: (b"OK",),
}
MAX_LINES = 100
MAX_LINE = 8192  # bytes


def check(config: ClientConfig, network: Network) -> Iterator[Finding]:
    """Yield what is wrong with the mail servers of a domain, each asked once for all domains."""
    for server in config.mail_servers:
        hostname = expand(server.hostname, config.domain, None)
        if hostname is None:
            continue  # each person has a host of their own
        subject = f"{server.type} {hostname}:{server.port} {server.socket_type}"
        key = ("mail", server.type, hostname, str(server.port), server.socket_type)
        try:
            network.once(key, lambda: _ask(network, server, hostname))  # noqa: B023 - called here
        except CertificateError as error:
            text, advice = f"the certificate: {error}", f"get a certificate for {hostname}"
            yield Finding(config.domain, Level.ERROR, subject, text, advice)
        except NetworkError as error:
            advice = "see that the server runs, and that the row has its name, port and socket_type"
            yield Finding(config.domain, Level.ERROR, subject, str(error), advice)


def _ask(network: Network, server: MailServer, hostname: str) -> None:
    """Connect as a client does; raises NetworkError with what is wrong."""
    deadline = network.deadline()
    sock: socket.socket = network.connect(hostname, server.port, deadline)
    try:
        if server.socket_type is SocketType.SSL:
            sock = network.encrypt(sock, hostname, deadline)
        _read_until(sock, _GREETINGS[server.type], deadline, "greeting")
        if server.socket_type is SocketType.STARTTLS:
            if server.type is ServerType.SMTP:
                sock.sendall(b"EHLO automx.invalid\r\n")
                _read_until(sock, (b"250 ",), deadline, "answer to EHLO")
            command, agreed = _STARTTLS[server.type]
            sock.sendall(command)
            _read_until(sock, (agreed,), deadline, "STARTTLS")
            sock = network.encrypt(sock, hostname, deadline)
    except TimeoutError:
        raise NetworkError("no answer in time") from None
    except OSError as error:
        raise NetworkError((error.strerror or str(error)).lower()) from error
    finally:
        sock.close()


def _read_until(sock: socket.socket, wanted: tuple[bytes, ...], deadline: float, what: str) -> None:
    """Read lines until one begins as wanted; raises NetworkError for a refusal, or too many."""
    buffer = b""
    for _ in range(MAX_LINES):
        while b"\n" not in buffer:
            sock.settimeout(remaining(deadline))
            piece = sock.recv(4096)
            if not piece or len(buffer) > MAX_LINE:
                raise NetworkError(f"no {what}: the server hung up" if not piece else f"no {what}")
            buffer += piece
        line, _, buffer = buffer.partition(b"\n")
        if line.startswith(wanted):
            return
        if line.startswith((b"-ERR", b"5", b"4", b"a NO", b"a BAD", b"NO", b"BYE", b"* BYE")):
            break
    raise NetworkError(f"{what} is refused: {line[:80].decode(errors='replace').strip()}")
