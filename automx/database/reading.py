"""Where look-ups are read: the database itself, or a replica of it as long as that answers."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Engine

from automx.database import Session, Spares
from automx.database.outages import is_lost, outage, telling_outages
from automx.database.turns import Turns
from automx.errors import DatabaseError, NoAnswerError

_Read = TypeVar("_Read")


class Reading:
    """Sessions for single queries, each of which sees what others have committed before it.

    ``primary`` makes one of the database itself. A replica has an engine and ``turns`` of its own.
    Safe for threads.
    """

    def __init__(self, primary: Callable[[], Session], replica: Turns | None = None) -> None:
        self.primary = primary
        self._turns = replica
        self._spares = Spares(replica.engine) if replica else None

    @property
    def has_replica(self) -> bool:
        """Whether the settings name a replica."""
        return self._turns is not None

    @property
    def returns(self) -> int:
        """How often the replica has come back; it may be behind of what was read meanwhile."""
        return self._turns.returns if self._turns else 0

    def replica(self) -> Session | None:
        """Return a session of the replica; None if there is none, or if it is away."""
        if self._turns is None or self._turns.is_away:
            return None
        return Session(self._turns.engine, self._turns, self._spares)

    def session(self) -> Session:
        """Return a session of the database from which look-ups read at the moment."""
        return self.replica() or self.primary()

    def read(self, query: Callable[[Session], _Read]) -> _Read:
        """Return what a query gives, which may be run again: on a lost connection, on the primary.

        Raises DatabaseError and what the query raises.
        """
        with telling_outages():
            if (session := self.replica()) is not None:
                try:
                    return _run(query, session)
                except Exception as error:
                    if not self._is_of_replica(error):
                        raise
            try:
                return _run(query, self.primary())
            except Exception as error:
                if not is_lost(error):
                    raise
            # By now, the pool has no other connection that is as old.
            return _run(query, self.primary())

    def _is_of_replica(self, error: Exception) -> bool:
        """Return whether the primary may answer what the replica does not.

        It must not get more questions because the replica is busy.
        """
        if isinstance(error, NoAnswerError):  # also if it has answered others meanwhile
            return True
        if isinstance(error, DatabaseError):
            return self._turns is not None and self._turns.is_away
        return outage(error) is not None


def _run(query: Callable[[Session], _Read], session: Session) -> _Read:
    with session:
        return query(session)


def turns_of_replica(engine: Engine, seconds: float) -> Turns:
    """Return the turns of a replica, whose limit leaves a part of ``seconds`` to the primary."""
    return Turns(engine, seconds / 2, "the read replica", looks_first=False)
