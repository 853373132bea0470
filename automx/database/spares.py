"""Connections that a look-up leaves to the next one.

To take a connection out of SQLAlchemy's pool and to give it back takes longer than SQLite's answer.
"""

from collections import deque

from sqlalchemy import Connection, Engine, event, exc

# How many an engine has, beside the one that its pool keeps. Look-ups come in crowds, and to
# connect takes longer than many of them.
_MOST = 7

_CLOSINGS = "automx.closings"  # the key in Connection.info


class Spares:
    """Open connections of an engine in autocommit that no thread uses at the moment.

    The pool of the engine counts them as in use. Safe for threads.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # They take turns, as in the pool: a firewall forgets a connection that is idle for minutes.
        self._spares: deque[Connection] = deque()
        self._closings = 0  # how often all were closed
        event.listen(engine, "engine_disposed", lambda _: self.close())

    def take(self) -> Connection:
        """Return a connection, a new one if there is none. Raises the errors of the driver."""
        while (connection := self._pop()) is not None:
            held = connection.connection
            try:  # the listeners of this event, which the pool calls as well
                self.engine.pool.dispatch.checkout(held.dbapi_connection, held, held)
            except exc.DisconnectionError:
                _end(connection)
            else:
                return connection
        closings = self._closings
        connection = self.engine.connect()
        connection.info[_CLOSINGS] = closings
        return connection

    def leave(self, connection: Connection) -> None:
        """Keep a connection whose queries have succeeded, or give it back to the pool.

        One that was made before another one failed is closed.
        """
        if connection.in_transaction():  # of SQLAlchemy only: it is in autocommit
            connection.rollback()
        if connection.info[_CLOSINGS] != self._closings:
            _end(connection)
        elif len(self._spares) < _MOST:
            self._spares.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close all of them: others are as old as one that has failed."""
        self._closings += 1  # first: what is left after the next line is closed
        while (connection := self._pop()) is not None:
            _end(connection)

    def _pop(self) -> Connection | None:
        try:
            return self._spares.popleft()
        except IndexError:
            return None


def _end(connection: Connection) -> None:
    connection.invalidate()
    connection.close()
