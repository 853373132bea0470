"""The database: engines, sessions, which errors are outages, and the file of SQLite."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

import sqlalchemy
from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Engine,
    Executable,
    RowMapping,
    ScalarResult,
    Select,
    event,
    exc,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from automx.config.files import fingerprint
from automx.errors import DatabaseError, SettingsError

_Item = TypeVar("_Item")

_ROWS_AT_ONCE = 2_000  # rows that are read by one query

# The database in memory that an engine opens. Flask-SQLAlchemy would let all threads use one
# connection at the same time for a URI that it knows as one in memory.
_MEMORY = "sqlite:///file:/automx?mode=memory&uri=true"
IN_MEMORY = "the database of db_uri is in memory: only the web server has it, until it ends"

# The packages of drivers that have another name.
_PACKAGES = {
    "mariadbconnector": "mariadb",
    "mysqlconnector": "mysql-connector-python",
    "mysqldb": "mysqlclient",
    "psycopg2": "psycopg2-binary",
}

# How often a transaction runs that fails because of others. On SQLite, each run waits some seconds
# for its turn.
TRIES = 4

# A missing table or column: PostgreSQL's SQLSTATE, MariaDB's error number.
_NO_SUCH_TABLE = {"42P01", "42703", 1146, 1054}
# A deadlock or a lost race: PostgreSQL's SQLSTATE, MariaDB's error number, SQLite's text.
_CONFLICTS = {"40001", "40P01", 1020, 1213, "database is locked"}


def engine_options(db_uri: str) -> dict[str, Any]:
    """Return the options of ``sqlalchemy.create_engine`` for a database, as a dict.

    No connection may hang: a database that is gone or locked is noticed within a few seconds.
    """
    url = url_of(db_uri)
    options: dict[str, Any] = {"pool_pre_ping": True}
    match url.get_backend_name():
        case "sqlite" if is_in_memory(db_uri):
            # Each connection would have a database of its own: threads use the one in turn.
            options = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0, "pool_timeout": 5}
            options["connect_args"] = {"check_same_thread": False}
        case "sqlite":
            options = {"connect_args": {"timeout": 5}}
        case "postgresql":
            # Without the second limit, a server that vanished is waited for for 15 minutes.
            timeouts = {"connect_timeout": 5, "tcp_user_timeout": 10_000}
            options |= {"pool_timeout": 5, "connect_args": timeouts}
        case "mysql" | "mariadb" if url.get_driver_name() == "pymysql":
            timeouts = {"connect_timeout": 5, "read_timeout": 30, "write_timeout": 30}
            options |= {"pool_timeout": 5, "connect_args": timeouts}
        case _:
            options["pool_timeout"] = 5
    return options


class Session:
    """The transactions of a request or a command, one after the other, each on a connection.

    A transaction begins with its first statement. Between two of them, no connection is held: the
    pool checks it again before the next one. The session of SQLAlchemy's ORM does the same, but a
    short command would wait long for its import.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connection(self) -> Connection:
        """Return the connection of this transaction."""
        if self._connection is None:
            self._connection = self.engine.connect()
        return self._connection

    def execute(
        self, statement: Executable, parameters: Any = None
    ) -> CursorResult[*tuple[Any, ...]]:
        """Run a statement."""
        return self.connection().execute(statement, parameters)

    def scalars(self, statement: Executable) -> ScalarResult[Any]:
        """Run a query and return the first column of its rows."""
        return self.execute(statement).scalars()

    def scalar(self, statement: Executable) -> Any:
        """Run a query and return the first column of its first row; None if there is no row."""
        return self.execute(statement).scalar()

    def commit(self) -> None:
        """Commit the transaction and release its connection."""
        if self._connection is not None:
            self._connection.commit()
            self.close()

    def rollback(self) -> None:
        """Roll the transaction back and release its connection."""
        self.close()

    def close(self) -> None:
        """Release the connection; what is not committed is rolled back."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def in_transaction(self) -> bool:
        """Return whether a transaction is open."""
        return self._connection is not None


def create_engine(db_uri: str) -> Engine:
    """Return an engine for a database of the settings.

    Raises SettingsError if the URI cannot be understood or its driver is not installed.
    """
    with driver_errors(db_uri):
        engine = sqlalchemy.create_engine(existing_file_uri(db_uri), **engine_options(db_uri))
    read_any_text(engine)
    return engine


@contextmanager
def driver_errors(db_uri: str) -> Iterator[None]:
    """Raise SettingsError if ``db_uri`` names no database, or one whose driver is not installed."""
    try:
        if (port := make_url(db_uri).port) is not None and not 0 < port < 65_536:
            raise SettingsError("db_uri has a port that is not from 1 to 65535")
        yield
    except (TypeError, ValueError) as error:
        raise SettingsError(f"db_uri has an option that its driver refuses: {error}") from error
    except exc.NoSuchModuleError as error:
        raise SettingsError("db_uri names a kind of database that is not known") from error
    except exc.ArgumentError as error:
        raise SettingsError("db_uri is not the URI of a database") from error
    except ImportError as error:
        raise SettingsError(_missing_driver(make_url(db_uri))) from error


def _missing_driver(url: URL) -> str:
    """Return what to do about a driver that cannot be loaded, in one line."""
    kind = url.get_backend_name()
    own = "" if kind == "sqlite" else f"pip install 'automx[{kind.replace('mariadb', 'mysql')}]'"
    driver = url.drivername.partition("+")[2]
    if driver in {"psycopg", "pymysql"}:
        return f"db_uri needs the Python module {driver}: {own}"
    return (
        f"db_uri names the driver {driver}, which cannot be loaded: write {kind}://"
        f"{own and f', whose driver comes with {own}'},"
        f" or pip install {_PACKAGES.get(driver, driver)}"
    )


@contextmanager
def open_session(db_uri: str) -> Iterator[Session]:
    """Open a session outside of a web request: committed at the end, rolled back on an error.

    It may be committed in between as well, as the rules of accounts do. Raises DatabaseError if the
    database does not answer or is in memory, and SettingsError for a bad ``db_uri``.
    """
    if is_in_memory(db_uri):
        raise DatabaseError(cause=IN_MEMORY)
    engine = create_engine(db_uri)
    try:
        with Session(engine) as session:
            yield session
            session.commit()
    except exc.SQLAlchemyError as error:
        if (found := outage(error)) is not None:
            raise found from error
        raise
    finally:
        engine.dispose()


@contextmanager
def savepoint(session: Session) -> Iterator[None]:
    """Undo what is done in the block if it fails, and nothing that was done before.

    Statements that are expected to conflict stand in such a block: the transaction of the caller
    goes on after an error.
    """
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        # Python's sqlite3 begins a transaction only before INSERT, UPDATE and DELETE. Without one,
        # the end of the savepoint would commit. IMMEDIATE waits for other writers now.
        driver = connection.connection.driver_connection
        if driver is not None and not driver.in_transaction:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
    with connection.begin_nested():
        yield


def chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield lists of at most ``size`` items, as many as one statement takes."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def read_by_key(
    session: Session, query: Select[*tuple[Any, ...]], key: ColumnElement[int]
) -> Iterator[RowMapping]:
    """Yield the rows of a query in the order of ``key``, a unique column of the query.

    Several queries read a part each: a driver may read the whole result of one into memory.
    """
    query = query.order_by(key).limit(_ROWS_AT_ONCE)
    found = session.execute(query).mappings().all()
    while found:
        yield from found
        found = session.execute(query.where(key > found[-1][key.name])).mappings().all()


def outage(error: Exception) -> DatabaseError | None:
    """Return the DatabaseError for what the database is to blame for; None for anything else.

    Its ``cause`` is what the driver said, with neither the password nor the statement.
    """
    if isinstance(error, exc.TimeoutError):
        return DatabaseError(cause=f"database: no free connection: {error}")
    if not isinstance(error, exc.DBAPIError) or not _is_outage(error):
        return None
    text = reason(error)
    is_unmade = "no such table" in text or "unable to open" in text
    if is_unmade or _codes(error) & _NO_SUCH_TABLE:
        text += '; was "automx db upgrade" run?'
    return DatabaseError(cause=f"database: {text}")


def is_conflict(error: exc.DBAPIError) -> bool:
    """Return whether a transaction failed only because of another one: it may be run again."""
    return bool(_codes(error) & _CONFLICTS)


def reason(error: exc.SQLAlchemyError) -> str:
    """Return what the database says, in one line, without statement and values."""
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    # sqlite3 shows the value of a column that is not UTF-8: it may be a password.
    return re.sub(r"(Could not decode to UTF-8 column '\w+').*", r"\1", text)


def _codes(error: exc.DBAPIError) -> set[object]:
    return {getattr(error.orig, "sqlstate", None), *getattr(error.orig, "args", ())[:1]}


def _is_outage(error: exc.DBAPIError) -> bool:
    """Return whether the database is gone, locked, damaged or without the program's tables."""
    operational = exc.OperationalError | exc.InterfaceError
    if error.connection_invalidated or isinstance(error, operational):
        return True
    if type(error) is exc.DatabaseError:  # SQLite: "file is not a database"
        return True
    return bool(_codes(error) & _NO_SUCH_TABLE)


