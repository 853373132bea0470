"""Seeding: fills the tables from a seed document.

A document is checked as a whole before the first row is written (see
:mod:`automx.seeddocument`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass

from sqlalchemy import cast, func, select, text, true
from sqlalchemy.dialects.postgresql import REGCLASS
from sqlalchemy.exc import IntegrityError

from automx import kinds, references, seeddocument
from automx.database import Session, chunks, savepoint
from automx.errors import ConflictError, SeedError
from automx.models import metadata
from automx.seeddocument import Row, SeedRows

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
# Each stands before those that it refers to.
_TO_PURGE = (
    "server_domain",
    "davserver_domain",
    "documentation",
    "provider_detail",
    "domain",
    *_COUNTED,
)


@dataclass(frozen=True)
class Counts:
    """Numbers of rows, by table."""

    providers: int
    domains: int
    servers: int
    davservers: int
    ldapservers: int

    def __str__(self) -> str:
        numbers = zip(astuple(self), _COUNTED.values(), strict=True)
        return ", ".join(f"{number} {word}{'s' * (number != 1)}" for number, word in numbers)


def is_empty(session: Session) -> bool:
    """Tell whether the database has no provider yet."""
    return session.execute(select(_TABLES["provider"].c.id).limit(1)).first() is None


def count(session: Session) -> Counts:
    """Return how many rows the tables hold."""
    return Counts(*(number_of_rows(session, table) for table in _COUNTED))


def number_of_rows(session: Session, table: str) -> int:
    """Return how many rows a table holds."""
    return session.scalar(select(func.count()).select_from(_TABLES[table])) or 0


def purge(session: Session) -> None:
    """Delete all rows of automx2's seven tables, and the details of providers."""
    for table in dict.fromkeys(_TO_PURGE):
        session.execute(_TABLES[table].delete())


def populate(session: Session, document: object) -> Counts:
    """Add the rows of a seed document; return how many.

    Nothing is written unless the whole document is right. The caller commits. Raises SeedError
    with the path of the key, what was expected and what was found; raises ConflictError if the
    database holds a domain or an id of the document already, or another program has just written.
    """
    seed = seeddocument.read(document)
    _check_against_database(session, seed)
    try:
        with savepoint(session):
            return _insert(session, seed)
    except IntegrityError as error:
        raise ConflictError(
            "The database refused a row that it holds already, perhaps since a moment ago; "
            "nothing was added",
            cause=str(error.orig),
        ) from error


def _check_against_database(session: Session, seed: SeedRows) -> None:
    for (table, row_id), path in _existing(session, seed.paths):
        raise ConflictError(f"{path}.id: the table {table} has a row with the id {row_id} already")
    known = {key for key, _ in _existing(session, seed.outside)}
    for (table, row_id), path in seed.outside.items():
        if (table, row_id) not in known:
            raise SeedError(
                f"{path}: expected the id of a {table} in this document or in the database, "
                f"found {row_id}"
            )
    for chunk in chunks((domain.a_label for domain in seed.domains), _NAMES_AT_ONCE):
        for _, name, _ in references.same_domains(session, set(chunk)):
            raise ConflictError(f"The database holds the domain {name} already")


def _existing(
    session: Session, paths: Mapping[tuple[str, int], str]
) -> Iterator[tuple[tuple[str, int], str]]:
    """Yield those of the rows (table, id) that the database holds."""
    by_table: dict[str, list[int]] = {}
    for table, row_id in paths:
        by_table.setdefault(table, []).append(row_id)
    for table, ids in by_table.items():
        column = metadata.tables[table].c.id
        for chunk in chunks(ids, _NAMES_AT_ONCE):
            for row_id in session.scalars(select(column).where(column.in_(chunk))):
                yield (table, row_id), paths[table, row_id]


def _insert(session: Session, seed: SeedRows) -> Counts:
    dialect = session.engine.dialect.name
    if dialect in {"mysql", "mariadb"}:  # which would give a row with the id 0 another one
        session.execute(text("SET sql_mode = CONCAT(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO')"))
    for table, table_rows in seed.rows.items():
        ids = _allocate(session, table, [row["id"] for row in table_rows])
        for row, row_id in zip(table_rows, ids, strict=True):
            row["id"] = row_id
        _insert_rows(session, table, table_rows)
    providers = seed.rows["provider"]
    # SQLite may hold what a DELETE without foreign_keys has left of an earlier provider.
    for chunk in chunks((row["id"] for row in providers), _NAMES_AT_ONCE):
        for details_of in (_TABLES["documentation"], _TABLES["provider_detail"]):
            session.execute(details_of.delete().where(details_of.c.provider_id.in_(chunk)))
    for index, details in seed.details.items():
        provider = {"provider_id": providers[index]["id"]}
        _insert_rows(session, "provider_detail", [provider | details.columns])
        _insert_rows(session, "documentation", (provider | page for page in details.documentation))
    _insert_domains(session, seed)
    if dialect == "postgresql":
        _set_sequences(session)
    numbers = {table: len(found) for table, found in seed.rows.items()}
    return Counts(*(({**numbers, "domain": len(seed.domains)})[table] for table in _COUNTED))


def _insert_domains(session: Session, seed: SeedRows) -> None:
    providers = [row["id"] for row in seed.rows["provider"]]
    only_provider = providers[0] if len(providers) == 1 else None
    ids = _allocate(session, "domain", [domain.id for domain in seed.domains])
    domains = dict(zip(ids, seed.domains, strict=True))
    rows = (
        {
            "id": row_id,
            "name": domain.name,
            "provider_id": only_provider if domain.provider is None else domain.provider,
            "ldapserver_id": domain.ldapserver_id,
        }
        for row_id, domain in domains.items()
    )
    _insert_rows(session, "domain", rows)
    _link(session, seed, "server", {row_id: domain.servers for row_id, domain in domains.items()})
    services = {row_id: domain.davservers for row_id, domain in domains.items()}
    _link(session, seed, "davserver", services)


def _link(
    session: Session, seed: SeedRows, table: str, chosen: Mapping[int, tuple[int, ...] | None]
) -> None:
    """Insert the links of new domains; ``chosen`` is domain id -> server ids, None for all."""
    servers, domains, links = _TABLES[table], _TABLES["domain"], _TABLES[f"{table}_domain"]
    server_id, domain_id = links.columns
    pairs = (
        {server_id.name: server, domain_id.name: domain}
        for domain, some_ids in chosen.items()
        for server in some_ids or ()
    )
    _insert_rows(session, links.name, pairs)
    # The database multiplies domains by servers several times faster than a driver sends rows.
    with_all = (domain for domain, some_ids in chosen.items() if some_ids is None)
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
    highest = session.scalar(select(func.max(_TABLES[table].c.id))) or 0
    highest = max(highest, 0, *(row_id for row_id in ids if row_id is not None))
    if highest + ids.count(None) > kinds.MAX_INTEGER:
        raise ConflictError(f"The table {table} has no free ids: its highest is {highest}")
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
