"""From a domain to its rows, and from these to its ClientConfig.

The domain's own row decides, else the nearest wildcard (``*.example.com``), else ``*``. If that row
is switched off, the domain is unknown. Blanks around a name do not matter, up to two of them: they
come with copied texts. A row that no client could use is left out and named in the log; what such a
row is, ``rows`` decides.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Dialect,
    Select,
    String,
    any_,
    bindparam,
    cast,
    func,
    select,
)
from sqlalchemy.sql.compiler import SQLCompiler

from automx import rows
from automx.address import names_for, parse_domain, spellings
from automx.cache import Common, FoundConfig, RowKey, RowMemory
from automx.clientconfig import ClientConfig
from automx.database import Session, read_by_key
from automx.errors import AddressError, BadRecordError, DisabledDomainError, UnknownDomainError
from automx.models import (
    ORIGINS,
    DisabledDomain,
    Domain,
    ManagedDomain,
    ProviderDetail,
    davserver_domain,
    metadata,
    server_domain,
)
from automx.records import Records

log = logging.getLogger(__name__)

_BEFORE = ("", " ", "  ", "\t")
_AFTER = (*_BEFORE, "\r", "\n", "\r\n")
_BLANKS = [(before, after) for before in _BEFORE for after in _AFTER]
_NAMES_AT_ONCE = 900  # SQLite before 3.32 allows 999 parameters

_UNCUT = 1_000  # characters; MySQL cuts longer texts off at its group_concat_max_len

_TABLES = metadata.tables
_ORIGIN = ORIGINS["domain"]


class Row(NamedTuple):
    """A row of ``domain``, with the ids that it refers to.

    ``is_off`` is whether it is disabled, ``document`` the stored PACC document of the domain that
    was asked for, ``origin`` that of the row.
    """

    id: int
    name: str
    provider_id: int
    ldapserver_id: int | None
    is_off: bool
    document: bytes | None
    origin: str | None
    servers: tuple[int, ...]
    services: tuple[int, ...]


class DomainRow(NamedTuple):
    """The row of ``domain`` that decides for a domain.

    ``off`` tells administrators since when the domain is switched off, "" if it is not.
    """

    id: int
    name: str
    off: str


def find(session: Session, domain: str, memory: RowMemory | None = None) -> FoundConfig:
    """Return the settings of a domain, given as A-label in lower case, and its directory.

    Rows that ``memory`` has are not read again, but for that of the domain. Raises
    UnknownDomainError if no row fits, DisabledDomainError if the one that decides is switched off,
    and BadRecordError if rows fit that cannot be served.
    """
    row = _row_in_use(session, domain)
    try:
        return found_by(session, domain, row, memory)
    except BadRecordError:
        if memory is None:
            raise
        # The error will be remembered: what it is about must not be older.
        return found_by(session, domain, row, None)


def found_by(session: Session, domain: str, row: Row, memory: RowMemory | None) -> FoundConfig:
    """Return the settings of a domain whose row is on; raises BadRecordError as find()."""
    key = (row.provider_id, row.ldapserver_id, row.servers, row.services)
    read_at: float | None
    if memory is not None and (kept := memory.common(key)) is not None:
        common, read_at = kept
    else:
        mark = memory.mark() if memory else 0
        records = Records(session, memory)
        common, read_at = _common(records, row), records.oldest
        if memory is not None and read_at is not None:
            memory.keep_common(key, common, read_at, mark)
    if len(common.missing) == 2:
        raise BadRecordError(cause=f"table domain, id {row.id}: no usable mail server")
    for missing in common.missing:
        log.warning("table domain, id %s: no usable %s mail server", row.id, missing)
    return FoundConfig(
        common.for_domain(domain),
        common.ldap_server,
        names=_other_names(domain, row.name),
        rows=common.rows,
        read_at=read_at,
        common=common,
        stored_pacc=row.document,
        origin=row.origin or "",
    )


def _common(records: Records, row: Row) -> Common:
    """Return what is made of the rows that a row of ``domain`` refers to.

    Raises BadRecordError for one that is missing, and for a directory that cannot be used.
    """
    provider = records.provider(row.provider_id)
    if provider is None:
        raise BadRecordError(cause=f"table domain, id {row.id}: there is no such provider")
    servers, server_ids = records.servers(row.servers)
    services, service_ids = records.services(row.services)
    directory = None if row.ldapserver_id is None else records.directory(row.ldapserver_id)
    if isinstance(directory, str):
        raise BadRecordError(cause=f"table ldapserver, id {row.ldapserver_id}: {directory}")
    if directory is None and row.ldapserver_id is not None:
        missing = f"there is no ldapserver {row.ldapserver_id}"
        raise BadRecordError(cause=f"table domain, id {row.id}: {missing}")
    config = ClientConfig(
        domain="",
        provider_name=provider.name,
        provider_short_name=provider.short_name,
        mail_servers=servers,
        services=services,
        details=provider.details,
    )
    rows_ = _made_of(row.provider_id, row.ldapserver_id, server_ids, service_ids)
    return Common(config, directory, rows_)


def domain_row(session: Session, domain: str) -> DomainRow | None:
    """Return the row that decides for a domain, switched off or not; None if no row fits."""
    row = _domain_row(session, domain)
    return None if row is None else DomainRow(row.id, row.name, _off(session, domain, row))


def knows(session: Session, domain: str) -> bool:
    """Return whether a row of ``domain`` fits, a wildcard included, and is not switched off."""
    row = domain_row(session, domain)
    return row is not None and not row.off


def names(session: Session, domain: str) -> bool:
    """Return whether a row that is on names ``domain``, or a wildcard above it, but for ``*``."""
    row = domain_row(session, domain)
    return row is not None and not row.off and row.name != "*"


def domain_names(session: Session) -> Iterator[tuple[int, str]]:
    """Yield id and name of all rows of the table ``domain``, as they are."""
    key = _TABLES["domain"].c.id
    for row in read_by_key(session, select(key, Domain.c.name), key):
        yield row["id"], str(row["name"])  # SQLite lets bytes into it


def enabled_domains(session: Session) -> Iterator[tuple[int, str]]:
    """Yield id and A-label of the rows of ``domain`` that are on, in the order of ids.

    Wildcards and what is no domain name are left out.
    """
    key = _TABLES["domain"].c.id
    is_on = key.not_in(select(DisabledDomain.c.domain_id))
    for row in read_by_key(session, select(key, Domain.c.name).where(is_on), key):
        with suppress(AddressError):
            yield row["id"], parse_domain(str(row["name"]).strip())


def own_row(session: Session, domain: str) -> DomainRow:
    """Return the row of a domain that is on and has a row of its own, no wildcard.

    Raises UnknownDomainError and DisabledDomainError.
    """
    row = domain_row(session, domain)
    if row is None:
        raise UnknownDomainError(cause=f"domain {domain}")
    if row.off:
        raise DisabledDomainError(cause=row.off)
    if row.name.strip().startswith("*"):
        cause = f"domain {domain} has no row of its own, only the row {row.name.strip()}"
        raise UnknownDomainError(cause=cause)
    return row


def first_domains(session: Session, number: int) -> list[str]:
    """Return the first names of the table ``domain``, no wildcards, at most ``number`` of them.

    Domains that are switched off are among them only if all are.
    """
    names = select(Domain.c.name).where(Domain.c.name.not_like("*%"))
    names = names.order_by(Domain.c.name).limit(number)
    is_on = Domain.c.id.not_in(select(DisabledDomain.c.domain_id))
    return [*session.scalars(names.where(is_on))] or [*session.scalars(names)]


def bad_rows(session: Session) -> Iterator[tuple[str, int, str]]:
    """Yield table, id and defect of each row that is served in part only, or not at all."""
    for table in rows.TABLES:
        [key] = _TABLES[table].primary_key
        for row in read_by_key(session, select(*rows.selected(table)), key):
            _, bad = rows.read_row(table, row)
            if bad:
                yield table, row[key.name], "; ".join(bad)


def logo(session: Session, domain: str) -> tuple[str, bytes]:
    """Return content type and bytes of the logo of a domain's provider.

    Raises UnknownDomainError as find(), and if the provider has no logo.
    """
    row = _row_in_use(session, domain)
    provider = Records(session, None).provider(row.provider_id)
    form = None if provider is None else provider.details.logo
    query = select(ProviderDetail.c.logo).where(ProviderDetail.c.provider_id == row.provider_id)
    data = session.scalar(query)
    if form is None or not isinstance(data, bytes):  # SQLite lets a text into it
        raise UnknownDomainError("There is no logo here.")
    return form.content_type, data


def lower_name(dialect: str) -> ColumnElement[str]:
    """Return the column ``domain.name``, to be compared with names in lower case by its index.

    MariaDB and MySQL compare in any case, by the collation; lower() would bypass their key.
    """
    is_mysql = dialect in {"mysql", "mariadb"}
    name: Column[str] = Domain.c.name
    return name if is_mysql else func.lower(name)


def padded(names: Iterable[str]) -> list[str]:
    """Return names with the blanks around them that are found in tables."""
    return [before + name + after for name in names for before, after in _BLANKS]


def day(since: object) -> str:
    """Return the day of a moment of ``disabled_domain``; SQLite lets texts into it."""
    return f"{since:%Y-%m-%d}" if isinstance(since, datetime) else repr(since)


def _off(session: Session, domain: str, row: Row) -> str:
    """Return DomainRow.off of the row that decides for a domain."""
    if not row.is_off:
        return ""
    name = row.name.strip()
    by = f", by the row {name}" if name.startswith("*") and name != domain else ""
    query = select(DisabledDomain.c.since).where(DisabledDomain.c.domain_id == row.id)
    return f"{domain} has been off since {day(session.scalar(query))}{by}"


def _row_in_use(session: Session, domain: str) -> Row:
    """Return the row that decides for a domain; raises UnknownDomainError as find()."""
    row = _domain_row(session, domain)
    if row is None:
        raise UnknownDomainError(cause=f"domain {domain}")
    if off := _off(session, domain, row):
        raise DisabledDomainError(cause=off)
    return row


def _domain_row(session: Session, domain: str) -> Row | None:
    """Return the row that decides for a domain, with its provider's names."""
    names = _names_in_order(domain)
    ranks = {name: rank for rank, name in enumerate(names)}
    best = _best(_rows_named(session, domain, names), ranks)
    if best is None or best.name.lower() not in spellings(domain):
        # A second query, so that usual names are found as quickly as before.
        wider = padded(names)
        found = [
            row
            for at in range(0, len(wider), _NAMES_AT_ONCE)
            for row in _rows_named(session, domain, wider[at : at + _NAMES_AT_ONCE])
        ]
        best = _best([*filter(None, (best,)), *found], ranks)
    return best


