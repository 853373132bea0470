"""Tokens: what an administrator gives away as QR code, with mailadm's words for their fields."""

import functools
import hmac
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Update,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from automx import audit, lookup, references, rows
from automx.accountcolumns import NEVER, TOKEN, TOKEN_DEFAULTS
from automx.accounts.randomwords import new_local_part, new_token
from automx.address import EmailAddress
from automx.columntypes import second_of
from automx.database import Session, read_page, savepoint
from automx.duration import parse_duration
from automx.errors import (
    AddressError,
    BadRecordError,
    BadRequestError,
    ConflictError,
    DisabledDomainError,
    ForbiddenError,
    SettingsError,
    UnknownDomainError,
    UnknownTokenError,
)
from automx.formats.dclogin import account_text
from automx.kinds import BadValueError
from automx.lookup import DomainRow
from automx.models import Account, DisabledDomain
from automx.models import Token as TokenRow
from automx.moments import iso, this_second
from automx.texts import N_

log = logging.getLogger(__name__)

_ONE_MAILBOX = {"prefix": "", "maxuse": 1}  # columns of a token with an address
_EDITABLE = TOKEN.keys() - {"name", "token", "domain", "address", "usecount"}


class Obstacle(StrEnum):
    """Why a token makes no account."""

    OFF = "domain off"
    REVOKED = "revoked"
    EXPIRED = "expired"
    USED_UP = "used up"


REASONS = {
    Obstacle.OFF: N_("The mail domain of this QR code is switched off. Please ask for a new one."),
    Obstacle.REVOKED: N_("This QR code has been withdrawn. Please ask for a new one."),
    Obstacle.EXPIRED: N_("This QR code is no longer valid. Please ask for a new one."),
    Obstacle.USED_UP: N_(
        "This QR code has been used as often as it may be. Please ask for a new one."
    ),
}


@dataclass(frozen=True, slots=True)
class Token:
    """A row of the table ``token``, as models.Token explains it; ``token`` is the secret.

    ``domain_row`` is the row that decides for its domain, None if no row fits.
    """

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
    domain_row: DomainRow | None = field(default=None, compare=False, repr=False)

    @property
    def lifetime(self) -> timedelta | None:
        """The lifetime of its accounts; None for accounts without end."""
        return lifetime(self.expiry)

    def obstacle(self, now: datetime) -> Obstacle | None:
        """Return why the token makes no account at this time; None if it makes one.

        claim() is the same rule in SQL: only the database knows the uses at that moment.
        """
        if self.domain_row is not None and self.domain_row.off:
            return Obstacle.OFF
        if self.is_revoked:
            return Obstacle.REVOKED
        if self.valid_until is not None and self.valid_until <= now:
            return Obstacle.EXPIRED
        if self.maxuse and self.usecount >= self.maxuse:
            return Obstacle.USED_UP
        return None

    def check_usable(self, now: datetime) -> None:
        """Raise ForbiddenError, with a text for people, if the token makes no account."""
        if obstacle := self.obstacle(now):
            raise ForbiddenError(REASONS[obstacle])

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
            **self.fields(),
            "created": iso(self.created_at),
            "dcaccount": self.qr_text(web_endpoint),
        }

    def fields(self) -> dict[str, object]:
        """Return what a token is like, without name and secret."""
        return {
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
        }


_ALL = select(*rows.selected("token"))


def add(
    session: Session,
    name: str,
    domain: str,
    *,
    now: datetime,
    actor: str | None = None,
    **columns: object,
) -> Token:
    """Make a token and return it; flushes, and does not commit.

    ``actor`` is for the audit, None for no entry. ``columns`` are values of TOKEN, by default
    those of TOKEN_DEFAULTS; ``token`` is the secret, by default a new one. With ``address``,
    the token makes this mailbox and no other, and has neither prefix nor maxuse. Raises
    BadRequestError for a value that a column cannot hold, AddressError for an address of another
    domain, UnknownDomainError if no row of the table ``domain`` fits, DisabledDomainError if it is
    switched off, and ConflictError if there is a token of this name or secret.
    """
    if columns.get("token") is None:
        columns["token"] = new_token()
    values = _checked({**TOKEN_DEFAULTS, **columns, "name": name, "domain": domain})
    if values["address"] is not None:
        _check_one_mailbox({column: values[column] for column in columns})
        values |= _ONE_MAILBOX
    domain = values["domain"]
    row = lookup.domain_row(session, domain)
    if row is None:
        raise UnknownDomainError(
            f"The domain {domain} is not in the database: add it first, so that Delta Chat finds"
            " its mail servers."
        )
    if row.off:
        raise DisabledDomainError(cause=row.off)
    if values["address"] is not None and not values["address"].endswith(f"@{domain}"):
        raise AddressError(f"The address must be one of {domain}.")
    values |= {"token_digest": _digest(values["token"]), "created_at": now}
    try:
        with savepoint(session):
            if session.engine.dialect.name == "sqlite":  # it may hold accounts of a deleted token
                values["id"] = references.highest_id(session, "token") + 1
            session.execute(insert(TokenRow).values(values))
    except IntegrityError:
        raise ConflictError(f"There is a token {name} already, or one of its secret.") from None
    token = get(session, name)
    _write(session, actor, now, "add", name, {"after": token.fields()})
    return token


