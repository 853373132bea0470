"""Seeding by HTTP, as in automx2: with a token, or the first seed by a program on this machine.

Where the database has no tables yet, or its file is missing, they are made first.
"""

import logging
from typing import TYPE_CHECKING

from flask import Blueprint, Response, request
from werkzeug.exceptions import MethodNotAllowed

from automx import edge
from automx.config import Settings
from automx.database import is_in_memory
from automx.errors import ForbiddenError, SeedError
from automx.views.http import NOT_LOCAL, body, parts
from automx.views.session import current_session

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# What makes tables and seeds is imported where it is used: it takes 3 MiB, and few workers seed.

log = logging.getLogger(__name__)

blueprint = Blueprint("initdb", __name__)

# Bytes; a million domains have about 50 MB. Who sends a first seed may be a stranger after all.
MAX_SEED, MAX_FIRST_SEED = 256 * 1024 * 1024, 4 * 1024 * 1024

_ACTOR = "initdb"  # in the audit
_HOLDS_DATA = "The database holds data already; nothing was changed."
_NEEDED = "the token of the setting initdb_token (Authorization: Bearer TOKEN)"


@blueprint.before_request
def protect() -> None:
    """Refuse requests that have no right to be here."""
    _has_token(request.environ, parts().settings)


def max_body(environ: "WSGIEnvironment", settings: Settings) -> int:
    """Return how many bytes the body of a request for /initdb/ may have, 0 if it is refused.

    A web server asks before it reads the body. No database is asked.
    """
    if edge.read(environ, settings.proxy_count).error:
        return 0
    try:
        return MAX_SEED if _has_token(environ, settings) else MAX_FIRST_SEED
    except ForbiddenError:
        return 0


def _has_token(environ: "WSGIEnvironment", settings: Settings) -> bool:
    """Return whether a request has the token of the settings; if not, it may only be a first seed.

    Raises ForbiddenError if it may not even be that.
    """
    expected = settings.initdb_token
    authorization = environ.get("HTTP_AUTHORIZATION", "")
    if expected and edge.bearer(authorization) is not None:
        if edge.has_token(authorization, expected):
            return True
        raise ForbiddenError("The token is wrong.")
    if environ["REQUEST_METHOD"] == "DELETE":
        raise ForbiddenError(f"This needs {_NEEDED}. Without it, run: automx purge")
    if expected:
        raise ForbiddenError(f"This needs {_NEEDED}.")
    if not edge.is_local(environ):
        raise ForbiddenError(NOT_LOCAL)
    return False


def warn_if_unfilled(settings: Settings) -> None:
    """Log a warning if the database is empty and may be filled without a token."""
    from automx.firstseed import is_unfilled

    if not settings.initdb_token and is_unfilled(settings.db_uri):
        log.warning(
            "the database is empty and initdb_token is not set: until there is a row, programs on"
            " this machine can fill it at /initdb/, and so can clients of a proxy here that adds no"
            " X-Forwarded-For"
        )


def get() -> Response:
    """Seed the fixed sample into an empty database."""
    from automx import firstseed, seed
    from automx.seeddocument import SAMPLE

    if request.method == "HEAD":  # Flask calls the view of GET, which would seed
        raise MethodNotAllowed(["GET", "POST", "DELETE"])
    _make_tables()
    is_free = seed.is_empty if _has_token(request.environ, parts().settings) else firstseed.begin
    return _seed(SAMPLE) if is_free(current_session()) else _line(_HOLDS_DATA)


def post() -> Response:
    """Seed the JSON document in the body."""
    from automx import firstseed
    from automx.seeddocument import parse

    request.max_content_length = max_body(request.environ, parts().settings)
    if request.mimetype != "application/json":  # a form in a web page cannot send this type
        raise SeedError("The Content-Type must be application/json.")
    document = parse(body(), "the body")
    _make_tables()
    session = current_session()
    if _has_token(request.environ, parts().settings) or firstseed.begin(session):
        return _seed(document)
    if firstseed.adds_nothing(session, document):
        return _line(_HOLDS_DATA)
    raise ForbiddenError(f"The database holds data already: to add more, send {_NEEDED}.")


def delete() -> Response:
    """Delete all rows of automx2's tables."""
    from automx.seed import purge

    _make_tables()
    purge(current_session(), actor=_ACTOR)
    return _commit("All providers, servers, directories and domains were deleted.")


def _make_tables() -> None:
    db_uri, session = parts().settings.db_uri, current_session()
    session.allow_large_changes()
    if not is_in_memory(db_uri):  # it has had its tables since the start
        from automx import migrations

        migrations.create(db_uri, session)


def _seed(document: object) -> Response:
    from automx.seed import populate

    return _commit(f"Added: {populate(current_session(), document, actor=_ACTOR)}.")


def _commit(text: str) -> Response:
    current_session().commit()
    parts().cache.clear()
    return _line(text)


def _line(text: str) -> Response:
    return Response(f"{text}\n", content_type="text/plain; charset=utf-8")


for _view, _method in ((get, "GET"), (post, "POST"), (delete, "DELETE")):
    # Without the slash, so that werkzeug knows the methods of both forms.
    blueprint.add_url_rule("/initdb", view_func=_view, methods=[_method])
