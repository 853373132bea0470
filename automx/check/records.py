"""Whether the zone of a domain holds the records that ``automx dns`` prints."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from automx import dns
from automx.check.finding import Check, DomainChecks, Finding, Level
from automx.check.network import MAX_HOSTS, NameServerError
from automx.clientconfig import ClientConfig
from automx.formats import pacc

_NO_NAME = "automx-check-no-such-name"  # what gives it an address is a wildcard (RFC 4592)
_SEE_SERVERS = "see the name servers of the zone"
_NOT_CHECKED = "its names and URLs were not checked"


@dataclass(frozen=True, slots=True)
class RecordChecks(DomainChecks):
    """The checks of the records; ``host`` is the public name of this service, or "".

    ``documents`` are the PACC documents whose digests the zone should have; None stands for the
    one that the rows give.
    """

    config: ClientConfig
    host: str
    documents: Sequence[bytes] | None = None

    def checks(self) -> Iterator[Check]:
        """Yield a check of the zone, and one for each name and type."""
        expected: dict[tuple[str, str], list[dns.Record]] = defaultdict(list)
        for record in dns.records(self.config, self.host or "HOST", self.documents):
            expected[record.name, record.type].append(record)
        yield self._zone
        digest = f"{pacc.TXT_NAME}.{self.domain}"
        has_digest = (digest, "TXT") in expected
        for label in dns.SERVICE_HOSTS:
            if label != pacc.HOST_PREFIX or has_digest:
                yield partial(self._at, f"{label}.{self.domain}", self._service_host)
        for (name, type_), records in expected.items():
            if name == f"{dns.AUTODISCOVER}.{self.domain}":
                if self.host:
                    yield partial(self._at, name, self._autodiscover)
            elif type_ == "SRV":
                yield partial(self._at, name, partial(self._srv, records))
            elif type_ == "TXT":
                yield partial(self._at, name, partial(self._txt, records[0]))
        if not has_digest:
            yield partial(self._at, digest, self._no_digest)

    def _zone(self) -> Iterator[Finding]:
        """Report once, for all names, a domain that does not exist or cannot be looked up."""
        try:
            if not self.network.exists(self.domain):
                advice = f"register it, or delete its row; {_NOT_CHECKED}"
                yield self.error(self.domain, "the domain does not exist in DNS", advice)
        except NameServerError as error:
            yield self.error(self.domain, str(error), f"{_SEE_SERVERS}; {_NOT_CHECKED}")

    def _at(self, name: str, check: Callable[[str], Iterator[Finding]]) -> Iterator[Finding]:
        """Check a name, unless the domain as a whole is not usable."""
        if self.network.is_usable(self.domain):
            try:
                yield from check(name)
            except NameServerError as error:
                yield self.error(name, str(error), _SEE_SERVERS)

    def _service_host(self, name: str) -> Iterator[Finding]:
        """Check that a name has an address; the checks of URLs compare what answers there."""
        # Few clients use PACC yet, and all of them have other ways.
        level = Level.WARNING if name.startswith(f"{pacc.HOST_PREFIX}.") else Level.ERROR
        found = self.network.addresses(name)
        if found:
            yield from self.ipv6_only(name, found)
            yield from self._by_wildcard(name, found, level)
            return
        text, wanted = "the name has no address", "add to the zone"
        if alias := self.network.records(name, "CNAME"):
            text = f"the name is an alias of {alias[0].removesuffix('.')}, which has no address"
            wanted = "the zone should have"
        advice = f"{wanted}: {name}. IN CNAME {self.host or 'HOST'}."
        yield Finding(self.domain, level, name, text, advice)

    def _by_wildcard(self, name: str, found: list[str], level: Level) -> Iterator[Finding]:
        """Report a name that is missing where a wildcard of the zone leads it elsewhere."""
        ours = self.network.addresses(self.host) if self.host else []
        if not ours or set(found) & set(ours):
            return
        if found == self.network.addresses(f"{_NO_NAME}.{self.domain}"):
            text = f"the zone has no such name, and a wildcard leads it to {', '.join(found)}"
            advice = f"add to the zone: {name}. IN CNAME {self.host}."
            yield Finding(self.domain, level, name, text, advice)

    def _autodiscover(self, name: str) -> Iterator[Finding]:
        """Check the record that Outlook looks up if the host autodiscover fails: it is optional."""
        records = self.network.records(name, "SRV")[:MAX_HOSTS]
        hosts = (self.host, f"autodiscover.{self.domain}") if records else ()
        ours = {address for host in hosts for address in self.network.addresses(host)}
        astray = []
        for data in records:
            port, target = data.split()[2:]
            target = target.removesuffix(".").lower()
            is_here = target == self.host or ours.intersection(self.network.addresses(target))
            if port != "443" or not is_here:
                astray.append(f"{target}:{port}")
        if astray:
            advice = f"the zone should have: {name}. IN SRV 0 0 443 {self.host}."
            yield self.warning(name, f"the SRV record leads to {', '.join(astray)}", advice)

    def _srv(self, records: list[dns.Record], name: str) -> Iterator[Finding]:
        wanted = "; ".join(f"{name}. IN SRV {record.data}" for record in records)
        expected = {_target(record.data) for record in records}
        found = {_target(data) for data in self.network.records(name, "SRV")}
        not_offered = {_target(dns.NOT_OFFERED)}
        if not found and expected != not_offered:
            yield self.warning(name, "there is no SRV record", f"add to the zone: {wanted}")
        elif found and found != expected:
            text = f"the SRV record leads to {', '.join(sorted(found))}"
            if expected == not_offered:
                text += ", which is in no row of the table server"
            elif found == not_offered:
                text = "the SRV record says that the service is not offered"
            yield self.error(name, text, f"the zone should have: {wanted}")

    def _txt(self, record: dns.Record, name: str) -> Iterator[Finding]:
        """Check a TXT record; while documents change, a name may have several digests."""
        prefix = record.text.partition("=")[0]
        texts = self.network.records(name, "TXT")
        found = [text for text in texts if text.partition("=")[0] == prefix]
        if record.text in found:
            return
        wanted = f"{name}. IN TXT {record.data}"
        if not found:
            yield self.warning(name, "there is no TXT record", f"add to the zone: {wanted}")
        elif name.startswith(pacc.TXT_NAME):
            text = "the digest is not that of the document, so clients refuse the document"
            yield self.error(name, text, f"add to the zone: {wanted}")
        else:
            text = f"the TXT record says {', '.join(found)}"
            yield self.error(name, text, f"the zone should have: {wanted}")

    def _no_digest(self, name: str) -> Iterator[Finding]:
        if any(text.startswith("v=UAAC1") for text in self.network.records(name, "TXT")):
            text = "there is a digest, but no PACC document: PACC cannot describe these servers"
            advice = "delete the TXT record, or offer IMAP at port 993 and SMTP at 465 with TLS"
            yield self.warning(name, text, advice)


def _target(data: str) -> str:
    """Return host and port of an SRV record as HOST:PORT, "nowhere" for the root."""
    port, target = data.split()[2:]
    return "nowhere" if target == "." else f"{target.removesuffix('.').lower()}:{port}"
