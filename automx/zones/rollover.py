"""The rollover of a PACC document: which one is served, and which digests stand in the zone.

A client that finds a document without its digest refuses it, and others remember both: resolvers
for the TTL of the records, caches of HTTP and workers of automx for some time. So each step waits
until all have forgotten what was before:

- ``pinned``: the document is stored, and served whatever the rows say; no digest is written yet,
  because caches may hold a document of before.
- ``steady``: the zone has the digest of the document, and no other one of ours.
- ``announced``: the zone has the digest of the next document, too. It is served only when no
  resolver remembers the records without it.
- ``switched``: the next document is served; the zone still has the digest of the old one, which
  caches may hold.

Rows that give nothing to publish are a document like others: nothing is served then, and there is
no digest. If rows change again, the newest document takes the place of one that is announced only;
once it is served, the newest has to wait for the end of the rollover. So the zone never has more
than two digests of ours.

What is stored allows what is done next: a step is stored first, then the zone is written. So a
program that is killed in between is continued by the next one.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from automx.formats import pacc

NOTHING = b""  # in place of a document, if there is nothing to publish

# Moments are stored to the second, and workers forget within a second what was changed.
_INEXACT = timedelta(seconds=3)


class Step(StrEnum):
    """Where the rollover of a domain stands; the module explains it."""

    PINNED = "pinned"
    STEADY = "steady"
    ANNOUNCED = "announced"
    SWITCHED = "switched"


@dataclass(frozen=True, slots=True)
class State:
    """The stored state of a domain.

    ``ttl`` is how many seconds resolvers may remember the records with digests. ``due_at`` is when
    the next step may be made, None if nothing is waited for, or if the zone must be seen first.
    """

    domain: str
    document: bytes
    step: Step
    ttl: int
    changed_at: datetime
    due_at: datetime | None = None
    next_document: bytes | None = None
    old_document: bytes | None = None
    version: int = 0

    @property
    def published(self) -> list[bytes]:
        """The documents whose digests the zone should have."""
        if self.step is Step.PINNED:
            return []
        documents = (self.document, self.next_document, self.old_document)
        return [document for document in documents if document]

    @property
    def is_waiting(self) -> bool:
        """Whether a further step follows by itself that concerns the zone or what is served."""
        return self.step is not Step.STEADY and bool(self.document or self.published)


@dataclass(frozen=True, slots=True)
class Waits:
    """How long others remember: resolvers and caches.

    ``ttl`` is that of new records, in seconds. ``spread`` is the time until all name servers have a
    change. ``caches`` is the time for which documents are used after they were changed.
    """

    ttl: int
    spread: timedelta
    caches: timedelta

    def resolvers(self, ttl: int) -> timedelta:
        """Return the time after which no resolver remembers records with a TTL in seconds."""
        return timedelta(seconds=max(ttl, self.ttl)) + self.spread + _INEXACT

    @property
    def documents(self) -> timedelta:
        """The time after which no client gets a document that is served no more."""
        return self.caches + _INEXACT


@dataclass(frozen=True, slots=True)
class Seen:
    """The texts of the digests that the zone holds, and their TTL in seconds."""

    digests: Collection[str]
    ttl: int

    def has(self, document: bytes | None) -> bool:
        """Return whether the zone holds the digest of a document."""
        return bool(document) and pacc.digest_record(document or b"") in self.digests


def begin(domain: str, newest: bytes, seen: Seen, now: datetime, waits: Waits) -> State:
    """Return the first state of a domain; ``newest`` is the document that its rows give."""
    state = State(domain, newest, Step.STEADY, max(seen.ttl, waits.ttl), now)
    if newest and not seen.has(newest):
        return replace(state, step=Step.PINNED, due_at=now + waits.documents)
    return state


def advance(state: State, newest: bytes, seen: Seen, now: datetime, waits: Waits) -> State:
    """Return the state after all steps that may be made now, perhaps the same.

    ``seen`` is what the zone held before ``now``.
    """
    state = replace(state, ttl=max(state.ttl, seen.ttl))
    while (after := _next(state, newest, seen, now, waits)) != state:
        state = after
    return state


def end(state: State | None, now: datetime, waits: Waits) -> State | None:
    """Return the state of a domain whose records are all deleted; None once it can be forgotten.

    Others still remember its digest and its document: a domain that comes back has to wait.
    """
    if state is None:
        return None
    wait = waits.resolvers(state.ttl) + waits.documents
    if state.document or state.is_waiting:
        ended = State(state.domain, NOTHING, Step.SWITCHED, state.ttl, now, version=state.version)
        return replace(ended, due_at=now + wait)
    return None if now >= (state.due_at or state.changed_at + wait) else state


def _next(state: State, newest: bytes, seen: Seen, now: datetime, waits: Waits) -> State:
    is_due = state.due_at is not None and now >= state.due_at
    match state.step:
        case Step.PINNED:
            if newest != state.document:
                first = begin(state.domain, newest, seen, now, waits)
                return replace(first, ttl=max(first.ttl, state.ttl), version=state.version)
            return _steady(state, now) if is_due else state
        case Step.STEADY:
            return _from_steady(state, newest, now, waits)
        case Step.ANNOUNCED:
            return _from_announced(state, newest, seen, now, waits)
        case Step.SWITCHED:
            if not is_due:
                return state
            # By now, all have forgotten what had a longer TTL.
            ttl = max(seen.ttl, waits.ttl)
            return replace(_steady(state, now), ttl=ttl)


def _steady(state: State, now: datetime) -> State:
    return State(state.domain, state.document, Step.STEADY, state.ttl, now, version=state.version)


def _from_steady(state: State, newest: bytes, now: datetime, waits: Waits) -> State:
    if newest == state.document:
        return state
    if not newest:
        return _switched(state, NOTHING, now, waits)
    return replace(state, step=Step.ANNOUNCED, next_document=newest, changed_at=now, due_at=None)


def _from_announced(state: State, newest: bytes, seen: Seen, now: datetime, waits: Waits) -> State:
    """Return the state after a step; the next document may be replaced, as it was never served."""
    if newest == state.document:
        return _steady(state, now)
    if not newest:
        return _switched(state, NOTHING, now, waits)
    if newest != state.next_document:
        return replace(state, next_document=newest, changed_at=now, due_at=None)
    if not seen.has(newest):
        return replace(state, due_at=None)
    if state.due_at is None:
        return replace(state, due_at=now + waits.resolvers(state.ttl))
    return _switched(state, newest, now, waits) if now >= state.due_at else state


def _switched(state: State, document: bytes, now: datetime, waits: Waits) -> State:
    return replace(
        state,
        document=document,
        step=Step.SWITCHED,
        old_document=state.document,
        next_document=None,
        changed_at=now,
        due_at=now + waits.resolvers(state.ttl) + waits.documents,
    )
