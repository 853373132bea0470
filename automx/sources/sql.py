"""Domains in a database of another program, which is only read.

The transaction is read-only, and all of it has one time limit, whatever the database or the network
does.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, exc, text
from sqlalchemy.pool import NullPool

from automx.config import SourceSettings
from automx.database import (
    Session,
    Turns,
    driver_errors,
    read_any_text,
    read_only_uri,
    report_unreadable_answers,
)
from automx.database.advice import advised_reason
from automx.errors import AutomxError
from automx.sources import presets
from automx.sources.found import COLUMNS, SourceError

_AT_ONCE = 2_000  # rows that are fetched at once
_MOST = 2_000_000  # rows: a query without its join condition must not fill the memory


def records(source: SourceSettings) -> Iterator[Mapping[str, object]]:
    """Yield the records of the query. Raises SourceError."""
    columns, rows = _rows(source)
    names = [str(name).lower() for name in columns]
    if "domain" not in names:
        raise SourceError(cause=f"the query has no column domain, but {', '.join(names)}")
    for name in names:
        if name not in COLUMNS:
            known = ", ".join(COLUMNS)
            raise SourceError(cause=f"the query has a column {name}; known are {known}")
    return (dict(zip(names, row, strict=True)) for row in rows)


def _rows(source: SourceSettings) -> tuple[Sequence[str], list[Any]]:
    """Return the columns and all rows of the query."""
    try:
        with driver_errors(source.uri):
            engine = sqlalchemy.create_engine(read_only_uri(source.uri), poolclass=NullPool)
    except AutomxError as error:
        raise SourceError(cause=error.reason.replace("db_uri", "uri")) from error
    read_any_text(engine)
    report_unreadable_answers(engine)
    turns = Turns(engine, source.timeout, name="")
    try:
        with closing(turns), Session(engine, turns) as session:
            return _fetch(session.connection(), presets.query(source))
    except exc.SQLAlchemyError as error:
        raise SourceError(cause=f"database: {advised_reason(error)}") from error
    except AutomxError as error:
        raise SourceError(cause=error.reason) from error
    finally:
        engine.dispose()


def _fetch(connection: Connection, query: str) -> tuple[Sequence[str], list[Any]]:
    _only_read(connection)
    # A colon would begin the name of a parameter.
    statement = text(query.replace(":", r"\:"))
    # PyMySQL's cursor that does not read all at once fails noisily when a connection is lost.
    if connection.dialect.name == "postgresql":
        connection = connection.execution_options(stream_results=True)
    rows: list[Any] = []
    with closing(connection.execute(statement)) as result:
        columns = list(result.keys())
        for part in result.partitions(_AT_ONCE):
            rows += part
            if len(rows) > _MOST:
                raise SourceError(cause=f"the query gives more than {_MOST:,} rows")
    return columns, rows


def _only_read(connection: Connection) -> None:
    """Let a connection refuse to write. The file of SQLite is opened for reading only."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA query_only = ON")
    elif connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
    else:  # a statement that ends the transaction, such as DROP, is refused, too
        connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
        connection.exec_driver_sql(f"SET SESSION sql_select_limit = {_MOST + 1}")
