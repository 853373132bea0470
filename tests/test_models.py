"""What the engines of automx do beyond those of SQLAlchemy."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from automx.database import create_engine, drop_stale_connections

PROVIDERS = sa.text("SELECT count(*) FROM provider")


@pytest.fixture
def engine(database: Path) -> Iterator[sa.Engine]:
    """Return an engine of the test's database that notices a change of its file."""
    engine = create_engine(f"sqlite:///{database}")
    drop_stale_connections(engine)
    yield engine
    engine.dispose()


def connections(engine: sa.Engine) -> list[object]:
    """Return a list that grows with each connection that the engine makes."""
    made: list[object] = []
    sa.event.listen(engine, "connect", lambda connection, _: made.append(connection))
    return made


def count(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(PROVIDERS) or 0)


def insert(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO provider (name, short_name) VALUES ('a', 'a')")
        connection.commit()


def test_a_connection_is_used_again_while_its_file_stays_the_same(engine: sa.Engine) -> None:
    made = connections(engine)

    assert [count(engine) for _ in range(5)] == [0] * 5

    assert len(made) == 1


def test_a_file_that_was_written_or_replaced_gets_a_new_connection(
    engine: sa.Engine, database: Path, empty_database: Path, tmp_path: Path
) -> None:
    made = connections(engine)
    assert count(engine) == 0

    insert(database)
    assert count(engine) == 1

    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(empty_database.read_bytes())
    copy.replace(database)
    assert count(engine) == 0
    assert len(made) == 3


def test_a_file_that_is_gone_is_noticed(engine: sa.Engine, database: Path) -> None:
    assert count(engine) == 0
    database.unlink()

    with pytest.raises(sa.exc.OperationalError, match="unable to open database file"):
        count(engine)


def test_a_new_connection_is_used_although_others_write_in_the_same_moment(
    engine: sa.Engine, database: Path
) -> None:
    made = connections(engine)
    times = iter(range(1, 100))
    sa.event.listen(engine, "connect", lambda _, __: os.utime(database, (next(times),) * 2))

    assert [count(engine) for _ in range(3)] == [0] * 3

    assert len(made) == 3
