"""Whether each URL that clients ask gives the document that this service would give."""

import http.client
import io
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from automx import __version__
from automx.address import EmailAddress, expand_url, shared_url
from automx.check import records
from automx.check.finding import Finding, Level, Step
from automx.check.network import NEAR_END, Network, NetworkError, remaining
from automx.clientconfig import ClientConfig, ServiceType
from automx.formats import autoconfig, autodiscover, pacc

MAX_REDIRECTS = 5
MAX_BODY = 1024 * 1024  # bytes
XML = ("text/xml", "application/xml")  # the only types that Thunderbird reads
JSON = ("application/json",)
REDIRECTS = {301, 302, 303, 307, 308}

# Nobody has this address: a directory that is asked about it tells nothing personal.
NOBODY = "automx-check"

_AUTOCONFIG_PATH = "/mail/config-v1.1.xml"
_FORWARD = "let the web server there pass this host and path on to automx"


@dataclass(frozen=True, slots=True)
class _Page:
    """A URL, the document that it should give, its types, and how bad it is if it does not.

    ``request`` is the body of a POST.
    """

    url: str
    document: bytes
    types: tuple[str, ...]
    level: Level
    request: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    location: str
    type: str
    body: bytes


def steps(config: ClientConfig, network: Network, host: str) -> Iterator[Step]:
    """Yield what is to be done for a domain: one step for each host.

    ``host`` is this service's name, or "".
    """
    for pages in (_autoconfig, _autodiscover, _pacc, _well_known):
        yield partial(_check_host, config, network, host, pages)
    places = {expand_url(server.url, config.domain, None) for server in config.services}
    for place in sorted({urlsplit(url)[:2] for url in places if url}):
        yield partial(_check_place, config.domain, network, *place)


def check_service(network: Network, host: str) -> Iterator[Finding]:
    """Yield what is wrong with the host of this service itself."""
    try:
        end = network.https(host)
    except NetworkError as error:
        advice = error.advice or "see the DNS record, and the web server in front of automx"
        yield Finding("", Level.ERROR, f"https://{host}", str(error), advice)
    else:
        yield from certificate_end("", network, f"https://{host}", end)


def certificate_end(domain: str, network: Network, subject: str, end: Any) -> Iterator[Finding]:
    """Yield a warning if a certificate, which is valid until ``end``, ends soon."""
    if end - network.now < NEAR_END:
        text = f"the certificate ends on {end:%Y-%m-%d}"
        advice = "renew it, and see why that was not done by itself"
        yield Finding(domain, Level.WARNING, subject, text, advice)


def _autoconfig(config: ClientConfig) -> Iterator[_Page]:
    url = f"https://autoconfig.{config.domain}{_AUTOCONFIG_PATH}"
    yield _Page(url, autoconfig.render(config), XML, Level.ERROR)


def _well_known(config: ClientConfig) -> Iterator[_Page]:
    """Yield what clients ask when the host autoconfig fails."""
    url = f"https://{config.domain}/.well-known/autoconfig{_AUTOCONFIG_PATH}"
    yield _Page(url, autoconfig.render(config), XML, Level.WARNING)


def _pacc(config: ClientConfig) -> Iterator[_Page]:
    with suppress(pacc.NothingToPublishError):
        url = f"https://{pacc.HOST_PREFIX}.{config.domain}{pacc.PATH}"
        yield _Page(url, pacc.render(config), JSON, Level.WARNING)


def _autodiscover(config: ClientConfig) -> Iterator[_Page]:
    """Yield the URLs of Autodiscover.

    The path in other letters is Outlook's, and a web server may pass on the one and not the other.
    """
    host = f"https://autodiscover.{config.domain}"
    url = f"{host}{autodiscover.XML_PATH}"
    yield _Page(url, autodiscover.render(config), XML, Level.ERROR)
    nobody = EmailAddress(NOBODY, config.domain)
    answer = autodiscover.render(config, nobody)
    yield _Page(f"{host}/Autodiscover/Autodiscover.xml", answer, XML, Level.ERROR, _request(nobody))
    path = "/autodiscover/autodiscover.json"
    query = f"Email={quote(str(nobody))}&Protocol=Autodiscoverv1"
    lead = json.dumps({"Protocol": "AutodiscoverV1", "Url": url}).encode()
    yield _Page(f"{host}{path}?{query}", lead, JSON, Level.WARNING)


def _request(address: EmailAddress) -> bytes:
    """Return what Outlook sends for an address of A-labels and plain letters."""
    return (
        '<?xml version="1.0" encoding="utf-8"?>'
        f'<Autodiscover xmlns="{autodiscover.REQUEST_NS}"><Request>'
        f"<EMailAddress>{address}</EMailAddress>"
        f"<AcceptableResponseSchema>{autodiscover.OUTLOOK_NS}</AcceptableResponseSchema>"
        "</Request></Autodiscover>"
    ).encode()


