"""Whether each URL that clients ask gives the document that this service would give."""

import http.client
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from automx.check.finding import Finding, Level
from automx.check.network import CertificateError, Network, NetworkError, remaining
from automx.clientconfig import ClientConfig, DavType
from automx.errors import AutomxError
from automx.formats import autoconfig, autodiscover, pacc

MAX_REDIRECTS = 5
MAX_BODY = 1024 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class _Page:
    """A URL, the document that it should give, and how bad it is if it does not."""

    url: str
    document: bytes
    level: Level


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    location: str
    body: bytes


def check(config: ClientConfig, network: Network) -> Iterator[Finding]:
    """Yield what is wrong with the URLs of a domain."""
    domain = config.domain
    settings = autoconfig.render(config)
    path = "/mail/config-v1.1.xml"
    # Each client tries several; the first two are enough for one another.
    first = _Page(f"https://autoconfig.{domain}{path}", settings, Level.ERROR)
    second = _Page(f"https://{domain}/.well-known/autoconfig{path}", settings, Level.WARNING)
    pages = [first, second]
    answers = autodiscover.render(config)
    pages.append(
        _Page(f"https://autodiscover.{domain}{autodiscover.XML_PATH}", answers, Level.ERROR)
    )
    try:
        document = pacc.render(config)
    except AutomxError:
        pass
    else:
        url = f"https://{pacc.HOST_PREFIX}.{domain}{pacc.PATH}"
        pages.append(_Page(url, document, Level.WARNING))
    for page in pages:
        if finding := _check_page(domain, network, page):
            yield finding
    for type_ in (DavType.CALDAV, DavType.CARDDAV):
        if any(server.type is type_ for server in config.dav_servers):
            yield from _check_redirect(domain, network, f"https://{domain}/.well-known/{type_}")


def _check_page(domain: str, network: Network, page: _Page) -> Finding | None:
    try:
        url, answer = _follow(network, page.url)
    except CertificateError as error:
        advice = f"get a certificate for {urlsplit(page.url).hostname}"
        return Finding(domain, page.level, page.url, f"the certificate: {error}", advice)
    except NetworkError as error:
        advice = "see the DNS record and the proxy in front of automx"
        return Finding(domain, page.level, page.url, str(error), advice)
    where = "" if url == page.url else f" (redirected to {url})"
    if answer.status != 200:
        advice = "see that the proxy passes this host and path on to automx"
        text = f"the answer is {answer.status}{where}"
        return Finding(domain, page.level, page.url, text, advice)
    if answer.body != page.document:
        text = f"another document than this database's{where}"
        advice = "see which server answers there: an older file, or automx with another database?"
        return Finding(domain, page.level, page.url, text, advice)
    return None


def _check_redirect(domain: str, network: Network, url: str) -> Iterator[Finding]:
    try:
        answer = _get(network, url)
    except NetworkError as error:
        advice = "let the web server of the domain pass this path on to automx"
        yield Finding(domain, Level.WARNING, url, str(error), advice)
        return
    if answer.status not in {301, 302, 303, 307, 308} or not answer.location:
        text = f"the answer is {answer.status}, not a redirect"
        advice = "let the web server of the domain pass this path on to automx"
        yield Finding(domain, Level.WARNING, url, text, advice)


def _follow(network: Network, url: str) -> tuple[str, _Answer]:
    """Return the last URL and its answer; raises NetworkError also for a redirect to nowhere."""
    for _ in range(MAX_REDIRECTS):
        answer = _get(network, url)
        if answer.status not in {301, 302, 303, 307, 308}:
            return url, answer
        target = urljoin(url, answer.location)
        if not answer.location or urlsplit(target).scheme != "https":
            raise NetworkError(f"a redirect to {answer.location or 'nowhere'}, not to https")
        url = target
    raise NetworkError("more redirects than clients follow")


def _get(network: Network, url: str) -> _Answer:
    parts = urlsplit(url)
    host = parts.hostname or ""
    deadline = network.deadline()
    sock = network.encrypt(network.connect(host, parts.port or 443, deadline), host, deadline)
    connection = http.client.HTTPConnection(host)
    connection.sock = sock
    try:
        sock.settimeout(remaining(deadline))
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"Host": parts.netloc, "Accept": "*/*"})
        response = connection.getresponse()
        body = b""
        while len(body) < MAX_BODY and (piece := response.read1(65536)):
            body += piece
            sock.settimeout(remaining(deadline))
        return _Answer(response.status, response.getheader("Location", ""), body)
    except TimeoutError:
        raise NetworkError("no answer in time") from None
    except (OSError, http.client.HTTPException) as error:
        raise NetworkError(f"HTTP: {type(error).__name__}") from error
    finally:
        connection.close()
