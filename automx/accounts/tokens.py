"""Tokens: what an administrator gives away as QR code, with mailadm's words for their fields."""

import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import delete, exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from automx import lookup
from automx.address import EmailAddress, parse_domain
from automx.config import BACKENDS
from automx.database import Session
from automx.duration import parse_duration
from automx.errors import (
    AddressError,
    BadRecordError,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    SettingsError,
    UnknownDomainError,
    UnknownTokenError,
)
from automx.formats.dclogin import account_text
from automx.models import Account
from automx.models import Token as TokenRow
from automx.moments import iso

NEVER = "never"
SHORTEST_LIFETIME = timedelta(seconds=30)
LONGEST_LIFETIME = timedelta(days=10 * 365)
MAX_USE = 1_000_000_000

# Digits and letters that cannot be taken for each other; mailadm's, for names.
NAME_LETTERS = "2345789acdefghjkmnpqrstuvwxyz"
NAME_LENGTH = 5  # behind a prefix
BARE_NAME_LENGTH = 9  # without one: no person is called so

_NAME = re.compile(r"\S{1,64}")
_PREFIX = re.compile(r"(?![.-])(?!.*\.\.)[a-z0-9._+-]{0,40}")
_SECRET = re.compile(r"[!-~]{1,255}")

_EDITABLE = {
    *("expiry", "prefix", "maxuse", "valid_until", "backend", "spare_active", "is_revoked"),
}

_table = TokenRow


@dataclass(frozen=True, slots=True)
class Token:
    """A row of the table ``token``, as models.Token explains it; ``token`` is the secret."""

    id: int
    name: str
    token: str = field(repr=False)
    domain: str
    prefix: str
    address: str | None
    expiry: str
    maxuse: int
    usecount: int
    valid_until: datetime | None
    is_revoked: bool
    backend: str
    spare_active: bool
    created_at: datetime

    @property
    def lifetime(self) -> timedelta | None:
        """How long an account lasts; None for ever."""
        return lifetime(self.expiry)

    def check_usable(self, now: datetime) -> None:
        """Raise ForbiddenError, with a reason for the person who scanned, if it makes no account.

        Whether it is still usable when the account is made, only the database can tell.
        """
        if self.is_revoked:
            raise ForbiddenError("This QR code has been withdrawn. Please ask for a new one.")
        if self.valid_until is not None and self.valid_until <= now:
            raise ForbiddenError("This QR code is no longer valid. Please ask for a new one.")
        if self.maxuse and self.usecount >= self.maxuse:
            raise ForbiddenError(
                "This QR code has been used as often as it may be. Please ask for a new one."
            )

    def qr_text(self, web_endpoint: str) -> str | None:
        """Return the text of its QR code; None if the setting web_endpoint is no https URL."""
        try:
            return account_text(web_endpoint, self.token, self.name)
        except SettingsError:
            return None

    def document(self, web_endpoint: str) -> dict[str, object]:
        """Return the token for programs, in mailadm's words, with its secret."""
        return {
            "name": self.name,
            "token": self.token,
            "expiry": self.expiry,
            "prefix": self.prefix,
            "maxuse": self.maxuse,
            "usecount": self.usecount,
            "domain": self.domain,
            "address": self.address,
            "valid_until": iso(self.valid_until),
            "revoked": self.is_revoked,
            "backend": self.backend or None,
            "spare_active": self.spare_active,
            "created": iso(self.created_at),
            "dcaccount": self.qr_text(web_endpoint),
        }


_COLUMNS = [_table.c[column.name] for column in fields(Token)]


def add(
    session: Session,
    name: str,
    domain: str,
    *,
    now: datetime,
    expiry: str = "1d",
    prefix: str = "tmp.",
    maxuse: int = 50,
    usecount: int = 0,
    token: str | None = None,
    address: str | None = None,
    valid_until: datetime | None = None,
    backend: str = "",
    spare_active: bool = False,
) -> Token:
    """Make a token and return it; flushes, and does not commit.

    ``token`` is the secret, by default a new one. With ``address``, the token makes this mailbox
    and no other: prefix and maxuse are then of no effect. Raises BadRequestError for a value that
    cannot be, UnknownDomainError if no row of the table ``domain`` fits, and ConflictError if there
    is a token of this name or secret.
    """
    domain = parse_domain(domain)
    if not _NAME.fullmatch(name) or not name.isprintable():
        raise BadRequestError("The name of a token has 1 to 64 characters and no blanks.")
    if token is not None and not _SECRET.fullmatch(token):
        raise BadRequestError("The secret of a token has 1 to 255 ASCII characters, no blanks.")
    if not lookup.knows(session, domain):
        raise UnknownDomainError(
            f"The domain {domain} is not in the database: add it first, so that Delta Chat finds"
            " its mail servers."
        )
    token = token or new_token()
    values = {
        "name": name,
        "token": token,
        "token_digest": _digest(token),
        "domain": domain,
        "usecount": usecount,
        "is_revoked": False,
        "created_at": now,
        **_checked(
            {
                "expiry": expiry,
                "prefix": "" if address else prefix,
                "maxuse": 1 if address else maxuse,
                "address": address,
                "valid_until": valid_until,
                "backend": backend,
                "spare_active": spare_active,
            },
            domain,
        ),
    }
    try:
        session.execute(insert(TokenRow).values(values))
    except IntegrityError:
        session.rollback()
        raise ConflictError(f"There is a token {name} already, or one of its secret.") from None
    return get(session, name)


