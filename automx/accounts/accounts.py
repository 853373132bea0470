"""Accounts: made by a token, listed, deleted.

This is the one place below the edge that commits: a call of a backend, which takes seconds and may
never end, stands between two transactions.
"""

import logging
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Executable,
    Row,
    Select,
    delete,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from automx import lookup
from automx.accounts import tokens
from automx.accounts.tokens import Token
from automx.address import EmailAddress
from automx.backends import Backend, Backends, Owner
from automx.errors import (
    AddressError,
    BadRecordError,
    ConflictError,
    SilentError,
    TakenError,
    TryAgainError,
    UnknownAccountError,
)
from automx.models import Account as AccountRow
from automx.models import Token as TokenRow

log = logging.getLogger(__name__)

# How many names are tried if one after the other is taken.
ATTEMPTS = 10

# After this time, nobody works any more on an account that is being made or deleted: ATTEMPTS calls
# of a backend have ended by then.
SETTLED_AFTER = timedelta(minutes=15)

LETTERS = "23456789abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ"

_account = AccountRow.__table__
_token = TokenRow.__table__


class State(StrEnum):
    """What is known of a mailbox; the package's docstring explains the values."""

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
        """By whom the backend knows the mailbox."""
        return Owner(self.token, self.mark)


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account that was just made, with its password, which is kept nowhere else."""

    address: str
    password: str = field(repr=False)
    expiry: str
    lifetime: timedelta | None


def create(
    session: Session,
    token: Token,
    backends: Backends,
    *,
    now: datetime,
    address: str | None = None,
    password: str | None = None,
) -> NewAccount:
    """Make an account and return it; commits twice, and holds no transaction in between.

    ``address`` and ``password`` are chosen at random unless they are given. Raises ForbiddenError
    if the token makes no (further) account, TakenError if the address, or each one that was tried,
    belongs to somebody, what the backend raises if it fails, AddressError for an address that the
    token cannot make and BadRecordError if the token's domain is gone. The use of the token is
    then given back.
    """
    token.check_usable(now)
    if address is not None:
        address = _allowed_address(address, token)
    check_domain(session, token)
    backend = backends.get(token.backend)
    session.commit()  # ends the reading transaction: SQLite could not turn it into a writing one
    account = _claim(session, token, backends.name(token.backend), now, address)
    password = password or new_password()
    if backend is not None:
        account = _make_mailbox(session, token, backend, account, password, address)
    return NewAccount(account.address, password, token.expiry, token.lifetime)


def check_domain(session: Session, token: Token) -> None:
    """Raise BadRecordError if the domain of a token has gone since the token was made."""
    if not lookup.knows(session, token.domain):
        raise BadRecordError(
            cause=f"token {token.name}: the domain {token.domain} is not in the table domain"
        )


def remove(session: Session, account: Account, backends: Backends, *, now: datetime) -> None:
    """Delete an account and its mailbox; commits before and after the call of the backend.

    The row goes only when the backend says that the mailbox is gone. Raises ConflictError if the
    account is being made or deleted right now, and what the backend raises if it fails.
    """
    if account.state in {State.CREATING, State.UNDOING, State.DELETING} and (
        account.changed_at > now - SETTLED_AFTER
    ):
        raise ConflictError(f"{account.address} is being made or deleted right now.")
    if account.state in {State.CREATING, State.UNDOING}:
        settle(session, account, backends, now=now)
    elif take(session, account, now=now, state=State.DELETING):
        finish_deletion(session, account, backends, now=now)
    else:
        raise ConflictError(f"{account.address} has just been changed by somebody else.")


def settle(session: Session, account: Account, backends: Backends, *, now: datetime) -> None:
    """Bring an account in order whose making was cut off, or failed with an open end.

    Nobody has its password: a mailbox that was made for it goes, and so does the row; a mailbox
    that somebody else has made stays. The token gets its use back, unless it has it already.
    Raises what the backend raises if it fails; the row then stays as it is.
    """
    if not take(session, account, now=now, state=State.UNDOING):
        return
    backend = backends.get(account.backend)
    try:
        mailbox = backend.find(account.address, account.owner) if backend else None
        if mailbox is not None and not mailbox.is_ours:
            log.warning("%s was made by somebody else: its mailbox stays", account.address)
        elif backend is not None and mailbox is not None:
            backend.delete(account.address, account.owner)
    except BaseException:
        put_back(session, account, now=now, state=State.UNDOING)
        raise
    execute(session, delete(AccountRow).where(_account.c.id == account.id))
    session.commit()


def finish_deletion(
    session: Session, account: Account, backends: Backends, *, now: datetime
) -> None:
    """Delete the mailbox of an account that take() has set to DELETING, then its row.

    Raises what the backend raises if it fails; the account then has its former state again.
    """
    try:
        backend = backends.get(account.backend)
        if backend is not None:
            backend.delete(account.address, account.owner)
    except BaseException:
        put_back(session, account, now=now, state=State.DELETING)
        raise
    execute(session, delete(AccountRow).where(_account.c.id == account.id))
    session.commit()


def take(session: Session, account: Account, *, now: datetime, state: State) -> bool:
    """Set the state of an account, and commit; False if another program has changed it meanwhile.

    An account that was being made gives its use back when it is set to UNDOING.
    """
    if account.state is State.CREATING:
        _give_use_back(session, account)
    change = update(AccountRow).where(*unchanged(account))
    if not execute(session, change.values(state=state, changed_at=now)):
        session.rollback()
        return False
    session.commit()
    return True


def put_back(session: Session, account: Account, *, now: datetime, state: State) -> None:
    """Undo take() after a failure, so that the next try need not wait; the use stays given back."""
    before = State.UNDOING if account.state is State.CREATING else account.state
    of_it = update(AccountRow).where(_account.c.id == account.id, _account.c.state == state)
    of_it = of_it.where(_account.c.changed_at == now)
    execute(session, of_it.values(state=before, changed_at=account.changed_at))
    session.commit()


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
    """Yield all accounts, or those of a token or a state, in the order of their creation."""
    query = selected().order_by(_account.c.id)
    if token is not None:
        query = query.where(_token.c.name == token)
    if state is not None:
        query = query.where(_account.c.state == state)
    for row in session.execute(query.execution_options(yield_per=1000)):
        yield loaded(row)


def selected() -> Select[Any]:
    """Return the query whose rows loaded() understands."""
    columns = [_account.c[column.name] for column in fields(Account) if column.name != "token"]
    token = _token.c.name.label("token")
    return select(*columns, token).join_from(_account, _token)


def loaded(row: Row[Any]) -> Account:
    """Return the account of a row of selected()."""
    values = {column.name: getattr(row, column.name) for column in fields(Account)}
    return Account(**values | {"state": State(row.state)})


def new_password() -> str:
    """Return a password of 20 characters that stand for 104 bits.

    It has lower and upper case, digits and a hyphen, because mail servers may ask for them, and no
    letters that can be taken for each other.
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
    """Use the token once and insert the row of the account, in one transaction; retry names."""
    use = update(TokenRow).where(
        _token.c.id == token.id,
        _token.c.is_revoked.is_(False),
        or_(_token.c.valid_until.is_(None), _token.c.valid_until > now),
        or_(_token.c.maxuse == 0, _token.c.usecount < _token.c.maxuse),
    )
    use = use.values(usecount=_token.c.usecount + 1)
    account = Account(
        id=0,
        address=address or "",
        mark=secrets.token_hex(8),
        backend=backend,
        state=State.ACTIVE if backend == "none" else State.CREATING,
        created_at=now,
        expires_at=None if token.lifetime is None else now + token.lifetime,
        changed_at=now,
        warned_at=None,
        token=token.name,
    )
    values = asdict(account) | {"token_id": token.id}
    del values["id"], values["token"]
    for _ in range(ATTEMPTS):
        if not execute(session, use):
            session.rollback()
            tokens.find(session, token.token).check_usable(now)
            continue  # another account that failed has just given its use back
        name = address or tokens.new_address(token)
        add = insert(AccountRow).values(values | {"address": name})
        try:
            row: Any = session.execute(add)
        except IntegrityError:
            session.rollback()
            if name in {address, token.address}:
                raise TakenError from None
            continue
        session.commit()
        return replace(account, id=row.inserted_primary_key.id, address=name)
    raise TakenError("No free address was found. Please try again.")


