"""The page for people: they type their address and read what to do on their device.

The page is the same for each address of a domain, whether the mailbox exists or not. It asks no
directory: the content of a directory is not for everyone who can guess an address.
"""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote, urlencode

from flask import Blueprint, Response, render_template, request

from automx.address import MAX_ADDRESS_OCTETS, EmailAddress, unicode_domain
from automx.cache import FoundConfig
from automx.clientconfig import (
    ClientConfig,
    Documentation,
    Logo,
    MailServer,
    ProviderDetails,
    Service,
    best_first,
)
from automx.errors import (
    AddressError,
    AutomxError,
    BadRecordError,
    UnavailableError,
    UnknownDomainError,
)
from automx.formats import mobileconfig, pacc
from automx.views import languages, pagefiles
from automx.views.failure import Failure, as_text, record
from automx.views.health import check_ready
from automx.views.http import (
    NOSNIFF,
    address_argument,
    argument,
    asked_domain,
    directory_of,
    found_config,
    html_page,
    own_url,
    parts,
    personal_document,
)

blueprint = Blueprint("site", __name__)

_LOGO_BOX = (220, 56)  # pixels that a logo may take on the page

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:;"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

# Mail programs of a platform, by a word in its User-Agent; the first word that is found counts. An
# iPad calls itself a Mac, unless mobile pages are asked for.
_PLATFORMS = {
    "iPhone": ("ios", "deltachat"),
    "iPad": ("ios", "deltachat"),
    "Android": ("android", "deltachat"),
    "CrOS": ("android", "deltachat"),
    "Macintosh": ("mac", "thunderbird", "outlook", "deltachat"),
    "Windows": ("outlook", "thunderbird", "deltachat"),
    "Linux": ("thunderbird", "deltachat"),
}
_METHODS = ("ios", "mac", "thunderbird", "outlook", "android", "deltachat")


class ShownServer(NamedTuple):
    """A server as people read it: its purpose and what to type in a mail program.

    ``kind`` and the names of ``settings`` are words of the template. A login name that is not shown
    is "".
    """

    kind: str
    settings: dict[str, str]


def page() -> Response:
    """Return the page for the ``address`` in the query, or for none.

    An address with a typing error is answered with the form and a remark. That is no failure: the
    form needs the settings of the host name's domain, whose look-up may fail itself.
    """
    text = argument(request.args, "address").strip()
    if not text:
        check_ready()
        return _rendered(200, "start", _host_config())
    try:
        address = EmailAddress.parse(text)
    except AddressError as error:
        # The page repeats it in each link to a language: many times what a stranger has sent.
        text = text[:MAX_ADDRESS_OCTETS]
        return _rendered(error.status, "no_address", _host_config(), text=text)
    try:
        found = found_config(address.domain)
    except UnknownDomainError as error:
        domain = unicode_domain(address.domain)
        status = record(error).status
        return _rendered(status, "unknown", _host_config(), text=text, domain=domain)
    return _rendered(
        200,
        "known",
        found.config,
        text=address.for_people,
        groups=_groups(found.config),
        profile=_with_address("mobileconfig/", address),
        has_choice=mobileconfig.has_services(found.config),
        code=_with_address("mobileconfig.svg", address),
        services=_services(found, address),
    )


def failure_page(failure: Failure) -> Response:
    """Show a failure on the page; a bug or an error of HTTP as text."""
    match failure.error:
        case UnavailableError():
            state = "not_ready"
        case BadRecordError():
            state = "incomplete"
        case AutomxError():
            state = "bad_request"
        case _:
            return as_text(failure)
    response = _rendered(failure.status, state, None)
    response.headers.update(failure.headers)
    return response


@blueprint.get("/mobileconfig.svg")
def profile_code() -> Response:
    """Answer with a QR code of the profile's URL for ``emailaddress``."""
    address = address_argument(request.args, "emailaddress")
    found = found_config(address.domain)
    found.rendered(mobileconfig.template).fill(address)  # no code for a profile that fails
    url = _with_address(own_url("/mobileconfig/"), address)
    headers = {"Content-Security-Policy": "default-src 'none'"} | NOSNIFF
    return personal_document(parts().drawings.svg(url, title=url), "image/svg+xml", headers)


