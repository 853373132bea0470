"""The log of changes: what was changed through automx, so that all workers forget it at once.

An entry names a row by its table and its key. The key of a domain is its name, as A-label in lower
case, or a wildcard; that of any other row is its id. Links of a domain and its being off count as
its row, details and pages of a provider as that of the provider. Entries have numbers without gaps,
in the order of commits.
"""

import logging
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from time import monotonic

from sqlalchemy import Insert, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from automx.cache import ConfigCache
from automx.database import Session, is_closed, is_kept_waiting, is_lost, reason
from automx.database.reading import Reading
from automx.errors import DatabaseError, TurnError
from automx.models import ChangeCount, ChangeLog
from automx.rowmemory import EVERYTHING, RowKey

log = logging.getLogger(__name__)

MOST = 1_000  # entries of one transaction; more are written as one that stands for everything
KEPT = 10_000  # numbers whose entries are kept
UNUSED = 1_000_000  # numbers that are passed over after a backup was restored
SECONDS = 1.0  # from the beginning of one look into the log to that of the next
MISSING_SECONDS = 60.0  # the same, as long as its tables are missing or may not be read

_ONLY_ROW = 1  # the id of the row of change_count


def wait_for_turn(session: Session) -> None:
    """Wait until no other transaction changes rows through automx; others wait until our end.

    Raises TurnError if that takes longer than the session may wait.
    """
    if session.engine.dialect.name == "sqlite":
        # Large changes that do not fit into its memory would lock readers out until the end.
        session.connection().exec_driver_sql("PRAGMA cache_spill = OFF")
    try:
        with _newest_rows(session):
            session.execute(_counting(session.engine.dialect.name, 0))
    except DBAPIError as error:
        if not is_kept_waiting(error):
            raise
        raise TurnError(cause=f"database: {reason(error)}") from error


def write(session: Session, changed: Collection[RowKey]) -> None:
    """Write what a transaction has changed into the log, at its very end; the caller commits."""
    entries = sorted(set(changed) if len(changed) <= MOST else EVERYTHING)
    if not entries:
        return
    with _newest_rows(session):
        session.execute(_counting(session.engine.dialect.name, len(entries)))
        last = last_number(session)
        rows = [
            {"number": number, "table_name": table, "row_key": key}
            for number, (table, key) in enumerate(entries, last - len(entries) + 1)
        ]
        session.execute(ChangeLog.insert(), rows)
        session.execute(ChangeLog.delete().where(ChangeLog.c.number <= last - KEPT))


def begin_anew(session: Session, number: int) -> None:
    """Let all workers forget everything, also those that know another database of this name.

    ``number`` is the last one of a log that was not restored. The next ones are far from it: a
    worker has not read any of them before. The caller commits.
    """
    missing = max(0, number - last_number(session))
    with _newest_rows(session):
        session.execute(_counting(session.engine.dialect.name, missing + UNUSED))
    write(session, EVERYTHING)


def last_number(session: Session) -> int:
    """Return the number of the last entry that was ever written, 0 if there was none."""
    return session.scalar(select(ChangeCount.c.number)) or 0


def read_since(session: Session, number: int) -> tuple[int, frozenset[RowKey]]:
    """Return the last number of the log and what was changed since another number.

    That is EVERYTHING if entries since then are missing, or if ``number`` was never given: the log
    was cut, or the database is another one.
    """
    last = last_number(session)
    if last == number:
        return number, frozenset()
    query = select(ChangeLog).where(ChangeLog.c.number > number).order_by(ChangeLog.c.number)
    rows = session.execute(query).all()
    if not rows or [row.number for row in rows] != [*range(number + 1, rows[-1].number + 1)]:
        return last, EVERYTHING
    return rows[-1].number, frozenset((row.table_name, row.row_key) for row in rows)


def _counting(dialect: str, number: int) -> Insert:
    """Return the statement that adds a number to that of change_count, and makes a missing row."""
    values = {"id": _ONLY_ROW, "number": number}
    counted = {"number": ChangeCount.c.number + number}
    # One statement, since a lock on a row that is missing lets two writers block each other.
    # Dialects are imported here: few workers write, and most databases are of one kind.
    if dialect in {"mysql", "mariadb"}:
        from sqlalchemy.dialects import mysql

        return mysql.insert(ChangeCount).values(values).on_duplicate_key_update(counted)
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment] # has the same
    added = insert(ChangeCount).values(values)
    return added.on_conflict_do_update(index_elements=[ChangeCount.c.id], set_=counted)


@contextmanager
def _newest_rows(session: Session) -> Iterator[None]:
    """Let MariaDB 11.6 and later change rows that others have changed during the transaction.

    By default it refuses (error 1020): each writer that has waited for another one would fail.
    """
    variable = "innodb_snapshot_isolation"
    found = None
    if session.engine.dialect.name in {"mysql", "mariadb"}:
        found = session.execute(text(f"SHOW SESSION VARIABLES LIKE '{variable}'")).first()
    if found is None or found[1] != "ON":
        yield
        return
    session.execute(text(f"SET SESSION {variable} = OFF"))
    try:
        yield
    finally:
        session.execute(text(f"SET SESSION {variable} = ON"))


class Follower:
    """Lets the cache of this process forget what was changed. Safe for threads.

    A thread of its own reads the log once a second, from the database that look-ups read. While it
    is away, the cache is left as it is; afterwards, the log tells what was changed meanwhile. A
    replica that comes back may be behind of the log that was read instead: then all is forgotten.
    """

    def __init__(self, reading: Reading, cache: ConfigCache) -> None:
        self._reading = reading
        self._cache = cache
        self._returns = 0  # of the replica, at the last look
        self._number: int | None = None  # None until the log was read once
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._closed = threading.Event()
        self._has_told = False
        self.read_at: float | None = None  # when the log was last read, in the time of monotonic()

    def follow(self) -> None:
        """Begin to follow the log, unless this process does; called before each look-up."""
        if self._is_following() or not self._starting.acquire(blocking=False):
            return
        try:
            if not self._is_following():  # else another thread was quicker
                pause = self._ask()  # before anything is looked up that may change later
                self._thread = threading.Thread(
                    target=self._run, args=(pause,), name="changes", daemon=True
                )
                self._thread.start()
        finally:
            self._starting.release()

    def close(self) -> None:
        """Stop following. Waits for a read that has begun; it has a deadline."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def _is_following(self) -> bool:
        # A fork leaves the thread behind.
        return self._closed.is_set() or (self._thread is not None and self._thread.is_alive())

    def _run(self, pause: float) -> None:
        began = monotonic()
        while not self._closed.wait(max(0.0, began + pause - monotonic())):
            began, pause = monotonic(), self._ask()

    def _ask(self) -> float:
        """Read what is new in the log and forget it; return the seconds until the next time."""
        returns, session = self._reading.returns, self._reading.session()
        if returns != self._returns:
            self._number, self._returns = None, returns
        try:
            with session:
                number, changed = self._read(session)
        except DatabaseError:  # Turns has logged it
            return SECONDS
        except SQLAlchemyError as error:
            if not (self._has_told or is_lost(error) or (session.turns and session.turns.is_away)):
                self._has_told = True
                log.warning("changes are seen after domain_cache_seconds only: %s", reason(error))
            return MISSING_SECONDS if is_closed(error) else SECONDS
        self._has_told = False
        if changed:
            self._cache.forget(changed)
        self._number = number
        self.read_at = monotonic()
        return SECONDS

    def _read(self, session: Session) -> tuple[int, frozenset[RowKey]]:
        if self._number is None:
            return last_number(session), EVERYTHING
        return read_since(session, self._number)
