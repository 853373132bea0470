"""Health checks for load balancers: the process runs, and the database is ready."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flask import Blueprint, Response, request

from automx import edge
from automx.database import telling_outages
from automx.errors import DatabaseError, ForbiddenError
from automx.moments import iso
from automx.views.http import parts, personal_document
from automx.views.session import current_session

if TYPE_CHECKING:
    from automx.sync.state import Record

blueprint = Blueprint("health", __name__)

_WORDS = {True: "ok", False: "away"}


@blueprint.get("/healthz")
def healthz() -> Response:
    """Answer 200: the process runs."""
    return _line("ok")


@blueprint.get("/readyz")
def readyz() -> Response:
    """Answer 200 if the database answers and its schema can be used, else 503.

    What is wrong with a replica is told: look-ups do without it. With the argument ``details``,
    administrators get them as JSON.
    """
    if "details" in request.args:
        return _details()
    check_ready()
    trouble = _trouble_of_replica()
    return _line(f"ready; the read replica: {trouble}" if trouble else "ready")


def _details() -> Response:
    """Answer what this worker knows of its neighbours. Raises ForbiddenError without the token."""
    from automx.migrations import head

    known = parts()
    authorization = request.headers.get("Authorization", "")
    if not edge.has_token(authorization, known.settings.metrics.token):
        raise ForbiddenError
    now = datetime.now(UTC).replace(microsecond=0)
    document: dict[str, object] = {"ready": False, "database": "away", "schema": None}
    document["schema_expected"] = head()
    with suppress(DatabaseError), telling_outages():
        document |= _of_database(now)
    document["directories"] = {
        str(row_id): _WORDS[is_up] for row_id, is_up in known.directories.are_up().items()
    }
    if known.reading.has_replica:
        document["read_replica"] = _trouble_of_replica() or "ok"
    limits = known.limits
    document["rate_limit_storage"] = _WORDS[not limits.is_away] if limits.is_shared else "memory"
    document["backends"] = known.counts.last_results()
    end = known.signer and known.signer.end()
    document["certificate_days_left"] = None if not end else (end - now).days
    body = json.dumps(document, indent=1) + "\n"
    return personal_document(body, "application/json", status=200 if document["ready"] else 503)


def _of_database(now: datetime) -> dict[str, object]:
    from automx import statistics
    from automx.migrations import applied, state

    session = current_session()
    found = state(session.connection())
    revision = applied(session.connection())
    document: dict[str, object] = {"database": "ok", "schema": revision}
    if found.is_usable:
        read = statistics.read(session, now, {each.name for each in parts().settings.sources})
        changed_at = read.changed_at
        document |= {
            "ready": True,
            "change": read.change,
            "changed_at": iso(changed_at),
            "change_age_seconds": changed_at and int((now - changed_at).total_seconds()),
            "accounts_overdue": read.overdue,
            "sources": {each.name: _source(each) for each in read.sources},
            "prune": None if read.pruned is None else _prune(*read.pruned),
        }
    session.close()
    return document


def _source(found: "Record") -> dict[str, object]:
    keys = ("began_at", "succeeded_at", "outcome", "found", "problems")
    document = found.document()
    return {key: document[key] for key in keys}


def _prune(ended_at: datetime, outcome: str) -> dict[str, object]:
    return {"ended_at": iso(ended_at), "outcome": outcome}


def check_ready() -> None:
    """Raise DatabaseError if the database does not answer or has no schema, or an older one.

    A newer one can be used: other machines may have got their version.
    """
    from automx.migrations import state

    session = current_session()
    found = state(session.connection())
    session.close()  # others need the connection while the answer is made
    if not found.is_usable:
        raise DatabaseError(cause=found.value)


def _trouble_of_replica() -> str:
    reading = parts().reading
    if not reading.has_replica:
        return ""
    from automx import replica

    if (session := reading.replica()) is not None:
        with suppress(DatabaseError):
            return replica.trouble(current_session(), session)
    return "it does not answer"


def _line(text: str) -> Response:
    return personal_document(f"{text}\n", "text/plain; charset=utf-8")
