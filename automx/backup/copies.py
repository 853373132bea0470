"""Copies in a folder for temporary files: of a database of SQLite, and of what a pipe gives."""

import io
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, BinaryIO

from automx.backup.file import Reader
from automx.database import Session
from automx.errors import BackupError, DatabaseError

_PIECE = 1024 * 1024  # bytes of a pipe that are read at once


@contextmanager
def of_sqlite(session: Session) -> Iterator[str]:
    """Yield the path of a copy of the database of a session, in which no statement was run yet.

    Raises BackupError if there is no place for it, DatabaseError if the database cannot be read.
    """
    with _telling_folder():
        folder = tempfile.TemporaryDirectory(prefix="automx-")
    with folder as name:
        path = f"{name}/copy.sqlite"
        _copy(session, path)
        yield path


def _copy(session: Session, path: str) -> None:
    driver: Any = session.connection().connection.driver_connection

    def look(status: int, *_: int) -> None:
        if status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:  # it would be tried for ever
            raise sqlite3.OperationalError("database is locked")

    try:
        with closing(sqlite3.connect(path)) as copy:
            driver.backup(copy, progress=look)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:  # only a copy grows
            raise _unusable("No space left on device") from error
        raise DatabaseError(cause=f"database: {error}") from error
    session.rollback()


@contextmanager
def of_pipe(pipe: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """Yield a copy of what a pipe gives, which people know by a name.

    What does not begin as a backup does is not copied. Raises OSError if the pipe cannot be read,
    BackupError for the rest.
    """
    with _telling_folder():
        file = tempfile.TemporaryFile(prefix="automx-")  # noqa: SIM115 - closed below
    with file as copy:
        while piece := pipe.read(_PIECE):
            is_first = not copy.tell()
            with _telling_folder():
                copy.write(piece)
                copy.flush()
            if is_first:
                Reader(copy, name)
                copy.seek(0, io.SEEK_END)
        yield copy


@contextmanager
def _telling_folder() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unusable(error.strerror) from error


def _unusable(reason: str | None) -> BackupError:
    return BackupError(f"no folder for temporary files can be used ({reason}): name one by TMPDIR")
