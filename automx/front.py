"""The front of ``automx serve``: reads each request whole, and lets a thread answer it.

What is remembered is answered at once.

granian calls it by its interface RSGI, and it calls a WSGI application (PEP 3333). No thread waits
for a client: bodies are read first, within a deadline. No neighbour takes all threads: requests for
accounts, and those for /healthz, have threads of their own. What fails here is told to the
application, which knows the form that each protocol has for errors.
"""

import asyncio
import atexit
import os
import signal
from collections.abc import Callable, Container
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qs

from flask import Flask
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout

from automx import api, edge
from automx.counts import Counts
from automx.errors import AutomxError, SilentError, UnavailableError
from automx.places import Places, Threads
from automx.quick import Asked, Quick, Sent
from automx.rsgi import Body, Exchange, Scope, answer, bytes_of, environment
from automx.views import initdb, root
from automx.views.failure import FOUND
from automx.views.http import MAX_BODY, parts
from automx.views.paths import normal

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

T = TypeVar("T")

# Threads of a worker: enough for neighbours that are slow, few enough to cost little memory.
THREADS = 32
# How many requests may wait for one of them, and how many seconds.
WAITING, WAITING_SECONDS = 1_000, 5.0
# The same for requests for accounts. One token may have half: many phones scan one poster.
ACCOUNT_THREADS = 16
ACCOUNTS_WAITING, ACCOUNT_SECONDS = 500, 10.0

BODY_SECONDS = 5.0  # that a client has for a body
DRAIN_SECONDS = 2.0  # in which it may go on to send one that is not wanted
# For a seed document or a list of domains, of which so many are read at once.
SEED_SECONDS, SEEDS = 60.0, 2
# Requests that change rows, which wait for each other at the database: few of its places.
CHANGES = 4

# Seconds after SIGTERM until nothing waits for a thread any longer, and until all is answered.
LAST_SECONDS, END_SECONDS = 3.0, 7.0


