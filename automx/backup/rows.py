"""The rows of all tables, as they are written into a backup."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from typing import BinaryIO

import sqlalchemy
from sqlalchemy import Table, inspect, select, text

from automx import migrations
from automx.backup import copies
from automx.backup.file import Writer
from automx.backup.values import encoder
from automx.database import Session, begin_snapshot, open_session
from automx.errors import DatabaseError
from automx.migrations import SchemaState
from automx.models import metadata

# Tables whose rows are of the moment only: which process works now, what running workers have to
# forget, whether a neighbour has accepted a key. Their rows may be deleted at any time.
OF_THE_MOMENT = {"lease", "change_log", "backend_key"}

_AT_ONCE = 100  # rows that are read from the server at once; a logo has 65 kB


@contextmanager
def snapshot(session: Session) -> Iterator[Session]:
    """Yield a session that reads the database as it is now, while others go on to write.

    It is called before the first statement. Of SQLite, it is a copy in a folder for temporary
    files, since a reader keeps others from committing.
    """
    dialect = session.engine.dialect.name
    if dialect == "sqlite":
        with copies.of_sqlite(session) as path, open_session(f"sqlite:///{path}") as of_copy:
            yield of_copy
        return
    begin_snapshot(session)
    if dialect in {"mysql", "mariadb"}:  # a reader of standard output may be slow
        session.execute(text("SET SESSION net_write_timeout = 86400"))
    yield session


def write(
    session: Session,
    output: BinaryIO,
    *,
    version: str,
    now: datetime,
    warn: Callable[[str], None],
) -> int:
    """Write a backup of all rows that the session sees; return their number.

    ``version`` is that of automx. The schema may be an older one. ``warn`` is called with one line
    about each column that somebody has added to a table of automx. Memory does not grow with the
    number of rows. Raises DatabaseError if the schema is missing or newer.
    """
    connection = session.connection()
    state = migrations.state(connection)
    if state in {SchemaState.MISSING, SchemaState.NEWER}:
        raise DatabaseError(cause=state.value)
    revision = migrations.applied(connection) or ""
    writer = Writer(output, version=version, revision=revision, now=now)
    existing = set(inspect(connection).get_table_names())
    for table in metadata.sorted_tables:  # rows that others refer to come first
        if table.name in existing - OF_THE_MOMENT:
            _write_table(session, table, writer, warn)
    writer.end()
    return writer.rows


def _write_table(
    session: Session, table: Table, writer: Writer, warn: Callable[[str], None]
) -> None:
    found = [column["name"] for column in inspect(session.connection()).get_columns(table.name)]
    for name in found:
        if name not in table.c:
            warn(f"the column {name} of the table {table.name} is not automx's, and is left out")
    columns = [column for column in table.columns if column.name in found]
    encoders = [encoder(column) for column in columns]
    names = [column.name for column in columns]
    query = select(*untyped(table.name, names).c).order_by(
        *(sqlalchemy.column(column.name) for column in table.primary_key)
    )
    writer.table(table.name, names)
    with closing(session.execute(query.execution_options(yield_per=_AT_ONCE))) as rows:
        for row in rows:
            writer.row([encode(value) for encode, value in zip(encoders, row, strict=True)])


def untyped(table: str, columns: list[str]) -> sqlalchemy.TableClause:
    """Return a table whose values are those of the driver, as they are."""
    return sqlalchemy.table(table, *map(sqlalchemy.column, columns))
