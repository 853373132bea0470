"""The QR codes of pages: drawn one at a time, and remembered.

To draw one takes 10 to 50 ms of the processor, and a stranger may ask for any number of them: few
threads wait for a drawing, and all others are free for requests that cost little.
"""

from functools import cached_property
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING

from automx.errors import UnavailableError

if TYPE_CHECKING:
    from cachetools import LRUCache

MEMORY = 4_000_000  # bytes of drawings that a worker remembers
LEAST = 4_000  # bytes that a drawing counts at least, so that their number is limited, too
PLACES = 8  # threads that draw or wait for it, a quarter of those in `automx serve`
WAIT_SECONDS = 2.0


class Drawings:
    """The drawings of a process. Safe for threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._places = BoundedSemaphore(PLACES)
        self._pen = Lock()

    def svg(self, text: str, *, title: str) -> str:
        """Return what qr.svg() does, from memory if possible.

        Raises BadRequestError if the text is too long for a QR code, and UnavailableError if
        too many others are to be drawn.
        """
        if found := self._remembered(text, title):
            return found
        if not self._places.acquire(blocking=False):
            raise UnavailableError(cause="too many QR codes are asked for at the same time")
        try:
            if not self._pen.acquire(timeout=WAIT_SECONDS):
                raise UnavailableError(cause=f"no QR code could be drawn within {WAIT_SECONDS:g} s")
            try:
                if found := self._remembered(text, title):  # another thread has drawn it
                    return found
                from automx.formats import qr  # few workers draw

                drawing = qr.svg(text, title=title)
            finally:
                self._pen.release()
        finally:
            self._places.release()
        with self._lock:
            self._drawn[text, title] = drawing
        return drawing

    @cached_property
    def _drawn(self) -> "LRUCache[tuple[str, str], str]":
        from cachetools import LRUCache  # few workers draw

        return LRUCache(MEMORY, getsizeof=lambda drawing: max(len(drawing), LEAST))

    def _remembered(self, text: str, title: str) -> str | None:
        with self._lock:
            return self._drawn.get((text, title))
