"""References between rows: rows that do not exist, unused rows, and rows for the same domain.

SQLite stores references to rows that do not exist, unless its foreign_keys are switched on. A new
row with such an id would get what the old row had; so an id that is referred to is never given
away. Names that are not in their normal form can name one domain twice. Memory does not grow with
the number of domains that look-ups find.
"""

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Column, ColumnElement, Integer, cast, func, or_, select

from automx import domainrows, lookup
from automx.address import spellings
from automx.database import Session, chunks, read_by_key
from automx.errors import AddressError
from automx.kinds import domain_a_label
from automx.models import ORIGINS, metadata

_NAMES_AT_ONCE = 300  # of three forms each: SQLite before 3.32 allows 999 parameters
_ROWS_AT_ONCE = 2_000
# For more than so many names, if they are more than this part of all rows, all rows are read.
_MANY_NAMES, _PART = 4_000, 20

_TABLES = metadata.tables
_DOMAIN = _TABLES["domain"].c
_DISABLED = _TABLES["disabled_domain"].c
# Table -> the column by which domains refer to its rows.
USES: dict[str, ColumnElement[Any]] = {
    "server": _TABLES["server_domain"].c.server_id,
    "davserver": _TABLES["davserver_domain"].c.davserver_id,
    "ldapserver": _DOMAIN.ldapserver_id,
    "provider": _DOMAIN.provider_id,
}
_REFERRING = (
    *("domain", "server_domain", "davserver_domain"),
    *("provider_detail", "documentation", "ldapserver_detail", "account", "disabled_domain"),
    "synced_domain",
    *(f"{table}_origin" for table in ORIGINS),
)
# A domain can go without its directory, and the mailbox of an account is still there.
_KEPT = {_DOMAIN.ldapserver_id, _TABLES["account"].c.token_id}


@dataclass(frozen=True, slots=True)
class DanglingReference:
    """A row whose ``column`` holds ``missing_id``, the id of no row of ``missing_table``.

    ``key`` has the columns that name the row, ``domain`` the name of a row of the table ``domain``.
    ``is_deleted`` is whether delete_dangling() deletes the row.
    """

    table: str
    key: str
    column: str
    missing_table: str
    missing_id: object
    domain: str = ""
    is_deleted: bool = True

    @property
    def missing(self) -> str:
        """The missing row, such as "provider 7"."""
        return f"{self.missing_table} {self.missing_id}"


@dataclass(frozen=True, slots=True)
class DisabledRow:
    """A row of the table ``domain`` that is off.

    ``since`` is a moment, or what SQLite let into its column. ``used_id`` is the id of another row
    for the same domain by which look-ups go; the domain is not off then. It is None if there is no
    such row.
    """

    id: int
    name: str
    since: object
    used_id: int | None = None


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

    @property
    def is_padded(self) -> bool:
        """Whether look-ups find this row in spite of blanks around its name."""
        has_blanks = bool(self.a_label) and self.name != self.name.strip()
        return has_blanks and self.name.lower() in domainrows.padded(spellings(self.a_label))


def unused_rows(session: Session) -> Iterator[tuple[str, int]]:
    """Yield table and id of each provider, server, service and directory that no domain uses."""
    for table, reference in USES.items():
        key = _TABLES[table].c.id
        used = select(reference).where(reference.is_not(None))
        for row in read_by_key(session, select(key).where(key.not_in(used)), key):
            yield table, row["id"]


def domains_without_servers(session: Session) -> Iterator[tuple[int, str]]:
    """Yield id and name of each domain that is linked to no mail server and is not off."""
    links = _TABLES["server_domain"]
    linked = select(links.c.domain_id).join(_TABLES["server"])
    query = select(_DOMAIN.id, _DOMAIN.name).where(
        _DOMAIN.id.not_in(linked), _DOMAIN.id.not_in(select(_DISABLED.domain_id))
    )
    for row in read_by_key(session, query, _DOMAIN.id):
        yield row["id"], row["name"]


def disabled_domains(session: Session) -> Iterator[DisabledRow]:
    """Yield the rows of domains that are off, in the order of their ids."""
    query = select(_DOMAIN.id, _DOMAIN.name, _DISABLED.since).join(
        _TABLES["disabled_domain"], _DISABLED.domain_id == _DOMAIN.id
    )
    for chunk in chunks(read_by_key(session, query, _DOMAIN.id), _NAMES_AT_ONCE):
        a_labels = {row["id"]: a_label_of(str(row["name"])) for row in chunk}
        ids: dict[str, set[int]] = {}
        for row_id, _, a_label in same_domains(session, {*filter(None, a_labels.values())}):
            ids.setdefault(a_label, set()).add(row_id)
        for row in chunk:
            a_label, used = a_labels[row["id"]], None
            if a_label and ids.get(a_label) != {row["id"]}:  # there is another row
                used = lookup.domain_row(session, a_label)
            used_id = used.id if used is not None and not used.off else None
            yield DisabledRow(row["id"], str(row["name"]), row["since"], used_id)


