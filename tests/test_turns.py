"""Turns at the database: places, deadlines, locks, large changes; outages are in test_outages."""

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask

from automx.database import (
    PLACES,
    Session,
    Turns,
    commit,
    create_engine,
    engine_options,
    turns,
)
from automx.errors import DatabaseError
from automx.views.session import TURNS, db
from tests.conftest import Execute
from tests.processes import wait_until

# A statement that ends by itself after many minutes.
ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000000000)"
    " SELECT count(*) FROM n"
)


@pytest.fixture
def make_session(database: Path) -> Iterator[Callable[..., Session]]:
    """Make a session on the test's database; each one with the same limit shares its turns."""
    made: dict[float, Turns] = {}
    engines = []

    def make(seconds: float = 30) -> Session:
        if seconds not in made:
            uri = f"sqlite:///{database}"
            engines.append(sa.create_engine(uri, **engine_options(uri, seconds)))
            made[seconds] = Turns(engines[-1], seconds)
        return Session(made[seconds].engine, made[seconds])

    yield make
    for limit in made.values():
        limit.close()
    for engine in engines:
        engine.dispose()


def test_a_statement_is_broken_off_at_its_limit(make_session: Callable[..., Session]) -> None:
    with make_session(0.2) as session, pytest.raises(DatabaseError) as caught:
        session.scalar(sa.text(ENDLESS))
    assert caught.value.cause == "database: no answer within 0.2 s"


def test_the_limit_is_that_of_a_whole_transaction(make_session: Callable[..., Session]) -> None:
    brief = ENDLESS.replace("10000000000", "20000")

    def work(session: Session) -> None:
        while True:
            session.scalar(sa.text(brief))

    with make_session(0.5) as session, pytest.raises(DatabaseError):
        work(session)


def test_a_database_that_is_closed_while_it_is_looked_at_keeps_no_connection(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "PAUSE_SECONDS", 0.0)
    engine = create_engine(f"sqlite:///{database}")
    watched, pool = Turns(engine, 30), engine.pool
    looked = []

    @sa.event.listens_for(engine, "checkout")
    def close(*_: object) -> None:
        looked.append(True)
        watched.close()
        engine.dispose()

    watched._probe()
    assert looked == [True]
    assert isinstance(pool, sa.QueuePool)
    assert pool.checkedin() == 0


def test_a_session_without_turns_has_no_limit(database: Path) -> None:
    engine = create_engine(f"sqlite:///{database}")
    with Session(engine) as session:
        assert session.scalar(sa.text(ENDLESS.replace("10000000000", "3000000"))) == 3_000_000
    engine.dispose()


def test_a_session_that_ended_late_leaves_no_connection_and_no_limit_behind(
    make_session: Callable[..., Session],
) -> None:
    with make_session(0.5) as session, pytest.raises(DatabaseError):
        session.scalar(sa.text(ENDLESS))
    pool = session.engine.pool
    assert isinstance(pool, sa.QueuePool)
    assert pool.checkedout() <= 1  # of the thread that looks whether it is back
    later = make_session(0.5)

    def answers() -> bool:
        with contextlib.suppress(DatabaseError), later:
            return bool(later.scalar(sa.text("SELECT 1")) == 1)
        return False

    wait_until(answers, "the recovery")
    assert pool.checkedout() == 0


def test_more_transactions_than_places_wait_for_each_other(
    make_session: Callable[..., Session],
) -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work(_: int) -> int:
        nonlocal running, most
        with make_session() as session:
            session.connection()
            with lock:
                running += 1
                most = max(most, running)
            found: int = session.scalar(sa.text("SELECT 1"))
            with lock:
                running -= 1
            return found

    make_session()
    with ThreadPoolExecutor(4 * PLACES) as threads:
        assert list(threads.map(work, range(400))) == [1] * 400
    assert most <= PLACES


def test_no_request_waits_for_places_that_do_not_move(make_session: Callable[..., Session]) -> None:
    holders = [make_session() for _ in range(PLACES)]
    for holder in holders:
        holder.connection()
    with pytest.raises(DatabaseError) as caught:
        make_session().connection()
    assert caught.value.cause == "database: too many requests wait for it"
    holders.pop().close()
    with make_session() as session:
        assert session.scalar(sa.text("SELECT 1")) == 1
    for holder in holders:
        holder.close()


def test_one_that_is_stuck_is_no_outage_while_others_are_answered(
    make_session: Callable[..., Session],
) -> None:
    stuck = make_session(1)
    stuck.connection()
    with make_session(1) as session:
        session.scalar(sa.text("SELECT 1"))
    with stuck, pytest.raises(DatabaseError):
        stuck.scalar(sa.text(ENDLESS))
    with make_session(1) as session:  # is not refused
        assert session.scalar(sa.text("SELECT 1")) == 1


