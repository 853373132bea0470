"""What clients of all kinds ask of a server in a day, each kind at a pace of its own."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.crowd import Answer, get, post
from bench.load import AUTODISCOVER
from bench.neighbours import document

# Few enough that a worker remembers all people, and enough unknown domains to fill its memory of
# domains (2,000): what is remembered is complete after a short while, and grows no more.
PERSONS, UNKNOWN = 500, 2_500
KNOWN = [f"d{number}.example" for number in range(600)]
PEOPLES = "example.com"  # the domain whose people are in a directory
EDITED = [f"edited{number}.example" for number in range(20)]  # by the API
TOKEN = "token-of-the-soak"

_REFUSED = frozenset(range(400, 500))
_API = "/api/v1"
_JSON = "application/json"


@dataclass
class Kind:
    """Requests of a kind, ``rate`` of them in a second, and their answers.

    ``right`` are the statuses of answers while all neighbours are well.
    """

    name: str
    rate: float
    requests: Sequence[bytes]
    right: frozenset[int] = frozenset({200})
    answers: list[Answer] = field(default_factory=list)


def kinds(key: str) -> list[Kind]:
    """Return all kinds; ``key`` is one of the API that may write."""
    return [
        Kind("Autoconfig", 8, [get(document(name)) for name in KNOWN]),
        Kind("Autoconfig by host name", 3, _by_host("autoconfig", "/mail/config-v1.1.xml")),
        Kind("Autoconfig of people", 4, _people()),
        Kind("Autodiscover", 5, [_autodiscover(f"alice@{name}") for name in KNOWN]),
        Kind("Mobileconfig", 2, [_mobileconfig(name) for name in KNOWN]),
        Kind("PACC", 3, _by_host("ua-auto-config", "/.well-known/user-agent-configuration.json")),
        Kind("new account", 2, [post(f"/?t={TOKEN}")]),
        Kind("page of a token", 1, [get(f"/?t={TOKEN}")]),
        Kind("page", 1, [get("/"), get("/static/page.css"), get("/static/page.js")]),
        Kind("API, reading", 2, _reading(key)),
        Kind("API, writing", 1, _writing(key)),
        Kind("unknown domain", 4, _unknown(), frozenset({404})),
        Kind("garbage", 3, _garbage(key), _REFUSED),
        Kind("/healthz", 1, [get("/healthz")]),
    ]


def _by_host(label: str, path: str) -> list[bytes]:
    return [get(path, host=f"{label}.{name}") for name in KNOWN]


def _people() -> list[bytes]:
    names = (f"person{number:04}@{PEOPLES}" for number in range(PERSONS))
    return [get(f"/mail/config-v1.1.xml?emailaddress={name}") for name in names]


def _autodiscover(address: str) -> bytes:
    return post(AUTODISCOVER.path, AUTODISCOVER.body.replace("alice@example.com", address))


def _mobileconfig(domain: str) -> bytes:
    return get(f"/mobileconfig/?emailaddress=alice@{domain}")


def _reading(key: str) -> list[bytes]:
    paths = ["domains?limit=50", "providers", "servers", "directories", "audit?limit=20", "tokens"]
    paths += [f"domains/{name}" for name in KNOWN[:20]]
    paths += [f"domains/{name}/documents/autoconfig" for name in KNOWN[:20]]
    return [get(f"{_API}/{path}", key=key) for path in paths]


def _writing(key: str) -> list[bytes]:
    return [
        post(f"{_API}/domains/{name}", json.dumps({"disabled": is_off}), _JSON, key, "PATCH")
        for is_off in (True, False)
        for name in EDITED
    ]


def _unknown() -> list[bytes]:
    return [get(document(f"u{number}.unknown.example")) for number in range(UNKNOWN)]


def _garbage(key: str) -> list[bytes]:
    address = "/mail/config-v1.1.xml?emailaddress="
    return [
        get(f"{address}alice"),
        get(f"{address}a@b@c"),
        get(f"{address}%00%ff@example.com"),
        get(f"{address}alice@{'x' * 300}.example"),
        get("/.env"),
        get("/wp-login.php"),
        get("/..%2f..%2fetc/passwd"),
        get(f"/{'a/' * 500}"),
        get("/mail/config-v1.1.xml", host="bad..host"),
        post(AUTODISCOVER.path, "<Autodiscover>"),
        post(AUTODISCOVER.path, "\x01\x02{}", _JSON),
        post(AUTODISCOVER.path, f"<a>{'<b>' * 5_000}"),
        post(AUTODISCOVER.path, "x" * 70_000),
        post("/?t=no-such-token"),
        post("/mobileconfig/", "emailaddress=nobody", "application/x-www-form-urlencoded"),
        get(f"{_API}/domains", key="no-such-key"),
        get(f"{_API}/no-such-path", key=key),
        post(f"{_API}/domains", "{", _JSON, key),
        post(f"{_API}/domains/{KNOWN[0]}", '{"name": 3}', _JSON, key, "PATCH"),
        post(f"{_API}/apply", "[" * 2_000, _JSON, key),
    ]
