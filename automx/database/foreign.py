"""A database of another program: it is asked one question at a time, and never written to.

All waiting for an answer has one deadline, as ``turns`` explains. The server itself refuses to
write, and ends a statement that takes too long.
"""

import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from threading import Lock
from typing import Any, NamedTuple

import sqlalchemy
from sqlalchemy import Connection, Engine, event, exc, text
from sqlalchemy.pool import ConnectionPoolEntry

from automx.database import Session, engine_options, poolers
from automx.database.advice import advised_reason
from automx.database.outages import report_unreadable_answers
from automx.database.sqlitefile import drop_stale_connections, read_any_text
from automx.database.turns import Turns
from automx.database.uris import driver_errors, read_only_uri
from automx.errors import AutomxError, DatabaseError, UnavailableError

MOST = 100  # rows of an answer: a query without its condition must not fill the memory

_CONNECTIONS = 4
_IDLE_SECONDS = 60  # firewalls forget unused connections silently

# What concerns the server and not the statement: classes of PostgreSQL's SQLSTATE, numbers of
# MariaDB and MySQL (a statement that takes too long, a shutdown, too many connections, locks).
_OF_SERVER_CLASSES = ("08", "40", "53", "55", "57", "58", "XX")
_OF_SERVER = {1040, 1053, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 1226, 1317, 1927, 1969, 3024}
# A text that the column or its collation cannot hold, so that no row can have it.
_NO_SUCH_TEXT = {"22021", "22P05", 1267, 1270, 1271, 1300, 1366, 1977, 3854, 3988}

_PRIVILEGES = """\
SELECT 'superuser' FROM pg_roles WHERE rolname = current_user AND rolsuper
UNION
SELECT privilege_type FROM information_schema.role_table_grants
 WHERE privilege_type NOT IN ('SELECT', 'REFERENCES', 'TRIGGER')
   AND grantee IN (SELECT role_name FROM information_schema.enabled_roles UNION SELECT 'PUBLIC')
   AND table_schema NOT IN ('information_schema', 'pg_catalog')
"""
_ONLY_READ = {"USAGE", "SELECT", "SHOW VIEW", "SHOW DATABASES"}


class QueryError(UnavailableError):
    """The database answers, but refuses the query; the cause says why."""


