"""Seeding: fills the tables from a seed document, and writes a document from the tables.

A document is checked as a whole before the first row is written, and an export seeds an equal
database (see :mod:`automx.seeddocument`).
"""

import base64
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from sqlalchemy import Boolean, Integer, Table, cast, func, select, text, true, type_coerce
from sqlalchemy.dialects.postgresql import REGCLASS
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from automx import seeddocument
from automx.address import spellings
from automx.errors import AddressError, ConflictError, SeedError
from automx.models import Base, lower_name
from automx.seeddocument import SAMPLE, Row, SeedRows, parse, shown

__all__ = [
    "SAMPLE",
    "Counts",
    "begin_snapshot",
    "count",
    "export",
    "is_empty",
    "parse",
    "populate",
    "purge",
]

log = logging.getLogger(__name__)

_CHUNK = 2_000  # rows that are read or written at once
_NAMES_AT_ONCE = 400  # SQLite before 3.32 allows 999 parameters

_DETAIL, _DOCUMENTATION = (
    Base.metadata.tables[name] for name in ("provider_detail", "documentation")
)
_PROVIDER, _LDAPSERVER, _SERVER, _DAVSERVER, _DOMAIN, _SERVER_DOMAIN, _DAVSERVER_DOMAIN = (
    Base.metadata.tables[name]
    for name in (
        "provider",
        "ldapserver",
        "server",
        "davserver",
        "domain",
        "server_domain",
        "davserver_domain",
    )
)

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Counts:
    """Numbers of rows, by table."""

    providers: int
    domains: int
    servers: int
    davservers: int
    ldapservers: int

    def __str__(self) -> str:
        words = (
            (self.providers, "provider"),
            (self.domains, "domain"),
            (self.servers, "mail server"),
            (self.davservers, "DAV server"),
            (self.ldapservers, "LDAP server"),
        )
        return ", ".join(f"{number} {word}{'s' * (number != 1)}" for number, word in words)


def is_empty(session: Session) -> bool:
    """Tell whether the database has no provider yet."""
    return session.execute(select(_PROVIDER.c.id).limit(1)).first() is None


def count(session: Session) -> Counts:
    """Return how many rows the tables hold."""
    tables = (_PROVIDER, _DOMAIN, _SERVER, _DAVSERVER, _LDAPSERVER)
    return Counts(*(_number_of_rows(session, table) for table in tables))


def purge(session: Session) -> None:
    """Delete all rows of automx2's seven tables, and the details of providers."""
    links = (_SERVER_DOMAIN, _DAVSERVER_DOMAIN)
    for table in (
        *links,
        _DOCUMENTATION,
        _DETAIL,
        _DOMAIN,
        _SERVER,
        _DAVSERVER,
        _LDAPSERVER,
        _PROVIDER,
    ):
        session.execute(table.delete())


def populate(session: Session, document: object) -> Counts:
    """Add the rows of a seed document; return how many.

    Nothing is written unless the whole document is right. The caller commits. Raises SeedError
    with the path of the key, what was expected and what was found; raises ConflictError if the
    database holds a domain or an id of the document already, or another program has just written.
    """
    rows = seeddocument.read(document)
    _check_against_database(session, rows)
    with _conflicts():
        return _insert(session, rows)


def _check_against_database(session: Session, rows: SeedRows) -> None:
    for (table, row_id), path in _existing(session, rows.paths):
        raise ConflictError(f"{path}.id: the table {table} has a row with the id {row_id} already")
    known = {key for key, _ in _existing(session, rows.outside)}
    for (table, row_id), path in rows.outside.items():
        if (table, row_id) not in known:
            raise SeedError(
                f"{path}: expected the id of a {table} in this document or in the database, "
                f"found {row_id}"
            )
    for chunk in _chunks(rows.domains, _NAMES_AT_ONCE):
        a_labels = {domain.a_label for domain in chunk}
        for name in _same_domains(session, a_labels):
            raise ConflictError(f"The database holds the domain {name} already")


