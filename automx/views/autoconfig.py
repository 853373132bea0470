"""Autoconfig (draft-ietf-mailmaint-autoconfig): the address is optional, the domain is not."""

from flask import Blueprint, Response

from automx.address import parse_domain
from automx.formats import autoconfig
from automx.views.http import asked_address, asked_domain, found_config, public_document

blueprint = Blueprint("autoconfig", __name__)


@blueprint.get("/mail/config-v1.1.xml")
@blueprint.get("/.well-known/autoconfig/mail/config-v1.1.xml")
def by_address_or_host() -> Response:
    """Answer for the domain of the address, or for the one that the host name stands for."""
    address = asked_address()
    return _document(address.domain if address else asked_domain())


@blueprint.get("/v1.1/<domain>")
def by_domain(domain: str) -> Response:
    """Answer as Mozilla's database of providers does (Thunderbird's mailnews.auto_config_url)."""
    return _document(parse_domain(domain))


def _document(domain: str) -> Response:
    body = found_config(domain).rendered(autoconfig.render)
    return public_document(body, autoconfig.CONTENT_TYPE)
