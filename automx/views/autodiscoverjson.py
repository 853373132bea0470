"""Autodiscover in JSON, which leads to the XML; there is no public standard for it."""

import json

from flask import Blueprint, Response, current_app, request

from automx.address import EmailAddress
from automx.config import Settings
from automx.errors import AutomxError, BadRequestError, UnknownDomainError
from automx.formats import autodiscover
from automx.views.errors import answer_for
from automx.views.http import asked_domain, found_config, host_name

blueprint = Blueprint("autodiscoverjson", __name__)

CONTENT_TYPE = "application/json; charset=utf-8"


class InvalidProtocolError(BadRequestError):
    """The client asks for a protocol that this domain does not have."""


@blueprint.get("/autodiscover/autodiscover.json")
@blueprint.get("/autodiscover/autodiscover.json/v1.0/<path:address>")
def lead(address: str = "") -> Response:
    """Tell where a protocol is spoken; the names of the arguments may have any case."""
    arguments = {name.lower(): value for name, value in request.args.items()}
    text = address or arguments.get("email", "")
    person = EmailAddress.parse(text) if text.strip() else None
    config = found_config(person.domain if person else asked_domain()).config
    match arguments.get("protocol", "").lower():
        case "autodiscoverv1":
            url = f"https://{_known_host(config.domain)}{autodiscover.XML_PATH}"
            return _json({"Protocol": "AutodiscoverV1", "Url": url})
        case "activesync" if url := autodiscover.activesync_url(config, person) or "":
            return _json({"Protocol": "ActiveSync", "Url": url})
    raise InvalidProtocolError("This protocol is not served here.")


def _known_host(domain: str) -> str:
    """Return the host that the client asked, if it is one of the domain's or of the settings."""
    settings: Settings = current_app.config["AUTOMX"]
    standard = f"autodiscover.{domain}"
    known = {standard, domain, settings.public_host}
    return host if (host := host_name()) in known else standard


@blueprint.errorhandler(Exception)
def error(exception: Exception) -> Response:
    """Answer an error in the form that Exchange has."""
    answer = answer_for(exception)
    if answer.status_code < 400:
        return answer
    code = "InternalServerError" if answer.status_code >= 500 else "InvalidRequest"
    if isinstance(exception, InvalidProtocolError):
        code = "InvalidProtocol"
    elif isinstance(exception, UnknownDomainError):
        code = "UserNotFound"
    message = str(exception) if isinstance(exception, AutomxError) else AutomxError.public
    answer.set_data(json.dumps({"ErrorCode": code, "ErrorMessage": message}))
    answer.headers["Content-Type"] = CONTENT_TYPE
    return answer


def _json(content: dict[str, str]) -> Response:
    answer = Response(json.dumps(content), content_type=CONTENT_TYPE)
    answer.headers["Cache-Control"] = "no-store"
    return answer
