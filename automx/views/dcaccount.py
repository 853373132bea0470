"""Delta Chat accounts: the app asks for one by POST and is answered in JSON, as by mailadm.

The app shows the ``reason`` of an error as it is. The form on the page of a token asks for an
account as well, and is answered with an Apple profile.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qs

from flask import Response, g, request

from automx.address import EmailAddress
from automx.cache import FoundConfig
from automx.errors import BadRecordError, ForbiddenError, TakenError
from automx.formats import dclogin, mobileconfig
from automx.texts import N_
from automx.views import languages
from automx.views.failure import Failure
from automx.views.http import (
    NOSNIFF,
    argument,
    body,
    directory_of,
    found_config,
    parts,
    personal_document,
)
from automx.views.mobileconfig import profile_response
from automx.views.session import current_session

_FORM_TYPE = "application/x-www-form-urlencoded"
_NO_PROFILE = N_(
    "This server gives out no profiles for these mailboxes. Please scan the QR code with the app"
    " Delta Chat."
)

# By status, for people who know nothing of HTTP. The cause is in the log.
_REASONS = {
    400: N_("This QR code is damaged. Please scan it again, or ask for a new one."),
    404: N_("This QR code leads to a wrong address. Please ask for a new one."),
    405: N_("This address is for the app Delta Chat. Please scan the QR code with it."),
    408: N_("This request came too slowly. Please check your connection and try again."),
    413: N_("This request is too large. Please scan the QR code with the app Delta Chat."),
    500: N_("This server cannot make mailboxes; its administrator has to look into it."),
}
_TAKEN = N_("The address of this QR code is taken already. Please ask for another QR code.")


def create() -> Response:
    """Make an account for the token ``t``; the argument ``n`` of mailadm's URLs has no effect."""
    from automx.accounts import accounts, created, tokens  # 1 MiB, and few workers make accounts

    try:  # the app sends no body, but some web servers require that it is read
        g.wants_profile = _is_form_of_page(body())
    finally:
        parts().limits.count_client()
    secret = argument(request.args, "t")
    if secret:
        parts().limits.count_token()
    now = datetime.now(UTC)
    session = current_session()
    token = tokens.find(session, secret)
    g.token_domain = token.domain
    accounts.check_usable(session, token, now)
    # All that can fail comes before the account is made.
    accounts.check_domain(session, token)
    session.close()  # two connections at once could make requests wait for each other
    try:
        found = found_config(token.domain)
    except BadRecordError:  # the account can be used all the same, by typing the servers
        if g.wants_profile:
            raise
        found = None
    if g.wants_profile and not (found and offers_profile(found)):
        raise ForbiddenError(_NO_PROFILE)
    account = accounts.create(session, token, parts().backends, now=now)
    created.tell(parts().settings.accounts, account, token)
    address = EmailAddress.parse(account.address)
    if g.wants_profile and found:
        profile = mobileconfig.render(
            found.config, address, password=account.password, removal_date=account.expires_at
        )
        return profile_response(profile, address)
    ttl = None if account.lifetime is None else int(account.lifetime.total_seconds())
    document = {
        "status_code": 200,
        "email": account.address,
        "password": account.password,
        "expiry": account.expiry,
        "ttl": ttl,
        "dclogin_url": dclogin.new_login_text(
            address, account.password, found.config if found else None
        ),
    }
    return personal_document(_json(document), "application/json", NOSNIFF)


def _is_form_of_page(content: bytes) -> bool:
    """Return whether a body is the form on the page of a token."""
    fields = parse_qs(content.decode("latin-1"))
    return request.mimetype == _FORM_TYPE and fields.get("profile") == ["1"]


def offers_profile(found: FoundConfig) -> bool:
    """Return whether new accounts of a domain may have a profile that is certain to be right.

    A directory that holds the login names may not know a new account yet.
    """
    is_permitted = parts().settings.permit_cleartext_passwords and directory_of(found) is None
    return is_permitted and mobileconfig.is_possible(found.config)


def reason(failure: Failure) -> str:
    """Return the text for a person with a QR code, in the language that the client prefers."""
    is_taken = type(failure.error) is TakenError
    text = _TAKEN if is_taken else _REASONS.get(failure.status, failure.text)
    return languages.translated(text)


def error_document(failure: Failure) -> Response:
    """Show a failure as mailadm's JSON."""
    return _document(failure, reason(failure))


def out_of_order(error: Exception) -> Response:
    """Return the error document of status 500, without use of what may be broken: in English."""
    return _document(Failure(500, "", {}, error), _REASONS[500])


def _document(failure: Failure, text: str) -> Response:
    document = {"type": "error", "status_code": failure.status, "reason": text}
    return failure.response(_json(document), "application/json")


def _json(document: Mapping[str, object]) -> bytes:
    return f"{json.dumps(document, indent=2, ensure_ascii=False)}\n".encode()
