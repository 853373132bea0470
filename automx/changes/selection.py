"""Rows that a name means, rows that a filter selects, and names for completion."""

import re
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, select

from automx import domainrows, kinds, members, references
from automx.changes import NAMES, stored
from automx.database import KEYS_AT_ONCE, Session, chunks
from automx.errors import AddressError, ConflictError, UnknownRowError
from automx.members import TABLES, Item
from automx.models import metadata

WORDS = {
    "provider": "provider",
    "directory": "directory",
    "server": "mail server",
    "service": "service",
    "domain": "domain",
}

# Rows that only names_beginning() knows -> their table, and the column of their names.
_OTHERS = {
    "token": ("token", "name"),
    "key": ("api_key", "name"),
    "account": ("account", "address"),
}
_SHOWN = 10
_TABLES = metadata.tables


class AmbiguousNameError(ConflictError):
    """A name that several rows have; the text lists them."""


def find(session: Session, kind: str, name: str) -> int:
    """Return the id of the row that a name means.

    A whole number is an id. Otherwise it is the name of a provider (long or short), the host of a
    directory or a server (with ``:PORT`` if it has several), the URL of a service, or a domain in
    any spelling. Raises UnknownRowError, and AmbiguousNameError if several rows have the name.
    """
    ids = _ids(session, kind, name.strip())
    if not ids:
        raise UnknownRowError(f"There is no {WORDS[kind]} {name}.")
    if len(ids) > 1:
        spelled = names(session, kind, ids[:_SHOWN])
        rows = [
            _in_words(kind, item, spelled[row_id])
            for row_id, item in stored.items(session, kind, ids[:_SHOWN])
        ]
        more = ", …" if len(ids) > _SHOWN else ""
        raise AmbiguousNameError(
            f"{len(ids)} {plural(kind)} are called {name}; say which by its id:"
            f" {', '.join(rows)}{more}"
        )
    return ids[0]


def plural(kind: str) -> str:
    """Return the word for rows of a kind."""
    return plural_of(WORDS[kind])


def plural_of(word: str) -> str:
    """Return the plural of a word for rows."""
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"


def _in_words(kind: str, item: Item, name: str) -> str:
    if kind in {"server", "service"}:
        return f"{item['id']} ({item['type']}, port {item['port']})"
    if kind == "directory":
        return f"{item['id']} (port {item['port']}, {item['search_base']})"
    return f"{item['id']} ({name})"


def _ids(session: Session, kind: str, name: str) -> list[int]:
    key = _TABLES[TABLES[kind]].c.id
    if (row_id := _number(name)) is not None:
        return list(session.scalars(select(key).where(key == row_id)))
    if kind == "domain":
        try:
            a_label = kinds.domain_a_label(name)
        except AddressError:
            return []
        return sorted(row_id for row_id, _, _ in references.same_domains(session, [a_label]))
    for column, value in _spellings(kind, name):
        query = select(key, column).where(func.lower(column) == value.lower()).order_by(key)
        # A collation may find too much.
        found = [row[0] for row in session.execute(query) if row[1].lower() == value.lower()]
        if found:
            return found
    host, _, text = name.rpartition(":")
    port = _number(text)
    if kind not in {"server", "directory"} or not host or port is None:
        return []
    at_port = _TABLES[TABLES[kind]].c.port == port
    some = _ids(session, kind, host)
    return list(session.scalars(select(key).where(key.in_(some), at_port).order_by(key)))


def _number(text: str) -> int | None:
    """Return a whole number that a column of any database can hold, None for other texts."""
    if not re.fullmatch("-?[0-9]{1,10}", text):
        return None
    number = int(text)
    return number if abs(number) <= kinds.MAX_INTEGER else None


def _spellings(kind: str, name: str) -> Iterable[tuple[ColumnElement[Any], str]]:
    columns = _TABLES[TABLES[kind]].c
    yield columns[NAMES[kind]], name
    if kind == "provider":
        yield columns.short_name, name
    else:
        try:
            yield columns[NAMES[kind]], str(members.MEMBERS[kind][NAMES[kind]].read(name))
        except kinds.BadValueError:
            return


class Filter(NamedTuple):
    """Which rows of a kind are listed; by default all.

    ``pattern`` is a name with ``*`` and ``?``. ``provider`` is the id of the provider of domains,
    or of domains that use the rows; ``server``, ``service`` and ``directory`` are ids of what
    domains use. ``unused`` selects rows that no domain uses, and domains
    without a mail server.
    """

    pattern: str = ""
    provider: int | None = None
    server: int | None = None
    service: int | None = None
    directory: int | None = None
    unused: bool = False
    disabled: bool | None = None


