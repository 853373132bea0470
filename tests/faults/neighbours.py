"""Neighbours of ``automx serve``: real programs, each with the states in which it fails."""

import contextlib
import itertools
import signal
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from automx.accounts import tokens
from automx.database import Session, create_engine
from automx.migrations import upgrade
from automx.seed import populate
from automx.seeddocument import SAMPLE
from tests.databases import Instance, engine_uri
from tests.directory import PASSWORD as LDAP_PASSWORD
from tests.directory import Directories, ldapserver_row
from tests.faults.states import (
    Fault,
    file_faults,
    freezing,
    killed,
    locking,
    told,
    weather_faults,
)
from tests.mailcow import Domain, running_mailcow
from tests.network import Network, Weather, network
from tests.processes import Running, free_port, wait_until
from tests.redisserver import redis_cli, running_redis

LIMIT = 1  # seconds: the deadline of each neighbour
OWN, OTHER = "own.example", "other.example"
TOKEN = "secret-of-the-token"

SMTP = b"220 mail.example.com ESMTP\r\n"


@dataclass(frozen=True)
class Neighbour:
    """A running neighbour: settings that lead to it, and its faults by state.

    ``secrets`` must not be in the log. ``words`` tell, from the log of a fault, whether what a cell
    says is so.
    ``account_seconds`` is how long a new account may wait for this neighbour and others.
    """

    settings: Mapping[str, str]
    faults: Mapping[str, Fault]
    secrets: tuple[str, ...] = ()
    words: Mapping[str, Callable[[str], bool]] = field(default_factory=dict)
    network: Network | None = None
    account_seconds: int = LIMIT


# Rows


def fill(uri: str, ldapserver: Mapping[str, object] | None = None) -> None:
    """Make the tables; OWN and all domains below it have a directory if one is given."""
    own: dict[str, object] = {"ldapserver_id": ldapserver["id"]} if ldapserver else {}
    domains = [{"name": OWN, **own}, {"name": f"*.{OWN}", **own}, {"name": OTHER}]
    document: dict[str, Any] = {**SAMPLE, "domains": domains}
    if ldapserver:
        document["ldapservers"] = [ldapserver]
    upgrade(uri)
    engine = create_engine(uri)
    with Session(engine) as session:
        populate(session, document)
        tokens.add(session, "poster", OWN, now=datetime.now(UTC), token=TOKEN, maxuse=0)
        session.commit()
    engine.dispose()


def sqlite_settings(folder: Path, ldapserver: Mapping[str, object] | None = None) -> dict[str, str]:
    """Return the settings of a server on a new SQLite file."""
    uri = f"sqlite:///{folder}/automx.sqlite"
    fill(uri, ldapserver)
    return {"AUTOMX_DB_URI": uri}


# Neighbours


@contextlib.contextmanager
def sqlite(folder: Path, _: pytest.FixtureRequest) -> Iterator[Neighbour]:
    """A SQLite file; each fault is one of the file."""
    settings = sqlite_settings(folder)
    file = folder / "automx.sqlite"
    yield Neighbour(settings, {"locked": locking(file), **file_faults(file)})


@contextlib.contextmanager
def wired(instance: Instance, name: str) -> Iterator[tuple[str, Network, dict[str, Fault]]]:
    """Give the URI of a database behind a network, the network, and the faults of both."""
    is_postgresql = instance.uri.startswith("postgresql")
    with network(instance.socket) as before:
        if is_postgresql:
            rest = f"postgresql://postgres:secret-of-db@127.0.0.1:{before.port}/{name}"
            uri = f"{rest}?sslmode=disable&gssencmode=disable"
        else:
            instance.sql(
                "CREATE USER IF NOT EXISTS automx IDENTIFIED BY 'secret-of-db';"
                f" GRANT ALL ON {name}.* TO automx;"
            )
            rest = f"mysql://automx:secret-of-db@127.0.0.1:{before.port}/{name}"
            uri = f"{rest}?ssl_disabled=true"

        def kill() -> None:
            # What the tests' instances keep in memory is written first.
            flush = (
                "SET GLOBAL innodb_flush_log_at_trx_commit = 1; CREATE DATABASE b;"
                " CREATE TABLE b.b (i INT) ENGINE=InnoDB; INSERT INTO b.b VALUES (1);"
                " DROP DATABASE b;"
            )
            instance.sql("CHECKPOINT;" if is_postgresql else flush)
            instance.server.stop(signal.SIGQUIT if is_postgresql else signal.SIGKILL)

        faults = weather_faults(before)
        faults["refuses"] = killed(before, kill, instance.run)
        faults["frozen"] = freezing(lambda: instance.server.process)
        yield uri, before, faults


