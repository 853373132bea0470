"""Rate limits: how often a client, and all clients of a token, may ask for an account.

Requests are counted in windows of a fixed length, in the memory of each worker or in a Redis that
all workers share. A request waits for Redis no longer than a second; while Redis does not answer,
each worker counts alone: accounts are still made, and no token makes more than its ``maxuse``. The
library limits reads the setting and counts in Redis; in memory, it would keep each address of a
flood, and follow a clock that is set back.
"""

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from math import ceil
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING

from flask import request

from automx import edge
from automx.config import LimitSettings
from automx.counts import Counts
from automx.errors import TooManyRequestsError
from automx.views.sharedwindows import SharedWindows

if TYPE_CHECKING:
    from limits import RateLimitItem

# The library limits is imported where it is used: most servers make no accounts.

_MEMORY = "memory://"
_SCOPES = ("client", "token")
_WINDOWS = 80_000  # that a worker keeps in memory at most, of about 350 bytes each


class Windows:
    """The requests of each key, such as an address, in windows of a fixed length.

    A window begins with the first request after the last one has ended, as in Redis. Of more than
    ``most`` keys, those whose windows began first are forgotten. ``seconds`` is the length of a
    window, ``now`` a clock that is never set. Not safe for threads.
    """

    def __init__(
        self, allowed: int, seconds: float, most: int, now: Callable[[], float] = monotonic
    ) -> None:
        self._allowed = allowed
        self._seconds = seconds
        self._most = most
        self._now = now
        # The end of each window, and the requests in it; in the order of the ends.
        self._windows: OrderedDict[bytes, tuple[float, int]] = OrderedDict()

    def hit(self, key: str) -> float:
        """Count a request; return in how many seconds its window ends if it is one too many.

        It is 0 for a request that is allowed.
        """
        now = self._now()
        windows = self._windows
        while windows and next(iter(windows.values()))[0] <= now:
            windows.popitem(last=False)
        name = blake2b(key.encode(errors="replace"), digest_size=12).digest()
        end, count = windows.get(name, (now + self._seconds, 0))
        windows[name] = end, count + 1
        if len(windows) > self._most:
            windows.popitem(last=False)
        return 0 if count < self._allowed else end - now


class Limits:
    """The limits of the settings. Safe for threads.

    Raises SettingsError if the storage of the settings can never be used; a storage that does not
    answer at the moment is no error.
    """

    def __init__(self, settings: LimitSettings, counts: Counts | None = None) -> None:
        self._counts = counts
        self._rate = settings.rate
        self._lock = Lock()
        self._limits: tuple[RateLimitItem, ...] = ()  # read at the first request
        self._windows: dict[tuple[RateLimitItem, str], Windows] = {}  # by limit and scope
        is_shared = settings.rate and settings.storage != _MEMORY
        self._shared = SharedWindows(settings.storage) if is_shared else None

    @property
    def is_shared(self) -> bool:
        """Whether requests are counted in a Redis."""
        return self._shared is not None

    @property
    def is_away(self) -> bool:
        """Whether the Redis of the settings is known to be away."""
        return self._shared is not None and self._shared.is_away

    def count_client(self) -> None:
        """Count the request for its client. Raises TooManyRequestsError above the limit."""
        self._count(edge.of(request.environ).network, _SCOPES[0])

    def count_token(self) -> None:
        """Count the request for the token in its URL. Raises TooManyRequestsError likewise."""
        self._count(_token(), _SCOPES[1])

    def close(self) -> None:
        """Close connections."""
        if self._shared is not None:
            self._shared.close()

    def _count(self, key: str, scope: str) -> None:
        if not self._rate:
            return
        with self._lock:  # loads the library in one thread: its modules import in circles
            from limits import parse_many

            if not self._limits:
                found = parse_many(self._rate)
                self._limits = tuple(sorted(found, key=lambda limit: limit.get_expiry()))
        seconds = self._shared.hit(self._limits, key, scope) if self._shared else None
        if seconds is None:
            seconds = self._hit(key, scope)
        if seconds:
            if self._counts is not None:
                self._counts.add("automx_limited_total", scope)
            raise TooManyRequestsError(retry_after=max(ceil(seconds), 1))

    def _hit(self, key: str, scope: str) -> float:
        """Count a request in memory; return how many seconds it came too early, or 0."""
        with self._lock:
            for limit in self._limits:
                if (windows := self._windows.get((limit, scope))) is None:
                    most = _WINDOWS // (len(self._limits) * len(_SCOPES))
                    windows = Windows(limit.amount, limit.get_expiry(), most)
                    self._windows[limit, scope] = windows
                if seconds := windows.hit(key):
                    return seconds
        return 0


def _token() -> str:
    """Return a digest of the token: the token itself must not stand in Redis."""
    token = request.args.get("t", "").encode(errors="replace")
    return blake2b(token, digest_size=16, person=b"automx limit").hexdigest()
