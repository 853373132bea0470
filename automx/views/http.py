"""Parts of requests and responses that all protocols share: arguments, body, host name, caching."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from flask import Response, current_app, g, request
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import RequestEntityTooLarge

from automx import edge, trace
from automx.address import EmailAddress, is_ip, parse_domain
from automx.backends import Backends
from automx.cache import MAX_AGE, ConfigCache, FoundConfig
from automx.changelog import Follower
from automx.clientconfig import ClientConfig
from automx.config import Settings
from automx.counts import Counts, Sample
from automx.database.reading import Reading
from automx.directory.person import NOBODY, Person
from automx.directory.pool import Directories, Directory
from automx.errors import AddressError, AutomxError, BadRequestError, UnknownDomainError
from automx.lookup import find
from automx.views.drawings import Drawings
from automx.views.limits import Limits
from automx.views.log import Answered

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from automx.signing import Signer

# Who a person of a domain is, such as Parts.known_person.
WhoIs = Callable[[FoundConfig, EmailAddress], Person]

PARTS = "automx"  # the key of the Parts in app.extensions
NOSNIFF = {"X-Content-Type-Options": "nosniff"}
NOT_LOCAL = "This is allowed from the server itself only, or with a token."
MAX_BODY = 64 * 1024  # bytes; the longest request of a real client has less than 2 kB
_DIGITS = len(str(MAX_BODY))  # Python converts no number with very many

# The host names at which clients look for the settings of a domain.
_HOST_PREFIX = re.compile(r"\A(?:autoconfig|autodiscover|ua-auto-config)\.")


@dataclass(frozen=True, slots=True)
class Parts:
    """What an application is made of.

    ``follower`` is None if nothing is remembered that others change, ``signer`` if profiles are not
    signed.
    """

    settings: Settings
    reading: Reading
    cache: ConfigCache
    follower: Follower | None
    directories: Directories
    backends: Backends
    limits: Limits
    drawings: Drawings
    signer: "Signer | None"
    answered: Answered
    counts: Counts

    def gauges(self) -> list[Sample]:
        """Return samples of the moment, for metrics."""
        cache = self.cache
        hits = cache.hits + self.counts.number_of_front()
        lookups = {"hit": hits, "miss": cache.misses, "stale": cache.stale_hits}
        samples: list[Sample] = [
            ("automx_cache_domains", (), cache.size()),
            ("automx_rate_limit_storage_away", (), float(self.limits.is_away)),
        ]
        samples += [("automx_cache_lookups_total", (name,), lookups[name]) for name in lookups]
        if self.follower is not None and (read_at := self.follower.read_at) is not None:
            samples.append(("automx_changes_read_seconds", (), monotonic() - read_at))
        return samples

    def find(self, domain: str) -> FoundConfig:
        """Return the settings of a domain, from the cache if possible.

        They have an age if they are remembered from before an outage of the database. Raises as
        lookup.find, and DatabaseError.
        """
        trace.name_domain(domain)
        if self.follower is not None:
            self.follower.follow()
        return self.cache.get(domain, self._look_up)

    def directory_of(self, found: FoundConfig) -> Directory | None:
        """Return what knows the login names of a domain's people, None if nothing does."""
        return self.directories.of(found.ldap_server, found.origin, found.config.domain)

    def known_person(self, found: FoundConfig, address: EmailAddress) -> Person:
        """Return what the domain's directory holds about an address.

        An address that is not in the directory is treated like one without login name and display
        name. Raises DirectoryError.
        """
        return self._person(found, address, self.directories.find)

    def remembered_person(self, found: FoundConfig, address: EmailAddress) -> Person:
        """Return what known_person() would from memory. It never waits.

        Raises NotRememberedError if a directory would have to be asked.
        """
        return self._person(found, address, self.directories.remembered)

    def _person(
        self,
        found: FoundConfig,
        address: EmailAddress,
        ask: Callable[[Directory, EmailAddress], Person | None],
    ) -> Person:
        directory = self.directory_of(found)
        if directory is None:
            return NOBODY
        person = ask(directory, address) or NOBODY
        login_name = found.config.special_login(person.login_name, address)
        return person if login_name == person.login_name else replace(person, login_name=login_name)

    def _look_up(self, domain: str) -> FoundConfig:
        trace.mark(trace.DATABASE)
        return self.reading.read(partial(find, domain=domain, memory=self.cache.rows))


