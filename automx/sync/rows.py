"""The rows of domains that a source is compared with."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import FromClause, Select, select

from automx import references
from automx.database import KEYS_AT_ONCE, Session, chunks, read_by_key
from automx.models import ORIGINS, metadata

_TABLES = metadata.tables
_DOMAIN = _TABLES["domain"].c
_OFF = _TABLES["disabled_domain"].c
_SYNCED = _TABLES["synced_domain"].c
_ORIGIN = ORIGINS["domain"].c


@dataclass(frozen=True, slots=True)
class DomainRow:
    """A row of ``domain``: since when it is off, None if it is not, and what sync knows of it."""

    id: int
    name: str
    provider: int
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
    # The index of origins has the ids in their order: the part that is read next is found at once.
    begin = ORIGINS["domain"].join(_TABLES["domain"], _ORIGIN.domain_id == _DOMAIN.id)
    query = _query(begin).add_columns(_ORIGIN.domain_id).where(_ORIGIN.origin == origin)
    for row in read_by_key(session, query, _ORIGIN.domain_id):
        yield _row(row)


def of_labels(session: Session, labels: Collection[str]) -> Iterator[tuple[str, DomainRow]]:
    """Yield A-label and row of those of some domains that the database holds."""
    found = {row_id: label for row_id, _, label in references.same_domains(session, labels)}
    begin = _TABLES["domain"].outerjoin(ORIGINS["domain"], _ORIGIN.domain_id == _DOMAIN.id)
    for ids in chunks(sorted(found), KEYS_AT_ONCE):
        for row in session.execute(_query(begin).where(_DOMAIN.id.in_(ids))).mappings():
            yield found[row["id"]], _row(row)


def _query(begin: FromClause) -> Select[Any]:
    """Return the query for rows; ``begin`` has the domains and their origins."""
    return (
        select(
            _DOMAIN.id,
            _DOMAIN.name,
            _DOMAIN.provider_id,
            _ORIGIN.origin,
            _OFF.since,
            _SYNCED.domain_id.label("kept_id"),
            _SYNCED.gone_at,
            _SYNCED.disabled_at,
        )
        .select_from(begin)
        .outerjoin(_TABLES["disabled_domain"], _OFF.domain_id == _DOMAIN.id)
        .outerjoin(_TABLES["synced_domain"], _SYNCED.domain_id == _DOMAIN.id)
    )


def _row(row: Any) -> DomainRow:
    return DomainRow(
        row["id"],
        str(row["name"]),
        row["provider_id"],
        row["origin"],
        row["since"],
        row["kept_id"] is not None,
        _moment(row["gone_at"]),
        _moment(row["disabled_at"]),
    )


def _moment(value: object) -> datetime | None:
    """Return a moment; SQLite lets anything into its column."""
    return value if isinstance(value, datetime) else None
