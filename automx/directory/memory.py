"""What directories said of people, remembered for a bounded time and number of people."""

from collections.abc import Callable, Hashable
from itertools import islice
from threading import Lock

from automx.directory.person import NotRememberedError, Person


class Memory:
    """People, or None for each that is not known, by keys. Safe for threads.

    ``seconds`` is how long an answer is kept, ``size`` how many there are; 0 keeps none. ``now`` is
    a clock that is never set. A cache of cachetools would need a lock for each look, and hold it
    while it forgets all that is over.
    """

    def __init__(self, size: int, seconds: float, now: Callable[[], float]) -> None:
        self._size = size if seconds > 0 else 0
        self._seconds = seconds
        self._now = now
        self._lock = Lock()
        # With the time at which an answer is over; in this order.
        self._people: dict[Hashable, tuple[Person | None, float]] = {}

    def __len__(self) -> int:
        """Return how many answers are kept, with some that are over."""
        return len(self._people)

    def get(self, key: Hashable) -> Person | None:
        """Return an answer. Raises NotRememberedError. It never waits."""
        kept = self._people.get(key)
        if kept is None or kept[1] <= self._now():
            raise NotRememberedError
        return kept[0]

    def keep(self, key: Hashable, person: Person | None) -> None:
        """Remember an answer from now on, and forget some that are over, or too many."""
        if not self._size:
            return
        with self._lock:
            now = self._now()
            self._people.pop(key, None)
            self._people[key] = person, now + self._seconds
            # Two for each that comes: so there are never many, and no request works for others.
            for oldest in [*islice(self._people, 2)]:
                if len(self._people) > self._size or self._people[oldest][1] <= now:
                    del self._people[oldest]
