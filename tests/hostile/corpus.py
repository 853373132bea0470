"""The requests of real clients, one of each kind, as docs/clients.md describes them."""

import json
from dataclasses import dataclass, replace
from urllib.parse import quote

from automx.seeddocument import SAMPLE
from tests.agents import AGENTS, IPHONE
from tests.documents import MOBILESYNC_SCHEMA, autodiscover_request
from tests.hostile.target import PASSWORD, SEED_TOKEN, SYNC_DOMAIN, TOKEN

ADDRESS = "alice@example.com"
BROWSER = (
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "de,en-US;q=0.7,en;q=0.3"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Sec-Fetch-Site", "none"),
)
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Request:
    """A request; its length is told when it becomes bytes. ``query`` is None if there is no "?"."""

    method: bytes
    path: bytes
    query: bytes | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    is_chunked: bool = False

    def message(self) -> bytes:
        """Return its bytes."""
        query = b"" if self.query is None else b"?" + self.query
        lines = [b"%s %s%s HTTP/1.1" % (self.method, self.path, query)]
        lines += [b"%s: %s" % header for header in self.headers]
        body = self.body
        if self.is_chunked:
            lines.append(b"Transfer-Encoding: chunked")
            parts = [body[start : start + 100] for start in range(0, len(body), 100)]
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])
        elif body or self.method == b"POST":
            lines.append(b"Content-Length: %d" % len(body))
        return b"\r\n".join([*lines, b"", b""]) + body

    def without(self, secrets: tuple[str, ...]) -> "Request":
        """Return the request with other texts of the same length in place of secrets."""
        query, headers, body = self.query, self.headers, self.body
        for secret in secrets:
            old, new = secret.encode(), b"decoy".ljust(len(secret), b"x")
            query = None if query is None else query.replace(old, new)
            headers = tuple((name, value.replace(old, new)) for name, value in headers)
            body = body.replace(old, new)
        return replace(self, query=query, headers=headers, body=body)


def _request(
    target: str,
    *headers: tuple[str, str],
    host: str = "example.com",
    agent: str = "",
    method: str = "GET",
    body: str = "",
    kind: str = "",
) -> Request:
    path, mark, query = target.partition("?")
    named = [("Host", host), *([("User-Agent", agent)] if agent else []), *headers]
    named += [("Content-Type", kind)] if kind else []
    return Request(
        method.encode(),
        path.encode(),
        query.encode() if mark else None,
        tuple((name.encode(), value.encode()) for name, value in named),
        body.encode(),
    )


_AUTOCONFIG = "/mail/config-v1.1.xml"
_AUTODISCOVER = "/autodiscover/autodiscover.xml"
_JSON = "/autodiscover/autodiscover.json"
_OUTLOOK = "Microsoft Office/16.0 (Windows NT 10.0; Microsoft Outlook 16.0.18129; Pro)"
_XML = "text/xml; charset=utf-8"
_BEARER = ("Authorization", f"Bearer {SEED_TOKEN}")
_SEED = json.dumps(SAMPLE | {"domains": [{"name": "seeded.example"}]})
_PROFILE = f"emailaddress={quote(ADDRESS)}&name=Alice+Example&password={PASSWORD}"

CORPUS = {
    "Thunderbird": _request(
        f"{_AUTOCONFIG}?emailaddress={quote(ADDRESS)}",
        ("Accept", "application/xml"),
        host="autoconfig.example.com",
        agent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Thunderbird/140.0",
    ),
    "K-9": _request(_AUTOCONFIG, host="autoconfig.example.com", agent="okhttp/4.12.0"),
    "FairEmail": _request(
        f"/.well-known/autoconfig{_AUTOCONFIG}?emailaddress=ben+b@example.com", agent="FairEmail"
    ),
    "KMail": _request(_AUTOCONFIG, host=f"autoconfig.{SYNC_DOMAIN}", agent="KIO/6.0"),
    "Evolution": _request(
        f"/.well-known/autoconfig{_AUTOCONFIG}?emailaddress=EVOLUTIONUSER%40example.com",
        agent="Evolution/3.56.0",
    ),
    "Nine": _request(f"/v1.1{_AUTOCONFIG}?emailaddress={ADDRESS}", host="autoconfig.example.com"),
    "by domain": _request("/v1.1/example.com", host="autoconfig.example.org"),
    "Outlook": _request(
        _AUTODISCOVER, ("X-MapiHttpCapability", "1"), agent=_OUTLOOK, method="POST",
        body=autodiscover_request(ADDRESS), kind=_XML,
    ),
    "Outlook by GET": _request(_AUTODISCOVER, host="autodiscover.example.com", agent=_OUTLOOK),
    "Outlook for phones": _request(
        "/AutoDiscover/AutoDiscover.xml", method="POST", kind=_XML,
        body=autodiscover_request(f"alice@{SYNC_DOMAIN}", MOBILESYNC_SCHEMA),
    ),
    "newer Outlook": _request(
        f"{_JSON}?Email={quote(ADDRESS)}&Protocol=AutodiscoverV1&RedirectCount=1",
        host="autodiscover.example.com", agent=_OUTLOOK,
    ),
    "newer Outlook, address in the path": _request(
        f"{_JSON}/v1.0/alice@{SYNC_DOMAIN}?Protocol=ActiveSync", host="autodiscover.example.com",
    ),
    "PACC": _request(
        "/.well-known/user-agent-configuration.json", host="ua-auto-config.example.com"
    ),
    "a calendar": _request("/.well-known/caldav", method="PROPFIND"),
    "an address book": _request("/.well-known/carddav"),
    "iPhone": _request(f"/mobileconfig?emailaddress={ADDRESS}&name=Alice", *BROWSER, agent=IPHONE),
    "iPhone, a printed link": _request(f"/email.mobileconfig?email={ADDRESS}", agent=IPHONE),
    "iPhone, a password": _request(
        "/mobileconfig", *BROWSER, agent=IPHONE, method="POST", body=_PROFILE, kind=FORM
    ),
    "a code for an iPhone": _request(f"/mobileconfig.svg?emailaddress={ADDRESS}", *BROWSER),
    "Delta Chat": _request(f"/new_email?t={TOKEN}&n=summer", method="POST"),
    "Delta Chat at the root": _request(f"/?t={TOKEN}", method="POST"),
    "the page of a token": _request(f"/new_email?t={TOKEN}", *BROWSER, agent=IPHONE),
    "the profile of a token": _request(
        f"/?t={TOKEN}", *BROWSER, agent=IPHONE, method="POST", body="profile=1", kind=FORM
    ),
    "the page": _request("/", *BROWSER, agent=AGENTS["Windows"][0]),
    "the page for an address": _request(
        f"/?address={ADDRESS}&lang=fr", *BROWSER, agent=AGENTS["Android"][0]
    ),
    "its style sheet": _request("/static/page.css?v=0&color=c02040", *BROWSER),
    "the logo": _request("/logo?domain=example.com", ("If-None-Match", '"0"'), *BROWSER),
    "a proxy": _request(
        _AUTOCONFIG,
        ("X-Forwarded-For", "192.0.2.66, 2001:db8::1"),
        ("X-Forwarded-Host", "autoconfig.example.com"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Prefix", "/automx"),
    ),
    "readiness": _request("/readyz"),
    "a seed": _request(
        "/initdb/", _BEARER, method="POST", body=_SEED, kind="application/json"
    ),
    "a seed of a stranger": _request(
        "/initdb/", method="POST", body=_SEED, kind="application/json", host="localhost"
    ),
    "the sample": _request("/initdb/", _BEARER),
}  # fmt: skip
