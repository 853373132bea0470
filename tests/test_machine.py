"""A machine that fails: its disk is full or read-only, files cannot be opened, its clock jumps."""

import contextlib
import json
import os
import resource
import socket
import sqlite3
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path

import pytest

from automx.accounts import tokens
from automx.database import open_session
from tests.commandline import attempt, automx
from tests.conftest import EXAMPLE_ROWS
from tests.documents import golden
from tests.processes import (
    AUTOMX,
    Answer,
    Server,
    free_port,
    listens,
    one_worker,
    program,
    wait_until,
    workers_of,
)

DOCUMENT = "/mail/config-v1.1.xml?emailaddress=alice@example.com"
UNMAPPED = "/v1.1/xn--mller-kva.example"  # a name that IDNA maps, of no row
GENERAL = "/v1.1/example.com"
ACCOUNT = "/?t=any-token"
UNAVAILABLE = "The service is not available at the moment. Please try again later."
READ_ONLY = "database: attempt to write a readonly database"
FULL = "database: database or disk is full"


@dataclass
class Disk:
    """A file system of its own in ``folder``, of one MiB."""

    folder: Path

    @property
    def database(self) -> Path:
        """Where the tests have their database."""
        return self.folder / "automx.sqlite"

    def fill(self) -> None:
        """Leave no space for another byte."""
        with (
            contextlib.suppress(OSError),
            (self.folder / "rest").open("wb", buffering=0) as rest,
        ):
            while rest.write(bytes(4096)):
                pass

    def free(self) -> None:
        """Free what fill() has taken."""
        (self.folder / "rest").unlink()

    def remount(self, option: str) -> None:
        """Mount it ``ro`` or ``rw``."""
        mount: list[str | Path] = [
            program("mount", "mount"),
            "-o",
            f"remount,{option}",
            self.folder,
        ]
        subprocess.run(mount, check=True)


@pytest.fixture
def disk(tmp_path: Path, empty_database: Path) -> Iterator[Disk]:
    """A disk that holds a database with the example rows and a token."""
    if os.geteuid() != 0:
        pytest.fail("a file system of its own needs root")
    found = Disk(tmp_path / "disk")
    found.folder.mkdir()
    mount: list[str | Path] = [program("mount", "mount"), "-t", "tmpfs", "-o", "size=1m"]
    mount += ["tmpfs", found.folder]
    subprocess.run(mount, check=True)
    try:
        create_database(found.database, empty_database)
        yield found
    finally:
        subprocess.run([program("umount", "mount"), found.folder], check=True)


def create_database(path: Path, empty: Path) -> None:
    path.write_bytes(empty.read_bytes())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(EXAMPLE_ROWS)
    with open_session(f"sqlite:///{path}") as session:
        tokens.add(
            session, "any", "example.com", now=datetime.now(UTC), token="any-token", maxuse=0
        )


def settings(database: Path, **more: str) -> dict[str, str]:
    """Environment of a server that remembers nothing, and makes accounts without a program."""
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "AUTOMX_ACCOUNT_BACKEND": "none",
        "AUTOMX_ACCOUNT_RATE_LIMIT": "",
        "AUTOMX_DOMAIN_CACHE_SECONDS": "0",
        "AUTOMX_STALE_SECONDS": "0",
        **more,
    }


class Client:
    """A client that keeps its connection."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ask(self, path: str, method: str = "GET") -> Answer:
        """Send a request and return its answer."""
        self._connection.request(method, path, headers={"Host": "example.com"})
        response = self._connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read().decode())


def ask(server: Server, path: str, method: str = "GET") -> Answer:
    """Send a request on a new connection."""
    with contextlib.closing(Client(server.port)) as client:
        return client.ask(path, method)


def assert_documents_go_on(server: Server) -> None:
    """Check that documents are answered, and that the server calls itself ready."""
    assert ask(server, DOCUMENT).body == golden("example-alice.autoconfig.xml")
    assert ask(server, "/readyz").status == 200


def assert_no_account(answer: Answer) -> None:
    """Check that an account was refused with 503, in mailadm's JSON."""
    document = {"type": "error", "status_code": 503, "reason": UNAVAILABLE}
    assert (answer.status, json.loads(answer.body)) == (503, document)