def _check_host(
    config: ClientConfig,
    network: Network,
    service: str,
    make_pages: Callable[[ClientConfig], Iterator[_Page]],
) -> Iterator[Finding]:
    """Check TLS once for a host, then its URLs."""
    domain = config.domain
    pages = list(make_pages(config))
    if not pages or not records.is_usable(network, domain):
        return
    host, level = urlsplit(pages[0].url).hostname or "", pages[0].level
    try:
        if host != domain and not _has_address(network, host):
            return  # the check of the records has told it
        end = network.https(host)
    except NetworkError as error:
        advice = error.advice or "see the web server in front of automx, and the firewall"
        advice = _elsewhere(network, host, service) or advice
        yield Finding(domain, level, f"https://{host}", str(error), advice)
        return
    yield from certificate_end(domain, network, f"https://{host}", end)
    for reason in network.dead_addresses(host, 443):
        advice = "let the web server listen at all addresses of the name, or delete this one"
        yield Finding(domain, Level.WARNING, f"https://{host}", reason, advice)
    findings = [found for page in pages for found in _check_page(domain, network, page, service)]
    yield from findings
    if host == domain:
        yield from _check_dav(config, network)
    elif not findings:  # else the same would be told twice
        yield from _check_plain(domain, network, pages[0])


def _has_address(network: Network, host: str) -> bool:
    try:
        return bool(network.addresses(host))
    except NetworkError:
        return False


def _check_page(domain: str, network: Network, page: _Page, service: str) -> Iterator[Finding]:
    subject = page.url if page.request is None else f"POST {page.url}"
    host = urlsplit(page.url).hostname or ""
    url = page.url
    try:
        url, answer = _follow(network, page)
    except NetworkError as error:
        advice = error.advice or "see the web server in front of automx"
        yield Finding(domain, page.level, subject, str(error), advice)
        return
    where = "" if url == page.url else f" (redirected to {url})"
    if answer.status != 200:
        text = f"the answer is {answer.status}{where}"
        advice = _elsewhere(network, host, service) or (
            _FORWARD if answer.status < 500 else "see the logs of automx and of the web server"
        )
        yield Finding(domain, page.level, subject, text, advice)
    elif answer.body != page.document:
        text = f"another document than that of this database{where}: "
        text += _difference(answer.body, page.document)
        advice = "see what answers there: a file, automx with another database, or a cache?"
        advice = _elsewhere(network, host, service) or advice
        yield Finding(domain, page.level, subject, text, advice)
    elif not answer.type.startswith(page.types):
        text = f"the Content-Type is {answer.type or 'missing'}{where}"
        advice = f"let the web server send {page.types[-1]}"
        yield Finding(domain, page.level, subject, text, advice)


def _elsewhere(network: Network, name: str, service: str) -> str:
    """Return what to do if a name does not lead to this service, "" if it does, or may."""
    if not service or name == service:
        return ""
    try:
        found, ours = network.addresses(name), network.addresses(service)
    except NetworkError:
        return ""
    if not found or not ours or set(found) & set(ours):
        return ""
    return f"lead {name} to {service} by DNS, or see what answers at {', '.join(found)}"


def _difference(found: bytes, expected: bytes) -> str:
    """Return where two documents differ first, in a few words."""
    found_lines = found.decode(errors="replace").splitlines()
    expected_lines = expected.decode(errors="replace").splitlines()
    for number, (line, other) in enumerate(zip(found_lines, expected_lines, strict=False), 1):
        if line != other:
            begin = next(
                (i for i, (a, b) in enumerate(zip(line, other, strict=False)) if a != b), 0
            )
            begin = max(0, begin - 20) if len(line) > 60 or len(other) > 60 else 0
            here, there = line[begin:].strip()[:60], other[begin:].strip()[:60]
            return f"line {number} is {here!r}, not {there!r}"
    return f"it has {len(found)} bytes, not {len(expected)}"


def _check_plain(domain: str, network: Network, page: _Page) -> Iterator[Finding]:
    """Check what clients get by plain http: nothing, a redirect to https, or the same document."""
    url = page.url.replace("https:", "http:", 1)
    try:
        answer = _ask(network, url)
    except NetworkError:
        return  # nobody needs it
    if answer.status in REDIRECTS:
        target = urljoin(url, answer.location)
        if urlsplit(target).scheme != "https":
            text = f"a redirect to {answer.location or 'nowhere'}, which is not https"
            yield Finding(domain, Level.WARNING, url, text, f"redirect to {page.url}")
    elif answer.status == 200 and answer.body != page.document:
        text = "another document than that of this database: "
        text += _difference(answer.body, page.document)
        yield Finding(domain, Level.WARNING, url, text, f"redirect to {page.url}")


