"""The page of a token: what a browser shows that opens the URL of a QR code. It makes nothing.

If passwords may stand in Apple profiles, the page has a form that makes an account by POST and is
answered with its profile.
"""

from datetime import UTC, datetime

from flask import Response, g, render_template, request
from markupsafe import Markup

from automx.address import unicode_domain
from automx.clientconfig import ClientConfig
from automx.errors import DatabaseError, UnknownDomainError
from automx.formats import dclogin
from automx.texts import N_
from automx.views import frame, languages
from automx.views.dcaccount import offers_profile, reason
from automx.views.failure import Failure
from automx.views.http import argument, found_config, html_page, known_config, own_url, parts
from automx.views.session import current_session

_HEADLINES = {
    400: N_("This QR code does not work"),
    403: N_("This QR code does not work"),
    404: N_("This QR code does not work"),
    429: N_("A little too fast"),
}
_REPEATED = ("t", "n")  # arguments of a QR code
_LONGEST = 200  # letters of both; tokens are shorter
_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action {};"
    " frame-ancestors 'none'"
)


def page() -> Response:
    """Return the page of the token ``t``, with its QR code."""
    from automx.accounts import accounts, tokens  # 1 MiB, and few workers have tokens

    parts().limits.count_client()
    secret = argument(request.args, "t")
    session = current_session()
    token = tokens.find(session, secret)
    g.token_domain = token.domain
    token.check_usable(datetime.now(UTC))
    accounts.check_domain(session, token)
    session.close()  # others need the connection while the QR code is drawn
    found = found_config(token.domain)
    endpoint = parts().settings.web_endpoint or own_url(request.path)
    if not endpoint.startswith("https:"):  # the host is one that a stranger may claim
        raise UnknownDomainError(cause=f"web_endpoint is not set, and apps do not ask {endpoint}")
    text = dclogin.account_text(endpoint, secret, token.name)
    code = parts().drawings.svg(text, title=languages.translated("QR code"))
    lasts = None if token.lifetime is None else languages.spoken(languages.choose(), token.lifetime)
    return _page(
        200,
        N_("Your new mailbox is one scan away"),
        config=found.config,
        domain=unicode_domain(token.domain),
        lasts=lasts,
        code=Markup(code),  # noqa: S704 - made of numbers
        link=text.replace("DCACCOUNT:", "dcaccount:", 1),
        steps=dclogin.SCAN_STEPS,
        offers_profile=offers_profile(found),
    )


def failure_page(failure: Failure) -> Response:
    """Show a failure on a page."""
    headline = _HEADLINES.get(failure.status, N_("Not at the moment"))
    response = _page(
        failure.status, headline, config=_token_config(failure), reason=reason(failure)
    )
    response.headers.update(failure.headers)
    return response


def _page(status: int, headline: str, *, config: ClientConfig | None, **values: object) -> Response:
    """Return the page in the language of the visitor; ``headline`` is in English."""
    language = languages.choose()
    query = {name: text for name, text in request.args.items() if name in _REPEATED}
    if sum(map(len, query.values())) > _LONGEST:  # the page would be many times what was sent
        query = {}
    html = render_template(
        "token.html",
        **frame.values(config, language, query, is_alone=True),
        robots="noindex, nofollow",
        headline=languages.translated(headline),
        **values,
    )
    policy = _POLICY.format("'self'" if values.get("offers_profile") else "'none'")
    response = html_page(html, status, policy=policy, robots="noindex, nofollow")
    response.headers["Content-Language"] = language
    return response


def _token_config(failure: Failure) -> ClientConfig | None:
    """Return the settings of the domain of the token, else those of the host name's domain.

    None if there are none, or if they cannot be had.
    """
    domain: str = g.get("token_domain", "")
    if isinstance(failure.error, DatabaseError):
        return None
    if not domain and failure.status == 429:  # those who come too often cause no look-up
        return None
    return known_config(domain)
