"""The stored states of domains that automx manages in DNS: the table ``managed_domain``.

Each change names the version that was read, so that of two programs only one makes a step. The
callers commit. A change of the served document is told to all workers by the log of changes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from automx import changelog
from automx.database import Session, read_by_key, savepoint
from automx.errors import BadRecordError, ConflictError
from automx.models import ManagedDomain
from automx.zones.rollover import State, Step

_KINDS: Mapping[str, type] = {
    "document": bytes,
    "ttl": int,
    "changed_at": datetime,
    "due_at": datetime,
    "next_document": bytes,
    "old_document": bytes,
    "version": int,
}
_WORDS = {bytes: "bytes and no text", int: "a number", datetime: "a moment"}
_MAY_BE_NULL = {name for name in _KINDS if ManagedDomain.c[name].nullable}

MEANWHILE = "Meanwhile, another program has made a step for this domain."


def read(session: Session, domain: str) -> State | None:
    """Return the state of a domain, None if automx does not manage it. Raises BadRecordError."""
    query = select(ManagedDomain).where(ManagedDomain.c.name == domain)
    row = session.execute(query).mappings().one_or_none()
    return None if row is None else _state(row)


def read_all(session: Session) -> Iterator[State | BadRecordError]:
    """Yield all states, in the order of names; for a row that cannot be used, why."""
    key = ManagedDomain.c.name
    for row in read_by_key(session, select(ManagedDomain), key):
        try:
            yield _state(row)
        except BadRecordError as error:
            yield error


def _state(row: Mapping[Any, Any]) -> State:
    # SQLite lets any value into a column.
    bad = [
        f"{name} must be {_WORDS[kind]}"
        for name, kind in _KINDS.items()
        if not (isinstance(row[name], kind) or (row[name] is None and name in _MAY_BE_NULL))
    ]
    step = next((each for each in Step if each == row["step"]), None)
    if bad or step is None:
        bad += [] if step else [f"step must be one of {', '.join(Step)}"]
        raise BadRecordError(cause=f"table managed_domain, {row['name']}: {'; '.join(bad)}")
    return State(
        row["name"],
        row["document"],
        step,
        row["ttl"],
        row["changed_at"],
        row["due_at"],
        row["next_document"],
        row["old_document"],
        row["version"],
    )


def names(session: Session) -> Sequence[str]:
    """Return the names of all domains that automx manages, in order."""
    return session.scalars(select(ManagedDomain.c.name).order_by(ManagedDomain.c.name)).all()


def write(session: Session, before: State | None, after: State) -> State:
    """Store a state in place of the one that was read; return it with its new version.

    Raises ConflictError if another program has changed it meanwhile.
    """
    version = before.version + 1 if before else 1
    values = {
        "document": after.document,
        "next_document": after.next_document,
        "old_document": after.old_document,
        "step": str(after.step),
        "ttl": after.ttl,
        "changed_at": after.changed_at,
        "due_at": after.due_at,
        "version": version,
    }
    if before is None:
        try:
            with savepoint(session):
                session.execute(ManagedDomain.insert().values(name=after.domain, **values))
        except IntegrityError as error:
            raise ConflictError(MEANWHILE) from error
    else:
        c = ManagedDomain.c
        is_seen = (c.name == before.domain, c.version == before.version)
        if session.execute(ManagedDomain.update().where(*is_seen).values(values)).rowcount != 1:
            raise ConflictError(MEANWHILE)
    if before is None or before.document != after.document:
        changelog.write(session, [("domain", after.domain)])
    return replace(after, version=version)


def forget(session: Session, domain: str, version: int | None = None) -> bool:
    """Delete the state of a domain: the document is that of the rows again, at once.

    With ``version``, only that one. Return whether there was one to delete.
    """
    c = ManagedDomain.c
    is_wanted = (c.name == domain,) if version is None else (c.name == domain, c.version == version)
    found = session.execute(ManagedDomain.delete().where(*is_wanted))
    if found.rowcount:
        changelog.write(session, [("domain", domain)])
    return bool(found.rowcount)
