"""Starts private instances of real programs on loopback, waits until they answer, stops them."""

import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PATIENCE = 120  # seconds for what takes a moment, unless it hangs or the machine is busy
SLACK = 4.0  # seconds beside a limit; 0.5 are promised, and the machine may be busy
AUTOMX = Path(sys.executable).with_name("automx")
_MOST = min(int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]), 32_768)
# Processes that test side by side take different ones.
_PORTS = itertools.cycle(random.Random(os.getpid()).sample(range(10_000, _MOST), 5_000))


def program(name: str, package: str) -> str:
    """Return the path of a program, or fail the test naming the Debian package that holds it."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")
    if path is None:
        pytest.fail(f"{name} is missing: install the Debian package {package}")
    return path


def own_mounts(*options: str) -> list[str]:
    """Return the words before a command that give it mounts that nothing else sees.

    ``options`` are further ones of unshare. In a plain chroot, whose root is no mount, unshare
    cannot make mounts private. They are that already, unless systemd runs and shares them.
    """
    words = [program("unshare", "util-linux"), "--mount"]
    root, of_machine = (_root_mount(pid) for pid in ("self", "1"))
    if root is None:
        if of_machine is not None and " shared:" in of_machine:
            pytest.fail(
                "the whole machine would see mounts of this chroot: mount --bind its folder onto"
                " itself, and enter it again"
            )
        words.append("--propagation=unchanged")
    return [*words, *options]


@contextlib.contextmanager
def inner_process(command: Sequence[str], log: Path, ready: str, what: str) -> Iterator[int]:
    """Run ``unshare --fork`` until the block ends, and yield the ID of the process within.

    It has started when there is a file ``ready`` in its root.
    """
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as outer:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")

        def first() -> str:
            return children.read_text().partition(" ")[0]

        def is_ready() -> bool:
            assert outer.poll() is None, log.read_text()
            found = first()
            return bool(found) and Path(f"/proc/{found}/root{ready}").exists()

        try:
            wait_until(is_ready, f"the start of {what}")
            yield int(first())
        finally:
            outer.kill()


def _root_mount(pid: str) -> str | None:
    """Return the line about the mount of "/" as a process sees it, None if that is no mount."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return next((line for line in lines if line.split()[4] == "/"), None)


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nothing listens on.

    None of those that the system gives to connections: one of them might come before the server.
    """
    for port in _PORTS:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind((host, port))
            return port
    raise AssertionError


def wait_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait until ``condition()`` is true; fail the test with ``what`` if it takes too long."""
    assert seconds >= PATIENCE, "a busy machine would decide"
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"{what} did not happen within {seconds} s")
        time.sleep(0.02)


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether something accepts connections on a port."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
        return True
    return False


def listening_sockets(port: int) -> int:
    """Return how many sockets listen on a port: each worker has its own."""
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(columns[1].endswith(f":{port:04X}") and columns[3] == "0A" for columns in sockets)


def workers_of(process: "subprocess.Popen[bytes]") -> list[int]:
    """Return the IDs of the workers of ``automx serve``, in order."""
    found = []
    for children in Path(f"/proc/{process.pid}/task").glob("*/children"):
        for pid in children.read_text().split():
            with contextlib.suppress(OSError):
                # It is empty once a process has ended. Python starts one beside spawned workers.
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if command and b"resource_tracker" not in command:
                    found.append(int(pid))
    return sorted(found)


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop one process by SIGSTOP until the block ends."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: _is_stopped(pid), "the stop of all threads")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _is_stopped(pid: int) -> bool:
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            # One that was ending is a zombie as long as its parent is stopped.
            if stat.read_text().rpartition(")")[2].split()[0] not in {"T", "Z"}:
                return False
    return True


@contextlib.contextmanager
def frozen(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Keep a program from running: connections are still accepted, and then nothing is said.

    Its children are frozen, too; each parent before them, so that it starts no more.
    """
    pids: list[int] = []

    def stop(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        pids.append(pid)
        wait_until(lambda: _is_stopped(pid), "the stop of all threads")
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                stop(int(child))

    try:
        stop(process.pid)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@dataclass
class Running:
    """A started program; its output is in ``log``."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        """All that the program has written so far."""
        return self.log.read_text(errors="replace")

    def stop(self, sig: signal.Signals = signal.SIGTERM, seconds: float = 15) -> int:
        """End the program and its children; return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = -9
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(5)
        return status


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    log: Path,
    *,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float = PATIENCE,
) -> Iterator[Running]:
    """Run a program until the block ends; entering waits until ``ready()`` is true."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
    started = Running(process, log)
    try:
        end = time.monotonic() + seconds
        while not ready():
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"{command[0]} did not start:\n{started.output[-4000:]}")
            time.sleep(0.02)
        yield started
    finally:
        started.stop()


@dataclass
class Server(Running):
    """A running ``automx serve``."""

    port: int

    @property
    def url(self) -> str:
        """The base URL, without a final slash."""
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def serving(env: Mapping[str, str], log: Path, *options: str) -> Iterator[Server]:
    """Run ``automx serve`` on a free port with ``AUTOMX_...`` settings in ``env``."""
    port = free_port()
    command: list[str | Path] = [AUTOMX, "serve", "--port", str(port), *options]

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    with running(command, log, ready=answers, env={"AUTOMX_CONF": "/dev/null", **env}) as started:
        yield Server(started.process, started.log, port)


@contextlib.contextmanager
def one_worker(env: Mapping[str, str], log: Path) -> Iterator[Server]:
    """Run a server of one worker, which logs no traceback."""
    with serving(env, log, "--workers", "1") as server:
        yield server
        assert "Traceback" not in server.output


SERVE = "from automx.cli import main; main()"


def attempted_start(
    env: Mapping[str, str], program: str = SERVE
) -> "subprocess.CompletedProcess[str]":
    """Run a server that cannot start, and return once none of its processes has its output."""
    return subprocess.run(
        [sys.executable, "-c", program, "serve", "--port", str(free_port()), "--workers", "2"],
        env={**os.environ, **env},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@dataclass(frozen=True)
class Answer:
    """What a server has answered; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: str
