"""Pending actions of accounts: warn, prolong, disable, delete, clean up.

Each run does one action for an account, and each action is done once: several programs may run at
the same time, and after one that was killed.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import or_

from automx.accounts import accounts, tokens
from automx.accounts.accounts import Account, Outcome, change, selected
from automx.backends import Backends, Mailbox
from automx.columntypes import second_of
from automx.database import Session
from automx.errors import AutomxError, NotReachedError, SilentError
from automx.models import Account as AccountRow
from automx.models import Token as TokenRow
from automx.moments import iso
from automx.words import State


class Action(StrEnum):
    """An action for an account."""

    SETTLE = "settle"  # the account was not finished: there may be a mailbox
    WARN = "warn"
    PROLONG = "prolong"  # the account is in use, or may be
    DISABLE = "disable"
    DELETE = "delete"
    FORGET = "forget"  # the mailbox was not made for the account, and stays; the account goes


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

    @property
    def may_prolong(self) -> bool:
        """Whether the account is prolonged if it is in use: nothing has ended it yet."""
        return self.spare_active and self.account.state in {State.ACTIVE, State.DISABLING}


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
    """Return the pending actions, those of the oldest accounts first; bad rows have none."""
    end = second_of(AccountRow.c.expires_at)
    may_end = end <= second_of(now + policy.warn_before)
    is_bad = AccountRow.c.expires_at.is_not(None) & end.is_(None)  # no moment: it is logged
    query = selected().where(or_(AccountRow.c.state != State.ACTIVE, may_end, is_bad))
    query = query.add_columns(TokenRow.c.expiry, TokenRow.c.spare_active).order_by(AccountRow.c.id)
    found = []
    for row, account in accounts.readable(session.execute(query).mappings()):
        if action := _action(account, now, policy):
            found.append(PendingAction(account, action, row["expiry"], row["spare_active"]))
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
    """Return the action that is pending for an account; None if there is none yet."""
    if account.is_in_progress(now):
        return None
    match account.state:
        case State.CREATING | State.UNDOING:
            return Action.SETTLE
        case State.DELETING:
            return Action.DELETE
        case State.DISABLED:
            return Action.DELETE if account.changed_at <= now - policy.grace else None
        case State.DISABLING:  # a backend that cannot disable must not prevent the deletion
            return Action.DELETE if account.changed_at <= now - policy.grace else Action.DISABLE
    if account.expires_at is None:
        return None
    if account.expires_at <= now:
        return Action.DISABLE if policy.grace else Action.DELETE
    if policy.warn is None or account.warned_at is not None:
        return None
    # A new account for one hour needs no warning that it ends within a week.
    lifetime = account.expires_at - account.created_at
    is_near = account.expires_at - now <= policy.warn_before < lifetime
    return Action.WARN if is_near else None


def _run(
    session: Session,
    item: PendingAction,
    backends: Backends,
    *,
    now: datetime,
    policy: Policy,
    dry_run: bool,
) -> Done | None:
    """Run one action; None if another program has handled the account meanwhile.

    Whether the mailbox was made for the account decides what is done; so a dry run asks, too.
    """
    account = item.account
    done: Done | None = Done(account, item.action)
    mailbox = None
    if (
        item.may_prolong
        or item.action is Action.DISABLE
        or (dry_run and item.action is not Action.WARN)
    ):
        mailbox = backends.get(account.backend).find(account.address, account.owner)
        done = _decided(item, mailbox, now)
    if done is None or dry_run:
        return done
    match done.action:
        case Action.PROLONG:
            is_done = _prolong(session, done, now)
        case Action.WARN:
            is_done = _warn(session, account, policy, now)
        case Action.DISABLE:
            is_done = _disable(session, account, mailbox, backends, now)
        case Action.SETTLE | Action.DELETE | Action.FORGET:
            return _end(session, done, backends, now)
    return done if is_done else None


def _decided(item: PendingAction, mailbox: Mailbox | None, now: datetime) -> Done | None:
    """Return what is to be done for an account with this mailbox; None is nothing."""
    account = item.account
    if mailbox is not None and not mailbox.is_ours:
        if item.action is Action.WARN:  # the person of this mailbox is another one
            return None
        is_settled = item.action is Action.SETTLE
        return Done(account, Action.SETTLE if is_settled else Action.FORGET)
    # A mailbox that was disabled by a step that seemed to fail cannot be used any more.
    is_usable = mailbox is not None and (mailbox.is_active or account.state is State.ACTIVE)
    if mailbox is not None and is_usable and item.may_prolong:
        active_until = _active_until(item, mailbox, now)
        if active_until is None or active_until > max(now, account.expires_at or now):
            return Done(account, Action.PROLONG, expires_at=active_until)
    return Done(account, item.action)


def _active_until(item: PendingAction, mailbox: Mailbox, now: datetime) -> datetime | None:
    """Return when an account counts as unused: one lifetime after its last use; None is never.

    The use begins with the creation: mailcow shows log-ins of an earlier mailbox of the same name.
    If the backend does not see log-ins, the account may be in use now.
    """
    lifetime = tokens.lifetime(item.expiry)
    if lifetime is None:
        return None
    created_at = item.account.created_at
    if not mailbox.sees_logins:
        return now + lifetime
    return max(mailbox.last_login or created_at, created_at) + lifetime


def _prolong(session: Session, done: Done, now: datetime) -> bool:
    values: dict[str, Any] = {"expires_at": done.expires_at, "warned_at": None}
    if done.account.state is not State.ACTIVE:
        values |= {"state": State.ACTIVE, "changed_at": now}
    return bool(change(session, done.account, **values))


def _disable(
    session: Session,
    account: Account,
    mailbox: Mailbox | None,
    backends: Backends,
    now: datetime,
) -> bool:
    """Disable a mailbox, if there is one. If that fails, the grace goes on from the first try."""
    if account.state is not State.DISABLING:
        taken = change(session, account, state=State.DISABLING, changed_at=now)
        if taken is None:
            return False
        account = taken
    if mailbox is not None:
        backends.get(account.backend).disable(account.address, account.owner)
    return bool(change(session, account, state=State.DISABLED, changed_at=now))


def _end(session: Session, done: Done, backends: Backends, now: datetime) -> Done | None:
    """Delete an account, and its mailbox if that was made for it."""
    outcome = accounts.end(session, done.account, backends, now=now)
    if outcome is Outcome.SKIPPED:
        return None
    if done.action is Action.SETTLE:
        return done
    return replace(done, action=Action.FORGET if outcome is Outcome.KEPT else Action.DELETE)


def _warn(session: Session, account: Account, policy: Policy, now: datetime) -> bool:
    """Claim the warning, then send it: two programs must not send it twice."""
    if policy.warn is None or not (warned := change(session, account, warned_at=now)):
        return False
    try:
        policy.warn(account)
    except BaseException:
        change(session, warned, warned_at=None)
        raise
    return True
