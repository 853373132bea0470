"""PACC (draft-ietf-mailmaint-pacc): the domain is that of the host name."""

from flask import Blueprint, Response

from automx.formats import pacc
from automx.views.http import asked_domain, found_config, public_document

blueprint = Blueprint("pacc", __name__)


@blueprint.get(pacc.PATH)
def by_host() -> Response:
    """Answer for the domain that the host name stands for."""
    return public_document(found_config(asked_domain()).pacc(), pacc.CONTENT_TYPE)
