"""The plan: what has to be changed in a zone, so that it holds the records of a domain.

Only records that the registry names are changed and deleted. Where records of others stand in the
way, nothing is written: that is a conflict. It only compares; nothing is asked here.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import dns.rdata
from dns.rdata import Rdata
from dns.rdataset import Rdataset

from automx import dns as records
from automx.dns import Record
from automx.errors import ZoneError
from automx.formats import pacc
from automx.zones import registry
from automx.zones.registry import Registry

Key = tuple[str, str]  # name without final dot, type


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a zone holds at the names of a domain.

    ``sets`` has the sets of records that were answered; ``wild`` those of them that a wildcard of
    the zone gives as well, so that nothing may stand at the name itself. ``covering`` is the
    wildcard that answers for the domain itself, which has no record of its own and none below it.
    ``delegated`` are names that lie in another zone.
    """

    zone: str
    sets: Mapping[Key, Rdataset] = field(default_factory=dict)
    wild: Collection[Key] = frozenset()
    covering: Key | None = None
    delegated: Collection[str] = frozenset()

    def digests(self, domain: str) -> tuple[frozenset[str], int]:
        """Return the texts of the TXT records with digests, and their TTL in seconds, else 0."""
        found = self.sets.get(digest_key(domain))
        texts = frozenset(registry.text_of(record) for record in found or ())
        return texts, found.ttl if found else 0


@dataclass(frozen=True, slots=True)
class SetChange:
    """A change of the set of records of one name and type.

    ``found`` is the whole set that was read, None if there was none; ``added`` get the TTL ``ttl``.
    """

    name: str
    type: str
    found: Rdataset | None
    removed: tuple[Rdata, ...]
    added: tuple[Rdata, ...]
    ttl: int

    def document(self) -> dict[str, Any]:
        """Return the change for programs."""
        before, after = (sorted(r.to_text() for r in part) for part in (self.removed, self.added))
        return {"name": self.name, "type": self.type, "removed": before, "added": after} | (
            {"ttl": self.ttl} if after else {}
        )


@dataclass(frozen=True, slots=True)
class Conflict:
    """A record that is not written, because those of others stand at its name."""

    name: str
    type: str
    reason: str


