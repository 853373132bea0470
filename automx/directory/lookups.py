"""Look-ups in directories: how many run at once, who waits for a turn, and the threads they run in.

A directory that is slow or silent must not take the threads of a worker, which other domains need.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import BoundedSemaphore, Lock
from time import monotonic
from typing import ParamSpec, TypeVar

from automx.directory.person import DirectoryError

_Given = ParamSpec("_Given")
_Found = TypeVar("_Found")

LOOKUPS = 4  # how many look-ups of a directory run at once, so that one cannot take all threads
# A worker has 32 threads (`automx serve`). So many look-ups run at once in all directories
# together, and so many wait for their turn with patience: three quarters of the threads.
ALL_LOOKUPS = 12
QUEUE = 12
# How long, in seconds, a directory may give no answer until those in the queue give up, and until
# all others do. A healthy one answers in milliseconds: there, each of a burst gets its turn.
STALL_SECONDS = 0.5
BRIEF_SECONDS = 0.15


class Places:
    """The places that all directories of a process share."""

    def __init__(self) -> None:
        self.turns = BoundedSemaphore(ALL_LOOKUPS)
        self.queue = BoundedSemaphore(QUEUE)


class Lookups:
    """The look-ups of one directory; ``name`` is that of its threads.

    ``spare`` threads are for other work than look-ups.
    """

    def __init__(self, places: Places, name: str, *, spare: int = 0) -> None:
        self._turns = (BoundedSemaphore(LOOKUPS), places.turns)
        self._queue = places.queue
        self._lock = Lock()
        self._running: list[float] = []  # when those began that run
        self._answered_at = 0.0
        self._threads = ThreadPoolExecutor(LOOKUPS + spare, thread_name_prefix=name)

    @contextmanager
    def turn(self, end: float) -> Iterator[None]:
        """Wait for a turn, which ends with the block. Raises DirectoryError if it is in vain."""
        with ExitStack() as ends:
            self._take_turn(end, ends)
            began = monotonic()
            with self._lock:
                self._running.append(began)
            ends.callback(self._forget, began)
            yield

    def submit(
        self, work: Callable[_Given, _Found], *args: _Given.args, **options: _Given.kwargs
    ) -> Future[_Found]:
        """Let a thread do some work."""
        return self._threads.submit(work, *args, **options)

    def note_answer(self) -> None:
        """Note that the directory has answered a look-up."""
        self._answered_at = monotonic()

    def has_answered_since(self, began: float) -> bool:
        """Return whether a look-up was answered since a moment of ``monotonic()``."""
        return self._answered_at > began

    def _take_turn(self, end: float, ends: ExitStack) -> None:
        began = monotonic()
        with ExitStack() as waiting:
            patience = BRIEF_SECONDS
            if self._queue.acquire(blocking=False):
                waiting.callback(self._queue.release)
                patience = STALL_SECONDS
            for turns in self._turns:
                while not turns.acquire(timeout=0.05):
                    if self._silence(began) > patience or monotonic() > end:
                        raise DirectoryError
                ends.callback(turns.release)

    def _silence(self, began: float) -> float:
        """Return for how many seconds no look-up was answered that runs, or waits since began."""
        with self._lock:
            first = min(self._running, default=began)
        return monotonic() - max(first, self._answered_at)

    def _forget(self, began: float) -> None:
        with self._lock:
            self._running.remove(began)
