"""What a worker tells the main process: all its counts, once a second."""

import atexit
import json
import resource
import threading
import time
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection
from pathlib import Path

from automx.counts import Counts

SECONDS = 1.0  # between two messages


def report(counts: Counts, address: str, key: bytes) -> None:
    """Let a thread tell the main process again and again what this worker has counted."""
    counts.gauges.append(lambda: [("automx_worker_memory_bytes", (), float(_memory()))])
    reporter = _Reporter(counts, address, key)
    threading.Thread(target=reporter.work, daemon=True, name="metrics").start()
    atexit.register(reporter.end)


class _Reporter:
    def __init__(self, counts: Counts, address: str, key: bytes) -> None:
        self._counts = counts
        self._address = address
        self._key = key
        self._lock = threading.Lock()
        self._main: Connection | None = None

    def work(self) -> None:
        """Connect, without holding up the start of the worker, and tell all once a second."""
        while (main := self._connect()) is None:
            time.sleep(SECONDS)
        self._main = main
        # Never a second connection: what was told by the first one would count twice.
        with suppress(OSError):  # the main process ends
            while True:
                self._tell(main)
                time.sleep(SECONDS)

    def end(self) -> None:
        """Tell what was counted last."""
        if self._main is not None:
            with suppress(OSError):
                self._tell(self._main)

    def _connect(self) -> Connection | None:
        try:
            return Client(self._address, authkey=self._key)
        except (OSError, EOFError, AuthenticationError):  # the main process is busy
            return None

    def _tell(self, main: Connection) -> None:
        with self._lock:
            main.send_bytes(json.dumps(self._counts.document()).encode())


def _memory() -> int:
    """Return the bytes of memory that this process has."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:  # no Linux
        return 0
