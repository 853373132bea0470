"""Mobileconfig: the profile of one address, for Apple devices."""

import logging
import re
import unicodedata
from typing import TYPE_CHECKING
from urllib.parse import quote

from flask import Blueprint, Response, request

from automx.address import EmailAddress
from automx.errors import BadRequestError
from automx.formats import mobileconfig
from automx.views import site
from automx.views.failure import handler
from automx.views.http import (
    address_argument,
    argument,
    found_config,
    known_person,
    parts,
    personal_document,
)

if TYPE_CHECKING:
    from werkzeug.datastructures import MultiDict

log = logging.getLogger(__name__)

blueprint = Blueprint("mobileconfig", __name__)

MAX_LENGTH = 256  # characters of a name or a password

blueprint.register_error_handler(Exception, handler(site.profile_failure))


@blueprint.route("/mobileconfig", methods=["GET", "POST"])
@blueprint.route("/mobileconfig/", methods=["GET", "POST"])
def profile() -> Response:
    """Answer with the profile of ``emailaddress`` and ``name``, from the query string or a form.

    A ``password`` is put into the profile only if the settings permit it, and by default only from
    a form: URLs are kept in histories and logs. With ``only=mail``, calendars and address books are
    left out.
    """
    is_form = request.method == "POST"
    arguments = request.form if is_form else request.args
    address = address_argument(arguments, *site.ADDRESS_NAMES)
    is_mail_only = _is_mail_only(arguments)
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
        config = mobileconfig.mail_only(found.config) if is_mail_only else found.config
        config = config.for_person(person.login_name, name)
        body = mobileconfig.render(config, address, password=password)
    else:
        template = mobileconfig.mail_template if is_mail_only else mobileconfig.template
        body = found.rendered(template).fill(address, person.login_name, name)
    return profile_response(body, address)


@blueprint.get("/email.mobileconfig")
@blueprint.get("/apple.mobileconfig")
def printed_link() -> Response:
    """Answer links that people have printed for other servers.

    Some of these hold no address: they lead to the page, where it can be typed.
    """
    if any(argument(request.args, name).strip() for name in site.ADDRESS_NAMES):
        return profile()
    return personal_document("", "text/plain", {"Location": quote(f"{request.script_root}/")}, 302)


def profile_response(body: bytes, address: EmailAddress) -> Response:
    """Answer with a profile, signed if the settings have a certificate."""
    if signer := parts().signer:
        body = signer.sign(body)
    headers = {"Content-Disposition": disposition(address)}
    return personal_document(body, mobileconfig.CONTENT_TYPE, headers)


def disposition(address: EmailAddress) -> str:
    """Return the Content-Disposition of the profile of an address."""
    return f'attachment; filename="{_file_name(address)}"'


def _is_mail_only(arguments: "MultiDict[str, str]") -> bool:
    only = argument(arguments, "only")
    if only not in {"", "mail"}:
        raise BadRequestError("The argument only can be mail, or missing.")
    return only == "mail"


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
