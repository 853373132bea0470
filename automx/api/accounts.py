"""Accounts by HTTP. A key with a scope has those that the tokens of its domains make."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import Response, request

from automx import kinds, schema
from automx.accountcolumns import TOKEN
from automx.accounts import accounts, created, edits, requests
from automx.accounts import tokens as all_tokens
from automx.accounts.accounts import Account
from automx.accounts.randomwords import new_password
from automx.api import schemas, tokens
from automx.api.access import Access
from automx.api.operations import (
    MOMENT,
    PAGE,
    PAGING,
    TEXT,
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
from automx.database import Session
from automx.errors import (
    AddressError,
    MailLeftError,
    SeedError,
    UnknownAccountError,
    WeakPasswordError,
)
from automx.kinds import BadValueError, Kind
from automx.moments import iso
from automx.views.http import parts
from automx.views.session import current_session
from automx.words import Role, State

log = logging.getLogger(__name__)

_PASSWORD = kinds.exact_text(128, secret=True)
_NEW: dict[str, Kind] = {
    "token": TOKEN["name"],
    "address": kinds.ACCOUNT_ADDRESS,
    "password": _PASSWORD,
}
_KEPT = "The account is deleted. The mailbox was not made for it, and stays."
_CHANGED = {"expires": kinds.or_null(MOMENT), "password": kinds.or_null(_PASSWORD)}


def _account(access: Access, session: Session, address: str) -> Account:
    """Return the account of an address. Raises NothingHereError."""
    try:
        with tokens.hidden_if_bad(access):
            found = accounts.get(session, TEXT.read(address))
            domain = all_tokens.get(session, found.token).domain
    except (AddressError, BadValueError, UnknownAccountError):
        raise NothingHereError from None
    if not tokens.sees(access, session, domain):
        raise NothingHereError
    return found


def _list(call: Call) -> Response:
    session, scope, query = current_session(), call.access.scope, call.query
    found, last = accounts.page(
        session,
        [] if scope is None else [scope.own_tokens(session)],
        query.get("cursor", 0),
        query.get("limit", PAGE),
        token=query.get("token"),
        state=State(query["state"]) if "state" in query else None,
    )
    return answer_page([account.document() for account in found], last)


def _answer(account: Account, **more: str) -> Response:
    found = account.document()
    return answer(found | more, headers={"ETag": etag(found)})


def _get(call: Call) -> Response:
    return _answer(_account(call.access, current_session(), call.path["address"]))


def _password(value: dict[str, Any]) -> str | None:
    """Return the checked password that a client wants, None for a random one."""
    if value.get("password") == "":
        raise SeedError("password: expected a text that is not empty, or null")
    found: str | None = value.get("password")
    return found


@contextmanager
def _naming_members(password: str | None) -> Iterator[None]:
    """Raise SeedError for an address, or a password of a client, that no account may have."""
    try:
        yield
    except AddressError as error:
        raise SeedError(f"address: {error}") from error
    except WeakPasswordError as error:
        if password is None:
            raise
        raise SeedError("password: expected one that the mail server allows") from error


def _add(call: Call) -> Response:
    access, session = call.access, current_session()
    value = read_body()
    check_members(value, _NEW)
    wanted = value.get("token")
    try:
        token = tokens.get(access, session, str(wanted))
    except NothingHereError:
        raise SeedError(
            f"token: expected the name of a token, found {kinds.shown(wanted)}"
        ) from None
    address, password = value.get("address"), _password(value)
    key = request.headers.get("Idempotency-Key", "")
    with (
        requests.once(session, access.key.actor, key, access.now) as once,
        _naming_members(password),
    ):
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
    return answer(document, 201, {"Location": location("accounts", made.address)})


def _change(call: Call) -> Response:
    access, session = call.access, current_session()
    patch = read_body(patch=True)
    check_members(patch, _CHANGED)
    password, expires_at = _password(patch), read_end(patch, "expires", access.now)
    account = _account(access, session, call.path["address"])
    check_match(account.document())
    by: dict[str, Any] = {"actor": access.key.actor, "now": access.now}
    more = {}
    if "password" in patch:  # first, because it fails more often
        more["password"] = password or new_password()
        with _naming_members(password):
            edits.set_password(session, account, parts().backends, more["password"], **by)
    if "expires" in patch:
        account = edits.set_expiry(session, account, expires_at, **by)
    return _answer(account, **more)


def _delete(call: Call) -> Response:
    access, session = call.access, current_session()
    account = _account(access, session, call.path["address"])
    check_match(account.document())
    by: dict[str, Any] = {"actor": access.key.actor, "now": access.now}
    try:
        is_gone = accounts.remove(session, account, parts().backends, **by)
    except MailLeftError as error:  # there is nothing left that could be tried
        log.warning("%s: %s", account.address, error.reason)
        is_gone = True
    if is_gone:
        return answer_nothing()
    return answer({"address": account.address, "detail": _KEPT})


_ONE = "/accounts/{address}"
_STATE = kinds.word({state.value: state for state in State})
_BACKEND = (409, 504)
_MATCH = {"If-Match": "The ETag that the account must have."}

OPERATIONS = (
    Operation(
        *("GET", "/accounts", Role.READ, "List accounts", _list),
        {200: schemas.page(schemas.ACCOUNT)},
        query={**PAGING, "token": TOKEN["name"], "state": _STATE},
        also=Role.ACCOUNTS,
    ),
    Operation(
        *("GET", _ONE, Role.READ, "Read an account", _get, {200: schemas.ACCOUNT}),
        errors=(404, 409),
        also=Role.ACCOUNTS,
    ),
    Operation(
        *("POST", "/accounts", Role.ACCOUNTS, "Make an account", _add),
        {201: schemas.NEW_ACCOUNT},
        headers={"Idempotency-Key": "A text of your choice; a repeat makes nothing for a day."},
        body=schema.of_members(_NEW, ("token",)),
        errors=_BACKEND,
    ),
    Operation(
        *("PATCH", _ONE, Role.ACCOUNTS, "Change the end or the password of an account", _change),
        {200: schemas.CHANGED_ACCOUNT},
        headers=_MATCH,
        body=schema.of_members(_CHANGED),
        errors=(404, *_BACKEND),
    ),
    Operation(
        *("DELETE", _ONE, Role.ACCOUNTS, "Delete an account and its mailbox", _delete),
        {204: None, 200: schemas.KEPT_MAILBOX},
        headers=_MATCH,
        errors=(404, *_BACKEND),
    ),
)
