"""Private PostgreSQL and MariaDB instances, and new empty databases on all three engines.

The fixtures ``sqlite``, ``postgresql`` and ``mariadb`` each give the ``db_uri`` of a new empty
database, ``any_database_uri`` one of each in turn. Those with ``migrated`` in their name give new
databases with the tables: copies of one that was migrated once, since to run all revisions takes
longer than most tests. The instances listen on Unix sockets in a folder of their own, are started
once for all tests that need them, and forget their data when they stop.
"""

import contextlib
import hashlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from automx.config import load
from automx.migrations import upgrade
from tests.kept import alone, cache
from tests.processes import Running, program, running

ENGINES = ("sqlite", "postgresql", "mariadb")
NEW_NAME = "new_name_of_a_database"
_MARIADB_PACKAGE = "mariadb-server"


@dataclass
class Instance:
    """A running database server; ``client`` is the command that runs SQL as its administrator.

    ``socket`` is where it listens; ``start`` runs it until the block ends. ``copying`` takes the
    name of a database, and returns the SQL that makes a database NEW_NAME like it.
    """

    client: list[str]
    uri: str  # of the database "{}"
    socket: Path
    start: Callable[[], contextlib.AbstractContextManager[Running]]
    copying: Callable[[str], str]
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    server: Running = field(init=False)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def run(self) -> None:
        """Start the server, as often as it was stopped."""
        self.server = self.stack.enter_context(self.start())

    def sql(self, statements: str, database: str | None = None) -> str:
        """Run SQL by the server's own command-line program and return what it prints."""
        return run([*self.client, *([database] if database else [])], statements)

    def new_database(self, options: str = "") -> str:
        """Create an empty database and return its ``db_uri``; ``options`` end CREATE DATABASE."""
        name = f"automx_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} {options};")
        return self.uri.format(name)

    def new_migrated_database(self) -> str:
        """Create a database with the tables and without rows, and return its ``db_uri``."""
        name = f"automx_{next(self._numbers)}"
        self.sql(self._copy_of_migrated.replace(NEW_NAME, name))
        return self.uri.format(name)

    @cached_property
    def _copy_of_migrated(self) -> str:
        uri = self.new_database()
        upgrade(engine_uri(uri))
        return self.copying(str(make_url(uri).database))


def engine_uri(db_uri: str) -> str:
    """Return a ``db_uri`` with the driver that automx uses, as SQLAlchemy needs it."""
    return load({"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": db_uri}).db_uri


def run(command: list[str], stdin: str) -> str:
    """Run a program to its end and return what it prints; fail the test if it fails."""
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.fail(f"{command[0]}: {result.stderr}")
    return result.stdout


