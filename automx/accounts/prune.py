"""What has to be done for accounts as time passes: warn, disable, delete, bring in order.

Each account takes one step at a time, each step once: so it is safe to be run again at any time,
by several programs at once, and after one that was killed.
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
    """An account for which something is to be done; ``expiry`` is that of its token."""

    account: Account
    action: Action
    expiry: str
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
            found.append(Due(account, action, row.expiry, row.spare_active))
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
    fails is told as Done with its error, and comes again next time; one that another program was
    quicker with is not told. If a backend is silent three times in a row, the next account is
    postponed to the next time; after one more, the next two; then four, and so on: so a backend
    that is down holds up nobody for long, nor do accounts of which it never says a word.
    """
    silent: Counter[tuple[str, bool]] = Counter()
    postponed: Counter[tuple[str, bool]] = Counter()
    for item in dues:
        # The program that warns is none of the backend.
        key = item.account.backend, item.action is Action.WARN
        if postponed[key]:
            postponed[key] -= 1
            text = "postponed, since there was no answer for the accounts before it"
            yield Done(item.account, item.action, NotReachedError(cause=text))
            continue
        try:
            done = _carry_out(session, item, backends, now=now, policy=policy, dry_run=dry_run)
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
) -> Done | None:
    """Do what is due for one account; None if another program was quicker."""
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


def _active_until(item: Due, backends: Backends, now: datetime) -> datetime | None:
    """Return until when a person counts as active: a lifetime from the last login on.

    A login that the backend does not know of counts as one right now; a mailbox that is gone has
    nobody. None is for ever.
    """
    lifetime = tokens.lifetime(item.expiry)
    backend = backends.get(item.account.backend)
    mailbox = backend.find(item.account.address, item.account.owner) if backend else None
    if backend is not None and mailbox is None:
        return now
    if lifetime is None:
        return None
    return ((mailbox and mailbox.last_login) or now) + lifetime


def _set(session: Session, account: Account, **values: object) -> bool:
    """Change columns of an account; False if another program has changed it meanwhile."""
    return bool(commit(session, update(AccountRow).where(*unchanged(account)).values(**values)))


def _warn(session: Session, account: Account, policy: Policy, now: datetime) -> bool:
    """Claim the warning, then send it: two programs at once must not warn twice."""
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
    """Disable the mailbox, then note it.

    A program that is killed in between is followed by one that disables it once more, which
    changes nothing.
    """
    backend = backends.get(account.backend)
    if backend is not None:
        backend.disable(account.address, account.owner)
    return _set(session, account, state=State.DISABLED, changed_at=now)
