"""Health checks for load balancers: the process runs, and the database is ready."""

from flask import Blueprint, Response

from automx.errors import DatabaseError
from automx.migrations import SchemaState, state
from automx.views.http import personal_document
from automx.views.session import current_session

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """Answer 200: the process runs."""
    return _line("ok")


@blueprint.get("/readyz")
def readyz() -> Response:
    """Answer 200 if the database answers and its schema is current, else 503."""
    check_ready()
    return _line("ready")


def check_ready() -> None:
    """Raise DatabaseError if the database does not answer or has another schema."""
    session = current_session()
    found = state(session.connection())
    session.close()  # others need the connection while the answer is made
    if found is not SchemaState.CURRENT:
        raise DatabaseError(cause=found.value)


def _line(text: str) -> Response:
    return personal_document(f"{text}\n", "text/plain; charset=utf-8")
