"""Pending actions of accounts: warn, prolong, disable, delete, clean up.

Each run does one action for an account, and each action is done once: several programs may run at
the same time, and after one that was killed.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, false, or_, update

from automx.accounts import accounts, tokens
from automx.accounts.accounts import SETTLED_AFTER, Account, State, commit, selected, unchanged
from automx.backends import Backends
from automx.database import Session
from automx.errors import AutomxError, NotReachedError, SilentError
from automx.models import Account as AccountRow
from automx.models import Token as TokenRow
from automx.moments import iso

_account = AccountRow
_token = TokenRow


class Action(StrEnum):
    """An action for an account."""

    SETTLE = "settle"  # the account was not finished: there may be a mailbox
    WARN = "warn"
    PROLONG = "prolong"  # the account is in use, or may be
    DISABLE = "disable"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Policy:
    """How long before their expiry accounts are warned, and how long after it they are deleted.

    ``warn`` sends the warning for an account; it raises AutomxError if it fails. With None, no
    account is warned.
    """

    warn_before: timedelta = timedelta(0)
    warn: Callable[[Account], None] | None = None
    grace: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class PendingAction:
    """An account and the action that is pending; ``expiry`` is that of its token."""

    account: Account
    action: Action
    expiry: str
    spare_active: bool


@dataclass(frozen=True, slots=True)
class Done:
    """An action that was done, or would be; ``error`` is why it failed.

    ``expires_at`` is the new expiry of an account that was prolonged.
    """

    account: Account
    action: Action
    error: AutomxError | None = None
    expires_at: datetime | None = None

    def document(self) -> dict[str, object]:
        """Return the step for programs."""
        is_prolonged = self.action is Action.PROLONG
        return {
            "action": self.action.value,
            "address": self.account.address,
            "token": self.account.token,
            "expires": iso(self.expires_at if is_prolonged else self.account.expires_at),
            "error": self.error and self.error.reason,
        }


def pending(session: Session, *, now: datetime, policy: Policy) -> list[PendingAction]:
    """Return the pending actions, those of the oldest accounts first."""
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
            found.append(PendingAction(account, action, row.expiry, row.spare_active))
    session.commit()
    return found


def run(
    session: Session,
    actions: Iterable[PendingAction],
    backends: Backends,
    *,
    now: datetime,
    policy: Policy,
    dry_run: bool = False,
) -> Iterator[Done]:
    """Run pending actions and yield the results; with ``dry_run``, ask backends, change nothing.

    Commits after each action, and holds no transaction during a call of a backend. An action that
    fails has an error, and is pending again in the next run. Accounts that another program has
    handled are skipped. After three actions in a row without an answer of the backend, the next
    action is postponed to the next run; after one more, the next two; then four, and so on: a
    backend that is down delays the actions of others for a short time only.
    """
    silent: Counter[tuple[str, bool]] = Counter()
    postponed: Counter[tuple[str, bool]] = Counter()
    for item in actions:
        # A warning is sent by a program, not by the backend.
        key = item.account.backend, item.action is Action.WARN
        if postponed[key]:
            postponed[key] -= 1
            text = "postponed, since there was no answer for the accounts before it"
            yield Done(item.account, item.action, NotReachedError(cause=text))
            continue
        try:
            done = _run(session, item, backends, now=now, policy=policy, dry_run=dry_run)
        except AutomxError as error:
            done = Done(item.account, item.action, error)
        if done is not None and isinstance(done.error, NotReachedError | SilentError):
            silent[key] += 1
            postponed[key] = 2 ** (silent[key] - 3) if silent[key] >= 3 else 0
        else:
            silent[key] = 0
        if done is not None:
            yield done


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
    # A new account for one hour needs no warning that it ends within a week.
    is_long = account.expires_at - account.created_at > policy.warn_before
    return Action.WARN if is_long else None


def _run(
    session: Session,
    item: PendingAction,
    backends: Backends,
    *,
    now: datetime,
    policy: Policy,
    dry_run: bool,
) -> Done | None:
    """Run one action; None if another program has handled the account meanwhile."""
    account, action = item.account, item.action
    done = Done(account, action)
    if item.spare_active and account.state is State.ACTIVE:
        active_until = _active_until(item, backends, now)
        if active_until is None or active_until > max(now, account.expires_at or now):
            done = Done(account, Action.PROLONG, expires_at=active_until)
    if dry_run:
        return done
    match done.action:
        case Action.PROLONG:
            is_done = _set(session, account, expires_at=done.expires_at, warned_at=None)
        case Action.WARN:
            is_done = _warn(session, account, policy, now)
        case Action.DISABLE:
            is_done = _disable(session, account, backends, now)
        case Action.SETTLE | Action.DELETE:
            is_done = accounts.end(session, account, backends, now=now)
    return done if is_done else None


def _active_until(item: PendingAction, backends: Backends, now: datetime) -> datetime | None:
    """Return when an account counts as unused: one lifetime after its last login; None is never.

    If the backend knows of no login, the account may be in use now. A missing mailbox is unused.
    """
    lifetime = tokens.lifetime(item.expiry)
    account = item.account
    mailbox = backends.get(account.backend).find(account.address, account.owner)
    if mailbox is None:
        return now
    return None if lifetime is None else (mailbox.last_login or now) + lifetime


def _set(session: Session, account: Account, **values: object) -> bool:
    """Change columns of an account; False if another program has changed it meanwhile."""
    return bool(commit(session, update(AccountRow).where(*unchanged(account)).values(**values)))


def _warn(session: Session, account: Account, policy: Policy, now: datetime) -> bool:
    """Claim the warning, then send it: two programs must not send it twice."""
    claim = update(AccountRow).where(*unchanged(account), _account.c.warned_at.is_(None))
    if policy.warn is None or not commit(session, claim.values(warned_at=now)):
        return False
    try:
        policy.warn(account)
    except BaseException:
        back = update(AccountRow).where(*unchanged(account), _account.c.warned_at == now)
        commit(session, back.values(warned_at=None))
        raise
    return True


def _disable(session: Session, account: Account, backends: Backends, now: datetime) -> bool:
    """Disable the mailbox, then set the state.

    After a program that was killed in between, the next one disables the mailbox again.
    """
    backends.get(account.backend).disable(account.address, account.owner)
    return _set(session, account, state=State.DISABLED, changed_at=now)
