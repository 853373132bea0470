"""automx as a hoster runs it: one provider, several mail domains, a web server before it."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.commandline import automx
from tests.processes import Server, serving

NAME = "Müller & Söhne"
DETAILS = {
    "webmail_url": "https://webmail.hoster.test/?a=1&b=2",
    "help_url": "https://help.hoster.test/",
    "support_address": "help@hoster.test",
    "color": "#1a5fb4",
    "oauth2": {
        "issuer": "https://login.hoster.test",
        "auth_url": "https://login.hoster.test/authorize",
        "token_url": "https://login.hoster.test/token",
        "scope": "mail offline_access",
        "client_id": "mail-clients",
    },
    "documentation": [
        {"url": "https://help.hoster.test/mail", "lang": "en", "text": "Set up <your> mail & more"},
        {"url": "https://help.hoster.test/mail", "lang": "de", "text": "E-Mail einrichten"},
        {"url": "https://help.hoster.test/ios", "lang": "en", "text": "iPhone"},
        {"url": "https://help.hoster.test/other"},
    ],
}
# Servers that clients of mail do not know, or not all of them.
OTHER_SERVERS = [
    {"type": "managesieve", "name": "imap.hoster.test"},
    {"type": "jmap", "url": "https://jmap.hoster.test/session"},
    {"type": "activesync", "url": "https://sync.hoster.test/Microsoft-Server-ActiveSync"},
    {"type": "webdav", "url": "https://files.hoster.test/%EMAILADDRESS%/"},
    {"type": "ews", "url": "https://ews.hoster.test/EWS/Exchange.asmx"},
    {"type": "graph", "url": "https://graph.hoster.test/v1.0/"},
    {"type": "xmpp", "url": "wss://xmpp.hoster.test/websocket"},
    {"type": "matrix", "url": "https://matrix.hoster.test/"},
]


def settings(folder: Path) -> dict[str, str]:
    """Return the environment of a hoster's automx, whose database is in ``folder``."""
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{folder}/automx.sqlite",
        "AUTOMX_PROXY_COUNT": "1",
        "AUTOMX_LOGLEVEL": "DEBUG",
    }


@contextlib.contextmanager
def hoster(
    folder: Path,
    domains: Sequence[str],
    servers: Sequence[dict[str, object]],
    env: Mapping[str, str] | None = None,
    *,
    detailed: Sequence[str] = (),
    others: Mapping[str, object] | None = None,
) -> Iterator[Server]:
    """Run automx with a database in ``folder`` that knows the domains and, as a seed, servers.

    ``env`` holds settings beyond those of settings(). ``detailed`` are domains of a provider of
    whom everything is told that a database can hold. ``others`` are domains with other servers.
    """
    env = {**settings(folder), **(env or {})}
    seed = {
        "version": 2,
        "provider": NAME,
        "domains": [{"name": domain} for domain in domains],
        "servers": servers,
    }
    automx("db", "upgrade", env=env)
    automx("seed", "-", env=env, stdin=json.dumps(seed))
    if detailed:
        seed |= {
            "details": DETAILS,
            "domains": [{"name": domain} for domain in detailed],
            "servers": [*servers, *OTHER_SERVERS],
        }
        automx("seed", "-", env=env, stdin=json.dumps(seed))
    for domain, its_servers in (others or {}).items():
        seed = {
            "version": 2,
            "provider": NAME,
            "domains": [{"name": domain}],
            "servers": its_servers,
        }
        automx("seed", "-", env=env, stdin=json.dumps(seed))
    with serving(env, folder / "automx.log") as server:
        yield server
