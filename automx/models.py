"""The tables: automx2's seven, with exactly its columns in its order, and our own.

People insert rows by position, and databases of automx2 are adopted as they are; so the seven
never change, and whatever is new goes into tables of its own. The migrations alone create them;
the classes here only read and write.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import sqlalchemy
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import (
    Column,
    DateTime,
    Dialect,
    Engine,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    Table,
    TypeDecorator,
)
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import ConnectionPoolEntry

from automx.errors import DatabaseError, SettingsError


class Base(DeclarativeBase):
    """Base of all tables."""


db = SQLAlchemy(model_class=Base)

server_domain = Table(
    "server_domain",
    Base.metadata,
    Column("server_id", ForeignKey("server.id"), primary_key=True),
    Column("domain_id", ForeignKey("domain.id"), primary_key=True),
)

davserver_domain = Table(
    "davserver_domain",
    Base.metadata,
    Column("davserver_id", ForeignKey("davserver.id"), primary_key=True),
    Column("domain_id", ForeignKey("domain.id"), primary_key=True),
)


class Provider(Base):
    """Who runs the mail servers; ``name`` is what people read."""

    __tablename__ = "provider"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    short_name: Mapped[str] = mapped_column(String(32))


class ProviderDetail(Base):
    """What people may want to know of a provider; clientconfig.ProviderDetails explains it."""

    __tablename__ = "provider_detail"

    provider_id: Mapped[int] = mapped_column(
        ForeignKey("provider.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    webmail_url: Mapped[str | None] = mapped_column(String(255))
    help_url: Mapped[str | None] = mapped_column(String(255))
    support_address: Mapped[str | None] = mapped_column(String(320))
    color: Mapped[str | None] = mapped_column(String(7))
    logo_type: Mapped[str | None] = mapped_column(String(32))
    logo_width: Mapped[int | None]
    logo_height: Mapped[int | None]
    logo: Mapped[bytes | None] = mapped_column(LargeBinary)
    oauth2_issuer: Mapped[str | None] = mapped_column(String(255))
    oauth2_auth_url: Mapped[str | None] = mapped_column(String(255))
    oauth2_token_url: Mapped[str | None] = mapped_column(String(255))
    oauth2_scope: Mapped[str | None] = mapped_column(String(255))
    oauth2_client_id: Mapped[str | None] = mapped_column(String(255))


class Documentation(Base):
    """A page that explains the settings to people; its provider has a row of details as well."""

    __tablename__ = "documentation"

    id: Mapped[int] = mapped_column(primary_key=True)
    provider_id: Mapped[int] = mapped_column(
        ForeignKey("provider_detail.provider_id", ondelete="CASCADE"), index=True
    )
    url: Mapped[str] = mapped_column(String(255))
    lang: Mapped[str] = mapped_column(String(35))
    text: Mapped[str] = mapped_column(String(255))


class Server(Base):
    """A mail server; the one with the lower ``prio`` is preferred."""

    __tablename__ = "server"

    id: Mapped[int] = mapped_column(primary_key=True)
    prio: Mapped[int] = mapped_column(server_default="10")
    name: Mapped[str] = mapped_column(String(128))
    port: Mapped[int]
    type: Mapped[str] = mapped_column(String(32))
    socket_type: Mapped[str] = mapped_column(String(32))
    user_name: Mapped[str] = mapped_column(String(64))
    authentication: Mapped[str] = mapped_column(String(32))


class Domain(Base):
    """A mail domain, in lower or upper case, as A-label or U-label, or a wildcard (``*``)."""

    __tablename__ = "domain"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128), unique=True)
    provider_id: Mapped[int] = mapped_column(ForeignKey("provider.id"))
    ldapserver_id: Mapped[int | None] = mapped_column(ForeignKey("ldapserver.id"))


class LdapServer(Base):
    """A directory that knows the login names of a domain's people."""

    __tablename__ = "ldapserver"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    port: Mapped[int]
    use_ssl: Mapped[bool]
    search_base: Mapped[str] = mapped_column(String(128))
    search_filter: Mapped[str] = mapped_column(String(128))
    attr_uid: Mapped[str] = mapped_column(String(32))
    attr_cn: Mapped[str | None] = mapped_column(String(32))
    bind_password: Mapped[str | None] = mapped_column(String(128))
    bind_user: Mapped[str | None] = mapped_column(String(128))


