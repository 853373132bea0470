"""Tokens by HTTP. A key with a scope has those of its domains.

Secrets are answered to those who may change tokens.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flask import Response

from automx import changelog, kinds, schema
from automx.accountcolumns import TOKEN, TOKEN_DEFAULTS
from automx.accounts import fit, tokens
from automx.accounts.tokens import Token
from automx.api import schemas
from automx.api.access import Access
from automx.api.operations import (
    MOMENT,
    PAGE,
    PAGING,
    Call,
    NothingHereError,
    Operation,
    answer,
    answer_nothing,
    answer_page,
    check_match,
    check_members,
    etag,
    location,
    read_body,
    read_end,
)
from automx.apikeys import PERMISSIONS
from automx.database import Session
from automx.errors import (
    BadRecordError,
    BadRequestError,
    DisabledDomainError,
    SeedError,
    UnfitAddressError,
    UnknownDomainError,
    UnknownTokenError,
)
from automx.kinds import BadValueError, Kind
from automx.views.http import parts
from automx.views.session import current_session
from automx.words import Role

log = logging.getLogger(__name__)

_FIELDS: dict[str, Kind] = {
    **{name: TOKEN[name] for name in ("prefix", "expiry", "maxuse", "backend", "spare_active")},
    "valid_until": kinds.or_null(MOMENT),
}
_NEW = {name: TOKEN[name] for name in ("name", "domain", "address")} | _FIELDS
_CHANGED = {**_FIELDS, "revoked": kinds.BOOLEAN}


def sees(access: Access, session: Session, domain: str) -> bool:
    """Return whether a key sees the tokens of a domain, given as A-label."""
    return access.scope is None or domain in access.scope.own_names(session, [domain])


@contextmanager
def hidden_if_bad(access: Access) -> Iterator[None]:
    """Let a key with a scope not see a bad row: whose it is may not be known."""
    try:
        yield
    except BadRecordError:
        if access.scope is None:
            raise
        raise NothingHereError from None


def get(access: Access, session: Session, name: str) -> Token:
    """Return the token of a name. Raises NothingHereError."""
    try:
        with hidden_if_bad(access):
            found = tokens.get(session, str(TOKEN["name"].read(name)))
    except (BadValueError, UnknownTokenError):
        raise NothingHereError from None
    if not sees(access, session, found.domain):
        raise NothingHereError
    return found


def _document(token: Token, access: Access | None = None) -> dict[str, Any]:
    """Return a token; with its secret for those who may change it."""
    found = token.document(parts().settings.web_endpoint)
    if access is None or Role.ADMIN not in PERMISSIONS[access.key.role]:
        del found["token"], found["dcaccount"]
    return found


def _answer(token: Token, access: Access, status: int = 200, **headers: str) -> Response:
    found = _document(token, access)
    return answer(found, status, {"ETag": etag(found)} | headers)


def _list(call: Call) -> Response:
    session, scope = current_session(), call.access.scope
    found, last = tokens.page(
        session,
        [] if scope is None else [scope.own_tokens(session)],
        call.query.get("cursor", 0),
        call.query.get("limit", PAGE),
    )
    return answer_page([_document(token) for token in found], last)


def _get(call: Call) -> Response:
    return _answer(get(call.access, current_session(), call.path["name"]), call.access)


def _columns(access: Access, value: dict[str, Any], wanted: dict[str, Kind]) -> dict[str, Any]:
    """Return checked columns of a token; null gives the default. Raises WrongMembersError."""
    check_members(value, wanted)
    found = dict(value)
    if "valid_until" in found:
        found["valid_until"] = read_end(value, "valid_until", access.now)
    if "revoked" in found:
        found["is_revoked"] = found.pop("revoked")
    for name, item in found.items():
        if item is None:
            found[name] = TOKEN_DEFAULTS[name]
    return found


@contextmanager
def _naming_member(columns: Mapping[str, object]) -> Iterator[None]:
    """Raise SeedError for columns of which the mail server allows no address."""
    try:
        yield
    except UnfitAddressError as error:
        log.warning("%s", error.reason)  # it may be that of a program, which is for the log
        given = (name for name in ("address", "prefix", "backend") if columns.get(name) is not None)
        member = next(given, "prefix")
        raise SeedError(f"{member}: the mail server does not allow such an address") from error


def _add(call: Call) -> Response:
    access, session = call.access, current_session()
    body = {name: item for name, item in read_body().items() if item is not None}
    columns = _columns(access, body, _NEW)
    for name in ("name", "domain"):
        if name not in columns:
            raise SeedError(f"{name}: expected {_NEW[name].expected}")
    name, domain = str(columns.pop("name")), kinds.A_LABEL.read(columns.pop("domain"))
    unknown = SeedError("domain: expected a domain that is served")
    if not sees(access, session, domain):
        raise unknown
    session.rollback()  # the backend may take long
    with _naming_member(columns):
        fit.check_new(parts().backends, domain, columns)
    try:
        token = tokens.add(session, name, domain, now=access.now, actor=access.key.actor, **columns)
    except (UnknownDomainError, DisabledDomainError):
        raise unknown from None
    except BadRequestError as error:
        raise SeedError(f"{error}") from error
    session.commit()
    return _answer(token, access, 201, Location=location("tokens", token.name))


def _to_change(call: Call) -> Token:
    """Return the token in the path, if it is that of If-Match; no other request changes it now."""
    session = current_session()
    changelog.wait_for_turn(session)
    token = get(call.access, session, call.path["name"])
    check_match(_document(token, call.access))
    return token


def _change(call: Call) -> Response:
    access, session = call.access, current_session()
    columns = _columns(access, read_body(patch=True), _CHANGED)
    token = get(access, session, call.path["name"])
    session.rollback()  # the backend may take long
    with _naming_member(columns):
        fit.check_changed(parts().backends, token, columns)
    token = _to_change(call)
    try:
        token = tokens.edit(session, token.name, columns, actor=access.key.actor, now=access.now)
    except BadRequestError as error:
        raise SeedError(f"{error}") from error
    session.commit()
    return _answer(token, access)


def _delete(call: Call) -> Response:
    session = current_session()
    token = _to_change(call)
    tokens.remove(session, token.name, actor=call.access.key.actor, now=call.access.now)
    session.commit()
    return answer_nothing()


_ONE = "/tokens/{name}"
_MATCH = {"If-Match": "The ETag that the token must have."}

OPERATIONS = (
    Operation(
        *("GET", "/tokens", Role.READ, "List tokens", _list),
        {200: schemas.page(schemas.TOKEN)},
        query=PAGING,
        also=Role.ACCOUNTS,
    ),
    Operation(
        *("GET", _ONE, Role.READ, "Read a token", _get, {200: schemas.TOKEN}),
        errors=(404, 409),
        also=Role.ACCOUNTS,
    ),
    Operation(
        *("POST", "/tokens", Role.ADMIN, "Add a token", _add, {201: schemas.TOKEN}),
        body=schemas.with_null(schema.of_members(_NEW, ("name", "domain"))),
        errors=(409,),
    ),
    Operation(
        *("PATCH", _ONE, Role.ADMIN, "Change members of a token", _change, {200: schemas.TOKEN}),
        headers=_MATCH,
        body=schemas.with_null(schema.of_members(_CHANGED)),
        errors=(404, 409),
    ),
    Operation(
        *("DELETE", _ONE, Role.ADMIN, "Delete a token", _delete, {204: None}),
        headers=_MATCH,
        errors=(404, 409),
    ),
)
