"""The path ``/`` and the other paths of QR codes: one URL for people, browsers and the app.

GET without the argument ``t`` is the page for people, GET with it the page of a token, and POST
makes an account. At ``/new_email``, mailadm's path, and the path of the setting ``web_endpoint``,
GET is always the page of a token.
"""

from urllib.parse import unquote, urlsplit

from flask import Blueprint, Response, g, request
from werkzeug.exceptions import BadHost, InternalServerError, MethodNotAllowed, NotFound

from automx.views import dcaccount, pagefiles, site, tokenpage, wellknown
from automx.views.failure import Failure, as_text, handler
from automx.views.paths import normal

_READING = {"GET", "HEAD"}

# Slashes of a path: each link of the page repeats "../" for them.
_DEEPEST = 10


def paths_of_accounts(web_endpoint: str) -> set[str]:
    """Return the paths at which a POST makes an account."""
    return {"/", "/new_email", normal(unquote(urlsplit(web_endpoint).path)) or "/"}


def make_blueprint(web_endpoint: str) -> Blueprint:
    """Return the blueprint of these paths and of requests that lead to no path at all."""
    paths = paths_of_accounts(web_endpoint)
    blueprint = Blueprint("root", __name__)
    for path in sorted(paths):
        for view, method in ((dcaccount.create, "POST"), (show, "GET")):
            blueprint.add_url_rule(path, view_func=view, methods=[method])

    def is_for_app() -> bool:
        is_here = request.path.rstrip("/") in {path.rstrip("/") for path in paths}
        return is_here and request.method not in _READING

    def show_unrouted(failure: Failure) -> Response:
        is_deep = request.path.count("/") > _DEEPEST
        if request.method in _READING and site.is_for_browser() and not is_deep:
            return site.failure_page(failure)
        # A QR code with a misprinted URL leads to any path.
        is_misprinted = isinstance(failure.error, NotFound) and request.method == "POST"
        return show_failure(failure) if is_for_app() or is_misprinted else as_text(failure)

    def show_double_failure(error: Exception) -> Response:
        """Show an error that was raised while another one was shown; Flask has logged it."""
        return dcaccount.out_of_order(error) if is_for_app() else handler(as_text)(error)

    blueprint.register_error_handler(Exception, handler(show_failure))
    for kind in (BadHost, NotFound, MethodNotAllowed):
        blueprint.app_errorhandler(kind)(handler(show_unrouted))
    blueprint.app_errorhandler(InternalServerError)(show_double_failure)
    return blueprint


def show() -> Response:
    """Show the page for people, the page of a token, the style sheet, or the logo.

    The page of a token loads these two from its own path: a proxy may pass on no other.
    """
    if "style" in request.args:
        return pagefiles.style_sheet()
    if "logo" in request.args:
        return wellknown.logo()
    return site.page() if _is_for_people() else tokenpage.page()


def show_failure(failure: Failure) -> Response:
    """Show a failure to people and browsers as a page, to the app as mailadm's JSON."""
    if _is_for_people():
        return site.failure_page(failure)
    if request.method in _READING or g.get("wants_profile"):
        return tokenpage.failure_page(failure)
    return dcaccount.error_document(failure)


def _is_for_people() -> bool:
    is_reading = request.method in _READING
    return is_reading and request.path == "/" and "t" not in request.args
