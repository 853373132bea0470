"""DNS records with which mail clients find a domain's servers and this service.

Standards: RFC 6186 (mail), RFC 8314 (submission with TLS), RFC 6764 (calendars and address books),
RFC 8620 (JMAP), RFC 5804 (ManageSieve), draft-ietf-mailmaint-autoconfig, [MS-OXDISCO] and
draft-ietf-mailmaint-pacc.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from automx.address import expand, is_ip, parse_domain, shared_url
from automx.clientconfig import ClientConfig, MailServer, ServerType, ServiceType, SocketType
from automx.errors import AddressError
from automx.formats import pacc

TTL = 3600  # seconds

# Labels of the host names on which clients look for this service.
SERVICE_HOSTS = ("autoconfig", "autodiscover", pacc.HOST_PREFIX)
AUTODISCOVER = "_autodiscover._tcp"

# The data of an SRV record for a service that is not offered (RFC 2782; RFC 6186, section 3.4).
NOT_OFFERED = "0 0 0 ."

_MAIL_SERVICES = {
    (ServerType.IMAP, SocketType.SSL): "_imaps._tcp",
    (ServerType.IMAP, SocketType.STARTTLS): "_imap._tcp",
    (ServerType.POP3, SocketType.SSL): "_pop3s._tcp",
    (ServerType.POP3, SocketType.STARTTLS): "_pop3._tcp",
    (ServerType.SMTP, SocketType.SSL): "_submissions._tcp",
    (ServerType.SMTP, SocketType.STARTTLS): "_submission._tcp",
}
_SIEVE = "_sieve._tcp"
_DAV_SERVICES = {
    (ServiceType.CALDAV, "https"): "_caldavs._tcp",
    (ServiceType.CALDAV, "http"): "_caldav._tcp",
    (ServiceType.CARDDAV, "https"): "_carddavs._tcp",
    (ServiceType.CARDDAV, "http"): "_carddav._tcp",
    (ServiceType.JMAP, "https"): "_jmap._tcp",
}

# Label and type of all other records that a domain may have.
NAMES = [
    (AUTODISCOVER, "SRV"),
    (pacc.TXT_NAME, "TXT"),
    *((service, "SRV") for service in (*_MAIL_SERVICES.values(), _SIEVE)),
    *((service, "SRV") for service in _DAV_SERVICES.values()),
    *((name, "TXT") for (type_, _), name in _DAV_SERVICES.items() if type_ is not ServiceType.JMAP),
]


@dataclass(frozen=True, slots=True)
class Record:
    """A record: its full name without final dot, its type and its data as in a zone file.

    ``text`` is the text of a TXT record, "" for other types.
    """

    name: str
    type: str
    data: str
    text: str = ""

    def document(self) -> dict[str, object]:
        """Return the record for programs."""
        return {"name": self.name, "ttl": TTL, "type": self.type, "data": self.data}


def records(
    config: ClientConfig, host: str, documents: Sequence[bytes] | None = None
) -> list[Record]:
    """Return all records of a domain: those of this service, of mail and of other services.

    ``host`` is the public name of this service, an A-label. ``documents`` are the PACC documents
    whose digests the zone holds; None stands for the one that the rows give.
    """
    if documents is None:
        try:
            documents = [pacc.render(config)]
        except pacc.NothingToPublishError:
            documents = []
    return [*_service(config, host, documents), *_mail(config), *_dav(config)]


def host_names(domain: str) -> list[str]:
    """Return the host names of a domain at which clients ask this service, for certificates.

    ``domain`` is an A-label in lower case. Names with an underscore, or with more than 253
    characters, are not among them, nor those of IP addresses and of domains without a dot: no
    authority certifies these.
    """
    if "." not in domain or domain.rpartition(".")[2].isdecimal():
        return []
    return list(filter(is_certifiable, (f"{label}.{domain}" for label in SERVICE_HOSTS)))


def is_certifiable(name: str) -> bool:
    """Return whether an authority certifies a name, as far as its letters and length tell."""
    return "_" not in name and len(name) <= 253


def domain_of_host(name: str) -> str | None:
    """Return the domain of which host_names() gives ``name``, None if there is none."""
    domain = name.partition(".")[2]
    return domain if domain and name in host_names(domain) else None


def zone(config: ClientConfig, found: list[Record]) -> str:
    """Return records as lines of a zone file (RFC 1035, section 5), with full names."""
    width = max(len(record.name) for record in found) + 1
    lines = [f"; {config.domain}, for mail clients; written by automx"]
    lines += [
        f"{f'{record.name}.':<{width}} {TTL} IN {record.type:<5} {record.data}" for record in found
    ]
    return "\n".join(lines) + "\n"


def _service(config: ClientConfig, host: str, documents: Sequence[bytes]) -> Iterator[Record]:
    """Yield the records that point to this service."""
    for label in SERVICE_HOSTS:
        name = f"{label}.{config.domain}"
        if name != host and (label != pacc.HOST_PREFIX or documents):
            yield Record(name, "CNAME", f"{host}.")
    yield Record(f"{AUTODISCOVER}.{config.domain}", "SRV", f"0 0 443 {host}.")
    for document in documents:
        yield digest(config.domain, document)


def digest(domain: str, document: bytes) -> Record:
    """Return the record with the digest of a domain's PACC document."""
    return txt(f"{pacc.TXT_NAME}.{domain}", pacc.digest_record(document))