@contextlib.contextmanager
def running_postgresql() -> Iterator[Instance]:
    """Run a private PostgreSQL until the block ends."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    postgres = str(programs[-1] / "postgres") if programs else program("postgres", "postgresql")
    psql = program("psql", "postgresql")
    as_owner: list[str] = []
    with _folder() as folder:
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(folder, "postgres", "postgres")
            as_owner = [program("setpriv", "util-linux"), "--reuid=postgres", "--regid=postgres"]
            as_owner.append("--clear-groups")
        initdb = str(Path(postgres).with_name("initdb"))
        settings = ["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"]
        command = [*as_owner, initdb, *settings, "--locale=C.UTF-8", f"--pgdata={folder}/data"]
        _make_once(folder / "data", [postgres, "--version"], command)
        options = ["fsync=off", "full_page_writes=off", "synchronous_commit=off"]
        options += ["listen_addresses=", f"unix_socket_directories={folder}", "max_connections=50"]
        command = [*as_owner, postgres, "-D", f"{folder}/data"]
        command += [argument for option in options for argument in ("-c", option)]
        client = [psql, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--username=postgres"]
        client += [f"--host={folder}", "--tuples-only", "--no-align"]
        uri = f"postgresql://postgres@/{{}}?host={folder}"
        socket = folder / ".s.PGSQL.5432"

        def ready() -> bool:
            command = [*client, "--command=SELECT 1", "postgres"]
            return (
                socket.exists()
                and subprocess.run(command, capture_output=True, check=False).returncode == 0
            )

        def start() -> contextlib.AbstractContextManager[Running]:
            return running(command, folder / "log", ready=ready, cwd=folder)

        def copying(name: str) -> str:
            return f"CREATE DATABASE {NEW_NAME} TEMPLATE {name};"

        instance = Instance(client, uri, socket, start, copying)
        with instance.stack:
            instance.run()
            yield instance
            instance.server.stop(signal.SIGQUIT)  # at once: its data has served


@contextlib.contextmanager
def running_mariadb(*more: str) -> Iterator[Instance]:
    """Run a private MariaDB, perhaps with more options, until the block ends."""
    install = program("mariadb-install-db", _MARIADB_PACKAGE)
    mariadbd = program("mariadbd", _MARIADB_PACKAGE)
    with _folder() as folder:
        user = ["--user=root"] if os.geteuid() == 0 else []
        # A server that starts deletes the temporary tables of all that share its tmpdir.
        (folder / "tmp").mkdir()
        options = ["--no-defaults", *user, f"--datadir={folder}/data", f"--tmpdir={folder}/tmp"]
        options.append("--innodb-log-file-size=16M")
        only = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        _make_once(folder / "data", [mariadbd, "--version"], [install, *options, *only])
        client = [program("mariadb", "mariadb-client"), "--no-defaults", "--user=root"]
        socket = folder / "socket"
        client += [f"--socket={socket}", "--skip-column-names"]
        command = [mariadbd, *options, f"--socket={socket}", f"--pid-file={folder}/pid"]
        command += ["--skip-networking", "--skip-log-bin", "--innodb-flush-log-at-trx-commit=0"]
        command += ["--innodb-buffer-pool-size=64M", "--innodb-flush-method=nosync", *more]
        # Without TLS: to read all authorities of the machine takes longer than most tests.
        options_of_driver = f"unix_socket={socket}&ssl_disabled=true"
        uri = f"mysql://root@localhost/{{}}?{options_of_driver}"

        def ready() -> bool:
            command = [*client, "--execute=SELECT 1"]
            return (
                socket.exists()
                and subprocess.run(command, capture_output=True, check=False).returncode == 0
            )

        def start() -> contextlib.AbstractContextManager[Running]:
            return running(command, folder / "log", ready=ready, cwd=folder)

        def copying(name: str) -> str:
            command = [program("mariadb-dump", "mariadb-client"), *client[1:4], "--compact"]
            tables = run([*command, name], "")
            use = f"CREATE DATABASE {NEW_NAME}; USE {NEW_NAME}; SET foreign_key_checks = 0;"
            return f"{use}\n{tables}"

        instance = Instance(client, uri, socket, start, copying)
        with instance.stack:
            instance.run()
            yield instance
            instance.server.stop(signal.SIGKILL)  # its data has served


def _make_once(data: Path, version: list[str], command: list[str]) -> None:
    """Put the data folder of a new server in place.

    It is made by ``command`` once on this machine, which takes seconds, and copied later. What
    ``version`` and ``command`` print and say decides whether it is made anew.
    """
    said = [run(version, ""), *(word.replace(str(data.parent), "") for word in command)]
    name = f"database-{hashlib.sha256(repr(said).encode()).hexdigest()[:16]}"
    kept = cache() / name
    with alone(name):
        if not kept.exists():
            run(command, "")
            new = kept.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            run(["cp", "--archive", str(data), str(new)], "")
            new.rename(kept)
            return
    run(["cp", "--archive", str(kept), str(data)], "")


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Yield a new folder that other users can reach and whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="automx-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture(scope="session")
def postgresql_instance() -> Iterator[Instance]:
    """Run a private PostgreSQL for all tests."""
    with running_postgresql() as instance:
        yield instance


@pytest.fixture(scope="session")
def mariadb_instance() -> Iterator[Instance]:
    """Run a private MariaDB for all tests."""
    with running_mariadb() as instance:
        yield instance


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """Return the ``db_uri`` of a new SQLite database, whose file does not exist yet."""
    return f"sqlite:///{tmp_path}/automx.sqlite"


@pytest.fixture
def postgresql(postgresql_instance: Instance) -> str:
    """Return the ``db_uri`` of a new empty PostgreSQL database."""
    return postgresql_instance.new_database()


@pytest.fixture
def mariadb(mariadb_instance: Instance) -> str:
    """Return the ``db_uri`` of a new empty MariaDB database."""
    return mariadb_instance.new_database()


@pytest.fixture(params=ENGINES)
def any_database_uri(request: pytest.FixtureRequest) -> str:
    """Return the ``db_uri`` of a new empty database, of each engine in turn."""
    uri: str = request.getfixturevalue(request.param)
    return uri


@pytest.fixture
def migrated_sqlite(database: Path) -> str:
    """Return the ``db_uri`` of a new SQLite database with the tables and without rows."""
    return f"sqlite:///{database}"


@pytest.fixture
def migrated_postgresql(postgresql_instance: Instance) -> str:
    """Return the ``db_uri`` of a new PostgreSQL database with the tables and without rows."""
    return postgresql_instance.new_migrated_database()


@pytest.fixture
def migrated_mariadb(mariadb_instance: Instance) -> str:
    """Return the ``db_uri`` of a new MariaDB database with the tables and without rows."""
    return mariadb_instance.new_migrated_database()


@pytest.fixture(params=ENGINES)
def any_migrated_uri(request: pytest.FixtureRequest) -> str:
    """Return the ``db_uri`` of a new database with the tables, of each engine in turn."""
    uri: str = request.getfixturevalue(f"migrated_{request.param}")
    return uri
