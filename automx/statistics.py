"""What the database holds, in numbers, for metrics and for administrators."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, func, select

from automx import leases
from automx.changelog import last_number
from automx.database import Session
from automx.models import Account, Audit, Domain, Token
from automx.sync import state
from automx.sync.state import Record

OVERDUE = timedelta(days=1)  # after the end of an account; prune runs more often
_TOKENS = 200


@dataclass(frozen=True, slots=True)
class Statistics:
    """Numbers of rows at ``read_at`` (UTC).

    ``accounts`` are numbers by state; ``overdue`` is how many active ones have ended OVERDUE ago.
    ``uses_left`` is by the name of the token, of those that have the fewest. ``change`` is the
    number of the last change, ``changed_at`` when automx made it, None if there was none.
    ``sources`` has the last synchronizations, ``pruned`` when ``automx prune`` has ended last, and
    whether it was "done" or "failed". ``replica_lacks`` is how many changes a replica does not
    have, None if there is none that answers.
    """

    read_at: datetime
    domains: int
    accounts: dict[str, int]
    overdue: int
    uses_left: dict[str, int]
    change: int
    changed_at: datetime | None
    sources: tuple[Record, ...] = ()
    pruned: tuple[datetime, str] | None = None
    replica_lacks: int | None = None


def read(session: Session, now: datetime, sources: Collection[str] = ()) -> Statistics:
    """Read the statistics; each query is for few rows, or counts those of an index.

    ``sources`` are the names of those in the settings; others may have left a record.
    """
    states = select(Account.c.state, func.count()).group_by(Account.c.state)
    is_overdue = and_(Account.c.state == "active", Account.c.expires_at < now - OVERDUE)
    left = Token.c.maxuse - Token.c.usecount
    is_open = (Token.c.maxuse > 0) & ~Token.c.is_revoked
    is_valid = Token.c.valid_until.is_(None) | (Token.c.valid_until > now)
    tokens = select(Token.c.name, left).where(is_open, is_valid).order_by(left).limit(_TOKENS)
    return Statistics(
        read_at=now,
        domains=session.scalar(select(func.count()).select_from(Domain)),
        accounts={str(state): number for state, number in session.execute(states)},
        overdue=session.scalar(select(func.count()).select_from(Account).where(is_overdue)),
        uses_left={str(name): max(0, number) for name, number in session.execute(tokens)},
        change=last_number(session),
        changed_at=session.scalar(select(Audit.c.at).order_by(Audit.c.id.desc()).limit(1)),
        sources=tuple(found for found in state.records(session) if found.name in sources),
        pruned=leases.last_end(session, leases.PRUNE),
    )
