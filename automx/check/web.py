"""Whether each URL that clients ask gives the document that this service would give."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from os.path import commonprefix
from urllib.parse import quote, urlsplit

from automx.address import EmailAddress, expand_url, shared_url
from automx.check.finding import Check, DomainChecks, Finding, Level
from automx.check.http import REDIRECTS, Answer, ask, follow, target
from automx.check.network import Network, NetworkError
from automx.clientconfig import ClientConfig, ServiceType
from automx.errors import BadRecordError
from automx.formats import autoconfig, autodiscover, pacc

XML = ("text/xml", "application/xml")  # the only types that Thunderbird reads
JSON = ("application/json",)

# The local part of addresses that no person has, so that a directory answers nothing personal.
UNKNOWN = "automx-check"

_FORWARD = "let the web server there pass this host and path on to automx"
_SEE_WEB_SERVER = "see the web server in front of automx"


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

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""


def check_service(network: Network, host: str) -> Iterator[Finding]:
    """Yield what is wrong with the certificate of ``host``, the public name of this service."""
    advice = "see the DNS record, and the web server in front of automx"
    yield from _certificate(DomainChecks("", network), f"https://{host}", advice)


def _certificate(checks: DomainChecks, url: str, advice: str) -> Iterator[Finding]:
    """Check the certificate of a web server; ``url`` names it without a path."""
    parts = urlsplit(url)
    try:
        not_after = checks.network.not_after(parts.hostname or "", parts.port or 443)
    except NetworkError as error:
        yield checks.failure(Level.ERROR, url, error, advice)
    else:
        yield from checks.near_end(url, not_after)


@dataclass(frozen=True, slots=True)
class WebChecks(DomainChecks):
    """The checks of URLs; ``host`` is the public name of this service, or "".

    ``stored_pacc`` is as in :class:`automx.cache.FoundConfig`.
    """

    config: ClientConfig
    host: str
    stored_pacc: bytes | None = None

    def checks(self) -> Iterator[Check]:
        """Yield a check for each host."""
        for pages in (self._autoconfig(), self._autodiscover(), self._pacc(), self._well_known()):
            yield partial(self._check_host, pages)
        urls = {expand_url(service.url, self.domain, None) for service in self.config.services}
        advice = "see that the server runs, and the URL in the table davserver"
        for scheme, netloc in sorted({urlsplit(url)[:2] for url in urls if url}):
            if scheme in {"https", "wss"}:  # rows.check_config() reports the others
                yield partial(_certificate, self, f"https://{netloc}", advice)

    def _autoconfig(self) -> Iterator[_Page]:
        with suppress(BadRecordError):  # rows.check_config() reports it
            url = f"https://autoconfig.{self.domain}{autoconfig.PATH}"
            yield _Page(url, autoconfig.render(self.config), XML, Level.ERROR)

    def _well_known(self) -> Iterator[_Page]:
        """Yield what clients ask when the host autoconfig fails."""
        with suppress(BadRecordError):
            url = f"https://{self.domain}/.well-known/autoconfig{autoconfig.PATH}"
            yield _Page(url, autoconfig.render(self.config), XML, Level.WARNING)

    def _pacc(self) -> Iterator[_Page]:
        with suppress(pacc.NothingToPublishError):
            url = f"https://{pacc.HOST_PREFIX}.{self.domain}{pacc.PATH}"
            document = self.stored_pacc
            if document is None:
                document = pacc.render(self.config)
            if document:
                yield _Page(url, document, JSON, Level.WARNING)

    def _autodiscover(self) -> Iterator[_Page]:
        """Yield the URLs of Autodiscover.

        Outlook writes the path in upper and lower case, and a web server may pass on one only.
        """
        host = f"https://autodiscover.{self.domain}"
        url = f"{host}{autodiscover.XML_PATH}"
        yield _Page(url, autodiscover.render(self.config), XML, Level.ERROR)
        address = EmailAddress(UNKNOWN, self.domain)
        answer = autodiscover.render(self.config, address)
        outlook_url = f"{host}/Autodiscover/Autodiscover.xml"
        yield _Page(outlook_url, answer, XML, Level.ERROR, _request(address))
        query = f"Email={quote(str(address))}&Protocol=Autodiscoverv1"
        lead = json.dumps({"Protocol": "AutodiscoverV1", "Url": url}).encode()
        json_url = f"{host}/autodiscover/autodiscover.json?{query}"
        yield _Page(json_url, lead, JSON, Level.WARNING)

    def _check_host(self, rendered: Iterator[_Page]) -> Iterator[Finding]:
        """Check TLS once for a host, then its URLs."""
        pages = list(rendered)
        if not pages or not self.network.is_usable(self.domain):
            return
        page, host = pages[0], pages[0].host
        subject = f"https://{host}"
        if host != self.domain and not self._addresses(host):
            return  # RecordChecks reports it
        try:
            not_after = self.network.not_after(host)
        except NetworkError as error:
            advice = error.advice or f"{_SEE_WEB_SERVER}, and the firewall"
            yield self._page_finding(page, subject, str(error), advice)
            return
        yield from self.near_end(subject, not_after)
        if host.startswith(f"{pacc.HOST_PREFIX}."):
            yield from self._tls_version(subject, host)
        yield from self.dead_addresses(subject, "web server", host, 443)
        findings = [finding for page in pages for finding in self._check_page(page)]
        yield from findings
        if host == self.domain:
            yield from self._check_dav()
        elif not findings:  # else the same would be reported twice
            yield from self._check_plain(page)

    def _tls_version(self, subject: str, host: str) -> Iterator[Finding]:
        """Yield a warning if a host does not offer TLS 1.3, which PACC requires."""
        version = self.network.tls_version(host)
        if version != "TLSv1.3":
            text = f"the web server offers {version} at most, and PACC requires TLSv1.3"
            yield self.warning(subject, text, "let the web server offer TLS 1.3 for this host")

    def _addresses(self, host: str) -> list[str]:
        """Return the addresses of a host, [] if it has none or they cannot be looked up."""
        with suppress(NetworkError):
            return self.network.addresses(host) if host else []
        return []

    def _page_finding(self, page: _Page, subject: str, text: str, advice: str) -> Finding:
        """Return a finding about a page, whose host may lead to another server than this one."""
        found, ours = self._addresses(page.host), self._addresses(self.host)
        if page.host != self.host and found and ours and not set(found) & set(ours):
            others = ", ".join(found)
            advice = f"point {page.host} to {self.host} in DNS, or see what answers at {others}"
        return Finding(self.domain, page.level, subject, text, advice)

    def _check_page(self, page: _Page) -> Iterator[Finding]:
        subject = page.url if page.request is None else f"POST {page.url}"
        try:
            url, answer = follow(self.network, page.url, page.request)
        except NetworkError as error:
            yield self.failure(page.level, subject, error, _SEE_WEB_SERVER)
            return
        where = "" if url == page.url else f" (redirected to {url})"
        if answer.status != 200:
            see_logs = "see the logs of automx and of the web server"
            advice = _FORWARD if answer.status < 500 else see_logs
            yield self._page_finding(page, subject, f"the answer is {answer.status}{where}", advice)
        elif answer.body != page.document:
            text = _difference(answer.body, page.document, where)
            advice = "see what answers there: a file, automx with another database, or a cache?"
            yield self._page_finding(page, subject, text, advice)
        elif not answer.type.startswith(page.types):
            text = f"the Content-Type is {answer.type or 'missing'}{where}"
            advice = f"let the web server send {page.types[-1]}"
            yield Finding(self.domain, page.level, subject, text, advice)

    def _check_plain(self, page: _Page) -> Iterator[Finding]:
        """Check plain http: no answer, a redirect to https and the same document are right."""
        url, advice = page.url.replace("https:", "http:", 1), f"redirect to {page.url}"
        with suppress(NetworkError):
            answer = ask(self.network, url)
            if answer.status in REDIRECTS:
                if not target(url, answer.location).startswith("https:"):
                    text = f"a redirect to {answer.location or 'nowhere'}, which is not https"
                    yield self.warning(url, text, advice)
            elif answer.status == 200 and answer.body != page.document:
                yield self.warning(url, _difference(answer.body, page.document), advice)

    def _check_dav(self) -> Iterator[Finding]:
        """Check that a domain leads to its calendars and address books (RFC 6764, section 5)."""
        for type_ in (ServiceType.CALDAV, ServiceType.CARDDAV):
            url = f"https://{self.domain}/.well-known/{type_}"
            urls = [shared_url(s.url, self.domain) for s in self.config.services if s.type is type_]
            expected = next(filter(None, urls), url)
            if expected == url:
                continue
            try:
                text = _wrong_redirect(url, ask(self.network, url), expected)
                advice = f"{_FORWARD}, or redirect to {expected}"
            except NetworkError as error:
                text, advice = str(error), _FORWARD
            if text:
                yield self.warning(url, text, advice)


def _request(address: EmailAddress) -> bytes:
    """Return what Outlook sends for an address of A-labels and plain letters."""
    return (
        '<?xml version="1.0" encoding="utf-8"?>'
        f'<Autodiscover xmlns="{autodiscover.REQUEST_NS}"><Request>'
        f"<EMailAddress>{address}</EMailAddress>"
        f"<AcceptableResponseSchema>{autodiscover.OUTLOOK_NS}</AcceptableResponseSchema>"
        "</Request></Autodiscover>"
    ).encode()


def _wrong_redirect(url: str, answer: Answer, expected: str) -> str:
    """Return what is wrong with the answer of a well-known URL, "" if it leads to ``expected``."""
    if answer.status not in REDIRECTS:
        is_service = answer.status in {207, 401}  # the service itself, without a redirect
        return "" if is_service else f"the answer is {answer.status}, not a redirect"
    found = target(url, answer.location) or answer.location
    return "" if found == expected else f"a redirect to {found}, not to {expected}"


def _difference(found: bytes, expected: bytes, where: str = "") -> str:
    """Return where two documents differ first, in a few words."""
    text = f"another document than that of this database{where}: "
    found_lines = found.decode(errors="replace").splitlines()
    expected_lines = expected.decode(errors="replace").splitlines()
    for number, pair in enumerate(zip(found_lines, expected_lines, strict=False), 1):
        if pair[0] != pair[1]:
            is_long = max(map(len, pair)) > 60
            begin = max(0, len(commonprefix(pair)) - 20) if is_long else 0  # noqa: RUF071 - no path
            here, there = (line[begin:].strip()[:60] for line in pair)
            return f"{text}line {number} is {here!r}, not {there!r}"
    return f"{text}it has {len(found)} bytes, not {len(expected)}"