def _rows_named(session: Session, domain: str, names: Sequence[str]) -> Iterator[Row]:
    text, parameters = _query_for(session.engine.dialect, domain, names)
    for columns in session.rows(text, parameters):
        yield row_of(session, columns)


def row_of(session: Session, columns: Sequence[Any]) -> Row:
    """Return the row of a query of query_rows()."""
    row_id, name, provider, directory, off, *others, servers, services = columns
    links = (
        _linked(session, table, row_id, ids)
        for table, ids in (("server", servers), ("davserver", services))
    )
    return Row(row_id, name, provider, directory, off is not None, *others, *links)


def ids_together(column: ColumnElement[int]) -> ColumnElement[str]:
    """Return all ids of a column as one text: drivers in Python take long for a row of each."""
    return func.aggregate_strings(cast(column, String), ",")


@lru_cache(1_000)  # domains of one provider share it
def ids_in(text: str) -> tuple[int, ...] | None:
    """Return the ids in a text of ids_together().

    None if MySQL may have cut it off, or if it holds something else: SQLite lets any text into a
    column.
    """
    parts = text.split(",")
    if len(text) > _UNCUT or not all(part.removeprefix("-").isdecimal() for part in parts):
        return None
    return tuple(map(int, parts))


def _linked(session: Session, table: str, domain: int, text: str | None) -> tuple[int, ...]:
    """Return the ids in a text of the query, or ask for them once more."""
    if text is None:
        return ()
    if (ids := ids_in(text)) is not None:
        return ids
    server_id, domain_id = _TABLES[f"{table}_domain"].columns
    found = session.scalars(select(server_id).where(domain_id == domain))
    return tuple(each for each in found if isinstance(each, int))


