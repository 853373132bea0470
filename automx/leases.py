"""Leases: of several processes, on any machines, one does a work until a moment.

A process that is killed keeps its lease until then. Clocks of machines may differ, so a lease saves
work; it is no lock on which correctness depends. A work that needs no lease leaves one that is
over, so that others see when it has ended last.
"""

from datetime import datetime

from sqlalchemy import insert, or_, select
from sqlalchemy.exc import IntegrityError

from automx.columntypes import second_of
from automx.database import Session, commit
from automx.models import Lease

PRUNE = "prune"  # the work of ``automx prune``


def take(session: Session, name: str, holder: str, *, now: datetime, until: datetime) -> bool:
    """Take a lease, or prolong one's own; return whether ``holder`` has it. It is committed."""
    is_free = or_(Lease.c.holder == holder, second_of(Lease.c.until) <= second_of(now))
    values = {"holder": holder, "until": until}
    if commit(session, Lease.update().where(Lease.c.name == name, is_free).values(values)):
        return True
    try:
        return bool(commit(session, insert(Lease).values(name=name, **values)))
    except IntegrityError:  # another process has it
        session.rollback()
        return False


def give_back(session: Session, name: str, holder: str) -> None:
    """Let other processes take a lease at once. It is committed."""
    commit(session, Lease.delete().where(Lease.c.name == name, Lease.c.holder == holder))


def note_end(session: Session, name: str, outcome: str, now: datetime) -> None:
    """Note that a work has ended, and how: its outcome is the holder. It is committed."""
    values = {"holder": outcome, "until": now}
    if not commit(session, Lease.update().where(Lease.c.name == name).values(values)):
        try:
            commit(session, insert(Lease).values(name=name, **values))
        except IntegrityError:  # another process has noted its end
            session.rollback()


def last_end(session: Session, name: str) -> tuple[datetime, str] | None:
    """Return when a work has ended last, and how; None if note_end() was never called for it."""
    row = session.execute(select(Lease.c.until, Lease.c.holder).where(Lease.c.name == name)).first()
    return None if row is None else (row.until, row.holder)