class Front:
    """An RSGI application around a WSGI application.

    POST requests at the paths ``accounts``, which have no slash at the end, make accounts.
    ``max_seed`` returns how many bytes a seed document may have, 0 if none may be sent; it is asked
    at /initdb/ in the event loop. ``max_large`` returns how many another body may have that is
    large, 0 for the usual limit; ``may_send`` returns whether it may be sent, and is called in a
    thread. ``asks_backend`` returns whether another request waits for a backend of accounts, as
    those at ``accounts`` do. ``may_change`` returns whether it may change rows. ``quick`` answers
    requests without the application. ``counts`` are what this process counts.
    """

    def __init__(
        self,
        app: "WSGIApplication",
        *,
        accounts: Container[str] = (),
        max_seed: "Callable[[WSGIEnvironment], int]" = lambda _: 0,
        max_large: "Callable[[WSGIEnvironment], int]" = lambda _: 0,
        may_send: "Callable[[WSGIEnvironment], bool]" = lambda _: True,
        asks_backend: "Callable[[WSGIEnvironment], bool]" = lambda _: False,
        may_change: "Callable[[WSGIEnvironment], bool]" = lambda _: False,
        quick: Quick | None = None,
        counts: Counts | None = None,
    ) -> None:
        self.counts = counts
        self._app = app
        self.quick = quick
        self._asked: dict[int, Asked] = {}  # requests that are handed to the event loop
        self._accounts = accounts
        self._max_seed = max_seed
        self._max_large = max_large
        self._may_send = may_send
        self._asks_backend = asks_backend
        self._may_change = may_change
        self._threads = Threads(THREADS)
        self._places = Places(THREADS, share=THREADS, waiting=WAITING, seconds=WAITING_SECONDS)
        self._account_threads = Threads(ACCOUNT_THREADS)
        self._account_places = Places(
            ACCOUNT_THREADS,
            share=ACCOUNT_THREADS // 2,
            waiting=ACCOUNTS_WAITING,
            seconds=ACCOUNT_SECONDS,
        )
        self._seed_places = Places(SEEDS, share=SEEDS, waiting=WAITING, seconds=ACCOUNT_SECONDS)
        self._large_places = Places(SEEDS, share=SEEDS, waiting=WAITING, seconds=ACCOUNT_SECONDS)
        self._change_places = Places(
            CHANGES, share=CHANGES, waiting=WAITING, seconds=WAITING_SECONDS
        )
        # These wait for no neighbour.
        self._health_thread = Threads(1)
        self._failure_thread = Threads(1)

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Learn of SIGTERM beside granian, whose handlers are those of the event loop."""

        def stop(*_: object) -> None:
            loop.call_soon_threadsafe(loop.call_later, LAST_SECONDS, self._refuse)
            loop.call_soon_threadsafe(loop.call_later, END_SECONDS, self._abandon)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
            signal.siginterrupt(number, False)

    def __rsgi_del__(self, _: asyncio.AbstractEventLoop) -> None:
        """End the process: all is answered, or is left to its backend.

        To end it by the interpreter would abort at times: a thread of granian is still there.
        """
        atexit._run_exitfuncs()  # noqa: SLF001 - as multiprocessing does before os._exit()
        os._exit(0)

    def answers_at_once(self, scope: Scope, exchange: Exchange) -> bool:
        """Answer a request from memory, in any thread, and return whether that can be done.

        Raises nothing: what fails here fails again in the event loop, which tells it.
        """
        if (quick := self.quick) is None:
            return False
        try:
            asked = quick.asked(scope)
            if asked is None:
                return False
            if asked.method == "GET" and _is_known(quick, asked, exchange):
                return True
        except Exception:
            return False
        if len(self._asked) >= WAITING:  # of clients that have gone on the way
            self._asked.clear()
        self._asked[id(scope)] = asked  # which refers to the scope: nothing else has its ID
        return False

    async def __rsgi__(self, scope: Scope, exchange: Exchange) -> None:
        """Answer a request."""
        asked: Asked | None = None
        try:
            if (quick := self.quick) is not None:
                asked = self._asked.pop(id(scope), None) or quick.asked(scope)
                # Without another coroutine, where it is answered from memory.
                if (asked is not None and asked.method == "GET") and (
                    _is_known(quick, asked, exchange)
                    or await self._is_found(quick, asked, exchange)
                ):
                    return
        except Exception as error:
            await self._tell(error, _environment(scope, asked), exchange)
            return
        environ = _environment(scope, asked)
        body = Body(environ, exchange) if Body.is_in(environ) else None
        failure: Exception | None = None
        try:
            if body is None:
                await self._answer(environ, exchange)
            elif _is_post(environ, {"/initdb"}):
                await self._seed(environ, exchange, body)
            elif limit := self._max_large(environ):
                await self._large(environ, exchange, body, limit)
            else:
                content = await body.read(MAX_BODY, BODY_SECONDS)
                await self._answer_post(asked, environ, exchange, content)
        except (AutomxError, RequestTimeout, RequestEntityTooLarge) as error:
            failure = error
        if failure:
            await self._tell(failure, environ, exchange)
        if body is not None:
            await body.drain(DRAIN_SECONDS)

    async def _answer_post(
        self,
        asked: Asked | None,
        environ: "WSGIEnvironment",
        exchange: Exchange,
        content: bytes,
    ) -> None:
        """Answer a request with a body, which was read."""
        try:
            if (quick := self.quick) is not None and asked is not None:
                asked = quick.posted(asked, content)
                if asked is not None and (
                    _is_known(quick, asked, exchange)
                    or await self._is_found(quick, asked, exchange)
                ):
                    return
        except Exception as error:
            await self._tell(error, environ, exchange)
            return
        environ["wsgi.input"] = BytesIO(content)
        await self._answer(environ, exchange)

    async def _is_found(self, quick: Quick, asked: Asked, exchange: Exchange) -> bool:
        """Answer a request without the application, and return whether that can be done.

        The thread that has the answer sends it: the event loop may be busy with other requests.
        """
        return await self._run(partial(_is_answered, quick, asked, exchange), answers=True)

    async def _tell(
        self, failure: Exception, environ: "WSGIEnvironment", exchange: Exchange
    ) -> None:
        """Let the application tell a failure."""
        environ = {**environ, FOUND: failure}  # a thread may still have the first one
        await self._failure_thread.run(partial(answer, self._app, environ, exchange))
        failure.__traceback__ = None  # its frames would keep the connection open for a while

    async def _answer(self, environ: "WSGIEnvironment", exchange: Exchange) -> None:
        call = partial(answer, self._app, environ, exchange)
        if environ["PATH_INFO"] == "/healthz":
            await self._health_thread.run(call)
        elif _is_post(environ, self._accounts) or self._asks_backend(environ):
            token = parse_qs(environ["QUERY_STRING"]).get("t", [""])[0]
            async with self._account_places.place(token, exchange.client_disconnect):
                await self._account_threads.run(call)
        elif self._may_change(environ):
            async with self._change_places.place():
                await self._run(call)
        else:
            await self._run(call)

    async def _run(self, call: Callable[[], T], *, answers: bool = False) -> T:
        async with self._places.place():
            return await self._threads.run(call, answers=answers)

    async def _seed(self, environ: "WSGIEnvironment", exchange: Exchange, body: Body) -> None:
        """Answer a request with a seed document, which is read only if it may be sent."""
        call = partial(answer, self._app, environ, exchange)
        if limit := self._max_seed(environ):
            async with self._seed_places.place():
                environ["wsgi.input"] = BytesIO(await body.read(limit, SEED_SECONDS))
                await self._run(call)
        else:
            environ["CONTENT_LENGTH"] = "0"
            await self._run(call)

    async def _large(
        self, environ: "WSGIEnvironment", exchange: Exchange, body: Body, limit: int
    ) -> None:
        """Answer a request with another large body, which is read only if it may be sent."""
        call = partial(answer, self._app, environ, exchange)
        if await self._run(partial(self._may_send, environ)):
            async with self._large_places.place():
                environ["wsgi.input"] = BytesIO(await body.read(limit, SEED_SECONDS))
                await self._run(call)
        else:
            environ["CONTENT_LENGTH"] = "0"
            await self._run(call)

    def _refuse(self) -> None:
        some = (self._account_places, self._seed_places, self._large_places, self._change_places)
        for places in (*some, self._places):
            places.close()

    def _abandon(self) -> None:
        """Answer what its neighbour has not answered; "prune" looks after the accounts."""
        self._account_threads.abandon(SilentError)
        self._threads.abandon(UnavailableError)


def make_front(app: Flask) -> Front:
    """Return the front of automx's application."""
    with app.app_context():
        found = parts()
    settings = found.settings
    paths = account_paths(settings.web_endpoint)
    return Front(
        app,
        accounts=paths,
        max_seed=lambda environ: initdb.max_body(environ, settings),
        max_large=api.max_body,
        may_send=partial(api.has_key, app),
        asks_backend=api.asks_backend,
        may_change=api.may_change,
        quick=Quick(found),
        counts=found.counts,
    )


