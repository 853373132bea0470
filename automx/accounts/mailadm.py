"""What mailadm (https://mailadm.readthedocs.io) leaves behind: its database, taken over.

mailadm 0.10 to 1.0 write it: the tables ``tokens``, ``users`` and ``config`` of one SQLite file,
for one mail domain. Nothing there is as certain as it looks: a token that is deleted leaves its
users behind, and what an expiry means differs from version to version.
"""

import re
import secrets
import shlex
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from automx import lookup
from automx.accounts import tokens
from automx.accounts.accounts import State
from automx.accounts.tokens import LONGEST_LIFETIME, MAX_USE, NEVER, SHORTEST_LIFETIME, Token
from automx.address import EmailAddress, parse_domain
from automx.config import KEYS
from automx.database import Session
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

# From this lifetime on, mailadm 1.0 keeps the accounts of people who still log in.
SPARED_FROM = timedelta(days=27)

# What accounts belong to whose token is not here: one that spares active people, one that does not.
ORPHANS = "mailadm-import"
SPARED_ORPHANS = "mailadm-import-spared"

# For mailadm, "never" is sys.maxsize seconds away: at least these, on a machine of 32 bits.
_FOREVER = 2**31 - 1

_UNITS = {"y": 365 * 86400, "w": 7 * 86400, "d": 86400, "h": 3600, "s": 1}
_CHUNK = 500  # rows of one statement

_Item = TypeVar("_Item")

_account = AccountRow
_token = TokenRow


@dataclass(frozen=True, slots=True)
class OldToken:
    """A row of mailadm's table ``tokens``; ``maxuse`` None stands for its default."""

    name: str
    secret: str = field(repr=False)
    expiry: str
    prefix: str
    maxuse: int | None
    usecount: int


@dataclass(frozen=True, slots=True)
class OldUser:
    """A row of mailadm's table ``users``: an address, made at ``date``, for ``ttl`` seconds."""

    address: str
    date: int | None
    ttl: int | None
    token: str


@dataclass(frozen=True, slots=True)
class Mailadm:
    """The content of mailadm's database.

    ``has_passwords`` tells that it is of the time before mailcow: mail servers took the passwords
    from this file.
    """

    config: Mapping[str, str] = field(repr=False)
    tokens: Sequence[OldToken]
    users: Sequence[OldUser]
    has_passwords: bool


@dataclass(slots=True)
class Counts:
    """How many tokens, or accounts, were added or here before; which ones are not here now."""

    added: int = 0
    present: int = 0
    left_out: list[str] = field(default_factory=list)

    def document(self) -> dict[str, object]:
        """Return the counts for programs."""
        return {"added": self.added, "present": self.present, "left_out": self.left_out}


@dataclass(slots=True)
class Report:
    """What take_over() did.

    ``raised`` names the tokens that were here before and have a higher count of uses now;
    ``expired`` is the number of added accounts whose time is over; ``notes`` are sentences about
    all that is not here as it was in mailadm.
    """

    domain: str
    backend: str
    tokens: Counts = field(default_factory=Counts)
    raised: list[str] = field(default_factory=list)
    accounts: Counts = field(default_factory=Counts)
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


def read(path: Path) -> Mailadm:
    """Return the content of mailadm's database as it is at one moment; mailadm may be running.

    Changes nothing. Raises BadRequestError, with a text for the administrator, if the file cannot
    be read, is damaged or is something else.
    """
    with _errors(path), closing(_opened(path)) as connection:
        # One name that is not UTF-8 is no reason to give up all others.
        connection.text_factory = lambda octets: octets.decode("utf-8", "replace")
        connection.execute("BEGIN")
        config = connection.execute("SELECT name, value FROM config").fetchall()
        users = connection.execute("SELECT addr, date, ttl, token_name FROM users").fetchall()
        old_tokens = connection.execute(
            "SELECT name, token, expiry, prefix, maxuse, usecount FROM tokens"
        ).fetchall()
        columns = connection.execute("SELECT name FROM pragma_table_info('users')").fetchall()
        [(verdict,)] = connection.execute("PRAGMA quick_check(1)").fetchall()
        if verdict != "ok":
            raise BadRequestError(f"{path} is damaged: {' '.join(str(verdict).split())}")
    return Mailadm(
        config={_text(name): _text(value).strip() for name, value in config},
        tokens=[
            OldToken(
                name=_text(name),
                secret=_text(secret),
                expiry=_text(expiry),
                prefix=_text(prefix),
                maxuse=_number(maxuse),
                usecount=_number(usecount) or 0,
            )
            for name, secret, expiry, prefix, maxuse, usecount in old_tokens
        ],
        users=[
            OldUser(_text(address), _number(date), _number(ttl), _text(token))
            for address, date, ttl, token in users
        ],
        has_passwords=("hash_pw",) in columns,
    )


