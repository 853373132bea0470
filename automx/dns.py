"""The DNS records by which mail clients find a domain's servers, and this service.

Standards: RFC 6186 (mail), RFC 8314 (submission with TLS), RFC 6764 (calendars and address books),
RFC 8620 (JMAP), RFC 5804 (ManageSieve), draft-ietf-mailmaint-autoconfig, [MS-OXDISCO] and
draft-ietf-mailmaint-pacc.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from automx.address import expand, shared_url
from automx.clientconfig import ClientConfig, DavType, MailServer, ServerType, SocketType
from automx.formats import pacc

TTL = 3600  # seconds

# Names by which clients look for this service.
SERVICE_HOSTS = ("autoconfig", "autodiscover", pacc.HOST_PREFIX)

_MAIL_SERVICES = {
    (ServerType.IMAP, SocketType.SSL): "_imaps._tcp",
    (ServerType.IMAP, SocketType.STARTTLS): "_imap._tcp",
    (ServerType.POP3, SocketType.SSL): "_pop3s._tcp",
    (ServerType.POP3, SocketType.STARTTLS): "_pop3._tcp",
    (ServerType.SMTP, SocketType.SSL): "_submissions._tcp",
    (ServerType.SMTP, SocketType.STARTTLS): "_submission._tcp",
}
_DAV_SERVICES = {
    (DavType.CALDAV, "https"): "_caldavs._tcp",
    (DavType.CALDAV, "http"): "_caldav._tcp",
    (DavType.CARDDAV, "https"): "_carddavs._tcp",
    (DavType.CARDDAV, "http"): "_carddav._tcp",
    (DavType.JMAP, "https"): "_jmap._tcp",
}


@dataclass(frozen=True, slots=True)
class Record:
    """A record: its full name without final dot, its type and its data as in a zone file."""

    name: str
    type: str
    data: str


def records(config: ClientConfig, host: str) -> list[Record]:
    """Return all records that fit a domain, sorted as a person reads them.

    ``host`` is the public name of this service.
    """
    return [
        *_service(config, host),
        *_mail(config),
        *_dav(config),
    ]


def zone(config: ClientConfig, found: list[Record]) -> str:
    """Return records as lines of a zone file (RFC 1035, section 5), with full names."""
    width = max(len(record.name) for record in found) + 1
    lines = [f"; {config.domain}, for mail clients; written by automx"]
    lines += [
        f"{f'{record.name}.':<{width}} {TTL} IN {record.type:<5} {record.data}" for record in found
    ]
    return "\n".join(lines) + "\n"


def _service(config: ClientConfig, host: str) -> Iterator[Record]:
    """Yield the records that lead to this service."""
    try:
        document = pacc.render(config)
    except pacc.NothingToPublishError:
        document = None
    for label in SERVICE_HOSTS:
        name = f"{label}.{config.domain}"
        if name != host and (label != pacc.HOST_PREFIX or document is not None):
            yield Record(name, "CNAME", f"{host}.")
    yield Record(f"_autodiscover._tcp.{config.domain}", "SRV", f"0 0 443 {host}.")
    if document is not None:
        text = pacc.digest_record(document)
        yield Record(f"{pacc.TXT_NAME}.{config.domain}", "TXT", _quoted(text))


def _mail(config: ClientConfig) -> Iterator[Record]:
    """Yield the records of mail servers; "." says that a service is not offered."""
    for (type_, socket_type), service in _MAIL_SERVICES.items():
        servers = [
            server
            for server in config.mail_servers
            if server.type is type_ and server.socket_type is socket_type
        ]
        yield from _srv(config, service, servers, or_none=True)
    yield from _srv(config, "_sieve._tcp", list(config.sieve), or_none=False)


def _srv(
    config: ClientConfig, service: str, servers: list[MailServer], *, or_none: bool
) -> Iterator[Record]:
    name = f"{service}.{config.domain}"
    targets = [
        (server.port, hostname)
        for server in servers
        if (hostname := expand(server.hostname, config.domain, None))
    ]
    for priority, (port, hostname) in enumerate(dict.fromkeys(targets)):
        yield Record(name, "SRV", f"{priority} 1 {port} {hostname}.")
    if not targets and or_none:
        yield Record(name, "SRV", "0 0 0 .")


def _dav(config: ClientConfig) -> Iterator[Record]:
    told = set()
    for server in config.dav_servers:
        url = shared_url(server.url, config.domain)
        parts = urlsplit(url or "")
        service = _DAV_SERVICES.get((server.type, parts.scheme))
        if service is None or service in told:
            continue
        told.add(service)
        name = f"{service}.{config.domain}"
        port = parts.port or (443 if parts.scheme == "https" else 80)
        yield Record(name, "SRV", f"0 1 {port} {parts.hostname}.")
        if server.type is not DavType.JMAP:  # RFC 8620 knows no such path
            yield Record(name, "TXT", _quoted(f"path={parts.path or '/'}"))


def _quoted(text: str) -> str:
    """Return a text as character strings of at most 255 octets (RFC 1035, section 3.3)."""
    pieces = [text[i : i + 255] for i in range(0, len(text), 255)]
    escaped = (piece.replace("\\", "\\\\").replace('"', '\\"') for piece in pieces)
    return " ".join(f'"{piece}"' for piece in escaped)