def edit(
    session: Session,
    name: str,
    changes: Mapping[str, object],
    *,
    actor: str | None = None,
    now: datetime | None = None,
) -> Token:
    """Change fields of a token and return it as it is then; the count of its uses stays.

    ``changes`` maps some of expiry, prefix, maxuse, valid_until, backend, spare_active and
    is_revoked to their new values. Accounts that exist keep their expiry. ``actor`` and ``now`` are
    for the audit, which has no entry without an actor. Raises as add(), and UnknownTokenError.
    """
    if fixed := sorted(changes.keys() - _EDITABLE):
        raise BadRequestError(f"The field {fixed[0]} of a token cannot be changed.")
    token, values = get(session, name), _checked(changes)
    if token.address is not None:
        _check_one_mailbox(values)
    if values:
        session.execute(update(TokenRow).where(TokenRow.c.id == token.id).values(values))
    edited = get(session, name)
    before, after = token.fields(), edited.fields()
    changed = [key for key in before if before[key] != after[key] and key != "usecount"]
    if changed:
        sides = {"before": before, "after": after}
        details = {side: {key: of[key] for key in changed} for side, of in sides.items()}
        _write(session, actor, now, "set", name, details)
    return edited


def remove(
    session: Session, name: str, *, actor: str | None = None, now: datetime | None = None
) -> None:
    """Delete a token. Raises UnknownTokenError, and ConflictError if accounts were made by it.

    ``actor`` and ``now`` are for the audit, which has no entry without an actor.
    """
    row = _row(session, name)
    token_id = row["id"]
    try:
        with savepoint(session):
            number = number_of_accounts(session, token_id)
            if not number:
                session.execute(delete(TokenRow).where(TokenRow.c.id == token_id))
    except IntegrityError:  # an account was made just now
        number = 1
    if number:
        raise ConflictError(
            f"The token {name} has {number} account{'s' * (number != 1)}: delete them first, or"
            " revoke the token, which keeps them."
        )
    fields: dict[str, object] = {}
    with suppress(BadRecordError):
        fields = _loaded(row, lambda _: None).fields()
    _write(session, actor, now, "delete", name, {"before": fields})


def _write(
    session: Session,
    actor: str | None,
    now: datetime | None,
    action: str,
    name: str,
    details: Mapping[str, object],
) -> None:
    """Write an entry of the audit for what an administrator has done."""
    if actor is not None:
        moment = now or this_second()
        audit.write(session, actor, moment, action=action, kind="token", name=name, details=details)


def number_of_accounts(session: Session, token_id: int) -> int:
    """Return how many accounts of a token there are, in any state."""
    of_it = select(func.count()).select_from(Account).where(Account.c.token_id == token_id)
    return session.scalar(of_it) or 0


def get(session: Session, name: str) -> Token:
    """Return the token of a name. Raises UnknownTokenError, and BadRecordError for a bad row."""
    return _loaded(_row(session, name), lambda domain: lookup.domain_row(session, domain))


def all_tokens(session: Session) -> list[Token]:
    """Return all tokens, in the order of their names; a bad row is left out and logged."""
    domain_row = functools.cache(lambda domain: lookup.domain_row(session, domain))
    rows_ = session.execute(_ALL.order_by(TokenRow.c.name)).mappings().all()
    return list(_readable(rows_, domain_row))


def page(
    session: Session, where: Iterable[ColumnElement[bool]], after: int, number: int
) -> tuple[list[Token], int | None]:
    """Return ``number`` tokens of higher ids, in their order, and the last id if more follow.

    ``where`` are conditions on the table. The tokens do not know the rows of their domains. A bad
    row is left out and logged.
    """
    found, last = read_page(session, _ALL.where(*where), TokenRow.c.id, after, number)
    return list(_readable(found, lambda _: None)), last


def without_domain(session: Session) -> list[Token]:
    """Return the tokens whose domain is not in the table ``domain``, switched off or not."""
    return [token for token in all_tokens(session) if token.domain_row is None]


def find(session: Session, secret: str) -> Token:
    """Return the token that a secret belongs to, usable or not.

    Raises ForbiddenError, with a reason for the person who scanned the QR code, and BadRecordError.
    """
    if not secret:
        raise ForbiddenError(
            N_("This link is incomplete: its token is missing. Please scan the QR code again.")
        )
    found = _ALL.where(TokenRow.c.token_digest == _digest(secret))
    row = session.execute(found).mappings().one_or_none()
    if row is None or not hmac.compare_digest(_octets(str(row["token"])), _octets(secret)):
        raise ForbiddenError(N_("This QR code is not known here. Please ask for a new one."))
    return _loaded(row, lambda domain: lookup.domain_row(session, domain))


