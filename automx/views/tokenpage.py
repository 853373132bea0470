"""The page of a token: what a browser shows that opens the URL of a QR code. It makes nothing.

If passwords may stand in Apple profiles, the page has a form that makes an account by POST and is
answered with its profile.
"""

from datetime import UTC, datetime
from functools import cache
from hashlib import blake2b
from pathlib import Path

from flask import Response, current_app, render_template, request
from markupsafe import Markup

from automx.accounts import accounts, tokens
from automx.accounts.tokens import Token
from automx.address import unicode_domain
from automx.config import Settings
from automx.duration import format_duration
from automx.formats import dclogin, qr
from automx.views.dcaccount import offers_profile, reason
from automx.views.failure import Failure
from automx.views.http import argument, found_config, html_page
from automx.views.limits import LIMITS, Limits
from automx.views.session import current_session

_HEADLINES = {
    400: "This QR code does not work",
    403: "This QR code does not work",
    429: "A little too fast",
}
_UNITS = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "y": "year"}
_POLICY = (
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action {}; frame-ancestors 'none'"
)


def page() -> Response:
    """Return the page of the token ``t``, with its QR code."""
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
        offers_profile=offers_profile(found),
    )


def failure_page(failure: Failure) -> Response:
    """Show a failure on a page."""
    headline = _HEADLINES.get(failure.status, "Not at the moment")
    response = _page(failure.status, headline, reason=reason(failure))
    response.headers.update(failure.headers)
    return response


def style_sheet() -> Response:
    """Return the style sheet, at the path of the page: a proxy may pass on no other."""
    _, text = _style()
    response = Response(text, content_type="text/css; charset=utf-8")
    response.headers["Cache-Control"] = "public, max-age=86400"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _page(
    status: int, headline: str, *, offers_profile: bool = False, **values: object
) -> Response:
    style, _ = _style()
    html = render_template(
        "token.html", headline=headline, style=style, offers_profile=offers_profile, **values
    )
    policy = _POLICY.format("'self'" if offers_profile else "'none'")
    return html_page(html, status, policy=policy, robots="noindex, nofollow")


@cache
def _style() -> tuple[str, bytes]:
    """Return the version of the style sheet, in hexadecimal digits, and the sheet itself."""
    text = (Path(__file__).parent.parent / "static" / "token.css").read_bytes()
    return blake2b(text, digest_size=4).hexdigest(), text


def _in_words(token: Token) -> str | None:
    """Return the lifetime of an account, such as "1 day"; None if it has no end."""
    if token.lifetime is None:
        return None
    text = format_duration(token.lifetime)
    number = int(text[:-1])
    return f"{number} {_UNITS[text[-1]]}{'s' * (number != 1)}"
