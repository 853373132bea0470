"""The application in a worker process of ``automx serve``."""

import ctypes
import multiprocessing
import os
import signal
import sys

from automx.server import app

__all__ = ["app"]

PR_SET_PDEATHSIG = 1  # prctl(2)

# A main process that is killed cannot stop its workers, and they would keep the port.
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid != os.getppid():  # it was killed before the line above
        raise SystemExit("automx: the main process has gone")
