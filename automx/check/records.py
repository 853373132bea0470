"""Whether the zone of a domain holds the records that ``automx dns`` prints."""

from collections import defaultdict
from collections.abc import Iterator
from functools import partial

from automx import dns
from automx.check.finding import Finding, Level, Step
from automx.check.network import NameServerError, Network
from automx.clientconfig import ClientConfig
from automx.formats import pacc

_SEE_SERVERS = "see the name servers of the zone"


def steps(config: ClientConfig, network: Network, host: str) -> Iterator[Step]:
    """Yield what is to be done for a domain; ``host`` is this service's name, or ""."""
    domain = config.domain
    expected: dict[tuple[str, str], list[dns.Record]] = defaultdict(list)
    for record in dns.records(config, host or "HOST"):
        expected[record.name, record.type].append(record)
    yield partial(_zone, domain, network)
    digest = f"{pacc.TXT_NAME}.{domain}"
    publishes = (digest, "TXT") in expected
    checks: list[tuple[str, Step]] = []
    for label in dns.SERVICE_HOSTS:
        if label != pacc.HOST_PREFIX or publishes:
            name = f"{label}.{domain}"
            checks.append((name, partial(_service_host, domain, network, name, host)))
    for (name, type_), records in expected.items():
        if name == f"{dns.AUTODISCOVER}.{domain}":
            if host:
                checks.append((name, partial(_autodiscover, domain, network, name, host)))
        elif type_ == "SRV":
            checks.append((name, partial(_services, domain, network, name, records)))
        elif type_ == "TXT":
            checks.append((name, partial(_text, domain, network, name, records[0])))
    if not publishes:
        checks.append((digest, partial(_no_digest, domain, network, digest)))
    for name, check in checks:
        yield partial(_careful, domain, network, name, check)


def is_usable(network: Network, domain: str) -> bool:
    """Tell whether it makes sense to ask for names below a domain."""
    try:
        return network.exists(domain)
    except NameServerError:
        return False


def _zone(domain: str, network: Network) -> Iterator[Finding]:
    """Say once, for all names, that nothing is known of a domain."""
    try:
        if not network.exists(domain):
            text = "the domain does not exist in DNS"
            advice = "register it, or delete its row; its names and URLs were not looked at"
            yield Finding(domain, Level.ERROR, domain, text, advice)
    except NameServerError as error:
        advice = f"{_SEE_SERVERS}; its names and URLs were not looked at"
        yield Finding(domain, Level.ERROR, domain, str(error), advice)


def _careful(domain: str, network: Network, name: str, check: Step) -> Iterator[Finding]:
    """Check a name unless the zone as a whole is not usable; tell what a name server refused."""
    if not is_usable(network, domain):
        return
    try:
        yield from check()
    except NameServerError as error:
        yield Finding(domain, Level.ERROR, name, str(error), _SEE_SERVERS)


def _service_host(domain: str, network: Network, name: str, host: str) -> Iterator[Finding]:
    """Where a name leads does not matter here: what answers there is compared byte by byte."""
    # Few clients ask by PACC yet, and all of them ask otherwise, too.
    level = Level.WARNING if name.startswith(f"{pacc.HOST_PREFIX}.") else Level.ERROR
    found = network.addresses(name)
    alias = network.records(name, "CNAME")
    if not found and alias:
        text = f"the name is an alias of {alias[0].removesuffix('.')}, which has no address"
        advice = f"the zone should have: {name}. IN CNAME {host or 'HOST'}."
        yield Finding(domain, level, name, text, advice)
    elif not found:
        advice = f"add to the zone: {name}. IN CNAME {host or 'HOST'}."
        yield Finding(domain, level, name, "the name has no address", advice)
    elif all(":" in address for address in found):
        text = "the name has IPv6 addresses only, which many clients cannot reach"
        yield Finding(domain, Level.WARNING, name, text, "add an IPv4 address")


def _autodiscover(domain: str, network: Network, name: str, host: str) -> Iterator[Finding]:
    """Outlook asks for this record when the host autodiscover fails; it need not be there."""
    for data in network.records(name, "SRV"):
        port, target = data.split()[2:]
        target = target.removesuffix(".").lower()
        ours = {*network.addresses(host), *network.addresses(f"autodiscover.{domain}")}
        if target == host and port == "443":
            continue
        if port != "443" or not ours.intersection(network.addresses(target)):
            text = f"the SRV record leads to {target}:{port}"
            advice = f"the zone should have: {name}. IN SRV 0 0 443 {host}."
            yield Finding(domain, Level.WARNING, name, text, advice)


def _services(
    domain: str, network: Network, name: str, records: list[dns.Record]
) -> Iterator[Finding]:
    wanted = "; ".join(f"{name}. IN SRV {record.data}" for record in records)
    expected = {_place(record.data) for record in records}
    found = {_place(data) for data in network.records(name, "SRV")}
    nowhere = {_place(dns.NOT_OFFERED)}
    if found == expected or (not found and expected == nowhere):
        return
    if not found:
        advice = f"add to the zone: {wanted}"
        yield Finding(domain, Level.WARNING, name, "there is no SRV record", advice)
        return
    text = f"the SRV record leads to {', '.join(sorted(found))}"
    if expected == nowhere:
        text += ", which no row of the table server knows"
    elif found == nowhere:
        text = "the SRV record says that this is not offered"
    yield Finding(domain, Level.ERROR, name, text, f"the zone should have: {wanted}")


def _place(data: str) -> str:
    """Return host and port of an SRV record, in the form in which people write them."""
    port, target = data.split()[2:]
    return "nowhere" if target == "." else f"{target.removesuffix('.').lower()}:{port}"


def _text(domain: str, network: Network, name: str, record: dns.Record) -> Iterator[Finding]:
    """Several digests may stand side by side while documents change."""
    prefix = record.text.partition("=")[0]
    found = [text for text in network.records(name, "TXT") if text.partition("=")[0] == prefix]
    if record.text in found:
        return
    wanted = f"{name}. IN TXT {record.data}"
    if not found:
        advice = f"add to the zone: {wanted}"
        yield Finding(domain, Level.WARNING, name, "there is no TXT record", advice)
    elif name.startswith(pacc.TXT_NAME):
        text = "the digest is not that of the document, so clients refuse it"
        yield Finding(domain, Level.ERROR, name, text, f"add to the zone: {wanted}")
    else:
        text = f"the TXT record says {', '.join(found)}"
        yield Finding(domain, Level.ERROR, name, text, f"the zone should have: {wanted}")


def _no_digest(domain: str, network: Network, name: str) -> Iterator[Finding]:
    if any(text.startswith("v=UAAC1") for text in network.records(name, "TXT")):
        text = "a digest stands there, but PACC cannot tell of these servers: there is no document"
        advice = "delete the TXT record, or offer IMAP at port 993 and SMTP at port 465 with TLS"
        yield Finding(domain, Level.WARNING, name, text, advice)
