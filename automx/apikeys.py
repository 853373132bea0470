"""Keys of the API: a secret by which a program may read or change a part of the database.

A key is shown once and found by its SHA-256; it has so many random bits that no guess helps. Its
role says what it may do:

- ``read``: everything, without secrets.
- ``write``: the same, and change rows.
- ``accounts``: make, read, change and delete accounts, and read the tokens that make them.
- ``admin``: all of it, and change tokens; without a scope, apply documents and manage keys.

Its scope says where: the domains of a provider, or some domains, or both at once.
"""

import hmac
import logging
import secrets
import string
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from hashlib import sha256
from ipaddress import ip_address, ip_network
from typing import Any

from sqlalchemy import ColumnElement, exists, insert, or_, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from automx import audit, changelog, rows
from automx.accountcolumns import API_KEY, KEY_FORM, KEY_PREFIX
from automx.columntypes import second_of
from automx.database import Session, read_page, reason, savepoint
from automx.errors import (
    BadRecordError,
    BadRequestError,
    ConflictError,
    DatabaseError,
    UnknownKeyError,
)
from automx.models import ApiKey
from automx.moments import iso
from automx.words import Role

log = logging.getLogger(__name__)

_LETTERS = string.ascii_letters + string.digits

# Role of a key -> the roles whose operations it may do.
PERMISSIONS = {
    Role.READ: frozenset({Role.READ}),
    Role.WRITE: frozenset({Role.READ, Role.WRITE}),
    Role.ACCOUNTS: frozenset({Role.ACCOUNTS}),
    Role.ADMIN: frozenset(Role),
}


@dataclass(frozen=True, slots=True)
class Key:
    """A row of the table ``api_key``; ``provider_id`` and ``domains`` are its scope."""

    id: int
    name: str
    role: Role
    provider_id: int | None
    domains: tuple[str, ...]
    networks: tuple[str, ...]
    valid_until: datetime | None
    is_revoked: bool
    is_rotated: bool
    created_at: datetime
    used_on: date | None

    @property
    def actor(self) -> str:
        """Who it is for the audit."""
        return f"key:{self.name}"

    @property
    def is_scoped(self) -> bool:
        """Whether it is for a part of the database only."""
        return self.provider_id is not None or bool(self.domains)

    def obstacle(self, client: str, now: datetime) -> str:
        """Return why a client with an IP address cannot use the key now, "" if it can."""
        if self.is_revoked:
            return "revoked"
        if self.valid_until is not None and self.valid_until <= now:
            return "expired"
        if self.networks and not any(_is_in(client, network) for network in self.networks):
            return "not valid from this address"
        return ""

    def is_used_on(self, now: datetime) -> bool:
        """Return whether its use on a day is known."""
        return self.used_on is not None and self.used_on >= now.date()

    def document(self) -> dict[str, Any]:
        """Return the key for programs; its secret is not known."""
        return {
            "name": self.name,
            "role": self.role.value,
            "provider": self.provider_id,
            "domains": list(self.domains),
            "from": list(self.networks),
            "until": iso(self.valid_until),
            "revoked": self.is_revoked,
            "rotated": self.is_rotated,
            "created": iso(self.created_at),
            "used": self.used_on and self.used_on.isoformat(),
        }


def add(
    session: Session,
    name: str,
    role: Role,
    *,
    actor: str,
    now: datetime,
    provider: int | None = None,
    domains: tuple[str, ...] = (),
    networks: tuple[str, ...] = (),
    valid_until: datetime | None = None,
) -> tuple[Key, str]:
    """Make a key and return it with its secret, which is stored nowhere; the caller commits.

    A provider is not deleted until the caller commits: the transaction should begin here, or with
    changelog.wait_for_turn(). Raises BadRequestError for a value that a column cannot hold and for
    an unknown provider, and ConflictError if there is a key of this name, a revoked one included.
    """
    values: dict[str, Any] = {
        "name": name,
        "role": role.value,
        "provider_id": provider,
        "domains": " ".join(domains),
        "networks": " ".join(networks),
        "valid_until": valid_until,
        "is_revoked": False,
    }
    checked, bad = rows.read(API_KEY, values)
    if bad:
        raise BadRequestError("; ".join(bad))
    if provider is not None:
        from automx.changes import stored  # not for workers that only look for keys

        changelog.wait_for_turn(session)
        if stored.item(session, "provider", provider) is None:
            raise BadRequestError(f"provider: expected the id of a provider, found {provider}")
    name, secret = checked["name"], _new_secret()
    try:
        with savepoint(session):
            row = {**checked, "digest": _digest(secret), "created_at": now}
            session.execute(insert(ApiKey).values(row))
    except IntegrityError:
        raise ConflictError(f"There is a key {name} already, perhaps a revoked one.") from None
    key = get(session, name)
    _write(session, actor, now, "add", key.document())
    return key, secret


def rotate(session: Session, name: str, *, actor: str, now: datetime) -> tuple[Key, str]:
    """Give a key another secret, and return both; the secret before is valid as well.

    One that was rotated before ends now. Raises UnknownKeyError, and ConflictError for a revoked
    key.
    """
    if get(session, name).is_revoked:
        raise ConflictError(f"The key {name} is revoked.")
    secret = _new_secret()
    row = update(ApiKey).where(ApiKey.c.name == name)
    session.execute(row.values(old_digest=ApiKey.c.digest))  # MariaDB sees the new value in one
    session.execute(row.values(digest=_digest(secret)))
    key = get(session, name)
    _write(session, actor, now, "rotate", key.document())
    return key, secret


