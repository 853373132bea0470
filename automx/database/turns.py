"""Turns at the database: how many transactions of a worker run at once, and for how long.

Drivers know no limit that holds: a server that is frozen accepts connections and never answers, and
a slow network delivers a byte at a time. So a watchdog breaks off what is over its deadline: it
shuts down the socket, or interrupts SQLite. While a database is away, requests are refused at once,
and a thread looks every second whether it is back.
"""

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from math import ceil
from os import dup
from time import monotonic, sleep
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, event, exc
from sqlalchemy.pool import ConnectionPoolEntry

from automx import deadline
from automx.database import poolers
from automx.database.outages import is_locked, is_of_driver, unreadable
from automx.errors import DatabaseError, NoAnswerError

log = logging.getLogger(__name__)

PLACES = 16  # transactions at once in a process: about half of the threads of a worker
STALL_SECONDS = 0.5  # no request waits for its turn if the others have made no progress for so long
WAIT_SECONDS = 1.0  # nor longer than this
PAUSE_SECONDS = 1.0  # between two looks at a database that is away
CHANGE_SECONDS = 60.0  # limit of each statement of a large change, such as a seed of many domains

_CONNECTING = 2 * PLACES  # attempts to connect that may hang at once, most of them given up
_IDLE_SECONDS = 10.0  # the watchdog ends when it has had nothing to do for so long
_AGAIN_SECONDS = 0.2  # SQLite forgets an interrupt between two statements
_NEVER = float("inf")


class Turn:
    """A transaction of a request; ``break_off`` ends what its connection is waiting for.

    ``deadline`` is until when it may wait for the database, in the time of monotonic().
    """

    def __init__(self, began: float, seconds: float, outer: "Turn | None" = None) -> None:
        self.outer = outer  # another turn of the same thread
        self.began = began
        self.deadline = began + seconds
        self.is_expired = False
        self.has_failed = False
        self.is_away = False  # whether the database did not answer, or could not be reached
        self.is_spoiled = False  # whether the connection cannot be used by another turn
        self.break_off: Callable[[], object] | None = None
        self.sockets: list[socket.socket] = []  # of the connections that were made in this turn


