"""A database that is away, to the half second; commands on a damaged file.

Other faults, and other neighbours, are those of tests/faults.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask import Flask

from automx.database import Session, create_engine
from automx.migrations import upgrade
from automx.seed import populate
from automx.seeddocument import SAMPLE
from automx.views.http import PARTS
from automx.views.session import db
from tests.commandline import attempt
from tests.databases import engine_uri
from tests.faults.neighbours import Neighbour, database_server
from tests.faults.states import file_faults
from tests.processes import wait_until

THREADS = 32
LIMIT = 1.0  # db_timeout, in seconds
KNOWN = "/v1.1/example.com"
REASON = "The service is not available at the moment. Please try again later."


@dataclass(frozen=True)
class Answer:
    """What a client got, and after how many seconds."""

    status: int
    body: bytes
    headers: dict[str, str]
    seconds: float


@dataclass
class Worker:
    """An application and the threads in which its requests are answered."""

    app: Flask
    threads: ThreadPoolExecutor

    def ask(self, path: str, method: str = "GET") -> Answer:
        began = time.monotonic()
        response = self.app.test_client().open(path, method=method)
        seconds = time.monotonic() - began
        return Answer(response.status_code, response.data, dict(response.headers), seconds)

    def ask_all(self, paths: Sequence[str]) -> list[Answer]:
        return list(self.threads.map(self.ask, paths))

    def held_connections(self) -> int:
        with self.app.app_context():
            held: int = db.engine.pool.checkedout()  # type: ignore[attr-defined] # of QueuePool
            return held


def unknown(number: int) -> list[str]:
    return [f"/mail/config-v1.1.xml?emailaddress=a@{i}.unknown.example" for i in range(number)]


def fill(uri: str) -> None:
    upgrade(uri)
    engine = create_engine(uri)
    with Session(engine) as session:
        populate(session, SAMPLE)
        session.commit()
    engine.dispose()


@pytest.fixture(params=["postgresql_instance", "mariadb_instance"])
def server(request: pytest.FixtureRequest) -> Iterator[Neighbour]:
    """A database server of each kind in turn, with the sample, behind a network."""
    with database_server(request.getfixturevalue(request.param)) as neighbour:
        fill(uri_of(neighbour))
        yield neighbour


def uri_of(neighbour: Neighbour) -> str:
    return engine_uri(neighbour.settings["AUTOMX_DB_URI"])


@pytest.fixture
def work(make_app: Callable[..., Flask]) -> Iterator[Callable[..., Worker]]:
    """Make a worker on a database; it has no cache, so that each request asks the database."""
    with ThreadPoolExecutor(THREADS) as threads:

        def make(neighbour: Neighbour, **settings: object) -> Worker:
            values: dict[str, object] = {"db_timeout": LIMIT, "stale_seconds": 60}
            app = make_app(db_uri=uri_of(neighbour), **(values | settings))
            return Worker(app, threads)

        yield make


def check_promises(
    worker: Worker, fault: contextlib.AbstractContextManager[None], slack: float
) -> None:
    """Check what is promised of a database that is away; ``slack`` is added to each limit."""
    fresh = worker.ask(KNOWN)
    assert (fresh.status, "Age" in fresh.headers) == (200, False)
    with fault:
        paths = [path for one in unknown(40) for path in (one, KNOWN, "/healthz")]
        for path, answer in zip(paths, worker.ask_all(paths), strict=True):
            assert answer.seconds < (LIMIT + slack if path != "/healthz" else slack), path
            if path == KNOWN:
                assert (answer.status, answer.body) == (200, fresh.body)
                assert answer.headers["Cache-Control"] == "no-cache"
                assert answer.headers["Age"].isdecimal()
            else:
                assert answer.status == (200 if path == "/healthz" else 503), path
        assert max(answer.seconds for answer in worker.ask_all([KNOWN] * 200)) < slack
        assert worker.ask("/readyz").status == 503
        account = worker.ask("/?t=any", "POST")
        assert account.seconds < LIMIT + slack
        document = {"type": "error", "status_code": 503, "reason": REASON}
        assert json.loads(account.body) == document
        assert worker.held_connections() <= 1  # of what looks whether it is back
    ended = time.monotonic()
    wait_until(lambda: worker.ask(unknown(1)[0]).status == 404, "the recovery")
    assert time.monotonic() - ended < 5
    again = worker.ask(KNOWN)
    assert (again.status, again.body, "Age" in again.headers) == (200, fresh.body, False)
    wait_until(lambda: worker.held_connections() == 0, "the return of all connections")


@pytest.mark.alone
def test_a_frozen_server_is_told_soon_after_the_limit(
    server: Neighbour, work: Callable[..., Worker]
) -> None:
    """The half second of the documentation is measured on a machine without other work."""
    check_promises(work(server), server.faults["frozen"](), slack=4)


@pytest.mark.parametrize("fault", file_faults(Path()))
def test_commands_tell_of_a_file_that_cannot_be_read_in_one_line(
    tmp_path: Path, fault: str
) -> None:
    file = tmp_path / "outage.sqlite"
    uri = f"sqlite:///{file}"
    fill(uri)
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": uri}
    with file_faults(file)[fault]():
        for command in (["show", "alice@example.com"], ["export"], ["db", "current"]):
            result = attempt(*command, env=env)
            assert (result.returncode, result.stdout) == (1, ""), command
            assert result.stderr.count("\n") == 1, result.stderr
            assert result.stderr.startswith("automx: "), result.stderr


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged at least as a warning, beside refused requests."""
    return [record.message for record in caplog.records if record.name != "automx.views.failure"]


@pytest.mark.parametrize("fault", ["frozen", "refuses"])
def test_the_log_of_changes_is_followed_again_after_an_outage(
    server: Neighbour, work: Callable[..., Worker], fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The outage is noticed and told without any request, once, and the memory is kept."""
    worker = work(server, domain_cache_seconds=3600)
    new = "/v1.1/new.example"
    assert [worker.ask(path).status for path in (KNOWN, new)] == [200, 404]
    caplog.clear()
    with server.faults[fault]():
        wait_until(lambda: bool(messages(caplog)), "the line of the log")
        assert worker.ask(KNOWN).seconds < LIMIT
        assert worker.ask(new).status == 404
        follower = worker.app.extensions[PARTS].follower
        for _ in range(3):
            follower._ask()
    assert [message.partition(":")[0] for message in messages(caplog)] == ["the database is away"]
    wait_until(lambda: len(messages(caplog)) > 1, "the return")
    engine = create_engine(uri_of(server))
    with Session(engine) as session:
        populate(session, SAMPLE | {"provider": "New", "domains": [{"name": "new.example"}]})
        session.commit()
    engine.dispose()
    wait_until(lambda: worker.ask(new).status == 200, "the answer")
    assert messages(caplog)[1:] == ["the database is back"]
    assert all(record.exc_info is None for record in caplog.records)
