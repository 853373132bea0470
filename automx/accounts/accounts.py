"""Accounts: made by a token, listed, deleted.

These functions commit, unlike the rest of the domain: a call of a backend may take a minute, and no
transaction is open meanwhile.
"""

import logging
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NoReturn

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Executable,
    Row,
    Select,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from automx import lookup
from automx.accounts import tokens
from automx.accounts.tokens import Token
from automx.address import EmailAddress
from automx.backends import Backend, Backends, Owner
from automx.database import Session, is_conflict
from automx.errors import (
    AddressError,
    AutomxError,
    BadRecordError,
    ConflictError,
    NoFreeAddressError,
    SilentError,
    TakenError,
    TryAgainError,
    UnknownAccountError,
)
from automx.models import Account as AccountRow
from automx.models import Token as TokenRow
from automx.moments import iso

log = logging.getLogger(__name__)

ATTEMPTS = 10  # how many random addresses are tried if others are taken

# How often a transaction runs that fails because of others. On SQLite, each run waits some seconds
# for its turn.
TRIES = 4

# From this age on, no program works on an unfinished account: ATTEMPTS calls of a backend, of at
# most 60 s each, and as many transactions have ended.
SETTLED_AFTER = timedelta(minutes=15)

# The letters of passwords: those of names, and capitals that look like no other letter or digit.
LETTERS = tokens.NAME_LETTERS + "ACDEFGHJKLMNPQRTUVWXY"

_account = AccountRow
_token = TokenRow


class State(StrEnum):
    """The state of an account; the docstring of the package explains the values."""

    CREATING = "creating"
    ACTIVE = "active"
    DISABLED = "disabled"
    UNDOING = "undoing"
    DELETING = "deleting"


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
) -> NewAccount:
    """Make an account and return it; commits before and after the call of the backend.

    ``address`` and ``password`` are random by default. Raises ForbiddenError if the token makes no
    (further) account, TakenError if the address, or each one that was tried, is taken, the errors
    of the backend, AddressError for an address that the token cannot make, and BadRecordError if
    the domain of the token is gone. The token then has its use back.
    """
    token.check_usable(now)
    if address is not None:
        address = _allowed_address(address, token)
    check_domain(session, token)
    backend = backends.get(token.backend)
    account = _claim(session, token, backends.name(token.backend), now, address)
    password = password or new_password()
    if account.state is State.CREATING:
        account = _make_mailbox(session, token, backend, account, password, address)
    return NewAccount(account.address, password, token.expiry, token.lifetime, account.expires_at)


def check_domain(session: Session, token: Token) -> None:
    """Raise BadRecordError if the domain of a token is no longer in the database."""
    if not lookup.knows(session, token.domain):
        raise BadRecordError(
            cause=f"token {token.name}: the domain {token.domain} is not in the table domain"
        )


def remove(session: Session, account: Account, backends: Backends, *, now: datetime) -> None:
    """Delete an account and its mailbox, as end() does.

    Raises ConflictError if another program works on the account, and the errors of the backend.
    """
    is_under_way = account.state in {State.CREATING, State.UNDOING, State.DELETING}
    if is_under_way and account.changed_at > now - SETTLED_AFTER:
        raise ConflictError(f"{account.address} is being made or deleted right now.")
    if not end(session, account, backends, now=now):
        raise ConflictError(f"{account.address} has just been changed by another program.")


def end(session: Session, account: Account, backends: Backends, *, now: datetime) -> bool:
    """Delete the mailbox of an account, then its row; commits before and after the backend's call.

    The mailbox of an account that was never finished is deleted only if it was made for this
    account, and the token gets its use back, unless it has it already. Returns False, and does
    nothing, if another program has changed the account meanwhile. Raises the errors of the backend;
    the account then stays as it was, so that the next try need not wait.
    """
    is_unfinished = account.state in {State.CREATING, State.UNDOING}
    aim = State.UNDOING if is_unfinished else State.DELETING
    taken = _take(session, account, now=now, state=aim)
    if taken is None:
        return False
    try:
        backend = backends.get(account.backend)
        if not is_unfinished or _is_ours(backend, account):
            backend.delete(account.address, account.owner)
    except BaseException:
        before = State.UNDOING if is_unfinished else account.state  # the use stays given back
        back = update(AccountRow).where(*unchanged(taken))
        commit(session, back.values(state=before, changed_at=account.changed_at))
        raise
    commit(session, delete(AccountRow).where(*unchanged(taken)))
    return True


