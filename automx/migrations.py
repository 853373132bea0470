"""The database schema: its upgrade, its state, and its SQL.

The revisions stand in ``alembic/versions``, one file each, named by number. automx keeps its own
version table, ``automx_version``, so that a database of automx2 can be adopted while automx2's
``alembic_version`` stays as it is. Alembic and the revisions are loaded only when they are run:
a server that asks for the state of the schema has no need of them.
"""

import errno
import io
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, inspect, select, text
from sqlalchemy.pool import NullPool

from automx.config import load
from automx.database import (
    IN_MEMORY,
    Session,
    driver_errors,
    file_of,
    file_to_make,
    is_in_memory,
    is_missing,
    name_denied_file,
    poolers,
    reason,
    require_file,
    url_of,
)
from automx.errors import BadRequestError, DatabaseError
from automx.models import metadata

VERSION_TABLE = "automx_version"
DIALECTS = ("sqlite", "mysql", "postgresql")
LOCK_SECONDS = 30  # how long to wait for another program that changes the schema


class SchemaState(Enum):
    """How the schema of a database stands to this program; the values are for the administrator."""

    CURRENT = "the database schema is up to date"
    MISSING = "the database holds no automx schema: run automx db upgrade"
    OLDER = "the database schema is older than this automx: run automx db upgrade"
    NEWER = "the database schema belongs to a newer automx: install that version"

    @property
    def is_usable(self) -> bool:
        """Whether this program can use the schema: revisions only add to it."""
        return self in {SchemaState.CURRENT, SchemaState.NEWER}


class Applied(NamedTuple):
    """A revision that was run; ``title`` is the first line of what it does."""

    revision: str
    title: str