def account_paths(web_endpoint: str) -> set[str]:
    """Return the paths at which a POST makes an account, as an environment has them.

    They have no slash at the end.
    """
    return {bytes_of(path).rstrip("/") for path in root.paths_of_accounts(web_endpoint)}


def _is_known(quick: Quick, asked: Asked, exchange: Exchange) -> bool:
    """Answer a request from memory, and return whether that can be done."""
    return _is_sent(quick.known(asked), exchange)


def _is_answered(quick: Quick, asked: Asked, exchange: Exchange) -> bool:
    """Answer a request in a thread, and return whether that can be done without the application."""
    return _is_sent(quick.found(asked), exchange)


def _is_sent(answer: Sent | None, exchange: Exchange) -> bool:
    """Send an answer, and return whether there is one."""
    if answer is None:
        return False
    exchange.response_bytes(*answer)
    return True


def _environment(scope: Scope, asked: Asked | None) -> "WSGIEnvironment":
    """Return the environment of a request, with the Trace that it has already."""
    environ = environment(scope)
    if asked is not None:
        environ[edge.TRACE] = asked
    return environ


def _is_post(environ: "WSGIEnvironment", paths: Container[str]) -> bool:
    is_post = environ["REQUEST_METHOD"] == "POST"
    return is_post and normal(environ["PATH_INFO"]).rstrip("/") in paths
