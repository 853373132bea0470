"""RSGI, granian's interface of requests, and how a request of it is answered by WSGI (PEP 3333).

https://github.com/emmett-framework/granian/blob/master/docs/spec/RSGI.md
"""

import asyncio
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Protocol

from granian import _futures
from granian._granian import RSGIProtocolClosed, RSGIProtocolError
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout

from automx import request
from automx.edge import BEGAN
from automx.errors import AutomxError, BadRequestError
from automx.request import client_of, variable
from automx.views.log import shown_path

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)

# Bytes of a body that are read though they are too many: most clients read no answer before they
# have sent all.
DRAINED = 1024 * 1024

# What every environment has.
_ALWAYS = {
    "SCRIPT_NAME": "",
    "HTTP_HOST": "",
    "wsgi.version": (1, 0),
    "wsgi.input_terminated": True,  # werkzeug: chunks have no length, and end nevertheless
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
}

# Of granian: it makes the function that hands requests to the event loop.
_SCHEDULE = "_cbsched_aioschedule"

_CLOSES = "automx.closes"  # set in an environment if the connection ends with the answer


class Headers(request.Headers, Protocol):
    """Headers, whose names are in lower case."""

    def __len__(self) -> int:
        """Return the number of different names."""

    def keys(self) -> list[str]:
        """Return the different names."""

    def items(self) -> list[tuple[str, str]]:
        """Return names and values; values that are not ASCII are left out."""


class Scope(request.Scope, Protocol):
    """A request without its body."""

    http_version: str
    server: str
    scheme: str

    @property
    def headers(self) -> Headers:
        """The headers: granian copies them each time."""


