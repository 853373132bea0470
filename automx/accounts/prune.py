"""What has to be done for accounts as time passes: warn, disable, delete, bring in order.

Each account takes one step at a time, each step once: so it is safe to be run again at any time,
by several programs at once, and after one that was killed.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, false, or_, update
from sqlalchemy.orm import Session

from automx.accounts import accounts
from automx.accounts.accounts import SETTLED_AFTER, Account, State, selected
from automx.accounts.tokens import NEVER
from automx.backends import Backends
from automx.duration import parse_duration
from automx.errors import AutomxError, NotReachedError, SilentError
from automx.models import Account as AccountRow
from automx.models import Token as TokenRow

_account = AccountRow.__table__
_token = TokenRow.__table__


class Action(StrEnum):
    """What is done for an account."""

    SETTLE = "settle"  # its making was cut off or failed with an open end
    WARN = "warn"
    PROLONG = "prolong"  # the person still logs in, or may
    DISABLE = "disable"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Policy:
    """When accounts are warned and deleted.

    ``warn`` is called with the account; it raises AutomxError if it fails. None warns nobody.
    """

    warn_before: timedelta = timedelta(0)
    warn: Callable[[Account], None] | None = None
    grace: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Due:
    """An account for which something is to be done; ``lifetime`` None has no end."""

    account: Account
    action: Action
    lifetime: timedelta | None
    spare_active: bool


@dataclass(frozen=True, slots=True)
class Done:
    """What was done for an account, or would be; ``error`` is what the administrator has to know.

    ``expires_at`` is the new one of an account that was prolonged.
    """

    account: Account
    action: Action
    error: AutomxError | None = None
    expires_at: datetime | None = None


def due(session: Session, *, now: datetime, policy: Policy) -> list[Due]:
    """Return the accounts for which something is to be done, the oldest first."""
    unfinished = _account.c.state.in_([State.CREATING, State.UNDOING, State.DELETING])
    active = _account.c.state == State.ACTIVE
    warned_of: ColumnElement[bool] = false()
    if policy.warn is not None and policy.warn_before:
        ends_soon = _account.c.expires_at <= now + policy.warn_before
        warned_of = and_(active, _account.c.warned_at.is_(None), ends_soon)
    query = selected().add_columns(_token.c.expiry, _token.c.spare_active)
    query = query.where(
        or_(
            and_(unfinished, _account.c.changed_at <= now - SETTLED_AFTER),
            and_(active, _account.c.expires_at <= now),
            warned_of,
            and_(_account.c.state == State.DISABLED, _account.c.changed_at <= now - policy.grace),
        )
    )
    found = []
    for row in session.execute(query.order_by(_account.c.id)):
        account = accounts.loaded(row)
        if action := _action(account, now, policy):
            lifetime = None if row.expiry == NEVER else parse_duration(row.expiry)
            found.append(Due(account, action, lifetime, row.spare_active))
    session.commit()
    return found


def carry_out(
    session: Session,
    dues: Iterable[Due],
    backends: Backends,
    *,
    now: datetime,
    policy: Policy,
    dry_run: bool = False,
) -> Iterator[Done]:
    """Do what is due, and yield what was done; with ``dry_run``, ask backends and change nothing.

    Commits step by step, and holds no transaction during a call of a backend. An account that
    fails is told as Done with its error, and comes again next time. A backend that is silent three
    times in a row is left in peace for this time.
    """
    silent: dict[str, int] = {}
    for item in dues:
        name = item.account.backend
        if silent.get(name, 0) >= 3:
            text = f"the backend {name} did not answer three times: postponed"
            yield Done(item.account, item.action, NotReachedError(cause=text))
            continue
        try:
            yield _carry_out(session, item, backends, now=now, policy=policy, dry_run=dry_run)
            silent[name] = 0
        except AutomxError as error:
            session.rollback()
            is_silent = isinstance(error, NotReachedError | SilentError)
            silent[name] = silent.get(name, 0) + 1 if is_silent else 0
            yield Done(item.account, item.action, error)


def _action(account: Account, now: datetime, policy: Policy) -> Action | None:
    match account.state:
        case State.CREATING | State.UNDOING:
            return Action.SETTLE
        case State.DELETING | State.DISABLED:
            return Action.DELETE
    if account.expires_at is None:
        return None
    if account.expires_at <= now:
        return Action.DISABLE if policy.grace else Action.DELETE
    # Who has just got an account for an hour need not hear that it ends within a week.
    is_long = account.expires_at - account.created_at > policy.warn_before
    return Action.WARN if is_long else None


def _carry_out(
    session: Session,
    item: Due,
    backends: Backends,
    *,
    now: datetime,
    policy: Policy,
    dry_run: bool,
) -> Done:
    account, action = item.account, item.action
    if item.spare_active and account.state is State.ACTIVE:
        active_until = _active_until(item, backends, now)
        if active_until is None or active_until > max(now, account.expires_at or now):
            if not dry_run:
                _prolong(session, account, active_until)
            return Done(account, Action.PROLONG, expires_at=active_until)
    if dry_run:
        return Done(account, action)
    match action:
        case Action.SETTLE:
            accounts.settle(session, account, backends, now=now)
        case Action.WARN:
            _warn(session, account, policy, now)
        case Action.DISABLE:
            _disable(session, account, backends, now)
        case Action.DELETE:
            if accounts.take(session, account, now=now, state=State.DELETING):
                accounts.finish_deletion(session, account, backends, now=now)
    return Done(account, action)


def _active_until(item: Due, backends: Backends, now: datetime) -> datetime | None:
    """Return until when a person counts as active: a lifetime from the last login on.

    A login that the backend does not know of counts as one right now; a mailbox that is gone has
    nobody. None is for ever.
    """
    backend = backends.get(item.account.backend)
    mailbox = backend.find(item.account.address, item.account.owner) if backend else None
    if backend is not None and mailbox is None:
        return now
    if item.lifetime is None:
        return None
    return ((mailbox and mailbox.last_login) or now) + item.lifetime


def _prolong(session: Session, account: Account, expires_at: datetime | None) -> None:
    change = update(AccountRow).where(*accounts.unchanged(account))
    session.execute(change.values(expires_at=expires_at, warned_at=None))
    session.commit()


def _warn(session: Session, account: Account, policy: Policy, now: datetime) -> None:
    """Claim the warning, then send it: two programs at once must not warn twice."""
    claim = update(AccountRow).where(*accounts.unchanged(account), _account.c.warned_at.is_(None))
    claimed = accounts.execute(session, claim.values(warned_at=now))
    session.commit()
    if not claimed or policy.warn is None:
        return
    try:
        policy.warn(account)
    except BaseException:
        back = update(AccountRow).where(_account.c.id == account.id, _account.c.warned_at == now)
        session.execute(back.values(warned_at=None))
        session.commit()
        raise


def _disable(session: Session, account: Account, backends: Backends, now: datetime) -> None:
    """Disable the mailbox, then note it.

    A program that is killed in between is followed by one that disables it once more, which
    changes nothing.
    """
    backend = backends.get(account.backend)
    if backend is not None:
        backend.disable(account.address, account.owner)
    change = update(AccountRow).where(*accounts.unchanged(account))
    session.execute(change.values(state=State.DISABLED, changed_at=now))
    session.commit()
