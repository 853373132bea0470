"""Whether the zones that automx writes hold its records, and whether rollovers go on."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from automx import dns
from automx.cache import FoundConfig
from automx.check.finding import Check, DomainChecks, Finding, Level
from automx.config import Settings, ZoneSettings
from automx.database import Session
from automx.errors import BadRecordError, ElsewhereError, SettingsError, ZoneError
from automx.zones import plan as plans
from automx.zones import states
from automx.zones.apply import advanced, waits_of
from automx.zones.primary import Primary
from automx.zones.rollover import State

_LATE = timedelta(days=1)  # a timer that was off for a night is no fault
_SHOWN = 3

_RUN = "see that a timer runs automx dns-apply --all --yes"


def check_states(session: Session, settings: Settings, now: datetime) -> Iterator[Finding]:
    """Yield domains whose zones automx does not write any more, and rollovers that stand still."""
    for state in states.read_all(session):
        if isinstance(state, BadRecordError):
            row, _, text = state.reason.partition(": ")
            advice = "delete it (automx dns-apply --abandon): the rows of the domain are used then"
            yield Finding("", Level.ERROR, row, text, advice)
            continue
        domain = state.domain
        if settings.zone_of(domain) is None:
            text = "automx manages the digest of its PACC document, and its zone has no zone_server"
            advice = f"set zone_server, or give it up: automx dns-apply --abandon {domain}"
            yield Finding("", Level.WARNING, domain, text, advice)
        elif state.is_waiting and now - (state.due_at or state.changed_at) > _LATE:
            since = f"{state.due_at or state.changed_at:%Y-%m-%d}"
            text = f"the rollover of the PACC document stands still since {since} ({state.step})"
            yield Finding("", Level.WARNING, domain, text, _RUN)


@dataclass(frozen=True, slots=True)
class ZoneChecks(DomainChecks):
    """The check of a zone that automx writes; ``state`` is the stored one, None if there is none.

    ``host`` is the public name of this service, an A-label.
    """

    settings: Settings
    found: FoundConfig
    state: State | None
    host: str

    def checks(self) -> Iterator[Check]:
        """Yield the check, if automx writes the zone of the domain."""
        zone = self.settings.zone_of(self.domain)
        if self.host and zone is not None:
            yield partial(self._zone, zone)

    def _zone(self, zone: ZoneSettings) -> Iterator[Finding]:
        try:
            plan = self._plan(zone)
        except ElsewhereError as error:
            if self.state is not None:
                yield self.warning(zone.server, error.reason, "see the section of the zone")
            return
        except (ZoneError, SettingsError) as error:
            yield self.warning(zone.server, error.reason, "see the name server, and zone_key")
            return
        if plan:
            lines = [*plans.lines(plan)]
            more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
            text = f"automx dns-apply would change: {'; '.join(lines[:_SHOWN])}{more}"
            yield self.warning(f"zone {plan.zone}", text, _RUN)
        for conflict in plan.conflicts:
            text = f"automx cannot write {conflict.type}: {conflict.reason}"
            yield self.warning(conflict.name, text, "delete the other record, or keep it so")

    def _plan(self, zone: ZoneSettings) -> plans.Plan:
        """Return what ``automx dns-apply`` would change now."""
        zone = replace(zone, timeout=self.network.timeout)
        with closing(Primary(zone)) as primary:
            snapshot = primary.snapshot(self.domain)
        waits = waits_of(self.settings, zone)
        after = advanced(self.state, self.found, snapshot, self.network.now, waits)
        wanted = dns.records(self.found.config, self.host, after.published)
        return plans.make(snapshot, self.domain, wanted, owner=zone.owner, ttl=zone.ttl)
