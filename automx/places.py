"""Places and threads of an event loop: how many calls run at once, and how the others wait."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from threading import Lock, Thread
from typing import Any, TypeVar

from automx.errors import BusyError

T = TypeVar("T")
Gone = Callable[[], Awaitable[None]]


class Places:
    """A number of places, of which one key may have a share; others wait in turn. Not for threads.

    ``share`` is how many places one key may have. ``waiting`` is how many may wait; one key may be
    half of them, unless it may have all places. ``seconds`` is how long they wait.
    """

    def __init__(self, number: int, *, share: int, waiting: int, seconds: float) -> None:
        self._free = number
        self._share = share
        self._waiting = waiting
        self._waiting_of_one = waiting if share == number else waiting // 2
        self._seconds = seconds
        self._taken: dict[str, int] = {}
        self._queue: list[tuple[str, asyncio.Future[None]]] = []

    def place(self, key: str = "", gone: Gone | None = None) -> "Place":
        """Return a place to be had in a ``with`` block, which take() takes."""
        return Place(self, key, gone)

    async def take(self, key: str, gone: Gone | None) -> None:
        """Take a place, as soon as one is free and the key has less than its share.

        ``gone`` ends when the client has gone, which then waits no longer. Raises BusyError if no
        place is free in time, or if too many wait already.
        """
        if self._is_free_for(key):
            self._grant(key)
            return
        waiting = sum(one == key for one, _ in self._queue)
        if len(self._queue) >= self._waiting or waiting >= self._waiting_of_one:
            raise BusyError
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        timer = loop.call_later(self._seconds, self._refuse, turn)
        self._queue.append((key, turn))
        leaving = asyncio.ensure_future(gone()) if gone else loop.create_future()
        leaving.add_done_callback(lambda _: self._refuse(turn))
        try:
            await turn
        finally:
            timer.cancel()
            leaving.cancel()

    def give(self, key: str) -> None:
        """Give a place back: the first in the queue that may have it gets it."""
        self._free += 1
        if left := self._taken[key] - 1:
            self._taken[key] = left
        else:
            del self._taken[key]
        for number, (waiting, turn) in enumerate(self._queue):
            if self._is_free_for(waiting):
                del self._queue[number]
                self._grant(waiting)
                turn.set_result(None)
                return

    def close(self) -> None:
        """Refuse what waits, and from now on all that would have to wait."""
        self._waiting = 0
        for _, turn in list(self._queue):
            self._refuse(turn)

    def _is_free_for(self, key: str) -> bool:
        return self._free > 0 and self._taken.get(key, 0) < self._share

    def _grant(self, key: str) -> None:
        self._free -= 1
        self._taken[key] = self._taken.get(key, 0) + 1

    def _refuse(self, turn: asyncio.Future[None]) -> None:
        if turn.done():
            return
        self._queue = [(key, other) for key, other in self._queue if other is not turn]
        turn.set_exception(BusyError())


class Place:
    """A place among Places, which is had in a ``with`` block."""

    __slots__ = ("_gone", "_key", "_places")

    def __init__(self, places: Places, key: str, gone: Gone | None) -> None:
        self._places = places
        self._key = key
        self._gone = gone

    async def __aenter__(self) -> None:
        await self._places.take(self._key, self._gone)

    async def __aexit__(self, *_: object) -> None:
        self._places.give(self._key)


class Threads:
    """Threads for the calls of an event loop, started when they are needed.

    ``AWAKE`` of them run, and one more for each ``PATIENCE`` that the first call has waited: those
    that wait for Python's lock slow the others down. They are daemons: a process that ends does not
    wait for a backend, as it would for those of concurrent.futures.
    """

    AWAKE = 2
    PATIENCE = 0.001  # seconds

    def __init__(self, number: int) -> None:
        self._number = number
        self._calls: deque[tuple[Callable[[], Any], asyncio.Future[Any], float, bool]] = deque()
        self._ended: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._is_told = False  # whether the event loop knows of what has ended
        self._results: set[asyncio.Future[Any]] = set()
        self._lock = Lock()  # for the threads that are awake, and those that sleep
        self._awake = self._started = 0
        self._most = min(self.AWAKE, number)  # that may be awake at the moment
        self._bells: list[Lock] = []  # one for each thread that sleeps, which waits for it
        self._watching: asyncio.AbstractEventLoop | None = None  # the loop that will call _look()

    def run(self, call: Callable[[], T], *, answers: bool = False) -> "asyncio.Future[T]":
        """Return what a call returns, as soon as a thread has made it.

        With ``answers``, the call answers a request by itself and returns whether it has. If so,
        the event loop is not woken: it learns of it when it runs next, at most ``PATIENCE`` later.
        """
        loop = asyncio.get_running_loop()
        if self._ended:
            self._tell()
        result: asyncio.Future[T] = loop.create_future()
        self._results.add(result)
        self._calls.append((call, result, loop.time(), answers))
        if not self._wake() or answers:
            self._watch(loop)
        return result

    def _wake(self) -> bool:
        """Wake a thread, and return whether fewer were awake than may be.

        The last one that fell asleep is woken first: what it needs is in the caches.
        """
        with self._lock:
            if self._awake >= self._most:
                return False
            self._awake += 1
            bell = self._bells.pop() if self._bells else None
        if bell is None:
            self._start()
        else:
            bell.release()
        return True

    def _start(self) -> None:
        """Start a thread. Raises RuntimeError if the system allows none at all."""
        try:
            Thread(target=self._work, daemon=True, name=f"request {self._started}").start()
        except RuntimeError:
            with self._lock:
                self._awake -= 1
            if not self._started:
                raise
        else:
            self._started += 1

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._watching is not loop:
            self._watching = loop
            loop.call_later(self.PATIENCE, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand over what has ended; wake threads if the first call waits for long."""
        self._watching = None  # first: a call that ends after _tell() has to wake the loop
        self._tell()
        waited = 0.0
        with suppress(IndexError):
            waited = loop.time() - self._calls[0][2]
        self._most = min(self.AWAKE + int(waited / self.PATIENCE), self._number)
        for _ in range(len(self._calls)):
            if not self._wake():
                break  # the first of them that is free takes the next call
        if self._calls:
            self._watch(loop)

    def abandon(self, error: type[Exception]) -> None:
        """Raise an error where a result is awaited; the calls go on."""
        self._tell()  # calls that have ended are not abandoned
        for result in self._results:
            if not result.done():
                result.set_exception(error())

    def _work(self) -> None:
        bell = Lock()
        bell.acquire()
        while True:
            try:
                call, result, _, answers = self._calls.popleft()
            except IndexError:
                self._sleep(bell)
                continue
            value, error = None, None
            try:
                value = call()
            except BaseException as caught:
                error = caught
            self._ended.append((result, value, error))
            loop = result.get_loop()
            is_answered = answers and value is True
            # To wake the loop costs more than a short call.
            if not self._is_told and not (is_answered and self._watching is loop):
                self._is_told = True
                with suppress(RuntimeError):  # the loop has ended
                    loop.call_soon_threadsafe(self._tell)
            del call, result, value, error  # an idle thread keeps no body
            if self._awake > self._most:
                self._sleep(bell)

    def _sleep(self, bell: Lock) -> None:
        """Wait until this thread is woken, unless it has a call to make."""
        with self._lock:
            if self._calls and self._awake <= self._most:  # nobody was woken for it
                return
            self._awake -= 1
            self._bells.append(bell)
        bell.acquire()

    def _tell(self) -> None:
        """Hand over what has ended, in the event loop."""
        self._is_told = False
        while self._ended:
            result, value, error = self._ended.popleft()
            self._results.discard(result)
            if result.done():  # it was abandoned
                continue
            if error is None:
                result.set_result(value)
            else:
                result.set_exception(error)
