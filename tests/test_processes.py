"""Processes of ``automx serve`` under load: workers and the main process are killed or stopped."""

import contextlib
import http.client
import os
import resource
import select
import signal
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.processes import (
    AUTOMX,
    Server,
    free_port,
    listening_sockets,
    listens,
    running,
    stopped,
    wait_until,
    workers_of,
)

WORKERS = 2
PEOPLE = 4
FEW = 3 * PEOPLE  # while a worker ends, the next request of a person may meet it again
ANSWERED = "200"
LOST = {"BadStatusLine", "ConnectionResetError", "RemoteDisconnected"}

SERVE = "from automx.cli.serve import serve; serve()"
# The limit of a worker that hangs, 20 beats, would keep a test waiting.
IMPATIENT = f"from automx.cli import heartbeat; heartbeat.MISSED = 10; {SERVE}"


@pytest.fixture(scope="module")
def variables(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of a server whose database has no domain: the processes are the point here."""
    path = tmp_path_factory.mktemp("processes") / "automx.sqlite"
    path.write_bytes(empty_database.read_bytes())
    uri = f"sqlite:///{path}"
    return {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": uri, "AUTOMX_LOGLEVEL": "ERROR"}


@contextlib.contextmanager
def started(variables: dict[str, str], log: Path, program: str = SERVE) -> Iterator[Server]:
    """Run a server until the block ends; entering waits until all of its workers answer."""
    port = free_port()
    command: list[str | Path] = [AUTOMX.with_name("python"), "-c", program, "--port", str(port)]
    command += ["--workers", str(WORKERS)]

    def ready() -> bool:
        return listening_sockets(port) == WORKERS

    with running(command, log, ready=ready, env=variables) as server:
        ask_all(port)
        yield Server(server.process, log, port)
        assert "Traceback" not in server.output


@pytest.fixture(scope="module")
def server(variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server, whose main process lives on."""
    with started(variables, tmp_path_factory.mktemp("server") / "serve.log") as server:
        yield server


@pytest.fixture
def doomed(variables: dict[str, str], tmp_path: Path) -> Iterator[Server]:
    """A running server that ends within the test."""
    with started(variables, tmp_path / "serve.log") as server:
        yield server


@dataclass
class Load:
    """People who ask all the time, each on a new connection; ``results`` counts what they got."""

    port: int
    results: Counter[str] = field(default_factory=Counter)
    _end: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self) -> None:
        """Ask until the load ends."""
        while not self._end.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            try:
                connection.request("GET", "/mail/config-v1.1.xml?emailaddress=a@b.example")
                result = str(connection.getresponse().status)
            except (OSError, http.client.HTTPException) as error:
                result = type(error).__name__
            finally:
                connection.close()
            result = ANSWERED if result == "404" else result  # the database has no domain
            with self._lock:
                self.results[result] += 1
            self._end.wait(0.1)  # the load is to be steady, not high

    @property
    def lost(self) -> int:
        """How many requests were not answered; their connections were broken off, and no more."""
        assert self.results.keys() <= {ANSWERED, *LOST}, self.results
        return self.results.total() - self.results[ANSWERED]

    def goes_on(self) -> None:
        """Wait until people have got answers that they had not asked for before."""
        enough = self.results[ANSWERED] + 4 * PEOPLE
        wait_until(lambda: self.results[ANSWERED] > enough, "answers to others")


@contextlib.contextmanager
def load_on(server: Server) -> Iterator[Load]:
    """Let people ask a server until the block ends."""
    load = Load(server.port)
    with ThreadPoolExecutor(PEOPLE) as pool:
        people = [pool.submit(load.ask) for _ in range(PEOPLE)]
        try:
            load.goes_on()
            yield load
        finally:
            load._end.set()
        for person in people:
            person.result()


def ask_all(port: int) -> None:
    """Ask all workers and wait for their answers: one that is starting listens already."""
    for _ in range(20):  # the kernel chooses the worker
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60) as answer:
            assert answer.status == 200


