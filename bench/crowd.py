"""Clients of one event loop: a crowd that asks again and again, and a pace that waits for nothing.

Both together take a tenth of a processor core at 600 requests per second, so that a server beside
them has the rest of a small machine.
"""

import asyncio
import contextlib
import itertools
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

PAUSE_SECONDS = 1.0  # of a client of the crowd, after each answer
DRIP_SECONDS = 0.5  # between two bytes of a body
NO_ANSWER = 0  # instead of a status

_LINES = 50  # connections that are open when the pace begins; it opens more when all are in use
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """The status of an answer, and the times of monotonic() when it was due to be asked and came.

    The status is NO_ANSWER if the connection ended without an answer.
    """

    status: int
    asked: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.asked


def get(path: str, host: str = "localhost", key: str = "") -> bytes:
    """Return a GET request; ``key`` is that of the API."""
    return f"GET {path} HTTP/1.1\r\n{_head(host, key)}\r\n".encode()


def post(
    path: str, body: str = "", content_type: str = "text/xml", key: str = "", method: str = "POST"
) -> bytes:
    """Return a request with a body, likewise."""
    head = f"{method} {path} HTTP/1.1\r\n{_head('localhost', key)}Content-Type: {content_type}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def _head(host: str, key: str) -> str:
    return f"Host: {host}\r\n" + (f"Authorization: Bearer {key}\r\n" if key else "")


class Line:
    """A connection to a port of loopback, which is kept and opened again when it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> int:
        """Return the status of the answer to a request; NO_ANSWER if there is none."""
        is_kept = self._streams is not None
        status = await self._attempt(request)
        if status == NO_ANSWER and is_kept:  # the server may close an idle connection at any time
            status = await self._attempt(request)
        return status

    async def drip(self, request: bytes) -> int:
        """Send the head of a request at once and its body a byte at a time; likewise."""
        self.close()
        head, _, body = request.partition(b"\r\n\r\n")
        try:
            reader, writer = await self._open()
            writer.write(head + b"\r\n\r\n")
            dripping = asyncio.create_task(_drip(writer, body))
            try:
                return await _status(reader)
            finally:
                dripping.cancel()
        except (OSError, EOFError):
            return NO_ANSWER
        finally:
            self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _attempt(self, request: bytes) -> int:
        try:
            reader, writer = self._streams or await self._open()
            writer.write(request)
            return await _status(reader)
        except (OSError, EOFError):
            self.close()
            return NO_ANSWER
        except asyncio.CancelledError:  # what comes later is no answer to the next request
            self.close()
            raise

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        return self._streams


async def _status(reader: asyncio.StreamReader) -> int:
    """Read an answer to its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    if length is None:
        raise RuntimeError(f"an answer of unknown length: {head!r}")
    await reader.readexactly(int(length[1]))
    return int(head[9:12])


async def _drip(writer: asyncio.StreamWriter, body: bytes) -> None:
    with contextlib.suppress(OSError):
        for byte in body:
            writer.write(bytes([byte]))
            await asyncio.sleep(DRIP_SECONDS)


Ask = Callable[[Line], Awaitable[int]]


async def crowd(
    port: int, clients: int, ask: Ask, ended: asyncio.Event, found: list[Answer]
) -> None:
    """Let clients ask until the event, each PAUSE_SECONDS after its last answer; all begin at once.

    Their answers are added to ``found``, of which the last may come after the event.
    """

    async def client() -> None:
        line = Line(port)
        while not ended.is_set():
            asked = time.monotonic()
            status = await ask(line)
            found.append(Answer(status, asked, time.monotonic()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), PAUSE_SECONDS)
        line.close()

    await asyncio.gather(*(client() for _ in range(clients)))


async def pace(
    port: int,
    requests: Sequence[bytes],
    rate: float,
    ended: asyncio.Event,
    found: list[Answer],
) -> None:
    """Ask ``rate`` times a second until the event, whatever becomes of the answers.

    The requests are sent in turn; answers are added to ``found``. The time of an answer begins when
    its request was due, so that a request that could not be sent in time is late, too.
    """
    lines = deque(Line(port) for _ in range(_LINES))
    tasks: set[asyncio.Task[None]] = set()

    async def one(request: bytes, due: float) -> None:
        line = lines.popleft() if lines else Line(port)
        status = await line.ask(request)
        found.append(Answer(status, due, time.monotonic()))
        lines.append(line)

    began = time.monotonic()
    for number, request in enumerate(itertools.cycle(requests)):
        due = began + number / rate
        if (left := due - time.monotonic()) > 0:
            await asyncio.sleep(left)
        if ended.is_set():
            break
        task = asyncio.create_task(one(request, due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    for line in lines:
        line.close()


def each(request: Callable[[int], bytes], numbers: Iterator[int]) -> Ask:
    """Return what asks for the next one of numbered requests."""

    async def ask(line: Line) -> int:
        return await line.ask(request(next(numbers)))

    return ask
