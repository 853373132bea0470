"""Tokens and accounts by HTTP.

A key with a scope has the tokens of its domains, and the accounts that these make. Secrets of
tokens are answered to those who may change them.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any
from urllib.parse import quote

from flask import Response, request

from automx import kinds, rows, schema
from automx.accounts import accounts, created, requests, tokens
from automx.accounts.accounts import Account
from automx.accounts.tokens import Token
from automx.api import schemas
from automx.api.access import Access
from automx.api.operations import (
    TEXT,
    Call,
    NothingHereError,
    Operation,
    answer,
    check_members,
    read_body,
)
from automx.api.rows import PAGE, PAGING, answer_nothing
from automx.apikeys import PERMISSIONS
from automx.database import Session
from automx.errors import (
    AddressError,
    BadRecordError,
    BadRequestError,
    DisabledDomainError,
    MailLeftError,
    SeedError,
    UnknownAccountError,
    UnknownDomainError,
    UnknownTokenError,
)
from automx.kinds import BadValueError, Kind
from automx.moments import iso, parse_moment
from automx.views.http import parts
from automx.views.session import current_session
from automx.words import Role, State

log = logging.getLogger(__name__)

_MOMENT = Kind(
    'a time such as "2026-12-31T18:00Z"',
    lambda value: parse_moment(kinds.string(value)),
    schema={"type": "string", "format": "date-time"},
)
_FIELDS: dict[str, Kind] = {
    **{
        name: rows.TOKEN[name] for name in ("prefix", "expiry", "maxuse", "backend", "spare_active")
    },
    "valid_until": kinds.or_null(_MOMENT),
}
_NEW = {name: rows.TOKEN[name] for name in ("name", "domain", "address")} | _FIELDS
_CHANGED = {**_FIELDS, "revoked": kinds.BOOLEAN}
_ACCOUNT = {
    "token": rows.TOKEN["name"],
    "address": kinds.ACCOUNT_ADDRESS,
    "password": kinds.exact_text(128, secret=True),
}


def _sees(access: Access, session: Session, domain: str) -> bool:
    return access.scope is None or domain in access.scope.own_names(session, [domain])


@contextmanager
def _hidden_if_bad(access: Access) -> Iterator[None]:
    """Let a key with a scope not see a bad row: whose it is may not be known."""
    try:
        yield
    except BadRecordError:
        if access.scope is None:
            raise
        raise NothingHereError from None


def _token(access: Access, session: Session, name: str) -> Token:
    """Return the token of a name. Raises NothingHereError."""
    try:
        with _hidden_if_bad(access):
            found = tokens.get(session, str(rows.TOKEN["name"].read(name)))
    except (BadValueError, UnknownTokenError):
        raise NothingHereError from None
    if not _sees(access, session, found.domain):
        raise NothingHereError
    return found


def _document(token: Token, access: Access | None = None) -> dict[str, Any]:
    """Return a token; with its secret for those who may change it."""
    found = token.document(parts().settings.web_endpoint)
    if access is None or Role.ADMIN not in PERMISSIONS[access.key.role]:
        del found["token"], found["dcaccount"]
    return found


def _tokens(call: Call) -> Response:
    session, scope = current_session(), call.access.scope
    found = tokens.all_tokens(session)
    if scope is not None:
        own = scope.own_names(session, {token.domain for token in found})
        found = [token for token in found if token.domain in own]
    found = sorted(
        (token for token in found if token.id > call.query.get("cursor", 0)),
        key=lambda token: token.id,
    )
    limit = call.query.get("limit", PAGE)
    last = str(found[limit - 1].id) if len(found) > limit else None
    return answer({"items": [_document(token) for token in found[:limit]], "next": last})


def _get_token(call: Call) -> Response:
    token = _token(call.access, current_session(), call.path["name"])
    return answer(_document(token, call.access))


def _columns(value: dict[str, Any], wanted: dict[str, Kind]) -> dict[str, Any]:
    """Return checked columns of a token. Raises WrongMembersError."""
    check_members(value, wanted)
    found = dict(value)
    if found.get("valid_until") is not None:
        found["valid_until"] = _MOMENT.read(found["valid_until"])
    if "revoked" in found:
        found["is_revoked"] = found.pop("revoked")
    for name, item in found.items():
        if item is None and name not in {"valid_until", "address"}:
            raise SeedError(f"{name}: expected {wanted[name].expected}, found null")
    return found


def _add_token(call: Call) -> Response:
    access, session = call.access, current_session()
    columns = _columns(read_body(), _NEW)
    for name in ("name", "domain"):
        if name not in columns:
            raise SeedError(f"{name}: expected {_NEW[name].expected}")
    name, domain = str(columns.pop("name")), kinds.A_LABEL.read(columns.pop("domain"))
    unknown = SeedError("domain: expected a domain that is served")
    if not _sees(access, session, domain):
        raise unknown
    try:
        token = tokens.add(session, name, domain, now=access.now, actor=access.key.actor, **columns)
    except (UnknownDomainError, DisabledDomainError):
        raise unknown from None
    except BadRequestError as error:
        raise SeedError(f"{error}") from error
    session.commit()
    url = f"{request.script_root}/api/v1/tokens/{quote(token.name)}"
    return answer(_document(token, access), 201, {"Location": url})


def _change_token(call: Call) -> Response:
    access, session = call.access, current_session()
    columns = _columns(read_body(patch=True), _CHANGED)
    token = _token(access, session, call.path["name"])
    try:
        token = tokens.edit(session, token.name, columns, actor=access.key.actor, now=access.now)
    except BadRequestError as error:
        raise SeedError(f"{error}") from error
    session.commit()
    return answer(_document(token, access))


def _delete_token(call: Call) -> Response:
    access, session = call.access, current_session()
    token = _token(access, session, call.path["name"])
    tokens.remove(session, token.name, actor=access.key.actor, now=access.now)
    session.commit()
    return answer_nothing()


def _account(access: Access, session: Session, address: str) -> Account:
    """Return the account of an address. Raises NothingHereError."""
    try:
        with _hidden_if_bad(access):
            found = accounts.get(session, TEXT.read(address))
            domain = tokens.get(session, found.token).domain
    except (AddressError, BadValueError, UnknownAccountError):
        raise NothingHereError from None
    if not _sees(access, session, domain):
        raise NothingHereError
    return found


def _accounts(call: Call) -> Response:
    session, scope, query = current_session(), call.access.scope, call.query
    domains = None
    if scope is not None:
        domains = scope.own_names(session, {t.domain for t in tokens.all_tokens(session)})
    limit = query.get("limit", PAGE)
    found = accounts.all_accounts(
        session,
        token=query.get("token"),
        state=State(query["state"]) if "state" in query else None,
        domains=domains,
        after=query.get("cursor", 0),
    )
    shown = list(islice(found, limit + 1))
    last = str(shown[limit - 1].id) if len(shown) > limit else None
    return answer({"items": [account.document() for account in shown[:limit]], "next": last})


def _get_account(call: Call) -> Response:
    found = _account(call.access, current_session(), call.path["address"])
    return answer(found.document())


def _add_account(call: Call) -> Response:
    access, session = call.access, current_session()
    value = read_body()
    check_members(value, _ACCOUNT)
    wanted = value.get("token")
    try:
        token = _token(access, session, str(wanted))
    except NothingHereError:
        raise SeedError(
            f"token: expected the name of a token, found {kinds.shown(wanted)}"
        ) from None
    address, password = value.get("address"), value.get("password")
    if password == "":
        raise SeedError("password: expected a text that is not empty, or null")
    key = request.headers.get("Idempotency-Key", "")
    with requests.once(session, access.key.actor, key, access.now) as once:
        made = accounts.create(
            session,
            token,
            parts().backends,
            now=access.now,
            address=address,
            password=password,
            actor=access.key.actor,
        )
        once.address = made.address
    created.tell(parts().settings.accounts, made, token)
    document = {
        "address": made.address,
        "password": made.password,
        "token": token.name,
        "expires": iso(made.expires_at),
    }
    url = f"{request.script_root}/api/v1/accounts/{quote(made.address, safe='@')}"
    return answer(document, 201, {"Location": url})


def _delete_account(call: Call) -> Response:
    access, session = call.access, current_session()
    account = _account(access, session, call.path["address"])
    try:
        accounts.remove(session, account, parts().backends, now=access.now, actor=access.key.actor)
    except MailLeftError as error:  # there is nothing left that could be tried
        log.warning("%s: %s", account.address, error.reason)
    return answer_nothing()


_ONE_TOKEN, _ONE_ACCOUNT = "/tokens/{name}", "/accounts/{address}"
_STATE = kinds.word({state.value: state for state in State})
_BODY = (413, 415, 422)
_BACKEND = (409, 504)

OPERATIONS = (
    Operation(
        *("GET", "/tokens", Role.READ, "List tokens", _tokens),
        {200: schemas.page(schemas.TOKEN)},
        query=PAGING,
        also=Role.ACCOUNTS,
    ),
    Operation(
        *("GET", _ONE_TOKEN, Role.READ, "Read a token", _get_token, {200: schemas.TOKEN}),
        errors=(404, 409),
        also=Role.ACCOUNTS,
    ),
    Operation(
        *("POST", "/tokens", Role.ADMIN, "Add a token", _add_token, {201: schemas.TOKEN}),
        body=schema.of_members(_NEW, ("name", "domain")),
        errors=(409, *_BODY),
    ),
    Operation(
        *("PATCH", _ONE_TOKEN, Role.ADMIN, "Change members of a token", _change_token),
        {200: schemas.TOKEN},
        body=schema.of_members(_CHANGED),
        errors=(404, 409, *_BODY),
    ),
    Operation(
        *("DELETE", _ONE_TOKEN, Role.ADMIN, "Delete a token", _delete_token, {204: None}),
        errors=(404, 409),
    ),
    Operation(
        *("GET", "/accounts", Role.READ, "List accounts", _accounts),
        {200: schemas.page(schemas.ACCOUNT)},
        query={**PAGING, "token": rows.TOKEN["name"], "state": _STATE},
        also=Role.ACCOUNTS,
    ),
    Operation(
        *("GET", _ONE_ACCOUNT, Role.READ, "Read an account", _get_account),
        {200: schemas.ACCOUNT},
        errors=(404, 409),
        also=Role.ACCOUNTS,
    ),
    Operation(
        *("POST", "/accounts", Role.ACCOUNTS, "Make an account", _add_account),
        {201: schemas.NEW_ACCOUNT},
        headers={"Idempotency-Key": "A text of your choice; a repeat makes nothing for a day."},
        body=schema.of_members(_ACCOUNT, ("token",)),
        errors=(*_BACKEND, *_BODY),
    ),
    Operation(
        *("DELETE", _ONE_ACCOUNT, Role.ACCOUNTS, "Delete an account and its mailbox"),
        _delete_account,
        {204: None},
        errors=(404, *_BACKEND),
    ),
)
