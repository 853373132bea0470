"""JSON Schemas of what the API takes and answers, beyond those of automx.schema."""

from collections.abc import Mapping
from typing import Any

from automx import members, schema
from automx.kinds import Kind
from automx.schema import Schema

_TEXT: Schema = {"type": "string"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_NULLABLE_TEXT: Schema = {"type": ["string", "null"]}
MOMENT: Schema = {"type": ["string", "null"], "format": "date-time"}


def record(**properties: Schema) -> Schema:
    """Return the schema of an object that has all of some members."""
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


def page(item: Schema) -> Schema:
    """Return the schema of a page of a list."""
    return record(
        items={"type": "array", "items": item},
        next={
            "type": ["string", "null"],
            "description": "The parameter cursor of the next page; null at the end.",
        },
    )


def item(kind: str) -> Schema:
    """Return the schema of a row as it is answered: a bad one is as it is in the database."""
    return {
        "type": "object",
        "properties": {
            name: {"description": of.expected} for name, of in members.MEMBERS[kind].items()
        },
        "required": sorted(members.MEMBERS[kind]),
        "additionalProperties": False,
    }


def with_null(found: Schema) -> Schema:
    """Return the schema of an object in which null gives a member that is not required its default.

    Members that allow null already stay as they are.
    """
    null: Schema = {"type": "null"}
    properties = {
        name: value
        if name in found["required"] or null in value.get("anyOf", ())
        else {"anyOf": [value, null]}
        for name, value in found["properties"].items()
    }
    return {**found, "properties": properties}


def patch(kind: str) -> Schema:
    """Return the schema of a JSON Merge Patch (RFC 7396) of a row."""
    return _patch(schema.of_item(kind))


def _patch(found: Schema) -> Schema:
    """Return the schema of a patch: nothing is required, and null is allowed, at every depth."""
    properties: dict[str, Any] = {
        name: {"anyOf": [_patch(value) if "properties" in value else value, {"type": "null"}]}
        for name, value in found["properties"].items()
    }
    kept = {name: found[name] for name in ("patternProperties",) if name in found}
    return {"type": "object", "properties": properties, "additionalProperties": False, **kept}


def bulk(keys: Mapping[str, Kind]) -> Schema:
    """Return the schema of many domains that are alike."""
    found = schema.of_members(keys, ("names",))
    del found["patternProperties"]
    names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    found["properties"]["names"] = names
    return found


ADDED = record(added={"type": "integer"}, existing={"type": "integer"})
PROBLEM: Schema = {
    "type": "object",
    "properties": {
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": _TEXT,
        "errors": {"type": "array", "items": record(path=_TEXT, message=_TEXT)},
        "address": {
            "type": ["string", "null"],
            "description": "Of the account that a request with the same Idempotency-Key has made.",
        },
    },
    "required": ["title", "status", "detail"],
    "additionalProperties": False,
}
ENTRY = record(
    id={"type": "integer"},
    at={"type": "string", "format": "date-time"},
    actor=_TEXT,
    action=_TEXT,
    kind=_TEXT,
    name=_TEXT,
    details={"type": "object"},
)
RECORD = record(name=_TEXT, ttl={"type": "integer"}, type=_TEXT, data=_TEXT)
FINDING = record(domain=_TEXT, level=_TEXT, subject=_TEXT, text=_TEXT, advice=_TEXT)
TOKEN = record(
    name=_TEXT,
    expiry=_TEXT,
    prefix=_TEXT,
    maxuse={"type": "integer"},
    usecount={"type": "integer"},
    domain=_TEXT,
    address=_NULLABLE_TEXT,
    valid_until=MOMENT,
    revoked={"type": "boolean"},
    backend=_NULLABLE_TEXT,
    spare_active={"type": "boolean"},
    created=MOMENT,
)
# Those who may change tokens see the secret, and the text of its QR code.
TOKEN["properties"] |= {"token": _TEXT, "dcaccount": _NULLABLE_TEXT}
NEW_ACCOUNT = record(address=_TEXT, password=_TEXT, token=_TEXT, expires=MOMENT)
ACCOUNT = record(
    address=_TEXT,
    token=_TEXT,
    state=_TEXT,
    backend=_TEXT,
    created=MOMENT,
    expires=MOMENT,
    changed=MOMENT,
    warned=MOMENT,
)
# The password if it was changed.
CHANGED_ACCOUNT = {**ACCOUNT, "properties": ACCOUNT["properties"] | {"password": _TEXT}}
KEPT_MAILBOX = record(address=_TEXT, detail=_TEXT)
KEY = record(
    name=_TEXT,
    role=_TEXT,
    provider={"type": ["integer", "null"]},
    domains=_TEXTS,
    until=MOMENT,
    revoked={"type": "boolean"},
    rotated={"type": "boolean"},
    created=MOMENT,
    used={"type": ["string", "null"], "format": "date"},
    **{"from": _TEXTS},
)
NEW_KEY = record(**KEY["properties"], key=_TEXT)
_CHANGES: Schema = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "kind": _TEXT,
            "id": {"type": "integer"},
            "name": _TEXT,
            "before": {"type": "object"},
            "after": {"type": "object"},
        },
        "required": ["id", "kind", "name"],
        "additionalProperties": False,
    },
}
PLAN = record(added=_CHANGES, changed=_CHANGES, removed=_CHANGES)
PLAN["properties"]["warnings"] = _TEXTS