# A disk that is full


def test_a_full_disk_stops_new_accounts_only_and_damages_nothing(
    disk: Disk, tmp_path: Path
) -> None:
    env = settings(disk.database)
    with one_worker(env, tmp_path / "serve.log") as server:
        addresses = [json.loads(ask(server, ACCOUNT, "POST").body)["email"]]
        disk.fill()
        for _ in range(2):
            assert_no_account(ask(server, ACCOUNT, "POST"))
            assert_documents_go_on(server)
        assert server.output.count(f"({FULL})\n") == 2
        disk.free()
        addresses.append(json.loads(ask(server, ACCOUNT, "POST").body)["email"])
    with contextlib.closing(sqlite3.connect(disk.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    found = json.loads(automx("account", "list", "--json", env=env))
    assert sorted(row["address"] for row in found) == sorted(addresses)


CHANGES = {
    "a new token": ["token", "add", "new", "--domain", "example.com"],
    "a token": ["token", "mod", "any", "--maxuse", "3"],
    "a token less": ["token", "del", "any"],
    "an account": ["account", "add", "--token", "any", "tmp.new@example.com"],
    "a purge": ["purge", "--yes"],
}


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_command_that_cannot_write_says_so_in_one_line_and_changes_nothing(
    disk: Disk, fault: str
) -> None:
    env = settings(disk.database)
    before = disk.database.read_bytes()
    if fault == "full":
        disk.fill()
    else:
        disk.remount("ro")
    reason = FULL if fault == "full" else READ_ONLY
    for name, command in CHANGES.items():
        result = attempt(*command, env=env)
        told = (result.returncode, result.stdout, result.stderr)
        assert told == (1, "", f"automx: {reason}\n"), name
    for reading in (["export"], ["token", "list"], ["show", "alice@example.com"]):
        automx(*reading, env=env)
    assert disk.database.read_bytes() == before


def test_a_database_that_a_full_disk_keeps_from_being_made_is_made_later(disk: Disk) -> None:
    env = settings(disk.folder / "new.sqlite")
    disk.fill()
    result = attempt("db", "upgrade", env=env)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("automx: sqlite database ")
    disk.free()
    assert automx("db", "upgrade", env=env).splitlines()[-1].startswith("The database is up to")


def test_a_file_that_does_not_fit_on_the_disk_leaves_the_old_one(disk: Disk) -> None:
    env = settings(disk.database, AUTOMX_WEB_ENDPOINT="https://example.com/new")
    code = disk.folder / "code.svg"
    command = ["token", "qr", "any", "--output", str(code)]
    automx(*command, env=env)
    before = code.read_bytes()
    disk.fill()
    result = attempt(*command, env=env)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"automx: {code} cannot be written: No space left on device\n"
    assert code.read_bytes() == before
    assert {path.name for path in disk.folder.iterdir()} == {"automx.sqlite", "code.svg", "rest"}


MAILADM = """
CREATE TABLE tokens (name TEXT, token TEXT, expiry TEXT, prefix TEXT, maxuse INTEGER,
    usecount INTEGER);
CREATE TABLE users (addr TEXT, date INTEGER, ttl INTEGER, token_name TEXT);
CREATE TABLE config (name TEXT, value TEXT);
INSERT INTO tokens VALUES ('old', 'old-token', '1d', 'tmp.', 50, 0);
INSERT INTO config VALUES ('dbversion', '1'), ('mail_domain', 'example.com'),
    ('web_endpoint', 'https://example.com/new'), ('mailcow_token', '932848-324B2E-787E98'),
    ('mailcow_endpoint', 'https://mailcow.example.com/api/v1/');
"""


def test_a_key_of_mailcow_that_does_not_fit_on_the_disk_is_written_later(
    disk: Disk, database: Path, example: None, tmp_path: Path
) -> None:
    old, key = tmp_path / "mailadm.db", disk.folder / "key"
    with contextlib.closing(sqlite3.connect(old)) as connection:
        connection.executescript(MAILADM)
    command = ["import-mailadm", str(old), "--mailcow-token-file", str(key)]
    disk.fill()
    result = attempt(*command, env=settings(database))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"automx: {key} cannot be written: No space left on device\n"
    assert json.loads(automx("token", "list", "--json", env=settings(database))) == []
    disk.free()
    automx(*command, env=settings(database))
    assert key.read_text() == "932848-324B2E-787E98\n"


@pytest.mark.parametrize("command", [["export"], ["--help"]])
def test_output_that_does_not_fit_on_the_disk_is_told_in_one_line(
    disk: Disk, command: list[str]
) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [AUTOMX, *command],
            env={**os.environ, **settings(disk.database)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr == "automx: the output cannot be written: No space left on device\n"


# A log that cannot be written


@pytest.mark.parametrize("log", ["full", "closed"])
def test_a_server_answers_without_its_log(database: Path, empty_database: Path, log: str) -> None:
    create_database(database, empty_database)
    port = free_port()
    reader, writer = os.pipe()
    output = os.open("/dev/full", os.O_WRONLY) if log == "full" else writer
    process = subprocess.Popen(
        [AUTOMX, "serve", "--port", str(port), "--workers", "1"],
        env={**os.environ, **settings(database, AUTOMX_LOGLEVEL="INFO")},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    server = Server(process, Path(os.devnull), port)
    try:
        wait_until(lambda: listens(port), "the start of the server")
        os.close(reader)
        for _ in range(3):
            assert_documents_go_on(server)
            assert ask(server, ACCOUNT, "POST").status == 200
            assert ask(server, "/v1.1/unknown.example").status == 404
        process.terminate()
        assert process.wait(30) == 0
    finally:
        server.stop()
        os.close(writer)
        if output != writer:
            os.close(output)


# A disk that is read-only


def test_a_read_only_disk_stops_new_accounts_until_it_can_be_written(
    disk: Disk, tmp_path: Path
) -> None:
    disk.remount("ro")
    with one_worker(settings(disk.database), tmp_path / "serve.log") as server:
        for _ in range(2):
            assert_no_account(ask(server, ACCOUNT, "POST"))
            assert_documents_go_on(server)
        assert server.output.count(f"({READ_ONLY})\n") == 2
        disk.remount("rw")
        assert ask(server, ACCOUNT, "POST").status == 200


# Files that cannot be opened


@contextlib.contextmanager
def without_files(pid: int) -> Iterator[None]:
    """Let a process open no more files until the block ends."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def processor_seconds(pid: int) -> float:
    """Return how long a process has computed."""
    columns = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, columns[11:13])) / os.sysconf("SC_CLK_TCK")


def test_a_worker_that_can_open_no_more_files_says_so_and_recovers(
    database: Path, empty_database: Path, tmp_path: Path
) -> None:
    create_database(database, empty_database)
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO ldapserver VALUES"
            " (1, 'localhost', 9, 0, 'dc=x', '(mail={0})', 'uid', 'cn', NULL, NULL)"
        )
        connection.execute("INSERT INTO domain VALUES (2, 'ldap.example', 1, 1)")
        connection.execute("INSERT INTO server_domain SELECT id, 2 FROM server")
    hook = tmp_path / "program"
    hook.write_text('#!/bin/sh\ncat >/dev/null\necho \'{"status": "created"}\'\n')
    hook.chmod(0o755)
    env = settings(database, AUTOMX_ACCOUNT_BACKEND="command", AUTOMX_ACCOUNT_COMMAND=str(hook))
    person = "/mail/config-v1.1.xml?emailaddress=a@ldap.example"
    with one_worker(env, tmp_path / "serve.log") as server, contextlib.ExitStack() as stack:
        (worker,) = workers_of(server.process)
        client = stack.enter_context(contextlib.closing(Client(server.port)))
        client.ask("/healthz")
        with without_files(worker):
            assert client.ask("/healthz").status == 200
            for path in (DOCUMENT, UNMAPPED, "/readyz", person, "/", "/static/page.css"):
                assert (path, client.ask(path).status) == (path, 503)
            assert_no_account(client.ask(ACCOUNT, "POST"))
            waiting = socket.create_connection(("127.0.0.1", server.port), 60)
            waiting.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            wait_until(lambda: "Failed to accept connection" in server.output, "the refusal")
            before = processor_seconds(worker), time.monotonic()
            wait_until(lambda: server.output.count("Failed to accept") > 3, "more tries")
            computed = processor_seconds(worker) - before[0]
            assert computed < 0.2 + 0.2 * (time.monotonic() - before[1])
        with waiting:
            assert waiting.recv(15) == b"HTTP/1.1 200 OK"
        assert_documents_go_on(server)
        assert client.ask(UNMAPPED).status == 404
        assert client.ask("/").status == 200
        with without_files(worker):  # now that all is loaded
            assert client.ask("/").status == 200
            assert_no_account(client.ask(ACCOUNT, "POST"))
        assert client.ask(ACCOUNT, "POST").status == 200
        assert workers_of(server.process) == [worker]


# A clock that jumps


@dataclass(frozen=True)
class Clock:
    """The wall clock of programs that are started with ``env``; their other clocks are right."""

    offset: Path
    env: Mapping[str, str]

    def jump(self, days: int) -> None:
        """Let the clock be wrong by so many days."""
        with self.offset.open("r+b") as file:
            file.write(struct.pack("l", days * 86400))


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """A clock that is right."""
    library, offset = tmp_path / "clock.so", tmp_path / "offset"
    source = Path(__file__).parent / "data" / "clock.c"
    command: list[str | Path] = [program("tcc", "tcc"), "-shared", "-nostdlib"]
    command += ["-o", library, source]
    subprocess.run(command, check=True)
    offset.write_bytes(struct.pack("l", 0))
    return Clock(offset, {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)})


def test_a_clock_that_jumps_stops_nothing(
    database: Path, empty_database: Path, tmp_path: Path, clock: Clock
) -> None:
    create_database(database, empty_database)
    env = settings(database, AUTOMX_STALE_SECONDS="3600", **clock.env)
    env["AUTOMX_ACCOUNT_RATE_LIMIT"] = "4 per hour"
    away = database.with_suffix(".away")
    with one_worker(env, tmp_path / "serve.log") as server:
        for days in (1, -1, 400, -400):
            clock.jump(days)
            date = datetime.now(UTC) + timedelta(days=days)
            account = json.loads(ask(server, ACCOUNT, "POST").body)
            assert_documents_go_on(server)
            fresh = ask(server, GENERAL)
            assert (fresh.status, "age" in fresh.headers) == (200, False)
            database.rename(away)
            stale = ask(server, GENERAL)
            assert (stale.status, stale.body) == (200, fresh.body)
            assert stale.headers["cache-control"] == "no-cache"
            assert 0 <= int(stale.headers["age"]) < 300
            away.rename(database)
            wait_until(lambda: "age" not in ask(server, GENERAL).headers, "the recovery")
            listed = json.loads(automx("account", "list", "--json", env=env))
            created = {row["address"]: datetime.fromisoformat(row["created"]) for row in listed}
            assert abs(created[account["email"]] - date) < timedelta(minutes=10)
        limited = ask(server, ACCOUNT, "POST")
        assert limited.status == 429
        assert 3000 < int(limited.headers["retry-after"]) <= 3600
        clock.jump(1)
        assert ask(server, ACCOUNT, "POST").status == 429
