"""The heartbeat of workers: a worker that hangs is killed, and granian starts another one.

Each worker has a listening socket of its own (SO_REUSEPORT): the kernel goes on giving connections
to a worker whose process is stopped or whose event loop is stuck, and no other worker sees them.
"""

import asyncio
import logging
import os
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from granian.server.common import AbstractServer

log = logging.getLogger(__name__)

SECONDS = 1.0  # between two beats
MISSED = 20  # beats after which a worker hangs

_BEAT = 4  # bytes of a process ID


def start(loop: asyncio.AbstractEventLoop, sender: Connection) -> None:
    """Send the ID of this process again and again, as long as the event loop runs."""
    os.set_blocking(sender.fileno(), False)
    beat = os.getpid().to_bytes(_BEAT, "big")

    def send() -> None:
        loop.call_later(SECONDS, send)
        with suppress(OSError):  # the main process is stopped, and the pipe is full
            os.write(sender.fileno(), beat)

    loop.call_soon(send)


def watch(server: AbstractServer[Any], receiver: Connection) -> None:
    """Kill each worker of a server that has sent beats and sends no more, in a new thread."""
    os.set_blocking(receiver.fileno(), False)
    missed: dict[int, int] = {}  # by the ID of the process

    def look() -> None:
        while True:
            # Turns are counted, not seconds: all stand still while the machine sleeps, or while
            # the main process is stopped.
            time.sleep(SECONDS)
            beats = _received(receiver)
            workers = {worker.inner.pid: worker.inner for worker in list(server.wrks)}
            for pid in [pid for pid in missed if pid not in workers]:
                del missed[pid]
            for pid, process in workers.items():
                if pid in beats:
                    missed[pid] = 0
                elif pid in missed:
                    missed[pid] += 1
                    if missed[pid] == MISSED:
                        log.error("worker %s hangs, and is killed", pid)
                        process.kill()

    threading.Thread(target=look, daemon=True, name="heartbeat").start()


def _received(receiver: Connection) -> set[int]:
    """Return the processes that have sent a beat since the last call."""
    beats = b""
    with suppress(BlockingIOError):
        while part := os.read(receiver.fileno(), 65536):
            beats += part
    return {int.from_bytes(beats[at : at + _BEAT], "big") for at in range(0, len(beats), _BEAT)}
