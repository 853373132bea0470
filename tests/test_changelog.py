"""Tests of automx.changelog: what is written, what is read since then, who forgets it and when."""

import contextlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import text

from automx import changelog
from automx.cache import ConfigCache
from automx.changelog import last_number, read_since, write
from automx.database import Session, create_engine
from automx.lookup import find
from automx.rowmemory import EVERYTHING
from automx.seed import populate, purge
from automx.seeddocument import SAMPLE
from automx.views.http import PARTS
from tests.conftest import Execute
from tests.databases import ENGINES, Instance, engine_uri
from tests.processes import PATIENCE, wait_until
from tests.tokenpages import ENDPOINT, SECRET, AddToken

A, B = ("domain", "a.example"), ("server", "7")
NEW = {
    "provider": "New",
    "domains": ["new.example"],
    "servers": [
        {"type": "imap", "name": "imap.new.example"},
        {"type": "smtp", "name": "smtp.new.example"},
    ],
}
AUTOCONFIG = "/mail/config-v1.1.xml?emailaddress=alice@"


@contextlib.contextmanager
def opened(db_uri: str) -> Iterator[Session]:
    engine = create_engine(db_uri)
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.fixture
def uri(any_migrated_uri: str) -> str:
    """The ``db_uri`` of a migrated database without rows, of each engine in turn."""
    return engine_uri(any_migrated_uri)


@pytest.fixture
def session(database: Path) -> Iterator[Session]:
    """A session of the test's SQLite file."""
    with opened(f"sqlite:///{database}") as session:
        yield session


def names(*domains: str) -> frozenset[tuple[str, str]]:
    return frozenset(("domain", name) for name in domains)


def test_what_was_changed_since_a_number_is_read_once(uri: str) -> None:
    with opened(uri) as session:
        assert (last_number(session), read_since(session, 0)) == (0, (0, frozenset()))
        write(session, [])
        write(session, [A, B, A])
        session.commit()
        assert read_since(session, 0) == (2, frozenset({A, B}))
        write(session, [A])
        write(session, [B])
        session.commit()
        assert read_since(session, 2) == (4, frozenset({A, B}))
        assert read_since(session, 3) == (4, frozenset({B}))
        assert read_since(session, 4) == (4, frozenset())
        session.rollback()
        write(session, [A])
        session.rollback()
        assert read_since(session, 4) == (4, frozenset())


def test_a_change_of_very_many_rows_is_one_of_everything(session: Session) -> None:
    changed = names(*(f"{number}.example" for number in range(changelog.MOST + 1)))
    fewer = changed - names("0.example")
    write(session, fewer)
    assert read_since(session, 0) == (changelog.MOST, fewer)
    write(session, changed)
    assert read_since(session, changelog.MOST) == (changelog.MOST + 1, EVERYTHING)


def test_a_log_that_was_cut_stands_for_everything(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changelog, "KEPT", 3)
    for number in range(6):
        write(session, names(f"{number}.example"))
    for known, changed in [
        (0, EVERYTHING),
        (2, EVERYTHING),
        (3, names("3.example", "4.example", "5.example")),
        (5, names("5.example")),
    ]:
        assert read_since(session, known) == (6, changed)


@pytest.mark.parametrize(
    "fault",
    [
        "DELETE FROM change_count; DELETE FROM change_log",  # another database
        "UPDATE change_count SET number = 1; DELETE FROM change_log WHERE number > 1",  # a backup
        "DELETE FROM change_log",
        "DELETE FROM change_log WHERE number = 3; UPDATE change_count SET number = 4",
    ],
)
def test_a_log_that_is_not_the_one_of_before_stands_for_everything(
    session: Session, execute: Execute, fault: str
) -> None:
    write(session, names("1.example", "2.example", "3.example", "4.example"))
    session.commit()
    execute(f"{fault};")
    for known in (2, 9):
        assert read_since(session, known)[1] == EVERYTHING


def test_a_large_change_locks_no_reader_of_sqlite_out(database: Path) -> None:
    engine = create_engine(f"sqlite:///{database}")
    with Session(engine) as session, contextlib.closing(sqlite3.connect(database)) as reader:
        changelog.wait_for_turn(session)
        session.execute(  # 10 MB: more than SQLite keeps in memory
            text(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
                " INSERT INTO provider SELECT i, printf('%090d', i), '' FROM n"
            )
        )
        reader.execute("PRAGMA busy_timeout = 0")
        assert reader.execute("SELECT count(*) FROM provider").fetchone() == (0,)
        session.commit()
        assert reader.execute("SELECT count(*) FROM provider").fetchone() == (100_000,)
    engine.dispose()


