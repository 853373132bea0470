"""Apply: lets the zone of a domain hold its records, and moves the rollover of its PACC document.

The zone is read first, then the stored state: so the state is never older than what was seen, and a
digest that another program has just written is not deleted. A new state is committed before the
zone is written: each of these programs may be killed at any place, and the next one goes on. No
transaction is open while a name server is asked.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

from automx import audit, dns, lookup
from automx.cache import MAX_AGE, FoundConfig
from automx.config import Settings, ZoneSettings
from automx.database import Session
from automx.errors import (
    AutomxError,
    ConflictError,
    SettingsError,
    UnknownDomainError,
    ZoneUncertainError,
)
from automx.formats import pacc
from automx.moments import iso
from automx.rowmemory import RowMemory
from automx.zones import plan as plans
from automx.zones import rollover, states
from automx.zones.plan import Plan, Snapshot
from automx.zones.primary import Primary
from automx.zones.program import Program
from automx.zones.rollover import Seen, State, Waits

Clock = Callable[[], datetime]

# Rows that domains share are read again after so many seconds, where they tell that nothing is to
# do; so many records of them are kept.
_ROWS_SECONDS, _ROWS = 60.0, 10_000


@dataclass(frozen=True, slots=True)
class Options:
    """What is to be done. ``host`` is the public name of this service, an A-label.

    ``actor`` is who does it, for the audit.
    With ``adopt``, records that are as wanted become automx's. With ``prune``, all records of a
    domain that is switched off or unknown are deleted.
    """

    host: str
    actor: str = "user:automx"
    adopt: bool = False
    prune: bool = False


@dataclass(slots=True)
class Outcome:
    """What was found and done for a domain, or would be.

    ``before`` and ``after`` are the stored states, None where there is none. ``is_off`` is true if
    the domain is switched off or unknown, and its records stay.
    """

    domain: str
    plan: Plan
    before: State | None = None
    after: State | None = None
    is_off: bool = False

    def __bool__(self) -> bool:
        """Whether anything is changed, in the zone or in what is served."""
        return bool(self.plan) or _substance(self.before) != _substance(self.after)

    @property
    def is_waiting(self) -> bool:
        """Whether a further step follows by itself."""
        return self.after is not None and self.after.is_waiting and not self.is_off

    def is_like(self, other: "Outcome") -> bool:
        """Return whether another outcome makes the same changes."""
        mine, others = (_substance(each.after) for each in (self, other))
        return self.plan.is_like(other.plan) and mine == others

    def document(self) -> dict[str, Any]:
        """Return the outcome for programs."""
        state = self.after
        return {
            "domain": self.domain,
            "zone": self.plan.zone or None,
            "changes": [change.document() for change in self.plan.changes],
            "conflicts": [asdict(each) for each in self.plan.conflicts],
            "kept": [asdict(each) for each in self.plan.kept],
            "off": self.is_off,
            "step": str(state.step) if state else None,
            "next_step_at": iso(state.due_at) if state else None,
        }


class Domains:
    """Applies domains, one after the other. Not safe for threads; close() it.

    ``now`` returns the time. The session is committed and rolled back here.
    """

    def __init__(
        self, session: Session, settings: Settings, options: Options, *, now: Clock
    ) -> None:
        self._session, self._settings, self._options, self._now = session, settings, options, now
        self._primaries: dict[ZoneSettings, Primary] = {}
        self._programs: dict[ZoneSettings, Program] = {}
        self._memory = RowMemory(_ROWS_SECONDS, _ROWS, monotonic)

    def close(self) -> None:
        """Close the connections to name servers."""
        for primary in self._primaries.values():
            primary.close()

    def apply(
        self, domain: str, *, dry_run: bool = False, expected: Outcome | None = None
    ) -> Outcome:
        """Let the zone hold the records of a domain, an A-label; return what was changed.

        With ``dry_run``, nothing is. ``expected`` is the outcome that was agreed to. Raises
        ZoneError, ConflictError, SettingsError, and as lookup.find() does.
        """
        zone = self._zone_settings(domain)
        if expected is None and (settled := self._settled(zone, domain)) is not None:
            return settled
        snapshot = self._primary(zone).snapshot(domain)
        found = self._found(domain)
        before = states.read(self._session, domain)
        self._session.rollback()
        waits = waits_of(self._settings, zone)
        if found is not None:
            moved = advanced(before, found, snapshot, self._now(), waits)
            wanted = dns.records(found.config, self._options.host, moved.published)
            after: State | None = moved
        elif self._options.prune:
            after, wanted = rollover.end(before, self._now(), waits), []
        else:
            if before is None:
                lookup.find(self._session, domain)  # raises why there is nothing
            is_off = before is None or bool(before.document)
            return Outcome(domain, Plan(domain, snapshot.zone), before, before, is_off=is_off)
        plan = self._plan(zone, snapshot, domain, wanted)
        outcome = Outcome(domain, plan, before, after)
        if dry_run:
            return outcome
        if expected is not None and not outcome.is_like(expected):
            text = f"{domain}: meanwhile, zone or database were changed: look at the new plan."
            raise ConflictError(text)
        self._carry_out(outcome, zone, found, waits)
        return outcome

    def _settled(self, zone: ZoneSettings, domain: str) -> Outcome | None:
        """Return the outcome for a domain that has nothing to do, None if it may have something.

        That is nearly every domain of a run. Three questions tell it, and a snapshot takes thirty.
        What is wrong, or not as simple, a snapshot tells.
        """
        if zone.command:  # there may be no key for an update
            return None
        try:
            found = lookup.find(self._session, domain, self._memory)
        except AutomxError:
            return None
        finally:
            self._session.rollback()
        key = (plans.digest_key if newest_document(found) else plans.registry_key)(domain)
        primary = self._primary(zone)
        snapshot = primary.glance(domain, key)
        state = states.read(self._session, domain)
        self._session.rollback()
        # Records have the same TTL, as they are written together.
        if state is None or key not in snapshot.sets or snapshot.sets[key].ttl != zone.ttl:
            return None
        if advanced(state, found, snapshot, self._now(), waits_of(self._settings, zone)) != state:
            return None
        wanted = dns.records(found.config, self._options.host, state.published)
        if not primary.holds(snapshot.zone, plans.settled(domain, wanted, owner=zone.owner)):
            return None
        return Outcome(domain, Plan(domain, snapshot.zone), state, state)

    def _carry_out(
        self, outcome: Outcome, zone: ZoneSettings, found: FoundConfig | None, waits: Waits
    ) -> None:
        after = self._store(outcome.before, outcome.after)
        if outcome.plan:
            changes = [change.document() for change in outcome.plan.changes]
            details = {"zone": outcome.plan.zone, "changes": changes}
            try:
                self._write(zone, outcome.plan)
            except ZoneUncertainError:
                self._audit(outcome.domain, {**details, "is_certain": False})
                raise
            self._audit(outcome.domain, details)
        if after is None or found is None:
            if outcome.before is not None and after is None:
                before = outcome.before
                if not states.forget(self._session, before.domain, before.version):
                    raise ConflictError(states.MEANWHILE)
                self._session.commit()
            return
        name, _ = plans.digest_key(outcome.domain)
        has_digests = all(conflict.name != name for conflict in outcome.plan.conflicts)
        if has_digests and not zone.command:  # what a program has done, the next run sees
            seen = Seen({pacc.digest_record(each) for each in after.published}, after.ttl)
            newest = newest_document(found)
            following = rollover.advance(after, newest, seen, self._now(), waits)
            after = self._store(after, following)
        outcome.after = after

    def _write(self, zone: ZoneSettings, plan: Plan) -> None:
        if zone.command:
            self._programs.setdefault(zone, Program(zone)).write(plan)
        else:
            self._primary(zone).update(plan)

    def _audit(self, domain: str, details: Mapping[str, Any]) -> None:
        actor = self._options.actor
        audit.write(
            self._session,
            actor,
            self._now(),
            action="records",
            kind="domain",
            name=domain,
            details=details,
        )
        self._session.commit()

    def _store(self, before: State | None, after: State | None) -> State | None:
        """Commit a state if it is another one than before."""
        if after is None or before == after:
            return after
        stored = states.write(self._session, before, after)
        self._session.commit()
        return stored

    def _zone_settings(self, domain: str) -> ZoneSettings:
        if (zone := self._settings.zone_of(domain)) is None:
            raise SettingsError(f"{domain}: no zone_server is set for its zone")
        return zone

    def _primary(self, zone: ZoneSettings) -> Primary:
        """Return the name server of a zone; zones with the same settings share a connection."""
        if zone not in self._primaries:
            self._primaries[zone] = Primary(zone)
        return self._primaries[zone]

    def _found(self, domain: str) -> FoundConfig | None:
        """Return the settings of a domain, None if it is switched off or unknown."""
        try:
            return lookup.find(self._session, domain)
        except UnknownDomainError:
            return None

    def _plan(
        self, zone: ZoneSettings, snapshot: Snapshot, domain: str, wanted: list[dns.Record]
    ) -> Plan:
        return plans.make(
            snapshot, domain, wanted, owner=zone.owner, ttl=zone.ttl, adopt=self._options.adopt
        )


def abandon(session: Session, domain: str, *, actor: str, now: datetime) -> None:
    """Forget the stored state of a domain, so that its rows give the PACC document at once.

    The zone is left as it is. ``actor`` and ``now`` are for the audit. The caller commits. Raises
    UnknownDomainError if there is no state.
    """
    if not states.forget(session, domain):
        raise UnknownDomainError(f"automx does not manage the records of {domain}.")
    audit.write(session, actor, now, action="abandon", kind="domain", name=domain, details={})


def newest_document(found: FoundConfig) -> bytes:
    """Return the PACC document that the rows give, NOTHING if there is none."""
    try:
        return found.rendered(pacc.render)
    except pacc.NothingToPublishError:
        return rollover.NOTHING


def waits_of(settings: Settings, zone: ZoneSettings) -> Waits:
    """Return how long others remember, by the settings.

    A worker remembers a domain for domain_cache_seconds, and for stale_seconds more if the database
    does not answer it. A published file may be publish_seconds old. Then caches of others may keep
    the answer.
    """
    seconds = settings.domain_cache_seconds
    seconds += min(seconds, MAX_AGE) + max(settings.stale_seconds, settings.publish_seconds)
    return Waits(zone.ttl, zone.delay, timedelta(seconds=seconds))


def advanced(
    before: State | None, found: FoundConfig, snapshot: Snapshot, now: datetime, waits: Waits
) -> State:
    """Return the state of a domain after all steps that may be made now."""
    domain, newest = found.config.domain, newest_document(found)
    seen = Seen(*snapshot.digests(domain))
    if before is None:
        return rollover.begin(domain, newest, seen, now, waits)
    return rollover.advance(before, newest, seen, now, waits)


def _substance(state: State | None) -> tuple[object, ...]:
    """Return what of a state people agree to: not its times."""
    if state is None:
        return ()
    return state.step, state.document, state.next_document, state.old_document
