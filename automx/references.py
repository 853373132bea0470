"""References between rows: rows that do not exist, unused rows, and rows for the same domain.

SQLite stores references to rows that do not exist, and names that are not in their normal form can
name one domain twice. Memory does not grow with the number of domains that look-ups find.
"""

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, func, select

from automx import lookup
from automx.address import spellings
from automx.database import Session, chunks, read_by_key
from automx.errors import AddressError
from automx.kinds import domain_a_label
from automx.models import metadata

_NAMES_AT_ONCE = 300  # of three forms each: SQLite before 3.32 allows 999 parameters

_TABLES = metadata.tables
_DOMAIN = _TABLES["domain"].c
# Table -> the column by which domains refer to its rows.
_USES: dict[str, ColumnElement[Any]] = {
    "server": _TABLES["server_domain"].c.server_id,
    "davserver": _TABLES["davserver_domain"].c.davserver_id,
    "ldapserver": _DOMAIN.ldapserver_id,
    "provider": _DOMAIN.provider_id,
}


@dataclass(frozen=True, slots=True)
class NonNormalName:
    """A name in the table ``domain`` that is not an A-label in lower case.

    ``a_label`` is its normal form, "" if it is not a domain name. ``duplicate_of`` is the id of the
    row to keep for the same domain, None if that is this row. ``is_found`` is whether look-ups find
    this row.
    """

    id: int
    name: str
    a_label: str
    duplicate_of: int | None = None
    is_found: bool = False


def unused_rows(session: Session) -> Iterator[tuple[str, int]]:
    """Yield table and id of each provider, server, service and directory that no domain uses."""
    for table, reference in _USES.items():
        key = _TABLES[table].c.id
        used = select(reference).where(reference.is_not(None))
        for row in read_by_key(session, select(key).where(key.not_in(used)), key):
            yield table, row["id"]


def domains_without_servers(session: Session) -> Iterator[tuple[int, str]]:
    """Yield id and name of each domain that is linked to no mail server."""
    links = _TABLES["server_domain"]
    linked = select(links.c.domain_id).join(_TABLES["server"])
    query = select(_DOMAIN.id, _DOMAIN.name).where(_DOMAIN.id.not_in(linked))
    for row in read_by_key(session, query, _DOMAIN.id):
        yield row["id"], row["name"]


def dangling_references(session: Session) -> Iterator[tuple[int, str, str, int]]:
    """Yield id and name of each domain with a missing provider or directory, its table and id."""
    for table in ("provider", "ldapserver"):
        reference = _USES[table]
        is_dangling = reference.not_in(select(_TABLES[table].c.id))
        query = select(_DOMAIN.id, _DOMAIN.name, reference)
        query = query.where(reference.is_not(None), is_dangling)
        for row in read_by_key(session, query, _DOMAIN.id):
            yield row["id"], row["name"], table, row[reference.name]


def number_of_links(session: Session, table: str) -> int:
    """Return how many rows of a link table lead from a row of ``table`` to a domain.

    ``table`` is "server" or "davserver". The other rows of the link table are dangling.
    """
    joined = _TABLES[f"{table}_domain"].join(_TABLES[table]).join(_TABLES["domain"])
    return session.scalar(select(func.count()).select_from(joined)) or 0


def non_normal_names(session: Session) -> Iterator[NonNormalName]:
    """Yield the names that are not A-labels in lower case, in the order of their ids.

    Of several rows for one domain, the one to keep is that whose name is an A-label, else the first
    one that look-ups find, else the first one.
    """
    unfound: dict[str, int] = {}  # A-label -> the first row that look-ups do not find
    for chunk in chunks(_non_normal_rows(session), _NAMES_AT_ONCE):
        found = list(same_domains(session, {row.a_label for row in chunk if row.a_label}))
        found.sort(key=lambda row: (row[1] == row[2], -row[0]))
        to_keep = {a_label: row_id for row_id, _, a_label in found}  # of several, the last
        ids = {row_id for row_id, _, _ in found}
        for row in chunk:
            keep = to_keep.get(row.a_label)
            if keep is None:
                keep = unfound.setdefault(row.a_label, row.id)
            duplicate_of = keep if row.a_label and keep != row.id else None
            yield replace(row, duplicate_of=duplicate_of, is_found=row.id in ids)


def _non_normal_rows(session: Session) -> Iterator[NonNormalName]:
    for row_id, name in lookup.domain_names(session):
        a_label = ""
        with suppress(AddressError):
            a_label = domain_a_label(name)
        if a_label != name:
            yield NonNormalName(row_id, name, a_label)


def same_domains(session: Session, a_labels: Collection[str]) -> Iterator[tuple[int, str, str]]:
    """Yield id, name and A-label of the rows that look-ups find for some domains."""
    a_label_of = {name: a_label for a_label in a_labels for name in spellings(a_label)}
    column = lookup.lower_name(session.engine.dialect.name)
    for chunk in chunks(a_label_of, 3 * _NAMES_AT_ONCE):
        query = select(_DOMAIN.id, _DOMAIN.name).where(column.in_(chunk))
        for row_id, name in session.execute(query):
            # A collation may find too much ("muller.de" for "müller.de").
            if a_label := a_label_of.get(name.lower()):
                yield row_id, name, a_label
