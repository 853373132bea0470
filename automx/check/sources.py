"""Whether sources can be read, what their accounts may do, and when they were synchronized."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta

from automx import installation, sources
from automx.backends.keys import KeyMemory
from automx.check.finding import Check, DomainChecks, Finding, Level
from automx.check.network import Network
from automx.check.people import PeopleChecks
from automx.config import Settings, SourceSettings
from automx.database import Session
from automx.database.foreign import ForeignDatabase
from automx.errors import AutomxError
from automx.moments import dated
from automx.sources.found import SourceError
from automx.sync import state
from automx.sync.state import Outcome, Record

_INTERVALS = 3  # that may pass without a synchronization, but at least:
_LATE = timedelta(hours=1)
# A source is read whole, which takes longer than one question. The whole run lasts 15 times the
# timeout of the network at least.
_TIMEOUTS = 10


def source_checks(
    session: Session, settings: Settings, keys: KeyMemory, network: Network
) -> Sequence[Check]:
    """Return the check of each source, which belongs to no domain.

    ``keys`` remembers whether mailcow accepts a key. Raises DatabaseError.
    """
    last = {record.name: record for record in state.records(session)} if settings.sources else {}
    return [
        SourceChecks("", network, settings, keys, source, last.get(source.name)).check
        for source in settings.sources
    ]


@dataclass(frozen=True, slots=True)
class SourceChecks(DomainChecks):
    """The check of a source; ``last`` is its last synchronization, None if there was none."""

    settings: Settings
    keys: KeyMemory
    source: SourceSettings
    last: Record | None

    @property
    def _subject(self) -> str:
        return f"source {self.source.name}"

    def check(self) -> Iterator[Finding]:
        """Read the source, and look at its account and at its last synchronization."""
        outcome = Outcome.DONE
        if self.source.finds_domains:
            outcome, finding = self._read()
            yield finding
        if self.source.type == "sql" and outcome is not Outcome.UNREADABLE:
            yield from self._rights()
            if self.source.finds_people:
                yield from PeopleChecks("", self.network, self.source).check()
        if self.source.finds_domains:
            yield from self._synchronized(outcome)

    def _read(self) -> tuple[Outcome, Finding]:
        """Return how a synchronization would end as far as the source decides it."""
        name = self.source.name
        seconds = min(self.source.timeout, _TIMEOUTS * self.network.timeout)
        try:
            source = replace(self.source, timeout=seconds)
            number = len(sources.read(source, self.settings, self.keys).by_label)
        except SourceError as error:
            advice = f"see [source.{name}] in the settings, and that the source runs"
            text = f"it cannot be read: {error.reason}"
            return Outcome.UNREADABLE, self.error(self._subject, text, advice)
        if number:
            text = f"it has {number} domain{'s' * (number != 1)}"
            return Outcome.DONE, Finding("", Level.OK, self._subject, text)
        text = "it has no domain, so a synchronization changes nothing"
        advice = f"see [source.{name}] in the settings, and what its account may read"
        return Outcome.EMPTY, self.error(self._subject, text, advice)

    def _rights(self) -> Iterator[Finding]:
        """Yield a warning if the account of a database may do more than read."""
        seconds = min(self.network.timeout, self.source.timeout)
        with closing(ForeignDatabase(self.source.uri, seconds)) as database:
            try:
                rights = database.privileges()
            except AutomxError as error:
                text = f"what its account may do cannot be seen: {error.reason}"
                yield self.warning(self._subject, text, "check uri and the database")
                return
        if rights:
            text = f"its account may do more than read: {', '.join(rights)}"
            page = "sources.md" if self.source.finds_domains else "people.md"
            advice = f"let it SELECT only, see {installation.page(page)}"
            yield self.warning(self._subject, text, advice)

    def _synchronized(self, outcome: Outcome) -> Iterator[Finding]:
        """Yield what is wrong with the last synchronization; ``outcome`` is told already."""
        last, now, name = self.last, self.network.now, self.source.name
        look = f"see automx sync --dry-run {name}"
        if last is None:
            text, advice = "it was never synchronized", f"run automx sync {name}, or the timer"
            yield self.warning(self._subject, text, advice)
            return
        if last.outcome not in (Outcome.DONE, outcome):
            done = dated(last.succeeded_at, now) if last.succeeded_at else "never"
            text = f"the last synchronization failed: {last.message} (last success: {done})"
            yield self.error(self._subject, text, look)
        if now - last.began_at > max(_INTERVALS * self.source.interval, _LATE):
            text = f"the last synchronization was {dated(last.began_at, now)}"
            advice = "see that the timer runs, or set interval to how often it does"
            yield self.error(self._subject, text, advice)
        if last.problems:
            text = f"problems of the last synchronization: {last.problems}"
            yield self.warning(self._subject, text, look)
