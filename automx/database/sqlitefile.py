"""Connections to the file of SQLite: its texts, and files that are replaced or become writable."""

import os
from typing import Any
from urllib.parse import unquote

from sqlalchemy import Engine, event, exc
from sqlalchemy.pool import ConnectionPoolEntry

from automx.config.files import fingerprint


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


def drop_stale_connections(engine: Engine) -> None:
    """Let an engine notice that its SQLite file was deleted, replaced, damaged or made writable.

    A connection that is kept would go on reading a file that is no longer there, or answer from
    its memory of one; so it is exchanged when the file has changed in any way. One that was made
    while the file could only be read would stay so.
    """
    path = unquote((engine.url.database or "").removeprefix("file:"))
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
