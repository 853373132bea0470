"""The first seed: what a program on this machine may seed over HTTP without a token.

That is a document for a database without any row. Later, the same document may come again, as from
a container that seeds at each start: what adds nothing does no harm.
"""

from collections.abc import Collection

from sqlalchemy import inspect, literal, or_, select

from automx import changelog, references, rows, seeddocument
from automx.changes import stored
from automx.database import (
    KEYS_AT_ONCE,
    Session,
    chunks,
    file_of,
    is_in_memory,
    is_missing,
    open_session,
)
from automx.errors import DatabaseError
from automx.models import RECORDS, metadata
from automx.seeddocument import Row, SeedRows

_Ids = frozenset[int]
_NONE: _Ids = frozenset()

_TABLES = metadata.tables
# The tables whose rows are found by their values, and the column that they are searched by.
_KEYS = {"provider": "name", "ldapserver": "name", "server": "name", "davserver": "url"}


def is_empty(session: Session) -> bool:
    """Return whether no table has a row, those of tokens and accounts included.

    The tables of the schema's version and of what was done before do not count.
    """
    tables = [table for name, table in _TABLES.items() if name not in RECORDS]
    have_rows = [select(literal(1)).select_from(table).exists() for table in tables]
    return not session.scalar(select(or_(*have_rows)))


def is_unfilled(db_uri: str) -> bool:
    """Return whether a database has no row, no table or no file yet.

    It is False if the database does not answer or cannot be used as it is.
    """
    path = file_of(db_uri)
    if is_in_memory(db_uri) or (path and is_missing(path)):
        return True
    try:
        with open_session(db_uri) as session:
            tables = inspect(session.connection()).get_table_names()
            return not _TABLES.keys() & set(tables) or is_empty(session)
    except DatabaseError:
        return False


def begin(session: Session) -> bool:
    """Return whether the database is empty; if so, others that call this wait until the commit.

    What the session holds before is rolled back.
    """
    if not is_empty(session):
        return False
    session.rollback()  # MariaDB would go on to see the database as it was
    changelog.wait_for_turn(session)
    if is_empty(session):
        return True
    session.rollback()
    return False


def adds_nothing(session: Session, document: object) -> bool:
    """Return whether the database holds each row of a document, and each link between them.

    Values are compared in their normal forms, but not the passwords of directories: strangers could
    guess them here. A row without id is held by any row of its values. Raises SeedError as
    automx.seed.populate().
    """
    seed = seeddocument.read(document)
    for detail in seed.rows["ldapserver_detail"]:  # rows.selected() has both in one
        values = {name: value for name, value in detail.items() if value is not None}
        seed.rows["ldapserver"][detail["ldapserver_id"]].update(values)
    held = {table: _equal_ids(session, table, seed.rows[table]) for table in _KEYS}
    _leave_out_other_details(session, seed, held["provider"])
    if not all(ids for found in held.values() for ids in found):
        return False
    domains = chunks(seed.domains, KEYS_AT_ONCE)
    return all(_holds_domains(session, seed, held, names) for names in domains)


def _equal_ids(session: Session, table: str, wanted: list[Row]) -> list[_Ids]:
    """Return for each row the ids of those rows of the database that hold its values."""
    key, columns = _KEYS[table], rows.TABLES[table].keys() - {"bind_password"}
    found: dict[tuple[object, ...], set[int]] = {}
    for names in chunks({row[key] for row in wanted}, KEYS_AT_ONCE):
        query = select(*rows.selected(table)).where(_TABLES[table].c[key].in_(names))
        for row in session.execute(query).mappings():
            values, bad = rows.read_row(table, row)
            if not bad:
                found.setdefault(tuple(values[name] for name in columns), set()).add(row["id"])
    ids_of = {values: frozenset(ids) for values, ids in found.items()}
    held = [ids_of.get(tuple(row.get(name) for name in columns), _NONE) for row in wanted]
    return [
        ids if row["id"] is None else ids & {row["id"]}
        for ids, row in zip(held, wanted, strict=True)
    ]


def _leave_out_other_details(session: Session, seed: SeedRows, held: list[_Ids]) -> None:
    """Leave out of the ids of equal providers those that lack details of the document."""
    for table in ("provider_detail", "documentation"):
        columns = [
            column for column in _TABLES[table].c if column.name not in {"id", "provider_id"}
        ]
        wanted: dict[int, set[tuple[object, ...]]] = {}
        for row in seed.rows[table]:
            values = tuple(row[column.name] for column in columns)
            wanted.setdefault(row["provider_id"], set()).add(values)
        found: dict[int, set[tuple[object, ...]]] = {}
        provider_id = _TABLES[table].c.provider_id
        for ids in chunks(_NONE.union(*(held[index] for index in wanted)), KEYS_AT_ONCE):
            for row_id, *rest in session.execute(
                select(provider_id, *columns).where(provider_id.in_(ids))
            ):
                found.setdefault(row_id, set()).add(tuple(rest))
        for index, details in wanted.items():
            held[index] = frozenset(i for i in held[index] if details <= found.get(i, set()))


def _holds_domains(
    session: Session, seed: SeedRows, held: dict[str, list[_Ids]], names: list[str]
) -> bool:
    """Return whether the database has some domains of the document, each linked as there."""
    ids = {a_label: row_id for row_id, _, a_label in references.same_domains(session, names)}
    if len(ids) < len(names):
        return False
    domain = _TABLES["domain"].c
    query = select(domain.id, domain.provider_id, domain.ldapserver_id)
    query = query.where(domain.id.in_(ids.values()))
    domains = {row.id: row for row in session.execute(query)}
    off = {row["domain_id"] for row in seed.rows["disabled_domain"]}
    disabled = stored.disabled(session, ids.values())
    links = {table: stored.links(session, table, ids.values()) for table in seed.links}
    all_servers = {table: set(held[table]) for table in seed.links}
    for name in names:
        wanted, found = seed.rows["domain"][seed.domains[name]], domains[ids[name]]
        own = wanted["provider_id"]
        is_held = (
            wanted["id"] in {None, found.id}
            and found.provider_id
            in (held["provider"][0] if own is None else _named(seed, held, "provider", own))
            and found.ldapserver_id in _named(seed, held, "ldapserver", wanted["ldapserver_id"])
            and (found.id in disabled) == (seed.domains[name] in off)
        )
        if not is_held:
            return False
        for table, linked in links.items():
            chosen = seed.links[table][seed.domains[name]]
            servers = all_servers[table] if chosen is None else ({row_id} for row_id in chosen)
            if any(equal.isdisjoint(linked.get(found.id, ())) for equal in servers):
                return False
    return True


def _named(
    seed: SeedRows, held: dict[str, list[_Ids]], table: str, key: str | int | None
) -> Collection[int | None]:
    """Return the ids of the rows that a domain of the document refers to by id or by name."""
    if not isinstance(key, str):
        return {key}
    with_ids = zip(seed.rows[table], held[table], strict=True)
    return _NONE.union(*(ids for row, ids in with_ids if row["name"] == key))
