"""Databases with rows in each table, and what they hold, for tests of backups."""

import contextlib
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Boolean, Column, Integer, LargeBinary, Table, inspect, select

from automx.backup.rows import OF_THE_MOMENT, untyped
from automx.columntypes import Day, UtcDateTime
from automx.database import Session, create_engine
from automx.models import metadata
from tests.commandline import automx
from tests.databases import ENGINES, engine_uri

IDS = (1, 2, 7)
NASTY = "\"'\\%s%%:x{}\t\n\x1b\u2028é😀 "
CHANGES = 41  # the number of the last change
NOT_EQUAL = {*OF_THE_MOMENT, "change_count"}  # tables that a restored database may differ in
TABLES = [table for table in metadata.sorted_tables if table.name not in NOT_EQUAL]
ROWS = len(IDS) * len(TABLES) + 1  # of a backup; 1 is the row of change_count

Row = dict[str, Any]
Dump = dict[str, list[tuple[Any, ...]]]


def environment(uri: str) -> dict[str, str]:
    return {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": uri}


@contextlib.contextmanager
def opened(uri: str) -> Iterator[Session]:
    engine = create_engine(engine_uri(uri))
    with Session(engine) as session:
        yield session
    engine.dispose()


def sample_value(column: Column[Any], index: int) -> Any:
    """Return a value of the column for one of three rows; the last one has NULL if it may."""
    if column.foreign_keys or (column.primary_key and isinstance(column.type, Integer)):
        return IDS[index]
    if column.nullable and index == 2:
        return None
    match column.type:
        case Boolean():
            return bool(index)
        case Integer():
            return (0, 2**31 - 1, -(2**31))[index]
        case UtcDateTime():
            return datetime((2026, 1999, 9999)[index], 12, 31, 23, 59, 59)  # noqa: DTZ001 - UTC
        case Day():
            return date(2026, 11, 30 - index)
        case LargeBinary():
            return (b"", bytes(range(256)), b"\xff\xfe\0")[index]
        case _:
            length = getattr(column.type, "length", None) or 60_000
            return (f"{index}plain", f"{index}{NASTY}", f"{index}" + "x" * length)[index][:length]


def sample_row(table: Table, index: int = 0) -> Row:
    """Return one of three rows of a table, with all columns."""
    if table.name == "change_count":
        return {"id": 1, "number": CHANGES}
    return {column.name: sample_value(column, index) for column in table.columns}


def insert(session: Session, table: str, row: Row) -> None:
    """Insert a row whose values are those of a driver, moments and dates aside."""
    values = dict(row)
    if session.engine.dialect.name == "sqlite":
        for name, value in row.items():
            if isinstance(value, datetime):
                values[name] = value.isoformat(" ", "microseconds")
            elif isinstance(value, date):
                values[name] = value.isoformat()
    session.execute(untyped(table, [*values]).insert(), [values])


def fill(uri: str) -> None:
    """Put three rows into each table that the database has."""
    with opened(uri) as session:
        existing = set(inspect(session.connection()).get_table_names())
        for table in metadata.sorted_tables:
            if table.name in existing:
                for index in range(1 if table.name == "change_count" else len(IDS)):
                    insert(session, table.name, sample_row(table, index))
        session.commit()


def dump(uri: str, *, is_restored: bool = False) -> Dump:
    """Return all rows of all tables that a backup holds, sorted; not the entry of a restoring."""
    with opened(uri) as session:
        found: Dump = {}
        for table in TABLES:
            rows = [tuple(row) for row in session.execute(select(table))]
            found[table.name] = sorted(rows, key=repr)
        if is_restored:
            [entry] = [row for row in found["audit"] if row[3] == "restore"]
            found["audit"].remove(entry)
        return found


def is_without_rows(uri: str) -> bool:
    return not any(dump(uri).values())


@pytest.fixture
def filled(database: Path) -> Path:
    """A SQLite file with rows in each table."""
    fill(f"sqlite:///{database}")
    return database


@pytest.fixture
def backup(filled: Path, tmp_path: Path) -> Path:
    """A backup of a database with rows in each table."""
    path = tmp_path / "automx.backup"
    automx("backup", path, env=environment(f"sqlite:///{filled}"))
    return path


@pytest.fixture
def new(tmp_path: Path) -> str:
    """The ``db_uri`` of a SQLite file that does not exist."""
    return f"sqlite:///{tmp_path}/new/automx.sqlite"


@pytest.fixture(params=ENGINES)
def target(request: pytest.FixtureRequest, new: str) -> str:
    """The ``db_uri`` of a new empty database, of each engine in turn."""
    if request.param == "sqlite":
        return new
    uri: str = request.getfixturevalue(request.param)
    return uri
