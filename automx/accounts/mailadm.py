"""The import of mailadm's tokens and users.

A token of mailadm can be deleted while its users stay, and the meaning of an expiry differs from
version to version; the report has a note for each token or account that could not be kept as it is.
"""

import re
import secrets
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from automx import lookup
from automx.accounts import tokens
from automx.accounts.accounts import State
from automx.accounts.mailadmfile import Mailadm, OldToken, OldUser
from automx.accounts.tokens import Token
from automx.address import EmailAddress, parse_domain
from automx.config import KEYS
from automx.database import Session, chunks, savepoint
from automx.duration import format_duration, parse_duration
from automx.errors import (
    AddressError,
    BadRequestError,
    ConflictError,
    UnknownDomainError,
    UnknownTokenError,
)
from automx.models import Account as AccountRow
from automx.models import Token as TokenRow
from automx.rows import LONGEST_LIFETIME, MAX_USE, NEVER, SHORTEST_LIFETIME

# From this lifetime on, mailadm 1.0 keeps accounts that are in use.
SPARED_FROM = timedelta(days=27)

# The tokens of accounts whose own token is not here, by whether accounts in use are kept.
SUBSTITUTES = {False: "mailadm-import", True: "mailadm-import-spared"}

# "never" in mailadm is sys.maxsize seconds: on a machine of 32 bits, this number.
_FOREVER = 2**31 - 1

_UNITS = {"y": 365 * 86400, "w": 7 * 86400, "d": 86400, "h": 3600, "s": 1}
_CHUNK = 500  # rows of one statement

_account = AccountRow
_token = TokenRow


@dataclass(slots=True)
class Tally:
    """The numbers of tokens, or accounts, that were added or here before; the names of others."""

    added: int = 0
    present: int = 0
    left_out: list[str] = field(default_factory=list)

    def document(self) -> dict[str, object]:
        """Return the counts for programs."""
        return {"added": self.added, "present": self.present, "left_out": self.left_out}


@dataclass(slots=True)
class Report:
    """The result of take_over().

    ``raised`` names the tokens that were here before and have a higher count of uses now;
    ``expired`` is the number of added accounts that have expired; ``notes`` are sentences about
    tokens and accounts that differ from those in mailadm.
    """

    domain: str
    backend: str
    tokens: Tally = field(default_factory=Tally)
    raised: list[str] = field(default_factory=list)
    accounts: Tally = field(default_factory=Tally)
    expired: int = 0
    notes: list[str] = field(default_factory=list)

    def document(self, settings: Mapping[str, str], *, dry_run: bool) -> dict[str, object]:
        """Return the report for programs, with the settings for automx that settings() found."""
        return {
            "dry_run": dry_run,
            "domain": self.domain,
            "backend": self.backend,
            "tokens": {**self.tokens.document(), "raised": self.raised},
            "accounts": {**self.accounts.document(), "expired": self.expired},
            "notes": self.notes,
            "settings": dict(settings),
        }


def take_over(
    session: Session,
    mailadm: Mailadm,
    *,
    now: datetime,
    domain: str | None = None,
    backend: str | None = None,
) -> Report:
    """Add mailadm's tokens and users, and return a report; flushes, and does not commit.

    Rows that are here already stay, but the count of uses of a token is raised to that in mailadm;
    so the import can be repeated. ``domain`` is that of the tokens and of the users to add, by
    default mailadm's; ``backend`` is that of the mailboxes, by default ``mailcow``. Raises
    BadRequestError if mailadm's database does not name them, AddressError and UnknownDomainError
    for a domain that cannot be used, and ConflictError, after which nothing is added, if another
    program changes the tables meanwhile.
    """
    report = Report(_domain(session, mailadm, domain), _backend(mailadm, backend))
    try:
        with savepoint(session):
            by_old_name = _take_over_tokens(session, mailadm.tokens, report, now)
            _take_over_users(session, mailadm.users, by_old_name, report, now)
    except IntegrityError as error:
        raise ConflictError(
            "The accounts were changed by another program meanwhile: nothing was imported. Please"
            " run this again."
        ) from error
    if mailadm.has_passwords and mailadm.users:
        report.notes.append(
            "This database is of the time before mailcow: if mail servers take the passwords of the"
            " accounts from it, they need it on."
        )
    return report


def settings(mailadm: Mailadm, report: Report) -> dict[str, str]:
    """Return mailadm's settings by their names in automx, mailcow's key included.

    A value that automx cannot use is left out, and the report gets a note.
    """
    keys = ["web_endpoint"]
    if report.backend == "mailcow":
        keys += ["mailcow_endpoint", "mailcow_token"]
    found = {"account_backend": report.backend}
    for key in keys:
        if value := mailadm.config.get(key):
            try:
                found[key] = str(KEYS[key].parse(value))
            except ValueError as error:
                report.notes.append(f"The setting {key} must be {error}: mailadm's is not.")
    if found.get("web_endpoint", "").startswith("http:"):
        report.notes.append(
            "The QR codes of mailadm lead to an http address. Delta Chat asks by https only."
        )
    return found


