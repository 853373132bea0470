"""Accounts: made by a token, listed, deleted.

These functions commit, unlike the rest of the domain: a call of a backend may take a minute, and no
transaction is open meanwhile.
"""

import logging
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Executable,
    RowMapping,
    Select,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from automx import audit, lookup, rows
from automx.accountcolumns import TOKEN
from automx.accounts import tokens
from automx.accounts.randomwords import new_password
from automx.accounts.tokens import Obstacle, Token
from automx.address import EmailAddress
from automx.backends import Backend, Backends, Owner
from automx.columntypes import second_of
from automx.database import Session, commit, read_page
from automx.errors import (
    AutomxError,
    BadRecordError,
    ConflictError,
    ForbiddenError,
    MailLeftError,
    NoFreeAddressError,
    SilentError,
    TakenError,
    TryAgainError,
    UnfitAddressError,
    UnknownAccountError,
)
from automx.models import Account as AccountRow
from automx.models import Token as TokenRow
from automx.moments import iso
from automx.texts import N_
from automx.words import State

log = logging.getLogger(__name__)

ATTEMPTS = 10  # how many random addresses are tried if others are taken

# From this age on, no program works on an unfinished account: ATTEMPTS calls of a backend, of at
# most 60 s each, and as many transactions have ended.
SETTLED_AFTER = timedelta(minutes=15)

# Of an account with a mailbox: no program is making or deleting it.
SETTLED = frozenset({State.ACTIVE, State.DISABLING, State.DISABLED})


class Outcome(Enum):
    """What end() has done."""

    DELETED = auto()  # the account, and its mailbox if there was one
    KEPT = auto()  # the account is deleted; the mailbox was not made for it, and stays
    SKIPPED = auto()  # nothing: another program has changed the account


