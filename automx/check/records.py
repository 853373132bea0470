"""Whether the zone of a domain holds the records that ``automx dns`` prints."""

from collections import defaultdict
from collections.abc import Iterator

from automx import dns
from automx.check.finding import Finding, Level
from automx.check.network import Network, NetworkError
from automx.clientconfig import ClientConfig


def check(config: ClientConfig, network: Network, host: str) -> Iterator[Finding]:
    """Yield what is missing in the zone, or other than it should be."""
    expected: dict[tuple[str, str], list[str]] = defaultdict(list)
    for record in dns.records(config, host or "automx.invalid"):
        expected[record.name, record.type].append(record.data)
    for (name, type_), data in expected.items():
        if not host and (type_ == "CNAME" or name.startswith("_autodiscover.")):
            continue  # where they should lead to is not known
        try:
            finding = _compare(config.domain, network, name, type_, data)
        except NetworkError as error:
            finding = Finding(config.domain, Level.ERROR, name, str(error), "see the name server")
        if finding is not None:
            yield finding


def _compare(
    domain: str, network: Network, name: str, type_: str, expected: list[str]
) -> Finding | None:
    wanted = f"the zone should have: {name}. IN {type_} {' '.join(expected)}"
    match type_:
        case "CNAME":
            return _host(domain, network, name, expected[0].removesuffix("."), wanted)
        case "TXT":
            text = expected[0].strip('"')
            return _text(domain, network.records(name, type_), name, text, wanted)
    found = network.records(name, type_)
    none_offered = expected == ["0 0 0 ."]
    if not found:
        if none_offered:
            return None
        return Finding(domain, Level.WARNING, name, "there is no SRV record", wanted)
    places = {data.split(" ", 2)[2].lower() for data in found}
    if none_offered and places != {"0 ."}:
        text = f"the SRV record leads to {', '.join(sorted(places))}, which no row knows"
        return Finding(
            domain, Level.ERROR, name, text, f"delete the record, or add the server; {wanted}"
        )
    if places != {data.split(" ", 2)[2].lower() for data in expected}:
        text = f"the SRV record leads to {', '.join(sorted(places))}"
        return Finding(domain, Level.ERROR, name, text, wanted)
    return None


def _host(domain: str, network: Network, name: str, host: str, wanted: str) -> Finding | None:
    """Compare where two names lead; whether by CNAME or by address does not matter."""
    found = network.addresses(name)
    if not found:
        label = name.partition(".")[0]
        level = Level.ERROR if label == "autoconfig" else Level.WARNING
        return Finding(domain, level, name, "the name does not exist", wanted)
    if not set(found) & set(network.addresses(host)):
        text = f"the name leads to {', '.join(found)}, which is not {host}"
        return Finding(domain, Level.ERROR, name, text, wanted)
    return None


def _text(domain: str, found: list[str], name: str, expected: str, wanted: str) -> Finding | None:
    if expected in found:
        return None
    if name.startswith("_ua-auto-config."):
        ours = [text for text in found if text.startswith("v=UAAC1")]
        if ours:
            text = "the digest is not that of the document, so clients refuse it"
            return Finding(domain, Level.ERROR, name, text, wanted)
        return Finding(domain, Level.WARNING, name, "there is no TXT record", wanted)
    if any(text.startswith("path=") for text in found):
        return Finding(domain, Level.ERROR, name, f"the TXT record says {found[0]}", wanted)
    return Finding(domain, Level.WARNING, name, "there is no TXT record", wanted)
