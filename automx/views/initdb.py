"""Seeding by HTTP, as in automx2: from this machine only, or with a token.

Where the database has no tables yet, or its file is missing, they are made first.
"""

import hmac

from flask import Blueprint, Response, request
from werkzeug.exceptions import MethodNotAllowed

from automx import migrations
from automx.address import is_loopback
from automx.database import is_in_memory
from automx.errors import ForbiddenError, SeedError
from automx.views.http import body, host_name, parts
from automx.views.session import current_session

# automx.seed is imported where it is used: it takes 3 MiB, and few workers seed.

blueprint = Blueprint("initdb", __name__)

MAX_SEED = 256 * 1024 * 1024  # bytes; a million domains have about 50 MB

_FORWARDING_HEADERS = (
    "Forwarded",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-IP",
)


@blueprint.before_request
def protect() -> None:
    """Refuse requests that neither have the token nor come from this machine."""
    expected = parts().settings.initdb_token
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if expected and scheme.lower() == "bearer":
        if hmac.compare_digest(token.strip().encode(), expected.encode()):
            return
        raise ForbiddenError("The token is wrong.")
    if not _is_local():
        raise ForbiddenError("This is allowed from the server itself only, or with a token.")


def _is_local() -> bool:
    """Return whether a program on this machine sends the request, and no proxy or web page does.

    A proxy on this machine connects from loopback for all its clients; its headers show it, whether
    ``proxy_count`` trusts it or not: ProxyFix ignores headers that are malformed or name fewer
    proxies, and the address of the proxy is left. A page of another site in a browser on this
    machine is known by Sec-Fetch-Site, or by its host name if that was made to point here (DNS
    rebinding).
    """
    if any(name in request.headers for name in _FORWARDING_HEADERS):
        return False
    if request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        return False
    return is_loopback(request.remote_addr or "") and is_loopback(host_name())


def get() -> Response:
    """Seed the fixed sample into an empty database."""
    from automx.seed import is_empty
    from automx.seeddocument import SAMPLE

    if request.method == "HEAD":  # Flask calls the view of GET, which would seed
        raise MethodNotAllowed(["GET", "POST", "DELETE"])
    _make_tables()
    if not is_empty(current_session()):
        return _line("The database holds data already; nothing was changed.")
    return _seed(SAMPLE)


def post() -> Response:
    """Seed the JSON document in the body."""
    from automx.seeddocument import parse

    request.max_content_length = MAX_SEED
    if request.mimetype != "application/json":  # a form in a web page cannot send this type
        raise SeedError("The Content-Type must be application/json.")
    document = parse(body(), "the body")
    _make_tables()
    return _seed(document)


def delete() -> Response:
    """Delete all rows of automx2's tables."""
    from automx.seed import purge

    _make_tables()
    purge(current_session())
    return _commit("All providers, servers, directories and domains were deleted.")


def _make_tables() -> None:
    db_uri = parts().settings.db_uri
    if not is_in_memory(db_uri):  # it has had its tables since the start
        migrations.create(db_uri)


def _seed(document: object) -> Response:
    from automx.seed import populate

    return _commit(f"Added: {populate(current_session(), document)}.")


def _commit(text: str) -> Response:
    current_session().commit()
    parts().cache.clear()
    return _line(text)


def _line(text: str) -> Response:
    return Response(f"{text}\n", content_type="text/plain; charset=utf-8")


for _view, _method in ((get, "GET"), (post, "POST"), (delete, "DELETE")):
    blueprint.add_url_rule("/initdb/", view_func=_view, methods=[_method])
    # automx2's readers type it without the slash, and curl follows no redirect.
    blueprint.add_url_rule(
        "/initdb", view_func=_view, methods=[_method], provide_automatic_options=False
    )
