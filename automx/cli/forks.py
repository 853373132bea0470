"""The first workers of ``automx serve``: forks of the main process, whose memory they share.

A fork copies the locks that other threads hold, and nobody opens them. So the main process has one
thread as long as it forks: it has imported the libraries of workers, and all else of it begins
afterwards. Workers that take the place of others are spawned, and so are all where Linux is not.
"""

import atexit
import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from granian.server import MPServer

from automx import log

_HANDLED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)  # by the main process


class ForkingServer(MPServer):
    """granian's server, whose first workers are forked if they can be.

    Each function of ``on_started`` is called in order once they have started, and may start
    threads. Of the files that this process has opened for its server, workers have ``shared``.
    """

    def __init__(self, target: str, **options: Any) -> None:
        super().__init__(target, **options)
        self.on_started: list[Callable[[], object]] = []
        self.shared: list[Connection] = []
        self._files = _open_files()

    def startup(self, spawn_target: Any, target_loader: Any) -> None:
        """Start the workers, and then all else."""
        super().startup(spawn_target, target_loader)  # type: ignore[no-untyped-call]
        for start in self.on_started:
            start()

    def _spawn_workers(self, spawn_target: Any, target_loader: Any) -> None:
        if not self._files or len([*Path("/proc/self/task").iterdir()]) > 1:
            super()._spawn_workers(spawn_target, target_loader)  # type: ignore[no-untyped-call]
            return
        log.close_files()
        gc.collect()
        gc.freeze()  # else the garbage collector of a worker would write to all objects
        multiprocessing.set_start_method("fork", force=True)
        try:
            with held(*_HANDLED) as mask:
                for index in range(self.workers):
                    target = partial(_run, spawn_target, mask, self._own_files())
                    forked = self._spawn_worker(index, target, target_loader)
                    forked.inner.start()
                    self.wrks.append(forked)
        finally:
            multiprocessing.set_start_method("spawn", force=True)
        for forked in self.wrks:
            forked._watch()  # type: ignore[no-untyped-call] # noqa: SLF001 - it starts a thread

    def _own_files(self) -> set[int]:
        """Return the numbers of the files that this process has opened, and workers do not need."""
        shared = {connection.fileno() for connection in self.shared}
        return _open_files() - self._files - shared - {self._sfd}  # granian before 2.8 shares it


@contextmanager
def held(*signals: int) -> Iterator[set[int]]:
    """Let signals wait until the end of a ``with`` block, which gets those that were held before.

    A handler of Python may raise anywhere, and a library may catch what it raises.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield {*mask}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _open_files() -> set[int]:
    """Return the numbers of the open files of this process; none where they cannot be known."""
    found = set()
    with suppress(OSError):  # no Linux, no /proc, or it may not be read
        for link in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # it was that of the list itself
                os.fstat(int(link.name))
                found.add(int(link.name))
    return found


def _run(
    target: Callable[..., None],
    mask: Iterable[int],
    own: Iterable[int],
    *arguments: Any,
) -> None:
    """Run a worker that was forked, without what the main process has set up for itself."""
    for handled in _HANDLED:
        signal.signal(handled, signal.SIG_DFL)
    # Ctrl-C reaches all processes. The main one ends this one, and takes no end of it for a crash.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # a signal that has come meanwhile ends it
    for number in own:
        os.close(number)
    atexit._clear()  # noqa: SLF001 - as multiprocessing does since Python 3.14
    target(*arguments)
