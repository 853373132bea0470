"""Leases: of several processes, on any machines, one does a work until a moment.

A process that is killed keeps its lease until then. Clocks of machines may differ, so a lease saves
work; it is no lock on which correctness depends.
"""

from datetime import datetime

from sqlalchemy import insert, or_
from sqlalchemy.exc import IntegrityError

from automx.database import Session, commit
from automx.models import Lease, second_of


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