def take_over(
    session: Session,
    mailadm: Mailadm,
    *,
    now: datetime,
    domain: str | None = None,
    backend: str | None = None,
) -> Report:
    """Add mailadm's tokens and users, and return what was done; flushes, and does not commit.

    What is here already stays as it is, except that a token's count of uses is raised to that in
    mailadm; so it can be repeated. ``domain`` is that of the tokens, and of the users that are
    added, by default mailadm's; ``backend`` who has their mailboxes, by default ``mailcow``. Raises
    BadRequestError if mailadm's database does not tell them, AddressError and UnknownDomainError
    for a domain that cannot be used, and ConflictError if somebody changes the tables meanwhile.
    """
    report = Report(_domain(session, mailadm, domain), _backend(mailadm, backend))
    by_old_name = _take_over_tokens(session, mailadm.tokens, report, now)
    _take_over_users(session, mailadm.users, by_old_name, report, now)
    if mailadm.has_passwords and mailadm.users:
        report.notes.append(
            "This database is of the time before mailcow: if mail servers take the passwords of the"
            " accounts from it, they need it on."
        )
    return report


def settings(mailadm: Mailadm, report: Report) -> dict[str, str]:
    """Return mailadm's settings by their names here, mailcow's key included.

    A value that cannot be used here is left out, and the report has a note of it.
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


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Raise BadRequestError for what is wrong with a file."""
    try:
        yield
    except OSError as error:
        raise BadRequestError(f"{path} cannot be read: {error.strerror}") from error
    except sqlite3.Error as error:
        if str(error).startswith("no such"):  # table or column
            text = f"{path} is no database of mailadm 0.10 or later: {error}"
        else:  # such as "file is not a database" or "database is locked"
            text = f"{path} cannot be read: {error}"
        raise BadRequestError(text) from error