def _existing(
    session: Session, paths: Mapping[tuple[str, int], str]
) -> Iterator[tuple[tuple[str, int], str]]:
    """Yield those of the rows (table, id) that the database holds."""
    by_table: dict[str, list[int]] = {}
    for table, row_id in paths:
        by_table.setdefault(table, []).append(row_id)
    for table, ids in by_table.items():
        column = Base.metadata.tables[table].c.id
        for chunk in _chunks(ids, _NAMES_AT_ONCE):
            for row_id in session.scalars(select(column).where(column.in_(chunk))):
                yield (table, row_id), paths[table, row_id]


def _same_domains(session: Session, a_labels: set[str]) -> Iterator[str]:
    """Yield the names in the database that mean one of the domains."""
    names = {name for a_label in a_labels for name in spellings(a_label)}
    column = lower_name(session.get_bind().dialect.name)
    for chunk in _chunks(sorted(names), 2 * _NAMES_AT_ONCE):
        for name in session.scalars(select(_DOMAIN.c.name).where(column.in_(chunk))):
            with suppress(ValueError, AddressError):
                if seeddocument.read_domain(name)[1] in a_labels:
                    yield name


@contextmanager
def _conflicts() -> Iterator[None]:
    try:
        yield
    except IntegrityError as error:
        raise ConflictError(
            "The database refused a row that it holds already, perhaps since a moment ago; "
            "nothing was added",
            cause=str(error.orig),
        ) from error


def _insert(session: Session, rows: SeedRows) -> Counts:
    domain_ids = _allocate(session, _DOMAIN, [domain.id for domain in rows.domains])
    for table, table_rows in (
        (_PROVIDER, rows.providers),
        (_LDAPSERVER, rows.ldapservers),
        (_SERVER, rows.servers),
        (_DAVSERVER, rows.davservers),
    ):
        ids = _allocate(session, table, [row["id"] for row in table_rows])
        for row, row_id in zip(table_rows, ids, strict=True):
            row["id"] = row_id
        _insert_rows(session, table, table_rows)
    # SQLite may hold what somebody's DELETE without foreign_keys has left of an earlier provider.
    for chunk in _chunks((row["id"] for row in rows.providers), _NAMES_AT_ONCE):
        for table in (_DOCUMENTATION, _DETAIL):
            session.execute(table.delete().where(table.c.provider_id.in_(chunk)))
    for index, details in rows.details.items():
        provider = {"provider_id": rows.providers[index]["id"]}
        _insert_rows(session, _DETAIL, [provider | details.columns])
        _insert_rows(session, _DOCUMENTATION, (provider | page for page in details.documentation))
    only_provider = rows.providers[0]["id"] if len(rows.providers) == 1 else None
    domains = list(zip(domain_ids, rows.domains, strict=True))
    _insert_rows(
        session,
        _DOMAIN,
        (
            {
                "id": domain_id,
                "name": domain.name,
                "provider_id": domain.provider or only_provider,
                "ldapserver_id": domain.ldapserver_id,
            }
            for domain_id, domain in domains
        ),
    )
    for table, links, table_rows, chosen in (
        (_SERVER, _SERVER_DOMAIN, rows.servers, [domain.servers for domain in rows.domains]),
        (
            _DAVSERVER,
            _DAVSERVER_DOMAIN,
            rows.davservers,
            [domain.davservers for domain in rows.domains],
        ),
    ):
        server_ids = [row["id"] for row in table_rows]
        _link(session, table, links, server_ids, dict(zip(domain_ids, chosen, strict=True)))
    if session.get_bind().dialect.name == "postgresql":
        _set_sequences(session)
    return Counts(
        len(rows.providers),
        len(rows.domains),
        len(rows.servers),
        len(rows.davservers),
        len(rows.ldapservers),
    )


