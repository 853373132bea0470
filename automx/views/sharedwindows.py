"""Requests of each key, such as an address, in windows that all workers share in a Redis.

Threads of its own ask Redis, because a driver limits a read and not a call. While Redis is away, it
is not asked for a request; a thread looks every second whether it is back.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Condition, Event, Thread
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from automx.errors import SettingsError

if TYPE_CHECKING:
    from limits import RateLimitItem

log = logging.getLogger(__name__)

PLACES = 16  # requests of a worker that Redis is asked for at once: half of the worker's threads
SECONDS = 1.0  # in which Redis has to answer
STALL_SECONDS = 0.15  # no request waits for a place if Redis has answered none for so long
PAUSE_SECONDS = 1.0  # between two looks at a Redis that is away
_PROBE_KEY = "LIMITER/automx/probe"  # of a counter that expires after a second
_TIMEOUT = {"socket_connect_timeout": SECONDS, "socket_timeout": SECONDS}


class SharedWindows:
    """The windows in the Redis of a URI. Safe for threads.

    Raises SettingsError if the URI can never be used; a Redis that is away is no error.
    """

    def __init__(self, uri: str) -> None:
        from limits.errors import ConfigurationError
        from limits.storage import storage_from_string
        from limits.strategies import FixedWindowRateLimiter

        try:  # wrapped, errors of Redis are StorageError
            self._storage: Any = storage_from_string(uri, wrap_exceptions=True, **_TIMEOUT)
            self._redis = FixedWindowRateLimiter(self._storage)
        except ConfigurationError as error:
            text = "rate_limit_storage needs the Python module redis: pip install 'automx[redis]'"
            raise SettingsError(text) from error
        except ValueError as error:
            raise SettingsError("rate_limit_storage is not a URI of Redis") from error
        self._threads = ThreadPoolExecutor(PLACES, thread_name_prefix="redis")
        self._changed = Condition()
        self._free = PLACES
        self._moved_at = 0.0  # when Redis has last answered, or has been asked by an idle worker
        self._is_away = False
        self._closed = Event()
        self._prober: Thread | None = None  # while Redis is away

    @property
    def is_away(self) -> bool:
        """Whether Redis is known to be away."""
        return self._is_away

    def hit(self, limits: "tuple[RateLimitItem, ...]", key: str, scope: str) -> float | None:
        """Count a request in the windows of all limits, until one of them refuses it.

        Return how many seconds it came too early, 0 if it is allowed, and None if Redis cannot be
        asked: it is away, or too busy.
        """
        if not self._take_place():
            return None
        began = monotonic()
        call = self._threads.submit(self._hit, limits, key, scope)
        try:
            seconds = call.result(SECONDS)
        except Exception as error:  # not only the driver's own, if something else answers
            if not call.cancel():
                self._hang_up()
            self._give_place(began, " ".join(str(error).split()) or "no answer in time")
            return None
        self._give_place(began)
        return seconds

    def close(self) -> None:
        """Close connections, and look no more whether Redis is back."""
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._hang_up()

    def _hang_up(self) -> None:
        """Close the connections, also those on which a thread waits: its call ends."""
        self._storage.storage.connection_pool.disconnect(inuse_connections=True)

    def _hit(self, limits: "tuple[RateLimitItem, ...]", key: str, scope: str) -> float:
        for limit in limits:
            if not self._redis.hit(limit, "automx", key, scope):
                reset = self._redis.get_window_stats(limit, "automx", key, scope).reset_time
                return max(reset - time(), 1.0)  # the library adds this clock to Redis's own
        return 0

    def _take_place(self) -> bool:
        with self._changed:
            if self._free == PLACES:
                self._moved_at = monotonic()
            while not self._is_away and not self._free:
                stalled = monotonic() - self._moved_at
                if stalled >= STALL_SECONDS:
                    return False
                self._changed.wait(STALL_SECONDS - stalled)
            if self._is_away:
                self._wake_prober()
                return False
            self._free -= 1
            return True

    def _give_place(self, began: float, failure: str = "") -> None:
        with self._changed:
            self._free += 1
            self._changed.notify()
            if not failure:
                self._moved_at = monotonic()
            # If others were answered meanwhile, it is the connection that failed, not Redis.
            elif self._moved_at <= began and not self._is_away:
                self._is_away = True
                log.warning("Rate limit storage unreachable, this worker counts alone: %s", failure)
                self._wake_prober()
                self._changed.notify_all()

    def _wake_prober(self) -> None:
        if self._prober is None or not self._prober.is_alive():  # a fork leaves it behind
            self._prober = Thread(target=self._probe, name="redis-probe", daemon=True)
            self._prober.start()

    def _probe(self) -> None:
        """Look whether Redis is back: it counts in time. A ping is answered by a full disk, too."""
        while not self._closed.wait(PAUSE_SECONDS):
            with suppress(Exception):
                call = self._threads.submit(self._storage.incr, _PROBE_KEY, 1)
                try:
                    call.result(SECONDS)
                except TimeoutError:  # it may answer a byte at a time
                    if not call.cancel():
                        self._hang_up()
                    raise
                self._note_return()
                return

    def _note_return(self) -> None:
        with self._changed:
            self._is_away = False
            self._prober = None
        log.warning("Rate limit storage answers again")
