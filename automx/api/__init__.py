"""The API: programs read and change rows by HTTP, in JSON.

What is here decides whether a request is one for the API; the rest is loaded with the first request
that has a key, so that workers without it do not grow.
"""

from contextlib import suppress
from typing import TYPE_CHECKING

from flask import Blueprint, Flask, Response, request
from werkzeug.exceptions import MethodNotAllowed
from werkzeug.routing import PathConverter, Rule

from automx import edge
from automx.accountcolumns import KEY_FORM
from automx.api.problem import as_problem
from automx.views.failure import handler
from automx.views.http import parts
from automx.views.paths import normal

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

PATH = "/api/v1"
# Bytes; of a list of domains and of a document. YAML takes 100 times as much memory as JSON.
MAX_LARGE_BODY, MAX_YAML_BODY = 16 * 1024 * 1024, 1024 * 1024
YAML = "application/yaml"  # RFC 9512

_LARGE = {f"{PATH}/bulk/domains", f"{PATH}/apply"}


class _AnyPath(PathConverter):
    """A path that may hold line breaks as well."""

    regex = r"[^/][\s\S]*?"


def register(app: Flask) -> None:
    """Add the API to an application."""
    blueprint = Blueprint("api", __name__)
    for error in (Exception, MethodNotAllowed):  # all but NotFound: it is for those without a key
        blueprint.register_error_handler(error, handler(as_problem))
    app.register_blueprint(blueprint)
    app.url_map.converters["any_path"] = _AnyPath
    for path in (PATH, f"{PATH}/", f"{PATH}/<any_path:path>"):  # of all methods
        app.url_map.add(Rule(path, endpoint="api.answer"))
    app.view_functions["api.answer"] = _answer


def max_body(environ: "WSGIEnvironment") -> int:
    """Return how many bytes the body of a request may have if it may be large, else 0.

    A web server asks before it reads the body. No database is asked: has_key() does.
    """
    is_key = KEY_FORM.fullmatch(edge.bearer(environ.get("HTTP_AUTHORIZATION", "")) or "")
    is_here = environ["REQUEST_METHOD"] == "POST" and normal(environ["PATH_INFO"]) in _LARGE
    if not (is_key and is_here):
        return 0
    mimetype = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    return MAX_YAML_BODY if mimetype == YAML else MAX_LARGE_BODY


def has_key(app: Flask, environ: "WSGIEnvironment") -> bool:
    """Return whether a request has a key that is valid; the database is asked.

    A web server asks before it reads a large body: few of them may be read at once, which strangers
    could keep from those with a key. False if it cannot be known: the request itself will fail.
    """
    from automx.api import access

    with app.app_context(), suppress(Exception):
        client = edge.read(environ, parts().settings.proxy_count).client
        return access.is_valid(environ.get("HTTP_AUTHORIZATION", ""), client)
    return False


def asks_backend(environ: "WSGIEnvironment") -> bool:
    """Return whether a request makes, changes or deletes an account, which may take a minute."""
    is_change = environ["REQUEST_METHOD"] in {"POST", "PATCH", "DELETE"}
    return is_change and normal(environ["PATH_INFO"]).startswith(f"{PATH}/accounts")


def may_change(environ: "WSGIEnvironment") -> bool:
    """Return whether a request may change rows, and wait for another change to end."""
    is_reading = environ["REQUEST_METHOD"] in {"GET", "HEAD"}
    return not is_reading and normal(environ["PATH_INFO"]).startswith(f"{PATH}/")


def _answer(path: str = "") -> Response:
    from automx.api.access import authenticate

    access = authenticate(request.headers.get("Authorization", ""))
    from automx.api.dispatch import answer

    if limit := max_body(request.environ):  # body() asks again
        request.max_content_length = limit
    return answer(access, f"/{path}")
