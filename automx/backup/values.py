"""Values of columns as a backup holds them: as JSON, equal for all databases.

Moments are in UTC (RFC 3339), bytes in Base64 (RFC 4648). SQLite lets any value into any column;
one that is not of the kind of its column is an object with the name of its type there, and only
SQLite takes it back.
"""

import base64
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from sqlalchemy import Boolean, Column, Integer, LargeBinary, String

from automx.audit import SECRETS
from automx.columntypes import Day, UtcDateTime
from automx.kinds import instance, shown

Convert = Callable[[Any], Any]  # raises ValueError or OverflowError for what it cannot convert

_MOST_BYTES = 65_535  # of TEXT and BLOB in MariaDB


class _Form(NamedTuple):
    """How values of a column are written and read, and what is expected there."""

    encode: Convert
    decode: Convert
    expected: str


def encoder(column: Column[Any]) -> Convert:
    """Return the function that makes JSON of any value of a driver."""
    of_kind = _form(column, "").encode

    def encode(value: Any) -> Any:
        if value is None:
            return None
        try:
            return of_kind(value)
        except (ValueError, OverflowError):
            return _of_other_kind(value)

    return encode


def decoder(column: Column[Any], dialect: str) -> Convert:
    """Return the function that makes a value for a driver of JSON, which may be anything.

    ``dialect`` is ``sqlite``, ``postgresql`` or ``mysql``. It raises ValueError that says what was
    expected and what was found, without secrets.
    """
    form = _form(column, dialect)
    is_secret = column.name in SECRETS

    def decode(value: Any) -> Any:
        if value is None and column.nullable:
            return None
        try:
            if isinstance(value, dict) and dialect == "sqlite":
                return _to_other_kind(value)
            return form.decode(value)
        except (ValueError, OverflowError):
            found = shown(value, secret=is_secret)
            if isinstance(value, dict) and len(value) == 1:
                found = f"{next(iter(value))[:20]!r}, which only SQLite may hold there"
            raise ValueError(f"expected {form.expected}, found {found}") from None

    return decode


def _form(column: Column[Any], dialect: str) -> _Form:
    match column.type:
        case Boolean():
            return _Form(_bool, lambda value: instance(value, bool), "true or false")
        case Integer():
            least_too_high = 2**63 if dialect == "sqlite" else 2**31

            def number(value: Any) -> int:
                if type(value) is not int or not -least_too_high <= value < least_too_high:
                    raise ValueError
                return value

            return _Form(_int, number, f"a whole number below {least_too_high}")
        case UtcDateTime():
            return _Form(_rfc3339, lambda value: _moment(value, dialect), "a moment in UTC")
        case Day():

            def day(value: Any) -> Any:
                found = date.fromisoformat(instance(value, str))
                return found.isoformat() if dialect == "sqlite" else found

            return _Form(_iso_date, day, "a date")
        case LargeBinary():

            def octets(value: Any) -> bytes:
                found = base64.b64decode(instance(value, str), validate=True)
                if dialect == "mysql" and len(found) > _MOST_BYTES:
                    raise ValueError
                return found

            limit = f" of at most {_MOST_BYTES} bytes" if dialect == "mysql" else ""
            return _Form(_base64, octets, f"Base64{limit}")
        case _:
            return _text_form(column.type, dialect)


def _text_form(type_: Any, dialect: str) -> _Form:
    length = instance(type_, String).length
    if dialect == "sqlite":  # it knows no limits
        length, limit = None, ""
    elif length is not None:
        limit = f" of at most {length} characters"
    else:
        limit = f" of at most {_MOST_BYTES} bytes" if dialect == "mysql" else ""
    limit += " without U+0000" if dialect == "postgresql" else ""

    def text(value: Any) -> str:
        octets = instance(value, str).encode()  # fails for half of a surrogate pair
        if length is not None and len(value) > length:
            raise ValueError
        if dialect == "mysql" and len(octets) > _MOST_BYTES:
            raise ValueError
        if dialect == "postgresql" and "\0" in value:
            raise ValueError
        return str(value)

    return _Form(lambda value: instance(value, str), text, f"a text{limit}")


def _int(value: Any) -> int:
    if type(value) is not int:
        raise ValueError
    return value


def _bool(value: Any) -> bool:
    if type(value) not in {int, bool} or value not in {0, 1}:
        raise ValueError
    return bool(value)


def _rfc3339(value: Any) -> str:
    """Return a moment; SQLite has a text, and a fraction of a second is kept."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else instance(value, datetime)
    if moment.tzinfo:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return f"{moment.isoformat()}Z"


def _moment(value: Any, dialect: str) -> Any:
    if not (text := instance(value, str)).endswith("Z"):
        raise ValueError
    moment = datetime.fromisoformat(text).replace(tzinfo=None)
    match dialect:
        case "sqlite":
            return moment.isoformat(" ", "microseconds")  # as SQLAlchemy writes it
        case "mysql":
            return moment.replace(microsecond=0)  # MySQL would round
        case _:
            return moment


def _iso_date(value: Any) -> str:
    found = date.fromisoformat(value) if isinstance(value, str) else instance(value, date)
    return found.isoformat()


def _base64(value: Any) -> str:
    octets = bytes(value) if isinstance(value, memoryview) else instance(value, bytes)
    return base64.b64encode(octets).decode()


def _of_other_kind(value: Any) -> dict[str, Any]:
    match value:
        case bool() | int():
            return {"integer": int(value)}
        case float():
            return {"real": str(value)}  # JSON has no infinity
        case bytes():
            return {"blob": _base64(value)}
        case _:
            return {"text": str(value)}


def _to_other_kind(value: dict[str, Any]) -> Any:
    match value:
        case {"integer": int(number), **rest} if not rest and -(2**63) <= number < 2**63:
            return int(number)
        case {"real": str(text), **rest} if not rest:
            return float(text)
        case {"blob": str(text), **rest} if not rest:
            return base64.b64decode(text, validate=True)
        case {"text": str(text), **rest} if not rest:
            text.encode()
            return text
        case _:
            raise ValueError
