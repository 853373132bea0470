"""Which errors are outages, which are conflicts, and what the log says of them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event, exc

from automx.errors import AutomxError, DatabaseError

# A missing table or column: PostgreSQL's SQLSTATE, MariaDB's error number.
_NO_SUCH_TABLE = {"42P01", "42703", 1146, 1054}
# A table that may not be read.
_FORBIDDEN = {"42501", 1142, 1143}
# The limit of a statement, or of its wait for a lock: PostgreSQL, MariaDB, MySQL.
_TOO_LATE = {"57014", "55P03", 1969, 1205, 3024}
# A deadlock or a lost race: PostgreSQL's SQLSTATE, MariaDB's error number, SQLite's text.
_CONFLICTS = {"40001", "40P01", 1020, 1213, "database is locked"}


def outage(error: Exception) -> DatabaseError | None:
    """Return the DatabaseError for what the database is to blame for; None for anything else.

    Its ``cause`` is what the driver said, with neither the password nor the statement.
    """
    if isinstance(error, exc.TimeoutError):
        return DatabaseError(cause=f"database: no free connection: {error}")
    if isinstance(error, exc.PendingRollbackError):  # used after the connection was lost
        return DatabaseError(cause="database: the connection was lost")
    if not isinstance(error, exc.DBAPIError) or not _is_outage(error):
        return None
    text = reason(error)
    is_unmade = "no such table" in text or text == "unable to open database file"
    if is_unmade or _codes(error) & _NO_SUCH_TABLE:
        text += '; was "automx db upgrade" run?'
    return DatabaseError(cause=f"database: {text}")


@contextmanager
def telling_outages() -> Iterator[None]:
    """Raise DatabaseError in the block for what the database is to blame for, see outage()."""
    try:
        yield
    except Exception as error:
        if (found := outage(error)) is not None:
            raise found from error
        raise


def report_unreadable_answers(engine: Engine) -> None:
    """Let an engine raise DatabaseError where its driver fails over what the database has sent.

    Damaged files and other programs at the port of a database give drivers bytes that they do not
    expect: they raise IndexError, UnicodeDecodeError and the like.
    """
    event.listen(engine, "handle_error", _report_unreadable_answer)


def _report_unreadable_answer(context: Any) -> None:
    error = context.original_exception
    if context.sqlalchemy_exception is None and is_of_driver(error):
        # The driver does not know where the next answer begins; a database in memory would end.
        context.is_disconnect = context.dialect.name != "sqlite"
        raise unreadable(error) from error


def is_of_driver(error: BaseException) -> bool:
    """Return whether an error is none of SQLAlchemy's and of automx's."""
    known = exc.SQLAlchemyError | AutomxError
    return isinstance(error, Exception) and not isinstance(error, known)


def unreadable(error: BaseException) -> DatabaseError:
    """Return the DatabaseError for an answer over which a driver fails."""
    text = " ".join(str(error).split())
    return DatabaseError(
        cause=f"database: its answer cannot be read: {type(error).__name__}: {text}"
    )


def is_conflict(error: exc.DBAPIError) -> bool:
    """Return whether a transaction failed only because of another one: it may be run again."""
    return bool(_codes(error) & _CONFLICTS)


def is_lost(error: Exception) -> bool:
    """Return whether the connection of a query was lost, perhaps long before the query."""
    return isinstance(error, exc.DBAPIError) and error.connection_invalidated


def is_closed(error: exc.SQLAlchemyError) -> bool:
    """Return whether a table is missing or may not be read, which only an administrator changes."""
    if not isinstance(error, exc.DBAPIError):
        return False
    return lacks_table(error) or bool(_codes(error) & _FORBIDDEN)


def lacks_table(error: exc.DBAPIError) -> bool:
    """Return whether a table or a column is missing."""
    return bool(_codes(error) & _NO_SUCH_TABLE) or "no such table" in reason(error)


def is_kept_waiting(error: exc.DBAPIError) -> bool:
    """Return whether a statement was broken off because it waited for a lock for too long."""
    return bool(_codes(error) & _TOO_LATE) or "database is locked" in reason(error)


def is_locked(error: BaseException) -> bool:
    """Return whether SQLite waited in vain for the lock of another process."""
    return str(error).startswith("database is locked")


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
    if isinstance(error, exc.InternalError) and not getattr(error.orig, "sqlstate", None):
        return True  # PyMySQL: what came is no packet of MariaDB
    return bool(_codes(error) & _NO_SUCH_TABLE)
