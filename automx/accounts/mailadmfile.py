"""The database file of mailadm (https://mailadm.readthedocs.io), versions 0.10 to 1.0.

It is a SQLite file with the tables ``tokens``, ``users`` and ``config``, for one mail domain.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from automx.clientconfig import FORBIDDEN
from automx.errors import BadRequestError

_QUERIES = (
    "SELECT name, value FROM config",
    "SELECT addr, date, ttl, token_name FROM users",
    "SELECT name, token, expiry, prefix, maxuse, usecount FROM tokens",
    "SELECT name FROM pragma_table_info('users')",
    "PRAGMA quick_check(1)",
)


@dataclass(frozen=True, slots=True)
class OldToken:
    """A row of mailadm's table ``tokens``; ``maxuse`` None stands for its default."""

    name: str
    secret: str = field(repr=False)
    expiry: str
    prefix: str
    maxuse: int | None
    usecount: int


@dataclass(frozen=True, slots=True)
class OldUser:
    """A row of mailadm's table ``users``: an address, made at ``date``, for ``ttl`` seconds."""

    address: str
    date: int | None
    ttl: int | None
    token: str


@dataclass(frozen=True, slots=True)
class Mailadm:
    """The content of mailadm's database.

    With ``has_passwords``, it is of a version before mailcow: mail servers read passwords from it.
    """

    config: Mapping[str, str] = field(repr=False)
    tokens: Sequence[OldToken]
    users: Sequence[OldUser]
    has_passwords: bool


def read(path: Path) -> Mailadm:
    """Return the content of mailadm's database at one moment; mailadm may be running.

    Changes nothing. Raises BadRequestError, with a text for the administrator, if the file cannot
    be read, is damaged or is no such database.
    """
    try:
        with closing(_opened(path)) as connection:
            # One name that is not UTF-8 must not prevent the import of all others.
            connection.text_factory = lambda octets: octets.decode("utf-8", "replace")
            connection.execute("BEGIN")
            config, users, tokens, columns, [(verdict,)] = (
                connection.execute(query).fetchall() for query in _QUERIES
            )
    except OSError as error:
        raise BadRequestError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:  # of a damaged name of a table or column
        raise BadRequestError(f"{path} is damaged: it holds a name that is no text") from error
    except sqlite3.Error as error:
        # It may quote a damaged schema.
        reason = " ".join(FORBIDDEN.sub(" ", str(error)).split())
        if reason.startswith("no such"):  # table or column
            text = f"{path} is no database of mailadm 0.10 or later: {reason}"
        else:  # such as "file is not a database" or "database is locked"
            text = f"{path} cannot be read: {reason}"
        raise BadRequestError(text) from error
    if verdict != "ok":
        raise BadRequestError(f"{path} is damaged: {' '.join(str(verdict).split())}")
    return Mailadm(
        {_text(name): _text(value).strip() for name, value in config},
        [
            OldToken(
                *(_text(name), _text(secret), _text(expiry), _text(prefix)),
                maxuse=_number(maxuse),
                usecount=_number(usecount) or 0,
            )
            for name, secret, expiry, prefix, maxuse, usecount in tokens
        ],
        [
            OldUser(_text(address), _number(date), _number(ttl), _text(token))
            for address, date, ttl, token in users
        ],
        has_passwords=("hash_pw",) in columns,
    )


def _opened(path: Path) -> sqlite3.Connection:
    """Open a database without writing to it.

    mailadm 1.0 uses a write-ahead log. SQLite creates files beside such a database even to read it,
    because another program may write. Where it cannot create them and there is no log, no program
    writes.
    """
    with path.open("rb"):
        pass
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        connection.close()
        if error.sqlite_errorname == "SQLITE_READONLY_ROLLBACK":
            raise BadRequestError(
                f"{path} holds half of a change: let mailadm list-tokens put it in order"
            ) from error
        if error.sqlite_errorname not in {"SQLITE_CANTOPEN", "SQLITE_READONLY_DIRECTORY"}:
            raise
        for name in (f"{path.name}-wal", f"{path.name}-journal"):
            log = path.with_name(name)
            if log.exists() and log.stat().st_size:
                raise BadRequestError(
                    f"{path} cannot be read without {name}: copy both into a folder where this user"
                    " may write"
                ) from error
        return sqlite3.connect(f"{uri}&immutable=1", uri=True, isolation_level=None)
    return connection


def _text(value: object) -> str:
    """Return the value of a text column, which SQLite lets hold any type."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def _number(value: object) -> int | None:
    """Return the value of a number column, None if it is not a number."""
    try:
        return int(value)  # type: ignore[call-overload, no-any-return] # TypeError is caught
    except (TypeError, ValueError, OverflowError):
        return None
