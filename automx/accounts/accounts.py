"""Accounts: made by a token, listed, deleted.

This is the one place below the edge that commits: a call of a backend, which takes seconds and may
never end, stands between two transactions.
"""

import logging
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NoReturn, cast

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Executable,
    Row,
    Select,
    Update,
    case,
    delete,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from automx import lookup
from automx.accounts import tokens
from automx.accounts.tokens import Token
from automx.address import EmailAddress
from automx.backends import Backend, Backends, Owner
from automx.database import is_conflict
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

log = logging.getLogger(__name__)

# How many names are tried if one after the other is taken.
ATTEMPTS = 10

# How often a transaction is tried that others get in the way of. On SQLite, where many writers wait
# for each other in no order, each try waits for some seconds.
TRIES = 4

# After this time, nobody works any more on an account that is being made or deleted: ATTEMPTS calls
# of a backend, at most 60 s each, and as many transactions have ended by then.
SETTLED_AFTER = timedelta(minutes=15)

# Those of names, and capitals that look like none of them, nor like a digit.
LETTERS = tokens.NAME_LETTERS + "ACDEFGHJKLMNPQRTUVWXY"

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
        """By whom the backend knows the mailbox."""
        return Owner(self.token, self.mark)


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account that was just made, with its password, which is kept nowhere else.

    ``expires_at`` is None, as ``lifetime`` is, for an account without end.
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
    # Ends the reading transaction: a writing one has to see what others have written since.
    session.commit()
    account = _claim(session, token, backends.name(token.backend), now, address)
    password = password or new_password()
    if backend is not None:
        account = _make_mailbox(session, token, backend, account, password, address)
    return NewAccount(account.address, password, token.expiry, token.lifetime, account.expires_at)


def check_domain(session: Session, token: Token) -> None:
    """Raise BadRecordError if the domain of a token has gone since the token was made."""
    if not lookup.knows(session, token.domain):
        raise BadRecordError(
            cause=f"token {token.name}: the domain {token.domain} is not in the table domain"
        )


def remove(session: Session, account: Account, backends: Backends, *, now: datetime) -> None:
    """Delete an account and its mailbox, as end() does.

    Raises ConflictError if the account is being made or deleted right now, and what the backend
    raises if it fails.
    """
    is_under_way = account.state in {State.CREATING, State.UNDOING, State.DELETING}
    if is_under_way and account.changed_at > now - SETTLED_AFTER:
        raise ConflictError(f"{account.address} is being made or deleted right now.")
    if not end(session, account, backends, now=now):
        raise ConflictError(f"{account.address} has just been changed by somebody else.")


def end(session: Session, account: Account, backends: Backends, *, now: datetime) -> bool:
    """Delete the mailbox of an account, then its row; commits before and after the backend's call.

    If its making was cut off or failed with an open end, nobody has the password: a mailbox that
    was made for it goes, one that somebody else has made stays, and the token gets its use back,
    unless it has it already. Returns False, and does nothing, if another program has changed the
    account meanwhile. Raises what the backend raises if it fails; the account then stays as it
    was, so that the next try need not wait.
    """
    is_unfinished = account.state in {State.CREATING, State.UNDOING}
    aim = State.UNDOING if is_unfinished else State.DELETING
    taken = _take(session, account, now=now, state=aim)
    if taken is None:
        return False
    try:
        backend = backends.get(account.backend)
        if backend is not None and (not is_unfinished or _is_ours(backend, account)):
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


def unchanged(account: Account) -> tuple[ColumnElement[bool], ...]:
    """Return the condition that an account is as it was read."""
    return (
        _account.c.id == account.id,
        _account.c.mark == account.mark,
        _account.c.state == account.state,
        _account.c.changed_at == account.changed_at,
    )


def commit(session: Session, *statements: Executable) -> list[CursorResult[Any]]:
    """Run statements in a transaction and return their results; none if one has found no row.

    Nothing is changed then. What fails because of other transactions is tried again.
    """
    for _ in range(TRIES - 1):
        try:
            return _commit_once(session, statements)
        except DBAPIError as error:
            if not is_conflict(error):
                raise
    return _commit_once(session, statements)


def _commit_once(session: Session, statements: Iterable[Executable]) -> list[CursorResult[Any]]:
    results = []
    try:
        for statement in statements:
            results.append(cast("CursorResult[Any]", session.execute(statement)))
            if not results[-1].rowcount:
                session.rollback()
                return []
        session.commit()
    except DBAPIError:
        session.rollback()
        raise
    return results


def new_password() -> str:
    """Return a password of 20 characters that stand for 101 bits.

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
        try:
            done = commit(session, use, insert(AccountRow).values(values | {"address": name}))
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
        # It is usable: another account failed just now, and gave its use back.
    raise error


def _explain_collision(session: Session, address: str) -> NoReturn:
    """Raise TakenError, or TryAgainError if the address becomes free soon, perhaps."""
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
    """Note that the mailbox exists; if "prune" has given it up meanwhile, it has to go."""
    change = update(AccountRow).where(*unchanged(account)).values(state=State.ACTIVE)
    if not commit(session, change):
        log.error("%s is deleted at once: it took too long to make it", account.address)
        backend.delete(account.address, account.owner)
        raise SilentError(cause=f"account {account.address}: it took too long to make it")


def _cancel(session: Session, account: Account) -> None:
    """Forget an account that has no mailbox, and give its use back."""
    commit(session, _use_back(account), delete(AccountRow).where(*unchanged(account)))


def _take(session: Session, account: Account, *, now: datetime, state: State) -> Account | None:
    """Set the state of an account and return it; None if another program has changed it meanwhile.

    An account that was being made gives its use back.
    """
    change = update(AccountRow).where(*unchanged(account)).values(state=state, changed_at=now)
    back = [_use_back(account)] if account.state is State.CREATING else []
    return replace(account, state=state, changed_at=now) if commit(session, *back, change) else None


def _use_back(account: Account) -> Update:
    """Return the statement that gives the use back.

    It comes before those on accounts: who locks rows in the same order cannot block each other.
    """
    used = _token.c.usecount
    change = update(TokenRow).where(_token.c.id == account.token_id)
    return change.values(usecount=case((used > 0, used - 1), else_=0))


def _is_ours(backend: Backend, account: Account) -> bool:
    """Tell whether there is a mailbox that was made for this very account."""
    mailbox = backend.find(account.address, account.owner)
    if mailbox is not None and not mailbox.is_ours:
        log.warning("%s was made by somebody else: its mailbox stays", account.address)
    return mailbox is not None and mailbox.is_ours