def _rendered(status: int, state: str, config: ClientConfig | None, **values: object) -> Response:
    """Return the page in the language of the visitor and in the colours of the provider."""
    wanted = request.args.get("lang", "")
    language = languages.choose(wanted)
    details = config.details if config else ProviderDetails()
    text = values.get("text", "")
    html = render_template(
        "page.html",
        _=languages.translator(language),
        state=state,
        config=config,
        details=details,
        logo=_shown_logo(config.domain, details.logo) if config and details.logo else None,
        style=f"static/{pagefiles.STYLE}?{pagefiles.style_query(details.color)}",
        script=f"static/{pagefiles.SCRIPT}?v={pagefiles.version()}",
        language=language,
        direction=languages.direction(language),
        chosen=language if wanted else "",
        languages=[
            (code, name, "?" + urlencode(({"address": text} if text else {}) | {"lang": code}))
            for code, name in languages.names().items()
        ],
        documentation=_pages(details.documentation, language),
        home_domain=unicode_domain(config.domain) if config else "",
        **values,
    )
    response = html_page(html, status, policy=_POLICY, robots="noindex")
    response.headers["Content-Language"] = language
    return response


def _host_config() -> ClientConfig | None:
    """Return the settings of the host name's domain, None if there are none."""
    try:
        return found_config(asked_domain()).config
    except (UnknownDomainError, BadRecordError):
        return None


def _groups(config: ClientConfig) -> list[tuple[str, list[str]]]:
    """Return the mail programs for the visitor's device and for other devices, with headings."""
    has_profile = mobileconfig.is_possible(config)
    methods = [method for method in _METHODS if has_profile or method not in {"ios", "mac"}]
    agent = request.user_agent.string
    here = next((here for word, here in _PLATFORMS.items() if word in agent), ())
    fitting = [method for method in here if method in methods]
    if not fitting:
        return [("anywhere", methods)]
    return [("here", fitting), ("elsewhere", [m for m in methods if m not in fitting])]


def _with_address(path: str, address: EmailAddress) -> str:
    """Return a URL relative to the page: a proxy may add a prefix to the paths of both."""
    return f"{path}?emailaddress={quote(str(address), safe='@')}"


def _services(found: FoundConfig, address: EmailAddress) -> dict[str, list[ShownServer]]:
    """Return the servers that everybody needs, other ways to the same mail, and the rest.

    Login names in a directory are left out: they would show whether a mailbox exists.
    """
    config = found.config.for_address(address).general()

    has_directory = directory_of(found) is not None

    def login(user_name: str) -> str:
        return "" if has_directory else user_name

    def mail(server: MailServer) -> ShownServer:
        settings = {
            "server": server.hostname,
            "port": str(server.port),
            "encryption": server.socket_type.value,
            "login": login(server.user_name),
            "authentication": " ".join(server.authentication),
        }
        if not server.user_name:  # the server needs no login
            del settings["login"]
        return ShownServer(server.type.value, settings)

    def service(server: Service) -> ShownServer:
        settings = {"url": server.url, "login": login(server.user_name)}
        return ShownServer(server.type.value, settings)

    incoming, outgoing = best_first(config.incoming), best_first(config.outgoing)
    return {
        "first": [mail(server) for server in (*incoming[:1], *outgoing[:1])],
        "more": [mail(server) for server in (*incoming[1:], *outgoing[1:])],
        "other": [*map(service, config.services), *map(mail, config.sieve)],
    }


def _pages(pages: Sequence[Documentation], language: str) -> list[Documentation]:
    """Return the pages in a language, else those in English, else all.

    Pages of no known language are always among them.
    """
    primaries = {page: page.language.lower().partition("-")[0] for page in pages}
    for wanted in (language, "en"):
        primary = wanted.lower().partition("-")[0]
        if primary in primaries.values():
            return [page for page in pages if primaries[page] in {primary, ""}]
    return list(pages)


def _shown_logo(domain: str, logo: Logo) -> tuple[str, int, int]:
    """Return URL, width and height (CSS pixels) of the logo on the page."""
    scale = min(_LOGO_BOX[0] / logo.width, _LOGO_BOX[1] / logo.height)
    size = (max(1, round(logo.width * scale)), max(1, round(logo.height * scale)))
    return f"{pacc.LOGO_PATH[1:]}?{urlencode({'domain': domain})}", *size
