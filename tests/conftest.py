"""Fixtures of most tests: a migrated SQLite database, the application, rows to put in."""

import contextlib
import gc
import os
import signal
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import FileSystemBytecodeCache

from automx import config, create_app, edge
from automx.migrations import upgrade
from automx.views.http import PARTS
from automx.views.session import REPLICA_TURNS, TURNS, db

pytest_plugins = [
    "tests.apikeys",
    "tests.databases",
    "tests.backups",
    "tests.directory",
    "tests.mailboxes",
    "tests.tokenpages",
    "tests.turns",
]

Execute = Callable[[str], None]

_IN_MEMORY = Path("/dev/shm")
_ROOM = 6 * 2**30  # bytes; all workers' databases together need less


def pytest_configure() -> None:
    """Let tests keep their files in memory if there is room: databases would wait for the disk.

    Tests trust authorities of their own only: to load those of the machine takes longer than most
    tests. A shell starts programs in the background with SIGINT ignored, and so their children.
    """
    os.environ["SSL_CERT_FILE"] = os.devnull
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "TMPDIR" in os.environ or not _IN_MEMORY.is_dir():
        return
    found = os.statvfs(_IN_MEMORY)
    if found.f_bavail * found.f_frsize >= _ROOM and not found.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = tempfile.tempdir = str(_IN_MEMORY)  # of the programs, and of Python


def pytest_collection_finish() -> None:
    """Keep what was collected out of later collections of garbage, which would walk all of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file without rows, to be copied."""
    path = tmp_path_factory.mktemp("database") / "empty.sqlite"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> Path:
    """A migrated SQLite file of the test's own."""
    path = tmp_path / "automx.sqlite"
    path.write_bytes(empty_database.read_bytes())
    return path


@pytest.fixture
def execute(database: Path) -> Execute:
    """Run SQL statements in the test's database, as an administrator would with sqlite3."""

    def run(script: str) -> None:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.executescript(script)

    return run


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> FileSystemBytecodeCache:
    """Templates that were compiled once: that takes longer than most tests of pages."""
    return FileSystemBytecodeCache(str(tmp_path_factory.mktemp("templates")))


@pytest.fixture
def make_app(database: Path, templates: FileSystemBytecodeCache) -> Iterator[Callable[..., Flask]]:
    """Make an application on the test's database; keyword arguments are settings."""
    apps = []

    def make(**settings: object) -> Flask:
        values: dict[str, object] = {"db_uri": f"sqlite:///{database}"}
        values |= {"domain_cache_seconds": 0, "stale_seconds": 0}
        values |= {"db_timeout": 60}  # a busy machine must not look like a silent database
        app = create_app(config.make(**(values | settings)))
        app.testing = False  # errors are answered as they are in production
        app.jinja_env.bytecode_cache = templates
        apps.append(app)
        return app

    yield make
    for app in apps:
        parts = app.extensions[PARTS]
        if parts.follower:
            parts.follower.close()
        turns = [app.extensions[name] for name in (TURNS, REPLICA_TURNS) if name in app.extensions]
        for part in (parts.directories, parts.backends, parts.limits, *turns):
            part.close()
        with app.app_context():
            for engine in db.engines.values():
                engine.dispose()


@pytest.fixture
def same_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """All requests have the same ID, so that whole answers can be compared."""
    monkeypatch.setattr(edge, "getrandbits", lambda _: 1)


@pytest.fixture
def client(make_app: Callable[..., Flask]) -> FlaskClient:
    """A client of an application without a cache."""
    return make_app().test_client()


# One provider with one of everything, as a person would insert it: by position.
EXAMPLE_ROWS = """
INSERT INTO provider VALUES (1, 'Example Inc.', 'Example');
INSERT INTO domain VALUES (1, 'example.com', 1, NULL);
INSERT INTO server VALUES (1, 10, 'imap.example.com', 993, 'imap', 'SSL', '%EMAILADDRESS%', 'plain');
INSERT INTO server VALUES (2, 20, 'pop.example.com', 110, 'pop', 'STARTTLS', '%EMAILLOCALPART%', 'secure');
INSERT INTO server VALUES (3, 10, 'smtp.example.com', 587, 'smtp', 'STARTTLS', '%EMAILADDRESS%', 'plain');
INSERT INTO davserver VALUES (1, 'https://dav.example.com/cal/%EMAILADDRESS%', 0, 'caldav', 1, 0, '%EMAILADDRESS%');
INSERT INTO davserver VALUES (2, 'https://dav.example.com/card', 8443, 'carddav', 1, 1, NULL);
INSERT INTO davserver VALUES (3, 'https://files.example.com/', 443, 'webdav', 1, 0, '%EMAILLOCALPART%');
INSERT INTO server_domain SELECT id, 1 FROM server;
INSERT INTO davserver_domain SELECT id, 1 FROM davserver;
"""  # noqa: E501 - rows are easier to compare when each stands on one line


@pytest.fixture
def example(execute: Execute) -> None:
    """Fill the database with the example rows."""
    execute(EXAMPLE_ROWS)
