"""The read replica of the settings: how far it is behind the database, and what else is wrong."""

from automx.changelog import last_number
from automx.database import Session, Turns, create_engine, outage
from automx.errors import DatabaseError
from automx.migrations import SchemaState, state

_SCHEMAS = {
    SchemaState.MISSING: "it holds no automx schema",
    SchemaState.OLDER: "its schema is older than this automx",
}


def trouble(primary: Session, replica: Session) -> str:
    """Return why look-ups from a replica may give something else than the database; "" if not.

    Both sessions are closed, whose connection is free for others before the replica is asked.
    Raises DatabaseError if one of them does not answer.
    """
    number = _asked(primary)[1]
    found, seen = _asked(replica)
    if (text := _SCHEMAS.get(found)) is not None:
        return text
    return f"it is behind, changes missing: {number - seen}" if seen < number else ""


def number_of(db_uri: str, seconds: float) -> int:
    """Return the number of the last change in a database; raises DatabaseError after so long."""
    engine = create_engine(db_uri)
    turns = Turns(engine, seconds, "")  # an error tells it
    try:
        return _asked(Session(engine, turns))[1]
    finally:
        turns.close()
        engine.dispose()


def _asked(session: Session) -> tuple[SchemaState, int]:
    """Return the schema of a database, and the number of its last change, 0 without a schema."""
    try:
        with session:
            found = state(session.connection())
            is_readable = found in {SchemaState.CURRENT, SchemaState.NEWER}
            return found, last_number(session) if is_readable else 0
    except Exception as error:
        if not isinstance(error, DatabaseError) and (lost := outage(error)) is not None:
            raise lost from error
        raise
