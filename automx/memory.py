"""A memory of answers, bounded in time and number; the least recently used are forgotten first."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Answer = TypeVar("_Answer")


class NotRememberedError(LookupError):
    """There is no answer that is fresh."""


class Memory(Generic[_Key, _Answer]):
    """Remembers answers by keys, with when they were read.

    ``size`` is how many there are, ``seconds`` how long one is used after it was read, in the time
    of ``now``; 0 remembers none. Threads may call get() at any time, and the rest one after the
    other. (A cache of cachetools takes five times as long for each look, and needs a lock for it.)
    """

    def __init__(self, size: int, seconds: float, now: Callable[[], float]) -> None:
        self._size = size if seconds > 0 else 0
        self._seconds = seconds
        self._now = now
        self._kept: OrderedDict[_Key, tuple[_Answer, float]] = OrderedDict()

    def get(self, key: _Key) -> tuple[_Answer, float] | None:
        """Return the answer for a key, and when it was read; None if it is not remembered.

        It waits for nothing, and does not count as a use.
        """
        kept = self._kept.get(key)
        return None if kept is None or kept[1] + self._seconds <= self._now() else kept

    def answer(self, key: _Key) -> _Answer:
        """Return the answer for a key as get() does. Raises NotRememberedError."""
        kept = self.get(key)
        if kept is None:
            raise NotRememberedError
        return kept[0]

    def use(self, key: _Key) -> tuple[_Answer, float] | None:
        """Return what get() does; it is a use, and others are forgotten before this one."""
        kept = self.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
        return kept

    def keep(self, key: _Key, answer: _Answer, read_at: float) -> None:
        """Remember an answer."""
        self._kept[key] = answer, read_at
        self._kept.move_to_end(key)
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)

    def __len__(self) -> int:
        """Return how many answers are kept, with some that are over."""
        return len(self._kept)

    def forget(self, key: _Key) -> None:
        """Forget the answer for a key, if there is one."""
        self._kept.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def answers(self) -> Iterator[tuple[_Key, _Answer]]:
        """Yield the keys that are remembered, and their answers, the latest used last."""
        begin = self._now() - self._seconds
        for key, (answer, read_at) in self._kept.items():
            if read_at > begin:
                yield key, answer
