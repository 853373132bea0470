"""What the doctor finds, and what the checks of a domain share."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import IntEnum

from automx.check.network import Network, NetworkError
from automx.signing import NEAR_END


class Level(IntEnum):
    """How bad a finding is; the numbers are exit statuses."""

    OK = 0  # information
    WARNING = 1  # it works for most clients, or not for long
    ERROR = 2  # clients fail


@dataclass(frozen=True, slots=True)
class Finding:
    """One line about a domain ("" for database and settings): what is wrong and what to do.

    The texts may hold what other servers sent: remove control characters before they are shown.
    """

    domain: str
    level: Level
    subject: str
    text: str
    advice: str = ""

    def document(self) -> dict[str, object]:
        """Return the finding for programs."""
        return asdict(self) | {"level": self.level.name.lower()}


# A part of the work on a domain that needs no other part; it gives findings and further checks.
Check = Callable[[], "Iterable[Finding | Check]"]


@dataclass(frozen=True, slots=True)
class DomainChecks:
    """The checks of a domain, with one subclass for each kind of thing that is checked."""

    domain: str
    network: Network

    def error(self, subject: str, text: str, advice: str) -> Finding:
        """Return an error about this domain."""
        return Finding(self.domain, Level.ERROR, subject, text, advice)

    def warning(self, subject: str, text: str, advice: str) -> Finding:
        """Return a warning about this domain."""
        return Finding(self.domain, Level.WARNING, subject, text, advice)

    def failure(self, level: Level, subject: str, error: NetworkError, advice: str) -> Finding:
        """Return the finding for a NetworkError; its own advice is better than ``advice``."""
        return Finding(self.domain, level, subject, str(error), error.advice or advice)

    def near_end(self, subject: str, not_after: datetime) -> Iterator[Finding]:
        """Yield a warning if a certificate that is valid until ``not_after`` ends soon."""
        if not_after - self.network.now < NEAR_END:
            text = f"the certificate ends on {not_after:%Y-%m-%d}"
            yield self.warning(subject, text, "renew it, and see why automatic renewal failed")

    def dead_addresses(self, subject: str, server: str, name: str, port: int) -> Iterator[Finding]:
        """Yield a warning for each address of a host that refuses connections."""
        for reason in self.network.dead_addresses(name, port):
            advice = f"let the {server} listen at all addresses of the name, or delete this one"
            yield self.warning(subject, reason, advice)

    def ipv6_only(self, subject: str, addresses: Sequence[str]) -> Iterator[Finding]:
        """Yield a warning if a host has no IPv4 address."""
        if all(":" in address for address in addresses):
            text = "the name has IPv6 addresses only, which many clients cannot reach"
            yield self.warning(subject, text, "add an IPv4 address")