def url_of(db_uri: str) -> URL:
    """Return the parts of a database URI; raises SettingsError, which does not show it."""
    try:
        return make_url(db_uri)
    except (exc.ArgumentError, ValueError):  # their text may hold the password
        raise SettingsError("db_uri is not the URI of a database") from None


def is_in_memory(db_uri: str) -> bool:
    """Return whether a database is SQLite's in memory, which ends with its connection."""
    url = url_of(db_uri)
    name = url.database or ":memory:"
    is_uri = name.startswith("file:")
    is_named = is_uri and (":memory:" in name or url.query.get("mode") == "memory")
    return url.get_backend_name() == "sqlite" and (name == ":memory:" or is_named)


def file_of(db_uri: str) -> Path | None:
    """Return the file of a SQLite database, or None if it has none, or one named by a URI."""
    url = url_of(db_uri)
    if url.get_backend_name() != "sqlite" or is_in_memory(db_uri) or not url.database:
        return None
    return None if url.database.startswith("file:") else Path(url.database)


def file_to_make(db_uri: str) -> Path | None:
    """Return the file that SQLite would create if it is missing, or None if there is none."""
    if path := file_of(db_uri):
        return path
    url = url_of(db_uri)
    is_uri = url.get_backend_name() == "sqlite" and "uri" in url.query
    if not is_uri or is_in_memory(db_uri) or url.query.get("mode", "rwc") != "rwc":
        return None
    return Path(unquote(urlsplit(url.database).path))


