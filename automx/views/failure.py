"""Failures: an exception becomes one record, logged once, which each protocol shows in its form."""

import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass

from flask import Response, request
from werkzeug.exceptions import BadHost, HTTPException

from automx.database import outage
from automx.errors import AutomxError, UnavailableError, UnknownDomainError
from automx.trace import Trace
from automx.views.http import NOSNIFF, Answer, personal_document
from automx.views.log import shown_path

log = logging.getLogger(__name__)

# The key of a WSGI environment under which the web server puts the error that is to be answered: a
# request that came too slowly, or for which there was no place.
FOUND = "automx.failure"

TEXT = "text/plain; charset=utf-8"

_LINE = "%s %s %s: %s"  # of the log: method, path, status, text

_TEXTS = {
    400: "The request cannot be understood.",
    404: "There is nothing at this address.",
    405: "This method is not allowed here.",
    408: "The request took too long.",
    413: "The request is too large.",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request fails.

    ``status`` is the HTTP status, ``text`` one public line without line break. ``headers`` are
    Retry-After and Allow, where they apply. ``error`` is the exception: forms with error codes of
    their own choose one by its class.
    """

    status: int
    text: str
    headers: dict[str, str]
    error: Exception

    def response(self, body: str | bytes, content_type: str) -> Response:
        """Return a response of this status, with a body that no cache may keep."""
        return personal_document(body, content_type, self.headers | NOSNIFF, self.status)


def record(error: Exception) -> Failure:
    """Return the Failure of an exception of this request, and log it in one line.

    AutomxError and werkzeug's HTTPException have a status and a text. Anything else is a bug or an
    outage of the database or a lack of files: a bug is 500, with the traceback in the log and
    nowhere else.
    """
    error = outage(error) or _shortage(error) or error
    headers: dict[str, str] = {}
    cause: str | None = None
    match error:
        case AutomxError():
            status, text, cause = error.status, str(error), error.cause
            if error.retry_after is not None:
                headers["Retry-After"] = str(error.retry_after)
        case HTTPException():
            status = error.code or 500
            text = _TEXTS.get(status, f"{error.name}.")
            headers = {name: value for name, value in error.get_headers() if name == "Allow"}
            if isinstance(error, BadHost):
                cause = f"Host {request.headers.get('Host')!r}"
        case _:
            line = "%s %s: a bug in automx"
            log.critical(line, request.method, shown_path(request.path), exc_info=error)
            return Failure(500, AutomxError.public, headers, error)
    if not (isinstance(error, AutomxError) and error.is_logged):
        level = logging.ERROR if status >= 500 else logging.WARNING
        line = f"{text} ({cause})" if cause else text
        log.log(level, _LINE, request.method, shown_path(request.path), status, line)
    return Failure(status, text, headers, error)


def unknown_domain(error: UnknownDomainError, path: str, trace: Trace) -> Answer:
    """Return, and log, what as_text() shows for a GET request that is answered without Flask."""
    line = f"{error} ({error.cause})" if error.cause else str(error)
    log.warning(_LINE, "GET", path, error.status, line, extra={"trace": trace})
    body = f"{error}\n".encode()
    headers = NOSNIFF | {"Content-Type": TEXT, "Content-Length": str(len(body))}
    return Answer(error.status, [*headers.items(), ("Cache-Control", "no-store")], body)


def _shortage(error: Exception) -> UnavailableError | None:
    """Return the UnavailableError for a lack of open files; None for anything else."""
    if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
        return UnavailableError(cause=error.strerror)
    return None


def raise_found() -> None:
    """Raise the error that the web server has found, before any view is called."""
    error: Exception | None = request.environ.get(FOUND)
    if error is not None:
        raise error


def handler(form: Callable[[Failure], Response]) -> Callable[[Exception], Response]:
    """Return an error handler for Flask that records the failure and shows it in a form.

    A form that needs a file, such as a template, is a text while no more files can be opened.
    """

    def show(error: Exception) -> Response:
        failure = record(error)
        try:
            return form(failure)
        except OSError as lack:
            if _shortage(lack) is None:
                raise
            return as_text(failure)

    return show


def as_text(failure: Failure) -> Response:
    """Show a failure as one line of plain text."""
    return failure.response(f"{failure.text}\n", TEXT)
