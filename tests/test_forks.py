"""The first workers of ``automx serve``, which are forked: what they have of the main process."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from automx.front import Front
from tests.processes import (
    AUTOMX,
    REPOSITORY,
    SERVE,
    Running,
    Server,
    attempted_start,
    free_port,
    listening_sockets,
    running,
    wait_until,
    workers_of,
)

PYTHON = AUTOMX.with_name("python")
# Python tells it before each fork, but not before it starts another program.
TELL_THREADS = """
import os
def tell(): print("threads:", len(os.listdir("/proc/self/task")), flush=True)
os.register_at_fork(before=tell)
"""
HOLD = "from automx.cli import server; server.APPLICATION = 'tests.test_forks:{}'; " + SERVE


# The main process gets SIGINT while it imports libraries.
CATCH = """
import os, signal
from automx.cli import worker

def load(settings):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        os.getpid()
    except KeyboardInterrupt:
        pass

worker.load_libraries = load
"""


@pytest.fixture
def variables(database: Path, example: None) -> dict[str, str]:
    """Settings of a server that answers Prometheus, too."""
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "AUTOMX_METRICS_LISTEN": f"127.0.0.1:{free_port()}",
    }


@contextmanager
def started(variables: dict[str, str], log: Path, program: str = SERVE) -> Iterator[Server]:
    """Run a server until the block ends; entering waits until it has started."""
    port = free_port()
    command = [*map(str, (PYTHON, "-c", program, "serve", "--port", port, "--workers", 2))]

    def answers() -> bool:
        return log.exists() and "automx answers" in log.read_text()

    with running(command, log, ready=answers, env=variables, cwd=REPOSITORY) as server:
        wait_until(lambda: listening_sockets(port) == 2, "the start of both workers")
        yield Server(server.process, log, port)


def is_spawned(pid: int) -> bool:
    return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()


def links_of(pid: int) -> set[str]:
    """Return the pipes and sockets that a process has opened."""
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has been closed
            found.add(str(path.readlink()))
    return {link for link in found if link.startswith(("pipe:", "socket:"))}


def test_first_workers_are_forked_while_there_is_one_thread_and_others_are_spawned(
    variables: dict[str, str], tmp_path: Path
) -> None:
    with started(variables, tmp_path / "serve.log", TELL_THREADS + SERVE) as server:
        first = workers_of(server.process)[0]
        assert not is_spawned(first)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: any(map(is_spawned, workers_of(server.process))), "another worker")
        wait_until(lambda: listening_sockets(server.port) == 2, "its start")
        assert server.stop() == 0
        assert [line for line in server.output.splitlines() if "threads" in line] == [
            "threads: 1",
            "threads: 1",
        ]


def test_workers_are_spawned_where_a_thread_is_there(
    variables: dict[str, str], tmp_path: Path
) -> None:
    thread = (
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
    )
    with started(variables, tmp_path / "serve.log", f"{thread}\n{SERVE}") as server:
        assert [*map(is_spawned, workers_of(server.process))] == [True, True]
        assert server.stop() == 0


def test_workers_have_two_pipes_of_the_main_process_and_no_socket(
    variables: dict[str, str], tmp_path: Path
) -> None:
    with started(variables, tmp_path / "serve.log") as server:
        main = links_of(server.process.pid)
        first, second = (links_of(pid) & main for pid in workers_of(server.process))
    kinds = [sorted(link.partition(":")[0] for link in links) for links in (first & second, first)]
    # What the main process hears of failures and of heartbeats; then, two of the worker's own.
    assert kinds == [["pipe"] * 2, ["pipe"] * 4]


def test_a_worker_runs_no_exit_function_of_the_main_process(
    variables: dict[str, str], tmp_path: Path
) -> None:
    register = "import atexit; atexit.register(print, 'the end', flush=True)"
    with started(variables, tmp_path / "serve.log", f"{register}\n{SERVE}") as server:
        assert server.stop() == 0
        assert server.output.count("the end\n") == 1


def hold() -> Front:
    """Tell that a worker starts, and start no further."""
    os.write(1, b"held %d\n" % os.getpid())
    while True:
        signal.pause()


class _Late(Front):
    """Goes on with its start once SIGTERM has come, when it listens neither to it nor to clients.

    granian's handlers are there, but they are part of the event loop, which does not run yet.
    """

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__rsgi_init__(loop)
        os.write(1, b"held %d\n" % os.getpid())
        while signal.SIGTERM not in signal.sigpending():
            time.sleep(0.01)


def hold_late() -> Front:
    """Return an application whose workers start once SIGTERM has come."""
    return _Late(lambda *_: [])


def held(server: Running) -> list[int]:
    """Return the workers that have told that they start."""
    lines = [line.split() for line in server.output.splitlines()]
    return [int(words[1]) for words in lines if words[0] == "held"]


@contextmanager
def holding(variables: dict[str, str], log: Path, function: str) -> Iterator[Running]:
    """Run a server until the block ends, both of whose workers do not start to the end."""
    words = (PYTHON, "-c", HOLD.format(function), "serve", "--port", free_port(), "--workers", 2)

    def is_held() -> bool:
        return log.read_text().count("held") == 2

    with running([*map(str, words)], log, ready=is_held, env=variables, cwd=REPOSITORY) as server:
        yield server


@pytest.mark.parametrize("function", ["hold", "hold_late"])
def test_sigterm_ends_workers_that_are_starting(
    variables: dict[str, str], tmp_path: Path, function: str
) -> None:
    with holding(variables, tmp_path / "serve.log", function) as server:
        forked = held(server)[0]
        os.kill(forked, signal.SIGTERM)
        wait_until(lambda: len(held(server)) == 3, "the start of another worker")
        spawned = held(server)[2]
        assert (is_spawned(spawned), forked in workers_of(server.process)) == (True, False)
        os.kill(spawned, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{spawned}").exists(), "its end")


def test_ctrl_c_ends_a_server_that_is_starting_without_a_line(
    variables: dict[str, str], tmp_path: Path
) -> None:
    with holding(variables, tmp_path / "serve.log", "hold") as server:
        for pid in held(server):
            status = Path(f"/proc/{pid}/status").read_text()
            ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
            assert ignored & 1 << (signal.SIGINT - 1)  # else it might end before the main process
        os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does
        assert server.process.wait(30) == 130
        assert all(line.startswith("held ") for line in server.output.splitlines())


def test_ctrl_c_is_not_lost_in_a_library_that_catches_it(
    variables: dict[str, str], tmp_path: Path
) -> None:
    words = (PYTHON, "-c", CATCH + SERVE, "serve", "--port", free_port(), "--workers", 1)
    log = tmp_path / "serve.log"
    with running([*map(str, words)], log, ready=lambda: True, env=variables) as server:
        assert server.process.wait(60) == 130
        assert server.output == "automx: interrupted\n"


def test_a_worker_that_cannot_be_forked_ends_the_server_with_one_line(
    variables: dict[str, str], tmp_path: Path
) -> None:
    conf = tmp_path / "automx.conf"
    conf.write_text("[automx]\nsync_in_server = yes\n[source.x]\ntype = file\nfile = /dev/null\n")
    variables["AUTOMX_CONF"] = str(conf)
    refuse = """
import errno, os
fork = os.fork
def refuse(): raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
def fork_once(): os.fork = refuse; return fork()
os.fork = fork_once
"""
    result = attempted_start(variables, refuse + SERVE)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "automx: a worker cannot start: Resource temporarily unavailable\n"


def test_a_taken_port_of_metrics_ends_the_server_with_one_line(variables: dict[str, str]) -> None:
    address = variables["AUTOMX_METRICS_LISTEN"]
    host, _, port = address.partition(":")
    with socket.create_server((host, int(port))):
        result = attempted_start(variables)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"automx: cannot listen on {address}: Address already in use\n"