def claim(token: Token, now: datetime) -> Update:
    """Return the statement that uses a token once; it finds no row if the token has an obstacle."""
    domain_id = None if token.domain_row is None else token.domain_row.id
    return (
        update(TokenRow)
        .where(
            TokenRow.c.id == token.id,
            ~exists().where(DisabledDomain.c.domain_id == domain_id),
            TokenRow.c.is_revoked.is_(False),
            or_(
                TokenRow.c.valid_until.is_(None), second_of(TokenRow.c.valid_until) > second_of(now)
            ),
            or_(TokenRow.c.maxuse == 0, TokenRow.c.usecount < TokenRow.c.maxuse),
        )
        .values(usecount=TokenRow.c.usecount + 1)
    )


def release(token_id: int) -> Update:
    """Return the statement that gives a use of a token back."""
    fewer = case((TokenRow.c.usecount > 0, TokenRow.c.usecount - 1), else_=0)
    return update(TokenRow).where(TokenRow.c.id == token_id).values(usecount=fewer)


def lifetime(expiry: str) -> timedelta | None:
    """Return the duration in the column ``expiry``, None for "never". Raises BadRecordError."""
    try:
        return None if expiry == NEVER else parse_duration(expiry)
    except ValueError as error:
        raise BadRecordError(cause=f"table token: the expiry {expiry!r} is not {error}") from None


def new_address(token: Token) -> str:
    """Return an address that the token may make, at random unless it is for one mailbox."""
    return token.address or f"{new_local_part(token.prefix)}@{token.domain}"


def sample_address(domain: str, columns: Mapping[str, object]) -> str | None:
    """Return an address that a token with these columns would make; None if it can be none."""
    values = {**TOKEN_DEFAULTS, **columns, "domain": domain}
    names = ("prefix", "address", "domain")
    read, bad = rows.read({name: TOKEN[name] for name in names}, values)
    if bad:
        return None
    return read["address"] or f"{new_local_part(read['prefix'])}@{read['domain']}"


def allowed_address(token: Token, text: str) -> str:
    """Return an address in lower case; AddressError if the token cannot make it."""
    address = str(EmailAddress.parse(text.lower()))
    try:
        TOKEN["address"].read(address)
    except BadValueError:
        raise AddressError(
            "The part before the @ may have letters, digits and . _ + - only."
        ) from None
    if token.address is not None and address != token.address:
        raise AddressError(f"The token {token.name} makes {token.address} only.")
    if not address.endswith(f"@{token.domain}"):
        raise AddressError(f"The token {token.name} makes addresses of {token.domain} only.")
    if token.address is None and not re.match(rf"{re.escape(token.prefix)}[^@]", address):
        raise AddressError(f"The token {token.name} makes addresses with {token.prefix}… only.")
    return address


def _row(session: Session, name: str) -> rows.Values:
    row = session.execute(_ALL.where(TokenRow.c.name == name)).mappings().one_or_none()
    if row is None:
        raise UnknownTokenError(f"There is no token {name}.")
    return row


def _loaded(row: rows.Values, domain_row: Callable[[str], DomainRow | None]) -> Token:
    values, bad = rows.read_row("token", row)
    if bad:
        raise BadRecordError(cause=f"table token, id {row['id']}: {'; '.join(bad)}")
    return Token(id=row["id"], **values, domain_row=domain_row(values["domain"]))


def _readable(
    found: Iterable[rows.Values], domain_row: Callable[[str], DomainRow | None]
) -> Iterator[Token]:
    for row in found:
        try:
            yield _loaded(row, domain_row)
        except BadRecordError as error:
            log.error("%s; this row is left out", error.cause)


def _digest(secret: str) -> str:
    return sha256(_octets(secret)).hexdigest()


def _octets(secret: str) -> bytes:
    """Return what a secret is compared by; one that a stranger sent may hold anything."""
    return secret.encode(errors="surrogatepass")


def _check_one_mailbox(columns: Mapping[str, object]) -> None:
    for column, value in _ONE_MAILBOX.items():
        if columns.get(column, value) != value:
            raise BadRequestError(
                f"{column}: a token for one mailbox has neither prefix nor maxuse"
            )


def _checked(values: Mapping[str, object]) -> dict[str, Any]:
    """Return the normal forms of columns. Raises BadRequestError with all that is wrong."""
    if unknown := sorted(values.keys() - TOKEN.keys()):
        raise BadRequestError(f"A token has no field {unknown[0]}.")
    checked, bad = rows.read({column: TOKEN[column] for column in values}, values)
    if bad:
        raise BadRequestError("; ".join(bad))
    return checked
