"""The rows of ``domain`` that may decide for a domain, by one query of each kind of database.

Blanks around a name do not matter, up to two of them: they come with copied texts.
"""

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Dialect,
    Select,
    String,
    and_,
    bindparam,
    cast,
    exc,
    func,
    null,
    or_,
    select,
    text,
)
from sqlalchemy.sql.compiler import Compiled, SQLCompiler

from automx.address import names_for, spellings
from automx.database import Session, lacks_table
from automx.models import (
    ORIGINS,
    DisabledDomain,
    Domain,
    ManagedDomain,
    davserver_domain,
    metadata,
    server_domain,
)

_BEFORE = ("", " ", "  ", "\t")
_AFTER = (*_BEFORE, "\r", "\n", "\r\n")
_BLANKS = [(before, after) for before in _BEFORE for after in _AFTER]
_SQL_BLANKS = r"E' \t\r\n'"  # in PostgreSQL, as in the index of names with blanks
_NAMES_AT_ONCE = 16  # of one query: its time grows with them; most domains have fewer

_UNCUT = 1_000  # characters; MySQL cuts longer texts off at its group_concat_max_len

_TABLES = metadata.tables
_ORIGIN = ORIGINS["domain"]


class Row(NamedTuple):
    """A row of ``domain``, with the ids that it refers to.

    ``is_off`` is whether it is disabled, ``document`` the stored PACC document of the domain that
    was asked for, None if it was not asked for, ``origin`` that of the row.
    """

    id: int
    name: str
    provider_id: int
    ldapserver_id: int | None
    is_off: bool
    document: bytes | None
    origin: str | None
    servers: tuple[int, ...]
    services: tuple[int, ...]


def with_document(session: Session, domain: str) -> Row | None:
    """Return what deciding() does, with the stored PACC document of the domain.

    A schema before revision 0009 has none. There, a session that is_reading asks again without it.
    """
    try:
        return deciding(session, domain, has_documents=True)
    except exc.DBAPIError as error:
        if session.is_reading and lacks_table(error):
            return deciding(session, domain)
        raise


def deciding(session: Session, domain: str, *, has_documents: bool = False) -> Row | None:
    """Return the row that decides for a domain, given as A-label in lower case; None if none."""
    names = _names_in_order(domain)
    found: list[Row] = []
    for at in range(0, len(names), _NAMES_AT_ONCE):
        some = names[at : at + _NAMES_AT_ONCE]
        query, parameters = _query_for(session.engine.dialect, domain, some, has_documents)
        found += [row_of(session, columns) for columns in session.rows(query, parameters)]
    return _best(found, names)


def lower_name(dialect: str) -> ColumnElement[str]:
    """Return the column ``domain.name``, to be compared with names in lower case by its index.

    MariaDB and MySQL compare in any case, by the collation; lower() would bypass their key.
    """
    is_mysql = dialect in {"mysql", "mariadb"}
    name: Column[str] = Domain.c.name
    return name if is_mysql else func.lower(name)


def padded(names: Iterable[str]) -> list[str]:
    """Return names with the blanks around them that are found in tables."""
    return [before + name + after for name in names for before, after in _BLANKS]


def row_of(session: Session, columns: Sequence[Any]) -> Row:
    """Return the row of a query of query_rows()."""
    row_id, name, provider, directory, off, *others, servers, services = columns
    links = (
        _linked(session, table, row_id, ids)
        for table, ids in (("server", servers), ("davserver", services))
    )
    return Row(row_id, name, provider, directory, off is not None, *others, *links)


def ids_together(column: ColumnElement[int]) -> ColumnElement[str]:
    """Return all ids of a column as one text: drivers in Python take long for a row of each."""
    return func.aggregate_strings(cast(column, String), ",")


@lru_cache(1_000)  # domains of one provider share it
def ids_in(text: str | bytes) -> tuple[int, ...] | None:
    """Return the ids in a text of ids_together().

    None if MySQL may have cut it off, or if it holds something else: SQLite lets any text into a
    column, and bytes as well.
    """
    parts = text.split(",") if isinstance(text, str) else [""]
    if len(text) > _UNCUT or not all(part.removeprefix("-").isdecimal() for part in parts):
        return None
    return tuple(map(int, parts))


def _linked(session: Session, table: str, domain: int, text: str | bytes | None) -> tuple[int, ...]:
    """Return the ids in a text of the query, or ask for them once more."""
    if text is None:
        return ()
    if (ids := ids_in(text)) is not None:
        return ids
    server_id, domain_id = _TABLES[f"{table}_domain"].columns
    found = session.scalars(select(server_id).where(domain_id == domain))
    return tuple(each for each in found if isinstance(each, int))


def _best(found: Iterable[Row], names: Sequence[str]) -> Row | None:
    """Return the row of the first of some names; of several, one without blanks around its name."""
    ranks = {name: rank for rank, name in enumerate(names)}
    # A collation may find too much ("muller.de" for "müller.de"): compare once more.
    fitting = [
        (ranks[name], name != row.name.lower(), row.id, row)
        for row in found
        if isinstance(row.name, str) and (name := row.name.strip().lower()) in ranks
    ]
    return min(fitting)[-1] if fitting else None


