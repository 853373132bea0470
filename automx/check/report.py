"""The report of a run of the doctor."""

from collections import defaultdict
from dataclasses import dataclass, field

from automx.check.finding import Finding


@dataclass
class Report:
    """The findings so far by domain, "" for none; ``domains`` are those to look at."""

    domains: list[str] = field(default_factory=list)
    found: dict[str, list[Finding]] = field(default_factory=lambda: defaultdict(list, {"": []}))
    is_interrupted: bool = False

    def by_domain(self) -> dict[str, list[Finding]]:
        """Return the findings of each domain that was looked at, the worst first."""
        domains = [domain for domain in ("", *self.domains) if domain in self.found]
        return {domain: sorted(self.found[domain], key=lambda f: -f.level) for domain in domains}

    @property
    def findings(self) -> list[Finding]:
        """All findings: those of no domain first, then domain by domain, the worst first."""
        return [finding for found in self.by_domain().values() for finding in found]

    @property
    def status(self) -> int:
        """The exit status."""
        return max((finding.level for finding in self.findings), default=0)

    def document(self) -> dict[str, object]:
        """Return the report for programs."""
        return {
            "status": self.status,
            "complete": not self.is_interrupted,
            "domains": self.domains,
            "findings": [finding.document() for finding in self.findings],
        }
