"""What is kept of sources: the last synchronization of each, and domains that are gone or off."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import select

from automx.changes.insertion import insert_rows
from automx.database import KEYS_AT_ONCE, Session, chunks
from automx.models import SourceSync, SyncedDomain
from automx.moments import iso
from automx.sources import found

_MESSAGE = 255  # characters


class Outcome(StrEnum):
    """How a synchronization ended; only after DONE the database holds what the source says."""

    DONE = "done"
    UNREADABLE = "unreadable"  # the source
    EMPTY = "empty"  # the source
    TOO_MANY = "too many"  # domains would be switched off
    FAILED = "failed"  # what the source says cannot be written


@dataclass(frozen=True, slots=True)
class Record:
    """The last synchronization of a source.

    ``number`` counts those that were done. ``succeeded_at`` is when the last of them began.
    ``message`` says why nothing was done.
    """

    name: str
    number: int
    began_at: datetime
    succeeded_at: datetime | None
    outcome: str
    message: str = ""
    found: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    problems: int = 0

    def document(self) -> dict[str, Any]:
        """Return the record as JSON holds it."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "number"}
        moments = {"began_at": iso(self.began_at), "succeeded_at": iso(self.succeeded_at)}
        return values | moments


def records(session: Session) -> Iterator[Record]:
    """Yield the records of all sources that were ever synchronized, by name."""
    for row in session.execute(select(SourceSync).order_by(SourceSync.c.name)):
        yield Record(**row._asdict())


def record(session: Session, name: str) -> Record | None:
    """Return the record of a source, None if it was never synchronized."""
    row = session.execute(select(SourceSync).where(SourceSync.c.name == name)).first()
    return None if row is None else Record(**row._asdict())


def write(session: Session, new: Record) -> None:
    """Write a record; the caller has its turn (see changelog), and commits."""
    values = {name: getattr(new, name) for name in new.__slots__}
    # Parts of it come from strangers: some databases refuse NUL, and half a surrogate pair.
    values["message"] = found.printable(new.message[:_MESSAGE])
    statement = SourceSync.update().where(SourceSync.c.name == new.name).values(values)
    if not session.execute(statement).rowcount:
        session.execute(SourceSync.insert().values(values))


def keep(
    session: Session,
    kept: Mapping[int, tuple[datetime | None, datetime | None]],
    dropped: Collection[int],
) -> None:
    """Write what is known of domains: id -> (gone_at, disabled_at); drop it of others."""
    for ids in chunks([*kept, *dropped], KEYS_AT_ONCE):
        session.execute(SyncedDomain.delete().where(SyncedDomain.c.domain_id.in_(ids)))
    rows = (
        {"domain_id": row_id, "gone_at": gone_at, "disabled_at": disabled_at}
        for row_id, (gone_at, disabled_at) in kept.items()
    )
    insert_rows(session, SyncedDomain.name, rows)
