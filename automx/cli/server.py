"""The web server of ``automx serve``: its main process, which starts workers."""

import logging
import multiprocessing
import os
import resource
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import click
from granian.constants import HTTPModes, Interfaces, Loops, TaskImpl
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.common import AbstractServer

from automx.cli import heartbeat, scheduler, worker
from automx.cli.forks import ForkingServer, held
from automx.cli.terminal import INTERRUPTED, complain, say, say_lines
from automx.config import Settings, load
from automx.inmemory import is_in_memory
from automx.log import write

log = logging.getLogger(__name__)

APPLICATION = "automx.cli.worker:make"  # of workers
# Seconds that requests in flight get after SIGTERM: all but a backend answer within them.
GRACE = 9
# Milliseconds that a client gets for the head of a request, and that an idle connection lasts.
HEAD_TIMEOUT = 5_000
HEAD_SIZE = 64 * 1024  # bytes
# Connections of a worker; more wait in the queue of the kernel.
CONNECTIONS = 2_000
OTHER_FILES = 500  # that a worker may have open: databases, directories, pipes of programs
# What takes the place of granian's own settings of its log, by the form of logging.config.
LOG = {
    "formatters": {},
    "handlers": {"automx": {"class": "automx.log.GranianHandler"}},
    "loggers": {"_granian": {"handlers": ["automx"], "propagate": False}},
}


def run(host: str, port: int, workers: int | None, *, examples: bool) -> None:
    """Run the web server until SIGTERM or Ctrl-C, with the options of ``automx serve``.

    Raises AutomxError and ClickException if it cannot start, and Exit after Ctrl-C.
    """
    settings = load()
    write(settings)
    number = _number_of_workers(settings.db_uri, workers)
    synchronizing = scheduler.of(settings)
    address = _address(host, port)
    with held(signal.SIGINT):
        worker.load_libraries(settings)
    multiprocessing.set_start_method("spawn")
    server = ForkingServer(
        APPLICATION,
        address=address,
        port=port,
        interface=Interfaces.RSGI,
        loop=Loops.uvloop,
        task_impl=TaskImpl.asyncio,
        http=HTTPModes.http1,
        websockets=False,
        workers=number,
        backpressure=_connections(),
        http1_settings=HTTP1Settings(header_read_timeout=HEAD_TIMEOUT, max_buffer_size=HEAD_SIZE),
        respawn_failed_workers=True,
        respawn_interval=0,
        workers_kill_timeout=GRACE,
        log_level=LogLevels.error,
        log_dictconfig=LOG,
    )

    def tell() -> None:
        _announce(address, port, examples)
        _warn_of_database(settings)  # later: a locked table would hold up the start

    collector = _collector(server, settings) if settings.metrics.listen else None
    server.on_started.append(threading.Thread(target=tell, daemon=True).start)
    server.on_shutdown(lambda: _notify("STOPPING=1"))
    if synchronizing is not None:
        server.on_started.append(synchronizing.start)
        server.on_shutdown(synchronizing.stop)
    _run(server, collector)


def _warn_of_database(settings: Settings) -> None:
    """Log why requests cannot be answered yet; the server waits for the database meanwhile."""
    from automx import migrations  # noqa: PLC0415 - a synchronization needs none of it
    from automx.views import initdb  # noqa: PLC0415 - likewise

    uri = settings.db_uri
    if not is_in_memory(uri) and (trouble := migrations.trouble(uri)):
        log.warning("settings cannot be looked up yet: %s", trouble)
    initdb.warn_if_unfilled(settings)


def _collector(server: ForkingServer, settings: Settings) -> tuple[str, bytes]:
    """Let a server serve metrics once it has started; return where workers tell their counts."""
    from automx.cli import metrics  # noqa: PLC0415 - needed with metrics only

    collector = metrics.new_collector()
    server.on_started.append(partial(_serve_metrics, settings, collector))
    return collector


def _serve_metrics(settings: Settings, collector: tuple[str, bytes]) -> None:
    """Serve metrics of what workers tell to a collector."""
    from automx import create_app, replica, statistics  # noqa: PLC0415 - needed with metrics only
    from automx.cli import metrics  # noqa: PLC0415 - likewise
    from automx.views.http import PARTS, Parts  # noqa: PLC0415 - likewise

    found: Parts = create_app(settings).extensions[PARTS]

    def read(now: datetime) -> statistics.Statistics:
        with found.reading.primary() as session:
            numbers = statistics.read(session, now, {source.name for source in settings.sources})
        if (other := found.reading.replica()) is None:
            return numbers
        return replace(numbers, replica_lacks=replica.lacks(other, numbers.change))

    def certificate_end() -> datetime | None:
        return None if found.signer is None else found.signer.end()

    metrics.serve(settings.metrics, collector, read, certificate_end)


class _Interrupt(threading.Event):
    """An event that lets the main thread run handlers of signals while it waits.

    SIGTERM for a process that is stopped (SIGSTOP) may later reach any of its threads; Python runs
    the handler in the main one, which has to wake up for it.
    """

    def wait(self, timeout: float | None = None) -> bool:
        while timeout is None and not super().wait(1):
            pass
        return super().wait(timeout)