class DavServer(Base):
    """A service reached by URL: calendar, address book, file share; ``port`` 0 is the scheme's."""

    __tablename__ = "davserver"

    id: Mapped[int] = mapped_column(primary_key=True)
    url: Mapped[str] = mapped_column(String(128))
    port: Mapped[int] = mapped_column(Integer)
    type: Mapped[str] = mapped_column(String(32))
    use_ssl: Mapped[bool]
    domain_required: Mapped[bool]
    user_name: Mapped[str | None] = mapped_column(String(64))


class UtcDateTime(TypeDecorator[datetime]):
    """A moment to the second, kept in UTC: databases differ in what they make of time zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return what the database keeps of a moment; ValueError if it has no time zone."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a moment needs a time zone")
        return value and value.astimezone(UTC).replace(tzinfo=None, microsecond=0)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment with its time zone."""
        return value and value.replace(tzinfo=UTC)


class Token(Base):
    """What an administrator gives away as QR code: the right to make some accounts.

    ``token`` is the secret, as mailadm calls it; it is found by its SHA-256, so that the time that
    the search takes tells nothing of it. ``expiry`` is the lifetime of the accounts, as mailadm
    writes it (``1d``, ``never``). ``maxuse`` 0 has no limit. ``backend`` "" is that of the
    settings. ``domain`` is a name, not a row's number: tokens outlive a domain that is seeded anew.
    """

    __tablename__ = "token"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    token: Mapped[str] = mapped_column(String(255))
    token_digest: Mapped[str] = mapped_column(String(64), unique=True)
    domain: Mapped[str] = mapped_column(String(255))
    prefix: Mapped[str] = mapped_column(String(64))
    address: Mapped[str | None] = mapped_column(String(320))
    expiry: Mapped[str] = mapped_column(String(16))
    maxuse: Mapped[int]
    usecount: Mapped[int]
    valid_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    is_revoked: Mapped[bool]
    backend: Mapped[str] = mapped_column(String(32))
    spare_active: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Account(Base):
    """A mailbox that was made by a token, or is being made or deleted; never its password.

    ``mark`` is what the backend keeps with the mailbox, so that one of the same name that somebody
    else made is not taken for ours. ``changed_at`` is when ``state`` got its value.
    """

    __tablename__ = "account"

    id: Mapped[int] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(String(320), unique=True)
    token_id: Mapped[int] = mapped_column(ForeignKey("token.id"), index=True)
    mark: Mapped[str] = mapped_column(String(32))
    backend: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    warned_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


def lower_name(dialect: str) -> sqlalchemy.ColumnElement[str]:
    """Return the column ``domain.name``, to be compared with names in lower case by its index.

    MariaDB and MySQL compare in any case, by the collation; lower() would bypass their key.
    """
    is_mysql = dialect in {"mysql", "mariadb"}
    return Domain.__table__.c.name if is_mysql else sqlalchemy.func.lower(Domain.name)


def engine_options(db_uri: str) -> dict[str, Any]:
    """Return the options of ``sqlalchemy.create_engine`` for a database, as a dict.

    No connection may hang: a database that is gone or locked is noticed within a few seconds.
    """
    url = make_url(db_uri)
    options: dict[str, Any] = {"pool_pre_ping": True}
    match url.get_backend_name():
        case "sqlite":
            options = {"connect_args": {"timeout": 5}}
        case "postgresql":
            # A server that vanished without a word would be waited for for a quarter of an hour.
            timeouts = {"connect_timeout": 5, "tcp_user_timeout": 10_000}
            options |= {"pool_timeout": 5, "connect_args": timeouts}
        case "mysql" | "mariadb" if url.get_driver_name() == "pymysql":
            timeouts = {"connect_timeout": 5, "read_timeout": 30, "write_timeout": 30}
            options |= {"pool_timeout": 5, "connect_args": timeouts}
        case _:
            options["pool_timeout"] = 5
    return options


def drop_stale_connections(engine: Engine) -> None:
    """Let an engine notice that its SQLite file was deleted, replaced or damaged.

    A connection that is kept would go on reading a file that is no longer there, or answer from
    its memory of one; so it is exchanged when the file has changed in any way.
    """
    path = unquote((engine.url.database or "").removeprefix("file:"))
    if engine.dialect.name != "sqlite" or not path.startswith("/"):
        return

    def identity() -> tuple[int, ...] | None:
        try:
            status = os.stat(path)  # noqa: PTH116 - a Path for each request is not worth its time
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    @sqlalchemy.event.listens_for(engine, "connect")
    def remember(_: object, record: ConnectionPoolEntry) -> None:
        record.info["identity"] = identity()

    @sqlalchemy.event.listens_for(engine, "checkout")
    def check(_: object, record: ConnectionPoolEntry, __: object) -> None:
        if record.info["identity"] != identity():
            raise sqlalchemy.exc.DisconnectionError


