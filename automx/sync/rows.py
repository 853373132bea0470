"""The rows of domains that a source is compared with."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import select

from automx import references
from automx.changes import stored
from automx.database import Session, chunks
from automx.models import ORIGINS, metadata

# Rows that are read by one query. Without statistics, PostgreSQL sorts all rows of an origin for
# each part of them: the parts are large.
_ROWS_AT_ONCE = 20_000

_TABLES = metadata.tables
_DOMAIN = _TABLES["domain"].c
_OFF = _TABLES["disabled_domain"].c
_SYNCED = _TABLES["synced_domain"].c
_ORIGIN = ORIGINS["domain"].c
_COLUMNS = (_DOMAIN.id, _DOMAIN.name, _DOMAIN.provider_id, _DOMAIN.ldapserver_id, _ORIGIN.origin)


class DomainRow(NamedTuple):
    """A row of ``domain``: since when it is off, None if it is not, and what sync knows of it."""

    id: int
    name: str
    provider: int
    directory: int | None
    origin: str | None
    off_since: datetime | None
    is_kept: bool  # whether there is a row of synced_domain
    gone_at: datetime | None
    disabled_at: datetime | None

    @property
    def is_off_by_sync(self) -> bool:
        """Whether it is off because of its source: an administrator's moment is another one."""
        return self.off_since is not None and self.off_since == self.disabled_at


def of_origin(session: Session, origin: str) -> Iterator[DomainRow]:
    """Yield the rows of an origin, in the order of ids."""
    tables = _TABLES["domain"].join(ORIGINS["domain"], _ORIGIN.domain_id == _DOMAIN.id)
    query = select(*_COLUMNS).select_from(tables)
    # The index of origins has the ids in their order.
    query = query.where(_ORIGIN.origin == origin).order_by(_ORIGIN.domain_id).limit(_ROWS_AT_ONCE)
    found = session.execute(query).all()
    while found:
        yield from _rows(session, found)
        last = found[-1].id
        # Both, as PostgreSQL would read the other table from its beginning.
        after = query.where(_DOMAIN.id > last, _ORIGIN.domain_id > last)
        found = session.execute(after).all()


def of_labels(session: Session, labels: Collection[str]) -> Iterator[tuple[str, DomainRow]]:
    """Yield A-label and row of those of some domains that the database holds."""
    named = {row_id: label for row_id, _, label in references.same_domains(session, labels)}
    tables = _TABLES["domain"].outerjoin(ORIGINS["domain"], _ORIGIN.domain_id == _DOMAIN.id)
    query = select(*_COLUMNS).select_from(tables)
    for ids in chunks(sorted(named), _ROWS_AT_ONCE):
        some = query.where(stored.among(_DOMAIN.id, ids)).order_by(_DOMAIN.id)
        found = session.execute(some)
        for row in _rows(session, [row for row in found if row.id in named]):
            yield named[row.id], row


def _rows(session: Session, found: Sequence[Any]) -> Iterator[DomainRow]:
    """Yield rows, found in the order of ids, with what other tables know of them."""
    ids = [row.id for row in found]
    off = _known(session, ids, _OFF.domain_id, _OFF.since)
    kept = _known(session, ids, _SYNCED.domain_id, _SYNCED.gone_at, _SYNCED.disabled_at)
    for row_id, name, provider, directory, origin in found:
        since, gone_at, disabled_at = None, None, None
        if row_id in off:
            [since] = off[row_id]
        if is_kept := row_id in kept:
            gone_at, disabled_at = map(_moment, kept[row_id])
        values = row_id, str(name), provider, directory, origin
        yield DomainRow(*values, since, is_kept, gone_at, disabled_at)


def _known(
    session: Session, ids: Sequence[int], domain_id: Any, *columns: Any
) -> dict[int, Sequence[Any]]:
    """Return domain id -> columns of another table, for some domains and perhaps for others.

    A join would be slower: PostgreSQL may read the other table from its beginning for each part.
    """
    query = select(domain_id, *columns).where(stored.among(domain_id, ids))
    return {row_id: values for row_id, *values in session.execute(query)}


def _moment(value: object) -> datetime | None:
    """Return a moment; SQLite lets anything into its column."""
    return value if isinstance(value, datetime) else None
