"""What an operation of the API is: where it is, what it takes, what it answers, what it needs.

Requests are checked, and the OpenAPI document is written, by the same declarations.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

from flask import Response, request
from werkzeug.exceptions import UnsupportedMediaType

from automx import kinds
from automx.api import PATH
from automx.api.access import Access
from automx.api.problem import WrongMembersError
from automx.errors import AutomxError, BadRequestError, SeedError
from automx.kinds import BadValueError, Kind
from automx.moments import LAST_SECOND, parse_moment
from automx.schema import Schema
from automx.seeddocument import parse
from automx.views.http import NOSNIFF, body
from automx.words import Role

JSON, MERGE_PATCH = "application/json", "application/merge-patch+json"

# Texts in URLs; PostgreSQL takes no NUL.
TEXT = kinds.text(320)
FLAG = Kind(
    "true or false",
    lambda value: {"true": True, "false": False}[str(value)],
    schema={"type": "boolean"},
)
# The end of something.
MOMENT = Kind(
    'a time to come such as "2099-12-31T18:00Z", or a date, which means its end',
    lambda value: parse_moment(kinds.string(value), time_of_date=LAST_SECOND),
    schema={"type": "string", "format": "date-time"},
)
_BOOLEAN = Kind("true or false", lambda value: kinds.instance(value, bool))


class ChangedError(AutomxError):
    """The row is another one than that of the header If-Match."""

    status = 412
    public = "The row was changed meanwhile: look at it again."


class NothingHereError(AutomxError):
    """There is no such thing, or not for this key."""

    status = 404
    public = "There is nothing here for this key."


def from_query(kind: Kind) -> Kind:
    """Return the kind of a number that stands in a URL."""

    def normalise(value: object) -> Any:
        text = str(value)
        if not text.removeprefix("-").isascii() or not text.removeprefix("-").isdecimal():
            raise ValueError
        return kind.normalise(int(text) if len(text) < 20 else text)

    return Kind(kind.expected, normalise, schema=kind.schema)


ID = from_query(kinds.ID)
PAGE, LARGEST_PAGE = 100, 1_000
PAGING: dict[str, Kind] = {"cursor": ID, "limit": from_query(kinds.number(1, LARGEST_PAGE))}


@dataclass(frozen=True, slots=True)
class Call:
    """A request for an operation: who asks, and what stands in path and query."""

    access: Access
    path: Mapping[str, str]
    query: Mapping[str, Any]

    def number(self) -> int:
        """Return the id in the path. Raises NothingHereError."""
        try:
            number: int = ID.read(self.path["id"])
        except BadValueError:
            raise NothingHereError from None
        return number


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation.

    ``path`` is that of OpenAPI, ``query`` has the parameters of the URL, ``body`` is the schema of
    the request's JSON, ``types`` are its media types. ``answers`` maps each status of success to
    the schema of its JSON, None for an empty answer, and a text for another media type. ``errors``
    are the statuses of errors beside those of all operations, of a body and of If-Match.
    ``unscoped``: a key with a scope may not do it.
    """

    method: str
    path: str
    role: Role
    summary: str
    call: Callable[[Call], Response]
    answers: Mapping[int, Schema | str | None]
    query: Mapping[str, Kind] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Schema | None = None
    types: tuple[str, ...] = (JSON,)
    errors: tuple[int, ...] = ()
    also: Role | None = None  # another role that is enough
    unscoped: bool = False

    @property
    def id(self) -> str:
        """The name of the operation in OpenAPI."""
        words = self.path.replace("{", "").replace("}", "").strip("/").split("/")
        return "_".join((self.method.lower(), *words))


def read_query(wanted: Mapping[str, Kind]) -> dict[str, Any]:
    """Return the parameters of the URL. Raises BadRequestError."""
    found: dict[str, Any] = {}
    for name, values in request.args.lists():
        if name not in wanted:
            raise BadRequestError(f"The parameter {kinds.shown(name)} is not known here.")
        if len(values) > 1:
            raise BadRequestError(f"The parameter {name} is given more than once.")
        try:
            found[name] = wanted[name].read(values[0])
        except (BadValueError, KeyError):
            raise BadRequestError(
                f"The parameter {name}: expected {wanted[name].expected},"
                f" found {kinds.shown(values[0])}"
            ) from None
    return found


def read_end(value: Mapping[str, Any], member: str, now: datetime) -> datetime | None:
    """Return the moment in a checked member, None for null. Raises SeedError if it is past."""
    if value.get(member) is None:
        return None
    moment: datetime = MOMENT.read(value[member])
    if moment <= now:
        found = kinds.shown(value[member])
        raise SeedError(f"{member}: expected {MOMENT.expected}, found {found}, which is past")
    return moment


def read_body(patch: bool = False) -> dict[str, Any]:
    """Return the JSON object in the body, without remarks: members that begin with "_".

    Raises BadRequestError, UnsupportedMediaType and WrongMembersError.
    """
    types = {JSON, MERGE_PATCH} if patch else {JSON}
    if request.mimetype not in types:
        raise UnsupportedMediaType
    try:
        value = parse(body(), "the body")
    except AutomxError as error:
        raise BadRequestError(str(error)) from error
    if not isinstance(value, dict):
        raise WrongMembersError([("", f"expected an object ({{…}}), found {kinds.shown(value)}")])
    return {name: item for name, item in value.items() if not name.startswith("_")}


def check_members(value: Mapping[str, Any], wanted: Mapping[str, Kind], path: str = "") -> None:
    """Raise WrongMembersError with all members of an object that are wrong.

    JSON has booleans and numbers, so that words for them are refused here.
    """
    errors = []
    begin = f"{path}." if path else ""
    for name, item in value.items():
        kind = wanted.get(name)
        if kind is None:
            errors.append((f"{begin}{name}", f"expected one of {', '.join(wanted)}"))
        elif item is not None:
            try:
                (_BOOLEAN if kind.schema.get("type") == "boolean" else kind).read(item)
            except BadValueError as error:
                errors.append((f"{begin}{name}", str(error)))
    if errors:
        raise WrongMembersError(errors)


def answer(
    document: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a document as JSON that no cache keeps."""
    text = json.dumps(document, ensure_ascii=False)
    response = Response(f"{text}\n", status, content_type=JSON)
    response.headers.update(NOSNIFF | {"Cache-Control": "no-store"} | dict(headers or {}))
    return response


def answer_page(items: list[dict[str, Any]], last: int | None) -> Response:
    """Return a page of a list; ``last`` is the id of its last row, None at the end of the list."""
    return answer({"items": items, "next": None if last is None else str(last)})


def answer_nothing() -> Response:
    """Return an answer without a document."""
    response = answer(None, 204)
    response.data = b""
    del response.headers["Content-Type"]
    return response


def location(collection: str, name: object) -> str:
    """Return the header Location of a new row: the path by which it is read."""
    return f"{request.script_root}{PATH}/{collection}/{quote(str(name), safe='*@')}"


def etag(document: object) -> str:
    """Return the header ETag of a document."""
    text = json.dumps(document, sort_keys=True)
    return f'"{blake2b(text.encode(), digest_size=16).hexdigest()}"'


def check_match(document: object) -> None:
    """Raise ChangedError if the header If-Match names another document."""
    wanted = request.headers.get("If-Match", "*")  # an empty one matches nothing
    tags = {tag.strip() for tag in wanted.split(",")}
    if not tags & {"*", etag(document)}:
        raise ChangedError
