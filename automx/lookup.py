"""From a domain to its rows, and from these to its ClientConfig.

The domain's own row decides, else the nearest wildcard (``*.example.com``), else ``*``. If that row
is switched off, the domain is unknown. Blanks around a name do not matter, up to two of them: they
come with copied texts. A row that no client could use is left out and named in the log; what such a
row is, ``rows`` decides.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeVar

import sqlalchemy
from sqlalchemy import Column, ColumnElement, Connection, Row, Select, bindparam, select

from automx import rows
from automx.address import names_for, parse_domain, spellings
from automx.cache import FoundConfig, RowKey
from automx.clientconfig import ClientConfig, ProviderDetails
from automx.database import Session, chunks, read_by_key
from automx.directory.row import LdapServer
from automx.errors import AddressError, BadRecordError, DisabledDomainError, UnknownDomainError
from automx.models import ORIGINS, DisabledDomain, Domain, Provider, ProviderDetail, metadata

log = logging.getLogger(__name__)

_BEFORE = ("", " ", "  ", "\t")
_AFTER = (*_BEFORE, "\r", "\n", "\r\n")

_Item = TypeVar("_Item")
_TABLES = metadata.tables
_ORIGIN = ORIGINS["domain"]


class DomainRow(NamedTuple):
    """The row of ``domain`` that decides for a domain.

    ``off`` tells administrators since when the domain is switched off, "" if it is not.
    """

    id: int
    name: str
    off: str


def find(session: Session, domain: str) -> FoundConfig:
    """Return the settings of a domain, given as A-label in lower case, and its directory.

    Raises UnknownDomainError if no row fits, DisabledDomainError if the one that decides is
    switched off, and BadRecordError if rows fit that cannot be served.
    """
    row = _row_in_use(session, domain)
    connection = session.connection()
    if row.provider_name is None:
        raise BadRecordError(cause=f"table domain, id {row.id}: there is no such provider")
    provider = {"name": row.provider_name, "short_name": row.short_name}
    names, bad = rows.read(rows.PROVIDER, provider)
    for defect in bad:
        log.warning("table provider, id %s: %s", row.provider_id, defect)
    servers, server_ids = _all_usable(connection, "server", row.id, rows.mail_server)
    services, service_ids = _all_usable(connection, "davserver", row.id, rows.service)
    config = ClientConfig(
        domain=domain,
        provider_name=names.get("name", domain),
        provider_short_name=names.get("short_name", domain),
        mail_servers=servers,
        services=services,
        details=_details(connection, row.details_of).for_domain(domain),
    )
    if len(config.missing) == 2:
        raise BadRecordError(cause=f"table domain, id {row.id}: no usable mail server")
    for missing in config.missing:
        log.warning("table domain, id %s: no usable %s mail server", row.id, missing)
    made_of = _made_of(row.provider_id, row.ldapserver_id, server_ids, service_ids)
    directory = _ldap_server(connection, row)
    return FoundConfig(
        config,
        directory,
        origin=row.origin or "",
        names=_other_names(domain, row.name),
        rows=made_of,
    )


def domain_row(session: Session, domain: str) -> DomainRow | None:
    """Return the row that decides for a domain, switched off or not; None if no row fits."""
    row = _domain_row(session, domain)
    return None if row is None else DomainRow(row.id, row.name, _off(domain, row))


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
    details = _row(session.connection(), "provider_detail", row.details_of)
    form = rows.provider_details(details)[0].logo if details is not None else None
    query = select(ProviderDetail.c.logo).where(ProviderDetail.c.provider_id == row.details_of)
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
    return name if is_mysql else sqlalchemy.func.lower(name)


def padded(names: Iterable[str]) -> Iterator[str]:
    """Yield names with the blanks around them that are found in tables."""
    for name in names:
        yield from (f"{before}{name}{after}" for before in _BEFORE for after in _AFTER)


def day(since: object) -> str:
    """Return the day of a moment of ``disabled_domain``; SQLite lets texts into it."""
    return f"{since:%Y-%m-%d}" if isinstance(since, datetime) else repr(since)


def _off(domain: str, row: Row[*tuple[Any, ...]]) -> str:
    """Return DomainRow.off of the row that decides for a domain."""
    if row.disabled_id is None:
        return ""
    name = row.name.strip()
    by = f", by the row {name}" if name.startswith("*") and name != domain else ""
    return f"{domain} has been off since {day(row.since)}{by}"


def _row_in_use(session: Session, domain: str) -> Row[*tuple[Any, ...]]:
    """Return the row that decides for a domain; raises UnknownDomainError as find()."""
    row = _domain_row(session, domain)
    if row is None:
        raise UnknownDomainError(cause=f"domain {domain}")
    if off := _off(domain, row):
        raise DisabledDomainError(cause=off)
    return row


def _domain_row(session: Session, domain: str) -> Row[*tuple[Any, ...]] | None:
    """Return the row that decides for a domain, with its provider's names."""
    names = _names_in_order(domain)
    ranks = {name: rank for rank, name in enumerate(names)}
    best = _best(_rows_named(session, names), ranks)
    if best is None or best.name.lower() not in spellings(domain):
        # A second query, so that usual names are found as quickly as before.
        found = [row for some in chunks(padded(names), 900) for row in _rows_named(session, some)]
        best = _best([*filter(None, (best,)), *found], ranks)
    return best


