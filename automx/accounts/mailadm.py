"""The import of mailadm's tokens and users.

A token of mailadm can be deleted while its users stay, and the meaning of an expiry differs from
version to version; the report has a note for each token or account that could not be kept as it is.
"""

import hashlib
import re
import secrets
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from automx import audit, kinds, lookup
from automx.accountcolumns import (
    ACCOUNT,
    LONGEST_LIFETIME,
    MAX_USE,
    NEVER,
    SHORTEST_LIFETIME,
)
from automx.accounts import tokens
from automx.accounts.mailadmfile import Mailadm, OldToken, OldUser
from automx.accounts.tokens import Token
from automx.address import EmailAddress, parse_domain
from automx.backends import mailadm_mark
from automx.config import KEYS
from automx.database import Session, savepoint
from automx.duration import format_duration, parse_duration
from automx.errors import (
    AddressError,
    BadRequestError,
    ConflictError,
    DisabledDomainError,
    UnknownDomainError,
    UnknownTokenError,
)
from automx.kinds import BadValueError
from automx.models import Account as AccountRow
from automx.models import Token as TokenRow
from automx.words import State

# From this lifetime on, mailadm 1.0 keeps accounts that are in use.
SPARED_FROM = timedelta(days=27)

# The tokens of accounts whose own token is not here, by whether accounts in use are kept.
SUBSTITUTES = {False: "mailadm-import", True: "mailadm-import-spared"}

# "never" in mailadm is sys.maxsize seconds: on a machine of 32 bits, this number.
_FOREVER = 2**31 - 1

# By backend: which people count as active.
_LOGINS = {
    "mailcow": "Here, a log-in within the whole expiry is enough; mailadm wants one in its last"
    " quarter. mailcow does not tell of log-ins by SOGo.",
    "command": "Here, a log-in within the whole expiry is enough; mailadm wants one in its last"
    " quarter. An account counts as used for ever if the program does not tell of log-ins.",
    "none": "With the backend none, automx does not see log-ins: these accounts never end.",
}

_UNITS = {"y": 365 * 86400, "w": 7 * 86400, "d": 86400, "h": 3600, "s": 1}


@dataclass(slots=True)
class Tally:
    """The numbers of tokens, or accounts, that were added or here before; the names of others."""

    added: int = 0
    present: int = 0
    left_out: list[str] = field(default_factory=list)


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
            "tokens": {**asdict(self.tokens), "raised": self.raised},
            "accounts": {**asdict(self.accounts), "expired": self.expired},
            "notes": self.notes,
            "settings": dict(settings),
        }


def take_over(
    session: Session,
    mailadm: Mailadm,
    *,
    now: datetime,
    actor: str | None = None,
    domain: str | None = None,
    backend: str | None = None,
) -> Report:
    """Add mailadm's tokens and users, and return a report; flushes, and does not commit.

    ``actor`` is for the audit, which has one entry if anything was changed. Rows that are here
    already stay, but the count of uses of a token is raised to that in mailadm; so the import can
    be repeated. ``domain`` is that of the tokens and of the users to add, by default mailadm's;
    ``backend`` is that of the mailboxes, by default ``mailcow``. Raises BadRequestError if
    mailadm's database does not name them, AddressError and UnknownDomainError for a domain that
    cannot be used, and ConflictError, after which nothing is added, if another program changes the
    tables meanwhile.
    """
    report = Report(_domain(session, mailadm, domain), _backend(mailadm, backend))
    try:
        with savepoint(session):
            run = _Import(session, report, now)
            run.add_tokens(mailadm.tokens)
            run.add_users(mailadm.users)
    except IntegrityError as error:
        raise ConflictError(
            "The accounts were changed by another program meanwhile: nothing was imported. Please"
            " run this again."
        ) from error
    _write(session, mailadm, report, actor, now)
    if mailadm.has_passwords and mailadm.users:
        report.notes.append(
            "This database is of the time before mailcow: if mail servers take the passwords of the"
            " accounts from it, they need it on."
        )
    return report


def _write(
    session: Session, mailadm: Mailadm, report: Report, actor: str | None, now: datetime
) -> None:
    """Write the import into the audit, with the digest of mailadm's tokens and users."""
    added = {"token": report.tokens.added, "account": report.accounts.added}
    numbers = {"add": added, "set": {"token": len(report.raised)}}
    found = {
        action: counts
        for action, of in numbers.items()
        if (counts := {kind: number for kind, number in of.items() if number})
    }
    if actor is not None and found:
        texts = "".join(repr(row) for row in (*mailadm.tokens, *mailadm.users))
        digest = hashlib.sha256(texts.encode(errors="surrogatepass")).hexdigest()
        details = {"numbers": found, "digest": digest}
        audit.write(session, actor, now, action="bulk", kind="", name="", details=details)


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
    return found


