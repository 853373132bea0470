"""The check of rows: whether SQL has changed what the log of changes does not tell.

Of providers, servers, services and directories, the values of all rows count. Of domains, which may
be a million, the database adds up what can be added up: a new name of the same length shows
nothing. Rows with new ids do not count where no domain can have used them yet.
"""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from sqlalchemy import BigInteger, Column, ColumnElement, Table, cast, func, select

from automx.database import Session, read_by_key
from automx.models import (
    ORIGINS,
    DavServer,
    DisabledDomain,
    Documentation,
    Domain,
    LdapServer,
    ManagedDomain,
    Provider,
    ProviderDetail,
    Server,
    davserver_domain,
    server_domain,
)

Check = list[Any]  # as JSON has it

# What stands in no document: secrets, and the bytes of logos.
_LEFT_OUT = {"bind_user", "bind_password", "logo"}

# Tables whose rows all count, with the table that the log of changes names for them.
_WHOLE = {
    Provider: "provider",
    ProviderDetail: "provider",
    Documentation: "provider",
    Server: "server",
    DavServer: "davserver",
    LdapServer: "ldapserver",
}
# New rows of these may belong to an old provider.
_ALL_IDS = {ProviderDetail, Documentation}

_SUMS: Mapping[Table, tuple[ColumnElement[int], ...]] = {
    Domain: (
        Domain.c.id,
        Domain.c.provider_id,
        func.coalesce(Domain.c.ldapserver_id, 0),
        func.length(Domain.c.name),
    ),
    server_domain: tuple(server_domain.c),
    davserver_domain: tuple(davserver_domain.c),
    DisabledDomain: (DisabledDomain.c.domain_id,),
    ManagedDomain: (ManagedDomain.c.version, func.length(ManagedDomain.c.document)),
    ORIGINS["domain"]: (
        ORIGINS["domain"].c.domain_id,
        func.length(ORIGINS["domain"].c.origin),
    ),
}


def differing(session: Session, before: Mapping[str, Check]) -> tuple[dict[str, Check], set[str]]:
    """Return the checks of all tables, and the tables of the log whose rows are others now.

    ``before`` are earlier checks; what has none counts as changed.
    """
    now, changed = {}, set()
    for table, logged in _WHOLE.items():
        was = before.get(table.name)
        limit = was[0] if was and table not in _ALL_IDS else None
        last, digest, of_known = _digests(session, table, limit)
        now[table.name] = [last, digest]
        if was != [was and was[0], of_known if limit is not None else digest]:
            changed.add(logged)
        session.rollback()
    for table, columns in _SUMS.items():
        sums = (func.coalesce(func.sum(cast(column, BigInteger)), 0) for column in columns)
        row = session.execute(select(func.count(), *sums).select_from(table)).one()
        now[table.name] = [int(value) for value in row]
        if before.get(table.name) != now[table.name]:
            changed.add("domain")
        session.rollback()
    return now, changed


def _digests(session: Session, table: Table, limit: int | None) -> tuple[int, str, str]:
    """Return the last key, the digest of all rows, and that of those up to a key."""
    [key] = table.primary_key
    digest, last = blake2b(digest_size=16), 0
    of_known: str | None = None
    for row in _rows(session, table, key):
        last = row[0]
        if limit is not None and of_known is None and last > limit:
            of_known = digest.hexdigest()
        digest.update(repr(row).encode("utf-8", "surrogatepass"))
    return last, digest.hexdigest(), of_known or digest.hexdigest()


def _rows(session: Session, table: Table, key: Column[int]) -> Iterator[tuple[Any, ...]]:
    others = (column for column in table.c if column is not key and column.name not in _LEFT_OUT)
    for row in read_by_key(session, select(key, *others), key):
        yield tuple(row.values())
