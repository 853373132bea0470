"""Poolers of PostgreSQL, such as PgBouncer, that give each transaction another session.

What lasts longer than a transaction would be left to other programs in the same session: a SET, or
a statement that the driver has prepared. Such connections are recognized, and go without.
"""

from contextlib import closing
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.pool import ConnectionPoolEntry

_IS_POOLED = "automx.is_pooled"  # the key in ConnectionPoolEntry.info


def recognize(connection: Any, record: ConnectionPoolEntry) -> bool:
    """Return whether a new connection of a driver leads to a pooler, and let its driver obey.

    The server tells each connection the number of its process, for requests to cancel a statement;
    a pooler tells a number of its own. The connection is in autocommit. Raises the driver's errors.
    """
    process = getattr(getattr(connection, "info", None), "backend_pid", None)
    if process is None:  # no driver of PostgreSQL
        return False
    with closing(connection.cursor()) as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        record.info[_IS_POOLED] = cursor.fetchone()[0] != process
    if record.info[_IS_POOLED] and hasattr(connection, "prepare_threshold"):
        connection.prepare_threshold = None
    return bool(record.info[_IS_POOLED])


def is_pooled(record: ConnectionPoolEntry) -> bool:
    """Return what recognize() has found of a connection."""
    return bool(record.info.get(_IS_POOLED))


def without_limit(engine: Engine) -> None:
    """Let an engine of commands work through a pooler, and without a limit for statements.

    The role may have a ``statement_timeout`` for the sake of the web server.
    """
    if engine.dialect.name == "postgresql":
        event.listen(engine, "connect", _recognize_outside_of_transaction)
        event.listen(engine, "begin", _lift_limit)


def _recognize_outside_of_transaction(connection: Any, record: ConnectionPoolEntry) -> None:
    recognize(connection, record)
    connection.rollback()


def _lift_limit(connection: Connection) -> None:
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
