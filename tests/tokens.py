"""Tokens in tests: making one, its uses, and what people read when it makes no account."""

from automx.accounts import tokens
from automx.accounts.tokens import Token
from automx.database import Session
from tests.mailboxes import NOW

UNKNOWN = "This QR code is not known here. Please ask for a new one."
MISSING = "This link is incomplete: its token is missing. Please scan the QR code again."
REVOKED = "This QR code has been withdrawn. Please ask for a new one."
EXPIRED = "This QR code is no longer valid. Please ask for a new one."
EXHAUSTED = "This QR code has been used as often as it may be. Please ask for a new one."

OFF = "The mail domain of this QR code is switched off. Please ask for a new one."

# Switch the domain of id 1 off, and on.
DISABLE = "INSERT INTO disabled_domain VALUES (1, '2026-11-30 10:00:00')"
ENABLE = "DELETE FROM disabled_domain WHERE domain_id = 1"


def add(
    session: Session, name: str = "party", domain: str = "example.com", **fields: object
) -> Token:
    """Make a token and commit it."""
    token = tokens.add(session, name, domain, now=NOW, actor=None, **fields)
    session.commit()
    return token


def usecount(session: Session) -> int:
    """Return the uses of the only token."""
    (token,) = tokens.all_tokens(session)
    session.rollback()
    return token.usecount