def get(session: Session, address: str) -> Account:
    """Return the account of an address. Raises AddressError and UnknownAccountError."""
    text = str(EmailAddress.parse(address.lower()))
    row = session.execute(selected().where(_account.c.address == text)).one_or_none()
    if row is None:
        raise UnknownAccountError(f"There is no account {text}.")
    return loaded(row)


def all_accounts(
    session: Session, *, token: str | None = None, state: State | None = None
) -> Iterator[Account]:
    """Yield all accounts, or those of a token or in a state, in the order of their creation."""
    query = selected().order_by(_account.c.id)
    if token is not None:
        query = query.where(_token.c.name == token)
    if state is not None:
        query = query.where(_account.c.state == state)
    for row in session.execute(query.execution_options(yield_per=1000)):
        yield loaded(row)


def selected() -> Select[Any]:
    """Return the query for rows that loaded() reads."""
    columns = [_account.c[column.name] for column in fields(Account) if column.name != "token"]
    token = _token.c.name.label("token")
    return select(*columns, token).join_from(_account, _token)


def loaded(row: Row[Any]) -> Account:
    """Return the account of a row of selected()."""
    values = {column.name: getattr(row, column.name) for column in fields(Account)}
    return Account(**values | {"state": State(row.state)})


def unchanged(account: Account) -> tuple[ColumnElement[bool], ...]:
    """Return the condition that an account is as it was read."""
    return (
        _account.c.id == account.id,
        _account.c.mark == account.mark,
        _account.c.state == account.state,
        _account.c.changed_at == account.changed_at,
    )


def commit(session: Session, *statements: Executable) -> list[CursorResult[Any]]:
    """Run statements in a transaction of their own, and return their results.

    If one of them finds no row, nothing is changed and the list is empty. A transaction that fails
    because of another one is run again. What the session holds before is committed first, so that
    a rollback undoes these statements only, and so that they see what others have written.
    """
    session.commit()
    tries = 0
    while True:
        tries += 1
        results: list[CursorResult[Any]] = []
        try:
            for statement in statements:
                results.append(session.execute(statement))
                if not results[-1].rowcount:
                    session.rollback()
                    return []
            session.commit()
        except DBAPIError as error:
            session.rollback()
            if tries == TRIES or not is_conflict(error):
                raise
        else:
            return results


def new_password() -> str:
    """Return a password of 20 characters with 101 bits of randomness.

    Mail servers may require lower and upper case, digits and punctuation. No letter looks like
    another one.
    """
    while True:
        groups = ["".join(secrets.choice(LETTERS) for _ in range(6)) for _ in range(3)]
        password = "-".join(groups)
        if (
            any(char.isdigit() for char in password)
            and any(char.islower() for char in password)
            and any(char.isupper() for char in password)
        ):
            return password


def _allowed_address(text: str, token: Token) -> str:
    """Return an address in lower case; AddressError if the token cannot make it."""
    address = str(EmailAddress.parse(text.lower()))
    if token.address is not None and address != token.address:
        raise AddressError(f"The token {token.name} makes {token.address} only.")
    if not address.endswith(f"@{token.domain}"):
        raise AddressError(f"The token {token.name} makes addresses of {token.domain} only.")
    return address


