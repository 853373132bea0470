"""Autodiscover ([MS-OXDSCLI]); errors are Error documents."""

from datetime import UTC, datetime

from flask import Blueprint, Response, request

from automx.address import EmailAddress
from automx.cache import FoundConfig
from automx.errors import UnknownDomainError
from automx.formats import autodiscover
from automx.views.failure import Failure, handler
from automx.views.http import (
    WhoIs,
    argument,
    asked_config,
    body,
    found_config,
    parts,
    personal_document,
    public_document,
)

blueprint = Blueprint("autodiscover", __name__)


@blueprint.post(autodiscover.XML_PATH)
def post() -> Response:
    """Answer the request document in the body; FairEmail sends another Content-Type than XML."""
    asked = autodiscover.parse_request(body())
    address = EmailAddress.parse(asked.address)
    found = found_config(address.domain)
    document = document_for(found, address, asked, parts().known_person)
    return personal_document(document, autodiscover.CONTENT_TYPE)


def document_for(
    found: FoundConfig, address: EmailAddress, asked: autodiscover.Request, who_is: WhoIs
) -> bytes:
    """Return the document that a request for an address asks for. Raises as ``who_is``."""
    person = who_is(found, address)
    has_activesync = autodiscover.activesync_url(found.config, address) is not None
    if asked.mobilesync and (has_activesync or not asked.outlook_will_do):
        config = found.config.for_person(person.login_name, person.display_name)
        return autodiscover.render_mobilesync(config, address)
    template = found.rendered(autodiscover.template)
    return template.fill(address, person.login_name, person.display_name)


@blueprint.get(autodiscover.XML_PATH)
def get() -> Response:
    """Answer with the settings of the domain: Delta Chat asks this way."""
    found, _ = asked_config(argument(request.args, "emailaddress"))
    return public_document(found.document(autodiscover.render), autodiscover.CONTENT_TYPE)


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