def _allocate(session: Session, table: Table, ids: list[int | None]) -> list[int]:
    """Return the ids of new rows: where there is none, the next after all that are in use."""
    highest = session.scalar(select(func.max(table.c.id))) or 0
    highest = max(highest, 0, *(row_id for row_id in ids if row_id is not None))
    if highest + ids.count(None) > seeddocument.MAX_INTEGER:
        raise ConflictError(f"The table {table.name} has no free ids: its highest is {highest}")
    free = iter(range(highest + 1, seeddocument.MAX_INTEGER + 1))
    return [next(free) if row_id is None else row_id for row_id in ids]


def _insert_rows(session: Session, table: Table, rows: Iterable[Row]) -> None:
    for chunk in _chunks(rows, _CHUNK):
        session.execute(table.insert(), chunk)


def _link(
    session: Session,
    servers: Table,
    links: Table,
    all_ids: list[int],
    chosen: Mapping[int, tuple[int, ...] | None],
) -> None:
    """Insert the links of new domains; ``chosen`` is domain id -> server ids, None for all."""
    server_id, domain_id = links.columns
    _insert_rows(
        session,
        links,
        (
            {server_id.name: server, domain_id.name: domain}
            for domain, some_ids in chosen.items()
            for server in some_ids or ()
        ),
    )
    # The database multiplies domains by servers several times faster than a driver sends rows.
    with_all = (domain for domain, some_ids in chosen.items() if some_ids is None)
    for domain_chunk in _chunks(with_all, _NAMES_AT_ONCE):
        for server_chunk in _chunks(all_ids, _NAMES_AT_ONCE):
            pairs = (
                select(servers.c.id, _DOMAIN.c.id)
                .join_from(servers, _DOMAIN, true())
                .where(servers.c.id.in_(server_chunk), _DOMAIN.c.id.in_(domain_chunk))
            )
            session.execute(links.insert().from_select([server_id, domain_id], pairs))


def _set_sequences(session: Session) -> None:
    """Let PostgreSQL's sequences go on after the highest ids; they never go back."""
    for table in (_PROVIDER, _LDAPSERVER, _SERVER, _DAVSERVER, _DOMAIN):
        sequence = cast(func.pg_get_serial_sequence(table.name, "id"), REGCLASS)
        highest = session.scalar(select(func.max(table.c.id)))
        if highest is not None:
            last = func.pg_sequence_last_value(sequence)
            session.execute(select(func.setval(sequence, func.greatest(highest, last))))


def _chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield lists of at most ``size`` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


# From the tables to a document.


def begin_snapshot(session: Session) -> None:
    """Let all that this transaction reads be of one moment; call it before the first statement."""
    if session.get_bind().dialect.name == "sqlite":
        session.execute(text("BEGIN"))  # its driver begins a transaction only when it writes
    else:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


def export(
    session: Session, *, with_secrets: bool = False, warn: Callable[[str], None] = log.warning
) -> Iterator[str]:
    """Yield the pieces of a document that seeds an empty database with equal rows.

    ``with_secrets`` includes the passwords of directories. Rows that :func:`populate` would refuse
    or change are written as they are; ``warn`` is called with one line about each, up to a
    limit. Memory does not grow with the number of domains.
    """
    return _Export(session, with_secrets, warn).pieces()