class Turns:
    """The turns of a process at a database. Safe for threads.

    ``seconds`` is how long a transaction may wait for the database in all. Connections of the
    engine that are made outside of a turn have no limit. ``name`` is that of the database in the
    log; without it, the log does not have that the database is away. Without ``looks_first``,
    connections are not tried before they are used.
    """

    def __init__(
        self,
        engine: Engine,
        seconds: float,
        name: str = "the database",
        *,
        looks_first: bool = True,
    ) -> None:
        self.seconds = seconds
        self._name = name
        self.engine = engine
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._is_in_memory = engine.url.query.get("mode") == "memory"
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)  # a place is free
        self._alarm = threading.Condition(self._lock)  # the idle watchdog has something to do
        self._turns: set[Turn] = set()
        self._moved_at = 0.0  # when a turn has last begun, or ended with success
        self._answered_at = 0.0  # when one has last ended with success
        self._is_away = False
        self._is_closed = False
        self._prober: threading.Thread | None = None  # while the database is away
        self._watchdog: threading.Thread | None = None
        self._is_idle = False
        self._connecting = threading.BoundedSemaphore(_CONNECTING)
        self._local = threading.local()
        self.returns = 0  # how often the database was away and came back
        self.watch(engine)
        if looks_first:
            event.listen(engine, "checkout", self._look_if_alive)

    def watch(self, engine: Engine) -> None:
        """Let turns use another engine for the same kind of database as well.

        It looks at no connection before it is used.
        """
        if not self._is_sqlite:
            event.listen(engine, "do_connect", self._connect)
            event.listen(engine, "connect", partial(self._set_up, engine.dialect))
            event.listen(engine, "close", _close_socket)
        event.listen(engine, "checkout", self._check_out)
        event.listen(engine, "handle_error", self._note_error)

    @property
    def is_away(self) -> bool:
        """Whether the database is known to be away; the log has it."""
        return self._is_away

    @property
    def used(self) -> int:
        """How many turns there are at the moment."""
        return len(self._turns)

    def begin(self, connect: Callable[[], Connection]) -> tuple[Turn, Connection]:
        """Begin a turn, and return it with the connection that it gets; the caller ends it.

        Raises DatabaseError if the database does not answer in time or is known to be silent, and
        the errors of the driver.
        """
        turn = self._take_place()
        self._local.turn = turn
        try:
            connection = connect()
        except BaseException as error:
            turn.has_failed = True
            for made in turn.sockets:
                made.close()
            self.end(turn)
            if turn.is_expired and not isinstance(error, DatabaseError):
                raise self._silent() from error
            if is_of_driver(error):
                raise unreadable(error) from error
            raise
        else:
            return turn, connection

    def end(self, turn: Turn) -> None:
        """End a turn, whose connection is closed."""
        self._local.turn = turn.outer
        with self._lock:
            self._turns.discard(turn)
            if not turn.has_failed:
                self._moved_at = self._answered_at = monotonic()
                self._note_answer()
            self._freed.notify()

    def close(self) -> None:
        """Look no more whether the database is back."""
        self._is_closed = True

    def lengthen(self, turn: Turn, connection: Connection) -> None:
        """Let each statement of a turn take CHANGE_SECONDS, from now on."""
        statement = _limit_statement(connection.dialect, CHANGE_SECONDS)
        if connection.dialect.name == "postgresql" and statement:
            # Behind a pooler, the limit would stay with a connection of others.
            connection.exec_driver_sql(statement.replace("SET", "SET LOCAL", 1))
        elif statement and not self._is_in_memory:
            turn.is_spoiled = True
            connection.exec_driver_sql(statement)
        turn.deadline = _NEVER

        def start(*_: object) -> None:
            turn.deadline = deadline.after(CHANGE_SECONDS)

        def stop(*_: object) -> None:
            turn.deadline = _NEVER

        event.listen(connection, "before_cursor_execute", start)
        event.listen(connection, "after_cursor_execute", stop)
        event.listen(connection, "commit", start)

    def end_patience(self, turn: Turn, connection: Connection) -> None:
        """Let a turn whose statement has failed wait no more for others that use a SQLite file.

        Raises DatabaseError if the time of the turn is over.
        """
        if turn.is_expired:
            raise self._silent()
        if self._is_sqlite:
            turn.is_spoiled = True
            with contextlib.closing(connection.connection.cursor()) as cursor:
                cursor.execute("PRAGMA busy_timeout = 0")

    def _take_place(self) -> Turn:
        now = began = monotonic()
        with self._lock:
            self._refuse_if_away()
            while len(self._turns) >= PLACES:
                if now - self._moved_at > STALL_SECONDS or now - began > WAIT_SECONDS:
                    raise DatabaseError(cause="database: too many requests wait for it")
                self._freed.wait(STALL_SECONDS / 4)
                now = monotonic()
                self._refuse_if_away()
            turn = Turn(began, self.seconds, self._turn())
            self._turns.add(turn)
            self._moved_at = now
            self._wake_watchdog()
        return turn

    def _refuse_if_away(self) -> None:
        if self._is_away:
            self._wake_prober()
            error = DatabaseError(cause="database: it did not answer a moment ago")
            error.is_logged = True
            raise error

    def _silent(self) -> NoAnswerError:
        return NoAnswerError(cause=f"database: no answer within {self.seconds:g} s")

    # Outages; the caller holds the lock

    def _mark_away(self, turn: Turn, cause: str) -> None:
        turn.is_away = turn.has_failed = True
        if self._answered_at > turn.began:  # it is the turn that is stuck, not the database
            return
        if not self._is_away:
            self._is_away = True
            if self._name:
                log.error("%s is away: %s", self._name, cause)
        self._wake_prober()

    def _note_answer(self) -> None:
        if self._is_away:
            self.returns += 1  # first: who sees the next line sees this
            self._is_away = False
            if self._name:
                log.warning("%s is back", self._name)

    def _wake_prober(self) -> None:
        if self._prober is None or not self._prober.is_alive():  # a fork leaves it behind
            self._prober = threading.Thread(target=self._probe, name="database-probe", daemon=True)
            self._prober.start()

    def _probe(self) -> None:
        while not self._is_closed:
            sleep(PAUSE_SECONDS)
            if self._is_closed:
                return
            turn = Turn(monotonic(), self.seconds)
            with self._lock:
                self._turns.add(turn)
                self._wake_watchdog()
            self._local.turn = turn
            pool = self.engine.pool  # dispose() puts a new pool in its place
            is_answered = self._is_sqlite  # also by an error, unless the file is locked
            with contextlib.suppress(Exception), self.engine.connect() as connection:
                # To connect proves nothing: the file is not read, a pooler has no server.
                query = "SELECT count(*) FROM sqlite_master" if self._is_sqlite else "SELECT 1"
                connection.exec_driver_sql(query)
                is_answered = True
            if not is_answered:
                for made in turn.sockets:
                    made.close()
            if self._is_closed:  # meanwhile
                pool.dispose()
                self.engine.dispose()
            with self._lock:
                self._turns.discard(turn)
                if turn.is_away or not is_answered:
                    continue
                self._note_answer()
                self._prober = None
                return

    # The watchdog

    def _wake_watchdog(self) -> None:
        if self._watchdog is None or not self._watchdog.is_alive():  # a fork leaves it behind
            self._watchdog = threading.Thread(target=self._watch, name="database", daemon=True)
            self._watchdog.start()
        elif self._is_idle:
            self._alarm.notify()
        self._is_idle = False

    def _watch(self) -> None:
        with self._lock:
            while True:
                if not self._turns:
                    self._is_idle = True
                    if not self._alarm.wait(_IDLE_SECONDS) and self._is_idle:
                        break
                    continue
                now = monotonic()
                for turn in self._turns:
                    if turn.deadline <= now:
                        self._expire(turn, now)
                # A turn that begins meanwhile ends later than this.
                next_at = min(*(turn.deadline for turn in self._turns), now + self.seconds)
                self._alarm.wait(next_at - now)
            self._is_idle = False
            self._watchdog = None

    def _expire(self, turn: Turn, now: float) -> None:
        if not turn.is_expired:
            turn.is_expired = True
            turn.is_spoiled = not self._is_sqlite
            self._mark_away(turn, f"no answer within {self.seconds:g} s")
        turn.deadline = now + _AGAIN_SECONDS
        if turn.break_off is not None:
            with contextlib.suppress(Exception):  # the connection is closed already
                turn.break_off()

    # Events of the engine

    def _turn(self) -> Turn | None:
        """Return the turn of this thread that is not ended, None if there is none."""
        turn: Turn | None = getattr(self._local, "turn", None)
        return turn if turn in self._turns else None

    def _connect(
        self, dialect: Dialect, record: ConnectionPoolEntry, args: list[Any], values: dict[str, Any]
    ) -> Any:
        """Connect in a thread of its own: a host name may have any number of addresses."""
        turn = self._turn()
        if turn is None:
            return None
        made: Future[Any] = Future()
        if turn.is_expired or not self._connecting.acquire(blocking=False):
            raise self._silent()
        work = partial(self._fulfil, made, partial(dialect.connect, *args, **values))
        threading.Thread(target=work, name="database-connect", daemon=True).start()
        try:
            connection = made.result(deadline.left(turn.deadline))
        except BaseException as error:
            with self._lock:
                self._mark_away(turn, " ".join(str(error).split()) or "it cannot be reached")
            if made.done() and not isinstance(error, TimeoutError):
                raise
            made.add_done_callback(_close_late)
            raise self._silent() from None
        if (number := _descriptor(connection)) is not None:
            # A descriptor of its own is valid as long as the connection is in the pool.
            copy = socket.socket(fileno=dup(number))
            turn.sockets.append(copy)
            turn.break_off = partial(copy.shutdown, socket.SHUT_RDWR)
            record.info["socket"] = copy
        return connection

    def _fulfil(self, made: "Future[Any]", connect: Callable[[], Any]) -> None:
        try:
            made.set_result(connect())
        except BaseException as error:
            made.set_exception(error)
        finally:
            self._connecting.release()

    def _set_up(self, dialect: Dialect, connection: Any, record: ConnectionPoolEntry) -> None:
        """Let the server itself break off a statement: it would work on after it is given up.

        Behind a pooler, the role has such a limit. A pooler accepts connections also while its
        server is away: that is noticed here.
        """
        record.info["is_checked"] = True
        has_transactions = getattr(connection, "autocommit", None) is False
        if has_transactions:
            connection.autocommit = True
        try:
            # A little earlier than the watchdog, which takes the database for silent.
            statement = _limit_statement(dialect, 0.9 * self.seconds)
            if statement and not poolers.recognize(connection, record):
                with contextlib.closing(connection.cursor()) as cursor:
                    cursor.execute(statement)
        except Exception as error:
            _close_socket(connection, record)
            if (turn := self._turn()) is not None:
                with self._lock:
                    self._mark_away(turn, " ".join(str(error).split()))
            raise
        if has_transactions:
            connection.autocommit = False

    def _check_out(self, connection: Any, record: ConnectionPoolEntry, _: object) -> None:
        """Watch a connection of the pool."""
        turn = self._turn()
        if self._is_sqlite:
            if turn is not None:
                turn.break_off = connection.interrupt
            return
        if turn is not None and (copy := record.info.get("socket")) is not None:
            turn.break_off = partial(copy.shutdown, socket.SHUT_RDWR)

    def _look_if_alive(self, connection: Any, record: ConnectionPoolEntry, _: object) -> None:
        if self._is_sqlite or record.info.pop("is_checked", False):
            return
        turn = self._turn()
        try:
            self.engine.dialect.do_ping(connection)
        except Exception as error:
            if turn is not None and turn.is_expired:
                raise self._silent() from error
            raise exc.InvalidatePoolError from error

    def _note_error(self, context: Any) -> None:
        turn = self._turn()
        if turn is None:
            return
        turn.has_failed = True
        if turn.is_expired:
            context.is_disconnect = not self._is_sqlite
            raise self._silent() from context.original_exception
        is_read = (context.statement or "").lstrip()[:6].upper() in {"SELECT", "PRAGMA"}
        if self._is_sqlite and is_read and is_locked(context.original_exception):
            with self._lock:
                self._mark_away(turn, "it is locked")