def _best(found: Iterable[Row], ranks: Mapping[str, int]) -> Row | None:
    """Return the row of the best rank; of several, one whose name has no blanks around it."""
    # A collation may find too much ("muller.de" for "müller.de"): compare once more.
    fitting = [
        (ranks[name], name != row.name.lower(), row)
        for row in found
        if isinstance(row.name, str) and (name := row.name.strip().lower()) in ranks
    ]
    return min(fitting, key=lambda item: item[:2])[2] if fitting else None


def _names_in_order(domain: str) -> list[str]:
    """Return the values of the column ``domain.name`` that fit a domain, best first."""
    return [spelling for name in names_for(domain) for spelling in spellings(name)]


def _other_names(domain: str, decisive: str) -> tuple[str, ...]:
    """Return the names of wildcards that decide for a domain, or would if there were such a row.

    ``decisive`` is the name of the row that does decide; there are none if it is the domain's own.
    """
    spelling = decisive.strip().lower()
    if spelling in spellings(domain):
        return ()
    names = names_for(domain)
    rank = next(rank for rank, name in enumerate(names) if spelling in spellings(name))
    return tuple(names[1 : rank + 1])


def _made_of(
    provider: int, directory: int | None, servers: tuple[int, ...], services: tuple[int, ...]
) -> frozenset[RowKey]:
    """Return the rows beside that of a domain which its settings are made of."""
    keys = {"provider": (provider,), "server": servers, "davserver": services}
    if directory is not None:
        keys["ldapserver"] = (directory,)
    return frozenset((table, str(key)) for table, ids in keys.items() for key in ids)