@contextlib.contextmanager
def database_server(instance: Instance) -> Iterator[Neighbour]:
    """A database server behind a network."""
    direct = engine_uri(instance.new_migrated_database())
    fill(direct)
    with wired(instance, str(make_url(direct).database)) as (uri, before, faults):
        yield Neighbour({"AUTOMX_DB_URI": uri}, faults, ("secret-of-db",), network=before)


@contextlib.contextmanager
def postgresql(_: Path, request: pytest.FixtureRequest) -> Iterator[Neighbour]:
    """A PostgreSQL."""
    with database_server(request.getfixturevalue("postgresql_instance")) as neighbour:
        yield neighbour


@contextlib.contextmanager
def mariadb(_: Path, request: pytest.FixtureRequest) -> Iterator[Neighbour]:
    """A MariaDB."""
    with database_server(request.getfixturevalue("mariadb_instance")) as neighbour:
        yield neighbour


@contextlib.contextmanager
def directory(folder: Path, request: pytest.FixtureRequest) -> Iterator[Neighbour]:
    """An OpenLDAP."""
    directories: Directories = request.getfixturevalue("directories")
    with directories.running() as slapd, network(slapd.port) as before:
        row = ldapserver_row(
            slapd,
            name="127.0.0.1",
            port=before.port,
            search_filter="(uid={local})",
            attr_uid="employeeNumber",
        )
        settings = sqlite_settings(folder, row)
        settings |= {"AUTOMX_LDAP_STARTTLS": "no", "AUTOMX_LDAP_CACHE_SECONDS": "0"}
        faults = weather_faults(before)
        faults["refuses"] = killed(before, lambda: slapd.stop(signal.SIGKILL), slapd.start)
        faults["frozen"] = freezing(lambda: slapd.process)
        yield Neighbour(settings, faults, (LDAP_PASSWORD, "stairs"), network=before)


# Everybody logs in by the local part, and has a name: for each domain of the tests.
PEOPLE_TABLE = "CREATE TABLE people (login VARCHAR(90), name VARCHAR(90))"
PEOPLE_ROW = "INSERT INTO people VALUES ('alice', 'Alice Example')"


def people_settings(folder: Path, uri: str) -> dict[str, str]:
    """Return the settings of a server whose source knows the people of OWN."""
    source = {
        "TYPE": "sql",
        "URI": uri,
        "PEOPLE_QUERY": "SELECT login, name FROM people WHERE login = :local",
        "PEOPLE_TIMEOUT": str(LIMIT),
        "PEOPLE_CACHE_SECONDS": "0",
        "DOMAINS": f"{OWN} *.{OWN}",
    }
    variables = {f"AUTOMX_SOURCE_MAIL_{key}": value for key, value in source.items()}
    return sqlite_settings(folder) | variables


@contextlib.contextmanager
def people_in_server(folder: Path, instance: Instance) -> Iterator[Neighbour]:
    """A database server with people."""
    name = str(make_url(instance.new_database()).database)
    instance.sql(f"{PEOPLE_TABLE};{PEOPLE_ROW};", name)
    with wired(instance, name) as (uri, before, faults):
        settings = people_settings(folder, uri)
        yield Neighbour(settings, faults, ("secret-of-db",), network=before)


@contextlib.contextmanager
def people_in_postgresql(folder: Path, request: pytest.FixtureRequest) -> Iterator[Neighbour]:
    """A PostgreSQL with people."""
    instance: Instance = request.getfixturevalue("postgresql_instance")
    with people_in_server(folder, instance) as neighbour:
        yield neighbour


@contextlib.contextmanager
def people_in_mariadb(folder: Path, request: pytest.FixtureRequest) -> Iterator[Neighbour]:
    """A MariaDB with people."""
    instance: Instance = request.getfixturevalue("mariadb_instance")
    with people_in_server(folder, instance) as neighbour:
        yield neighbour


