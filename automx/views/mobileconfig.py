"""Mobileconfig: the profile of one address, for Apple devices."""

import logging
import re
import unicodedata

from flask import Blueprint, Response, request

from automx.address import EmailAddress
from automx.errors import BadRequestError
from automx.formats import mobileconfig
from automx.views.http import argument, found_config, known_person, parts, personal_document

log = logging.getLogger(__name__)

blueprint = Blueprint("mobileconfig", __name__)

MAX_LENGTH = 256  # characters of a name or a password


@blueprint.route("/mobileconfig", methods=["GET", "POST"])
@blueprint.route("/mobileconfig/", methods=["GET", "POST"])
def profile() -> Response:
    """Answer with the profile of ``emailaddress`` and ``name``, from the query string or a form.

    A ``password`` is put into the profile only if the settings permit it, and by default only from
    a form: URLs are kept in histories and logs.
    """
    is_form = request.method == "POST"
    arguments = request.form if is_form else request.args
    text = argument(arguments, "emailaddress")
    if not text.strip():
        raise BadRequestError("The argument emailaddress is missing.")
    address = EmailAddress.parse(text)
    name = _printable("name", argument(arguments, "name")).strip()
    password = _printable("password", argument(arguments, "password"))
    settings = parts().settings
    is_permitted = (
        settings.permit_cleartext_passwords if is_form else settings.permit_passwords_in_urls
    )
    if password and not is_permitted:
        log.warning("a password was sent and left out: the settings do not permit it")
        password = ""
    found = found_config(address.domain)
    person = known_person(found, address)
    name = name or person.display_name
    if password:
        config = found.config.for_person(person.login_name, name)
        body = mobileconfig.render(config, address, password=password)
    else:
        body = found.rendered(mobileconfig.template).fill(address, person.login_name, name)
    return profile_response(body, address)


def profile_response(body: bytes, address: EmailAddress) -> Response:
    """Answer with a profile, signed if the settings have a certificate."""
    if signer := parts().signer:
        body = signer.sign(body)
    headers = {"Content-Disposition": f'attachment; filename="{_file_name(address)}"'}
    return personal_document(body, mobileconfig.CONTENT_TYPE, headers)


def _printable(name: str, text: str) -> str:
    """Return the text of an argument; BadRequestError if a property list could not hold it."""
    if len(text) > MAX_LENGTH:
        raise BadRequestError(f"The argument {name} is too long.")
    if any(unicodedata.category(char) in {"Cc", "Cn", "Co", "Cs"} for char in text):
        raise BadRequestError(f"The argument {name} has a character that is not allowed.")
    return text


def _file_name(address: EmailAddress) -> str:
    """Return a name that is safe in a header and on every file system."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", str(address)).strip(".-")[:100] + ".mobileconfig"