def _names_in_order(domain: str) -> list[str]:
    """Return the values of the column ``domain.name`` that fit a domain, best first."""
    return [spelling for name in names_for(domain) for spelling in spellings(name)]


def _query_for(
    dialect: Dialect, domain: str, names: Sequence[str], has_documents: bool
) -> tuple[str, Any]:
    """Return the query for rows that have one of some names, and its parameters.

    There may be blanks around the names, as in padded(); a few other rows may be found as well.
    """
    if dialect.name == "postgresql":
        return _array_query(dialect, has_documents), {"domain": domain, "names": " ".join(names)}
    query, keys, order = _range_query(dialect, len(names), has_documents)
    values = [domain]
    for name in names:
        for before in _BEFORE:
            padded_name = before + name
            values += (padded_name, f"{padded_name}\t", f"{padded_name}!")
    if order is None:
        return query, dict(zip(keys, values, strict=True))
    return query, tuple([values[index] for index in order])


@cache
def _range_query(
    dialect: Dialect, number: int, has_documents: bool
) -> tuple[str, tuple[str, ...], tuple[int, ...] | None]:
    """Return the query for rows that have one of so many names, and the names of its parameters.

    Their order comes last; it is None if they are given by name. The query has the stored PACC
    document of the parameter ``domain``, too. It is compiled: a query of SQLAlchemy takes longer
    than SQLite's answer.

    In all collations of SQLite, MariaDB and MySQL, blanks come before "!": a name with blanks
    behind it stands beside the name itself. To look for each by itself takes three times as long.
    """
    name = lower_name(dialect.name)
    indexes = range(number * len(_BEFORE))
    keys = [f"{kind}_{index}" for index in indexes for kind in ("name", "tab", "end")]
    fits: list[ColumnElement[bool]] = []
    for index in indexes:
        same, tab, end = (bindparam(key, "", String) for key in keys[3 * index : 3 * index + 3])
        if dialect.name == "sqlite":
            fits.append(and_(name >= same, name < end))
        else:  # by PAD SPACE, the name itself comes after the same with a tab behind it
            fits += [name == same, and_(name >= tab, name < end)]
    query = query_rows(_asked(has_documents)).where(or_(*fits))
    compiled = _compiled(query, dialect)
    order = compiled.positiontup if isinstance(compiled, SQLCompiler) else None
    keys = ["domain", *keys]
    return str(compiled), (*keys,), None if order is None else tuple(map(keys.index, order))


@cache
def _array_query(dialect: Dialect, has_documents: bool) -> str:
    """Return PostgreSQL's query for rows that have one of some names, as _range_query().

    Its collation may pass over blanks, so that names with blanks have an index of their own, which
    is asked only if there is no row of the domain's own name. The inmost queries hide how many
    names there are: else each query would be planned anew, because a plan for the very names seems
    cheaper. The names come as one text, in which blanks divide them: a driver in Python takes long
    for a list.
    """
    names = "ARRAY(SELECT unnest(string_to_array(:names, ' ')))"
    bare = f"btrim({{}}, {_SQL_BLANKS})"
    fits = text(
        f"domain.id = ANY (ARRAY(SELECT id FROM domain WHERE lower(name) = ANY ({names})"  # noqa: S608 - nothing of strangers in it
        f" UNION ALL SELECT id FROM domain WHERE name <> {bare.format('name')}"
        f" AND {bare.format('lower(name)')} = ANY ({names})"
        " AND NOT EXISTS (SELECT FROM domain WHERE lower(name) = :domain)))"
    ).bindparams(bindparam("domain", "", String), bindparam("names", "", String))
    query = query_rows(_asked(has_documents)).where(fits)
    return str(_compiled(query, dialect))


def _asked(has_documents: bool) -> ColumnElement[str] | None:
    """Return the domain whose document is wanted, None if that of no domain is."""
    return bindparam("domain", "", String) if has_documents else None


def _compiled(query: Select[*tuple[Any, ...]], dialect: Dialect) -> Compiled:
    return query.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})


def query_rows(domain: ColumnElement[str] | None) -> Select[*tuple[Any, ...]]:
    """Return the query for rows of ``domain``, with the stored PACC document of ``domain``.

    None stands for no document.
    """
    servers, services = (
        select(ids_together(server_id)).where(domain_id == Domain.c.id).scalar_subquery()
        for server_id, domain_id in (server_domain.columns, davserver_domain.columns)
    )
    # No outer joins: of tables that it has never analyzed, PostgreSQL expects hundreds of rows for
    # a domain, and would compile the query each time, which takes a hundred times as long.
    off, origin = (
        select(column).where(column.table.c.domain_id == Domain.c.id).scalar_subquery()
        for column in (DisabledDomain.c.domain_id, _ORIGIN.c.origin)
    )
    stored: ColumnElement[Any] = null()
    if domain is not None:
        is_asked = ManagedDomain.c.name == domain
        stored = select(ManagedDomain.c.document).where(is_asked).scalar_subquery()
    columns = (Domain.c.id, Domain.c.name, Domain.c.provider_id, Domain.c.ldapserver_id)
    return select(*columns, off, stored, origin, servers, services)