def test_seeds_write_what_they_change(session: Session) -> None:
    populate(session, SAMPLE)
    session.commit()
    assert read_since(session, 0) == (3, names("example.com", "example.net", "example.org"))
    purge(session)
    session.commit()
    assert read_since(session, 3) == (4, EVERYTHING)


@pytest.mark.parametrize("engine", [*ENGINES, "newer mariadb"])
def test_numbers_are_in_the_order_of_commits_and_nothing_is_missed(
    request: pytest.FixtureRequest, engine: str
) -> None:
    """The second of two writers waits for the commit of the first, here before any row is there."""
    uri = engine_uri(request.getfixturevalue(f"migrated_{engine.removeprefix('newer ')}"))
    with contextlib.ExitStack() as stack:
        if engine == "newer mariadb":
            instance: Instance = request.getfixturevalue("mariadb_instance")
            instance.sql("SET GLOBAL innodb_snapshot_isolation = ON")  # the default of 11.6
            stack.callback(instance.sql, "SET GLOBAL innodb_snapshot_isolation = OFF")
        write_at_once(uri)


def write_at_once(uri: str) -> None:
    begun, written = threading.Event(), threading.Event()

    def write_second() -> None:
        with opened(uri) as session:
            last_number(session)  # as a transaction that has read before the first one has written
            begun.set()
            assert written.wait(PATIENCE)
            write(session, [B])
            session.commit()

    with opened(uri) as first, opened(uri) as reader:
        second = threading.Thread(target=write_second)
        second.start()
        assert begun.wait(PATIENCE)
        write(first, [A])
        written.set()
        second.join(0.3)
        assert second.is_alive()
        assert read_since(reader, 0) == (0, frozenset())
        reader.rollback()
        first.commit()
        second.join(PATIENCE)
        assert read_since(reader, 0) == (2, frozenset({A, B}))
        assert read_since(reader, 1) == (2, frozenset({B}))


@pytest.mark.usefixtures("example")
def test_tokens_and_accounts_are_no_changes(
    make_app: Callable[..., Flask], add_token: AddToken, session: Session
) -> None:
    add_token()
    answer = make_app(web_endpoint=ENDPOINT).test_client().post(f"/?t={SECRET}")
    assert answer.status_code == 200
    assert last_number(session) == 0


# What is forgotten of what a database says.

ROWS = """
INSERT INTO provider VALUES (1, 'One Ltd.', 'One'), (2, 'Two Ltd.', 'Two');
INSERT INTO ldapserver VALUES (1, 'ldap.example', 636, 1, 'dc=x', '(uid={0})', 'uid', NULL, NULL, NULL);
INSERT INTO domain VALUES
  (1, 'one.example', 1, NULL), (2, 'two.example', 2, 1), (3, '*.wild.example', 2, NULL),
  (4, 'own.wild.example', 1, NULL), (5, 'bad.example', 9, NULL), (6, 'MÜLLER.example', 1, NULL);
INSERT INTO server VALUES
  (1, 10, 'imap.one.example', 993, 'imap', 'SSL', '', 'plain'),
  (2, 10, 'imap.two.example', 993, 'imap', 'SSL', '', 'plain'),
  (3, 10, 'no host name', 993, 'imap', 'SSL', '', 'plain');
INSERT INTO server_domain VALUES (1, 1), (2, 2), (2, 3), (1, 4), (3, 4), (1, 6);
INSERT INTO davserver VALUES (1, 'https://dav.two.example/', 0, 'caldav', 1, 0, NULL);
INSERT INTO davserver_domain VALUES (1, 2);
"""  # noqa: E501 - rows are easier to compare when each stands on one line
MUELLER = "xn--mller-kva.example"
FOUND = (
    "one.example",
    "two.example",
    "a.wild.example",
    "b.a.wild.example",
    "own.wild.example",
    MUELLER,
)
FORGOTTEN = {
    ("domain", "one.example"): {"one.example"},
    ("domain", MUELLER): {MUELLER},
    ("domain", "*.wild.example"): {"a.wild.example", "b.a.wild.example"},
    ("domain", "*.a.wild.example"): {"b.a.wild.example"},
    ("domain", "own.wild.example"): {"own.wild.example"},
    ("domain", "*.example"): {"unknown.example"},
    ("domain", "*"): {"unknown.example"},
    ("domain", "unknown.example"): {"unknown.example"},
    ("domain", "another.example"): set(),
    ("domain", "bad.example"): set(),
    ("provider", "1"): {"one.example", "own.wild.example", MUELLER},
    ("server", "2"): {"two.example", "a.wild.example", "b.a.wild.example"},
    ("server", "3"): {"own.wild.example"},  # which left it out
    ("davserver", "1"): {"two.example"},
    ("ldapserver", "1"): {"two.example"},
    ("davserver", "3"): set(),
    ("*", "*"): {*FOUND, "unknown.example"},
}