def existing_file_uri(db_uri: str) -> str:
    """Return ``db_uri`` so that SQLite opens the file only if it exists.

    SQLite creates a missing file when it is opened; a web server must report it instead. The URIs
    of other databases, and of SQLite in memory, are returned as they are.
    """
    match = re.fullmatch(r"(sqlite(?:\+pysqlite)?):///(/[^?]*)(?:\?(.*))?", db_uri)
    if not match or match[2].startswith("file:"):
        return db_uri
    scheme, path, query = match.groups()
    query = f"&{query}" if query else ""
    path = path.replace("%", "%25").replace("#", "%23")
    return f"{scheme}:///file:{path}?mode=rw{query}&uri=true"


@contextmanager
def database_errors() -> Iterator[None]:
    """Raise DatabaseError for what the database, not this program, is to blame for.

    Its ``cause`` tells what the driver said; it holds neither the password nor the statement.
    """
    try:
        yield
    except sqlalchemy.exc.TimeoutError as error:
        raise DatabaseError(cause=f"database: no free connection: {error}") from error
    except sqlalchemy.exc.DBAPIError as error:
        if not _is_outage(error):
            raise
        reason = " ".join(str(error.orig).split())
        if (
            "no such table" in reason
            or "unable to open" in reason
            or _codes(error) & _NO_SUCH_TABLE
        ):
            reason += '; was "automx db upgrade" run?'
        raise DatabaseError(cause=f"database: {reason}") from error


# A missing table or column: PostgreSQL's SQLSTATE, MariaDB's error number.
_NO_SUCH_TABLE = {"42P01", "42703", 1146, 1054}


def _codes(error: sqlalchemy.exc.DBAPIError) -> set[object]:
    return {getattr(error.orig, "sqlstate", None), *getattr(error.orig, "args", ())[:1]}


def _is_outage(error: sqlalchemy.exc.DBAPIError) -> bool:
    """Tell whether the database is gone, locked, damaged or without the tables of this program."""
    operational = sqlalchemy.exc.OperationalError | sqlalchemy.exc.InterfaceError
    if error.connection_invalidated or isinstance(error, operational):
        return True
    if type(error) is sqlalchemy.exc.DatabaseError:  # SQLite: "file is not a database"
        return True
    return bool(_codes(error) & _NO_SUCH_TABLE)


# A deadlock or a lost race: PostgreSQL's SQLSTATE, MariaDB's error number.
_CONFLICTS = {"40001", "40P01", 1020, 1213}


def is_conflict(error: sqlalchemy.exc.DBAPIError) -> bool:
    """Tell whether the database broke a transaction off for another one: it may be run again."""
    return bool(_codes(error) & _CONFLICTS)


def create_engine(db_uri: str) -> Engine:
    """Return an engine for a database of the settings.

    Raises SettingsError if the URI cannot be understood or its driver is not installed.
    """
    with driver_errors(db_uri):
        return sqlalchemy.create_engine(existing_file_uri(db_uri), **engine_options(db_uri))


@contextmanager
def driver_errors(db_uri: str) -> Iterator[None]:
    """Raise SettingsError if ``db_uri`` names no database, or one whose driver is not installed."""
    try:
        yield
    except sqlalchemy.exc.ArgumentError as error:
        raise SettingsError("db_uri is not a database URI") from error
    except ModuleNotFoundError as error:
        extra = make_url(db_uri).get_backend_name().replace("mariadb", "mysql")
        raise SettingsError(
            f"db_uri needs the Python module {error.name}: pip install 'automx[{extra}]'"
        ) from error


@contextmanager
def open_session(db_uri: str) -> Iterator[Session]:
    """Open a session outside of a web request: committed at the end, rolled back on an error.

    It may be committed in between as well, as the rules of accounts do. Raises DatabaseError if the
    database does not answer, and SettingsError for a bad ``db_uri``.
    """
    engine = create_engine(db_uri)
    try:
        with database_errors(), Session(engine) as session:
            yield session
            session.commit()
    finally:
        engine.dispose()
