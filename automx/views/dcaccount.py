"""Delta Chat accounts: what the QR code of a token leads to.

The app that scanned the code asks by POST, and is answered as mailadm answers; a person who opens
the link in a browser sees a page, and nothing is made. The app shows the ``reason`` of an error to
the person, word for word. If passwords may stand in Apple profiles, the page has a form as well: it
asks at the same URL, and is answered with the profile of a new account, or with a page.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from hashlib import blake2b
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from flask import Blueprint, Response, current_app, g, render_template, request
from markupsafe import Markup
from werkzeug.exceptions import BadHost, InternalServerError, MethodNotAllowed, NotFound

from automx.accounts import accounts, tokens
from automx.accounts.tokens import Token
from automx.address import EmailAddress, unicode_domain
from automx.backends import Backends
from automx.cache import FoundConfig
from automx.config import Settings
from automx.duration import format_duration
from automx.errors import ForbiddenError, TakenError
from automx.formats import dclogin, mobileconfig, qr
from automx.views import site
from automx.views.errors import answer_for
from automx.views.http import argument, body, found_config
from automx.views.limits import LIMITS, Limits
from automx.views.mobileconfig import profile_answer
from automx.views.session import current_session

BACKENDS = "automx.backends"  # the key of the Backends in app.extensions

_READING = {"GET", "HEAD"}

_FORM_TYPE = "application/x-www-form-urlencoded"
_NO_PROFILE = (
    "This server gives out no profiles for these mailboxes. Please scan the QR code with the app"
    " Delta Chat."
)

# By status: what is to be said in words for everyone, and for some people only in the log.
_REASONS = {
    400: "This QR code is damaged. Please scan it again, or ask for a new one.",
    404: "This QR code leads to a wrong address. Please ask for a new one.",
    405: "This address is for the app Delta Chat. Please scan the QR code with it.",
    413: "This request is too large. Please scan the QR code with the app Delta Chat.",
    500: (
        "This server cannot make mailboxes now; its administrator has to look into it. Please try"
        " again later."
    ),
}
_TAKEN = "The address of this QR code is taken already. Please ask for another QR code."
_HEADLINES = {
    400: "This QR code does not work",
    403: "This QR code does not work",
    429: "A little too fast",
}

_UNITS = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "y": "year"}

_PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}


def make_blueprint(web_endpoint: str) -> Blueprint:
    """Return the pages at ``/``, ``/new_email`` and the path of the setting ``web_endpoint``."""
    paths = {"/", "/new_email", unquote(urlsplit(web_endpoint).path) or "/"}
    blueprint = Blueprint("dcaccount", __name__)
    for path in sorted(paths):
        for view, method in ((create, "POST"), (show, "GET")):
            # No redirects: the app does not follow them.
            blueprint.add_url_rule(
                path, view_func=view, methods=[method], strict_slashes=False, merge_slashes=False
            )

    def is_ours() -> bool:
        ours = request.path.rstrip("/") in {path.rstrip("/") for path in paths}
        return ours and request.method not in _READING

    def unrouted(error: Exception) -> Response:
        """Answer a request that led to no function; a misprinted code leads to any path."""
        is_misprinted = isinstance(error, NotFound) and request.method == "POST"
        return error_answer(error) if is_ours() or is_misprinted else answer_for(error)

    def unanswered(error: Exception) -> Response:
        """Answer an error that came up while another one was answered; Flask has logged it."""
        return _json_error(500, _REASONS[500]) if is_ours() else answer_for(error)

    blueprint.register_error_handler(Exception, error_answer)
    for kind in (BadHost, NotFound, MethodNotAllowed):
        blueprint.app_errorhandler(kind)(unrouted)
    blueprint.app_errorhandler(InternalServerError)(unanswered)
    return blueprint


def create() -> Response:
    """Make an account; mailadm's URL also has the token's name, ``n``, which says nothing new."""
    limits: Limits = current_app.extensions[LIMITS]
    backends: Backends = current_app.extensions[BACKENDS]
    try:  # the app sends nothing, but some web servers want it to be read
        g.wants_profile = _is_form_of_page(body())
    finally:
        limits.count_client()
    secret = argument(request.args, "t")
    if secret:
        limits.count_token()
    now = datetime.now(UTC)
    session = current_session()
    token = tokens.find(session, secret)
    found = None
    if g.wants_profile:  # nothing may go wrong with it once the account is made
        accounts.check_domain(session, token)
        found = found_config(token.domain)
        if not _offers_profile(found):
            raise ForbiddenError(_NO_PROFILE)
    account = accounts.create(session, token, backends, now=now)
    address = EmailAddress.parse(account.address)
    if found is not None:
        profile = mobileconfig.render(
            found.config, address, password=account.password, removal_date=account.expires_at
        )
        return profile_answer(profile, address)
    ttl = None if account.lifetime is None else int(account.lifetime.total_seconds())
    return _json(
        200,
        {
            "email": account.address,
            "password": account.password,
            "expiry": account.expiry,
            "ttl": ttl,
            "dclogin_url": dclogin.login_text(address, account.password),
        },
    )


def show() -> Response:
    """Show the page of a token, which makes nothing; without a token, ``/`` is the root page."""
    if "style" in request.args:
        return _style_sheet()
    if request.path == "/" and "t" not in request.args:
        return site.root()
    settings: Settings = current_app.config["AUTOMX"]
    limits: Limits = current_app.extensions[LIMITS]
    limits.count_client()
    secret = argument(request.args, "t")
    token = tokens.find(current_session(), secret)
    token.check_usable(datetime.now(UTC))
    accounts.check_domain(current_session(), token)
    found = found_config(token.domain)
    text = dclogin.account_text(settings.web_endpoint or request.base_url, secret, token.name)
    return _page(
        200,
        "Your new mailbox is one scan away",
        provider=found.config.provider_name,
        domain=unicode_domain(token.domain),
        lasts=_in_words(token),
        code=Markup(qr.svg(text, title="QR code")),  # noqa: S704 - made of numbers
        link=text.replace("DCACCOUNT:", "dcaccount:", 1),
        steps=dclogin.SCAN_STEPS,
        offers_profile=_offers_profile(found),
    )


def _is_form_of_page(content: bytes) -> bool:
    """Tell whether a body is the form on the page of a token."""
    is_form = (request.content_type or "").partition(";")[0].strip().lower() == _FORM_TYPE
    return is_form and parse_qs(content.decode("latin-1")).get("profile") == ["1"]


def _offers_profile(found: FoundConfig) -> bool:
    """Tell whether new accounts of a domain may have a profile, and it is certain to be right.

    Where a directory tells the login names, it need not know a person who was made just now.
    """
    settings: Settings = current_app.config["AUTOMX"]
    is_complete = bool(found.config.incoming and found.config.outgoing)
    return settings.permit_cleartext_passwords and found.ldap_server is None and is_complete


def error_answer(error: Exception) -> Response:
    """Answer an error with a reason that everyone understands: as JSON, to a browser as a page."""
    answer = answer_for(error)
    if request.method in _READING and request.path == "/" and "t" not in request.args:
        return answer  # the page for people, which has nothing to do with QR codes
    status, reason = answer.status_code, _reason(error, answer)
    if request.method in _READING or g.get("wants_profile"):
        told = _page(status, _HEADLINES.get(status, "Not at the moment"), reason=reason)
    else:
        told = _json_error(status, reason)
    for name in ("Retry-After", "Allow"):
        if name in answer.headers:
            told.headers[name] = answer.headers[name]
    return told


def _reason(error: Exception, answer: Response) -> str:
    """Return what to tell a person; errors of the rules and of backends tell it themselves."""
    if answer.status_code in _REASONS:
        return _REASONS[answer.status_code]
    text = answer.get_data(as_text=True).strip()
    return _TAKEN if text == TakenError.public else text


def _json_error(status: int, reason: str) -> Response:
    return _json(status, {"type": "error", "status_code": status, "reason": reason})


def _json(status: int, document: Mapping[str, object]) -> Response:
    text = json.dumps(document, indent=2, ensure_ascii=False)
    answer = Response(f"{text}\n", status, content_type="application/json")
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer


def _page(status: int, headline: str, **values: object) -> Response:
    """Return a page that keeps its URL, which has the token in it, to itself."""
    style, _ = _style()
    answer = Response(
        render_template("token.html", headline=headline, style=style, **values), status
    )
    answer.headers.update(_PAGE_HEADERS)
    if values.get("offers_profile"):
        policy = _PAGE_HEADERS["Content-Security-Policy"]
        policy = policy.replace("form-action 'none'", "form-action 'self'")
        answer.headers["Content-Security-Policy"] = policy
    return answer


def _style_sheet() -> Response:
    """Return the style sheet: below the path of the page, where proxies let it through."""
    _, text = _style()
    answer = Response(text, content_type="text/css; charset=utf-8")
    answer.headers["Cache-Control"] = "public, max-age=86400"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer


@cache
def _style() -> tuple[str, bytes]:
    """Return what tells one version of the style sheet from another, and the sheet itself."""
    text = (Path(__file__).parent.parent / "static" / "token.css").read_bytes()
    return blake2b(text, digest_size=4).hexdigest(), text


def _in_words(token: Token) -> str | None:
    """Return how long an account lasts, such as "1 day"; None for ever."""
    if token.lifetime is None:
        return None
    text = format_duration(token.lifetime)
    number = int(text[:-1])
    return f"{number} {_UNITS[text[-1]]}{'s' * (number != 1)}"
