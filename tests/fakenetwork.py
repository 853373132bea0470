"""A network for the doctor in which each server gives an answer that is ready."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from automx.check.finding import Finding
from automx.check.network import Network
from automx.clientconfig import (
    Authentication,
    ClientConfig,
    MailServer,
    ServerType,
    Service,
    ServiceType,
    SocketType,
)

IMAP = MailServer(
    ServerType.IMAP,
    "mail.example.com",
    143,
    SocketType.STARTTLS,
    "%EMAILADDRESS%",
    (Authentication.PASSWORD_CLEARTEXT,),
)
SMTP = replace(IMAP, type=ServerType.SMTP, port=587)
CALENDAR = Service(ServiceType.CALDAV, "https://dav.example.com/", "%EMAILADDRESS%", False)
CONFIG = ClientConfig("example.com", "Example", "Example", (IMAP, SMTP), (CALENDAR,))


class FakeNetwork(Network):
    """Each connection, with or without TLS, gets an answer that is ready; each name exists."""

    def __init__(self, answer: bytes) -> None:
        self.timeout = 10
        self.now = datetime.now(UTC)
        self._lock = threading.Lock()
        self._answers = {}
        self.answer = answer
        self.open: list[socket.socket] = []

    def connect(self, name: str, port: int, deadline: float) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.open.append(theirs)
        theirs.sendall(self.answer)
        theirs.shutdown(socket.SHUT_WR)
        return ours

    def close(self) -> None:
        for sock in self.open:
            sock.close()

    def encrypt(self, sock: socket.socket, name: str, deadline: float) -> Any:
        return sock

    def exists(self, name: str) -> bool:
        return True

    def addresses(self, name: str) -> list[str]:
        return ["192.0.2.1"]

    def _handshake(self, name: str, port: int) -> tuple[datetime, str]:
        return self.now + timedelta(365), "TLSv1.3"


def findings(check: Any) -> Iterator[Finding]:
    """Run a check and those that it asks for."""
    for found in check():
        if isinstance(found, Finding):
            yield found
        else:
            yield from findings(found)
