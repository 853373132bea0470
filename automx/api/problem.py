"""Problems: the form of errors of the API (RFC 9457)."""

import json
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Self

from flask import Response, g

from automx.errors import AutomxError, RepeatedError, SeedError
from automx.views.failure import Failure

TYPE = "application/problem+json"

# The path of a member at the beginning of an error's text, perhaps below the kind of the row.
_PATH = re.compile(
    r"(?:(?:provider|directory|server|service|domain)\.)?(\w+(?:\.\w+|\[\d+\])*): (.+)",
    re.ASCII | re.DOTALL,
)


class WrongMembersError(AutomxError):
    """The JSON has members that are wrong; ``errors`` has (path, message) of each."""

    status = 422

    def __init__(self, errors: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(": ".join(filter(None, error)) for error in errors))
        self.errors = errors

    @classmethod
    def of(cls, error: SeedError) -> Self:
        """Return the error of a member, whose text begins with the path of the member."""
        found = _PATH.fullmatch(str(error))
        return cls([(found[1], found[2]) if found else ("", str(error))])


class UnusableRowsError(AutomxError):
    """The rows of a domain cannot be served; the text says why: who has a key is no stranger."""

    status = 409
    public = "The rows of this domain cannot be used."


def as_problem(failure: Failure) -> Response:
    """Show a failure as a problem."""
    error = failure.error
    document: dict[str, object] = {
        "title": HTTPStatus(failure.status).phrase,
        "status": failure.status,
        "detail": failure.text,
    }
    if isinstance(error, WrongMembersError):
        document["errors"] = [{"path": path, "message": text} for path, text in error.errors]
    if isinstance(error, RepeatedError):
        document["address"] = error.address
    headers: dict[str, str] = g.get("problem_headers", {})
    failure.headers.update(headers)
    return failure.response(f"{json.dumps(document)}\n", TYPE)