class _Export:
    """One export; the first queries find out which keys the plain version 2 does without."""

    max_warnings = 20

    def __init__(self, session: Session, with_secrets: bool, warn: Callable[[str], None]) -> None:
        self.session = session
        self.with_secrets = with_secrets
        self.warn = warn
        self.warnings = 0
        self.counts = count(session)
        self.has_ids = {
            table: not self._is_counted_from_1(table)
            for table in (_PROVIDER, _SERVER, _DAVSERVER, _DOMAIN)
        }
        self.has_details = _number_of_rows(session, _DETAIL) > 0
        self.some_links = {
            links: self._number_of_links(links, servers) != number * self.counts.domains
            for links, servers, number in (
                (_SERVER_DOMAIN, _SERVER, self.counts.servers),
                (_DAVSERVER_DOMAIN, _DAVSERVER, self.counts.davservers),
            )
        }
        self.has_ids[_SERVER] |= self.some_links[_SERVER_DOMAIN]
        self.has_ids[_DAVSERVER] |= self.some_links[_DAVSERVER_DOMAIN]
        self.has_ids[_PROVIDER] |= self.counts.providers > 1
        ids = session.scalars(select(_PROVIDER.c.id).limit(2)).all()
        self.only_provider = ids[0] if len(ids) == 1 else None

    def pieces(self) -> Iterator[str]:
        yield '{\n  "version": 2'
        if self.counts.providers == 1 and not self.has_ids[_PROVIDER]:
            for provider in self._providers():
                yield f',\n  "provider": {_json(provider["name"])}'
                for key in ("short_name", "details"):
                    if key in provider:
                        yield f',\n  "{key}": {_json(provider[key])}'
        else:
            yield from _list("providers", self._providers())
        if self.counts.ldapservers:
            yield from _list("ldapservers", self._ldapservers())
        yield from _list("servers", self._servers())
        yield from _list("domains", self._domains())
        yield "\n}\n"
        self._look_for_loose_ends()
        if self.warnings > self.max_warnings:
            self.warn(f"there are {self.warnings - self.max_warnings} more rows of this kind")

    def _providers(self) -> Iterator[Row]:
        for index, row in enumerate(self._rows(_PROVIDER)):
            item = {"id": row["id"]} if self.has_ids[_PROVIDER] else {}
            item["name"] = row["name"]
            if row["short_name"] != seeddocument.default_short_name(str(row["name"])):
                item["short_name"] = row["short_name"]
            if self.has_details and (details := self._details(row["id"])) is not None:
                item["details"] = details
            yield item
            path = f"providers[{index}]" if self.has_ids[_PROVIDER] else ""
            self._compare(_PROVIDER, row, seeddocument.provider_row, item, path)

    def _details(self, provider_id: int) -> Row | None:
        """Return the details of a provider as a document holds them; None if it has none."""
        mine = _DETAIL.c.provider_id == provider_id
        row = self.session.execute(select(_DETAIL).where(mine)).mappings().one_or_none()
        if row is None:
            return None
        item: Row = {}
        for column in seeddocument.DETAIL_COLUMNS:
            group, _, key = column.partition("_")
            if row[column] is None:
                continue
            if column == "logo":
                item.setdefault("logo", {})["data"] = base64.b64encode(row["logo"]).decode()
            elif group in {"logo", "oauth2"}:
                item.setdefault(group, {})[key] = row[column]
            else:
                item[column] = row[column]
        mine = _DOCUMENTATION.c.provider_id == provider_id
        pages = select(_DOCUMENTATION).where(mine).order_by(_DOCUMENTATION.c.id)
        if found := self.session.execute(pages).mappings().all():
            keys = ("url", "lang", "text")
            item["documentation"] = [{key: page[key] for key in keys} for page in found]
        path = f"the details of provider {provider_id}"
        try:
            seeddocument.detail_rows(item, path)
        except SeedError as error:
            self._note(f"provider {provider_id} will not seed again: {error}")
        return item

    def _ldapservers(self) -> Iterator[Row]:
        passwords = 0
        for index, row in enumerate(self._rows(_LDAPSERVER)):
            if not self.with_secrets:
                passwords += row.pop("bind_password") is not None
            yield row
            path = f"ldapservers[{index}]"
            self._compare(_LDAPSERVER, row, seeddocument.ldapserver_row, row, path)
        if passwords:
            self.warn(
                f"the passwords of {passwords} LDAP server{'s' * (passwords > 1)} are left out; "
                "automx export --with-secrets includes them"
            )

    def _servers(self) -> Iterator[Row]:
        index = 0
        for table, item_of in ((_SERVER, _mail_item), (_DAVSERVER, _dav_item)):
            for row in self._rows(table):
                item = ({"id": row["id"]} if self.has_ids[table] else {}) | item_of(row)
                yield item
                self._compare(table, row, seeddocument.server_row, item, f"servers[{index}]")
                index += 1

    def _domains(self) -> Iterator[Row]:
        index = 0
        odd_names: set[str] = set()
        for rows in self._row_chunks(_DOMAIN):
            servers = self._links(_SERVER_DOMAIN, _SERVER, rows)
            davservers = self._links(_DAVSERVER_DOMAIN, _DAVSERVER, rows)
            for row in rows:
                item: Row = {"id": row["id"]} if self.has_ids[_DOMAIN] else {}
                item["name"] = row["name"]
                if row["provider_id"] != self.only_provider:
                    item["provider"] = row["provider_id"]
                if row["ldapserver_id"] is not None:
                    item["ldapserver_id"] = row["ldapserver_id"]
                if servers and len(servers[row["id"]]) != self.counts.servers:
                    item["servers"] = servers[row["id"]]
                if davservers and len(davservers[row["id"]]) != self.counts.davservers:
                    item["davservers"] = davservers[row["id"]]
                yield item
                self._compare(_DOMAIN, row, _domain_columns, item, f"domains[{index}]")
                index += 1
            self._look_for_twins(rows, odd_names)

    def _look_for_twins(self, rows: list[Row], odd_names: set[str]) -> None:
        """Warn about names that mean the same domain, such as Example.com and example.com.

        Of two such names at least one is odd, which is not an A-label in lower case;
        ``odd_names`` remembers those of earlier rows.
        """
        a_labels: dict[int, str] = {}
        for row in rows:
            with suppress(ValueError, AddressError):
                a_label = seeddocument.read_domain(row["name"])[1]
                if a_label != row["name"]:
                    a_labels[row["id"]] = a_label
        others: set[str] = set()
        for chunk in _chunks(a_labels.values(), _NAMES_AT_ONCE):
            others.update(
                self.session.scalars(select(_DOMAIN.c.name).where(_DOMAIN.c.name.in_(chunk)))
            )
        for row_id, a_label in a_labels.items():
            if a_label in others or a_label in odd_names:
                self._note(f"domain {row_id} will not seed again: {a_label} has two rows")
            odd_names.add(a_label)

    def _look_for_loose_ends(self) -> None:
        """Warn about references to rows that do not exist; SQLite lets them be written."""
        for column, table in (("provider_id", _PROVIDER), ("ldapserver_id", _LDAPSERVER)):
            reference = _DOMAIN.c[column]
            loose = _DOMAIN.outerjoin(table, table.c.id == reference)
            query = select(_DOMAIN.c.id).select_from(loose).order_by(_DOMAIN.c.id)
            for row_id in self.session.scalars(
                query.where(table.c.id.is_(None), reference.is_not(None))
            ):
                self._note(
                    f"domain {row_id} will not seed again: its {column} is no {table.name}'s"
                )
        for links, servers in ((_SERVER_DOMAIN, _SERVER), (_DAVSERVER_DOMAIN, _DAVSERVER)):
            loose_links = _number_of_rows(self.session, links) - self._number_of_links(
                links, servers
            )
            if loose_links:
                self._note(
                    f"{links.name} has {loose_links} rows without server or domain, left out"
                )

    def _compare(
        self,
        table: Table,
        row: Row,
        read: Callable[[object, str], Row],
        item: Row,
        path: str,
    ) -> None:
        """Warn if a row would not be the same after its item is seeded."""
        name = f"{table.name} {row['id']}"
        try:
            seeded = read(item, path)
        except SeedError as error:
            self._note(f"{name} will not seed again: {error}")
            return
        for column, value in row.items():
            if column in seeded and column != "id" and seeded[column] != value:
                self._note(
                    f"{name} will not be the same when it is seeded again: {column} "
                    f"{shown(value)} becomes {shown(seeded[column])}"
                )

    def _note(self, line: str) -> None:
        self.warnings += 1
        if self.warnings <= self.max_warnings:
            self.warn(line)

    def _rows(self, table: Table) -> Iterator[Row]:
        for chunk in self._row_chunks(table):
            yield from chunk

    def _row_chunks(self, table: Table) -> Iterator[list[Row]]:
        """Yield all rows in the order of their ids, with 0 and 1 of boolean columns as booleans."""
        booleans = [column.name for column in table.c if isinstance(column.type, Boolean)]
        columns = [
            type_coerce(column, Integer).label(column.name) if column.name in booleans else column
            for column in table.c
        ]
        query = select(*columns).order_by(table.c.id).limit(_CHUNK)
        rows = self.session.execute(query).mappings().all()
        while rows:
            chunk = [dict(row) for row in rows]
            for row in chunk if booleans else ():
                row |= {key: bool(row[key]) for key in booleans if row[key] in {0, 1}}
            yield chunk
            last = rows[-1]["id"]
            rows = self.session.execute(query.where(table.c.id > last)).mappings().all()

    def _links(
        self, links: Table, servers: Table, rows: list[Row]
    ) -> Mapping[int, list[int]] | None:
        """Return domain id -> server ids for some domains; None if all domains have all servers."""
        if not self.some_links[links]:
            return None
        server_id, domain_id = links.columns
        query = (
            select(domain_id, server_id)
            .join(servers, servers.c.id == server_id)
            .where(domain_id.between(rows[0]["id"], rows[-1]["id"]))
            .order_by(domain_id, server_id)
        )
        found: dict[int, list[int]] = {row["id"]: [] for row in rows}
        for domain, server in self.session.execute(query):
            found.setdefault(domain, []).append(server)
        return found

    def _is_counted_from_1(self, table: Table) -> bool:
        """Tell whether the ids are those that rows without id are given in an empty database."""
        column = table.c.id
        number, least, most = self.session.execute(
            select(func.count(), func.min(column), func.max(column)).select_from(table)
        ).one()
        return bool(number == 0 or (least == 1 and most == number))

    def _number_of_links(self, links: Table, servers: Table) -> int:
        """Return how many rows of a link table lead from a server to a domain."""
        joined = links.join(servers, links.columns[0] == servers.c.id).join(
            _DOMAIN, links.c.domain_id == _DOMAIN.c.id
        )
        return self.session.scalar(select(func.count()).select_from(joined)) or 0