class Answer(NamedTuple):
    """The names of the columns of an answer, in lower case, and its rows, at most MOST."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]


class ForeignDatabase:
    """A database that is only read. Safe for threads; it is connected to when it is first asked.

    ``seconds`` is how long an answer may take in all. ``name`` is that of the database in the log;
    without it, the log does not have that the database is away.
    """

    def __init__(self, uri: str, seconds: float, name: str = "") -> None:
        self._uri = uri
        self._seconds = seconds
        self._name = name
        self._lock = Lock()
        self._turns: Turns | None = None

    @property
    def is_away(self) -> bool:
        """Whether the database is known to be away; the log has it."""
        return self._turns is not None and self._turns.is_away

    def ask(self, query: str, values: Mapping[str, str]) -> Answer:
        """Return the answer to a query, in which ``:name`` stands for the value of that name.

        Raises QueryError for a query that is refused, DatabaseError if the database does not answer
        in time, and SettingsError if its URI is none.
        """
        turns = self._opened()
        pool = turns.engine.pool
        try:
            with Session(turns.engine, turns) as session:
                return _ask(session.connection(), query, values)
        except exc.DBAPIError as error:
            raise self._error(error, values) from error
        except exc.SQLAlchemyError as error:
            raise DatabaseError(cause=f"database: {advised_reason(error)}") from error
        except DatabaseError as error:
            # A text in a row that is none: the next row may be a good one.
            if isinstance(error.__cause__, UnicodeError):
                raise QueryError(cause=error.cause) from error
            raise
        finally:
            if self._turns is not turns:  # it was closed meanwhile
                pool.dispose()

    def privileges(self) -> list[str]:
        """Return what the account may do there beside reading, as far as it can be seen.

        Raises as ask().
        """
        turns = self._opened()
        dialect = turns.engine.dialect.name
        if dialect == "sqlite":
            return []
        if dialect == "postgresql":
            return sorted(str(row[0]) for row in self.ask(_PRIVILEGES, {}).rows)
        grants = [str(row[0]) for row in self.ask("SHOW GRANTS", {}).rows]
        named = [re.match(r"GRANT (.+?) ON ", grant) for grant in grants]
        # "SELECT (`username`, `name`)" is about columns.
        texts = [re.sub(r" ?\([^)]*\)", "", match[1]) for match in named if match]
        return sorted({word for found in texts for word in found.split(", ")} - _ONLY_READ)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            turns, self._turns = self._turns, None
        if turns is not None:
            turns.close()
            turns.engine.dispose()

    def _opened(self) -> Turns:
        with self._lock:
            if self._turns is None:
                self._turns = Turns(_engine(self._uri, self._seconds), self._seconds, self._name)
                event.listen(self._turns.engine, "connect", _only_read)
            return self._turns

    def _error(self, error: exc.DBAPIError, values: Mapping[str, str]) -> AutomxError:
        cause = f"database: {advised_reason(error)}"
        if self.is_away or error.connection_invalidated or not _is_of_statement(error):
            return DatabaseError(cause=cause)
        is_ascii = all(value.isascii() for value in values.values())
        if not is_ascii and _codes(error) & _NO_SUCH_TEXT:
            return NoSuchTextError(cause=cause)
        return QueryError(cause=cause)


class NoSuchTextError(QueryError):
    """A value has characters that the database cannot hold: no row has it."""


def _engine(uri: str, seconds: float) -> Engine:
    options = engine_options(uri, seconds)
    options |= {"pool_size": _CONNECTIONS, "max_overflow": 2, "pool_recycle": _IDLE_SECONDS}
    with driver_errors(uri):
        url = sqlalchemy.make_url(read_only_uri(uri))
        if url.get_backend_name() == "postgresql":  # else a database in Latin-1 has its own
            options["connect_args"] |= {"client_encoding": "utf8"}
        engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", **options)
    read_any_text(engine)
    drop_stale_connections(engine)
    report_unreadable_answers(engine)
    return engine


def _only_read(connection: Any, record: ConnectionPoolEntry) -> None:
    """Let a connection refuse to write. The file of SQLite is opened for reading only, too."""
    if poolers.is_pooled(record):
        connection.autocommit = False  # a SET would stay with a connection of others
        connection.read_only = True
        return
    if isinstance(connection, sqlite3.Connection):
        statements = ["PRAGMA query_only = ON"]
    elif type(connection).__module__.startswith(("psycopg", "pg8000", "asyncpg")):
        statements = ["SET default_transaction_read_only = on"]
    else:
        statements = ["SET SESSION TRANSACTION READ ONLY", f"SET SESSION sql_select_limit = {MOST}"]
    with closing(connection.cursor()) as cursor:
        for statement in statements:
            cursor.execute(statement)


def _ask(connection: Connection, query: str, values: Mapping[str, str]) -> Answer:
    if connection.dialect.name == "postgresql":  # its driver reads all rows into memory
        query = f"SELECT * FROM (\n{query}\n) AS answer LIMIT {MOST}"  # noqa: S608 - of the settings
    result = connection.execute(text(_escaped(query, values)), values)
    columns = tuple(str(key).lower() for key in result.keys())  # noqa: SIM118 - result is no dict
    return Answer(columns, result.fetchmany(MOST))


def _escaped(query: str, values: Mapping[str, str]) -> str:
    """Return a query in which no other colon begins the name of a parameter."""
    names = "|".join(map(re.escape, values)) or "(?!)"
    pieces = re.split(rf"((?<![:\w\\]):(?:{names})\b)", query)
    pieces[::2] = [piece.replace(":", r"\:") for piece in pieces[::2]]
    return "".join(pieces)


def _is_of_statement(error: exc.DBAPIError) -> bool:
    """Return whether the server has refused a statement, and would do another one."""
    driver = error.orig
    if isinstance(error, exc.DataError):
        return True
    if isinstance(driver, sqlite3.Error):
        code = getattr(driver, "sqlite_errorcode", None)
        return code is None or code == sqlite3.SQLITE_ERROR
    if (state := getattr(driver, "sqlstate", None)) is not None:
        return not str(state).startswith(_OF_SERVER_CLASSES)
    numbers = [code for code in _codes(error) if isinstance(code, int)]
    # Those from 2000 to 2999 are errors of the driver.
    return any(code >= 1000 and code // 1000 != 2 and code not in _OF_SERVER for code in numbers)


def _codes(error: exc.DBAPIError) -> set[object]:
    return {getattr(error.orig, "sqlstate", None), *getattr(error.orig, "args", ())[:1]}
