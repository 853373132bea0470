"""Connections that a look-up leaves to the next one: shared, and none that is lost or replaced."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from automx.config import load
from automx.database import (
    Session,
    Spares,
    Turns,
    drop_stale_connections,
    existing_file_uri,
    reading_options,
)
from automx.database.reading import Reading

MakeSession = Callable[[], Session]


@pytest.fixture
def engine(database: Path) -> Iterator[sa.Engine]:
    """An engine for look-ups in the test's file."""
    uri = f"sqlite:///{database}"
    made = sa.create_engine(existing_file_uri(uri), **reading_options(uri, 30))
    drop_stale_connections(made)
    yield made
    made.dispose()


@pytest.fixture
def make_session(engine: sa.Engine) -> Iterator[MakeSession]:
    """Make sessions of look-ups, which share their spares."""
    turns, spares = Turns(engine, 30, looks_first=False), Spares(engine)
    yield lambda: Session(engine, turns, spares)
    turns.close()


def used(session: Session) -> object:
    """Return the connection of the driver that answers a query."""
    assert session.rows("SELECT 1", ()) == [(1,)]
    return session.connection().connection.driver_connection


def in_use(engine: sa.Engine) -> int:
    """Return how many connections are in use for the pool."""
    assert isinstance(engine.pool, QueuePool)
    return engine.pool.checkedout()


def test_look_ups_one_after_the_other_have_one_connection(
    make_session: MakeSession, engine: sa.Engine
) -> None:
    found = set()
    for _ in range(3):
        with make_session() as session:
            found.add(used(session))
    assert len(found) == 1
    assert in_use(engine) == 1


def test_look_ups_at_once_have_one_each_and_leave_some(
    make_session: MakeSession, engine: sa.Engine
) -> None:
    with ExitStack() as stack:
        sessions = [stack.enter_context(make_session()) for _ in range(12)]
        assert len({used(session) for session in sessions}) == 12
    assert in_use(engine) == 7


def test_connections_take_turns_so_that_none_is_idle_for_long(make_session: MakeSession) -> None:
    with make_session() as one, make_session() as other:
        both = {used(one), used(other)}
    found = []
    for _ in range(4):
        with make_session() as session:
            found.append(used(session))
    assert {*found[:2]} == {*found[2:]} == both


def test_a_query_that_fails_leaves_no_connection_that_is_as_old(
    make_session: MakeSession, engine: sa.Engine
) -> None:
    with make_session() as one, make_session() as other:
        old = {used(one), used(other)}
    assert in_use(engine) == 2
    with make_session() as session, pytest.raises(sa.exc.OperationalError):
        session.rows("SELECT missing", ())
    assert in_use(engine) == 0
    with make_session() as session:
        assert used(session) not in old


def test_a_connection_in_use_while_another_one_fails_is_left_to_nobody(
    make_session: MakeSession, engine: sa.Engine
) -> None:
    with make_session() as one:
        old = used(one)
        with make_session() as session, pytest.raises(sa.exc.OperationalError):
            session.rows("SELECT missing", ())
    assert in_use(engine) == 0
    with make_session() as session:
        assert used(session) is not old


def test_a_connection_that_is_lost_without_an_error_of_a_query_leaves_none_either(
    make_session: MakeSession, engine: sa.Engine
) -> None:
    """As where the driver fails over what a server has sent."""
    with make_session() as one, make_session() as other:
        assert used(one) is not used(other)
    with make_session() as session:
        used(session)
        session.connection().invalidate()
    assert in_use(engine) == 0


def test_queries_of_sqlalchemy_leave_their_connections_as_well(
    make_session: MakeSession, engine: sa.Engine
) -> None:
    """It begins a transaction for each of them, which the database does not know."""

    def asked(session: Session) -> object:
        assert session.scalar(sa.text("SELECT 1")) == 1
        return session.connection().connection.driver_connection

    found = set()
    for _ in range(3):
        with ExitStack() as stack:
            found |= {asked(stack.enter_context(make_session())) for _ in range(4)}
        assert in_use(engine) == 4
    assert len(found) == 4
    with make_session() as session:
        assert not session.connection().in_transaction()


def test_no_connection_to_an_earlier_file_is_used(
    make_session: MakeSession, database: Path, tmp_path: Path
) -> None:
    with make_session() as session:
        old = used(session)
    copy = tmp_path / "copy"
    copy.write_bytes(database.read_bytes())
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        connection.execute("CREATE TABLE news (id)")
    copy.rename(database)
    with make_session() as session:
        assert session.rows("SELECT count(*) FROM news", ()) == [(0,)]
        assert used(session) is not old


def test_an_engine_that_is_disposed_of_closes_them(
    make_session: MakeSession, engine: sa.Engine
) -> None:
    with make_session() as session:
        old = used(session)
    engine.dispose()
    assert isinstance(old, sqlite3.Connection)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        old.execute("SELECT 1")
    with make_session() as session:
        assert used(session) is not old


@pytest.mark.parametrize(
    ("server", "end"),
    [
        ("migrated_postgresql", "SELECT pg_terminate_backend({})"),
        ("migrated_mariadb", "KILL CONNECTION {}"),
    ],
)
def test_a_look_up_survives_that_all_connections_are_lost(
    request: pytest.FixtureRequest, server: str, end: str
) -> None:
    """As when the server was restarted, or a firewall has forgotten them."""
    variables = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": request.getfixturevalue(server)}
    uri = load(variables).db_uri
    engine = sa.create_engine(uri, **reading_options(uri, 30))
    turns, spares = Turns(engine, 30, looks_first=False), Spares(engine)
    reading = Reading(lambda: Session(engine, turns, spares))
    number = "SELECT pg_backend_pid()" if "postgresql" in uri else "SELECT CONNECTION_ID()"

    def ask(session: Session) -> int:
        [[found]] = session.rows(number, {} if "postgresql" in uri else ())
        return int(found)

    with ExitStack() as stack:
        sessions = [stack.enter_context(reading.primary()) for _ in range(5)]
        old = {ask(session) for session in sessions}
    assert in_use(engine) == len(old) == 5
    other = sa.create_engine(uri, isolation_level="AUTOCOMMIT")
    with other.connect() as connection:
        for lost in old:
            connection.exec_driver_sql(end.format(lost))
    other.dispose()
    assert reading.read(ask) not in old
    turns.close()
    engine.dispose()
