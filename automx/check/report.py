"""The report of a run of the doctor.

A fault of a mail server is found for each domain that uses it. What is found for several domains
alike is one entry, which names them.
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace

from automx.check.finding import Finding, Level


@dataclass(frozen=True, slots=True)
class Entry:
    """A finding, and the domains that it is about: none, one or several.

    The domain of a finding about several domains is "".
    """

    finding: Finding
    domains: tuple[str, ...]

    def document(self) -> dict[str, object]:
        """Return the entry for programs."""
        return self.finding.document() | {"domains": list(self.domains)}


_Key = tuple[Level, str, str]  # level, subject, text


@dataclass
class Report:
    """The findings so far by domain, "" for none; ``domains`` are those to look at."""

    domains: list[str] = field(default_factory=list)
    found: dict[str, list[Finding]] = field(default_factory=lambda: defaultdict(list, {"": []}))
    is_interrupted: bool = False
    is_aborted: bool = False  # by an error before a domain was looked at

    def entries(self, *, is_whole: bool = False) -> list[Entry]:
        """Return what was found, the worst first in each part.

        The parts are what belongs to no domain, what several domains share, and domain by domain.
        If they shall be ``is_whole``, a part without findings is an entry that says so.
        """
        shared = self._shared()
        parts = [[Entry(finding, ()) for finding in self.found[""]]]
        if not parts[0] and is_whole:
            parts[0].append(Entry(_in_order("", "settings and database are"), ()))
        parts.append(self._of_several(shared))
        for domain in self._looked_at():
            found = self.found[domain]
            if not found and is_whole:
                found = [_in_order(domain, "everything is")]
            own = (finding for finding in found if _key(finding) not in shared)
            parts.append([Entry(finding, (domain,)) for finding in own])
        return [
            entry for part in parts for entry in sorted(part, key=lambda one: -one.finding.level)
        ]

    def _looked_at(self) -> list[str]:
        return [domain for domain in self.domains if domain in self.found]

    def _shared(self) -> dict[_Key, list[str]]:
        """Return the domains of each finding that several domains have."""
        having: dict[_Key, dict[str, None]] = defaultdict(dict)
        for domain in self._looked_at():
            for finding in self.found[domain]:
                having[_key(finding)][domain] = None
        return {key: [*domains] for key, domains in having.items() if len(domains) > 1}

    def _of_several(self, shared: dict[_Key, list[str]]) -> list[Entry]:
        """Return an entry for each finding of several domains, with the advice for the first."""
        found: dict[_Key, Entry] = {}
        for domain in self._looked_at():
            for finding in self.found[domain]:
                if (domains := shared.get(key := _key(finding))) and key not in found:
                    found[key] = Entry(replace(finding, domain=""), tuple(domains))
        return [*found.values()]

    @property
    def status(self) -> int:
        """The exit status."""
        return max((finding.level for found in self.found.values() for finding in found), default=0)

    def document(self) -> dict[str, object]:
        """Return the report for programs."""
        return {
            "status": self.status,
            "complete": not self.is_interrupted,
            "domains": self.domains,
            "findings": [entry.document() for entry in self.entries()],
        }


def _in_order(domain: str, what: str) -> Finding:
    return Finding(domain, Level.OK, "", f"{what} in order")


def _key(finding: Finding) -> _Key:
    return finding.level, finding.subject, finding.text
