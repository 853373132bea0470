"""Autoconfig (draft-ietf-mailmaint-autoconfig), for an address or for a domain alone."""

from flask import Blueprint, Response, request

from automx.address import EmailAddress, parse_domain
from automx.cache import FoundConfig
from automx.formats import autoconfig
from automx.views.http import (
    Parts,
    WhoIs,
    argument,
    asked_config,
    found_config,
    parts,
    personal_document,
    public_document,
)

blueprint = Blueprint("autoconfig", __name__)

_MADE_UP = "EVOLUTIONUSER"  # the local part that Evolution asks with


@blueprint.get(autoconfig.PATH)
@blueprint.get(f"/.well-known/autoconfig{autoconfig.PATH}")
@blueprint.get(f"/v1.1{autoconfig.PATH}")  # Nine, a client for Android
def by_address_or_host() -> Response:
    """Answer for the domain of ``emailaddress``, by default for that of the host name."""
    found, address = asked_config(argument(request.args, "emailaddress"))
    body = document_of_person(parts(), found, address, parts().known_person)
    return _document(found) if body is None else personal_document(body, autoconfig.CONTENT_TYPE)


def is_for_all(parts: Parts, found: FoundConfig) -> bool:
    """Return whether the document of a domain does for all its people."""
    return parts.directory_of(found) is None and not found.value(autoconfig.is_personal)


def document_of_person(
    parts: Parts, found: FoundConfig, address: EmailAddress | None, who_is: WhoIs
) -> bytes | None:
    """Return the document for an address; None if that of its domain does for it.

    Raises as ``who_is``.
    """
    if address is None or address.local_part == _MADE_UP or is_for_all(parts, found):
        return None
    login_name = who_is(found, address).login_name
    return found.rendered(autoconfig.template).fill(address, login_name)


@blueprint.get("/v1.1/<domain>")
def by_domain(domain: str) -> Response:
    """Answer as Mozilla's database of providers does (Thunderbird's mailnews.auto_config_url)."""
    return _document(found_config(parse_domain(domain)))


def _document(found: FoundConfig) -> Response:
    body = found.document(autoconfig.render)
    return public_document(body, autoconfig.CONTENT_TYPE)