def _run(server: ForkingServer, collector: tuple[str, bytes] | None) -> None:
    """Run a server until it ends; workers tell their counts to a ``collector``.

    Raises ClickException if a worker cannot start, and Exit after Ctrl-C.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)
    beats, beat = multiprocessing.Pipe(duplex=False)
    reasons: list[str] = []

    def watch() -> None:
        with suppress(EOFError):  # the server ends
            reasons.append(receiver.recv())
            server.interrupt_signal = True
            server.main_loop_interrupt.set()

    server.main_loop_interrupt = _Interrupt()
    server.shared = [sender, beat]
    server.on_started[:0] = [
        threading.Thread(target=watch, daemon=True).start,
        partial(heartbeat.watch, server, beats),
    ]
    is_interrupted = _noting_interrupt(server)
    try:
        server.serve(target_loader=partial(worker.load, sender, beat, collector))
    except SystemExit:
        if not reasons:
            raise
    except (OSError, RuntimeError) as error:  # no further process, thread or file is allowed
        reasons.append(f"a worker cannot start: {getattr(error, 'strerror', None) or error}")
        _end(server)
    except Exception:  # metrics cannot be served
        _end(server)
        raise
    if reasons:
        raise click.ClickException(reasons[0])
    if is_interrupted():
        raise click.exceptions.Exit(INTERRUPTED)


def _end(server: AbstractServer[Any]) -> None:
    """End the workers of a server that has failed: Python would wait for them for ever."""
    shutdown: Callable[[], None] = server.shutdown
    with suppress(SystemExit):
        shutdown()
    for process in multiprocessing.active_children():  # one that granian has not noted yet
        process.terminate()


def _noting_interrupt(server: AbstractServer[Any]) -> Callable[[], bool]:
    """Return a function that says whether Ctrl-C, and not SIGTERM, has ended a server."""
    numbers: list[int] = []
    stop: Callable[..., None] = server.signal_handler_interrupt

    def note(number: int, *rest: Any) -> None:
        numbers.append(number)
        stop(number, *rest)

    server.signal_handler_interrupt = note  # type: ignore[method-assign]
    return lambda: numbers[:1] == [signal.SIGINT]


def _connections() -> int:
    """Return how many connections a worker may have, which has so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < (wanted := CONNECTIONS + OTHER_FILES):
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(soft - OTHER_FILES, soft // 2)


def _number_of_workers(db_uri: str, asked: int | None) -> int:
    if not is_in_memory(db_uri):
        return asked or min(os.cpu_count() or 1, 4)
    if asked not in {None, 1}:
        raise click.UsageError(
            "The database is in memory, and each worker would have its own: use one worker, or set"
            " db_uri to a file."
        )
    say("The database is in memory: there is one worker, and all data end with it.")
    return 1


def _address(host: str, port: int) -> str:
    """Return the IP address of a host.

    Stop with a clear text if it is not ours or the port is taken: granian would share it with its
    owner.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _, _, address = found[0]
        with socket.socket(family, kind) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        where = f"--host {host} --port {port}"
        raise click.ClickException(f"cannot listen on {where}: {reason}") from error
    return str(address[0])


def _announce(address: str, port: int, examples: bool) -> None:
    """Wait until the server answers, then notify systemd and print its URL."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - compared only
    base = f"http://[{loopback}]:{port}" if ":" in loopback else f"http://{loopback}:{port}"
    headers = {"User-Agent": "automx-check"}  # else it would count as a scanner
    request = urllib.request.Request(f"{base}/healthz", headers=headers)  # noqa: S310 - our own URL
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5):  # noqa: S310
                break
        except OSError:
            time.sleep(0.05)
    _notify("READY=1")
    try:
        say(f"automx answers at {base}/")
        if examples:
            say_lines(_EXAMPLES.format(base=base).removesuffix("\n"))
    except OSError as error:  # a full disk, or a pipe that is closed, ends no server
        complain(f"the output cannot be written: {error.strerror}")


_EXAMPLES = """
Try it:
  Thunderbird, K-9, KMail, Evolution, Delta Chat (Autoconfig):
    curl '{base}/mail/config-v1.1.xml?emailaddress=alice@example.com'
  Outlook (Autodiscover), here without an address:
    curl -H 'Host: autodiscover.example.com' {base}/autodiscover/autodiscover.xml
  iPhone and Mac (Mobileconfig), in a browser:
    {base}/mobileconfig?emailaddress=alice@example.com&name=Alice
  The page for people, in a browser:
    {base}/?address=alice@example.com
Stop it with Ctrl-C.
"""


def _notify(state: str) -> None:
    """Notify systemd of the state of the service (sd_notify(3)); without systemd, do nothing."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    address = "\0" + path[1:] if path.startswith("@") else path  # abstract socket
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect(address)
        sock.sendall(state.encode())
