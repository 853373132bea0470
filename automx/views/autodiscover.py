"""Autodiscover ([MS-OXDSCLI]), at a path in any case; errors are Error documents."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flask import Blueprint, Response, request

from automx.address import EmailAddress
from automx.errors import BadRequestError, UnknownDomainError
from automx.formats import autodiscover
from automx.views.failure import Failure, handler
from automx.views.http import (
    asked_address,
    asked_domain,
    body,
    found_config,
    known_person,
    personal_document,
    public_document,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

blueprint = Blueprint("autodiscover", __name__)

_XML_TYPES = {"text/xml", "application/xml"}


def any_case(wsgi_app: "WSGIApplication") -> "WSGIApplication":
    """Wrap an application so that paths below /autodiscover/ match in any case: clients differ."""

    def call(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path[:14].lower() == "/autodiscover/":
            environ["PATH_INFO"] = path.lower()
        return wsgi_app(environ, start_response)

    return call


@blueprint.post(autodiscover.XML_PATH)
def post() -> Response:
    """Answer the request document in the body."""
    if (request.content_type or "").partition(";")[0].strip().lower() not in _XML_TYPES:
        raise BadRequestError("The Content-Type must be text/xml.")
    asked = autodiscover.parse_request(body())
    address = EmailAddress.parse(asked.address)
    found = found_config(address.domain)
    person = known_person(found, address)
    if asked.mobilesync:
        config = found.config.for_person(person.login_name, person.display_name)
        document = autodiscover.render_mobilesync(config, address)
        return personal_document(document, autodiscover.CONTENT_TYPE)
    template = found.rendered(autodiscover.template)
    document = template.fill(address, person.login_name, person.display_name)
    return personal_document(document, autodiscover.CONTENT_TYPE)


@blueprint.get(autodiscover.XML_PATH)
def get() -> Response:
    """Answer with the settings of the domain: Delta Chat asks this way."""
    address = asked_address()
    found = found_config(address.domain if address else asked_domain())
    return public_document(found.rendered(autodiscover.render), autodiscover.CONTENT_TYPE)


def error_document(failure: Failure) -> Response:
    """Show a failure as an Error document of [MS-OXDSCLI]."""
    document = autodiscover.render_error(_code(failure), failure.text, now=datetime.now(UTC))
    return failure.response(document, autodiscover.CONTENT_TYPE)


def _code(failure: Failure) -> int:
    """Return the ErrorCode of [MS-OXDSCLI] that fits best."""
    if isinstance(failure.error, UnknownDomainError):
        return 500  # the address cannot be found
    if isinstance(failure.error, autodiscover.SchemaNotServedError):
        return 601  # the schema is not served
    return 600 if failure.status < 500 else 603  # invalid request, or an error of the server


blueprint.register_error_handler(Exception, handler(error_document))