def dangling_references(session: Session) -> Iterator[DanglingReference]:
    """Yield the references to rows that do not exist, table by table."""
    for column in _references():
        keys = tuple(column.table.primary_key)
        names = (_DOMAIN.name,) if column.table.name == "domain" else ()
        query = select(*keys, column, *names).where(_is_dangling(column)).order_by(*keys)
        for row in session.execute(query.execution_options(yield_per=_ROWS_AT_ONCE)).mappings():
            yield DanglingReference(
                column.table.name,
                ", ".join(f"{key.name} {row[key.name]}" for key in keys),
                column.name,
                _referred_to(column).table.name,
                row[column.name],
                str(row["name"]) if names else "",
                column not in _KEPT,
            )


def delete_dangling(session: Session) -> dict[str, int]:
    """Delete rows that refer to rows that do not exist; return their number by table.

    Domains without their provider go first, and then what belonged to them. A domain without its
    directory and an account without its token stay. The caller commits.
    """
    numbers = {}
    for name in _REFERRING:
        columns = [c for c in _references() if c.table.name == name and c not in _KEPT]
        if columns:
            statement = _TABLES[name].delete().where(or_(*map(_is_dangling, columns)))
            numbers[name] = session.execute(statement).rowcount
    return {name: number for name, number in numbers.items() if number}


def highest_id(session: Session, table: str) -> int:
    """Return the highest id that a row of a table has or that a row refers to, at least 0."""
    key = _TABLES[table].c.id
    # SQLite lets texts into the columns.
    columns = [key, *(cast(column, Integer) for column in _referring(key))]
    scopes = [id_ for _, id_ in keys_without_provider(session)] if table == "provider" else []
    found = (session.scalar(select(func.max(column))) or 0 for column in columns)
    return max(0, *found, *scopes)


def referred_ids(session: Session, table: str, ids: Collection[int]) -> Iterator[int]:
    """Yield those of some ids of a table that a row refers to; an id can come twice."""
    for column in _referring(_TABLES[table].c.id):
        for chunk in chunks(ids, 3 * _NAMES_AT_ONCE):
            yield from session.scalars(select(column).where(column.in_(chunk)).distinct())
    if table == "provider":
        yield from {provider for _, provider in keys_without_provider(session)}.intersection(ids)


def keys_without_provider(session: Session) -> list[tuple[str, int]]:
    """Return name and provider of each key of the API whose provider does not exist.

    Another provider with this id would be in the scope of the key. Revoked keys are left out.
    """
    key, providers = _TABLES["api_key"].c, select(_TABLES["provider"].c.id)
    query = select(key.name, key.provider_id).where(
        key.provider_id.is_not(None),
        key.provider_id.not_in(providers),
        key.is_revoked.is_(False),
    )
    return [(row[0], row[1]) for row in session.execute(query.order_by(key.name))]


def _references() -> Iterator[Column[Any]]:
    """Yield the columns that refer to rows of other tables."""
    for name in _REFERRING:
        yield from (column for column in _TABLES[name].c if column.foreign_keys)


def _referring(key: Column[Any]) -> Iterator[Column[Any]]:
    """Yield the columns that refer to a column, and those that refer to these."""
    for column in _references():
        if _referred_to(column) is key:
            yield column
            yield from _referring(column)


def _referred_to(column: Column[Any]) -> Column[Any]:
    [foreign_key] = column.foreign_keys
    return foreign_key.column


def _is_dangling(column: Column[Any]) -> ColumnElement[bool]:
    return column.is_not(None) & column.not_in(select(_referred_to(column)))


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
            is_found = row.id in ids or row.is_padded
            yield replace(row, duplicate_of=duplicate_of, is_found=is_found)


def _non_normal_rows(session: Session) -> Iterator[NonNormalName]:
    for row_id, name in lookup.domain_names(session):
        a_label = a_label_of(name)
        if a_label != name:
            yield NonNormalName(row_id, name, a_label)


def a_label_of(name: str) -> str:
    """Return the normal form of a name in the table ``domain``, "" if it is no domain name."""
    with suppress(AddressError):
        return domain_a_label(name.strip())
    return ""


def same_domains(session: Session, a_labels: Collection[str]) -> Iterator[tuple[int, str, str]]:
    """Yield id, name and A-label of the rows that look-ups find for some domains."""
    a_label_of = {name: a_label for a_label in a_labels for name in spellings(a_label)}
    # A collation may find too much ("muller.de" for "müller.de").
    for row_id, name in _rows_named(session, a_label_of):
        if a_label := a_label_of.get(name.lower()):
            yield row_id, name, a_label


def _rows_named(session: Session, names: Collection[str]) -> Iterator[tuple[int, str]]:
    """Yield id and name of the rows with some names in lower case, and perhaps of others."""
    if len(names) > _MANY_NAMES and len(names) > _number_of_domains(session) // _PART:
        # Without statistics, PostgreSQL would read the whole table for each part of the names.
        lowered = func.lower(_DOMAIN.name).label("lowered")
        query = select(_DOMAIN.id, _DOMAIN.name, lowered)
        for row in read_by_key(session, query, _DOMAIN.id):
            if row["lowered"] in names:
                yield row["id"], row["name"]
        return
    column = domainrows.lower_name(session.engine.dialect.name)
    for some in chunks(names, 3 * _NAMES_AT_ONCE):
        query = select(_DOMAIN.id, _DOMAIN.name).where(column.in_(some))
        yield from ((row_id, name) for row_id, name in session.execute(query))


def _number_of_domains(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(_TABLES["domain"])) or 0
