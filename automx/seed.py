"""Seeding: fills the tables from a seed document.

A document is checked as a whole before the first row is written (see
:mod:`automx.seeddocument`).
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy import cast, func, select, text, true
from sqlalchemy.dialects.postgresql import REGCLASS
from sqlalchemy.exc import IntegrityError

from automx import changelog, kinds, references, seeddocument
from automx.cache import EVERYTHING
from automx.database import Session, chunks, savepoint
from automx.errors import ConflictError, SeedError
from automx.models import RECORDS, metadata
from automx.seeddocument import Row, SeedRows

log = logging.getLogger(__name__)

_AT_ONCE = 2_000  # rows that are written by one statement
_NAMES_AT_ONCE = 400  # SQLite before 3.32 allows 999 parameters

_TABLES = metadata.tables
_COUNTED = {
    "provider": "provider",
    "domain": "domain",
    "server": "mail server",
    "davserver": "service",
    "ldapserver": "LDAP server",
}


class Counts(NamedTuple):
    """Numbers of rows, by table."""

    providers: int
    domains: int
    servers: int
    davservers: int
    ldapservers: int

    def __str__(self) -> str:
        numbers = zip(self, _COUNTED.values(), strict=True)
        return ", ".join(f"{number} {word}{'s' * (number != 1)}" for number, word in numbers)


def is_empty(session: Session) -> bool:
    """Return whether the database has no provider yet."""
    return session.execute(select(_TABLES["provider"].c.id).limit(1)).first() is None


def count(session: Session) -> Counts:
    """Return how many rows the tables hold."""
    return Counts(*(number_of_rows(session, table) for table in _COUNTED))


def number_of_rows(session: Session, table: str) -> int:
    """Return how many rows a table holds."""
    return session.scalar(select(func.count()).select_from(_TABLES[table])) or 0


def purge(session: Session) -> None:
    """Delete all rows of automx2's seven tables, and what belongs to them."""
    for table in reversed(metadata.sorted_tables):  # rows that refer to others go first
        if table.name not in {"token", "account", "backend_key", *RECORDS}:
            session.execute(table.delete())
    changelog.write(session, EVERYTHING)


def populate(
    session: Session, document: object, *, warn: Callable[[str], None] = log.warning
) -> Counts:
    """Add the rows of a seed document; return how many.

    ``warn`` is called with one line about each key that has no effect.

    Nothing is written unless the whole document is right. The caller commits. Raises SeedError
    with the path of the key, what was expected and what was found; raises ConflictError if the
    database holds a domain or an id of the document already, or another program has just written.
    """
    seed = seeddocument.read(document)
    for line in seed.warnings:
        warn(line)
    _check_against_database(session, seed)
    try:
        with savepoint(session), _ids_as_given(session):
            counts = _insert(session, seed)
    except IntegrityError as error:
        raise ConflictError(
            "The database refused a row that it holds already, perhaps since a moment ago; "
            "nothing was added",
            cause=str(error.orig),
        ) from error
    changelog.write(session, [("domain", name) for name in seed.domains])
    return counts


@contextmanager
def _ids_as_given(session: Session) -> Iterator[None]:
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


def _check_against_database(session: Session, seed: SeedRows) -> None:
    for table, row_id in _existing(session, seed.paths):
        path = seed.paths[table, row_id]
        raise ConflictError(f"{path}.id: the table {table} has a row with the id {row_id} already")
    for table in _COUNTED:
        ids = [row_id for name, row_id in seed.paths if name == table]
        for row_id in references.referred_ids(session, table, ids):
            path = seed.paths[table, row_id]
            raise ConflictError(
                f"{path}.id: rows refer to a deleted {table} {row_id}: automx check names them"
            )
    known = set(_existing(session, seed.outside))
    for (table, row_id), path in seed.outside.items():
        if (table, row_id) not in known:
            raise SeedError(
                f"{path}: expected the id of a {table} in this document or in the database, "
                f"found {row_id}"
            )
    for a_labels in chunks(seed.domains, _NAMES_AT_ONCE):
        for _, name, _ in references.same_domains(session, a_labels):
            raise ConflictError(f"The database holds the domain {name} already")


