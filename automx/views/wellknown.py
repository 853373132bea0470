"""Redirects to calendars and address books (RFC 6764, section 5), and the logo of a provider."""

from urllib.parse import urlsplit

from flask import Blueprint, Response, request

from automx import lookup
from automx.address import parse_domain, shared_url
from automx.clientconfig import ServiceType
from automx.errors import UnknownDomainError
from automx.formats import pacc
from automx.views.http import (
    argument,
    asked_domain,
    found_config,
    host_name,
    public_document,
    tell_age,
)
from automx.views.session import current_session

blueprint = Blueprint("wellknown", __name__)


@blueprint.route("/.well-known/<any(caldav, carddav):name>", methods=["GET", "PROPFIND", "OPTIONS"])
def service(name: str) -> Response:
    """Redirect to the first URL of a type that is the same for all people of the domain.

    A URL that leads to this one again is skipped.
    """
    config = found_config(asked_domain()).config
    for server in config.services:
        url = shared_url(server.url, config.domain) if server.type == ServiceType(name) else None
        if url and not _is_asked(url):
            response = Response(status=301, headers={"Location": url, "Cache-Control": "no-store"})
            tell_age(response)
            return response
    raise UnknownDomainError("There is no such service for this domain.")


@blueprint.get(pacc.LOGO_PATH)
def logo() -> Response:
    """Answer with the logo of the provider of ``domain``, by default the one of the host name."""
    name = argument(request.args, "domain")
    domain = parse_domain(name) if name else asked_domain()
    content_type, body = lookup.logo(current_session(), domain)
    response = public_document(body, content_type)
    # A logo may be SVG, which may hold scripts.
    response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _is_asked(url: str) -> bool:
    """Return whether a URL is the one of the request."""
    parts = urlsplit(url)
    return parts.hostname == host_name() and parts.path.rstrip("/") == request.path.rstrip("/")