def _check_dav(config: ClientConfig, network: Network) -> Iterator[Finding]:
    """Check that a domain tells where its calendars and address books are (RFC 6764)."""
    for type_ in (ServiceType.CALDAV, ServiceType.CARDDAV):
        urls = [shared_url(s.url, config.domain) for s in config.services if s.type is type_]
        expected = next((url for url in urls if url), "")
        url = f"https://{config.domain}/.well-known/{type_}"
        if not expected or expected == url:
            continue
        try:
            answer = _ask(network, url)
        except NetworkError as error:
            yield Finding(config.domain, Level.WARNING, url, str(error), _FORWARD)
            continue
        advice = f"{_FORWARD}, or redirect to {expected}"
        if answer.status not in REDIRECTS:
            if answer.status in {207, 401}:  # the service itself is there
                continue
            text = f"the answer is {answer.status}, not a redirect"
            yield Finding(config.domain, Level.WARNING, url, text, advice)
        elif (target := urljoin(url, answer.location)) != expected:
            text = f"a redirect to {target}, not to {expected}"
            yield Finding(config.domain, Level.WARNING, url, text, advice)


def _check_place(domain: str, network: Network, scheme: str, netloc: str) -> Iterator[Finding]:
    """Check that a host of calendars and the like can be reached by TLS."""
    parts = urlsplit(f"{scheme}://{netloc}")
    if scheme != "https":
        return  # the check of the rows has told it
    try:
        end = network.https(parts.hostname or "", parts.port or 443)
    except NetworkError as error:
        advice = error.advice or "see that the server runs, and the URL in the table davserver"
        yield Finding(domain, Level.ERROR, parts.geturl(), str(error), advice)
    else:
        yield from certificate_end(domain, network, parts.geturl(), end)


def _follow(network: Network, page: _Page) -> tuple[str, _Answer]:
    """Return the last URL and its answer; raises NetworkError also for a redirect to nowhere."""
    url, seen = page.url, {page.url}
    for _ in range(MAX_REDIRECTS + 1):
        try:
            answer = _ask(network, url, page.request)
        except NetworkError as error:
            raise _on_the_way(error, url, page) from error
        if answer.status not in REDIRECTS:
            return url, answer
        url = urljoin(url, answer.location)
        if not answer.location or urlsplit(url).scheme != "https":
            text = f"a redirect to {answer.location or 'nowhere'}, which is not https"
            raise NetworkError(text, "redirect to https, or not at all")
        if url in seen:
            raise NetworkError(f"redirects in a circle, by {url}", "see the web server's redirects")
        seen.add(url)
    raise NetworkError(f"more than {MAX_REDIRECTS} redirects", "see the web server's redirects")


def _on_the_way(error: NetworkError, url: str, page: _Page) -> NetworkError:
    if url == page.url:
        return error
    return NetworkError(f"redirected to {url}: {error}", error.advice)


def _ask(network: Network, url: str, request: bytes | None = None) -> _Answer:
    """Ask a URL once, as a client does; raises NetworkError."""
    try:
        parts = urlsplit(url)
        host, is_https = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if is_https else 80)
    except ValueError:
        raise NetworkError("this is no URL") from None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {
        "Host": parts.netloc.rpartition("@")[2],
        "User-Agent": f"automx-check/{__version__}",
        "Accept": "*/*",
        "Cache-Control": "no-cache",  # a cache on the way has to ask automx
        "Connection": "close",
    }
    if request is not None:
        headers["Content-Type"] = "text/xml; charset=utf-8"
    deadline = network.deadline()
    sock = network.connect(host, port, deadline)
    if is_https:
        sock = network.encrypt(sock, host, deadline)
    connection = http.client.HTTPConnection(host)
    connection.sock = _Limited(sock, deadline)
    try:
        sock.settimeout(remaining(deadline))
        connection.request("GET" if request is None else "POST", path, request, headers)
        response = connection.getresponse()
        body = response.read(MAX_BODY)
        location, type_ = response.getheader("Location", ""), response.getheader("Content-Type", "")
        return _Answer(response.status, location, type_, body)
    except TimeoutError:
        raise NetworkError("no answer in time") from None
    except (OSError, http.client.HTTPException, UnicodeError, ValueError) as error:
        raise NetworkError(f"the answer is no HTTP ({type(error).__name__})") from error
    finally:
        connection.close()


class _Limited:
    """A socket for http.client, of which whatever is read has come before a deadline."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._sock.sendall(data)

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(_LimitedReader(self._sock, self._deadline))

    def close(self) -> None:
        self._sock.close()


class _LimitedReader(io.RawIOBase):
    """Each octet that drips in would otherwise begin the waiting anew."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(remaining(self._deadline))
        return self._sock.recv_into(buffer)