def _opened(path: Path) -> sqlite3.Connection:
    """Open a database without writing to it.

    Since 1.0, mailadm's has a write-ahead log. SQLite wants to make files beside such a database
    even to read it, lest another program writes; where it may not, and there is no log, none does.
    """
    with path.open("rb"):
        pass
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        if error.sqlite_errorname == "SQLITE_READONLY_ROLLBACK":
            raise BadRequestError(
                f"{path} holds half of a change: let mailadm list-tokens put it in order"
            ) from error
        if error.sqlite_errorname not in {"SQLITE_CANTOPEN", "SQLITE_READONLY_DIRECTORY"}:
            raise
        for name in (f"{path.name}-wal", f"{path.name}-journal"):
            log = path.with_name(name)
            if log.exists() and log.stat().st_size:
                raise BadRequestError(
                    f"{path} cannot be read without {name}: copy both into a folder where this user"
                    " may write"
                ) from error
        return sqlite3.connect(f"{uri}&immutable=1", uri=True, isolation_level=None)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _text(value: object) -> str:
    """Return what stands in a column of text: SQLite lets it hold anything."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def _number(value: object) -> int | None:
    """Return what stands in a column of numbers, None for anything else."""
    try:
        return int(value)  # type: ignore[call-overload, no-any-return] # TypeError is caught
    except (TypeError, ValueError, OverflowError):
        return None


def _domain(session: Session, mailadm: Mailadm, domain: str | None) -> str:
    text = domain or mailadm.config.get("mail_domain")
    if not text:
        raise BadRequestError(
            "mailadm's database does not tell its mail domain: say --domain DOMAIN."
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
            "mailadm's database names no mailcow: say who has the mailboxes, such as --backend"
            " command."
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
                _leave_out_token(report, old, str(error))
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
    """Add a token with the terms that it has in mailadm, or the nearest that are possible here."""
    notes = []
    if name != old.name:
        notes.append(f"it is called {name} here: names have no blanks, and 64 characters at most")
    expiry = _expiry(old.expiry)
    is_revoked = False
    if expiry is None:
        is_revoked = True
        expiry = "1d"
        notes.append(
            f"mailadm 1.0 does not understand the expiry {old.expiry!r} either; it is revoked until"
            f" automx token mod {shlex.quote(name)} --expiry EXPIRY --unrevoke gives it one"
        )
    elif expiry != old.expiry:
        notes.append(f"its expiry is {expiry} here, not {old.expiry}")
    prefix = _prefix(old.prefix)
    if prefix != old.prefix:
        notes.append(f"its prefix is {prefix!r} here, not {old.prefix!r}")
    maxuse = 50 if old.maxuse is None else min(old.maxuse, MAX_USE)
    if maxuse <= 0:
        is_revoked = True
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
        backend=report.backend,
        spare_active=is_long,
    )
    if is_revoked:
        token = tokens.edit(session, name, {"is_revoked": True})
    report.notes += [f"The token {old.name}: {note}." for note in notes]
    return token


def _allowed_name(name: str) -> str:
    words = "".join(char if char.isprintable() else " " for char in name).split()
    return "-".join(words)[:64] or "mailadm"


def _free_name(name: str, names: set[str]) -> str:
    """Return a name that is allowed, with a number behind it if it is taken."""
    free = allowed = _allowed_name(name)
    number = 1
    while free in names:
        number += 1
        free = f"{allowed[:60]}-{number}"
    return free


def _expiry(text: str) -> str | None:
    """Return the shortest expiry that is not shorter than mailadm's; None if that is not one."""
    if text == NEVER:
        return NEVER
    try:
        lifetime = timedelta(seconds=int(text[:-1]) * _UNITS[text[-1:]])
    except OverflowError:
        return NEVER
    except (ValueError, KeyError):
        return None
    if lifetime > LONGEST_LIFETIME:
        return NEVER
    try:
        if parse_duration(text) >= SHORTEST_LIFETIME:
            return text
    except ValueError:  # Python's int() takes more than digits
        pass
    return format_duration(max(lifetime, SHORTEST_LIFETIME))


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
    @cache
    def orphanage(is_long: bool) -> Token:
        return _orphanage(session, report, now, is_long=is_long)

    seen: set[str] = set()
    odd: Counter[str] = Counter()  # sentence -> how many accounts it is true of
    for chunk in _chunks(users):
        addresses = [_address(user.address) for user in chunk]
        wanted = _account.c.address.in_([str(address) for address in addresses if address])
        seen.update(session.scalars(select(_account.c.address).where(wanted)))
        rows = []
        for user, address in zip(chunk, addresses, strict=True):
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
                created_at, expires_at = _times(user, now)
                is_long = expires_at is not None and expires_at - created_at >= SPARED_FROM
                token = by_old_name.get(user.token)
                if token is None:
                    token = orphanage(is_long)
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
                        "address": str(address),
                        "token_id": token.id,
                        "mark": secrets.token_hex(8),
                        "backend": report.backend,
                        "state": State.ACTIVE,
                        "created_at": created_at,
                        "expires_at": expires_at,
                        "changed_at": now,
                    }
                )
        _insert(session, rows)
        report.accounts.added += len(rows)
    report.notes += [f"{number} {sentence}" for sentence, number in odd.items()]


def _orphanage(session: Session, report: Report, now: datetime, *, is_long: bool) -> Token:
    """Return the token, which makes no accounts, for those whose own is not here."""
    name = SPARED_ORPHANS if is_long else ORPHANS
    try:
        return tokens.get(session, name)
    except UnknownTokenError:
        tokens.add(
            session,
            name,
            report.domain,
            now=now,
            expiry="1y" if is_long else "1d",
            prefix="",
            maxuse=1,
            backend=report.backend,
            spare_active=is_long,
        )
        return tokens.edit(session, name, {"is_revoked": True})


def _insert(session: Session, rows: Sequence[Mapping[str, object]]) -> None:
    try:
        if rows:
            session.execute(insert(AccountRow), rows)
    except IntegrityError as error:
        raise ConflictError(
            "The accounts were changed by another program meanwhile: nothing was imported. Please"
            " run this again."
        ) from error


def _address(text: str) -> EmailAddress | None:
    try:
        return EmailAddress.parse(text.lower())
    except AddressError:
        return None


def _times(user: OldUser, now: datetime) -> tuple[datetime, datetime | None]:
    """Return when an account was made, and when it ends; None is never."""
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


def _chunks(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
