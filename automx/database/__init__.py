"""The database: engines, sessions and transactions."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import islice
from math import ceil
from time import monotonic
from typing import Any, Self, TypeVar

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
    exc,
)
from sqlalchemy.pool import QueuePool

from automx import deadline
from automx.database import poolers
from automx.database.outages import (
    is_closed,
    is_conflict,
    is_kept_waiting,
    is_lost,
    lacks_table,
    outage,
    reason,
    report_unreadable_answers,
    telling_outages,
)
from automx.database.spares import Spares
from automx.database.sqlitefile import (
    drop_stale_connections,
    name_denied_file,
    read_any_text,
)
from automx.database.turns import CHANGE_SECONDS, PLACES, Turn, Turns
from automx.database.uris import (
    IN_MEMORY,
    driver_errors,
    existing_file_uri,
    file_of,
    file_to_make,
    is_missing,
    read_only_uri,
    require_file,
    url_of,
)
from automx.errors import DatabaseError
from automx.inmemory import is_in_memory

__all__ = [
    "CHANGE_SECONDS",
    "IN_MEMORY",
    "KEYS_AT_ONCE",
    "PLACES",
    "TRIES",
    "Session",
    "Spares",
    "Turns",
    "begin_snapshot",
    "chunks",
    "commit",
    "create_engine",
    "driver_errors",
    "drop_stale_connections",
    "engine_options",
    "existing_file_uri",
    "file_of",
    "file_to_make",
    "is_closed",
    "is_conflict",
    "is_in_memory",
    "is_kept_waiting",
    "is_lost",
    "is_missing",
    "lacks_table",
    "name_denied_file",
    "open_session",
    "outage",
    "read_any_text",
    "read_by_key",
    "read_only_uri",
    "read_page",
    "reading_options",
    "reason",
    "report_unreadable_answers",
    "require_file",
    "savepoint",
    "telling_outages",
    "url_of",
]

_Item = TypeVar("_Item")

_ROWS_AT_ONCE = 2_000  # rows that are read by one query
KEYS_AT_ONCE = 400  # values that a query names: SQLite before 3.32 allows 999 parameters

# How often a transaction runs that fails because of others. On SQLite, each run waits some seconds
# for its turn.
TRIES = 4


def engine_options(db_uri: str, seconds: float | None = None) -> dict[str, Any]:
    """Return the options of ``sqlalchemy.create_engine`` for a database, as a dict.

    With ``seconds``, they are for an engine whose transactions are limited by Turns. Without them,
    no statement is limited; a database that is gone or locked is noticed all the same.
    """
    url = url_of(db_uri)
    wait = 5 if seconds is None else seconds
    options: dict[str, Any] = {"pool_pre_ping": seconds is None}  # Turns looks by itself
    match url.get_backend_name():
        case "sqlite" if is_in_memory(db_uri):
            # Each connection would have a database of its own: threads use the one in turn.
            options = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0}
            return options | {"pool_timeout": wait, "connect_args": {"check_same_thread": False}}
        case "sqlite":
            # A little less than the limit: to wait for the right to write is no outage.
            patience = wait if seconds is None else 0.9 * seconds
            options = {"pool_timeout": wait, "connect_args": {"timeout": patience}}
        case "postgresql":
            # Without the second limit, a server that vanished is waited for for 15 minutes.
            timeouts = {"connect_timeout": ceil(wait), "tcp_user_timeout": 10_000}
            options |= {"pool_timeout": wait, "connect_args": timeouts}
        case "mysql" | "mariadb" if url.get_driver_name() == "pymysql":
            read = 30 if seconds is None else ceil(CHANGE_SECONDS)
            timeouts = {"connect_timeout": ceil(wait), "read_timeout": read, "write_timeout": read}
            options |= {"pool_timeout": wait, "connect_args": timeouts}
        case _:
            options["pool_timeout"] = wait
    if seconds is not None:
        options |= _pool_of(5)
    return options


def _pool_of(idle: int) -> dict[str, int]:
    """Return the options of a pool that keeps so many connections for later.

    It has one more than places: a thread looks whether a database that was away is back.
    """
    return {"pool_size": idle, "max_overflow": PLACES + 1 - idle}


def reading_options(db_uri: str, seconds: float) -> dict[str, Any]:
    """Return the options of an engine for single queries, whose transactions Turns limits.

    They run in autocommit: BEGIN and ROLLBACK would cost a round trip each. No connection is tried
    before it is used: who asks has to ask again once if it is lost. Spares keep them.
    """
    options = engine_options(db_uri, seconds) | _pool_of(1)
    return options | {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True}


class Session:
    """The transactions of a request or a command, one after the other, each on a connection.

    A transaction begins with its first statement. Between two of them, no connection is held: the
    pool checks it again before the next one. The session of SQLAlchemy's ORM does the same, but a
    short command would wait long for its import.

    With ``turns``, each transaction is one of them. Then connection() raises DatabaseError if the
    database is known to be silent, and so does any statement that gets no answer in time.

    With ``spares``, connections are taken from there, which are in autocommit (see
    reading_options()); they are left for others if nothing has failed.
    """

    def __init__(
        self, engine: Engine, turns: Turns | None = None, spares: Spares | None = None
    ) -> None:
        self.engine = engine
        self.turns = turns
        self._spares = spares
        self._connection: Connection | None = None
        self._turn: Turn | None = None
        self._has_large_changes = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_reading(self) -> bool:
        """Whether its connections are in autocommit, for single queries."""
        return self._spares is not None

    def connection(self) -> Connection:
        """Return the connection of this transaction."""
        if self._connection is not None:
            return self._connection
        connect = self.engine.connect if self._spares is None else self._spares.take
        if self.turns is None:
            self._connection = connect()
            return self._connection
        self._turn, self._connection = self.turns.begin(connect)
        if self._has_large_changes:
            self.turns.lengthen(self._turn, self._connection)
        return self._connection

    def allow_large_changes(self) -> None:
        """Let each statement of further transactions take CHANGE_SECONDS, if it has a limit."""
        self._has_large_changes = True

    def execute(
        self, statement: Executable, parameters: Any = None
    ) -> CursorResult[*tuple[Any, ...]]:
        """Run a statement."""
        return self.connection().execute(statement, parameters)

    def rows(self, text: str, parameters: Any) -> Sequence[Sequence[Any]]:
        """Return the rows of a query in the words of the database, with values as its driver's."""
        connection = self.connection()
        if self.is_reading:  # SQLAlchemy takes longer than an answer from memory
            with suppress(Exception), closing(connection.connection.cursor()) as cursor:
                cursor.execute(text, parameters)
                return cursor.fetchall()
            if self._turn and self.turns:
                self.turns.end_patience(self._turn, connection)
        # This also tells errors as they are told for other statements.
        return connection.exec_driver_sql(text, parameters).all()

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
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        turn, self._turn = self._turn, None
        try:
            if turn and turn.is_spoiled and not connection.invalidated:
                connection.invalidate()
            self._release(connection, turn)
        finally:
            if turn and self.turns:
                self.turns.end(turn)

    def _release(self, connection: Connection, turn: Turn | None) -> None:
        if self._spares is None:
            connection.close()
        elif turn and not (turn.has_failed or turn.is_spoiled or connection.invalidated):
            self._spares.leave(connection)
        else:
            connection.close()
            self._spares.close()

    def refuses_to_write(self) -> bool:
        """Return whether the server takes no changes, as a replica does."""
        match self.engine.dialect.name:
            case "postgresql":
                query = "SHOW transaction_read_only"
            case "mysql" | "mariadb":
                query = "SELECT @@read_only"
            case _:
                return False
        return self.connection().exec_driver_sql(query).scalar() in {"on", 1}

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
    name_denied_file(engine)
    report_unreadable_answers(engine)
    poolers.without_limit(engine)
    return engine


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
        with telling_outages(), Session(engine) as session:
            yield session
            session.commit()
    finally:
        engine.dispose()