def end_rotation(session: Session, name: str, *, actor: str, now: datetime) -> Key:
    """Let the secret before the last rotation be valid no longer. Raises UnknownKeyError."""
    get(session, name)
    session.execute(update(ApiKey).where(ApiKey.c.name == name).values(old_digest=None))
    key = get(session, name)
    _write(session, actor, now, "set", key.document())
    return key


def revoke(session: Session, name: str, *, actor: str, now: datetime) -> dict[str, Any]:
    """Let a key be valid no longer, and return it for programs; its name stays taken.

    Of a bad row, which is revoked as well, the name is known only. Raises UnknownKeyError.
    """
    if session.scalar(select(ApiKey.c.id).where(ApiKey.c.name == name)) is None:
        raise _unknown(name)
    values = {"is_revoked": True, "old_digest": None}
    session.execute(update(ApiKey).where(ApiKey.c.name == name).values(values))
    document: dict[str, Any] = {"name": name, "revoked": True}
    with suppress(BadRecordError):
        document = get(session, name).document()
    _write(session, actor, now, "revoke", document)
    return document


def get(session: Session, name: str) -> Key:
    """Return the key of a name. Raises UnknownKeyError, and BadRecordError for a bad row."""
    row = session.execute(_selected(ApiKey.c.name == name)).mappings().one_or_none()
    if row is None:
        raise _unknown(name)
    return _loaded(row)


def all_keys(session: Session) -> Iterator[Key]:
    """Yield all keys in the order of their names. A bad row is left out and logged."""
    query = _selected().order_by(ApiKey.c.name)
    yield from _readable(session.execute(query).mappings().all())


def page(session: Session, after: int, number: int) -> tuple[list[Key], int | None]:
    """Return ``number`` keys of higher ids, in their order, and the last id if more follow.

    A bad row is left out and logged.
    """
    found, last = read_page(session, _selected(), ApiKey.c.id, after, number)
    return list(_readable(found)), last


def has_administrator(session: Session, now: datetime) -> bool:
    """Return whether there is a key of an administrator of the whole database, valid somewhere."""
    key = ApiKey.c
    is_valid = key.valid_until.is_(None) | (second_of(key.valid_until) > second_of(now))
    found = select(key.id).where(
        key.role == Role.ADMIN.value,
        key.provider_id.is_(None),
        key.domains == "",
        key.is_revoked.is_(False),
        is_valid,
    )
    return bool(session.scalar(select(exists(found))))


def exist(session: Session) -> bool:
    """Return whether there is a key, a revoked one included."""
    return bool(session.scalar(select(exists(select(ApiKey.c.id)))))


def find(session: Session, secret: str) -> Key | None:
    """Return the key of a secret, usable or not, None if there is none. Raises BadRecordError."""
    if not KEY_FORM.fullmatch(secret):
        return None
    digest = _digest(secret)
    query = _selected(or_(ApiKey.c.digest == digest, ApiKey.c.old_digest == digest))
    row = session.execute(query).mappings().first()
    # Once more, in constant time and in any case of letters: a collation may find too much.
    if row is None or not any(
        hmac.compare_digest(str(row[column]), digest) for column in ("digest", "old_digest")
    ):
        return None
    return _loaded(row)


def note_use(session: Session, key: Key, now: datetime) -> bool:
    """Keep the day of the last use of a key, and commit; return whether it is kept.

    If the database cannot be written to now, such as during a large change of SQLite, the day is
    left to a later use: reading does not wait for writers.
    """
    if key.is_used_on(now):
        return True
    try:
        session.execute(update(ApiKey).where(ApiKey.c.id == key.id).values(used_on=now.date()))
        session.commit()
    except (DatabaseError, DBAPIError) as error:
        session.rollback()
        log.warning("the use of the key %s is not kept: %s", key.name, _cause(error))
        return False
    return True


def _cause(error: DatabaseError | DBAPIError) -> str:
    return error.cause or str(error) if isinstance(error, DatabaseError) else reason(error)


def _selected(*conditions: ColumnElement[bool]) -> Any:
    columns = (*rows.selected("api_key"),)
    return select(*columns).where(*conditions)


def _readable(found: Iterable[rows.Values]) -> Iterator[Key]:
    for row in found:
        try:
            yield _loaded(row)
        except BadRecordError as error:
            log.error("%s; this row is left out", error.cause)


def _loaded(row: rows.Values) -> Key:
    values, bad = rows.read_row("api_key", row)
    if bad:
        raise BadRecordError(cause=f"table api_key, id {row['id']}: {'; '.join(bad)}")
    used_on = row["used_on"]
    return Key(
        id=row["id"],
        used_on=used_on if isinstance(used_on, date) else None,
        is_rotated=row["old_digest"] is not None,
        **values
        | {
            "role": Role(values["role"]),
            "domains": tuple(values["domains"].split()),
            "networks": tuple(values["networks"].split()),
        },
    )


def _unknown(name: str) -> UnknownKeyError:
    return UnknownKeyError(f"There is no key {name}.")


def _write(
    session: Session, actor: str, now: datetime, action: str, document: dict[str, Any]
) -> None:
    details = {"after": {member: document[member] for member in document if member != "used"}}
    name = document["name"]
    audit.write(session, actor, now, action=action, kind="key", name=name, details=details)


def _new_secret() -> str:
    return KEY_PREFIX + "".join(secrets.choice(_LETTERS) for _ in range(40))


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _is_in(client: str, network: str) -> bool:
    try:
        return ip_address(client) in ip_network(network)
    except ValueError:  # the address is unknown, as at a Unix socket
        return False
