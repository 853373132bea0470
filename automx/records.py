"""Records of rows, by their ids: remembered, or read from the database.

A row that no client could use is named in the log each time it is read.
"""

import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Select, bindparam, select

from automx import rows
from automx.clientconfig import MailServer, ProviderDetails, Service
from automx.database import KEYS_AT_ONCE, Session, chunks
from automx.directory.row import LdapServer
from automx.models import metadata
from automx.rowmemory import RowMemory

log = logging.getLogger(__name__)

_Record = TypeVar("_Record")
_TABLES = metadata.tables


class Names(NamedTuple):
    """What a provider is called, "" for a name that no client could use, and its details."""

    name: str
    short_name: str
    details: ProviderDetails


class Records:
    """The records of one look-up.

    ``oldest`` is when the oldest of them was read, in the time of ``memory``. Without a memory, all
    are read, and it is None.
    """

    def __init__(self, session: Session, memory: RowMemory | None) -> None:
        self._session = session
        self._memory = memory
        self.oldest = None if memory is None else memory.now()

    def servers(self, ids: Collection[int]) -> tuple[tuple[MailServer, ...], tuple[int, ...]]:
        """Return the usable mail servers in the order of ``prio``, and the ids of all."""
        found = self._all("server", ids)
        order = sorted(found, key=lambda row_id: (found[row_id][0], row_id))
        usable = (found[row_id][1] for row_id in order)
        return tuple(server for server in usable if server), tuple(order)

    def services(self, ids: Collection[int]) -> tuple[tuple[Service, ...], tuple[int, ...]]:
        """Return the usable services in the order of their ids, and the ids of all."""
        found = self._all("davserver", ids)
        order = sorted(found)
        usable = (found[row_id] for row_id in order)
        return tuple(service for service in usable if service), tuple(order)

    def provider(self, row_id: int) -> Names | None:
        """Return a provider, None if there is none."""
        found: Names | None = self._all("provider", [row_id]).get(row_id)
        return found

    def directory(self, row_id: int) -> LdapServer | str | None:
        """Return a directory, what is wrong with its row, or None if there is none."""
        found: LdapServer | str | None = self._all("ldapserver", [row_id]).get(row_id)
        return found

    def _all(self, table: str, ids: Collection[int]) -> dict[int, Any]:
        """Return the records of those rows of a table that exist."""
        if self._memory is None:
            return _read(self._session, table, ids)
        found = self._memory.get(table, ids)
        for _, read_at in found.values():
            if self.oldest is None or read_at < self.oldest:
                self.oldest = read_at
        records = {row_id: record for row_id, (record, _) in found.items()}
        if missing := [row_id for row_id in ids if row_id not in found]:
            mark, read_at = self._memory.mark(), self._memory.now()
            read = _read(self._session, table, missing)
            self._memory.keep(table, read, read_at, mark)
            records |= read
        return records


def _read(session: Session, table: str, ids: Collection[int]) -> dict[int, Any]:
    """Return the records of those rows of a table that exist; for servers, with their ``prio``."""
    found: dict[int, Any] = {}
    for some in chunks(ids, KEYS_AT_ONCE):
        for row in _rows(session, table, some):
            row_id = row["id"]
            match table:
                case "server":
                    server = _usable(table, rows.mail_server, row)
                    found[row_id] = row["prio"] if server else 0, server
                case "davserver":
                    found[row_id] = _usable(table, rows.service, row)
                case "provider":
                    found[row_id] = _names(session, row)
                case _:
                    try:
                        found[row_id] = rows.ldap_server(row)
                    except rows.BadRowError as error:
                        found[row_id] = str(error)
    return found


def _usable(table: str, make: Callable[[rows.Values], _Record], row: rows.Values) -> _Record | None:
    """Return the record of a row; None, and a line in the log, if no client could use it."""
    try:
        return make(row)
    except rows.BadRowError as error:
        log.error("table %s, id %s: %s; this row is left out", table, row["id"], error)
        return None


def _names(session: Session, row: rows.Values) -> Names:
    values, bad = rows.read(rows.PROVIDER, row)
    for defect in bad:
        log.warning("table provider, id %s: %s", row["id"], defect)
    details = ProviderDetails()
    for found in _rows(session, "provider_detail", [row["id"]]):
        details, bad = rows.provider_details(found)
        for defect in bad:
            log.error("table provider_detail, id %s: %s", row["id"], defect)
        pages = _rows(session, "documentation", [row["id"]])
        usable = (_usable("documentation", rows.documentation, page) for page in pages)
        details = replace(details, documentation=tuple(page for page in usable if page))
    return Names(values.get("name", ""), values.get("short_name", ""), details)


def _rows(session: Session, table: str, ids: Collection[int]) -> Iterator[rows.Values]:
    yield from map(dict, session.execute(_query(table), {"ids": ids}).mappings())


@cache  # building a query takes longer than asking SQLite
def _query(table: str) -> Select[*tuple[Any, ...]]:
    """Return the query for the rows that have one of several ``ids``, or that belong to these."""
    columns = _TABLES[table].c
    key = columns.provider_id if "provider_id" in columns else columns.id
    query = select(*rows.selected(table)).where(key.in_(bindparam("ids", expanding=True)))
    return query.order_by(*_TABLES[table].primary_key)