def parts() -> Parts:
    """Return the parts of the application that answers the request."""
    found: Parts = current_app.extensions[PARTS]
    return found


def refuse_malformed() -> None:
    """Raise the BadRequestError of a request whose method, host, scheme or prefix is malformed."""
    if error := inbound().error:
        raise error


def inbound() -> edge.Inbound:
    """Return who asks, and at which host."""
    return edge.read(request.environ, parts().settings.proxy_count)


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
    if (whole := usual_body(request.environ)) is not None:
        return whole
    data = request.stream.read()
    if len(data) >= (request.max_content_length or MAX_BODY):
        raise RequestEntityTooLarge
    return data


def usual_body(environ: "WSGIEnvironment") -> bytes | None:
    """Read and return the body of a request, without werkzeug's stream objects.

    None if its length is not told, or reaches the limit.
    """
    length = environ.get("CONTENT_LENGTH", "")
    if not length.isdecimal() or len(length) > _DIGITS or int(length) >= MAX_BODY:
        return None
    whole: bytes = environ["wsgi.input"].read(int(length))
    return whole


def asked_address(text: str) -> EmailAddress | None:
    """Return the address in an argument, None if it is blank; AddressError if it is none.

    A blank in the local part is a "+" that the client has not escaped, as Nextcloud and FairEmail.
    """
    local_part, at, domain = text.strip(" ").partition("@")
    address = local_part.replace(" ", "+") + at + domain
    return EmailAddress.parse(address) if address else None


def address_argument(arguments: "MultiDict[str, str]", *names: str) -> EmailAddress:
    """Return the address in the first argument of some names that is given.

    Raises BadRequestError if none is, and AddressError for what is no address.
    """
    for name in names:
        if address := asked_address(argument(arguments, name)):
            return address
    raise BadRequestError(f"The argument {names[0]} is missing.")


def asked_config(text: str) -> tuple[FoundConfig, EmailAddress | None]:
    """Return the settings of the domain of an address, and the address.

    Without an address, and with one that cannot be read, the domain of the host name decides:
    clients that do not escape "&" cut off an address there. Raises as lookup.find, and AddressError
    if neither the address can be read nor the domain of the host name is known.
    """
    try:
        address = asked_address(text)
    except AddressError:
        with suppress(UnknownDomainError):
            return found_config(asked_domain()), None
        raise
    return found_config(address.domain if address else asked_domain()), address


def host_name() -> str:
    """Return the host name or IP address of the request, in lower case, without port.

    It is "" if the request has none.
    """
    return inbound().host


def own_url(path: str) -> str:
    """Return the URL of a path of this service, which begins "/", for other devices.

    It is a URL of https if possible: a proxy behind the one that speaks TLS can call a request
    http. Then the public host of the settings is named, which has a certificate; without one, the
    host of the request, unless that is a name or a port of one's own machine or network. Raises
    BadRequestError if the request names no host, or one that is malformed.
    """
    asked = inbound()
    scheme, public = request.scheme, parts().settings.public_url
    path = quote(request.script_root + path)
    if scheme == "http" and public.startswith("https:"):
        return f"{public}{path}"
    name, port = asked.host, asked.port
    if not name:
        raise asked.error or BadRequestError("The host name is missing.")
    host = f"[{name}]" if ":" in name else name
    is_named = "." in host and not is_ip(name) and not host.endswith(".localhost")
    if scheme == "http" and is_named and port in {"", "80", "443"}:
        scheme, port = "https", ""
    if port and port != {"http": "80", "https": "443"}[scheme]:
        host += f":{port}"
    return f"{scheme}://{host}{path}"


