"""Apply by HTTP: the database becomes what the document in a request says."""

from hashlib import sha256
from typing import Any

from flask import Response, request
from werkzeug.exceptions import UnsupportedMediaType

from automx import audit, schema, seeddocument
from automx.api import YAML, schemas
from automx.api.operations import FLAG, JSON, Call, Operation, answer, check_match, etag
from automx.api.rows import commit
from automx.apply import apply
from automx.errors import BadRequestError, SeedError
from automx.views.http import body
from automx.views.session import current_session
from automx.words import Role


def _apply(call: Call) -> Response:
    access, session, query = call.access, current_session(), call.query
    document, digest = _read()
    _check_secrets(document)
    is_dry = query.get("dry_run", False)
    session.allow_large_changes()
    plan = apply(
        session,
        document,
        actor=access.key.actor,
        now=access.now,
        digest=digest,
        origin=query.get("origin"),
        prune=query.get("prune", False),
        dry_run=is_dry,
    )
    found: dict[str, Any] = plan.document()
    tag = etag(found)
    check_match(found)  # else nothing is committed
    if not is_dry:
        commit(session)
    if plan.warnings:
        found["warnings"] = plan.warnings
    return answer(found, headers={"ETag": tag})


def _read() -> tuple[object, str]:
    """Return the document in the body, and its SHA-256. Raises BadRequestError."""
    if request.mimetype not in {JSON, YAML}:
        raise UnsupportedMediaType
    data = body()
    parse = seeddocument.parse
    if request.mimetype == YAML:
        from automx.yamldocument import parse  # few send it
    try:
        return parse(data, "the body"), sha256(data).hexdigest()
    except SeedError as error:
        raise BadRequestError(str(error)) from error


def _check_secrets(document: object) -> None:
    """Raise SeedError for a secret as the API answers it."""
    directories = document.get("ldapservers") if isinstance(document, dict) else None
    for index, value in enumerate(directories if isinstance(directories, list) else ()):
        if isinstance(value, dict) and value.get("bind_password") == audit.MASK:
            raise SeedError(f"ldapservers[{index}].bind_password: expected the secret itself")


OPERATIONS = (
    Operation(
        *("POST", "/apply", Role.ADMIN, "Make the database hold what a document says", _apply),
        {200: schemas.PLAN},
        query={"dry_run": FLAG, "prune": FLAG, "origin": seeddocument.ORIGIN},
        headers={"If-Match": "The ETag that the plan must have."},
        body=schema.of_embedded_document(),
        types=(JSON, YAML),
        errors=(409,),
        unscoped=True,
    ),
)
