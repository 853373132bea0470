"""What a worker tells the main process: all its counts, once a second."""

import atexit
import json
import resource
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Client
from pathlib import Path

from automx.counts import Counts

SECONDS = 1.0  # between two messages


def report(counts: Counts, address: str, key: bytes) -> None:
    """Let a thread tell the main process again and again what this worker has counted."""
    counts.gauges.append(lambda: [("automx_worker_memory_bytes", (), float(_memory()))])
    lock = threading.Lock()
    main = Client(address, authkey=key)

    def tell() -> None:
        with lock:
            main.send_bytes(json.dumps(counts.document()).encode())

    def work() -> None:
        with suppress(OSError):  # the main process ends
            while True:
                tell()
                time.sleep(SECONDS)

    def end() -> None:
        with suppress(OSError):
            tell()

    threading.Thread(target=work, daemon=True, name="metrics").start()
    atexit.register(end)


def _memory() -> int:
    """Return the bytes of memory that this process has."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:  # no Linux
        return 0
