"""The page for people: they type their address and read what to do on their device.

The page is the same for each address of a domain, whether the mailbox exists or not. It asks no
directory: the content of a directory is not for everyone who can guess an address.
"""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote

from flask import Blueprint, Response, render_template, request
from werkzeug.exceptions import NotFound

from automx.address import MAX_ADDRESS_OCTETS, EmailAddress, unicode_domain
from automx.cache import FoundConfig
from automx.clientconfig import ClientConfig, Documentation, MailServer, Service, best_first
from automx.errors import (
    AddressError,
    AutomxError,
    BadRecordError,
    UnavailableError,
    UnknownDomainError,
)
from automx.formats import mobileconfig
from automx.views import apps, frame, languages, pagefiles
from automx.views.failure import Failure, as_text, record
from automx.views.health import check_ready
from automx.views.http import (
    NOSNIFF,
    address_argument,
    argument,
    asked_address,
    asked_domain,
    directory_of,
    found_config,
    html_page,
    known_config,
    own_url,
    parts,
    personal_document,
)

blueprint = Blueprint("site", __name__)

# The names of an address in the URL of a profile, here and on other servers.
ADDRESS_NAMES = ("emailaddress", "email")

_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:;"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


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
        return _untidy(error.status, text, _host_config())
    try:
        found = found_config(address.domain)
    except UnknownDomainError as error:
        return _unknown(record(error).status, text, address, _host_config())
    settings = parts().settings
    groups = apps.groups(
        settings.page.apps,
        found.config,
        request.user_agent.string,
        has_accounts=bool(settings.web_endpoint),
    )
    return _rendered(
        200,
        "known",
        found.config,
        text=address.for_people,
        groups=groups,
        needs_servers=not groups or groups[0][1][0].needs_servers,
        profile=_with_address("mobileconfig/", address),
        has_choice=mobileconfig.has_services(found.config),
        code=_with_address("mobileconfig.svg", address),
        services=_services(found, address),
        app_password_url=settings.page.app_password_url(_provider_of(found)),
    )


def failure_page(failure: Failure) -> Response:
    """Show a failure on the page of the host name's domain; a bug or others of HTTP as text."""
    match failure.error:
        case UnavailableError():
            state = "not_ready"
        case BadRecordError():
            state = "incomplete"
        case AutomxError():
            state = "bad_request"
        case NotFound():
            state = "nothing"
        case _:
            return as_text(failure)
    # While the database is away, a second look-up would wait as long as the first.
    config = None if state == "not_ready" else known_config()
    response = _rendered(failure.status, state, config)
    response.headers.update(failure.headers)
    return response


def is_for_browser() -> bool:
    """Return whether a browser asks, for a page that a person reads; mail programs want no HTML."""
    return any(kind == "text/html" and quality for kind, quality in request.accept_mimetypes)


def profile_failure(failure: Failure) -> Response:
    """Show why there is no profile: to a browser on the page, with the address, else as text."""
    if not is_for_browser():
        return as_text(failure)
    match failure.error:
        case AddressError():
            return _untidy(failure.status, _asked_text(), known_config())
        case UnknownDomainError():
            text = _asked_text()
            if address := asked_address(text):
                return _unknown(failure.status, text, address, known_config())
    return failure_page(failure)


@blueprint.get("/mobileconfig.svg")
def profile_code() -> Response:
    """Answer with a QR code of the profile's URL for ``emailaddress``."""
    address = address_argument(request.args, "emailaddress")
    found = found_config(address.domain)
    found.rendered(mobileconfig.template).fill(address)  # no code for a profile that fails
    url = _with_address(own_url("/mobileconfig/"), address)
    headers = {"Content-Security-Policy": "default-src 'none'"} | NOSNIFF
    return personal_document(parts().drawings.svg(url, title=url), "image/svg+xml", headers)


def _asked_text() -> str:
    """Return what a request for a profile has as the address, from the query string or a form."""
    found = (request.values.get(name, "").strip() for name in ADDRESS_NAMES)
    return next(filter(None, found), "")


def _untidy(status: int, text: str, config: ClientConfig | None) -> Response:
    """Return the page for a text that is no address."""
    # The page repeats it in each link to a language: many times what a stranger has sent.
    return _rendered(status, "no_address", config, text=text[:MAX_ADDRESS_OCTETS])


def _unknown(
    status: int, text: str, address: EmailAddress, config: ClientConfig | None
) -> Response:
    """Return the page for an address of an unknown domain, with the text that was typed."""
    domain = unicode_domain(address.domain)
    return _rendered(status, "unknown", config, text=text, domain=domain)


def _rendered(status: int, state: str, config: ClientConfig | None, **values: object) -> Response:
    """Return the page in the language of the visitor and in the colours of the provider."""
    language = languages.choose()
    query = {"address": str(text)} if (text := values.get("text", "")) else {}
    base = frame.values(config, language, query)
    html = render_template(
        "page.html",
        **base,
        state=state,
        robots="noindex",
        script=f"{base['root']}static/{pagefiles.SCRIPT}?v={pagefiles.version()}",
        chosen=language if request.args.get("lang") else "",
        documentation=_pages(config.details.documentation, language) if config else [],
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


def _provider_of(found: FoundConfig) -> str:
    """Return the id of the provider whose rows the settings are made of, "" if it is not known."""
    return next((key for table, key in found.rows if table == "provider"), "")


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
