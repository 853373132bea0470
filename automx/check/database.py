"""The database and its read replica: whether the one takes changes, and the other follows."""

from collections.abc import Iterator
from time import monotonic, sleep

from automx import replica
from automx.check.finding import Finding, Level
from automx.config import Settings
from automx.database import Session
from automx.errors import DatabaseError

SECONDS = 5.0  # in which a replica has to get what the database had at the beginning
_PAUSE = 0.2


def check_database(session: Session, settings: Settings) -> Iterator[Finding]:
    """Yield what is wrong with the database and its replica. Raises DatabaseError.

    The session is closed while the replica is waited for.
    """
    if session.refuses_to_write():
        text = "the database refuses to write, as a replica does"
        yield Finding("", Level.ERROR, "db_uri", text, "name the primary database by db_uri")
    if not settings.db_read_uri:
        return
    number = replica.number_of(settings.db_uri, SECONDS)
    session.rollback()
    level, text = Level.WARNING, "it does not answer"
    advice = "look at the replica; look-ups read from db_uri meanwhile"
    try:
        seen = _seen(settings.db_read_uri, number)
    except DatabaseError as error:
        text = error.reason
    else:
        if seen > replica.number_of(settings.db_uri, SECONDS):
            level, text = Level.ERROR, "this database has changes that db_uri does not have"
            advice = "name a replica of db_uri"
        elif seen < number:
            text = f"the replica is behind, changes missing after {SECONDS:g} s: {number - seen}"
            advice = "see why it does not follow: clients get old settings meanwhile"
        else:
            return
    yield Finding("", level, "db_read_uri", text, advice)


def _seen(uri: str, number: int) -> int:
    """Return the number of the last change in a replica, as soon as it is high enough."""
    end = monotonic() + SECONDS
    while (seen := replica.number_of(uri, SECONDS)) < number and monotonic() < end:
        sleep(_PAUSE)
    return seen