def _mail(config: ClientConfig) -> Iterator[Record]:
    """Yield the records of mail servers; NOT_OFFERED for services without a server.

    A service gets no record if all its servers have an IP address, a host name for each person, or
    no encryption: no record can describe them, and NOT_OFFERED would be wrong. The same holds for
    servers that documents for all clients do not show: a record does not tell methods.
    """
    shown = config.general().mail_servers
    for (type_, socket_type), service in _MAIL_SERVICES.items():
        is_ssl = socket_type is SocketType.SSL  # else STARTTLS, or no encryption
        servers = [
            server
            for server in config.servers(type_)
            if is_ssl == (server.socket_type is SocketType.SSL)
        ]
        encrypted = [s for s in servers if s.socket_type is socket_type and s in shown]
        yield from _srv(config, service, encrypted)
        if not servers:
            yield Record(f"{service}.{config.domain}", "SRV", NOT_OFFERED)
    yield from _srv(config, _SIEVE, [s for s in config.sieve if s in shown])


def _srv(config: ClientConfig, service: str, servers: list[MailServer]) -> Iterator[Record]:
    targets = [
        (server.port, hostname)
        for server in servers
        if (hostname := expand(server.hostname, config.domain, None)) and not is_ip(hostname)
    ]
    for priority, (port, hostname) in enumerate(dict.fromkeys(targets)):
        data = f"{priority} 1 {port} {hostname}."
        yield Record(f"{service}.{config.domain}", "SRV", data)


def _dav(config: ClientConfig) -> Iterator[Record]:
    described = set()
    for server in config.services:
        parts = urlsplit(shared_url(server.url, config.domain) or "")
        service = _DAV_SERVICES.get((server.type, parts.scheme))
        if service is None or service in described:
            continue
        try:
            hostname = parse_domain(parts.hostname or "")
        except AddressError:
            continue
        if is_ip(hostname):
            continue
        described.add(service)
        name = f"{service}.{config.domain}"
        port = parts.port or (443 if parts.scheme == "https" else 80)
        yield Record(name, "SRV", f"0 1 {port} {hostname}.")
        if server.type is not ServiceType.JMAP:  # RFC 8620 has no such path
            path = quote(parts.path, safe="/%:@!$&'()*+,;=~-._") or "/"
            yield txt(name, f"path={path}")


def txt(name: str, text: str) -> Record:
    """Return a TXT record with strings of at most 255 octets (RFC 1035, section 3.3.14)."""
    pieces = [text[i : i + 255] for i in range(0, len(text), 255)]
    escaped = (re.sub(r'(["\\])', r"\\\1", piece) for piece in pieces)
    return Record(name, "TXT", " ".join(f'"{piece}"' for piece in escaped), text)