def script_location() -> Path:
    """Return the folder of the revisions: inside the installed package, or beside it in a checkout.

    Each candidate must hold ``env.py``, since ``alembic`` beside an installed package is the
    library of that name.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "alembic", package.parent / "alembic"):
        if (folder / "env.py").is_file():
            return folder
    raise DatabaseError(cause=f"the database migrations are missing from {package}")


@cache
def revisions() -> tuple[str, ...]:
    """Return all revisions that this program knows, oldest first."""
    files = (script_location() / "versions").glob("[0-9]*.py")
    return tuple(sorted(file.name.partition("_")[0] for file in files))


def head() -> str:
    """Return the newest revision that this program knows."""
    return revisions()[-1]


def upgrade(db_uri: str, revision: str = "head") -> list[Applied]:
    """Bring a database to a revision and return what was run; nothing if it is there already.

    An empty database gets the schema, one of automx2 is adopted, a missing SQLite file is created
    with its folder. Upgrades that run at the same moment wait for each other. Raises DatabaseError
    if the database cannot be reached or used, or has a schema of a newer automx, BadRequestError
    for an unknown revision and ConflictError for rows that the schema does not allow.
    """
    target = head() if revision == "head" else revision
    if target not in revisions():
        raise BadRequestError(f"There is no revision {revision}: {_known()}")
    if not _make_file(db_uri):
        with _connection(db_uri) as connection:  # needs no lock and no right to write
            if target in _passed(_version(connection)):
                return []
    with _connection(db_uri, lock=True) as connection:
        if target in _passed(_version(connection)):  # another upgrade was quicker
            return []
        return _run("upgrade", target, connection)


def create(db_uri: str, session: Session) -> None:
    """Make the schema in a database that has no table of automx; else do nothing.

    A database of automx2 is not adopted. The session looks for tables, within its limits, and is
    rolled back. Raises DatabaseError as upgrade(), and the errors of the session.
    """
    if not (path := file_of(db_uri)) or not is_missing(path):
        is_there = has_tables(session.connection())
        session.rollback()
        if is_there:
            return
    upgrade(db_uri)


def create_in_memory(connection: Connection) -> None:
    """Make the schema in a new database that ends with its connection; the caller commits."""
    _run("upgrade", head(), connection)


def downgrade(db_uri: str, revision: str) -> list[Applied]:
    """Take a database back to a revision, or to ``base``, and return what was undone.

    Tables with rows stay, so that nothing is lost that automx did not make. Raises as upgrade().
    """
    if revision != "base" and revision not in revisions():
        raise BadRequestError(f"There is no revision {revision}: {_known()} and base")
    require_file(db_uri)
    with _connection(db_uri, lock=True) as connection:
        version = _version(connection)
        passed = _passed(version)
        if not passed or revision == version:
            return []
        if revision != "base" and revision not in passed:
            raise BadRequestError(f"The database is at {version}, which is older than {revision}.")
        steps = _run("downgrade", revision, connection)
        if revision == "base":
            connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
        return steps


def current(db_uri: str) -> str | None:
    """Return the revision of a database, or None if it holds no automx schema.

    Changes nothing. Raises DatabaseError if the database cannot be reached or has a schema of a
    newer automx.
    """
    require_file(db_uri)
    with _connection(db_uri) as connection:
        version = _version(connection)
        _passed(version)
        return version


def trouble(db_uri: str) -> str:
    """Return why a server cannot use a database at the moment, "" if it can; changes nothing."""
    try:
        require_file(db_uri)
        with _connection(db_uri) as connection:
            found = state(connection)
    except DatabaseError as error:
        return error.reason
    return "" if found.is_usable else found.value


def state(connection: Connection) -> SchemaState:
    """Return how the schema of a database stands to this program, by one or two quick queries."""
    version = _version(connection)
    if version is None:
        return SchemaState.MISSING
    if version not in revisions():
        return SchemaState.NEWER
    return SchemaState.CURRENT if version == head() else SchemaState.OLDER


def has_tables(connection: Connection) -> bool:
    """Return whether a database that is open has a table of automx, or of automx2."""
    existing = set(inspect(connection).get_table_names())
    return not existing.isdisjoint({VERSION_TABLE, *metadata.tables})


def applied(connection: Connection) -> str | None:
    """Return the revision of a database that is open; None if automx has made no table there."""
    return _version(connection)


def schema_sql(dialect: str) -> str:
    """Return the SQL that makes the schema in an empty database, version table included.

    ``dialect`` is one of DIALECTS; raises BadRequestError for another.
    """
    if dialect not in DIALECTS:
        raise BadRequestError(f"There is no dialect {dialect}: choose {', '.join(DIALECTS)}")
    output = io.StringIO()
    _alembic("upgrade", "head", dialect, sql=True, output_buffer=output)
    # Alembic asks for the row that it has inserted; it is not read here.
    return re.sub(r"\s+RETURNING [^;]*", "", output.getvalue())


def _make_file(db_uri: str) -> bool:
    """Create the SQLite file and its folders if they are missing; return whether they were.

    The file holds passwords and tokens: only its owner may read it, whatever the umask is. SQLite
    gives the files beside it the same mode.
    """
    path = file_to_make(db_uri)
    if path is None or not is_missing(path):
        return False
    path = Path(os.path.realpath(path))  # of a link that leads nowhere yet
    try:
        for folder in reversed(path.parents):
            try:
                folder.mkdir(0o700)
            except FileExistsError:
                if not folder.is_dir():
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
            else:
                folder.chmod(0o700)
    except OSError as error:
        cause = f"the folder {path.parent} cannot be created: {error.strerror}"
        raise DatabaseError(cause=cause) from error
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:  # another upgrade was quicker
        return True
    except OSError as error:
        raise DatabaseError(cause=f"{path} cannot be created: {error.strerror}") from error
    try:
        os.fchmod(descriptor, 0o600)
        if os.geteuid() == 0:  # the service could not read a file of root's
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
    finally:
        os.close(descriptor)
    return True


def _run(command: str, revision: str, connection: Connection) -> list[Applied]:
    steps: list[Applied] = []

    def note(*, step: Any, **_: object) -> None:
        steps.append(Applied(step.up_revision_id, step.up_revision.doc.rstrip(".")))

    dialect = connection.dialect.name
    _alembic(command, revision, dialect, connection=connection, on_version_apply=note)
    return steps


def _alembic(
    command: str, revision: str, dialect: str, *, sql: bool = False, **options: object
) -> None:
    """Run a command of Alembic; ``options`` reach ``context.configure`` in ``env.py``."""
    import alembic.command
    from alembic.config import Config

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    config.attributes["options"] = _options(dialect) | options
    run: Callable[..., None] = getattr(alembic.command, command)
    run(config, revision, sql=sql)


def _options(dialect: str) -> dict[str, object]:
    return {
        "dialect_name": dialect,
        "version_table": VERSION_TABLE,
        # MariaDB commits before and after each statement that changes the schema.
        "transactional_ddl": dialect not in {"mysql", "mariadb"},
    }


@contextmanager
def options_of_command(*, offline: bool) -> Iterator[dict[str, object]]:
    """Yield the options of ``context.configure`` for the command ``alembic``.

    That is in a checkout, on the database of the settings, which stays locked in the block. Raises
    SettingsError, and DatabaseError as upgrade().
    """
    db_uri = load().db_uri
    dialect = url_of(db_uri).get_backend_name().replace("mariadb", "mysql")
    if offline:
        yield _options(dialect)
        return
    if is_in_memory(db_uri):
        raise DatabaseError(cause=IN_MEMORY)
    _make_file(db_uri)
    with _connection(db_uri, lock=True) as connection:
        yield _options(dialect) | {"connection": connection}


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    query = select(text("version_num")).select_from(text(VERSION_TABLE))
    version: str | None = connection.scalar(query)
    return version


def _passed(version: str | None) -> tuple[str, ...]:
    """Return the revisions that a database has, or raise DatabaseError if it is newer than we."""
    if version is None:
        return ()
    if version not in revisions():
        found = f"the database is at {version}, this automx knows {_known()}"
        raise DatabaseError(cause=f"{SchemaState.NEWER.value} ({found})")
    return revisions()[: revisions().index(version) + 1]


def _known() -> str:
    return ", ".join(revisions())


@contextmanager
def _connection(db_uri: str, *, lock: bool = False) -> Iterator[Connection]:
    """Yield a connection in a transaction that is committed at the end.

    With ``lock``, no other upgrade can run meanwhile. Errors of the database become DatabaseError.
    """
    url = url_of(db_uri)
    where = f"{url.get_backend_name()} database {url.database or ''}"
    where += f" on {url.host}" if url.host else ""
    try:
        with driver_errors(db_uri):
            engine = _engine(url, lock=lock)
        with engine.connect() as connection, connection.begin():
            if lock:
                _wait_for_others(connection)
            yield connection
    except exc.SQLAlchemyError as error:
        raise DatabaseError(cause=f"{where}: {reason(error)}") from error
    except (TypeError, ValueError) as error:  # an option in the URI that the driver does not know
        raise DatabaseError(cause=f"{where}: {error}") from None


def _engine(url: URL, *, lock: bool) -> Engine:
    """Return an engine without a time limit for statements: an index over many rows takes long."""
    if url.get_backend_name() != "sqlite":
        engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 5})
        poolers.without_limit(engine)
        return engine
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": LOCK_SECONDS})
    name_denied_file(engine)

    @event.listens_for(engine, "connect")
    def pass_over_references(dbapi_connection: Any, _: object) -> None:
        # A table is made anew: dropping the old one must not look for its rows in others.
        dbapi_connection.execute("PRAGMA foreign_keys = OFF")

    # Python's sqlite3 would begin a transaction only before INSERT, UPDATE and DELETE, and so make
    # CREATE and DROP final at once.
    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if lock else "BEGIN")

    return engine


def _wait_for_others(connection: Connection) -> None:
    """Lock the schema against other upgrades until the connection ends."""
    match connection.dialect.name:
        case "postgresql":
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
            connection.execute(text(f"SELECT pg_advisory_xact_lock(hashtext('{VERSION_TABLE}'))"))
        case "mysql" | "mariadb":
            connection.execute(text(f"SET SESSION lock_wait_timeout = {LOCK_SECONDS}"))
            name = f"SHA1(CONCAT(COALESCE(DATABASE(), ''), '.{VERSION_TABLE}'))"
            if not connection.scalar(text(f"SELECT GET_LOCK({name}, {LOCK_SECONDS})")):
                raise DatabaseError(cause="the database is locked: another upgrade is running")
        case _:  # SQLite: BEGIN IMMEDIATE has locked it
            pass