def await_start(server: Server, before: list[int]) -> None:
    """Wait until other workers are there in the place of those before."""

    def is_complete() -> bool:
        workers = workers_of(server.process)
        return len(workers) == WORKERS and not set(before) & set(workers)

    wait_until(is_complete, "the start of other workers")


def await_others(server: Server, before: list[int]) -> None:
    """Wait until other workers answer in the place of those before."""
    await_start(server, before)
    wait_until(lambda: listening_sockets(server.port) == WORKERS, "their sockets")
    ask_all(server.port)


def oldest(server: Server) -> int:
    """Return a worker that was not started last: one that dies at once would end the server."""
    return workers_of(server.process)[0]


def test_a_worker_that_is_killed_loses_its_own_requests_only(server: Server) -> None:
    worker = oldest(server)
    with load_on(server) as load:
        os.kill(worker, signal.SIGKILL)
        await_others(server, [worker])
        load.goes_on()
    assert load.lost <= FEW


def test_a_worker_that_is_stopped_for_a_moment_answers_afterwards(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        connections = []
        with stopped(oldest(server)):
            for _ in range(20):
                connection = socket.create_connection(("127.0.0.1", server.port), 60)
                connections.append(stack.enter_context(connection))
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wait_until(lambda: bool(select.select(connections, [], [], 0)[0]), "an answer")
        answers = [connection.recv(65536) for connection in connections]
    assert {answer[:15] for answer in answers} == {b"HTTP/1.1 200 OK"}


def test_a_worker_that_hangs_is_killed_and_replaced(
    variables: dict[str, str], tmp_path: Path
) -> None:
    with started(variables, tmp_path / "serve.log", IMPATIENT) as server:
        worker = oldest(server)
        with load_on(server) as load, stopped(worker):
            await_others(server, [worker])
            load.goes_on()
        assert load.lost <= FEW
        line = f"ERROR automx.cli.heartbeat: worker {worker} hangs, and is killed\n"
        assert line in server.output


def test_workers_go_on_while_the_main_process_is_stopped(server: Server) -> None:
    worker = oldest(server)
    with load_on(server) as load:
        with stopped(server.process.pid):
            load.goes_on()
            assert load.lost == 0
            os.kill(worker, signal.SIGKILL)
            load.goes_on()
            assert len(workers_of(server.process)) < WORKERS
        await_others(server, [worker])
        load.goes_on()
    assert load.lost <= FEW


def test_sigterm_of_a_stopped_main_process_ends_the_server_once_it_goes_on(doomed: Server) -> None:
    with stopped(doomed.process.pid):
        doomed.process.send_signal(signal.SIGTERM)
        with load_on(doomed) as load:
            load.goes_on()
        assert load.lost == 0
    assert doomed.process.wait(30) == 0


def test_all_workers_that_are_killed_are_replaced_once(doomed: Server) -> None:
    before = workers_of(doomed.process)
    for worker in before:
        os.kill(worker, signal.SIGKILL)
    await_start(doomed, before)
    os.kill(max(workers_of(doomed.process)), signal.SIGKILL)
    assert doomed.process.wait(60) == 1
    assert not listens(doomed.port)


def test_a_worker_that_cannot_be_replaced_ends_the_server(doomed: Server) -> None:
    threads = Path(f"/proc/{doomed.process.pid}/task")
    wait_until(lambda: "automx answers" in doomed.output, "the announcement")
    wait_until(lambda: len([*threads.iterdir()]) == 3 + WORKERS, "the end of its thread")
    resource.prlimit(doomed.process.pid, resource.RLIMIT_NOFILE, (3, 3))
    os.kill(oldest(doomed), signal.SIGKILL)
    assert doomed.process.wait(60) == 1
    assert doomed.output.splitlines()[-1] == "Error: a worker cannot start: Too many open files"
    assert not listens(doomed.port)


def test_a_main_process_that_is_killed_leaves_the_port_to_the_next(doomed: Server) -> None:
    workers = workers_of(doomed.process)
    with load_on(doomed) as load:
        doomed.process.kill()
        wait_until(lambda: not listens(doomed.port), "ending the workers")
    assert load.results[ANSWERED]
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "their end")
