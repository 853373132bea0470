"""Redirects to calendars and address books (RFC 6764, section 5), and the logo of a provider."""

from functools import partial
from urllib.parse import urlsplit

from flask import Blueprint, Response, request
from werkzeug.urls import iri_to_uri

from automx import lookup
from automx.address import parse_domain, shared_url
from automx.clientconfig import ClientConfig, ServiceType
from automx.errors import UnknownDomainError
from automx.formats import pacc
from automx.views.http import (
    Answer,
    argument,
    asked_domain,
    found_config,
    host_name,
    parts,
    public_document,
    tell_age,
)

blueprint = Blueprint("wellknown", __name__)


# Path of a service -> its type.
SERVICES = {
    "/.well-known/caldav": ServiceType.CALDAV,
    "/.well-known/carddav": ServiceType.CARDDAV,
}


@blueprint.route("/.well-known/<any(caldav, carddav):name>", methods=["GET", "PROPFIND", "OPTIONS"])
def service(name: str) -> Response:
    """Redirect to the first URL of a type that is the same for all people of the domain.

    A URL that leads to this one again is skipped.
    """
    config = found_config(asked_domain()).config
    answer = redirect(config, ServiceType(name), host_name(), request.path)
    response = Response(answer.body, answer.status, answer.headers)
    tell_age(response)
    return response


def redirect(config: ClientConfig, kind: ServiceType, host: str, path: str) -> Answer:
    """Return the redirect to a service for a request to a path of a host.

    Raises UnknownDomainError if the domain has no such service.
    """
    for server in config.services:
        url = shared_url(server.url, config.domain) if server.type == kind else None
        if url and not _is_asked(url, host, path):
            headers = [
                ("Content-Type", "text/html; charset=utf-8"),
                ("Location", iri_to_uri(url)),
                ("Cache-Control", "no-store"),
                ("Content-Length", "0"),
            ]
            return Answer(301, headers, b"")
    raise UnknownDomainError("There is no such service for this domain.")


@blueprint.get(pacc.LOGO_PATH)
def logo() -> Response:
    """Answer with the logo of the provider of ``domain``, by default the one of the host name."""
    name = argument(request.args, "domain")
    domain = parse_domain(name) if name else asked_domain()
    content_type, body = parts().reading.read(partial(lookup.logo, domain=domain))
    response = public_document(body, content_type)
    # A logo may be SVG, which may hold scripts.
    response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _is_asked(url: str, host: str, path: str) -> bool:
    """Return whether a URL is the one of the request."""
    split = urlsplit(url)
    return split.hostname == host and split.path.rstrip("/") == path.rstrip("/")