@contextlib.contextmanager
def people_in_sqlite(folder: Path, _: pytest.FixtureRequest) -> Iterator[Neighbour]:
    """A SQLite file with people."""
    file = folder / "people.sqlite"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as rows:
        rows.execute(PEOPLE_TABLE)
        rows.execute(PEOPLE_ROW)
        rows.executemany("INSERT INTO people VALUES (?, ?)", [("x", "x" * 90)] * 200)  # some pages
    faults = {"locked": locking(file), **file_faults(file)}
    yield Neighbour(people_settings(folder, f"sqlite:///{file}"), faults)


@contextlib.contextmanager
def mailcow(folder: Path, _: pytest.FixtureRequest) -> Iterator[Neighbour]:
    """A mailcow."""
    with running_mailcow() as server:
        server.domains[OWN] = Domain()
        port = make_url(server.url).port
        assert port
        with network(port, garbage=SMTP) as before:
            settings = sqlite_settings(folder)
            settings |= {
                "AUTOMX_ACCOUNT_BACKEND": "mailcow",
                "AUTOMX_MAILCOW_ENDPOINT": f"http://127.0.0.1:{before.port}/api/v1",
                "AUTOMX_MAILCOW_TOKEN": server.key,
            }

            @contextlib.contextmanager
            def held() -> Iterator[None]:
                """Let it read requests, and answer none: so does a process that is stopped."""
                server.hold.clear()
                try:
                    yield
                finally:
                    server.hold.set()

            faults = weather_faults(before) | {"frozen": held}
            yield Neighbour(settings, faults, (server.key,), network=before)


PROGRAM = """\
#!/bin/sh
request=$(cat)
case $(cat "$0.state") in
silent) exec sleep 600 ;;
frozen) kill -STOP $$ ;;
drips) while :; do printf '{'; sleep 0.2; done ;;
garbage) echo 'HTTP/1.1 400 Bad Request'; exit ;;
dies) printf '{"status": "cre'; kill -KILL $$ ;;
esac
echo '{"status": "created"}'
"""


@contextlib.contextmanager
def command(folder: Path, _: pytest.FixtureRequest) -> Iterator[Neighbour]:
    """A program of the administrator that makes mailboxes."""
    program, state = folder / "program", folder / "program.state"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    state.write_text("")

    @contextlib.contextmanager
    def not_executable() -> Iterator[None]:
        program.chmod(0o644)
        try:
            yield
        finally:
            program.chmod(0o755)

    settings = sqlite_settings(folder)
    settings |= {"AUTOMX_ACCOUNT_BACKEND": "command", "AUTOMX_ACCOUNT_COMMAND": str(program)}
    names = ("silent", "frozen", "drips", "garbage", "dies")
    faults = {"refuses": not_executable} | {name: told(state, name) for name in names}
    yield Neighbour(settings, faults)


@contextlib.contextmanager
def redis(folder: Path, _: pytest.FixtureRequest) -> Iterator[Neighbour]:
    """A Redis that counts requests for accounts."""
    port, secret = free_port(), "secret-of-redis"
    started: list[Running] = []
    with contextlib.ExitStack() as stack:

        def start() -> None:
            started.append(
                stack.enter_context(running_redis(folder, port, "--requirepass", secret))
            )

        def ask(*words: str) -> list[str]:
            return redis_cli(port, "-a", secret, *words)

        def emptied(fault: Fault) -> Fault:
            @contextlib.contextmanager
            def emptying() -> Iterator[None]:
                try:
                    with fault():
                        yield
                finally:
                    ask("flushall")

            return emptying

        start()
        before = stack.enter_context(network(port))
        settings = sqlite_settings(folder)
        settings |= {
            "AUTOMX_ACCOUNT_RATE_LIMIT": "100000 per hour",
            "AUTOMX_RATE_LIMIT_STORAGE": f"redis://:{secret}@127.0.0.1:{before.port}",
        }
        faults = weather_faults(before)
        faults["refuses"] = killed(before, lambda: started[-1].stop(signal.SIGKILL), start)
        faults["frozen"] = freezing(lambda: started[-1].process)
        faults = {state: emptied(fault) for state, fault in faults.items()}
        words = {
            "counted by each worker": lambda log: "this worker counts alone" in log,
            "counted in Redis": lambda _: any("client" in key for key in ask("keys", "*")),
        }
        yield Neighbour(settings, faults, (secret,), words, before)