class Exchange(Protocol):
    """The body of a request, and its response. The body can be asked for once."""

    async def __call__(self) -> bytes:
        """Return the whole body. Raises an error if it breaks off."""

    def __aiter__(self) -> "Exchange":
        """Return the chunks of the body."""

    async def __anext__(self) -> bytes:
        """Return the next chunk: an empty one at the end, two of them if the body breaks off."""

    async def client_disconnect(self) -> None:
        """Return when the client has closed its connection."""

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Send the response, from any thread."""


def environment(scope: Scope) -> "WSGIEnvironment":
    """Return the WSGI environment of a request, with an empty body.

    Headers of one name become one, as RFC 9110, section 5.3, allows; one with "_" in its name is
    left out, because WSGI could not tell it from one with "-". The host of a target in absolute
    form takes the place of the header Host (RFC 9112, section 3.2.2).
    """
    server, _, port = scope.server.rpartition(":")
    environ: WSGIEnvironment = {
        **_ALWAYS,
        "REQUEST_METHOD": scope.method,
        "PATH_INFO": bytes_of(scope.path),
        "QUERY_STRING": bytes_of(scope.query_string),
        "SERVER_NAME": server.strip("[]"),
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": "HTTP/1.0" if scope.http_version == "1" else "HTTP/1.1",
        "REMOTE_ADDR": client_of(scope),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": BytesIO(),
        "wsgi.errors": sys.stderr,
        BEGAN: perf_counter_ns(),
    }
    headers = scope.headers
    seen = set()
    for name, value in headers.items():
        key = variable(name)
        if name in seen:
            separator = ";" if name == "cookie" else ","
            environ[key] = f"{environ[key]}{separator}{value}"
        else:
            seen.add(name)
            environ[key] = value
    if len(seen) < len(headers):  # a header that is not ASCII is there, too
        for name in set(headers.keys()) - seen:
            environ[variable(name)] = ""
    environ.pop("", None)
    if authority := scope.authority:
        environ["HTTP_HOST"] = authority.rpartition("@")[2]
    return environ


def bytes_of(text: str) -> str:
    """Return the bytes of a text as PEP 3333 writes them."""
    return text if text.isascii() else text.encode().decode("latin-1")


class Body:
    """The body of a request. Not for threads."""

    def __init__(self, environ: "WSGIEnvironment", exchange: Exchange) -> None:
        self._environ = environ
        self._exchange = exchange
        self._chunks: Exchange | None = None  # set once they are asked for
        self._size = 0  # of those that were read
        self._is_open = True  # whether there may be more to read

    @staticmethod
    def is_in(environ: "WSGIEnvironment") -> bool:
        """Return whether a request has a body."""
        return "HTTP_TRANSFER_ENCODING" in environ or environ.get("CONTENT_LENGTH", "0") != "0"

    async def read(self, limit: int, seconds: float) -> bytes:
        """Return all bytes, which must be less than ``limit``.

        Raises RequestEntityTooLarge, RequestTimeout if they take more than ``seconds``, and
        BadRequestError if they break off.
        """
        self._environ[_CLOSES] = True
        length = self._environ.get("CONTENT_LENGTH")
        if length and int(length) >= limit:
            raise RequestEntityTooLarge
        try:
            async with asyncio.timeout(seconds):
                content = await (self._exchange() if length else self._unknown(limit))
        except TimeoutError:
            self._is_open = False
            raise RequestTimeout from None
        except (RSGIProtocolClosed, RSGIProtocolError) as error:
            self._is_open = False
            raise BadRequestError(cause="the body breaks off") from error
        self._is_open = False
        del self._environ[_CLOSES]
        self._environ[BEGAN] = perf_counter_ns()  # the client's time does not count
        return content

    async def _unknown(self, limit: int) -> bytes:
        """Return the bytes of a body in chunks: nobody knows how many they are."""
        chunks = []
        while (chunk := await self._next()) is not None:
            chunks.append(chunk)
            if self._size >= limit:
                raise RequestEntityTooLarge
        if chunks[-2:] == [b"", b""]:
            raise RSGIProtocolError
        return b"".join(chunks)

    async def drain(self, seconds: float) -> None:
        """Read and forget what the client is still sending, at most DRAINED bytes."""
        if not self._is_open or "HTTP_EXPECT" in self._environ:  # it waits for a word to send
            return
        self._is_open = False
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._size < DRAINED and await self._next() is not None:
                    pass

    async def _next(self) -> bytes | None:
        """Return the next chunk, None after the last one, which is empty."""
        if self._chunks is None:
            self._chunks = aiter(self._exchange)
        try:  # anext() with a default crashes CPython 3.11 on the futures of granian
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            return None
        self._size += len(chunk)
        return chunk


def answer_at_once(answers: Callable[[Scope, Exchange], bool]) -> None:
    """Let granian ask ``answers`` for each request before it hands one to the event loop.

    granian's thread calls it, which takes half of the time; it must ask no neighbour, and raise
    nothing. A granian without this function, which is not documented, goes by the event loop.
    """
    make: Any = getattr(_futures, _SCHEDULE, None)
    if make is None:
        return

    def make_schedule(*arguments: Any) -> Callable[[Any], None]:
        schedule = make(*arguments)

        def answer_or_schedule(request: Any) -> None:
            if answers(request.scope, request.proto):
                request.done()
            else:
                schedule(request)

        return answer_or_schedule

    setattr(_futures, _SCHEDULE, make_schedule)


def answer(app: "WSGIApplication", environ: "WSGIEnvironment", exchange: Exchange) -> None:
    """Let a WSGI application answer a request, in the thread that calls."""
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], _: object = None) -> Any:
        started[:] = int(status[:3]), headers

    try:
        chunks = app(environ, start_response)
        try:
            content = b"".join(chunks)
        finally:
            if close := getattr(chunks, "close", None):
                close()
        status, headers = started
    except Exception:
        path = shown_path(environ["PATH_INFO"])
        log.critical("%s %s: a bug", environ["REQUEST_METHOD"], path, exc_info=True)
        status, headers, content = 500, [], f"{AutomxError.public}\n".encode()
    if _CLOSES in environ:
        headers = [*headers, ("Connection", "close")]
    exchange.response_bytes(status, headers, content)
