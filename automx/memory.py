"""A memory of answers, bounded in time and number; the least recently used are forgotten first."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

_Answer = TypeVar("_Answer")


class Memory(Generic[_Answer]):
    """Remembers answers by the domains they are for, with when they were read. Not for threads.

    ``size`` is how many there are, ``seconds`` how long one is used after it was read, in the time
    of ``now``. (Such a cache of cachetools takes five times as long, in each look-up.)
    """

    def __init__(self, size: int, seconds: float, now: Callable[[], float]) -> None:
        self._size = size
        self._seconds = seconds
        self._now = now
        self._kept: OrderedDict[str, tuple[_Answer, float]] = OrderedDict()

    def get(self, domain: str) -> tuple[_Answer, float] | None:
        """Return the answer for a domain, and when it was read; None if it is not remembered."""
        kept = self._kept.get(domain)
        if kept is None:
            return None
        if kept[1] + self._seconds <= self._now():
            del self._kept[domain]
            return None
        self._kept.move_to_end(domain)
        return kept

    def keep(self, domain: str, answer: _Answer, read_at: float) -> None:
        """Remember an answer."""
        self._kept[domain] = answer, read_at
        self._kept.move_to_end(domain)
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)

    def forget(self, domain: str) -> None:
        """Forget the answer for a domain, if there is one."""
        self._kept.pop(domain, None)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def answers(self) -> Iterator[tuple[str, _Answer]]:
        """Yield the domains that are remembered, and their answers, the latest used last."""
        begin = self._now() - self._seconds
        for domain, (answer, read_at) in self._kept.items():
            if read_at > begin:
                yield domain, answer
