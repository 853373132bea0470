"""Synchronization: the domains of a source become rows of its origin, and follow it from then on.

The source is read whole, while no transaction is open; then the plan is made, and only if it
changes anything, the turn of other changes is waited for and the plan is made again. If another
process has read the source meanwhile, and so perhaps later, it is read again: an older state never
takes the place of a newer one.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import exc, select

from automx import changelog
from automx.changes import Changes
from automx.changes.plan import execute
from automx.config import SourceSettings
from automx.database import TRIES, Session, is_conflict
from automx.errors import AutomxError
from automx.models import ORIGINS
from automx.sources.found import Domains, SourceError
from automx.sync import plan as plans
from automx.sync import state
from automx.sync.plan import SyncPlan
from automx.sync.state import Outcome, Record

log = logging.getLogger(__name__)

LEAST_REMOVED = 5  # domains that may be gone at once, whatever the percentage


@dataclass(frozen=True, slots=True)
class Result:
    """What a synchronization has done; ``message`` says why nothing was done."""

    source: str
    outcome: Outcome
    found: int
    plan: SyncPlan
    message: str = ""

    def document(self) -> dict[str, Any]:
        """Return the result as JSON holds it."""
        return {
            "source": self.source,
            "outcome": self.outcome.value,
            "message": self.message,
            "found": self.found,
            **self.plan.plan.document(),
            "problems": [problem._asdict() for problem in self.plan.problems],
        }


def synchronize(
    session: Session,
    source: SourceSettings,
    read: Callable[[], Domains],
    *,
    now: datetime,
    adopt: bool = False,
    force: bool = False,
    dry_run: bool = False,
) -> Result:
    """Let the database hold what a source says; what was done is committed.

    ``read`` reads the source. With ``adopt``, rows without an origin become those of the source.
    With ``force``, more domains than ``max_removed`` may be switched off. With ``dry_run``, nothing
    is written.
    """
    run = _Run(session, source, read, now, adopt=adopt, force=force, dry_run=dry_run)
    for _ in range(TRIES):
        try:
            result = run.once()
        except exc.DBAPIError as error:
            session.rollback()
            if not is_conflict(error):
                raise
            continue
        if result is not None:
            return result
    return run.end(Outcome.FAILED, "other processes synchronize it all the time")


class _Run:
    def __init__(
        self,
        session: Session,
        source: SourceSettings,
        read: Callable[[], Domains],
        now: datetime,
        *,
        adopt: bool,
        force: bool,
        dry_run: bool,
    ) -> None:
        self._session = session
        self._source = source
        self._read = read
        self._now = now
        self._adopts = adopt
        self._is_forced = force
        self._is_dry_run = dry_run
        self._found = 0

    def once(self) -> Result | None:
        """Return the result; None if another process has synchronized the source meanwhile."""
        number = self._number()
        self._session.rollback()
        try:
            domains = self._read()
        except SourceError as error:
            return self.end(Outcome.UNREADABLE, error.reason)
        self._found = len(domains.by_label)
        try:
            return self._follow(domains, number)
        except AutomxError as error:
            return self.end(Outcome.FAILED, error.reason)

    def _follow(self, domains: Domains, number: int) -> Result | None:
        """Let the database hold what was read after ``number`` synchronizations."""
        # The first time, there is certainly something to do.
        if self._is_dry_run or self._has_rows():
            plan = self._plan(domains)
            if refusal := self._refusal(plan):
                return self.end(*refusal, plan)
            self._session.rollback()
            if self._is_dry_run:
                return self._result(Outcome.DONE, plan)
            if not plan:
                changelog.wait_for_turn(self._session)
                return self._done(plan)
        self._session.rollback()
        origin = self._source.origin
        changes = Changes(self._session, origin, now=self._now, origin=origin)
        if self._number() != number:
            self._session.rollback()
            return None
        plan = self._plan(domains)
        if refusal := self._refusal(plan):
            return self.end(*refusal, plan)
        execute(changes, plan.plan, origin)
        changes.finish()
        state.keep(self._session, plan.kept, plan.dropped)
        return self._done(plan)

    def _done(self, plan: SyncPlan) -> Result:
        self._write(Outcome.DONE, "", plan)
        return self._result(Outcome.DONE, plan)

    def end(self, outcome: Outcome, message: str, plan: SyncPlan | None = None) -> Result:
        """Undo everything, and note that nothing was done."""
        self._session.rollback()
        plan = plan or SyncPlan()
        if not self._is_dry_run:
            changelog.wait_for_turn(self._session)
            self._write(outcome, message, SyncPlan(problems=plan.problems))
        return self._result(outcome, plan, message)

    def _plan(self, domains: Domains) -> SyncPlan:
        return plans.make(self._session, self._source, domains, now=self._now, adopt=self._adopts)

    def _refusal(self, plan: SyncPlan) -> tuple[Outcome, str] | None:
        """Return why a plan is not followed; None if it is."""
        if not self._found and self._has_rows():
            return Outcome.EMPTY, "the source has no domain: nothing was changed"
        most = self._source.max_removed.of(plan.on, least=LEAST_REMOVED)
        if plan.switched_off > most and not self._is_forced:
            return Outcome.TOO_MANY, (
                f"{plan.switched_off} of {plan.on} domains would be switched off at once, and"
                f" max_removed allows {most}: nothing was changed; --force does it"
            )
        return None

    def _has_rows(self) -> bool:
        origin = ORIGINS["domain"].c.origin
        query = select(origin).where(origin == self._source.origin).limit(1)
        return self._session.scalar(query) is not None

    def _number(self) -> int:
        found = state.record(self._session, self._source.name)
        return found.number if found else 0

    def _write(self, outcome: Outcome, message: str, plan: SyncPlan) -> None:
        """Write the record of this synchronization, and commit."""
        before = state.record(self._session, self._source.name)
        is_done = outcome is Outcome.DONE
        record = Record(
            self._source.name,
            (before.number if before else 0) + is_done,
            self._now,
            self._now if is_done else before.succeeded_at if before else None,
            outcome.value,
            message,
            self._found,
            len(plan.plan.added),
            len(plan.plan.changed),
            len(plan.plan.removed),
            len(plan.problems),
        )
        state.write(self._session, record)
        self._session.commit()

    def _result(self, outcome: Outcome, plan: SyncPlan, message: str = "") -> Result:
        return Result(self._source.name, outcome, self._found, plan, message)
