"""One HTTP request as a mail client sends it, within a time."""

import http.client
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from automx import __version__
from automx.check.network import Network, NetworkError, NoAnswerError, reader
from automx.deadline import remaining

MAX_REDIRECTS = 5
MAX_BODY = 1024 * 1024  # bytes
REDIRECTS = {301, 302, 303, 307, 308}

_SEE_REDIRECTS = "see the web server's redirects"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response; ``location`` and ``type`` are headers, "" if they are missing."""

    status: int
    location: str
    type: str
    body: bytes


def follow(network: Network, first: str, request: bytes | None) -> tuple[str, Answer]:
    """Return the URL at the end of the redirects from ``first``, and its answer.

    Raises NetworkError, also for a redirect that does not lead to https.
    """
    url, seen = first, {first}
    for _ in range(MAX_REDIRECTS + 1):
        try:
            answer = ask(network, url, request)
        except NetworkError as error:
            if url == first:
                raise
            raise NetworkError(f"redirected to {url}: {error}", error.advice) from error
        if answer.status not in REDIRECTS:
            return url, answer
        url = target(url, answer.location)
        if not answer.location or not url.startswith("https:"):
            text = f"a redirect to {answer.location or 'nowhere'}, which is not https"
            raise NetworkError(text, "redirect to https, or not at all")
        if url in seen:
            raise NetworkError(f"the redirects form a loop: {url}", _SEE_REDIRECTS)
        seen.add(url)
    raise NetworkError(f"more than {MAX_REDIRECTS} redirects", _SEE_REDIRECTS)


def target(url: str, location: str) -> str:
    """Return the URL that a redirect of ``url`` leads to, "" if it is none (RFC 3986)."""
    try:
        parts = urlsplit(urljoin(url, location))
        if not parts.hostname or parts.port == 0:  # reading a port may fail, too
            return ""
    except ValueError:
        return ""
    return parts.geturl()


def ask(network: Network, url: str, request: bytes | None = None) -> Answer:
    """Return the answer to GET, or to POST if there is a ``request``; raises NetworkError."""
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
        "Cache-Control": "no-cache",  # a cache in between must ask automx
        "Connection": "close",
    }
    if request is not None:
        headers["Content-Type"] = "text/xml; charset=utf-8"
    deadline = network.deadline()
    sock = network.connect(host, port, deadline)
    if is_https:
        sock = network.encrypt(sock, host, deadline)
    connection = http.client.HTTPConnection("", port)  # connected already, perhaps to an odd name
    connection.sock = sock
    try:
        with sock:
            sock.settimeout(remaining(deadline))
            connection.request("GET" if request is None else "POST", path, request, headers)
            response = http.client.HTTPResponse(sock)
            response.fp.close()  # else the socket would stay open with it
            response.fp = reader(sock, deadline)
            response.begin()
            body = response.read(MAX_BODY)
    except TimeoutError:
        raise NoAnswerError from None
    except (OSError, http.client.HTTPException, UnicodeError, ValueError) as error:
        raise NetworkError(f"the answer is no HTTP ({type(error).__name__})") from error
    location, type_ = response.getheader("Location", ""), response.getheader("Content-Type", "")
    return Answer(response.status, location, type_, body)
