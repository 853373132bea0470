"""What a ``db_uri`` names: the kind of database, its driver, the file of SQLite."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy import exc
from sqlalchemy.engine import URL, make_url

from automx.errors import DatabaseError, SettingsError
from automx.inmemory import is_in_memory

# The database in memory that an engine opens. Flask-SQLAlchemy would let all threads use one
# connection at the same time for a URI that it knows as one in memory.
_MEMORY = "sqlite:///file:/automx?mode=memory&uri=true"
IN_MEMORY = "the database of db_uri is in memory: only the web server has it, until it ends"

# The URI of a file of SQLite, in automx's own form.
_FILE = re.compile(r"(sqlite(?:\+pysqlite)?):///(/[^?]*)(?:\?(.*))?")

# The packages of drivers that have another name.
_PACKAGES = {
    "mariadbconnector": "mariadb",
    "mysqlconnector": "mysql-connector-python",
    "mysqldb": "mysqlclient",
    "psycopg2": "psycopg2-binary",
}


@contextmanager
def driver_errors(db_uri: str) -> Iterator[None]:
    """Raise SettingsError if ``db_uri`` names no database, or one whose driver is not installed."""
    try:
        if (port := url_of(db_uri).port) is not None and not 0 < port < 65_536:
            raise SettingsError("db_uri has a port that is not from 1 to 65535")
        yield
    except (TypeError, ValueError) as error:
        raise SettingsError(f"db_uri has an option that its driver refuses: {error}") from error
    except exc.NoSuchModuleError as error:
        raise SettingsError("db_uri names a kind of database that is not known") from error
    except exc.ArgumentError as error:
        raise SettingsError("db_uri is not the URI of a database") from error
    except ImportError as error:
        raise SettingsError(_missing_driver(make_url(db_uri))) from error


def _missing_driver(url: URL) -> str:
    """Return what to do about a driver that cannot be loaded, in one line."""
    kind = url.get_backend_name()
    own = "" if kind == "sqlite" else f"pip install 'automx[{kind.replace('mariadb', 'mysql')}]'"
    driver = url.drivername.partition("+")[2]
    if driver in {"psycopg", "pymysql"}:
        return f"db_uri needs the Python module {driver}: {own}"
    return (
        f"db_uri names the driver {driver}, which cannot be loaded: write {kind}://"
        f"{own and f', whose driver comes with {own}'},"
        f" or pip install {_PACKAGES.get(driver, driver)}"
    )


def url_of(db_uri: str) -> URL:
    """Return the parts of a database URI; raises SettingsError, which does not show it."""
    try:
        return make_url(db_uri)
    except (exc.ArgumentError, ValueError):  # their text may hold the password
        raise SettingsError("db_uri is not the URI of a database") from None


def file_of(db_uri: str) -> Path | None:
    """Return the file of a SQLite database, or None if it has none, or one named by a URI."""
    url = url_of(db_uri)
    if url.get_backend_name() != "sqlite" or is_in_memory(db_uri) or not url.database:
        return None
    return None if url.database.startswith("file:") else Path(url.database)


def file_to_make(db_uri: str) -> Path | None:
    """Return the file that SQLite would create if it is missing, or None if there is none."""
    if path := file_of(db_uri):
        return path
    url = url_of(db_uri)
    is_uri = url.get_backend_name() == "sqlite" and "uri" in url.query
    if not is_uri or is_in_memory(db_uri) or url.query.get("mode", "rwc") != "rwc":
        return None
    return Path(unquote(urlsplit(url.database).path))


def is_missing(path: Path) -> bool:
    """Return whether there is no such file; one in a folder that may not be entered may be there.

    Opening such a file says which folder it is.
    """
    try:
        return not path.exists()
    except PermissionError:
        return False


def require_file(db_uri: str) -> None:
    """Raise DatabaseError if a SQLite file is missing: opening it would create it.

    A database in memory counts as missing.
    """
    if is_in_memory(db_uri):
        raise DatabaseError(cause=IN_MEMORY)
    if (path := file_of(db_uri)) and is_missing(path):
        raise DatabaseError(cause=f"there is no database {path}: run automx db upgrade")


def existing_file_uri(db_uri: str) -> str:
    """Return ``db_uri`` so that SQLite opens the file only if it exists.

    SQLite creates a missing file when it is opened; a web server must report it instead. All
    databases in memory have one URI; the URIs of other databases are returned as they are.
    """
    if is_in_memory(db_uri):
        return _MEMORY
    match = _FILE.fullmatch(db_uri)
    if not match:
        url = url_of(db_uri)
        if (url.database or "").startswith("file:") and file_to_make(db_uri):
            return re.sub(r"(?<=[?&])mode=rwc(?=&|$)", "mode=rw", db_uri) + (
                "" if "mode" in url.query else "&mode=rw"
            )
        return db_uri
    return _file_uri(match, "rw")


def read_only_uri(db_uri: str) -> str:
    """Return a URI by which SQLite cannot write to the file, which must exist.

    Those of other databases are returned as they are.
    """
    match = _FILE.fullmatch(db_uri)
    return _file_uri(match, "ro") if match else db_uri


def _file_uri(match: re.Match[str], mode: str) -> str:
    scheme, path, query = match.groups()
    query = f"&{query}" if query else ""
    path = path.replace("%", "%25").replace("#", "%23")
    return f"{scheme}:///file:{path}?mode={mode}{query}&uri=true"
