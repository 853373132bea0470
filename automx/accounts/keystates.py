"""What all processes know of the keys of backends: the table ``backend_key``."""

from collections.abc import Callable

from sqlalchemy import and_, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from automx.backends.keys import KeyState, KeyStatus
from automx.columntypes import second_of
from automx.database import Session, commit
from automx.models import BackendKey


class KeyStates:
    """A KeyMemory in the database. ``open_session`` returns a new session."""

    def __init__(self, open_session: Callable[[], Session]) -> None:
        self._open_session = open_session

    def read(self, digest: str) -> KeyStatus | None:
        """Return the status of a key; None if nothing is known."""
        columns = BackendKey.c.state, BackendKey.c.changed_at
        query = select(*columns).where(BackendKey.c.digest == digest)
        with self._open_session() as session:
            row = session.execute(query).one_or_none()
        return None if row is None else KeyStatus(KeyState(row.state), row.changed_at)

    def replace(self, digest: str, before: KeyStatus | None, after: KeyStatus | None) -> bool:
        """Change the status of a key; False, and no change, if it is not ``before`` any more."""
        with self._open_session() as session:
            if before is None:
                return after is None or self._insert(session, digest, after)
            is_unchanged = and_(
                BackendKey.c.digest == digest,
                BackendKey.c.state == before.state,
                second_of(BackendKey.c.changed_at) == second_of(before.changed_at),
            )
            if after is None:
                return bool(commit(session, delete(BackendKey).where(is_unchanged)))
            values = {"state": after.state, "changed_at": after.changed_at}
            return bool(commit(session, update(BackendKey).where(is_unchanged).values(values)))

    def _insert(self, session: Session, digest: str, status: KeyStatus) -> bool:
        values = {"digest": digest, "state": status.state, "changed_at": status.changed_at}
        try:
            commit(session, insert(BackendKey).values(values))
        except IntegrityError:  # another process was quicker
            return False
        return True