def _rows_named(session: Session, names: list[str]) -> Sequence[Row[*tuple[Any, ...]]]:
    connection = session.connection()
    return connection.execute(_domain_query(connection.dialect.name), {"names": names}).all()


def _best(
    found: Sequence[Row[*tuple[Any, ...]]], ranks: Mapping[str, int]
) -> Row[*tuple[Any, ...]] | None:
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


@lru_cache(1_000)  # domains of one provider share it
def _made_of(
    provider: int, directory: int | None, servers: tuple[int, ...], services: tuple[int, ...]
) -> frozenset[RowKey]:
    """Return the rows beside that of a domain which its settings are made of."""
    keys = {"provider": (provider,), "server": servers, "davserver": services}
    if directory is not None:
        keys["ldapserver"] = (directory,)
    return frozenset((table, str(key)) for table, ids in keys.items() for key in ids)


# Building a query takes longer than asking SQLite, so each is built once.


@cache
def _domain_query(dialect: str) -> Select[*tuple[Any, ...]]:
    """Return the query for the rows of ``domain`` that have one of several ``names``."""
    return (
        select(
            Domain.c.id,
            Domain.c.name,
            Domain.c.provider_id,
            Domain.c.ldapserver_id,
            Provider.c.name.label("provider_name"),
            Provider.c.short_name,
            ProviderDetail.c.provider_id.label("details_of"),
            DisabledDomain.c.domain_id.label("disabled_id"),
            DisabledDomain.c.since,
            _ORIGIN.c.origin,
        )
        .join(Provider, Provider.c.id == Domain.c.provider_id, isouter=True)
        .join(ProviderDetail, ProviderDetail.c.provider_id == Provider.c.id, isouter=True)
        .join(DisabledDomain, DisabledDomain.c.domain_id == Domain.c.id, isouter=True)
        .join(_ORIGIN, _ORIGIN.c.domain_id == Domain.c.id, isouter=True)
        .where(lower_name(dialect).in_(bindparam("names", expanding=True)))
        .order_by(Domain.c.id)
    )


@cache
def _rows_of(table: str) -> Select[*tuple[Any, ...]]:
    """Return the query for the rows that belong to ``id``.

    That is a domain for servers, a provider for pages, else the row itself.
    """
    columns = _TABLES[table].c
    query = select(*rows.selected(table))
    if table in {"server", "davserver"}:
        links = _TABLES[f"{table}_domain"]
        query = query.join(links, links.c[f"{table}_id"] == columns.id)
        query = query.where(links.c.domain_id == bindparam("id"))
        order = (columns.prio, columns.id) if table == "server" else (columns.id,)
        return query.order_by(*order)
    owner = columns.provider_id if "provider_id" in columns else columns.id
    return query.where(owner == bindparam("id")).order_by(*_TABLES[table].primary_key)


def _all_usable(
    connection: Connection, table: str, key: int, make: Callable[[rows.Values], _Item]
) -> tuple[tuple[_Item, ...], tuple[int, ...]]:
    """Return what ``make`` makes of each row, and the ids of all rows.

    A bad row is named in the log and left out.
    """
    usable, ids = [], []
    result = connection.execute(_rows_of(table), {"id": key})
    columns = tuple(result.keys())
    for row in result:
        ids.append(row.id)
        try:
            usable.append(_made(make, columns, tuple(row)))
        except rows.BadRowError as error:
            log.error("table %s, id %s: %s; this row is left out", table, row.id, error)
    return tuple(usable), tuple(ids)


@lru_cache(4_000)  # thousands of domains share the rows of their provider's servers
def _made(
    make: Callable[[rows.Values], _Item], columns: tuple[str, ...], values: tuple[Any, ...]
) -> _Item:
    return make(dict(zip(columns, values, strict=True)))


def _row(connection: Connection, table: str, key: int | None) -> rows.Values | None:
    return connection.execute(_rows_of(table), {"id": key}).mappings().one_or_none()


def _details(connection: Connection, provider_id: int | None) -> ProviderDetails:
    """Return the details of a provider; unusable columns are left out and logged."""
    if provider_id is None:
        return ProviderDetails()
    row = _row(connection, "provider_detail", provider_id)
    if row is None:  # deleted a moment ago
        return ProviderDetails()
    details, bad = rows.provider_details(row)
    for defect in bad:
        log.error("table provider_detail, id %s: %s", provider_id, defect)
    pages, _ = _all_usable(connection, "documentation", provider_id, rows.documentation)
    return replace(details, documentation=pages)


def _ldap_server(connection: Connection, domain: Row[*tuple[Any, ...]]) -> LdapServer | None:
    """Return the directory that a domain names, None if it names none; raises BadRecordError."""
    key = domain.ldapserver_id
    if key is None:
        return None
    row = _row(connection, "ldapserver", key)
    if row is None:
        raise BadRecordError(cause=f"table domain, id {domain.id}: there is no ldapserver {key}")
    try:
        return rows.ldap_server(row)
    except rows.BadRowError as error:
        raise BadRecordError(cause=f"table ldapserver, id {key}: {error}") from error
