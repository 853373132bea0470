"""The front of other WSGI servers (PEP 3333): usual requests are answered without Flask."""

from collections.abc import Iterable
from io import BytesIO
from typing import TYPE_CHECKING

from flask import Flask
from werkzeug.http import HTTP_STATUS_CODES

from automx import edge
from automx.quick import Quick, Sent
from automx.request import variable
from automx.views.failure import FOUND
from automx.views.http import PARTS, usual_body

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class _Headers:
    """The headers of a WSGI environment."""

    def __init__(self, environ: "WSGIEnvironment") -> None:
        self._environ = environ

    def __contains__(self, name: str) -> bool:
        return variable(name) in self._environ

    def get_all(self, name: str) -> list[str]:
        """Return the value of a name, which is joined of all that were sent."""
        value = self._environ.get(variable(name))
        return [] if value is None else [value]


class _Scope:
    """A request of a WSGI environment."""

    def __init__(self, environ: "WSGIEnvironment") -> None:
        self.client = f"{environ.get('REMOTE_ADDR', '')}:{environ.get('REMOTE_PORT', '')}"
        self.method: str = environ["REQUEST_METHOD"]
        self.path: str = environ.get("PATH_INFO", "")
        self.query_string: str = environ.get("QUERY_STRING", "")
        target: str = environ.get("RAW_URI") or environ.get("REQUEST_URI") or "/"
        self.authority = None if target[0] == "/" else target
        self.headers = _Headers(environ)


def make_application(app: Flask) -> "WSGIApplication":
    """Return the WSGI application of automx: Flask answers what Quick does not. Safe for threads.

    What fails is told by Flask, which knows the form that each protocol has for errors.
    """
    quick = Quick(app.extensions[PARTS])
    others = app.wsgi_app

    def call(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        answer: Sent | None = None
        try:
            answer = _answer(quick, environ)
        except Exception as error:
            environ[FOUND] = error
        if answer is None:
            try:
                return others(environ, start_response)
            finally:
                _untie(environ)
        status, headers, body = answer
        start_response(f"{status} {HTTP_STATUS_CODES[status].upper()}", headers)
        return [body]

    return call


def _answer(quick: Quick, environ: "WSGIEnvironment") -> Sent | None:
    """Return the answer to a request, None if it is left to the views."""
    if not environ.get("CONTENT_LENGTH"):  # some servers set it always
        environ.pop("CONTENT_LENGTH", None)
    asked = quick.asked(_Scope(environ))
    if asked is None:
        return None
    environ[edge.TRACE] = asked
    if asked.method == "POST":
        content = usual_body(environ)
        if content is None:
            return None
        environ["wsgi.input"] = BytesIO(content)
        if quick.posted(asked, content) is None:
            return None
    answer = quick.found(asked)
    if answer is not None:
        _untie(environ)
    return answer


def _untie(environ: "WSGIEnvironment") -> None:
    """Remove what refers to an environment from it: it would be kept for a while."""
    environ.pop(edge.TRACE, None)
    if (error := environ.pop(FOUND, None)) is not None:
        error.__traceback__ = None