def _number_of_rows(session: Session, table: Table) -> int:
    return session.scalar(select(func.count()).select_from(table)) or 0


def _domain_columns(item: object, path: str) -> Row:
    return seeddocument.domain_row(item, path)._asdict()


def _mail_item(row: Row) -> Row:
    item = {"type": row["type"], "name": row["name"], "port": row["port"]}
    defaults = {
        "prio": seeddocument.PRIO,
        "socket_type": seeddocument.default_socket_type(row["port"]),
        "user_name": seeddocument.USER_NAME,
        "authentication": seeddocument.AUTHENTICATION,
    }
    return item | {key: row[key] for key, default in defaults.items() if row[key] != default}


def _dav_item(row: Row) -> Row:
    item = {"type": row["type"], "url": row["url"]}
    defaults = {
        "port": seeddocument.DAV_PORT,
        "use_ssl": seeddocument.default_use_ssl(str(row["url"])),
        "domain_required": True,
        "user_name": seeddocument.USER_NAME,
    }
    return item | {key: row[key] for key, default in defaults.items() if row[key] != default}


def _list(key: str, items: Iterable[Row]) -> Iterator[str]:
    yield f',\n  "{key}": ['
    separator = "\n"
    for item in items:
        yield f"{separator}    {_json(item)}"
        separator = ",\n"
    yield "]" if separator == "\n" else "\n  ]"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