def _claim(
    session: Session, token: Token, backend: str, now: datetime, address: str | None
) -> Account:
    """Claim a use of the token and insert the account, in one transaction; retry addresses.

    A savepoint would not do: MariaDB keeps the locks of an INSERT that it has undone.
    """
    account = Account(
        id=0,
        address=address or "",
        token_id=token.id,
        mark=secrets.token_hex(8),
        backend=backend,
        state=State.ACTIVE if backend == "none" else State.CREATING,
        created_at=now,
        expires_at=None if token.lifetime is None else now + token.lifetime,
        changed_at=now,
        warned_at=None,
        token=token.name,
    )
    values = asdict(account)
    del values["id"], values["token"]
    error: AutomxError = TryAgainError()
    for _ in range(ATTEMPTS):
        name = address or tokens.new_address(token)
        new = insert(AccountRow).values(values | {"address": name})
        try:
            done = commit(session, tokens.claim(token.id, now), new)
        except IntegrityError:
            if name in {address, token.address}:
                _explain_collision(session, name)
            error = NoFreeAddressError()
            continue
        if done:
            key: Any = done[-1].inserted_primary_key
            return replace(account, id=key.id, address=name)
        try:
            tokens.find(session, token.token).check_usable(now)
        finally:
            session.rollback()
        # It is usable: another account has just given its use back.
    raise error


def _explain_collision(session: Session, address: str) -> NoReturn:
    """Raise TakenError, or TryAgainError if the address may become free soon."""
    state = session.scalar(select(_account.c.state).where(_account.c.address == address))
    session.rollback()
    if state in {State.ACTIVE, State.DISABLED}:
        raise TakenError
    raise TryAgainError(
        "This address is being made or deleted at the moment. Please try again in half an hour."
    )


def _make_mailbox(
    session: Session,
    token: Token,
    backend: Backend,
    account: Account,
    password: str,
    address: str | None,
) -> Account:
    """Let the backend make the mailbox, retry addresses if one is taken, and return the account."""
    for _ in range(ATTEMPTS):
        try:
            backend.create(account.address, password, account.owner)
        except TakenError:
            if account.address in {address, token.address}:
                _cancel(session, account)
                raise
            account = _renamed(session, token, account)
        except TryAgainError:  # there is no mailbox
            _cancel(session, account)
            raise
        except BaseException:  # there may be a mailbox, now or later
            _take(session, account, now=account.changed_at, state=State.UNDOING)
            raise
        else:
            _activate(session, backend, account)
            return account
    _cancel(session, account)
    raise NoFreeAddressError


def _renamed(session: Session, token: Token, account: Account) -> Account:
    """Give an account that is being made another address, and commit."""
    for _ in range(ATTEMPTS):
        address = tokens.new_address(token)
        change = update(AccountRow).where(*unchanged(account)).values(address=address)
        try:
            if not commit(session, change):
                raise SilentError(cause=f"account {account.address}: it took too long to make it")
        except IntegrityError:
            continue
        return replace(account, address=address)
    _cancel(session, account)
    raise NoFreeAddressError


def _activate(session: Session, backend: Backend, account: Account) -> None:
    """Set the state to active; delete the mailbox if "prune" has given up the account meanwhile."""
    change = update(AccountRow).where(*unchanged(account)).values(state=State.ACTIVE)
    if not commit(session, change):
        log.error("%s is deleted at once: it took too long to make it", account.address)
        backend.delete(account.address, account.owner)
        raise SilentError(cause=f"account {account.address}: it took too long to make it")


def _cancel(session: Session, account: Account) -> None:
    """Delete the row of an account without mailbox, and give its use back."""
    row = delete(AccountRow).where(*unchanged(account))
    commit(session, tokens.release(account.token_id), row)


def _take(session: Session, account: Account, *, now: datetime, state: State) -> Account | None:
    """Set the state of an account and return it; None if another program has changed it meanwhile.

    If the account was being made, the token gets its use back. Tokens are locked before accounts,
    here as elsewhere: one order prevents deadlocks.
    """
    change = update(AccountRow).where(*unchanged(account)).values(state=state, changed_at=now)
    back = [tokens.release(account.token_id)] if account.state is State.CREATING else []
    return replace(account, state=state, changed_at=now) if commit(session, *back, change) else None


def _is_ours(backend: Backend, account: Account) -> bool:
    """Return whether there is a mailbox that was made for this account."""
    mailbox = backend.find(account.address, account.owner)
    if mailbox is not None and not mailbox.is_ours:
        log.warning("%s: the mailbox was not made for this account, and stays", account.address)
    return mailbox is not None and mailbox.is_ours
