"""Whether mail for a domain is delivered to its own mail servers: MX records (RFC 5321, section 5).

The hosts of filter services have names and addresses of their own, so this is a hint, and no error.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from automx.address import expand, is_ip
from automx.check.finding import Check, DomainChecks, Finding
from automx.check.network import MAX_HOSTS, NameServerError
from automx.clientconfig import ClientConfig

MAX_NAMED = 3  # hosts in a finding

# Domains are registered below these of many countries: example.co.uk.
_SECOND_LEVEL = {"ac", "co", "com", "edu", "gob", "gov", "gv", "ne", "net", "or", "org"}


@dataclass(frozen=True, slots=True)
class MxChecks(DomainChecks):
    """The check of the MX records; without any, and with odd name servers, it finds nothing."""

    config: ClientConfig

    def checks(self) -> Iterator[Check]:
        """Yield the check, if there is a mail server with one name for all people."""
        servers = self.config.mail_servers
        expanded = (expand(server.hostname, self.domain, None) for server in servers)
        if hosts := {host for host in expanded if host is not None}:
            yield lambda: self._check(hosts)

    def _check(self, hosts: set[str]) -> Iterator[Finding]:
        if not self.network.is_usable(self.domain):
            return
        with suppress(NameServerError):
            records = [data.split() for data in self.network.records(self.domain, "MX")]
            records.sort(key=lambda record: int(record[0]))
            found = [record[1].removesuffix(".").lower() for record in records[:MAX_HOSTS]]
            if found == [""]:
                text = "the MX record says that the domain accepts no mail (RFC 7505)"
                yield self.warning(self.domain, text, "correct it, or switch the domain off")
            elif found and not self._are_here(found, hosts):
                names = ", ".join(found[:MAX_NAMED]) + (" …" if len(found) > MAX_NAMED else "")
                verb = "is" if len(found) == 1 else "are"
                text = (
                    f"mail for {self.domain} is delivered to {names} (MX), which {verb} none of"
                    " its mail servers: is the domain elsewhere?"
                )
                advice = "switch it off if so; a filter in front of the mail servers is fine"
                yield self.warning(self.domain, text, advice)

    def _are_here(self, found: list[str], hosts: set[str]) -> bool:
        """Return whether a host of MX records shares its domain or an address with a server."""
        if not {_registered(name) for name in found}.isdisjoint(map(_registered, hosts)):
            return True
        addresses = {address for host in hosts for address in self.network.addresses(host)}
        return any(not addresses.isdisjoint(self.network.addresses(name)) for name in found if name)


def _registered(host: str) -> str:
    """Return the registered domain of a host, by the usual forms; an IP address itself."""
    if is_ip(host):
        return host
    labels = host.split(".")
    is_below = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL
    return ".".join(labels[-3:] if is_below else labels[-2:])
