"""A worker process of ``automx serve``: it loads the application, or says why it cannot."""

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
from importlib import import_module
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from automx.cli import heartbeat, reporter
from automx.errors import AutomxError

if TYPE_CHECKING:
    from automx.config import Settings
    from automx.front import Front

PR_SET_PDEATHSIG = 1  # prctl(2)

# What each worker needs: to start, and to answer mail clients.
_LIBRARIES = (
    *("asyncio", "encodings.idna", "encodings.unicode_escape", "uvloop"),
    *("automx.backends.keys", "automx.front", "automx.migrations", "flask_sqlalchemy.cli"),
)


def load_libraries(settings: "Settings") -> None:
    """Import what workers will need, so that those that are forked share it.

    Raises SettingsError if the driver of the database is missing.
    """
    from automx.database import create_engine  # noqa: PLC0415 - a synchronization needs none of it

    for name in _LIBRARIES:
        import_module(name)
    import_module(f"automx.backends.{settings.accounts.backend}")
    if settings.signing.certificate:
        import_module("automx.signing")
    create_engine(settings.db_uri).dispose()  # it loads the driver, and connects to nothing


def make() -> "Front":
    """Return automx's application for granian. Raises AutomxError for wrong settings."""
    from automx import config, create_app  # noqa: PLC0415 - a synchronization needs none of it
    from automx.backends import Backends  # noqa: PLC0415 - likewise
    from automx.front import make_front  # noqa: PLC0415 - likewise

    settings = config.load()
    Backends(settings.accounts).get("")  # a wrong backend stops the start, not the first account
    return make_front(create_app(settings))


def load(
    failures: Connection, beats: Connection, collector: tuple[str, bytes] | None, target: str
) -> Any:
    """Return what a function gives, named by module and name: ``automx.cli.worker:make``.

    If it fails, the main process gets the reason, one line, and ends this process. From the start
    of the event loop, which granian has set, the main process gets ``beats``, and what was counted
    at the address of its ``collector``, if there is one.
    """
    from automx import rsgi  # noqa: PLC0415 - it delays `automx serve --help`

    end_with_parent()
    module, _, name = target.partition(":")
    try:
        app = getattr(import_module(module), name)()
    except Exception as error:
        if isinstance(error, AutomxError):
            reason = error.reason
        else:
            reason = f"a worker cannot start: {str(error) or type(error).__name__}"
        failures.send(" ".join(reason.split()))
        signal.pause()  # the log would tell an end of its own
        raise SystemExit(1) from None
    rsgi.answer_at_once(app.answers_at_once)
    if collector is not None and app.counts is not None:
        reporter.report(app.counts, *collector)
    loop = asyncio.get_event_loop()
    heartbeat.start(loop, beats)
    _hold_signals(loop)
    return app


def _hold_signals(loop: asyncio.AbstractEventLoop) -> None:
    """Let signals wait until the event loop runs: granian's handlers are part of it.

    The threads of granian start in between, and leave signals to the main thread from then on.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    loop.call_soon(signal.pthread_sigmask, signal.SIG_SETMASK, mask)


def end_with_parent() -> None:
    """End this process with the main one: else it would keep the port when that is killed."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid != os.getppid():  # it was killed before the line above
        raise SystemExit("automx: the main process has gone")
