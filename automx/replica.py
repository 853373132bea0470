"""The read replica of the settings: how far it is behind the database, and what else is wrong."""

from contextlib import suppress

from automx.changelog import last_number
from automx.database import Session, Turns, create_engine, telling_outages
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


def lacks(replica: Session, number: int) -> int | None:
    """Return how many of the changes up to a number a replica does not have.

    None if it does not answer, or has no schema that can be used. Closes the session.
    """
    with suppress(DatabaseError):
        found, seen = _asked(replica)
        return max(0, number - seen) if found.is_usable else None
    return None


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
    with telling_outages(), session:
        found = state(session.connection())
        return found, last_number(session) if found.is_usable else 0