def test_a_large_change_has_a_limit_for_each_statement(
    make_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(0.2)
    session.allow_large_changes()
    with session:
        assert session.scalar(sa.text(ENDLESS.replace("10000000000", "3000000"))) == 3_000_000
        time.sleep(0.4)  # it computes
        with make_session(0.2) as other:  # is not refused
            assert other.scalar(sa.text("SELECT 1")) == 1
    monkeypatch.setattr(turns, "CHANGE_SECONDS", 0.4)
    with session, pytest.raises(DatabaseError):
        session.scalar(sa.text(ENDLESS))


@pytest.mark.usefixtures("example")
def test_a_burst_of_requests_for_domains_that_are_not_remembered_succeeds(
    make_app: Callable[..., Flask], execute: Execute
) -> None:
    numbers = range(2, 102)
    execute(
        "".join(
            f"INSERT INTO domain VALUES ({number}, '{number}.example.com', 1, NULL);"
            f"INSERT INTO server_domain SELECT id, {number} FROM server;"
            for number in numbers
        )
    )
    app = make_app()
    paths = [f"/v1.1/{number}.example.com" for number in numbers]
    with ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(lambda path: app.test_client().get(path), paths))
    assert [answer.status_code for answer in answers] == [200] * 100


@pytest.mark.usefixtures("example")
def test_a_document_from_memory_tells_its_age_in_every_protocol(
    make_app: Callable[..., Flask], database: Path
) -> None:
    client = make_app(stale_seconds=60).test_client()
    outlook = (
        '<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/'
        'requestschema/2006"><Request><EMailAddress>alice@example.com</EMailAddress></Request>'
        "</Autodiscover>"
    )
    outlook_json = "/autodiscover/autodiscover.json"
    asked: list[tuple[str, str, dict[str, str], str]] = [
        ("GET", "/v1.1/example.com", {}, ""),
        ("GET", "/mail/config-v1.1.xml?emailaddress=alice@example.com", {}, ""),
        ("POST", "/autodiscover/autodiscover.xml", {"Content-Type": "text/xml"}, outlook),
        ("GET", "/autodiscover/autodiscover.xml?emailaddress=alice@example.com", {}, ""),
        ("GET", f"{outlook_json}/v1.0/a@example.com?protocol=autodiscoverv1", {}, ""),
        ("GET", "/mobileconfig?emailaddress=alice@example.com", {}, ""),
        ("GET", "/mobileconfig.svg?emailaddress=alice@example.com", {"Host": "example.com"}, ""),
        ("GET", "/.well-known/user-agent-configuration.json", {"Host": "example.com"}, ""),
        ("GET", "/.well-known/caldav", {"Host": "example.com"}, ""),
        ("GET", "/?address=alice@example.com", {"Host": "example.com"}, ""),
    ]  # fmt: skip

    def ask_all() -> list[tuple[int, bytes, str, str]]:
        got = []
        for method, path, headers, body in asked:
            answer = client.open(path, method=method, headers=headers, data=body)
            told = answer.headers.get("Cache-Control", ""), answer.headers.get("Age", "")
            got.append((answer.status_code, answer.data, *told))
        return got

    fresh = ask_all()
    assert {age for _, _, _, age in fresh} == {""}
    content = database.read_bytes()
    database.unlink()
    for before, after in zip(fresh, ask_all(), strict=True):
        assert before[0] in {200, 301}
        assert after[:2] == before[:2]
        assert (after[2], after[3].isdecimal()) == (before[2], True)
    unknown = client.get("/v1.1/example.org")
    assert (unknown.status_code, "Age" in unknown.headers) == (503, False)
    database.write_bytes(content)
    assert ask_all() == fresh


@pytest.mark.usefixtures("example")
def test_a_document_from_memory_is_not_kept_by_caches(
    make_app: Callable[..., Flask], database: Path
) -> None:
    client = make_app(domain_cache_seconds=1, stale_seconds=60).test_client()
    fresh = client.get("/v1.1/example.com")
    assert fresh.headers["Cache-Control"] == "public, max-age=1"
    database.unlink()
    wait_until(lambda: "Age" in client.get("/v1.1/example.com").headers, "the end of the cache")
    old = client.get("/v1.1/example.com", headers={"If-None-Match": fresh.headers["ETag"]})
    assert (old.status_code, old.headers["Cache-Control"]) == (304, "no-cache")
    assert int(old.headers["Age"]) >= 1


@pytest.mark.usefixtures("example")
def test_what_initdb_has_changed_is_not_in_the_memory_for_outages(
    make_app: Callable[..., Flask], database: Path
) -> None:
    client = make_app(initdb_token="secret", stale_seconds=60).test_client()
    client.get("/v1.1/example.com")
    headers = {"Authorization": "Bearer secret"}
    assert client.delete("/initdb/", headers=headers).status_code == 200
    database.unlink()
    assert client.get("/v1.1/example.com").status_code == 503


def test_a_transaction_that_has_waited_long_for_a_lock_is_not_run_again(
    make_session: Callable[..., Session], database: Path
) -> None:
    tries = []
    with (
        make_session(4) as session,
        contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other,
    ):
        sa.event.listen(session.engine, "before_cursor_execute", lambda *_: tries.append(1))
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sa.exc.OperationalError, match="database is locked"):
            commit(session, sa.text("UPDATE token SET name = 'b'"))
    assert len(tries) == 1


def test_a_new_account_that_waits_for_a_lock_is_refused_in_time(
    make_app: Callable[..., Flask], database: Path
) -> None:
    app = make_app(db_timeout=0.5)
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        answer = app.test_client().post("/?t=any")
    assert (answer.status_code, json.loads(answer.data)["status_code"]) == (503, 503)
    with app.app_context():
        assert app.extensions[TURNS].engine is db.engine
