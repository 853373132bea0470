"""Health checks for load balancers: the process runs, and the database is ready."""

from contextlib import suppress

from flask import Blueprint, Response

from automx import replica
from automx.errors import DatabaseError
from automx.migrations import SchemaState, state
from automx.views.http import parts, personal_document
from automx.views.session import current_session

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """Answer 200: the process runs."""
    return _line("ok")


@blueprint.get("/readyz")
def readyz() -> Response:
    """Answer 200 if the database answers and its schema can be used, else 503.

    What is wrong with a replica is told: look-ups do without it.
    """
    check_ready()
    trouble = _trouble_of_replica()
    return _line(f"ready; the read replica: {trouble}" if trouble else "ready")


def check_ready() -> None:
    """Raise DatabaseError if the database does not answer or has no schema, or an older one.

    A newer one can be used: revisions only add to it, and other machines may have got theirs.
    """
    session = current_session()
    found = state(session.connection())
    session.close()  # others need the connection while the answer is made
    if found not in {SchemaState.CURRENT, SchemaState.NEWER}:
        raise DatabaseError(cause=found.value)


def _trouble_of_replica() -> str:
    reading = parts().reading
    if not reading.has_replica:
        return ""
    if (session := reading.replica()) is not None:
        with suppress(DatabaseError):
            return replica.trouble(current_session(), session)
    return "it does not answer"


def _line(text: str) -> Response:
    return personal_document(f"{text}\n", "text/plain; charset=utf-8")