def edit(session: Session, name: str, changes: Mapping[str, object]) -> Token:
    """Change fields of a token and return it as it is then; the count of its uses stays.

    ``changes`` maps some of expiry, prefix, maxuse, valid_until, backend, spare_active and
    is_revoked to their new values. Accounts that exist keep their expiry. Raises as add(), and
    UnknownTokenError.
    """
    if fixed := sorted(changes.keys() - _EDITABLE):
        raise BadRequestError(f"The field {fixed[0]} of a token cannot be changed.")
    token = get(session, name)
    if token.address is not None and {"prefix", "maxuse"} & changes.keys():
        raise BadRequestError("A token for one mailbox has neither prefix nor maxuse.")
    if values := _checked(changes, token.domain):
        session.execute(update(TokenRow).where(_table.c.id == token.id).values(values))
    return get(session, name)


def remove(session: Session, name: str) -> None:
    """Delete a token. Raises UnknownTokenError, and ConflictError if accounts were made by it."""
    token = get(session, name)
    has_accounts = exists().where(Account.c.token_id == token.id)
    forget = delete(TokenRow).where(_table.c.id == token.id, ~has_accounts)
    try:
        deleted = session.execute(forget).rowcount
    except IntegrityError:  # an account was made just now
        deleted = 0
    if not deleted:
        session.rollback()
        of_it = select(func.count()).select_from(Account).where(Account.c.token_id == token.id)
        number = session.scalar(of_it) or 0
        raise ConflictError(
            f"The token {name} has {number} account{'s' * (number != 1)}: delete them first, or"
            " revoke the token, which keeps them."
        )


def get(session: Session, name: str) -> Token:
    """Return the token of a name. Raises UnknownTokenError."""
    row = session.execute(select(*_COLUMNS).where(_table.c.name == name)).one_or_none()
    if row is None:
        raise UnknownTokenError(f"There is no token {name}.")
    return Token(*row)


def all_tokens(session: Session) -> list[Token]:
    """Return all tokens, in the order of their names."""
    rows = session.execute(select(*_COLUMNS).order_by(_table.c.name))
    return [Token(*row) for row in rows]


def find(session: Session, secret: str) -> Token:
    """Return the token that a secret belongs to, usable or not.

    Raises ForbiddenError, with a reason for the person who scanned the QR code.
    """
    if not secret:
        raise ForbiddenError(
            "This link is incomplete: its token is missing. Please scan the QR code again."
        )
    found = select(*_COLUMNS).where(_table.c.token_digest == _digest(secret))
    row = session.execute(found).one_or_none()
    if row is None or not hmac.compare_digest(row.token.encode(), _octets(secret)):
        raise ForbiddenError("This QR code is not known here. Please ask for a new one.")
    return Token(*row)


def lifetime(expiry: str) -> timedelta | None:
    """Return the duration of the column ``expiry``, None for ever; BadRecordError for others."""
    try:
        return None if expiry == NEVER else parse_duration(expiry)
    except ValueError as error:
        raise BadRecordError(cause=f"table token: the expiry {expiry!r} is not {error}") from None


def new_token() -> str:
    """Return a new secret: 24 characters that stand for 116 bits."""
    return "".join(secrets.choice(NAME_LETTERS) for _ in range(24))


def new_address(token: Token) -> str:
    """Return an address that the token may make, at random unless it is for one mailbox."""
    if token.address is not None:
        return token.address
    length = NAME_LENGTH if token.prefix else BARE_NAME_LENGTH
    name = "".join(secrets.choice(NAME_LETTERS) for _ in range(length))
    return f"{token.prefix}{name}@{token.domain}"


def _digest(secret: str) -> str:
    return sha256(_octets(secret)).hexdigest()


def _octets(secret: str) -> bytes:
    """Return what a secret is compared by; one that a stranger sent may hold anything."""
    return secret.encode(errors="surrogatepass")


def _checked(values: Mapping[str, object], domain: str) -> dict[str, object]:
    """Return the fields of a token as the table keeps them; BadRequestError if one cannot be."""
    return {name: _checked_field(name, value, domain) for name, value in values.items()}


def _checked_field(name: str, value: object, domain: str) -> object:
    match name, value:
        case "expiry", str():
            return _checked_expiry(value)
        case "prefix", str():
            if not _PREFIX.fullmatch(value):
                raise BadRequestError(
                    "A prefix has up to 40 lower-case letters, digits and . _ + -, and begins"
                    " neither with a dot nor with a hyphen."
                )
        case "maxuse", int():
            if not 0 <= value <= MAX_USE:
                raise BadRequestError(f"maxuse is a number from 0 (no limit) to {MAX_USE}.")
        case "address", str():
            address = EmailAddress.parse(value.lower())
            if address.domain != domain:
                raise AddressError(f"The address must be one of {domain}.")
            return str(address)
        case "backend", str():
            if value and value not in BACKENDS:
                raise BadRequestError(f"The backend must be one of {', '.join(BACKENDS)}.")
        case ("address" | "valid_until", None) | ("valid_until", datetime()):
            pass
        case "is_revoked" | "spare_active", bool():
            pass
        case _:
            raise BadRequestError(f"The field {name} of a token cannot be {value!r}.")
    return value


def _checked_expiry(text: str) -> str:
    """Return an expiry without blanks around it; BadRequestError if no account should have it."""
    text = text.strip().lower()
    if text == NEVER:
        return text
    try:
        duration = parse_duration(text)
    except ValueError as error:
        raise BadRequestError(f"An expiry is {error}, or {NEVER}.") from None
    if not SHORTEST_LIFETIME <= duration <= LONGEST_LIFETIME:
        raise BadRequestError(f"An expiry is from 30s to 10y, or {NEVER}.")
    return text
