"""Keys of the API by HTTP, for administrators of the whole database."""

import logging
from contextlib import suppress
from typing import Any

from flask import Response

from automx import apikeys, kinds, members, schema
from automx.accountcolumns import API_KEY, NETWORK
from automx.api import schemas
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
    check_members,
    location,
    read_body,
    read_end,
)
from automx.apikeys import Key
from automx.database import Session
from automx.errors import BadRecordError, BadRequestError, SeedError, UnknownKeyError
from automx.kinds import BadValueError, Kind
from automx.views.session import current_session
from automx.words import Role

log = logging.getLogger(__name__)


def _some(kind: Kind, example: str) -> Kind:
    """Return the kind of a list of items that are read one by one, of which there is at least one.

    An empty one would mean all domains and all networks.
    """
    schema = {"type": "array", "items": kind.schema, "minItems": 1}
    listed = kinds.list_of(example)
    return kinds.or_null(Kind(listed.expected, listed.normalise, schema=schema))


_LISTS = {"domains": kinds.A_LABEL, "from": NETWORK}
_NEW: dict[str, Kind] = {
    "name": API_KEY["name"],
    "role": API_KEY["role"],
    "provider": API_KEY["provider_id"],
    "domains": _some(kinds.A_LABEL, '"example.com"'),
    "from": _some(NETWORK, '"192.0.2.0/24"'),
    "until": kinds.or_null(MOMENT),
}


def _key(session: Session, name: str) -> Key:
    """Return the key of a name. Raises NothingHereError."""
    try:
        return apikeys.get(session, str(API_KEY["name"].read(name)))
    except (BadValueError, UnknownKeyError):
        raise NothingHereError from None


def _list(call: Call) -> Response:
    found, last = apikeys.page(
        current_session(), call.query.get("cursor", 0), call.query.get("limit", PAGE)
    )
    return answer_page([key.document() for key in found], last)


def _get(call: Call) -> Response:
    return answer(_key(current_session(), call.path["name"]).document())


def _add(call: Call) -> Response:
    access, session = call.access, current_session()
    value = read_body()
    check_members(value, _NEW)
    for member in ("name", "role"):
        if value.get(member) is None:
            raise SeedError(f"{member}: expected {_NEW[member].expected}")
    lists = {member: _items(value, member) for member in _LISTS}
    valid_until = read_end(value, "until", access.now)
    try:
        key, secret = apikeys.add(
            session,
            API_KEY["name"].read(value["name"]),
            Role(API_KEY["role"].read(value["role"])),
            actor=access.key.actor,
            now=access.now,
            provider=value.get("provider"),
            domains=lists["domains"],
            networks=lists["from"],
            valid_until=valid_until,
        )
    except BadRequestError as error:  # such as too many domains
        raise SeedError(f"{error}") from error
    session.commit()
    found = {**key.document(), "key": secret}
    return answer(found, 201, {"Location": location("keys", key.name)})


def _items(value: dict[str, Any], member: str) -> tuple[str, ...]:
    """Return the items of a list, () for null. Raises SeedError with the path of a wrong one."""
    found = value.get(member)
    if found == []:
        raise SeedError(f"{member}: expected {_NEW[member].expected}, found an empty list")
    kind = _LISTS[member]
    return tuple(
        members.one(item, kind, f"{member}[{index}]") for index, item in enumerate(found or ())
    )


def _rotate(call: Call) -> Response:
    access, session = call.access, current_session()
    name = _key(session, call.path["name"]).name
    key, secret = apikeys.rotate(session, name, actor=access.key.actor, now=access.now)
    session.commit()
    return answer({**key.document(), "key": secret})


def _end_rotation(call: Call) -> Response:
    access, session = call.access, current_session()
    name = _key(session, call.path["name"]).name
    key = apikeys.end_rotation(session, name, actor=access.key.actor, now=access.now)
    session.commit()
    return answer(key.document())


def _revoke(call: Call) -> Response:
    access, session = call.access, current_session()
    name, is_revoked = call.path["name"], False
    with suppress(BadRecordError):  # a bad row may be revoked, too
        is_revoked = _key(session, name).is_revoked
    if not is_revoked:
        apikeys.revoke(session, API_KEY["name"].read(name), actor=access.key.actor, now=access.now)
        if not apikeys.has_administrator(session, access.now):
            log.warning(
                "%s has revoked the last key of an administrator: automx apikey add makes another",
                access.key.actor,
            )
        session.commit()
    return answer_nothing()


_ONE = "/keys/{name}"

OPERATIONS = (
    Operation(
        *("GET", "/keys", Role.ADMIN, "List keys", _list, {200: schemas.page(schemas.KEY)}),
        query=PAGING,
        unscoped=True,
    ),
    Operation(
        *("GET", _ONE, Role.ADMIN, "Read a key", _get, {200: schemas.KEY}),
        errors=(404, 409),
        unscoped=True,
    ),
    Operation(
        *("POST", "/keys", Role.ADMIN, "Make a key", _add, {201: schemas.NEW_KEY}),
        body=schema.of_members(_NEW, ("name", "role")),
        errors=(409,),
        unscoped=True,
    ),
    Operation(
        *("POST", f"{_ONE}/rotate", Role.ADMIN, "Give a key another secret", _rotate),
        {200: schemas.NEW_KEY},
        errors=(404, 409),
        unscoped=True,
    ),
    Operation(
        *("POST", f"{_ONE}/end-rotation", Role.ADMIN, "End the secret before", _end_rotation),
        {200: schemas.KEY},
        errors=(404, 409),
        unscoped=True,
    ),
    Operation(
        *("DELETE", _ONE, Role.ADMIN, "Revoke a key", _revoke, {204: None}),
        errors=(404, 409),
        unscoped=True,
    ),
)
