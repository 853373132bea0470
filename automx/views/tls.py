"""For which names a web server may get certificates: Caddy asks before each on-demand one.

Caddy sends the name of the TLS handshake (``on_demand_tls``, ``ask``), which any stranger may
choose; 200 means yes.
"""

import hmac
import logging
from contextlib import suppress

from flask import Blueprint, Response, request

from automx import edge
from automx.address import is_ip, parse_host
from automx.errors import BadRequestError, ForbiddenError, UnknownDomainError
from automx.views.http import NOT_LOCAL, argument, found_config, parts, personal_document

log = logging.getLogger(__name__)

blueprint = Blueprint("tls", __name__)


@blueprint.get("/tls/ask")
def ask() -> Response:
    """Answer 200 if clients of an enabled domain ask this service at the host ``domain``, else 404.

    Strangers get 403, whatever they ask.
    """
    _refuse_strangers()
    text = argument(request.args, "domain")
    if not text:
        raise BadRequestError("The argument domain is missing.")
    name = parse_host(text)
    if _is_ours(name):
        return _line(f"{name} may have a certificate.", 200)
    # Scanners ask for any name: this is no failure, which would be a line in the log each time.
    log.info("no certificate for %s", name)
    return _line(f"{name} gets no certificate.", 404)


def _refuse_strangers() -> None:
    """Raise ForbiddenError without the token of the settings, unless the request is a local one.

    A wrong token is refused to local programs as well: it is a mistake that should be seen.
    """
    expected = parts().settings.tls_ask_token
    token = argument(request.args, "token")
    if token:
        if not (expected and hmac.compare_digest(token.encode(), expected.encode())):
            raise ForbiddenError("The token is wrong.")
    elif not edge.is_local(request.environ):
        raise ForbiddenError(NOT_LOCAL)


def _is_ours(name: str) -> bool:
    """Return whether a name leads to the settings of a domain with a row of its own.

    A wildcard allows none: a certificate would be ordered for each name that a stranger makes up.
    Raises BadRecordError for a domain whose rows cannot be served, and DatabaseError.
    """
    if is_ip(name):
        return False
    if name == parts().settings.public_host:
        return True
    from automx.dns import domain_of_host  # few workers are asked

    domain = domain_of_host(name)
    if domain is None:
        return False
    with suppress(UnknownDomainError):
        return not found_config(domain).is_by_wildcard
    return False


def _line(text: str, status: int) -> Response:
    return personal_document(f"{text}\n", "text/plain; charset=utf-8", status=status)