@dataclass(frozen=True, slots=True)
class Account:
    """A row of the table ``account``, with the name of its token; times are UTC."""

    id: int
    address: str
    token_id: int
    mark: str
    backend: str
    state: State
    created_at: datetime
    expires_at: datetime | None
    changed_at: datetime
    warned_at: datetime | None
    token: str

    @property
    def owner(self) -> Owner:
        """The owner by which the backend knows the mailbox."""
        return Owner(self.token, self.mark)

    def is_in_progress(self, now: datetime) -> bool:
        """Return whether another program may be making or deleting the account right now."""
        return self.state not in SETTLED and self.changed_at > now - SETTLED_AFTER

    def document(self) -> dict[str, object]:
        """Return the account for programs."""
        return {
            "address": self.address,
            "token": self.token,
            "state": self.state.value,
            "backend": self.backend,
            "created": iso(self.created_at),
            "expires": iso(self.expires_at),
            "changed": iso(self.changed_at),
            "warned": iso(self.warned_at),
        }


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account that was just made, with its password, which is stored nowhere.

    ``lifetime`` and ``expires_at`` (UTC) are None for an account without end.
    """

    address: str
    password: str = field(repr=False)
    expiry: str
    lifetime: timedelta | None
    expires_at: datetime | None


def create(
    session: Session,
    token: Token,
    backends: Backends,
    *,
    now: datetime,
    address: str | None = None,
    password: str | None = None,
    actor: str | None = None,
) -> NewAccount:
    """Make an account and return it; commits before and after the call of the backend.

    ``address`` and ``password`` are random by default. ``actor`` is the administrator for the
    audit; a person with a QR code is None, and no entry. Raises ForbiddenError if the token makes
    no (further) account, TakenError if the address, or each one that was tried, is taken, the
    errors of the backend, AddressError for an address that the token cannot make, and
    BadRecordError if the domain of the token is gone. The token then has its use back.
    """
    check_usable(session, token, now)
    fixed = token.address if address is None else tokens.allowed_address(token, address)
    check_domain(session, token)
    backend = backends.get(token.backend)
    if address is not None:  # that of a token was checked when the token was made
        backend.check_address(str(fixed))
    password = password or new_password()
    error: AutomxError = TryAgainError()
    for _ in range(ATTEMPTS):
        try:
            made = _claim(session, token, backends.name(token.backend), now, fixed, actor)
            if made is None:  # another account has just given its use back
                continue
            if made.state is State.CREATING:
                _make_mailbox(session, backend, made, password, _entry(made, "add", actor, now))
            return NewAccount(made.address, password, token.expiry, token.lifetime, made.expires_at)
        except TakenError:
            if fixed:
                raise
            error = NoFreeAddressError()
    raise error


def check_usable(session: Session, token: Token, now: datetime) -> None:
    """Raise ForbiddenError if a token makes no (further) account.

    Raises TakenError instead if it is used up because it has made its one mailbox, which exists.
    """
    if token.address is not None and token.obstacle(now) is Obstacle.USED_UP:
        found = select(AccountRow.c.state).where(AccountRow.c.address == token.address)
        if session.scalar(found) in SETTLED:
            raise TakenError
    token.check_usable(now)


def check_domain(session: Session, token: Token) -> None:
    """Raise BadRecordError if the domain of a token is no longer in the database.

    Raises ForbiddenError if it is switched off.
    """
    row = lookup.domain_row(session, token.domain)
    if row is None:
        raise BadRecordError(
            cause=f"token {token.name}: the domain {token.domain} is not in the table domain"
        )
    if row.off:
        raise ForbiddenError(tokens.REASONS[Obstacle.OFF])


def remove(
    session: Session,
    account: Account,
    backends: Backends,
    *,
    now: datetime,
    actor: str | None = None,
) -> bool:
    """Delete an account and its mailbox, as end() does; ``actor`` is for the audit.

    Returns False if there is a mailbox that was not made for the account: it stays. Raises
    ConflictError if another program works on the account, and the errors of the backend.
    """
    if account.is_in_progress(now):
        raise ConflictError(f"{account.address} is being made or deleted right now.")
    outcome = end(session, account, backends, now=now, actor=actor)
    if outcome is Outcome.SKIPPED:
        raise ConflictError(f"{account.address} has just been changed by another program.")
    return outcome is Outcome.DELETED


def end(
    session: Session,
    account: Account,
    backends: Backends,
    *,
    now: datetime,
    actor: str | None = None,
) -> Outcome:
    """Delete the mailbox of an account, then its row; commits before and after the backend's calls.

    The mailbox is deleted only if it was made for this account. The token of an account that was
    never finished gets its use back, unless it has it already. Raises the errors of the backend;
    the account then stays as it was, so that the next try need not wait. After MailLeftError it is
    deleted all the same: there is nothing left to try. The audit has an entry if there is an
    ``actor``: what a program does because an account has expired is none.
    """
    is_unfinished = account.state in {State.CREATING, State.UNDOING}
    aim = State.UNDOING if is_unfinished else State.DELETING
    taken = change(session, account, state=aim, changed_at=now)
    if taken is None:
        return Outcome.SKIPPED
    row = delete(AccountRow).where(*unchanged(taken))
    entry = _entry(account, "delete", actor, now)
    try:
        outcome = _delete_mailbox(backends.get(account.backend), account)
    except MailLeftError:
        commit(session, row, *entry)
        raise
    except BaseException:
        before = aim if is_unfinished else account.state  # the use stays given back
        change(session, taken, state=before, changed_at=account.changed_at)
        raise
    commit(session, row, *entry)
    return outcome


def _entry(account: Account, action: str, actor: str | None, now: datetime) -> list[Executable]:
    """Return the statement that writes the act of an administrator into the audit, if it is one."""
    if actor is None:
        return []
    values = {"made_by": account.token, "expires": iso(account.expires_at)}
    details = {"before" if action == "delete" else "after": values}
    name = account.address
    return [audit.entry(actor, now, action=action, kind="account", name=name, details=details)]


def get(session: Session, address: str) -> Account:
    """Return the account of an address.

    Raises AddressError, UnknownAccountError, and BadRecordError for a bad row.
    """
    text = str(EmailAddress.parse(address.lower()))
    found = session.execute(selected().where(AccountRow.c.address == text))
    row = found.mappings().one_or_none()
    if row is None:
        raise UnknownAccountError(f"There is no account {text}.")
    return loaded(row)


def all_accounts(
    session: Session, *, token: str | None = None, state: State | None = None
) -> Iterator[Account]:
    """Yield all accounts, or those of a token or in a state, in the order of their creation.

    A bad row is left out and logged.
    """
    query = _selected_of(token, state).order_by(AccountRow.c.id)
    found = session.execute(query.execution_options(yield_per=1000)).mappings()
    yield from (account for _, account in readable(found))


def page(
    session: Session,
    where: Iterable[ColumnElement[bool]],
    after: int,
    number: int,
    *,
    token: str | None = None,
    state: State | None = None,
) -> tuple[list[Account], int | None]:
    """Return ``number`` accounts of higher ids, in their order, and the last id if more follow.

    ``where`` are conditions on the tables of tokens and accounts. A bad row is left out and logged.
    """
    query = _selected_of(token, state).where(*where)
    found, last = read_page(session, query, AccountRow.c.id, after, number)
    return [account for _, account in readable(found)], last


def _selected_of(token: str | None, state: State | None) -> Select[Any]:
    query = selected()
    if token is not None:
        query = query.where(TokenRow.c.name == token)
    return query if state is None else query.where(AccountRow.c.state == state)


def selected() -> Select[Any]:
    """Return the query for rows that loaded() reads."""
    return select(AccountRow, TokenRow.c.name.label("token")).join_from(AccountRow, TokenRow)


def readable(found: Iterable[RowMapping]) -> Iterator[tuple[RowMapping, Account]]:
    """Yield rows of selected() with their accounts; a bad one is left out and logged."""
    for row in found:
        try:
            yield row, loaded(row)
        except BadRecordError as error:
            log.error("%s; this row is left out", error.cause)


def loaded(row: RowMapping) -> Account:
    """Return the account of a row of selected(). Raises BadRecordError."""
    values, bad = rows.read_row("account", row)
    token, bad_token = rows.read({"token": TOKEN["name"]}, row)
    if bad or bad_token:
        raise BadRecordError(cause=f"table account, id {row['id']}: {'; '.join(bad + bad_token)}")
    return Account(id=row["id"], **values | token | {"state": State(values["state"])})


def unchanged(account: Account) -> tuple[ColumnElement[bool], ...]:
    """Return the condition that an account is as it was read."""

    def is_at(column: Column[datetime | None], moment: datetime | None) -> ColumnElement[bool]:
        return column.is_(None) if moment is None else second_of(column) == second_of(moment)

    return (
        AccountRow.c.id == account.id,
        AccountRow.c.mark == account.mark,
        AccountRow.c.state == account.state,
        is_at(AccountRow.c.changed_at, account.changed_at),
        is_at(AccountRow.c.expires_at, account.expires_at),
        is_at(AccountRow.c.warned_at, account.warned_at),
    )


def change(session: Session, account: Account, *also: Executable, **values: Any) -> Account | None:
    """Set columns of an account and return it; None if another program has changed it meanwhile.

    ``also`` are further statements of the same transaction. An account that is no longer being made
    gives its use back to the token. Tokens are locked before accounts, here as elsewhere: one order
    prevents deadlocks.
    """
    is_undone = account.state is State.CREATING and values.get("state") is State.UNDOING
    back = [tokens.release(account.token_id)] if is_undone else []
    row = update(AccountRow).where(*unchanged(account)).values(values)
    return replace(account, **values) if commit(session, *back, row, *also) else None


def _claim(
    session: Session,
    token: Token,
    backend: str,
    now: datetime,
    address: str | None,
    actor: str | None,
) -> Account | None:
    """Claim a use of the token and insert the account, in one transaction.

    Returns None if the token had no use left and has one again. Raises TakenError, or TryAgainError
    if the address that was asked for may become free soon, and ForbiddenError. A savepoint would
    not do: MariaDB keeps the locks of an INSERT that it has undone.
    """
    name = address or tokens.new_address(token)
    values: dict[str, Any] = {
        "address": name,
        "token_id": token.id,
        "mark": secrets.token_hex(8),
        "backend": backend,
        "state": State.ACTIVE if backend == "none" else State.CREATING,
        "created_at": now,
        "expires_at": None if token.lifetime is None else now + token.lifetime,
        "changed_at": now,
        "warned_at": None,
    }
    try:
        made = Account(id=0, token=token.name, **values)
        entry = _entry(made, "add", actor, now) if made.state is State.ACTIVE else []
        row = insert(AccountRow).values(values)
        if done := commit(session, tokens.claim(token, now), row, *entry):
            key: Any = done[1].inserted_primary_key
            return replace(made, id=key.id)
        check_usable(session, tokens.find(session, token.token), now)
    except IntegrityError:
        found = select(AccountRow.c.state).where(AccountRow.c.address == name)
        if address and session.scalar(found) not in SETTLED:
            raise TryAgainError(
                N_(
                    "This address is being made or deleted at the moment. Please try again in half"
                    " an hour."
                )
            ) from None
        raise TakenError from None
    finally:
        session.rollback()
    return None


def _make_mailbox(
    session: Session, backend: Backend, account: Account, password: str, entry: list[Executable]
) -> None:
    """Let the backend make the mailbox of a new account; without a mailbox, delete the account.

    ``entry`` writes the account into the audit. Raises SilentError if "automx prune" has given up
    the account meanwhile.
    """
    too_late = SilentError(cause=f"account {account.address}: it took too long to make it")
    try:
        backend.create(account.address, password, account.owner)
    except (TakenError, TryAgainError, UnfitAddressError) as error:  # no mailbox was made
        row = delete(AccountRow).where(*unchanged(account))
        is_deleted = commit(session, tokens.release(account.token_id), row)
        if not is_deleted and isinstance(error, TakenError):
            raise too_late from error
        raise
    except BaseException:  # there may be a mailbox, now or later
        change(session, account, state=State.UNDOING)
        raise
    if not change(session, account, *entry, state=State.ACTIVE):
        log.error("%s is deleted at once: it took too long to make it", account.address)
        # This process may have slept, and somebody else may have the address by now.
        _delete_mailbox(backend, account)
        raise too_late


def _delete_mailbox(backend: Backend, account: Account) -> Outcome:
    """Delete the mailbox of an account, if there is one that was made for it."""
    mailbox = backend.find(account.address, account.owner)
    if mailbox is not None and not mailbox.is_ours:
        log.warning("%s: the mailbox was not made for this account, and stays", account.address)
        return Outcome.KEPT
    if mailbox is not None:
        backend.delete(account.address, account.owner)
    return Outcome.DELETED