def _close_late(made: "Future[Any]") -> None:
    """Close a connection that was made after the request had given up."""
    with contextlib.suppress(Exception):
        made.result().close()


def _close_socket(_: object, record: ConnectionPoolEntry) -> None:
    if (copy := record.info.pop("socket", None)) is not None:
        copy.close()


def _descriptor(connection: Any) -> int | None:
    """Return the number of the socket of a connection, None if the driver does not tell it."""
    source = connection if hasattr(connection, "fileno") else getattr(connection, "_sock", None)
    return None if source is None else int(source.fileno())


def _limit_statement(dialect: Dialect, seconds: float) -> str | None:
    """Return the statement that limits each statement of a connection; None if there is none."""
    thousandths = ceil(seconds * 1000)
    if dialect.name == "postgresql":
        return f"SET statement_timeout = {thousandths}"
    if getattr(dialect, "is_mariadb", False):
        return f"SET SESSION max_statement_time = {seconds:.3f}"
    if dialect.name == "mysql":  # limits SELECT only; other statements can wait for locks
        locks = f"SESSION innodb_lock_wait_timeout = {ceil(seconds)}"
        return f"SET SESSION max_execution_time = {thousandths}, {locks}"
    return f"PRAGMA busy_timeout = {thousandths}" if dialect.name == "sqlite" else None