def asked_domain() -> str:
    """Return the domain that the host name of the request stands for.

    Raises UnknownDomainError if the host name cannot belong to a mail domain.
    """
    return domain_of(inbound())


def domain_of(asked: edge.Inbound) -> str:
    """Return the domain that the host of a request stands for; raises as asked_domain()."""
    try:
        return parse_domain(_HOST_PREFIX.sub("", asked.host))
    except AddressError:
        raise UnknownDomainError(cause=f"Host {asked.asked!r}") from None


def found_config(domain: str) -> FoundConfig:
    """Return the settings of a domain, from the cache if they are fresh.

    While the database is away, they are those that are remembered; the response then tells their
    age. Raises as lookup.find, and DatabaseError.
    """
    found = parts().find(domain)
    if found.age is not None:
        g.age = found.age
    return found


def known_config(domain: str = "") -> ClientConfig | None:
    """Return the settings of a domain, or of the host name's, for the page of a failure.

    None if there are none, or if they cannot be had: one failure is told at a time.
    """
    try:
        return found_config(domain or asked_domain()).config
    except AutomxError:
        return None


def directory_of(found: FoundConfig) -> Directory | None:
    """Return what knows the login names of a domain's people, None if nothing does."""
    return parts().directory_of(found)


def known_person(found: FoundConfig, address: EmailAddress) -> Person:
    """Return what the domain's directory holds about an address; raises DirectoryError."""
    return parts().known_person(found, address)


class Answer(NamedTuple):
    """An answer as it is sent: status, headers, body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


def public_answer(
    body: bytes, content_type: str, settings: Settings, *, is_fresh: bool = True
) -> Answer:
    """Return the answer with a document that is the same for everyone; caches may keep it.

    One that is made from memory while the database is away must be asked for again each time.
    """
    seconds = int(min(settings.domain_cache_seconds, MAX_AGE)) if is_fresh else 0
    headers = [
        ("Content-Type", content_type),
        ("Content-Length", str(len(body))),
        ("Cache-Control", f"public, max-age={seconds}" if seconds else "no-cache"),
        ("ETag", f'"{blake2b(body, digest_size=16).hexdigest()}"'),
        # The host of a proxy's header decides, too; a cache in between may pass on a stranger's.
        ("Vary", "Host, X-Forwarded-Host" if settings.proxy_count > 0 else "Host"),
    ]
    return Answer(200, headers, body)


def public_document(body: bytes, content_type: str) -> Response:
    """Answer this request as public_answer() says."""
    is_fresh = "age" not in g
    answer = public_answer(body, content_type, parts().settings, is_fresh=is_fresh)
    response = Response(answer.body, headers=answer.headers)
    if not is_fresh:
        tell_age(response)
    if "HTTP_IF_NONE_MATCH" in request.environ:
        response.make_conditional(request)
    return response


def tell_age(response: Response) -> None:
    """Tell the age of settings from memory that were used because the database is away."""
    if "age" in g:
        response.headers["Age"] = str(g.age)


def personal_document(
    body: str | bytes, content_type: str, headers: dict[str, str] | None = None, status: int = 200
) -> Response:
    """Answer with a document about one person; no cache may keep it."""
    response = Response(body, status, headers, content_type=content_type)
    response.headers["Cache-Control"] = "no-store"
    if status < 400:
        tell_age(response)
    return response


def personal_answer(
    body: bytes, content_type: str, headers: Sequence[tuple[str, str]] = ()
) -> Answer:
    """Return the answer with a document about one person, as personal_document() gives it."""
    usual = (("Content-Type", content_type), ("Content-Length", str(len(body))))
    return Answer(200, [*headers, *usual, ("Cache-Control", "no-store")], body)


def html_page(html: str, status: int, *, policy: str, robots: str) -> Response:
    """Answer with a page that no cache keeps and whose URL is sent to no other site.

    ``policy`` is its Content-Security-Policy, ``robots`` its X-Robots-Tag.
    """
    headers = {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Robots-Tag": robots,
    }
    return personal_document(html, "text/html; charset=utf-8", headers | NOSNIFF, status)
