"""The root page: what this server is, and whether it is ready."""

from flask import Blueprint, render_template

from automx.errors import DatabaseError
from automx.views.health import check_ready

blueprint = Blueprint("site", __name__)


@blueprint.get("/")
def root() -> str:
    """Show the page; a server that is not ready says so, but not why."""
    try:
        check_ready()
    except DatabaseError:
        ready = False
    else:
        ready = True
    return render_template("root.html", ready=ready)
