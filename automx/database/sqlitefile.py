"""Connections to the file of SQLite: its texts, its rights, and files that are replaced."""

import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sqlalchemy import Engine, event, exc
from sqlalchemy.pool import ConnectionPoolEntry

from automx.config.files import fingerprint

# What SQLite says where rights are to blame, and the ends of the files that it makes beside it.
_DENIALS = {"unable to open database file", "attempt to write a readonly database"}
_BESIDE = ("-journal", "-wal", "-shm")


def read_any_text(engine: Engine) -> None:
    """Let an engine return texts of SQLite that are not UTF-8 as bytes, which no column may hold.

    By default, such a text makes the whole query fail, and so all rows beside it.
    """
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_text_factory)


def _set_text_factory(connection: Any, _: object) -> None:
    connection.text_factory = _text_or_bytes


def _text_or_bytes(octets: bytes) -> str | bytes:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets


def name_denied_file(engine: Engine) -> None:
    """Let an engine say which file or folder the user may not use, where SQLite only says no."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "handle_error", _name_denied_file)


def _name_denied_file(context: Any) -> None:
    error = context.original_exception
    text = str(error)
    url = context.engine.url if context.engine is not None else None
    if url is not None and text in _DENIALS and (why := denied(_path(url.database))):
        error.args = (f"{text}: {why}",)


def denied(path: Path) -> str:
    """Return why the user of this process may not use a file of SQLite, "" if the user may."""
    if os.geteuid() == 0 or not path.is_absolute():
        return ""
    user = _name(os.geteuid())
    for folder in reversed(path.parents):
        if not _may(folder, os.X_OK):
            return _told(user, "enter the folder", folder)
    if not path.exists():
        return ""
    if not _may(path, os.R_OK):
        return _told(user, "read", path)
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return ""
    for file in (path, *(path.with_name(path.name + end) for end in _BESIDE)):
        if file.exists() and not _may(file, os.W_OK):
            return _told(user, "write", file)
    if not _may(path.parent, os.W_OK):
        return _told(user, "make SQLite's files in", path.parent)
    return ""


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=True)


def _told(user: str, verb: str, path: Path) -> str:
    """Return what a user may not do, and to whom the file or folder belongs."""
    told = f"the user {user} may not {verb} {path}"
    with suppress(OSError):
        found = path.stat()
        owner = _name(found.st_uid)
        told += f", which belongs to {owner} (mode {stat.S_IMODE(found.st_mode):03o}):"
        told += f" run this as {owner}, or change owner or mode"
    return told


def _name(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def _path(database: str | None) -> Path:
    """Return the file that the URL of an engine names."""
    return Path(unquote((database or "").removeprefix("file:")))


def drop_stale_connections(engine: Engine) -> None:
    """Let an engine notice that its SQLite file was deleted, replaced, damaged or made writable.

    A connection that is kept would go on reading a file that is no longer there, or answer from
    its memory of one; so it is exchanged when the file has changed in any way. One that was made
    while the file could only be read would stay so.
    """
    path = str(_path(engine.url.database))
    is_file = path.startswith("/") and engine.url.query.get("mode") != "memory"
    if engine.dialect.name != "sqlite" or not is_file:
        return

    @event.listens_for(engine, "connect")
    def remember(_: object, record: ConnectionPoolEntry) -> None:
        record.info["file"] = fingerprint(path)
        record.info["is_new"] = True
        record.info["is_writable"] = os.access(path, os.W_OK)

    @event.listens_for(engine, "checkout")
    def check(_: object, record: ConnectionPoolEntry, __: object) -> None:
        # Others may have written since a connection was made for this very checkout.
        if record.info.pop("is_new", False):
            return
        has_changed = record.info["file"] != fingerprint(path)
        if has_changed or (not record.info["is_writable"] and os.access(path, os.W_OK)):
            raise exc.DisconnectionError