def _existing(session: Session, keys: Collection[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """Yield those of the rows (table, id) that the database holds."""
    for table in _COUNTED:
        column = _TABLES[table].c.id
        for chunk in chunks((row_id for name, row_id in keys if name == table), _NAMES_AT_ONCE):
            for row_id in session.scalars(select(column).where(column.in_(chunk))):
                yield table, row_id


def _insert(session: Session, seed: SeedRows) -> Counts:
    for table in _COUNTED:
        ids = _allocate(session, table, [row["id"] for row in seed.rows[table]])
        for row, row_id in zip(seed.rows[table], ids, strict=True):
            row["id"] = row_id
    providers, domains = seed.rows["provider"], seed.rows["domain"]
    for domain in domains:
        if domain["provider_id"] is None:  # the document has one provider only
            domain["provider_id"] = providers[0]["id"]
    for row in (*seed.rows["provider_detail"], *seed.rows["documentation"]):
        row["provider_id"] = providers[row["provider_id"]]["id"]
    for table, table_rows in seed.rows.items():
        _insert_rows(session, table, table_rows)
    for table, links in seed.links.items():
        _link(session, seed, table, links)
    if session.engine.dialect.name == "postgresql":
        _set_sequences(session)
    return Counts(*(len(seed.rows[table]) for table in _COUNTED))


def _link(
    session: Session, seed: SeedRows, table: str, chosen: list[tuple[int, ...] | None]
) -> None:
    """Insert the links of new domains to the servers of a table; None stands for all of them."""
    servers, domains, links = _TABLES[table], _TABLES["domain"], _TABLES[f"{table}_domain"]
    server_id, domain_id = links.columns
    new_ids = [row["id"] for row in seed.rows["domain"]]
    pairs = (
        {server_id.name: server, domain_id.name: domain}
        for domain, some_ids in zip(new_ids, chosen, strict=True)
        for server in some_ids or ()
    )
    _insert_rows(session, links.name, pairs)
    # The database multiplies domains by servers several times faster than a driver sends rows.
    with_all = (domain for domain, ids in zip(new_ids, chosen, strict=True) if ids is None)
    all_ids = [row["id"] for row in seed.rows[table]]
    for domain_chunk in chunks(with_all, _NAMES_AT_ONCE):
        for server_chunk in chunks(all_ids, _NAMES_AT_ONCE):
            product = (
                select(servers.c.id, domains.c.id)
                .join_from(servers, domains, true())
                .where(servers.c.id.in_(server_chunk), domains.c.id.in_(domain_chunk))
            )
            session.execute(links.insert().from_select([server_id, domain_id], product))


def _allocate(session: Session, table: str, ids: list[int | None]) -> list[int]:
    """Return the ids of new rows: where there is none, the next after all that are in use."""
    highest = references.highest_id(session, table)
    highest = max(highest, *(row_id for row_id in ids if row_id is not None), 0)
    if highest + ids.count(None) > kinds.MAX_INTEGER:
        raise ConflictError(
            f"The table {table} has no free ids: the highest in use or referred to is {highest}"
        )
    free = iter(range(highest + 1, kinds.MAX_INTEGER + 1))
    return [next(free) if row_id is None else row_id for row_id in ids]


def _insert_rows(session: Session, table: str, rows: Iterable[Row]) -> None:
    for chunk in chunks(rows, _AT_ONCE):
        session.execute(_TABLES[table].insert(), chunk)


def _set_sequences(session: Session) -> None:
    """Let PostgreSQL's sequences go on after the highest ids; they never go back."""
    for name in _COUNTED:
        sequence = cast(func.pg_get_serial_sequence(name, "id"), REGCLASS)
        highest = session.scalar(select(func.max(_TABLES[name].c.id)))
        if highest is not None and highest > 0:
            last = func.pg_sequence_last_value(sequence)
            session.execute(select(func.setval(sequence, func.greatest(highest, last))))