@pytest.mark.parametrize("changed", FORGOTTEN, ids="=".join)
@pytest.mark.parametrize("stale_seconds", [0, 60])
def test_only_what_changed_is_forgotten(
    session: Session, execute: Execute, changed: tuple[str, str], stale_seconds: float
) -> None:
    """Domains whose rows are unusable are read again after any change of rows beside a domain."""
    execute(ROWS)
    cache, asked = ConfigCache(3600, stale_seconds=stale_seconds), []

    def look_up(domain: str) -> object:
        asked.append(domain)
        return find(session, domain)

    def ask_all() -> dict[str, object]:
        answers: dict[str, object] = {}
        for domain in (*FOUND, "unknown.example", "bad.example"):
            try:
                answers[domain] = cache.get(domain, look_up)  # type: ignore[arg-type] # counts
            except Exception as error:
                answers[domain] = type(error)
        return answers

    before = ask_all()
    assert ask_all() == before
    assert len(asked) == len(before)
    asked.clear()
    cache.forget([changed])
    after = ask_all()
    is_wide = changed[0] != "domain" or changed[1] in {"*", "*.example", "bad.example"}
    assert set(asked) == FORGOTTEN[changed] | ({"bad.example"} if is_wide else set())
    for domain in FOUND:
        assert (before[domain] is after[domain]) == (domain not in FORGOTTEN[changed])


# Followers.


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let followers look into the log more often."""
    monkeypatch.setattr(changelog, "SECONDS", 0.05)
    monkeypatch.setattr(changelog, "MISSING_SECONDS", 0.1)


@pytest.mark.usefixtures("quick", "example")
def test_a_domain_that_was_asked_before_it_was_added_is_answered_afterwards(
    make_app: Callable[..., Flask], session: Session
) -> None:
    client = make_app(domain_cache_seconds=3600).test_client()
    assert client.get(AUTOCONFIG + "new.example").status_code == 404
    populate(session, NEW)
    session.commit()
    wait_until(lambda: client.get(AUTOCONFIG + "new.example").status_code == 200, "the answer")


@pytest.mark.usefixtures("quick", "example")
def test_a_schema_without_the_log_breaks_no_answer_and_is_told_once(
    make_app: Callable[..., Flask],
    execute: Execute,
    session: Session,
    caplog: pytest.LogCaptureFixture,
) -> None:
    execute("ALTER TABLE change_count RENAME TO c; ALTER TABLE change_log RENAME TO l;")
    app = make_app(domain_cache_seconds=3600)
    client = app.test_client()
    assert client.get(AUTOCONFIG + "example.com").status_code == 200
    execute("UPDATE server SET name = 'new.example.com';")
    follower = app.extensions[PARTS].follower
    for _ in range(3):
        follower._ask()
    assert b"new.example.com" not in client.get(AUTOCONFIG + "example.com").data
    told = "changes are seen after domain_cache_seconds only: no such table: change_count"
    assert [record.message for record in caplog.records] == [told]
    execute("ALTER TABLE c RENAME TO change_count; ALTER TABLE l RENAME TO change_log;")
    wait_until(lambda: b"new.example.com" in client.get(AUTOCONFIG + "example.com").data, "the end")


def test_without_a_memory_no_log_is_followed(make_app: Callable[..., Flask]) -> None:
    assert make_app(domain_cache_seconds=0).extensions[PARTS].follower is None
    in_memory = make_app(domain_cache_seconds=10, db_uri="sqlite:///:memory:")
    assert in_memory.extensions[PARTS].follower is None


# The parent answers before it forks, as a server with preloaded applications may.
FORKING = """
import os, sys, time
from automx import config, create_app
app = create_app(config.make(db_uri=sys.argv[1], domain_cache_seconds=3600, loglevel='ERROR'))
ask = lambda: app.test_client().get("/v1.1/new.example").status_code
assert ask() == 404
pid = os.fork()
assert ask() == 404
print("parent" if pid else "child", flush=True)
end = time.monotonic() + 60
while ask() != 200 and time.monotonic() < end:
    time.sleep(0.2)
answer = ask()
if pid:
    answer = max(answer, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    print("seen" if answer == 200 else answer, flush=True)
sys.exit(answer != 200)
"""


def test_a_process_that_forks_is_followed_on_both_sides_and_ends_at_once(database: Path) -> None:
    """The threads of followers do not keep their processes."""
    uri = f"sqlite:///{database}"
    command = [sys.executable, "-c", FORKING, uri]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        lines = {process.stdout.readline(), process.stdout.readline()}
        assert lines == {"parent\n", "child\n"}
        with opened(uri) as session:
            populate(session, NEW)
            session.commit()
        output, errors = process.communicate(timeout=PATIENCE)
        assert (output, errors, process.returncode) == ("seen\n", "", 0)
