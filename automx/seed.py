"""Seeding: fills the tables from a seed document.

A document is checked as a whole before the first row is written (see
:mod:`automx.seeddocument`).
"""

import hashlib
import json
import logging
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select

from automx import seeddocument
from automx.changes import Changes
from automx.database import Session
from automx.models import metadata
from automx.moments import this_second

log = logging.getLogger(__name__)

_TABLES = metadata.tables
_COUNTED = {
    "provider": "provider",
    "domain": "domain",
    "server": "mail server",
    "davserver": "service",
    "ldapserver": "LDAP server",
}


class Counts(NamedTuple):
    """Numbers of rows, by table."""

    providers: int
    domains: int
    servers: int
    davservers: int
    ldapservers: int

    def __str__(self) -> str:
        numbers = zip(self, _COUNTED.values(), strict=True)
        return ", ".join(f"{number} {word}{'s' * (number != 1)}" for number, word in numbers)


NOTHING = Counts(0, 0, 0, 0, 0)


def digest_of(document: object) -> str:
    """Return the SHA-256 of a document that comes from no file."""
    text = json.dumps(document, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def is_empty(session: Session) -> bool:
    """Return whether the database has no provider yet."""
    return session.execute(select(_TABLES["provider"].c.id).limit(1)).first() is None


def count(session: Session) -> Counts:
    """Return how many rows the tables hold."""
    return Counts(*(number_of_rows(session, table) for table in _COUNTED))


def number_of_rows(session: Session, table: str) -> int:
    """Return how many rows a table holds."""
    return session.scalar(select(func.count()).select_from(_TABLES[table])) or 0


def purge(session: Session, *, actor: str = "seed", now: datetime | None = None) -> None:
    """Delete all rows of automx2's seven tables, and what belongs to them; the caller commits."""
    changes = Changes(session, actor, now=now or this_second())
    changes.purge()
    changes.finish()


def populate(
    session: Session,
    document: object,
    *,
    actor: str = "seed",
    now: datetime | None = None,
    digest: str | None = None,
    warn: Callable[[str], None] = log.warning,
) -> Counts:
    """Add the rows of a seed document; return how many.

    ``actor``, ``now`` and ``digest`` (the SHA-256 of the document, by default that of its JSON) are
    for the audit (see :mod:`automx.audit`); disabled domains are off
    since ``now``. ``warn`` is called with one line about each key that has no effect, and about
    rows that serve no client or have the name of another provider.

    Nothing is written unless the whole document is right. The caller commits. Raises SeedError
    with the path of the key, what was expected and what was found; raises ConflictError if the
    database holds a domain or an id of the document already, or another program has just written.
    """
    seed = seeddocument.read(document)
    for line in seed.warnings:
        warn(line)
    digest = digest or digest_of(document)
    changes = Changes(session, actor, now=now or this_second(), origin=seed.origin, digest=digest)
    changes.insert(seed)
    for line in changes.warnings():
        warn(line)
    changes.finish()
    return Counts(*(len(seed.rows[table]) for table in _COUNTED))
