"""What a stranger reads when something goes wrong, and what the administrator reads in the log."""

import logging

from flask import Flask, Response, request
from werkzeug.exceptions import BadHost, HTTPException

from automx.database import outage
from automx.errors import AutomxError, TooManyRequestsError, UnavailableError

log = logging.getLogger(__name__)

_TEXTS = {
    400: "The request cannot be understood.",
    404: "There is nothing at this address.",
    405: "This method is not allowed here.",
    413: "The request is too large.",
}


def register(app: Flask) -> None:
    """Let the application answer every error in one line of plain text."""
    app.register_error_handler(Exception, answer_for)


def answer_for(error: Exception) -> Response:
    """Return the answer to an error, and write its cause to the log.

    An AutomxError tells its own status and text, werkzeug's errors theirs; anything else is a bug
    of this program: 500, with the traceback in the log and nowhere else.
    """
    headers: dict[str, str] = {}
    error = outage(error) or error
    if isinstance(error, AutomxError):
        status, text = error.status, str(error)
        if isinstance(error, UnavailableError | TooManyRequestsError):
            headers["Retry-After"] = str(error.retry_after)
        if not error.is_logged:
            _log(status, f"{text} ({error.cause})" if error.cause else text)
    elif isinstance(error, HTTPException):
        answer = Response(headers=dict(error.get_headers()))
        status = error.code or 500
        if status < 400:  # a redirect
            return Response(error.get_body(), status, dict(error.get_headers()))
        text = _TEXTS.get(status, f"{error.name}.")
        if "Allow" in answer.headers:
            headers["Allow"] = answer.headers["Allow"]
        _log(status, f"{text} (Host {request.host!r})" if isinstance(error, BadHost) else text)
    else:
        status, text = 500, AutomxError.public
        log.critical("%s %s: a bug in automx", request.method, request.path, exc_info=error)
    headers |= {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(f"{text}\n", status, headers, content_type="text/plain; charset=utf-8")


def _log(status: int, text: str) -> None:
    level = logging.ERROR if status >= 500 else logging.WARNING
    log.log(level, "%s %s %s: %s", request.method, request.path, status, text)
