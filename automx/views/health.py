"""Health checks for load balancers: the process runs, and the database is ready."""

from flask import Blueprint, Response

from automx.errors import DatabaseError
from automx.migrations import SchemaState, state
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
    found = state(current_session().connection())
    if found is not SchemaState.CURRENT:
        raise DatabaseError(cause=found.value)


def _line(text: str) -> Response:
    return Response(
        f"{text}\n", content_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-store"}
    )