def begin_snapshot(session: Session) -> None:
    """Let all that this transaction reads be of one moment; call it before the first statement."""
    if session.engine.dialect.name == "sqlite":
        # Its driver begins a transaction only when it writes.
        session.connection().exec_driver_sql("BEGIN")
    else:
        session.connection().execution_options(isolation_level="REPEATABLE READ")


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
    block = connection.begin_nested()
    try:
        yield
    except BaseException:
        # On a full disk, SQLite has undone the whole transaction: the first error says why.
        with suppress(exc.DBAPIError):
            block.rollback()
        raise
    block.commit()


def chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield lists of at most ``size`` items, as many as one statement takes."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def read_by_key(
    session: Session, query: Select[*tuple[Any, ...]], key: ColumnElement[Any]
) -> Iterator[RowMapping]:
    """Yield the rows of a query in the order of ``key``, a unique column of the query.

    Several queries read a part each: a driver may read the whole result of one into memory.
    """
    query = query.order_by(key).limit(_ROWS_AT_ONCE)
    found = session.execute(query).mappings().all()
    while found:
        yield from found
        found = session.execute(query.where(key > found[-1][key.name])).mappings().all()


def read_page(
    session: Session,
    query: Select[*tuple[Any, ...]],
    key: ColumnElement[int],
    after: int,
    number: int,
) -> tuple[Sequence[RowMapping], int | None]:
    """Return ``number`` rows of a query whose ``key`` is higher than ``after``, in its order.

    With them comes the last key, None if no more rows follow.
    """
    query = query.where(key > after).order_by(key).limit(number + 1)
    found = session.execute(query).mappings().all()
    return found[:number], found[number - 1][key.name] if len(found) > number else None


def commit(session: Session, *statements: Executable) -> list[CursorResult[Any]]:
    """Run statements in a transaction of their own, and return their results.

    If one of them finds no row, nothing is changed and the list is empty. A transaction that fails
    because of another one is run again. What the session holds before is committed first, so that
    a rollback undoes these statements only, and so that they see what others have written.
    """
    session.commit()
    tries = 0
    # A transaction of a request that has waited long for a lock is not run again.
    end = deadline.after(session.turns.seconds / 2) if session.turns else float("inf")
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
            if tries == TRIES or not is_conflict(error) or monotonic() > end:
                raise
        else:
            return results
