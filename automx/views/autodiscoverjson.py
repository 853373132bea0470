"""Autodiscover in JSON, which gives the URL of a protocol; no standard of it is published."""

import json
from functools import partial

from flask import Blueprint, Response, request

from automx import lookup
from automx.address import parse_domain
from automx.errors import AddressError, BadRequestError, UnknownDomainError
from automx.formats import autodiscover
from automx.views.failure import Failure, handler
from automx.views.http import asked_config, host_name, parts, personal_document

blueprint = Blueprint("autodiscoverjson", __name__)

CONTENT_TYPE = "application/json; charset=utf-8"


class InvalidProtocolError(BadRequestError):
    """The client asks for a protocol that the domain does not have."""


@blueprint.get("/autodiscover/autodiscover.json")
@blueprint.get("/autodiscover/autodiscover.json/v1.0/<path:address>")
def lead(address: str = "") -> Response:
    """Answer with the URL of ``protocol`` for ``email``; names of arguments may have any case."""
    arguments = {name.lower(): value for name, value in request.args.items()}
    found, person = asked_config(address or arguments.get("email", ""))
    config = found.config
    match arguments.get("protocol", "").lower():
        case "autodiscoverv1":
            url = f"https://{_known_host(config.domain)}{autodiscover.XML_PATH}"
            return _json({"Protocol": "AutodiscoverV1", "Url": url})
        case "activesync" if url := autodiscover.activesync_url(config, person) or "":
            return _json({"Protocol": "ActiveSync", "Url": url})
    raise InvalidProtocolError("This protocol is not served here.")


def _known_host(domain: str) -> str:
    """Return the host name of the request if it is known, else the standard one of the domain.

    Known are those of the domain, of the settings, and ``autodiscover`` in any domain of the
    database: SRV records of other domains may lead there.
    """
    host, standard = host_name(), f"autodiscover.{domain}"
    known = {standard, domain, parts().settings.public_host or standard}
    return host if host in known or _is_autodiscover(host) else standard


def _is_autodiscover(host: str) -> bool:
    name = host.removeprefix("autodiscover.")
    try:
        domain = parse_domain(name)
    except AddressError:
        return False
    return name != host and parts().reading.read(partial(lookup.names, domain=domain))


def error_document(failure: Failure) -> Response:
    """Show a failure in the form of Exchange."""
    match failure.error:
        case InvalidProtocolError():
            code = "InvalidProtocol"
        case UnknownDomainError():
            code = "UserNotFound"
        case _:
            code = "InternalServerError" if failure.status >= 500 else "InvalidRequest"
    return failure.response(
        json.dumps({"ErrorCode": code, "ErrorMessage": failure.text}), CONTENT_TYPE
    )


def _json(content: dict[str, str]) -> Response:
    return personal_document(json.dumps(content), CONTENT_TYPE)


blueprint.register_error_handler(Exception, handler(error_document))