def _domain(session: Session, mailadm: Mailadm, domain: str | None) -> str:
    text = domain or mailadm.config.get("mail_domain")
    if not text:
        raise BadRequestError(
            "mailadm's database does not name its mail domain: say --domain DOMAIN."
        )
    name = parse_domain(text)
    if not lookup.knows(session, name):
        raise UnknownDomainError(
            f"The domain {name} is not in the database. Add it and its mail servers first, by"
            " automx seed FILE or by SQL, so that Delta Chat finds them; then run this again."
        )
    return name


def _backend(mailadm: Mailadm, backend: str | None) -> str:
    if backend is None and not mailadm.config.get("mailcow_endpoint"):
        raise BadRequestError(
            "mailadm's database names no mailcow: say the backend of the mailboxes, such as"
            " --backend command."
        )
    return backend or "mailcow"


def _take_over_tokens(
    session: Session, old_tokens: Sequence[OldToken], report: Report, now: datetime
) -> dict[str, Token]:
    """Add tokens; return those that are here, by the names that they have in mailadm."""
    here = {token.token: token for token in tokens.all_tokens(session)}
    names = {token.name for token in here.values()}
    found: dict[str, Token] = {}
    # Names that can stay come first, so that no other takes them.
    for old in sorted(old_tokens, key=lambda old: _allowed_name(old.name) != old.name):
        if token := here.get(old.secret):
            found[old.name] = token
            report.tokens.present += 1
            _raise_usecount(session, token, old, report)
            if token.name != old.name:
                report.notes.append(f"The token {old.name} is called {token.name} here.")
        elif old.name in names:
            _leave_out_token(report, old, "there is another one of this name here.")
        else:
            try:
                token = _add_token(session, old, _free_name(old.name, names), report, now)
            except BadRequestError as error:
                _leave_out_token(report, old, f"{error}.")
            else:
                here[old.secret] = found[old.name] = token
                names.add(token.name)
                report.tokens.added += 1
    if spared := sorted(token.name for token in found.values() if token.spare_active):
        report.notes.append(
            "As in mailadm, people who still log in keep the accounts of tokens with an expiry of"
            f" {format_duration(SPARED_FROM)} or more: {', '.join(spared)}."
        )
    return found


def _raise_usecount(session: Session, token: Token, old: OldToken, report: Report) -> None:
    usecount = min(old.usecount, MAX_USE)
    if token.usecount < usecount:
        change = update(TokenRow).where(_token.c.id == token.id, _token.c.usecount < usecount)
        session.execute(change.values(usecount=usecount))
        report.raised.append(token.name)


def _leave_out_token(report: Report, old: OldToken, reason: str) -> None:
    report.tokens.left_out.append(old.name)
    report.notes.append(f"The token {old.name} is left out: {reason}")


def _add_token(session: Session, old: OldToken, name: str, report: Report, now: datetime) -> Token:
    """Add a token with its terms in mailadm, or the nearest that are possible."""
    notes = []
    if name != old.name:
        notes.append(f"it is called {name} here: names have no blanks, and 64 characters at most")
    expiry, prefix = _expiry(old.expiry), _prefix(old.prefix)
    maxuse = 50 if old.maxuse is None else min(old.maxuse, MAX_USE)
    is_revoked = expiry is None or maxuse <= 0
    if expiry is None:
        expiry = "1d"
        notes.append(
            f"mailadm 1.0 does not understand the expiry {old.expiry!r} either; it is revoked until"
            f" automx token mod {shlex.quote(name)} --expiry EXPIRY --unrevoke gives it one"
        )
    elif expiry != old.expiry:
        notes.append(f"its expiry is {expiry} here, not {old.expiry}")
    if prefix != old.prefix:
        notes.append(f"its prefix is {prefix!r} here, not {old.prefix!r}")
    if maxuse <= 0:
        maxuse = max(old.usecount, 1)
        notes.append(f"maxuse {old.maxuse} makes no account in mailadm: it is revoked here")
    is_long = old.expiry != NEVER if expiry == NEVER else parse_duration(expiry) >= SPARED_FROM
    token = tokens.add(
        session,
        name,
        report.domain,
        now=now,
        expiry=expiry,
        prefix=prefix,
        maxuse=maxuse,
        usecount=min(max(old.usecount, 0), MAX_USE),
        token=old.secret,
        is_revoked=is_revoked,
        backend=report.backend,
        spare_active=is_long,
    )
    report.notes += [f"The token {old.name}: {note}." for note in notes]
    return token


def _allowed_name(name: str) -> str:
    words = "".join(char if char.isprintable() else " " for char in name).split()
    return "-".join(words)[:64] or "mailadm"


def _free_name(name: str, names: set[str]) -> str:
    """Return a name that is allowed, with a number at its end if it is taken."""
    free = allowed = _allowed_name(name)
    number = 1
    while free in names:
        number += 1
        free = f"{allowed[:60]}-{number}"
    return free


