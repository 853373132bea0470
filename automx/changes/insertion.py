"""The rows of checked documents and objects, as they are inserted."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import product

from sqlalchemy import ColumnElement, cast, func, select, text, true

from automx import kinds, references
from automx.database import KEYS_AT_ONCE, Session, chunks
from automx.errors import ConflictError, SeedError
from automx.models import ORIGINS, metadata
from automx.seeddocument import Row, SeedRows

_AT_ONCE = 2_000  # rows that are written by one statement

_TABLES = metadata.tables
_ORDER = ("provider", "domain", "server", "davserver", "ldapserver")


def check(session: Session, new: SeedRows) -> None:
    """Raise an error if the database cannot hold new rows beside those that it has.

    That is SeedError for a reference to a row that does not exist, and ConflictError for a domain
    or an id that the database holds already.
    """
    for table, row_id in _existing(session, new.paths):
        path = new.paths[table, row_id]
        raise ConflictError(f"{path}.id: the table {table} has a row with the id {row_id} already")
    for table in _ORDER:
        ids = [row_id for name, row_id in new.paths if name == table]
        for row_id in references.referred_ids(session, table, ids):
            path = new.paths[table, row_id]
            raise ConflictError(
                f"{path}.id: rows refer to a deleted {table} {row_id}: automx check names them"
            )
    check_references(session, new)
    for _, name, _ in references.same_domains(session, new.domains):
        raise ConflictError(f"The database holds the domain {name} already")


def check_references(session: Session, new: SeedRows) -> None:
    """Raise SeedError for a reference to a row that is neither new nor in the database."""
    known = set(_existing(session, new.outside))
    for (table, row_id), path in new.outside.items():
        if (table, row_id) not in known:
            raise SeedError(
                f"{path}: expected the id of a {table} in this document or in the database, "
                f"found {row_id}"
            )


def _existing(session: Session, keys: Collection[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """Yield those of the rows (table, id) that the database holds."""
    for table in _ORDER:
        column = _TABLES[table].c.id
        for chunk in chunks((row_id for name, row_id in keys if name == table), KEYS_AT_ONCE):
            for row_id in session.scalars(select(column).where(column.in_(chunk))):
                yield table, row_id


def insert(session: Session, new: SeedRows, origin: str | None, now: datetime) -> None:
    """Insert checked rows, and give an id to each without; disabled domains are off since now."""
    with ids_as_given(session):
        for table in _ORDER:
            ids = allocate(session, table, [row["id"] for row in new.rows[table]])
            for row, row_id in zip(new.rows[table], ids, strict=True):
                row["id"] = row_id
        providers, domains = new.rows["provider"], new.rows["domain"]
        for domain in domains:
            if domain["provider_id"] is None:  # the document has one provider only
                domain["provider_id"] = providers[0]["id"]
        _resolve_names(session, new)
        for row in (*new.rows["provider_detail"], *new.rows["documentation"]):
            row["provider_id"] = providers[row["provider_id"]]["id"]
        for row in new.rows["ldapserver_detail"]:
            row["ldapserver_id"] = new.rows["ldapserver"][row["ldapserver_id"]]["id"]
        for row in new.rows["disabled_domain"]:
            row |= {"domain_id": domains[row["domain_id"]]["id"], "since": now}
        for table, table_rows in new.rows.items():
            insert_rows(session, table, table_rows)
        for table, links in new.links.items():
            _link(session, new, table, links)
        if origin is not None:
            for table in ORIGINS:
                add_origins(session, table, [row["id"] for row in new.rows[table]], origin)


def add_origins(session: Session, table: str, ids: Iterable[int], origin: str) -> None:
    """Give rows of a table that have none an origin."""
    key, _ = ORIGINS[table].columns
    insert_rows(session, f"{table}_origin", ({key.name: each, "origin": origin} for each in ids))


def _resolve_names(session: Session, new: SeedRows) -> None:
    """Put ids in place of the names by which domains refer to rows."""
    ids: dict[str, dict[object, int]] = {"provider": {}, "ldapserver": {}}
    for table, name in new.named:
        found = [row["id"] for row in new.rows[table] if row["name"] == name]
        columns = _TABLES[table].c
        query = select(columns.id).where(columns.name == name)
        ids[table][name] = new.row_named(table, name, found or [*session.scalars(query)])
    for domain in new.rows["domain"] if new.named else ():
        for table, known in ids.items():
            value = domain[f"{table}_id"]
            domain[f"{table}_id"] = known.get(value, value)


def _link(
    session: Session, new: SeedRows, table: str, chosen: list[tuple[int, ...] | None]
) -> None:
    """Insert the links of new domains to the servers of a table; None stands for all of them."""
    servers, domains, links = _TABLES[table], _TABLES["domain"], _TABLES[f"{table}_domain"]
    server_id, domain_id = links.columns
    new_ids = [row["id"] for row in new.rows["domain"]]
    domains_of: dict[tuple[int, ...] | None, list[int]] = {}
    for domain, some_ids in zip(new_ids, chosen, strict=True):
        domains_of.setdefault(some_ids, []).append(domain)
    all_ids = [row["id"] for row in new.rows[table]]
    groups = [(all_ids if ids is None else ids, some) for ids, some in domains_of.items()]
    pairs = (
        {server_id.name: server, domain_id.name: domain}
        for ids, some_domains in groups
        if len(some_domains) < KEYS_AT_ONCE
        for domain in some_domains
        for server in ids
    )
    insert_rows(session, links.name, pairs)
    # The database multiplies domains by servers several times faster than a driver sends rows.
    many = [(ids, some) for ids, some in groups if len(some) >= KEYS_AT_ONCE]
    for ids, some_domains in many:
        for domain_chunk, server_chunk in product(
            list(chunks(sorted(some_domains), KEYS_AT_ONCE)), list(chunks(ids, KEYS_AT_ONCE))
        ):
            multiplied = (
                select(servers.c.id, domains.c.id)
                .join_from(servers, domains, true())
                .where(servers.c.id.in_(server_chunk), _are(domains.c.id, domain_chunk))
            )
            session.execute(links.insert().from_select([server_id, domain_id], multiplied))


def _are(column: ColumnElement[int], ids: Sequence[int]) -> ColumnElement[bool]:
    """Return the condition for the rows of sorted ids.

    New rows have ids in a row: without a parameter for each, statements are faster.
    """
    if ids[-1] - ids[0] == len(ids) - 1:
        return column.between(ids[0], ids[-1])
    return column.in_(ids)


def allocate(session: Session, table: str, ids: list[int | None]) -> list[int]:
    """Return the ids of new rows: where there is none, the next after all that are in use."""
    if None not in ids:  # the highest id of some columns is found by reading all rows
        return [row_id for row_id in ids if row_id is not None]
    highest = references.highest_id(session, table)
    highest = max(highest, *(row_id for row_id in ids if row_id is not None), 0)
    if highest + ids.count(None) > kinds.MAX_INTEGER:
        raise ConflictError(
            f"The table {table} has no free ids: the highest in use or referred to is {highest}"
        )
    free = iter(range(highest + 1, kinds.MAX_INTEGER + 1))
    return [next(free) if row_id is None else row_id for row_id in ids]


def insert_rows(session: Session, table: str, rows: Iterable[Row]) -> None:
    """Insert complete rows, any number of them."""
    for chunk in chunks(rows, _AT_ONCE):
        session.execute(_TABLES[table].insert(), chunk)


def set_sequences(session: Session, tables: Iterable[str] = _ORDER) -> None:
    """Let PostgreSQL's sequences go on after the highest ids of tables; they never go back."""
    if session.engine.dialect.name != "postgresql":
        return
    from sqlalchemy.dialects.postgresql import REGCLASS  # it takes long to load

    for name in tables:
        sequence = cast(func.pg_get_serial_sequence(name, "id"), REGCLASS)
        highest = session.scalar(select(func.max(_TABLES[name].c.id)))
        if highest is not None and highest > 0:
            last = func.pg_sequence_last_value(sequence)
            session.execute(select(func.setval(sequence, func.greatest(highest, last))))


def analyze_domains(session: Session) -> None:
    """Let PostgreSQL count the domains, those of this transaction included.

    It plans by what it counted before: it would read a table that was empty then as a whole, for
    each part of many domains.
    """
    if session.engine.dialect.name == "postgresql":
        session.execute(text("ANALYZE domain"))


@contextmanager
def ids_as_given(session: Session) -> Iterator[None]:
    """Let MariaDB keep the id 0: it would give such a row another one."""
    if session.engine.dialect.name not in {"mysql", "mariadb"}:
        yield
        return
    change = text("SET sql_mode = :mode")
    mode = session.scalar(text("SELECT @@sql_mode"))
    session.execute(change, {"mode": f"{mode},NO_AUTO_VALUE_ON_ZERO"})
    try:
        yield
    finally:
        session.execute(change, {"mode": mode})
