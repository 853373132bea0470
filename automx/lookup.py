"""From a domain to its rows, and from these to its ClientConfig.

The domain's own row decides, else the nearest wildcard (``*.example.com``), else ``*``. If that row
is switched off, the domain is unknown. Blanks around a name do not matter, up to two of them: they
come with copied texts. A row that no client could use is left out and named in the log; what such a
row is, ``rows`` decides.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
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
    and_,
    bindparam,
    cast,
    func,
    or_,
    select,
    text,
)
from sqlalchemy.sql.compiler import Compiled, SQLCompiler

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
_NAMES_AT_ONCE = 16  # of one query: its time grows with them; most domains have fewer

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
    """Return the row that decides for a domain."""
    names = _names_in_order(domain)
    found: list[Row] = []
    for at in range(0, len(names), _NAMES_AT_ONCE):
        text, parameters = _query_for(
            session.engine.dialect, domain, names[at : at + _NAMES_AT_ONCE]
        )
        found += [row_of(session, columns) for columns in session.rows(text, parameters)]
    return _best(found, names)


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


def _best(found: Iterable[Row], names: Sequence[str]) -> Row | None:
    """Return the row of the first of some names; of several, one without blanks around its name."""
    ranks = {name: rank for rank, name in enumerate(names)}
    # A collation may find too much ("muller.de" for "müller.de"): compare once more.
    fitting = [
        (ranks[name], name != row.name.lower(), row.id, row)
        for row in found
        if isinstance(row.name, str) and (name := row.name.strip().lower()) in ranks
    ]
    return min(fitting)[-1] if fitting else None


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
    """Return the query for rows that have one of some names, and its parameters.

    There may be blanks around the names, as in padded(); a few other rows may be found as well.
    """
    if dialect.name == "postgresql":
        return _array_query(dialect), {"domain": domain, "names": [*names]}
    text, keys, order = _range_query(dialect, len(names))
    values = [domain]
    for name in names:
        for before in _BEFORE:
            padded_name = before + name
            values += (padded_name, f"{padded_name}\t", f"{padded_name}!")
    if order is None:
        return text, dict(zip(keys, values, strict=True))
    return text, tuple([values[index] for index in order])


@cache
def _range_query(
    dialect: Dialect, number: int
) -> tuple[str, tuple[str, ...], tuple[int, ...] | None]:
    """Return the query for rows that have one of so many names, and the names of its parameters.

    Their order comes last; it is None if they are given by name. The query has the stored PACC
    document of the parameter ``domain``, too. It is compiled: a query of SQLAlchemy takes longer
    than SQLite's answer.

    In all collations of SQLite, MariaDB and MySQL, blanks come before "!": a name with blanks
    behind it stands beside the name itself. To look for each by itself takes three times as long.
    """
    name = lower_name(dialect.name)
    indexes = range(number * len(_BEFORE))
    keys = [f"{kind}_{index}" for index in indexes for kind in ("name", "tab", "end")]
    fits: list[ColumnElement[bool]] = []
    for index in indexes:
        same, tab, end = (bindparam(key, "", String) for key in keys[3 * index : 3 * index + 3])
        if dialect.name == "sqlite":
            fits.append(and_(name >= same, name < end))
        else:  # by PAD SPACE, the name itself comes after the same with a tab behind it
            fits += [name == same, and_(name >= tab, name < end)]
    query = query_rows(bindparam("domain", "", String)).where(or_(*fits))
    compiled = _compiled(query, dialect)
    order = compiled.positiontup if isinstance(compiled, SQLCompiler) else None
    keys = ["domain", *keys]
    return str(compiled), (*keys,), None if order is None else tuple(map(keys.index, order))


@cache
def _array_query(dialect: Dialect) -> str:
    """Return PostgreSQL's query for rows that have one of some names, as _range_query().

    Its collations may pass over blanks. So names with blanks are looked for one by one, unless
    there is a row of the domain's own name. The subquery hides how many names there are: else
    PostgreSQL would make a new plan for each query, which takes longer than the query.
    """
    before, after = (
        "unnest(ARRAY[" + ", ".join(f"'{blanks}'" for blanks in some) + "])"
        for some in (_BEFORE, _AFTER)
    )
    names = "unnest(:names)"
    fits = text(
        f"lower(domain.name) = ANY (ARRAY(SELECT {names} UNION ALL"  # noqa: S608 - no input
        f" SELECT before || name || after FROM {before} before, {names} name, {after} after"
        " WHERE NOT EXISTS (SELECT FROM domain WHERE lower(name) = :domain)))"
    ).bindparams(bindparam("domain", "", String), bindparam("names", [], ARRAY(String)))
    query = query_rows(bindparam("domain", "", String)).where(fits)
    return str(_compiled(query, dialect))


def _compiled(query: Select[*tuple[Any, ...]], dialect: Dialect) -> Compiled:
    return query.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})


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
