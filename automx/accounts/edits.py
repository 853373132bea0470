"""What administrators change of an account: when it ends, and its password."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import update

from automx import audit
from automx.accounts.accounts import Account, unchanged
from automx.backends import Backends
from automx.database import Session, commit
from automx.errors import ConflictError
from automx.models import Account as AccountRow
from automx.moments import iso
from automx.words import State


def set_expiry(
    session: Session, account: Account, expires_at: datetime | None, *, actor: str, now: datetime
) -> Account:
    """Let an account end at another moment, None for never, and return it; commits.

    ``actor`` is for the audit. Raises ConflictError if the account has no mailbox to log in to, or
    another program has changed it.
    """
    _check_active(account)
    row = update(AccountRow).where(*unchanged(account))
    ends = {"before": account.expires_at, "after": expires_at}
    entry = audit.entry(
        actor,
        now,
        action="set",
        kind="account",
        name=account.address,
        details={side: {"expires": iso(end)} for side, end in ends.items()},
    )
    if not commit(session, row.values(expires_at=expires_at, warned_at=None), entry):
        raise ConflictError(f"{account.address} has just been changed by another program.")
    return replace(account, expires_at=expires_at, warned_at=None)


def set_password(
    session: Session,
    account: Account,
    backends: Backends,
    password: str,
    *,
    actor: str,
    now: datetime,
) -> None:
    """Set the password of the mailbox of an account; commits.

    ``actor`` is for the audit, which has no password. Raises ConflictError if the account has no
    mailbox to log in to, and the errors of the backend.
    """
    _check_active(account)
    session.commit()
    backend = backends.get(account.backend)
    mailbox = backend.find(account.address, account.owner)
    if mailbox is None or not mailbox.is_ours:
        why = "is gone" if mailbox is None else "was not made for this account"
        raise ConflictError(f"The mailbox of {account.address} {why}.")
    backend.set_password(account.address, password, account.owner)
    audit.write(
        session, actor, now, action="password", kind="account", name=account.address, details={}
    )
    session.commit()


def _check_active(account: Account) -> None:
    if account.state is not State.ACTIVE:
        raise ConflictError(
            f"{account.address} is {account.state.value}: only an active account can be changed."
        )