def _expiry(text: str) -> str | None:
    """Return the shortest expiry that is not shorter than mailadm's; None if mailadm has none."""
    if text == NEVER:
        return NEVER
    try:
        seconds = int(text[:-1]) * _UNITS[text[-1:]]
    except (ValueError, KeyError):
        return None
    if seconds > LONGEST_LIFETIME.total_seconds():
        return NEVER
    shortest = int(SHORTEST_LIFETIME.total_seconds())
    if seconds >= shortest and re.fullmatch(r"[0-9]{1,9}[a-z]", text):
        return text
    return format_duration(timedelta(seconds=max(seconds, shortest)))


def _prefix(text: str) -> str:
    allowed = re.sub(r"[^a-z0-9._+-]", "", text.lower())
    return re.sub(r"\.{2,}", ".", allowed).lstrip(".-")[:40]


def _take_over_users(
    session: Session,
    users: Sequence[OldUser],
    by_old_name: Mapping[str, Token],
    report: Report,
    now: datetime,
) -> None:
    """Add the accounts of users that are not here."""

    @cache
    def substitute(is_long: bool) -> Token:
        return _substitute(session, report, now, is_long=is_long)

    seen: set[str] = set()
    odd: Counter[str] = Counter()  # end of a sentence -> the number of accounts at its beginning
    for chunk in chunks(users, _CHUNK):
        rows = []
        for user, address in _new_users(session, chunk, seen, report, odd):
            created_at, expires_at = _times(user, now)
            is_long = expires_at is not None and expires_at - created_at >= SPARED_FROM
            token = by_old_name.get(user.token)
            if token is None:
                token = substitute(is_long)
                odd[
                    "of the accounts are of tokens that are not here: they belong to the token"
                    f" {token.name}, which makes none."
                ] += 1
            elif is_long and not token.spare_active:
                odd[
                    f"of the accounts of the token {token.name} last so long that mailadm keeps"
                    " people who still log in; the token does not, until automx token mod"
                    f" {shlex.quote(token.name)} --spare-active changes it."
                ] += 1
            if expires_at is None and token.expiry != NEVER:
                odd["of the accounts have no end, as in mailadm, though their token has."] += 1
            report.expired += expires_at is not None and expires_at <= now
            rows.append(
                {
                    "address": address,
                    "token_id": token.id,
                    "mark": secrets.token_hex(8),
                    "backend": report.backend,
                    "state": State.ACTIVE,
                    "created_at": created_at,
                    "expires_at": expires_at,
                    "changed_at": now,
                }
            )
        if rows:
            session.execute(insert(AccountRow), rows)
        report.accounts.added += len(rows)
    report.notes += [f"{number} {sentence}" for sentence, number in odd.items()]


def _new_users(
    session: Session,
    users: Sequence[OldUser],
    seen: set[str],
    report: Report,
    odd: Counter[str],
) -> Iterator[tuple[OldUser, str]]:
    """Yield the users that are not here and can be added, with their addresses.

    ``seen`` are the addresses that are here, and grows.
    """
    addresses = [_address(user.address) for user in users]
    wanted = _account.c.address.in_([str(address) for address in addresses if address])
    seen.update(session.scalars(select(_account.c.address).where(wanted)))
    for user, address in zip(users, addresses, strict=True):
        if address is None:
            report.accounts.left_out.append(user.address)
            report.notes.append(f"The user {user.address!r} is left out: that is no address.")
        elif str(address) in seen:
            report.accounts.present += 1
        elif address.domain != report.domain:
            report.accounts.left_out.append(user.address)
            odd[
                f"of the users are left out: they are of {address.domain}. If automx is to have"
                f" them, repeat this with --domain {address.domain}."
            ] += 1
        else:
            seen.add(str(address))
            yield user, str(address)


def _substitute(session: Session, report: Report, now: datetime, *, is_long: bool) -> Token:
    """Return the token, which makes no accounts, for those whose own token is not here."""
    name = SUBSTITUTES[is_long]
    try:
        return tokens.get(session, name)
    except UnknownTokenError:
        return tokens.add(
            session,
            name,
            report.domain,
            now=now,
            expiry="1y" if is_long else "1d",
            prefix="",
            maxuse=1,
            is_revoked=True,
            backend=report.backend,
            spare_active=is_long,
        )


def _address(text: str) -> EmailAddress | None:
    try:
        return EmailAddress.parse(text.lower())
    except AddressError:
        return None


def _times(user: OldUser, now: datetime) -> tuple[datetime, datetime | None]:
    """Return when an account was made and when it expires; None is never."""
    try:
        created_at = datetime.fromtimestamp(max(user.date or 0, 0), UTC)
    except (OverflowError, ValueError, OSError):
        created_at = now
    if user.date is None or user.ttl is None or user.ttl >= _FOREVER:
        return (created_at if user.date else now), None
    try:
        return created_at, created_at + timedelta(seconds=max(user.ttl, 0))
    except OverflowError:
        return created_at, None
