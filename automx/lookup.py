"""From a domain to its rows, and from these to its ClientConfig.

The domain's own row decides, else the nearest wildcard (``*.example.com``), else ``*``. If that row
is switched off, the domain is unknown. A row that no client could use is left out and named in the
log; what such a row is, ``rows`` decides.
"""

import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select

from automx import domainrows, rows
from automx.address import names_for, parse_domain, spellings
from automx.cache import FoundConfig
from automx.clientconfig import ClientConfig
from automx.database import Session, read_by_key
from automx.domainrows import Row
from automx.errors import AddressError, BadRecordError, DisabledDomainError, UnknownDomainError
from automx.models import DisabledDomain, Domain, ProviderDetail, metadata
from automx.records import Records
from automx.rowmemory import Common, RowKey, RowMemory

log = logging.getLogger(__name__)

_TABLES = metadata.tables


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
    row = domainrows.deciding(session, domain)
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
    row = domainrows.with_document(session, domain)
    if row is None:
        raise UnknownDomainError(cause=f"domain {domain}")
    if off := _off(session, domain, row):
        raise DisabledDomainError(cause=off)
    return row


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