def require_file(db_uri: str) -> None:
    """Raise DatabaseError if a SQLite file is missing: opening it would create it.

    A database in memory counts as missing.
    """
    if is_in_memory(db_uri):
        raise DatabaseError(cause=IN_MEMORY)
    if (path := file_of(db_uri)) and not path.exists():
        raise DatabaseError(cause=f"there is no database {path}: run automx db upgrade")


def existing_file_uri(db_uri: str) -> str:
    """Return ``db_uri`` so that SQLite opens the file only if it exists.

    SQLite creates a missing file when it is opened; a web server must report it instead. All
    databases in memory have one URI; the URIs of other databases are returned as they are.
    """
    if is_in_memory(db_uri):
        return _MEMORY
    match = re.fullmatch(r"(sqlite(?:\+pysqlite)?):///(/[^?]*)(?:\?(.*))?", db_uri)
    if not match:
        url = url_of(db_uri)
        if (url.database or "").startswith("file:") and file_to_make(db_uri):
            return re.sub(r"(?<=[?&])mode=rwc(?=&|$)", "mode=rw", db_uri) + (
                "" if "mode" in url.query else "&mode=rw"
            )
        return db_uri
    scheme, path, query = match.groups()
    query = f"&{query}" if query else ""
    path = path.replace("%", "%25").replace("#", "%23")
    return f"{scheme}:///file:{path}?mode=rw{query}&uri=true"


def read_any_text(engine: Engine) -> None:
    """Let an engine return texts of SQLite that are not UTF-8 as bytes, which no column may hold.

    By default, such a text makes the whole query fail, and so all rows beside it.
    """
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_text_factory)


def _set_text_factory(connection: Any, _: object) -> None:
    connection.text_factory = _text_or_bytes


def _text_or_bytes(octets: bytes) -> str | bytes:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets


def drop_stale_connections(engine: Engine) -> None:
    """Let an engine notice that its SQLite file was deleted, replaced or damaged.

    A connection that is kept would go on reading a file that is no longer there, or answer from
    its memory of one; so it is exchanged when the file has changed in any way.
    """
    path = unquote((engine.url.database or "").removeprefix("file:"))
    is_file = path.startswith("/") and engine.url.query.get("mode") != "memory"
    if engine.dialect.name != "sqlite" or not is_file:
        return

    @event.listens_for(engine, "connect")
    def remember(_: object, record: ConnectionPoolEntry) -> None:
        record.info["file"] = fingerprint(path)
        record.info["is_new"] = True

    @event.listens_for(engine, "checkout")
    def check(_: object, record: ConnectionPoolEntry, __: object) -> None:
        # Others may have written since a connection was made for this very checkout.
        if not record.info.pop("is_new", False) and record.info["file"] != fingerprint(path):
            raise exc.DisconnectionError


def commit(session: Session, *statements: Executable) -> list[CursorResult[Any]]:
    """Run statements in a transaction of their own, and return their results.

    If one of them finds no row, nothing is changed and the list is empty. A transaction that fails
    because of another one is run again. What the session holds before is committed first, so that
    a rollback undoes these statements only, and so that they see what others have written.
    """
    session.commit()
    tries = 0
    while True:
        tries += 1
        results: list[CursorResult[Any]] = []
        try:
            for statement in statements:
                results.append(session.execute(statement))
                if not results[-1].rowcount:
                    session.rollback()
                    return []
            session.commit()
        except exc.DBAPIError as error:
            session.rollback()
            if tries == TRIES or not is_conflict(error):
                raise
        else:
            return results