def _domain(session: Session, mailadm: Mailadm, domain: str | None) -> str:
    text = domain or mailadm.config.get("mail_domain")
    if not text:
        raise BadRequestError(
            "mailadm's database does not name its mail domain: say --domain DOMAIN."
        )
    name = parse_domain(text)
    row = lookup.domain_row(session, name)
    if row is None:
        raise UnknownDomainError(
            f"The domain {name} is not in the database. Add it and its mail servers first, by"
            " automx seed FILE or by SQL, so that Delta Chat finds them; then run this again."
        )
    if row.off:
        raise DisabledDomainError(cause=row.off)
    return name


def _backend(mailadm: Mailadm, backend: str | None) -> str:
    if backend is None and not mailadm.config.get("mailcow_endpoint"):
        raise BadRequestError(
            "mailadm's database names no mailcow: say the backend of the mailboxes, such as"
            " --backend command."
        )
    return backend or "mailcow"


@dataclass(slots=True)
class _Import:
    """A run of take_over().

    ``found`` are the tokens here by their names in mailadm; ``substitutes`` are the tokens of
    SUBSTITUTES that are needed. ``odd`` maps the end of a sentence of the report to the number of
    accounts at its beginning.
    """

    session: Session
    report: Report
    now: datetime
    found: dict[str, Token] = field(default_factory=dict)
    substitutes: dict[bool, Token] = field(default_factory=dict)
    odd: Counter[str] = field(default_factory=Counter)

    def add_tokens(self, old_tokens: Sequence[OldToken]) -> None:
        """Add the tokens that are not here."""
        report = self.report
        here = {token.token: token for token in tokens.all_tokens(self.session)}
        names = {token.name for token in here.values()}
        # Names that can stay come first, so that no other takes them.
        for old in sorted(old_tokens, key=lambda old: _allowed_name(old.name) != old.name):
            if token := here.get(old.secret):
                report.tokens.present += 1
                usecount = min(old.usecount, MAX_USE)
                if token.usecount < usecount:
                    same = update(TokenRow).where(TokenRow.c.id == token.id)
                    less = same.where(TokenRow.c.usecount < usecount)
                    self.session.execute(less.values(usecount=usecount))
                    report.raised.append(token.name)
                if token.name != old.name:
                    report.notes.append(f"The token {old.name} is called {token.name} here.")
            else:
                try:
                    token = self._add_token(old, names)
                except BadRequestError as error:
                    report.tokens.left_out.append(old.name)
                    report.notes.append(f"The token {old.name} is left out: {error}.")
                    continue
                here[old.secret] = token
                names.add(token.name)
                report.tokens.added += 1
            self.found[old.name] = token
        if spared := sorted(token.name for token in self.found.values() if token.spare_active):
            report.notes.append(
                "People who still log in keep the accounts of tokens with an expiry of"
                f" {format_duration(SPARED_FROM)} or more: {', '.join(spared)}."
                f" {_LOGINS[report.backend]}"
            )

    def _add_token(self, old: OldToken, names: set[str]) -> Token:
        """Add a token with its terms in mailadm, or the nearest that are possible.

        ``names`` are those that are taken here. Raises BadRequestError.
        """
        if old.name in names:
            raise BadRequestError("there is another one of this name here")
        notes = []
        name, expiry = _free_name(old.name, names), _expiry(old.expiry)
        prefix = _prefix(old.prefix, has_plus=self.report.backend != "mailcow")
        if name != old.name:
            notes.append(
                f"it is called {name} here: names have no blanks, none of ? # / % \\, and 64"
                " characters at most"
            )
        maxuse = 50 if old.maxuse is None else min(old.maxuse, MAX_USE)
        is_revoked = expiry is None or maxuse <= 0
        if expiry is None:
            expiry = "1d"
            notes.append(
                f"mailadm 1.0 does not understand the expiry {old.expiry!r} either; it is revoked"
                f" until automx token mod {shlex.quote(name)} --expiry EXPIRY --unrevoke gives it"
                " one"
            )
        elif expiry != old.expiry:
            notes.append(f"its expiry is {expiry} here, not {old.expiry}")
        if prefix != old.prefix:
            notes.append(f"its prefix is {prefix!r} here, not {old.prefix!r}")
        if maxuse <= 0:
            maxuse = max(old.usecount, 1)
            notes.append(f"maxuse {old.maxuse} makes no account in mailadm: it is revoked here")
        is_long = old.expiry != NEVER if expiry == NEVER else parse_duration(expiry) >= SPARED_FROM
        token = self._add(
            name,
            expiry=expiry,
            prefix=prefix,
            maxuse=maxuse,
            usecount=min(max(old.usecount, 0), MAX_USE),
            token=old.secret,
            is_revoked=is_revoked,
            spare_active=is_long,
        )
        self.report.notes += [f"The token {old.name}: {note}." for note in notes]
        return token

    def add_users(self, users: Sequence[OldUser]) -> None:
        """Add the accounts of users that are not here."""
        report = self.report
        seen = set(self.session.scalars(select(AccountRow.c.address)))
        rows = []
        for user in users:
            try:
                address = EmailAddress.parse(user.address.lower())
                ACCOUNT["address"].read(str(address))
            except (AddressError, BadValueError) as error:
                why = error if isinstance(error, BadValueError) else "that is no address"
                report.accounts.left_out.append(user.address)
                report.notes.append(f"The user {user.address!r} is left out: {why}.")
                continue
            if str(address) in seen:
                report.accounts.present += 1
            elif address.domain != report.domain:
                report.accounts.left_out.append(user.address)
                self.odd[
                    f"of the users are left out: they are of {address.domain}. If automx is to have"
                    f" them, repeat this with --domain {address.domain}."
                ] += 1
            else:
                seen.add(str(address))
                rows.append({"address": str(address), **self._account(user)})
        if rows:
            self.session.execute(insert(AccountRow), rows)
        report.accounts.added = len(rows)
        report.notes += [f"{number} {sentence}" for sentence, number in self.odd.items()]

    def _account(self, user: OldUser) -> dict[str, object]:
        """Return the columns of the account of a user, without its address."""
        created_at, expires_at = _times(user, self.now)
        is_long = expires_at is not None and expires_at - created_at >= SPARED_FROM
        token = self.found.get(user.token)
        if token is None:
            token = self._substitute(is_long=is_long)
            self.odd[
                "of the accounts are of tokens that are not here: they belong to the token"
                f" {token.name}, which makes none."
            ] += 1
        elif is_long and not token.spare_active:
            self.odd[
                f"of the accounts of the token {token.name} last so long that mailadm keeps"
                " people who still log in; the token does not, until automx token mod"
                f" {shlex.quote(token.name)} --spare-active changes it."
            ] += 1
        if expires_at is None and token.expiry != NEVER:
            self.odd["of the accounts have no end, as in mailadm, though their token has."] += 1
        self.report.expired += expires_at is not None and expires_at <= self.now
        return {
            "token_id": token.id,
            "mark": self._mark(user),
            "backend": self.report.backend,
            "state": State.ACTIVE,
            "created_at": created_at,
            "expires_at": expires_at,
            "changed_at": self.now,
        }

    def _mark(self, user: OldUser) -> str:
        """Return the mark by which the backend knows the mailbox of a user."""
        return (
            mailadm_mark(user.token) if self.report.backend == "mailcow" else secrets.token_hex(8)
        )

    def _substitute(self, *, is_long: bool) -> Token:
        """Return the token, which makes no accounts, for those whose own token is not here."""
        if is_long not in self.substitutes:
            name, expiry = SUBSTITUTES[is_long], "1y" if is_long else "1d"
            try:
                token = tokens.get(self.session, name)
            except UnknownTokenError:
                terms = {"expiry": expiry, "prefix": "", "maxuse": 1, "is_revoked": True}
                token = self._add(name, spare_active=is_long, **terms)
            self.substitutes[is_long] = token
        return self.substitutes[is_long]

    def _add(self, name: str, **columns: object) -> Token:
        domain, backend = self.report.domain, self.report.backend
        columns |= {"backend": backend}
        return tokens.add(self.session, name, domain, now=self.now, actor=None, **columns)


def _allowed_name(name: str) -> str:
    words = "".join(char if char.isprintable() else " " for char in name)
    return re.sub(r"[\s?#/%\\]+", "-", words).strip("-")[:64] or "mailadm"


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


def _prefix(text: str, *, has_plus: bool) -> str:
    """Return the prefix without what no address has; mailcow does not deliver to one with "+"."""
    allowed = re.sub(f"[^{kinds.ACCOUNT_LETTERS}]", "", text.lower())
    allowed = allowed if has_plus else allowed.replace("+", "")
    return re.sub(r"\.{2,}", ".", allowed).lstrip(".-")[:40]


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