def _query_for(dialect: Dialect, domain: str, names: Sequence[str]) -> tuple[str, Any]:
    """Return the query for rows that have one of some names, and its parameters."""
    if dialect.name == "postgresql":
        return _domain_query(dialect, 0)[0], {"domain": domain, "names": [*names]}
    text, order = _domain_query(dialect, len(names))
    values = [domain, *names]
    if order is None:
        return text, dict(zip(_parameters(len(names)), values, strict=True))
    return text, tuple([values[index] for index in order])


@cache
def _parameters(number: int) -> tuple[str, ...]:
    """Return the names of the parameters of a query for so many names."""
    return ("domain", *(f"name_{index}" for index in range(number)))


@cache
def _domain_query(dialect: Dialect, number: int) -> tuple[str, tuple[int, ...] | None]:
    """Return the query for rows that have one of so many names, and the order of its parameters.

    The order is None if they are given by name. The query has the stored PACC document of the
    parameter ``domain``, too. It is compiled: a query of SQLAlchemy takes longer than SQLite's
    answer. PostgreSQL takes all names as one array, so that it and its driver know the query again.
    """
    name = lower_name(dialect.name)
    if dialect.name == "postgresql":
        fits: ColumnElement[bool] = name == any_(bindparam("names", [], ARRAY(String)))
    else:
        names = [bindparam(name, "", String) for name in _parameters(number)[1:]]
        fits = name.in_(names)
    query = query_rows(bindparam("domain", "", String)).where(fits).order_by(Domain.c.id)
    compiled = query.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    order = compiled.positiontup if isinstance(compiled, SQLCompiler) else None
    places = None if order is None else tuple(map(_parameters(number).index, order))
    return str(compiled), places


def query_rows(domain: ColumnElement[str]) -> Select[*tuple[Any, ...]]:
    """Return the query for rows of ``domain``, with the stored PACC document of ``domain``."""
    servers, services = (
        select(ids_together(server_id)).where(domain_id == Domain.c.id).scalar_subquery()
        for server_id, domain_id in (server_domain.columns, davserver_domain.columns)
    )
    is_asked = ManagedDomain.c.name == domain
    stored = select(ManagedDomain.c.document).where(is_asked).scalar_subquery()
    columns = (Domain.c.id, Domain.c.name, Domain.c.provider_id, Domain.c.ldapserver_id)
    return (
        select(*columns, DisabledDomain.c.domain_id, stored, _ORIGIN.c.origin, servers, services)
        .join(DisabledDomain, DisabledDomain.c.domain_id == Domain.c.id, isouter=True)
        .join(_ORIGIN, _ORIGIN.c.domain_id == Domain.c.id, isouter=True)
    )
