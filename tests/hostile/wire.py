"""HTTP/1.1 on a socket, byte by byte: requests are sent as they are, answers are read strictly.

A client library would repair, refuse or hide what these tests are about.
"""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

PATIENCE = 30  # seconds until a server that says nothing has failed


class WireError(Exception):
    """What came is no answer of HTTP/1.1."""


@dataclass(frozen=True)
class Answer:
    """An answer; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_last(self) -> bool:
        """Whether the server closes the connection after it."""
        return self.headers.get("connection", "").lower() == "close"


class Connection:
    """A connection to a port of loopback."""

    def __init__(self, port: int, seconds: float = PATIENCE) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), seconds)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> bool:
        """Send bytes; return whether all were taken: a server may refuse and close before that."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def close_sending(self) -> None:
        """Close the sending side only (half-close)."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # the server was quicker
            return

    def says_something(self, seconds: float) -> bool:
        """Return whether anything comes, or the server closes, within so many seconds."""
        self._socket.settimeout(seconds)
        try:
            self._file.peek(1)
        except TimeoutError:
            # A file of a socket refuses to be read after a time limit.
            self._file = self._socket.makefile("rb")
            return False
        except ConnectionResetError:
            pass
        finally:
            self._socket.settimeout(PATIENCE)
        return True

    def answer(self, method: str = "GET") -> Answer | None:
        """Return the next answer to a request with this method, None if the server has closed.

        Interim answers (RFC 9110, section 15.2) are left out. Raises WireError, TimeoutError.
        """
        while True:
            try:
                line = self._file.readline(65537)
                if not line:
                    return None
                status = _status(line)
                headers = dict(self._headers())
                if status >= 200:
                    return Answer(status, headers, self._body(method, status, headers))
            except ConnectionResetError:
                return None

    def answers(self) -> Iterator[Answer]:
        """Yield all answers until the server closes."""
        while (found := self.answer()) is not None:
            yield found

    def _headers(self) -> Iterator[tuple[str, str]]:
        while (line := self._file.readline(65537)) != b"\r\n":
            name, colon, value = line.decode("latin-1").partition(":")
            if not line.endswith(b"\r\n") or not colon or not name or name != name.strip():
                raise WireError(f"no header: {line[:200]!r}")
            yield name.lower(), value.strip()

    def _body(self, method: str, status: int, headers: dict[str, str]) -> bytes:
        if method == "HEAD" or status in {204, 304}:
            return b""
        if "transfer-encoding" in headers or not headers.get("content-length", "").isdecimal():
            raise WireError(f"an answer of unknown length: {status} {headers}")
        length = int(headers["content-length"])
        body = self._file.read(length)
        if len(body) < length:
            raise WireError(f"an answer that is cut off: {len(body)} bytes of {length}")
        return body


def _status(line: bytes) -> int:
    words = line.split(b" ", 2)
    is_http = words[0] in {b"HTTP/1.1", b"HTTP/1.0"} and line.endswith(b"\r\n")
    if not is_http or len(words) < 3 or not words[1].isdigit():
        raise WireError(f"no status line: {line[:200]!r}")
    return int(words[1])
