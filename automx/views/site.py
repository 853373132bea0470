"""The root page: what this server is, and whether it is ready."""

from flask import Response, render_template

from automx.errors import DatabaseError
from automx.views.health import check_ready


def root() -> Response:
    """Show the page; a server that is not ready says so, but not why."""
    try:
        check_ready()
    except DatabaseError:
        ready = False
    else:
        ready = True
    response = Response(render_template("root.html", ready=ready))
    response.headers["Cache-Control"] = "no-store"
    response.headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
