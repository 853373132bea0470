"""Restoring: fills an empty database from a backup, in one transaction.

The schema is that of this automx, also for a backup of an older one: revisions only add to it, so
that rows of an older revision are rows of a newer one.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Column, Table, exc, inspect, literal, select, text

from automx import audit, changelog, migrations
from automx.backup.file import Line, Reader
from automx.backup.rows import OF_THE_MOMENT, untyped
from automx.backup.values import Convert, decoder
from automx.changes import insertion
from automx.database import (
    Session,
    file_to_make,
    is_missing,
    open_session,
    outage,
    reason,
    url_of,
)
from automx.errors import BackupError, ConflictError, DatabaseError
from automx.kinds import shown
from automx.models import metadata

_COUNT = "change_count"  # its number goes on, see changelog.begin_anew()
_NUMBER = metadata.tables[_COUNT].c.number
_MOST_CHANGES = 2**53  # SQLite makes a real number of a sum above 2**63
_NOT_LOOKED_AT = {*OF_THE_MOMENT, _COUNT}  # a running server may write there

_ROWS_AT_ONCE = 500
_VALUES_AT_ONCE = 1_000_000  # characters of these rows, about


class _Part(NamedTuple):
    """Some rows of a table."""

    table: Table
    columns: list[str]
    rows: list[list[Any]]


def restore(db_uri: str, backup: Reader, *, actor: str, now: datetime) -> int:
    """Fill an empty database with the rows of a backup; return their number.

    The schema is made where it is missing. The whole file is read before anything is written, and
    all rows are committed at once, with an entry of the audit. Raises BackupError if the file is
    changed, of a newer automx, or holds what this database cannot; ConflictError if the database
    has rows; DatabaseError as migrations.upgrade().
    """
    dialect = url_of(db_uri).get_backend_name().replace("mariadb", "mysql")
    if backup.header.revision not in migrations.revisions():
        raise BackupError(
            f"{backup.name} is of automx {backup.header.version}, whose schema"
            f" ({backup.header.revision}) is newer than that of this automx"
            f" ({migrations.head()}): install that version"
        )
    for _ in _parts(backup, dialect):  # what is no row ends it at once, however long the file is
        pass
    path = file_to_make(db_uri)
    if path is None or not is_missing(path):
        with open_session(db_uri) as session:
            _refuse_rows(session)
    migrations.upgrade(db_uri)
    try:
        with open_session(db_uri) as session:
            return _fill(session, backup, dialect, actor=actor, now=now)
    except exc.DBAPIError as error:  # such as a user who may only read
        raise DatabaseError(cause=f"database: {reason(error)}; nothing was restored") from error


def _fill(session: Session, backup: Reader, dialect: str, *, actor: str, now: datetime) -> int:
    if dialect == "sqlite":
        # Not by wait_for_turn(), which keeps what is written in memory, so that readers are not
        # locked out: an empty database has none.
        session.connection().exec_driver_sql("BEGIN IMMEDIATE")
    else:
        changelog.wait_for_turn(session)
    _refuse_rows(session)
    if dialect == "mysql":
        _refuse_tables_without_transactions(session)
    number, changes = 0, 0
    with insertion.ids_as_given(session):
        for part in _parts(backup, dialect):
            number += len(part.rows)
            rows = [dict(zip(part.columns, row, strict=True)) for row in part.rows]
            if part.table.name == _COUNT:
                changes = max(row["number"] for row in rows)
            else:
                _insert(session, backup, part, rows)
    tables = metadata.sorted_tables
    counted = [table.name for table in tables if table.autoincrement_column is not None]
    insertion.set_sequences(session, counted)
    changelog.begin_anew(session, changes)
    header = backup.header._asdict()
    details = {"backup": header, "numbers": {"restore": {"rows": number}}}
    audit.write(session, actor, now, action="restore", kind="", name="", details=details)
    return number


def _insert(session: Session, backup: Reader, part: _Part, rows: list[dict[str, Any]]) -> None:
    try:
        session.execute(untyped(part.table.name, part.columns).insert(), rows)
    except exc.DBAPIError as error:
        if outage(error) is not None:
            raise
        raise BackupError(
            f"{backup.name}: the database refuses rows of the table {part.table.name}, nothing was"
            f" restored: {reason(error)}"
        ) from error


def _refuse_rows(session: Session) -> None:
    existing = set(inspect(session.connection()).get_table_names())
    for name, table in metadata.tables.items():
        if name in existing - _NOT_LOOKED_AT and session.scalar(
            select(literal(1)).select_from(table).limit(1)
        ):
            raise ConflictError(
                f"The database is not empty, the table {name} has rows: restore into a new database"
            )


def _refuse_tables_without_transactions(session: Session) -> None:
    query = text(
        "SELECT table_name, engine FROM information_schema.tables"
        " WHERE table_schema = DATABASE() AND engine <> 'InnoDB' ORDER BY table_name"
    )
    for name, engine in session.execute(query):
        if name in metadata.tables:
            raise ConflictError(
                f"The table {name} is of {engine}, which has no transactions: restore into a new"
                " database"
            )


def _parts(backup: Reader, dialect: str) -> Iterator[_Part]:
    """Yield the rows of a backup, some at once. Raises BackupError for what cannot be restored."""
    part: _Part | None = None
    seen: set[str] = set()
    decoders: list[Convert] = []
    size = 0
    for line in backup.lines():
        if isinstance(line.value, dict):
            if part and part.rows:
                yield part
            table, columns = _table(backup, line)
            if table.name in seen:
                raise BackupError(f"{backup.name}: line {line.number}: {table.name} came before")
            seen.add(table.name)
            part, size = _Part(table, [column.name for column in columns], []), 0
            decoders = [_decoder(column, dialect) for column in columns]
            continue
        if part is None or not isinstance(line.value, list) or len(line.value) != len(decoders):
            raise BackupError(
                f"{backup.name}: line {line.number}: expected a row of {len(decoders)} values"
            )
        part.rows.append(_values(backup, line, part, decoders))
        size += line.size
        if len(part.rows) == _ROWS_AT_ONCE or size > _VALUES_AT_ONCE:
            yield part
            part, size = part._replace(rows=[]), 0
    if part and part.rows:
        yield part


def _table(backup: Reader, line: Line) -> tuple[Table, list[Column[Any]]]:
    """Return the table and the columns that a line names; the names of SQL are our own."""
    where = f"{backup.name}: line {line.number}"
    name, columns = line.value.get("table"), line.value.get("columns")
    tables = {name: table for name, table in metadata.tables.items() if name not in OF_THE_MOMENT}
    table = tables.get(name) if isinstance(name, str) else None
    if table is None:
        raise BackupError(f"{where}: there is no table {shown(name)}")
    if not isinstance(columns, list):
        raise BackupError(f"{where}: expected a list of columns, found {shown(columns)}")
    for column in columns:
        if not isinstance(column, str) or column not in table.c or columns.count(column) > 1:
            found = shown(column)
            raise BackupError(f"{where}: {table.name} has no column {found}, or has it twice")
    for column in table.c:
        if column.name not in columns and not column.nullable and column.server_default is None:
            raise BackupError(f"{where}: the column {column.name} of {table.name} is missing")
    return table, [table.c[column] for column in columns]


def _decoder(column: Column[Any], dialect: str) -> Convert:
    decode = decoder(column, dialect)
    if column is not _NUMBER:
        return decode

    def limited(value: Any) -> Any:
        number = decode(value)
        if type(number) is not int or number > _MOST_CHANGES:  # SQLite may hold a text there
            raise ValueError(f"expected at most {_MOST_CHANGES}, found {shown(number)}")
        return number

    return limited


def _values(backup: Reader, line: Line, part: _Part, decoders: list[Convert]) -> list[Any]:
    values = []
    for column, decode, value in zip(part.columns, decoders, line.value, strict=True):
        try:
            values.append(decode(value))
        except ValueError as error:
            raise BackupError(
                f"{backup.name}: line {line.number}: {part.table.name}.{column}: {error}"
            ) from None
    return values
