"""Parts of requests and responses that all protocols share: arguments, body, host name, caching."""

import re
from hashlib import blake2b

from flask import Response, current_app, request
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import RequestEntityTooLarge

from automx.address import EmailAddress, parse_domain
from automx.cache import ConfigCache, FoundConfig
from automx.directory.pool import NOBODY, Directories, Person
from automx.errors import AddressError, BadRequestError, UnknownDomainError
from automx.lookup import find
from automx.views.session import current_session

# The keys of the ConfigCache, the Directories and the Signer in app.extensions.
CACHE = "automx.domains"
DIRECTORIES = "automx.directories"
SIGNER = "automx.signer"  # there only if profiles are signed
MAX_BODY = 64 * 1024  # bytes; the longest request of a real client has less than 2 kB

# The host names at which clients look for the settings of a domain.
_HOST_PREFIX = re.compile(r"\A(?:autoconfig|autodiscover|ua-auto-config)\.")


def argument(arguments: "MultiDict[str, str]", name: str) -> str:
    """Return an argument's value, "" if it is missing; BadRequestError if it is given twice."""
    values = arguments.getlist(name)
    if len(values) > 1:
        raise BadRequestError(f"The argument {name} is given more than once.")
    return values[0] if values else ""


def body() -> bytes:
    """Return the body of the request; RequestEntityTooLarge if it reaches the limit.

    Werkzeug checks Content-Length, but cuts a chunked body off at the limit without an error.
    """
    length = request.environ.get("CONTENT_LENGTH", "")
    if length.isdecimal() and int(length) < MAX_BODY:  # the usual case, without its stream objects
        whole: bytes = request.environ["wsgi.input"].read(int(length))
        return whole
    data = request.stream.read()
    if len(data) >= (request.max_content_length or MAX_BODY):
        raise RequestEntityTooLarge
    return data


def asked_address() -> EmailAddress | None:
    """Return the address in the query string, or None; AddressError if it is none."""
    text = argument(request.args, "emailaddress")
    return EmailAddress.parse(text) if text.strip() else None


def host_name() -> str:
    """Return the host name or IP address of the request, in lower case, without port."""
    host = request.host.lower()
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def asked_domain() -> str:
    """Return the domain that the host name of the request stands for.

    Raises UnknownDomainError if the host name cannot belong to a mail domain.
    """
    try:
        return parse_domain(_HOST_PREFIX.sub("", host_name()))
    except AddressError:
        raise UnknownDomainError(cause=f"Host {request.headers.get('Host')!r}") from None


def found_config(domain: str) -> FoundConfig:
    """Return the settings of a domain, from the cache if they are fresh. Raises as lookup.find."""
    cache: ConfigCache = current_app.extensions[CACHE]
    return cache.get(domain, lambda name: find(current_session(), name))


def known_person(found: FoundConfig, address: EmailAddress) -> Person:
    """Return what the domain's directory holds about an address.

    An address that is not in the directory is treated like one without login name and display name.
    Raises DirectoryError.
    """
    directories: Directories = current_app.extensions[DIRECTORIES]
    if found.ldap_server is None:
        return NOBODY
    return directories.find(found.ldap_server, address) or NOBODY


def public_document(body: bytes, content_type: str) -> Response:
    """Answer with a document that is the same for everyone; caches may keep it."""
    seconds = int(current_app.config["AUTOMX"].domain_cache_seconds)
    etag = f'"{blake2b(body, digest_size=16).hexdigest()}"'
    response = Response(body, content_type=content_type)
    # Written out, because werkzeug's objects for these headers cost more than the document.
    response.headers["Cache-Control"] = f"public, max-age={seconds}" if seconds else "no-cache"
    response.headers["ETag"] = etag
    response.headers["Vary"] = "Host"
    if "HTTP_IF_NONE_MATCH" in request.environ:
        response.make_conditional(request)
    return response


def personal_document(body: bytes, content_type: str) -> Response:
    """Answer with a document about one person; no cache may keep it."""
    response = Response(body, content_type=content_type)
    response.headers["Cache-Control"] = "no-store"
    return response


def html_page(html: str, status: int, *, policy: str, robots: str) -> Response:
    """Answer with a page that no cache keeps and whose URL is sent to no other site.

    ``policy`` is its Content-Security-Policy, ``robots`` its X-Robots-Tag.
    """
    response = personal_document(html.encode(), "text/html; charset=utf-8")
    response.status_code = status
    response.headers["Content-Security-Policy"] = policy
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Robots-Tag"] = robots
    return response
