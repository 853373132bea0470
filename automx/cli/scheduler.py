"""Synchronization in the background of ``automx serve``: ``automx sync --due``, again and again.

It runs in a process of its own, which a thread of the main process starts: no request waits for it,
what it has read leaves the memory with it, and it can be ended whatever it hangs at.
"""

import logging
import multiprocessing
import signal
import sys
import threading
from collections.abc import Sequence
from time import monotonic

from automx.cli import main, worker
from automx.config import Settings, SourceSettings
from automx.errors import SettingsError
from automx.inmemory import is_in_memory

log = logging.getLogger(__name__)

_WRITING_SECONDS = 600.0  # that a process has for all but reading
_ENDING_SECONDS = 2.0
_POLL_SECONDS = 0.5


class Scheduler:
    """Starts synchronizations as often as the source that is read most often wants it."""

    def __init__(self, sources: Sequence[SourceSettings]) -> None:
        self._pause = min(source.interval.total_seconds() for source in sources)
        self._limit = sum(source.timeout for source in sources) + _WRITING_SECONDS
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sync", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a synchronization that runs is broken off, and has changed nothing."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _run(self) -> None:
        while not self._stopped.is_set():
            began = monotonic()
            self._synchronize(began + self._limit)
            self._stopped.wait(max(0.0, began + self._pause - monotonic()))

    def _synchronize(self, end: float) -> None:
        process = multiprocessing.get_context("spawn").Process(
            target=synchronize, name="automx sync", daemon=True
        )
        process.start()
        while process.is_alive() and not self._stopped.is_set() and monotonic() < end:
            process.join(_POLL_SECONDS)
        if process.is_alive():
            if not self._stopped.is_set():
                log.error("a synchronization of sources hangs, and is ended")
            process.terminate()
            process.join(_ENDING_SECONDS)
            process.kill()
            process.join()
        process.close()


def synchronize() -> None:
    """Run ``automx sync --due`` in this process, which ends with the one that has started it.

    SIGTERM is an exception here, so that a program of a source ends, too.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    worker.end_with_parent()
    main(["sync", "--due"], prog_name="automx")


def of(settings: Settings) -> Scheduler | None:
    """Return what synchronizes the sources of settings; None if the server shall not.

    Raises SettingsError if it cannot.
    """
    if not settings.sync_in_server:
        return None
    sources = [source for source in settings.sources if source.finds_domains]
    if not sources:
        raise SettingsError("sync_in_server needs a source: a section [source.NAME]")
    if is_in_memory(settings.db_uri):
        raise SettingsError("sync_in_server needs a database that is not in memory")
    return Scheduler(sources)