@dataclass(slots=True)
class Plan:
    """What is changed in a zone for one domain; the change of the registry is the last one.

    ``kept`` are names at which records of others do the work of automx's.
    """

    domain: str
    zone: str
    changes: list[SetChange] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    kept: list[Conflict] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether anything is changed."""
        return bool(self.changes)

    def is_like(self, other: "Plan") -> bool:
        """Return whether another plan makes the same changes."""
        return [c.document() for c in self.changes] == [c.document() for c in other.changes]


def keys(domain: str) -> list[Key]:
    """Return all names and types at which records of a domain may stand, but for its registry."""
    hosts = [(f"{label}.{domain}", "CNAME") for label in records.SERVICE_HOSTS]
    return hosts + [(f"{label}.{domain}", type_) for label, type_ in records.NAMES]


def digest_key(domain: str) -> Key:
    """Return name and type of the digests of a domain."""
    return f"{pacc.TXT_NAME}.{domain}", "TXT"


def registry_key(domain: str) -> Key:
    """Return name and type of the registry of a domain."""
    return f"{registry.LABEL}.{domain}", "TXT"


def settled(domain: str, wanted: Sequence[Record], *, owner: str) -> dict[Key, list[Rdata]]:
    """Return the sets of records of a zone in which ``owner`` has written all that is wanted.

    There is nothing to do for a domain whose zone holds exactly these, the registry among them.
    """
    sets = _by_key(wanted)
    marks = {registry.mark(name, record) for (name, _), found in sets.items() for record in found}
    key = registry_key(domain)
    sets[key] = [_registry_record(key, Registry(owner, frozenset(marks)))]
    return sets


def make(
    snapshot: Snapshot,
    domain: str,
    wanted: Sequence[Record],
    *,
    owner: str,
    ttl: int,
    adopt: bool = False,
) -> Plan:
    """Return the plan after which a zone holds ``wanted``, and nothing else that ``owner`` wrote.

    With ``adopt``, records that are as wanted become the owner's. Raises ZoneError if another owner
    writes the records of the domain, or if they would take from it what a wildcard gives.
    """
    return _Planner(snapshot, domain, owner, ttl, adopt=adopt).plan(wanted)


class _Planner:
    def __init__(
        self, snapshot: Snapshot, domain: str, owner: str, ttl: int, *, adopt: bool
    ) -> None:
        self._snapshot, self._owner, self._ttl, self._adopt = snapshot, owner, ttl, adopt
        self._place = registry_key(domain)
        self._registry, self._own_record = registry.read(self._explicit(self._place), owner)
        if self._registry.owner not in {"", owner}:
            raise ZoneError(
                cause=f"{domain}: another installation (zone_owner {self._registry.owner}) writes"
                f" its records, as _automx.{domain} says"
            )
        self._plan = Plan(domain, snapshot.zone)
        self._marks: set[str] = set()  # of records that are the owner's afterwards

    def plan(self, wanted: Sequence[Record]) -> Plan:
        if wanted and self._snapshot.covering:
            # With a name below it, the domain exists, and wildcards are no more for it (RFC 4592).
            name, type_ = self._snapshot.covering
            domain = self._plan.domain
            raise ZoneError(
                cause=f"{domain}: its {type_} is that of {name}, which it would lose by records"
                f" below it: give {domain} records of its own first"
            )
        by_key = _by_key(wanted)
        for key in keys(self._plan.domain):
            self._compare(key, by_key.pop(key, []))
        if by_key:
            raise AssertionError(f"dns.NAMES lacks {sorted(by_key)}")
        self._change_registry()
        return self._plan

    def _explicit(self, key: Key) -> Rdataset | None:
        """Return what stands at a name; what only a wildcard gives does not."""
        found = self._snapshot.sets.get(key)
        return None if key in self._snapshot.wild else found

    def _is_own(self, name: str, record: Rdata) -> bool:
        return registry.mark(name, record) in self._registry.marks

    def _compare(self, key: Key, wanted: list[Rdata]) -> None:
        name, type_ = key
        found = self._snapshot.sets.get(key)
        if found and key in self._snapshot.wild and not all(self._is_own(name, r) for r in found):
            found = None  # a wildcard gave it; the update fails if it is otherwise
        present = list(found or ())
        own = [record for record in present if self._is_own(name, record)]
        if self._adopt:
            own += [record for record in present if record in wanted and record not in own]
        foreign = [record for record in present if record not in own]
        missing = [record for record in wanted if record not in present]
        obsolete = [record for record in own if record not in wanted]
        self._marks.update(registry.mark(name, record) for record in own if record in wanted)
        if missing and (blocks := self._obstacle(key, foreign, missing)):
            is_address = blocks.type in {"A", "AAAA"}
            (self._plan.kept if is_address else self._plan.conflicts).append(blocks)
            missing = []
        self._marks.update(registry.mark(name, record) for record in missing)
        ttl = self._ttl
        if found and set(present) - set(obsolete):
            ttl = found.ttl  # one TTL for the whole set (RFC 2181, section 5.2)
            if not foreign and ttl != self._ttl:
                ttl, obsolete, missing = self._ttl, present, wanted
        if obsolete or missing:
            change = SetChange(name, type_, found, tuple(obsolete), tuple(missing), ttl)
            self._plan.changes.append(change)

    def _obstacle(self, key: Key, foreign: list[Rdata], missing: list[Rdata]) -> Conflict | None:
        """Return what keeps records from being written, None if nothing does."""
        name, type_ = key
        if name in self._snapshot.delegated:  # nobody would see the record
            return Conflict(name, type_, "the name is in a zone of its own")
        if type_ == "TXT":
            if key == digest_key(self._plan.domain):
                foreign = []  # several digests may stand side by side
            begins = {registry.text_of(record).partition("=")[0] for record in missing}
            foreign = [r for r in foreign if registry.text_of(r).partition("=")[0] in begins]
        if foreign:
            data = "; ".join(sorted(record.to_text() for record in foreign))
            return Conflict(name, type_, f"there is {type_} {data}, which automx has not written")
        if type_ == "CNAME":
            return self._beside_alias(name)
        if self._explicit((name, "CNAME")):
            return Conflict(name, type_, "the name is an alias (CNAME)")
        return None

    def _beside_alias(self, name: str) -> Conflict | None:
        """Return what else stands at a name: a CNAME stands alone (RFC 1034, section 3.6.2)."""
        others = sorted(t for n, t in self._snapshot.sets if n == name and t != "CNAME")
        others = [type_ for type_ in others if self._explicit((name, type_))]
        for type_ in ("A", "AAAA", *others):
            if type_ in others:
                return Conflict(name, type_, f"there are records of the type {type_}")
        return None

    def _change_registry(self) -> None:
        """Add the change of the registry, if there is one."""
        name, type_ = self._place
        after = Registry(self._owner, frozenset(self._marks))
        text = after.text() if self._marks else ""
        before = registry.text_of(self._own_record) if self._own_record else ""
        if text == before:
            return
        found = self._explicit(self._place)
        removed = (self._own_record,) if self._own_record else ()
        added: tuple[Rdata, ...] = ()
        if text:
            added = (_registry_record(self._place, after),)
        beside = found is not None and len(found) > len(removed)
        ttl = found.ttl if found and beside else self._ttl
        if self._explicit((name, "CNAME")):
            raise ZoneError(cause=f"{name} is an alias (CNAME): the registry has no place")
        self._plan.changes.append(SetChange(name, type_, found, removed, added, ttl))


def _by_key(wanted: Sequence[Record]) -> dict[Key, list[Rdata]]:
    found: dict[Key, list[Rdata]] = defaultdict(list)
    for record in wanted:
        found[record.name, record.type].append(_rdata(record.type, record.data))
    return found


def _registry_record(key: Key, found: Registry) -> Rdata:
    name, type_ = key
    return dns.rdata.from_text("IN", type_, records.txt(name, found.text()).data)


@lru_cache(1_000)  # many domains have the same servers, and reading a text takes long
def _rdata(type_: str, data: str) -> Rdata:
    return dns.rdata.from_text("IN", type_, data)


def lines(plan: Plan) -> Iterator[str]:
    """Yield the changes of a plan as lines for people: + added, ~ changed, - removed."""
    for change in plan.changes:
        begin = f"{change.name}. {change.type}"
        gone, new = (
            sorted(record.to_text() for record in part if record not in other)
            for part, other in (
                (change.removed, change.added),
                (change.added, change.removed),
            )
        )
        if gone and new:
            yield f"~ {begin} {', '.join(gone)} -> {', '.join(new)}"
        else:
            yield from (f"+ {begin} {data}" for data in new)
            yield from (f"- {begin} {data}" for data in gone)
        if change.found and change.added and change.ttl != change.found.ttl and not (gone and new):
            yield f"~ {begin}: TTL {change.found.ttl} -> {change.ttl}"