# The system's resolver asks the name servers of the machine, which no test may change: it is
# replaced in the server, for names below neighbour.test.
RESOLVER = """\
import pathlib, socket, time

state = pathlib.Path(__file__).with_name("state")
resolve = socket.getaddrinfo

def getaddrinfo(host, *args, **options):
    if not (host and host[-15:] in (".neighbour.test", b".neighbour.test")):
        return resolve(host, *args, **options)
    while state.read_text() == "silent":
        time.sleep(0.1)
    if state.read_text() == "refuses":
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return resolve("127.0.0.1", *args, **options)

socket.getaddrinfo = getaddrinfo
"""


@contextlib.contextmanager
def name_server(folder: Path, request: pytest.FixtureRequest) -> Iterator[Neighbour]:
    """A name server that knows the host names of a directory, of mailcow and of Redis."""
    (folder / "resolver").mkdir()
    (folder / "resolver" / "sitecustomize.py").write_text(RESOLVER)
    state = folder / "resolver" / "state"
    state.write_text("")

    numbers = itertools.count()
    directories: Directories = request.getfixturevalue("directories")
    redis_port = free_port()
    with contextlib.ExitStack() as stack:
        slapd = stack.enter_context(directories.running())
        server = stack.enter_context(running_mailcow())
        server.domains[OWN] = Domain()
        stack.enter_context(running_redis(folder, redis_port))
        wires = [
            stack.enter_context(network(port))
            for port in (make_url(server.url).port or 0, redis_port)
        ]
        row = ldapserver_row(slapd, name="ldap.neighbour.test", search_filter="(uid={local})")
        settings = sqlite_settings(folder, row)

        def forgotten(fault: Fault) -> Fault:
            """Let nobody know an address any more when the fault begins."""

            @contextlib.contextmanager
            def forgetting() -> Iterator[None]:
                file = folder / "automx.sqlite"
                with fault():
                    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as rows:
                        name = f"ldap{next(numbers)}.neighbour.test"
                        rows.execute("UPDATE ldapserver SET name = ?", [name])
                    for wire in wires:
                        wire.weather = Weather.REFUSING
                    wait_until(lambda: not any(wire.connections for wire in wires), "their end")
                    for wire in wires:
                        wire.weather = Weather.CLEAR
                    yield

            return forgetting

        mailcow_port, redis_port = (wire.port for wire in wires)
        settings |= {
            "PYTHONPATH": str(folder / "resolver"),
            "AUTOMX_LDAP_STARTTLS": "no",
            "AUTOMX_LDAP_CACHE_SECONDS": "0",
            "AUTOMX_ACCOUNT_BACKEND": "mailcow",
            "AUTOMX_ACCOUNT_RATE_LIMIT": "100000 per hour",
            "AUTOMX_MAILCOW_ENDPOINT": f"http://mailcow.neighbour.test:{mailcow_port}/api/v1",
            "AUTOMX_MAILCOW_TOKEN": server.key,
            "AUTOMX_RATE_LIMIT_STORAGE": f"redis://redis.neighbour.test:{redis_port}",
        }
        faults = {name: forgotten(told(state, name)) for name in ("refuses", "silent")}
        # A new account waits for Redis, then for mailcow.
        yield Neighbour(settings, faults, (server.key,), account_seconds=2 * LIMIT)


NEIGHBOURS: dict[
    str,
    Callable[[Path, pytest.FixtureRequest], contextlib.AbstractContextManager[Neighbour]],
] = {
    "SQLite": sqlite,
    "PostgreSQL": postgresql,
    "MariaDB": mariadb,
    "directory": directory,
    "people in PostgreSQL": people_in_postgresql,
    "people in MariaDB": people_in_mariadb,
    "people in SQLite": people_in_sqlite,
    "mailcow": mailcow,
    "account command": command,
    "Redis": redis,
    "name server": name_server,
}
