"""Rows as items (see :mod:`automx.members`), and items that take the place of rows."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Integer, bindparam, func, select

from automx import members, rows
from automx.changes.insertion import insert_rows
from automx.database import KEYS_AT_ONCE, Session, chunks, read_by_key
from automx.domainrows import ids_in, ids_together
from automx.members import Item
from automx.models import ORIGINS, metadata
from automx.seeddocument import Row, detail_rows, page_rows

_ROWS_AT_ONCE = 2_000  # rows that one statement reads or deletes
_DOMAIN_MEMBERS = ("name", "provider", "ldapserver_id")  # the others are tables of their own
_COLUMNS = {"provider": "provider_id"}  # of members with another name
_TABLES = metadata.tables
# Member of a domain -> table of what it is linked to.
LINKED = {member: members.TABLES[members.REFERENCES[member]] for member in members.LINKS}


def items(
    session: Session,
    kind: str,
    ids: Collection[int] | None = None,
    *,
    where: Sequence[ColumnElement[bool]] = (),
) -> Iterator[tuple[int, Item]]:
    """Yield id and item of each row of a kind, or of those with some ids, in the order of ids.

    ``where`` has conditions that the rows fulfil. A value that no client could use is as it is in
    the row. Memory does not grow with the number of rows.
    """
    table = members.TABLES[kind]
    key = _TABLES[table].c.id
    query = select(*rows.selected(table)).where(*where)
    if ids is None:
        for chunk in chunks(read_by_key(session, query, key), KEYS_AT_ONCE):
            yield from _items_of(session, kind, chunk)
        return
    wanted = {*ids}
    for some in chunks(sorted(wanted), _ROWS_AT_ONCE):
        rows_ = session.execute(query.where(among(key, some)).order_by(key)).mappings()
        yield from _items_of(session, kind, [row for row in rows_ if row["id"] in wanted])


def among(column: ColumnElement[Any], ids: Sequence[int]) -> ColumnElement[bool]:
    """Return the condition for the rows of sorted ids, and perhaps for some between them.

    Most rows of a document have ids in a row: without naming each, queries are faster.
    """
    if ids and ids[-1] - ids[0] < 2 * len(ids):
        return column.between(ids[0], ids[-1])
    # As numbers in the statement: a parameter for each takes ten times as long on PostgreSQL.
    numbers = bindparam("ids", ids, Integer, expanding=True, literal_execute=True, unique=True)
    return column.in_(numbers)


def item(session: Session, kind: str, row_id: int) -> Item | None:
    """Return the item of a row, None if there is no such row."""
    return dict(items(session, kind, [row_id])).get(row_id)


def _items_of(
    session: Session, kind: str, found: Sequence[Mapping[Any, Any]]
) -> Iterator[tuple[int, Item]]:
    ids = [row["id"] for row in found]
    match kind:
        case "provider":
            details = _details(session, ids)
            for row in found:
                names = _normal("provider", row)
                yield row["id"], {"id": row["id"], **names, "details": details.get(row["id"], {})}
        case "domain":
            linked = {member: links(session, table, ids) for member, table in LINKED.items()}
            off = disabled(session, ids)
            for row in found:
                values = _normal("domain", row)
                values["provider"] = values.pop("provider_id")
                values |= {member: of.get(row["id"], ()) for member, of in linked.items()}
                yield row["id"], {"id": row["id"], **values, "disabled": row["id"] in off}
        case _:
            for row in found:
                yield row["id"], {"id": row["id"], **_normal(members.TABLES[kind], row)}


def _normal(table: str, row: Mapping[Any, Any]) -> Item:
    columns = rows.DOMAIN if table == "domain" else rows.TABLES[table]
    if table == "server":
        row = rows.with_clear_socket_type(row)
    values, _ = rows.read(columns, row)
    return {column: values.get(column, row[column]) for column in columns}


def _details(session: Session, ids: Sequence[int]) -> dict[int, Item]:
    """Return provider id -> the member ``details``, of those that have details."""
    table, pages = _TABLES["provider_detail"], _TABLES["documentation"]
    found: dict[int, Item] = {}
    query = select(table).where(table.c.provider_id.in_(ids))
    for row in session.execute(query).mappings():
        values, _ = rows.read(rows.PROVIDER_DETAIL, row)
        given = {
            column: value
            for column in rows.PROVIDER_DETAIL
            if (value := values.get(column, row[column])) is not None
        }
        details = {column: given[column] for column in rows.CONTACT if column in given}
        for member, columns in (("logo", rows.LOGO), ("oauth2", rows.OAUTH2)):
            parts = {c.partition("_")[2] or "data": given[c] for c in columns if c in given}
            details |= {member: parts} if parts else {}
        found[row["provider_id"]] = details
    query = select(pages).where(pages.c.provider_id.in_(ids)).order_by(pages.c.id)
    for row in session.execute(query).mappings():
        page = _normal("documentation", row)
        found.setdefault(row["provider_id"], {}).setdefault("documentation", []).append(page)
    return found


def disabled(session: Session, ids: Collection[int]) -> set[int]:
    """Return the ids of those of some domains that are off."""
    domain_id = _TABLES["disabled_domain"].c.domain_id
    found: set[int] = set()
    for some in chunks(sorted(ids), _ROWS_AT_ONCE):
        found.update(session.scalars(select(domain_id).where(among(domain_id, some))))
    return found


def links(session: Session, table: str, ids: Collection[int]) -> dict[int, tuple[int, ...]]:
    """Return domain id -> ids of its rows of a table, those that do not exist left out.

    Domains without any are left out, and others may be among them.
    """
    server_id, domain_id = _TABLES[f"{table}_domain"].columns
    # MariaDB would read all links of a server for a join.
    query = select(domain_id, ids_together(server_id), func.count()).group_by(domain_id)
    texts: dict[int, tuple[str, int]] = {}
    for some in chunks(sorted(ids), _ROWS_AT_ONCE):
        found = session.execute(query.where(among(domain_id, some)))
        texts |= {domain: (text, number) for domain, text, number in found}
    known = _linked(session, table, {text for text, _ in texts.values()})
    linked = {
        domain: known[counted] if counted in known else _linked_to(session, table, domain)
        for domain, counted in texts.items()
    }
    return {domain: servers for domain, servers in linked.items() if servers}


def _linked(
    session: Session, table: str, texts: Iterable[str]
) -> dict[tuple[str, int], tuple[int, ...]]:
    """Return a text of ids, and their number -> those that exist, sorted.

    Texts that ids_in() cannot read are left out.
    """
    numbers = {text: ids for text in texts if (ids := ids_in(text)) is not None}
    key = _TABLES[table].c.id
    existing: set[int] = set()
    for some_ids in chunks({each for some in numbers.values() for each in some}, KEYS_AT_ONCE):
        existing.update(session.scalars(select(key).where(key.in_(some_ids))))
    return {
        (text, len(some)): (*sorted(existing.intersection(some)),) for text, some in numbers.items()
    }


def _linked_to(session: Session, table: str, domain: int) -> tuple[int, ...]:
    """Return the ids of the rows of a table that a domain is linked to, sorted."""
    server_id, domain_id = _TABLES[f"{table}_domain"].columns
    key = _TABLES[table].c.id
    query = select(key).join(_TABLES[f"{table}_domain"], key == server_id)
    return (*session.scalars(query.where(domain_id == domain).order_by(key)),)


def write(session: Session, kind: str, pairs: Sequence[tuple[Item, Item]], now: datetime) -> None:
    """Let rows hold other items: each pair is what a row holds, and what it shall hold."""
    if kind == "domain":
        _write_domains(session, pairs, now)
        return
    for before, after in pairs:
        row_id = after["id"]
        match kind:
            case "provider":
                _update(session, "provider", row_id, after, rows.PROVIDER)
                if before["details"] != after["details"]:
                    _replace(session, "documentation", "provider_id", row_id, ())
                    details = detail_rows(after, row_id)
                    _replace(session, "provider_detail", "provider_id", row_id, details)
                    insert_rows(session, "documentation", page_rows(after, row_id))
            case "directory":
                row, detail = rows.split_ldapserver(after)
                _update(session, "ldapserver", row_id, row, [name for name in row if name != "id"])
                details = [detail] if detail else []
                _replace(session, "ldapserver_detail", "ldapserver_id", row_id, details)
            case _:
                table = members.TABLES[kind]
                _update(session, table, row_id, after, rows.TABLES[table])


def _write_domains(session: Session, pairs: Sequence[tuple[Item, Item]], now: datetime) -> None:
    _free_names(session, [after["id"] for before, after in pairs if _is_renamed(before, after)])
    for before, after in pairs:
        # Other columns stay: the name may be spelled in a way that only this row has.
        changed = [name for name in _DOMAIN_MEMBERS if after[name] != before[name]]
        if changed:
            values = after | {"provider_id": after["provider"]}
            _update(session, "domain", after["id"], values, [_COLUMNS.get(c, c) for c in changed])
    for member, table in LINKED.items():
        links = _TABLES[f"{table}_domain"]
        server_id, domain_id = links.columns
        new, old = [], []
        for before, after in pairs:
            was, wanted = set(before[member]), set(after[member])
            new += [(server, after["id"]) for server in sorted(wanted - was)]
            old += [(server, after["id"]) for server in sorted(was - wanted)]
        is_old = (server_id == bindparam("server"), domain_id == bindparam("domain"))
        for some in chunks(old, _ROWS_AT_ONCE):
            parameters = [{"server": server, "domain": domain} for server, domain in some]
            session.execute(links.delete().where(*is_old), parameters)
        new_links = ({server_id.name: server, domain_id.name: domain} for server, domain in new)
        insert_rows(session, links.name, new_links)
    switched = [after for before, after in pairs if before["disabled"] != after["disabled"]]
    off = _TABLES["disabled_domain"]
    on = [domain["id"] for domain in switched if not domain["disabled"]]
    for ids in chunks(on, KEYS_AT_ONCE):
        session.execute(off.delete().where(off.c.domain_id.in_(ids)))
    new_rows = ({"domain_id": each["id"], "since": now} for each in switched if each["disabled"])
    insert_rows(session, off.name, new_rows)


def _is_renamed(before: Item, after: Item) -> bool:
    return bool(after["name"] != before["name"])


def _free_names(session: Session, ids: Sequence[int]) -> None:
    """Let domains give up their names, so that they can swap them: names are unique at each step.

    Nobody sees the names between, which are no domain names.
    """
    if len(ids) < 2:
        return
    domain = _TABLES["domain"]
    statement = domain.update().where(domain.c.id == bindparam("row_id"))
    statement = statement.values(name=bindparam("free"))
    for some in chunks(ids, _ROWS_AT_ONCE):
        session.execute(statement, [{"row_id": each, "free": f"renamed {each}"} for each in some])


def _update(
    session: Session, table: str, row_id: int, values: Mapping[str, Any], columns: Collection[str]
) -> None:
    statement = _TABLES[table].update().where(_TABLES[table].c.id == row_id)
    session.execute(statement.values({column: values[column] for column in columns}))


def _replace(session: Session, table: str, column: str, row_id: int, new: Sequence[Row]) -> None:
    session.execute(_TABLES[table].delete().where(_TABLES[table].c[column] == row_id))
    insert_rows(session, table, new)


def delete(session: Session, kind: str, ids: Collection[int]) -> None:
    """Delete rows of a kind with all that belongs to them, links to domains included."""
    table = members.TABLES[kind]
    columns = {
        "provider": ("documentation.provider_id", "provider_detail.provider_id"),
        "directory": ("ldapserver_detail.ldapserver_id",),
        "server": ("server_domain.server_id",),
        "service": ("davserver_domain.davserver_id",),
        "domain": (
            "server_domain.domain_id",
            "davserver_domain.domain_id",
            "disabled_domain.domain_id",
            "synced_domain.domain_id",
        ),
    }[kind]
    for place in (*columns, f"{table}_origin.{table}_id", f"{table}.id"):
        name, _, column = place.partition(".")
        for some in chunks(ids, KEYS_AT_ONCE):
            session.execute(_TABLES[name].delete().where(_TABLES[name].c[column].in_(some)))


def unlink_directory(session: Session, row_id: int) -> None:
    """Let no domain use a directory."""
    domain = _TABLES["domain"]
    uses = domain.c.ldapserver_id == row_id
    session.execute(domain.update().where(uses).values(ldapserver_id=None))


def origins(session: Session, kind: str, ids: Collection[int]) -> dict[int, str]:
    """Return id -> origin of those rows of a kind that have one."""
    row_id, origin = ORIGINS[members.TABLES[kind]].columns
    found: dict[int, str] = {}
    wanted = {*ids}
    for some in chunks(sorted(wanted), _ROWS_AT_ONCE):
        query = select(row_id, origin).where(among(row_id, some))
        found |= {row[0]: row[1] for row in session.execute(query) if row[0] in wanted}
    return found