def conditions(session: Session, kind: str, wanted: Filter) -> list[ColumnElement[bool]]:
    """Return the conditions of a filter, as stored.items() takes them."""
    columns = _TABLES[TABLES[kind]].c
    domain = _TABLES["domain"].c
    found: list[ColumnElement[bool]] = []
    if wanted.pattern:
        name = columns[NAMES[kind]]
        lowered = domainrows.lower_name(session.engine.dialect.name) if kind == "domain" else None
        column = func.lower(name) if lowered is None else lowered
        found.append(column.like(_like(wanted.pattern.lower()), escape="\\"))
    if wanted.unused and kind == "domain":
        found.append(columns.id.not_in(select(_TABLES["server_domain"].c.domain_id)))
    elif wanted.unused:
        uses = references.USES[TABLES[kind]]
        found.append(columns.id.not_in(select(uses).where(uses.is_not(None))))
    if kind != "domain":
        if wanted.provider is not None:
            found.append(columns.id.in_(_used_by_provider(kind, wanted.provider)))
        return found
    if wanted.provider is not None:
        found.append(domain.provider_id == wanted.provider)
    if wanted.directory is not None:
        found.append(domain.ldapserver_id == wanted.directory)
    for table, row_id in (("server", wanted.server), ("davserver", wanted.service)):
        if row_id is not None:
            server_id, domain_id = _TABLES[f"{table}_domain"].columns
            found.append(domain.id.in_(select(domain_id).where(server_id == row_id)))
    if wanted.disabled is not None:
        off = domain.id.in_(select(_TABLES["disabled_domain"].c.domain_id))
        found.append(off if wanted.disabled else ~off)
    return found


def _used_by_provider(kind: str, provider: int) -> Select[Any]:
    domain = _TABLES["domain"].c
    if kind == "directory":
        column: ColumnElement[Any] = domain.ldapserver_id
        return select(column).where(domain.provider_id == provider, column.is_not(None))
    server_id, domain_id = _TABLES[f"{TABLES[kind]}_domain"].columns
    return (select(server_id).join(_TABLES["domain"], domain.id == domain_id)).where(
        domain.provider_id == provider
    )


def _like(pattern: str) -> str:
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")


def count(session: Session, kind: str, where: Iterable[ColumnElement[bool]] = ()) -> int:
    """Return how many rows of a kind fulfil conditions."""
    query = select(func.count()).select_from(_TABLES[TABLES[kind]]).where(*where)
    return session.scalar(query) or 0


def only_provider(session: Session) -> int | None:
    """Return the id of the only provider, None if there are several, or none."""
    ids = list(session.scalars(select(_TABLES["provider"].c.id).limit(2)))
    return ids[0] if len(ids) == 1 else None


def shared_links(session: Session, provider: int) -> dict[str, tuple[int, ...]]:
    """Return the members ``servers`` and ``davservers`` that all domains of a provider have."""
    domain = _TABLES["domain"].c
    number = count(session, "domain", [domain.provider_id == provider])
    found: dict[str, tuple[int, ...]] = {}
    for member, table in stored.LINKED.items():
        server_id, domain_id = _TABLES[f"{table}_domain"].columns
        query = (
            select(server_id)
            .join(_TABLES["domain"], domain.id == domain_id)
            .join(_TABLES[table], _TABLES[table].c.id == server_id)
            .where(domain.provider_id == provider)
            .group_by(server_id)
            .having(func.count() == number)
        )
        found[member] = tuple(sorted(session.scalars(query)))
    return found


def names(session: Session, kind: str, ids: Collection[int]) -> dict[int, str]:
    """Return id -> what people call the row."""
    columns = _TABLES[TABLES[kind]].c
    found: dict[int, str] = {}
    for some in chunks(sorted(ids), KEYS_AT_ONCE):
        query = select(columns.id, columns[NAMES[kind]]).where(columns.id.in_(some))
        found |= {row[0]: str(row[1]) for row in session.execute(query)}
    return found


def names_beginning(session: Session, kind: str, text: str, number: int) -> list[str]:
    """Return at most ``number`` names of rows of a kind that begin with a text.

    ``kind`` may also be "token", "key" or "account". A provider has a short name as well.
    """
    table, name = _OTHERS.get(kind) or (TABLES[kind], NAMES[kind])
    columns = _TABLES[table].c
    dialect = session.engine.dialect.name
    found: set[str] = set()
    spellings = (name, "short_name") if kind == "provider" else (name,)
    for column in (columns[spelling] for spelling in spellings):
        lowered: ColumnElement[Any] = func.lower(column)
        if kind == "domain":
            lowered = domainrows.lower_name(dialect)
        query = select(column).where(lowered.startswith(text.lower(), autoescape=True))
        if dialect == "sqlite":  # its LIKE uses no index
            query = query.where(lowered >= text.lower(), lowered < f"{text.lower()}\U0010ffff")
        found |= set(map(str, session.scalars(query.distinct().order_by(column).limit(number))))
    return sorted(found)[:number]


def page(
    session: Session,
    kind: str,
    where: Iterable[ColumnElement[bool]],
    after: int | None,
    number: int,
) -> list[tuple[int, Item]]:
    """Return id and item of ``number`` rows of a kind, in the order of ids, from one id on."""
    key = _TABLES[TABLES[kind]].c.id
    query = select(key).where(*where).order_by(key).limit(number)
    ids = session.scalars(query if after is None else query.where(key > after)).all()
    return list(stored.items(session, kind, ids))