def _make_mailbox(
    session: Session,
    token: Token,
    backend: Backend,
    account: Account,
    password: str,
    address: str | None,
) -> Account:
    """Let the backend make the mailbox, under another name if need be; return the account."""
    for _ in range(ATTEMPTS):
        try:
            backend.create(account.address, password, account.owner)
        except TakenError:
            if account.address in {address, token.address}:
                _cancel(session, account)
                raise
            account = _renamed(session, token, account)
        except TryAgainError:  # nothing was made
            _cancel(session, account)
            raise
        except BaseException:  # it may have been made, or be made yet
            take(session, account, now=account.changed_at, state=State.UNDOING)
            raise
        else:
            _activate(session, backend, account)
            return account
    _cancel(session, account)
    raise TakenError("No free address was found. Please try again.")


def _renamed(session: Session, token: Token, account: Account) -> Account:
    """Give an account that is being made another address, and commit."""
    for _ in range(ATTEMPTS):
        address = tokens.new_address(token)
        change = update(AccountRow).where(*unchanged(account)).values(address=address)
        try:
            is_ours = execute(session, change)
        except IntegrityError:
            session.rollback()
            continue
        session.commit()
        if not is_ours:
            raise SilentError(cause=f"account {account.address}: it took too long to make it")
        return replace(account, address=address)
    _cancel(session, account)
    raise TakenError("No free address was found. Please try again.")


def _activate(session: Session, backend: Backend, account: Account) -> None:
    """Note that the mailbox exists; if "prune" has given it up meanwhile, it has to go."""
    change = update(AccountRow).where(*unchanged(account))
    is_ours = execute(session, change.values(state=State.ACTIVE))
    session.commit()
    if not is_ours:
        backend.delete(account.address, account.owner)
        raise SilentError(cause=f"account {account.address}: it took too long to make it")


def _cancel(session: Session, account: Account) -> None:
    """Forget an account that has no mailbox, and give its use back."""
    _give_use_back(session, account)
    if execute(session, delete(AccountRow).where(*unchanged(account))):
        session.commit()
    else:
        session.rollback()


def _give_use_back(session: Session, account: Account) -> None:
    token = select(_account.c.token_id).where(_account.c.id == account.id).scalar_subquery()
    change = update(TokenRow).where(_token.c.id == token, _token.c.usecount > 0)
    execute(session, change.values(usecount=_token.c.usecount - 1))


def unchanged(account: Account) -> tuple[ColumnElement[bool], ...]:
    """Return the condition that an account is as it was read."""
    return (
        _account.c.id == account.id,
        _account.c.mark == account.mark,
        _account.c.state == account.state,
        _account.c.changed_at == account.changed_at,
    )


def execute(session: Session, statement: Executable) -> int:
    """Run an UPDATE or DELETE; return the number of rows that it found."""
    return cast("CursorResult[Any]", session.execute(statement)).rowcount
