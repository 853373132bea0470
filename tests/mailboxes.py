"""A mail server of the tests' own, and a database of each engine for the rules of accounts.

``Mailboxes`` is a backend that keeps mailboxes in memory and fails when it is told to. The fixture
``accounts_database`` gives the ``db_uri`` of a migrated database of each engine in turn, in which
the domains example.com and example.net are known.
"""

import contextlib
import functools
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import RLock

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from automx.backends import Backends, Mailbox, Owner
from automx.config import AccountSettings
from automx.database import Session, create_engine
from automx.errors import TakenError
from tests.databases import ENGINES, Instance, engine_uri

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=20)  # when "prune" brings in order what was left

DOMAINS = """
INSERT INTO provider VALUES (1, 'Example Inc.', 'Example');
INSERT INTO domain VALUES (1, 'example.com', 1, NULL);
INSERT INTO domain VALUES (2, 'Example.NET', 1, NULL);
"""

_CLEARED = (
    *("backend_key", "account", "token", "server_domain"),
    *("disabled_domain", "domain", "server", "provider"),
)


@dataclass
class Box:
    """A mailbox."""

    owner: Owner
    password: str = field(repr=False, default="")
    is_active: bool = True
    last_login: datetime | None = None
    sees_logins: bool = True


@dataclass
class Failure:
    """What a call raises, and whether it has done its work before."""

    error: BaseException
    is_done: bool = False


@dataclass
class Mailboxes:
    """A backend that keeps mailboxes in memory. ``calls`` are all calls, with their address."""

    boxes: dict[str, Box] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    # Called in the middle of each call, without the lock, with action and address.
    during: Callable[[str, str], object] = lambda _, __: None
    _failures: dict[str, list[Failure]] = field(default_factory=lambda: defaultdict(list))
    _lock: RLock = field(default_factory=RLock)

    def fail(self, action: str, *errors: BaseException, is_done: bool = False) -> None:
        """Let the next calls of an action raise errors, before or after it did its work."""
        self._failures[action] += [Failure(error, is_done) for error in errors]

    def check_address(self, address: str) -> None:
        """Allow each address."""

    def create(self, address: str, password: str, owner: Owner) -> None:
        with self._call("create", address):
            if address in self.boxes:
                raise TakenError
            self.boxes[address] = Box(owner, password)

    def find(self, address: str, owner: Owner) -> Mailbox | None:
        with self._call("find", address):
            box = self.boxes.get(address)
            if box is None:
                return None
            return Mailbox(box.is_active, box.owner == owner, box.last_login, box.sees_logins)

    def set_password(self, address: str, password: str, owner: Owner) -> None:
        with self._call("password", address):
            self.boxes[address].password = password

    def disable(self, address: str, owner: Owner) -> None:
        with self._call("disable", address):
            if address in self.boxes:
                self.boxes[address].is_active = False

    def delete(self, address: str, owner: Owner) -> None:
        with self._call("delete", address):
            self.boxes.pop(address, None)

    def faults(self, domains: Sequence[str]) -> Iterator[str]:
        yield from ()

    def close(self) -> None:
        pass

    @contextlib.contextmanager
    def _call(self, action: str, address: str) -> Iterator[None]:
        with self._lock:
            self.calls.append((action, address))
            failures = self._failures[action]
            failure = failures.pop(0) if failures else None
        self.during(action, address)
        if failure and not failure.is_done:
            raise failure.error
        with self._lock:
            yield
        if failure:
            raise failure.error


def backends(mailboxes: Mailboxes) -> Backends:
    """Return the backends of settings that choose ``command``, which is the tests' own here."""
    opened = Backends(AccountSettings(backend="command"))
    opened._opened |= {"command": mailboxes, "mailcow": mailboxes}
    return opened


def rows(session: Session, table: str) -> list[dict[str, object]]:
    """Return all rows of a table in the order of their ids, as the database keeps them."""
    query = sa.text(f"SELECT * FROM {table} ORDER BY id")
    found = [dict(row) for row in session.execute(query).mappings()]
    session.rollback()
    for row in found:
        for column, value in row.items():
            if isinstance(value, str) and column.endswith(("_at", "_until")):  # SQLite
                row[column] = datetime.fromisoformat(value)
    return found


def dump(session: Session) -> dict[str, list[dict[str, object]]]:
    """Return all that the database knows of tokens and accounts."""
    return {table: rows(session, table) for table in ("token", "account")}


@functools.lru_cache(maxsize=8)
def _unpooled(db_uri: str) -> sa.Engine:
    """Return an engine that keeps no connection; it asks what the database is only once."""
    return sa.create_engine(engine_uri(db_uri), poolclass=NullPool)


def open_transactions(db_uri: str) -> int:
    """Return how many transactions, even if they only read, are open in a database."""
    url = make_url(db_uri)
    if url.get_backend_name() == "sqlite":
        with contextlib.closing(sqlite3.connect(str(url.database), timeout=0)) as connection:
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                return 1
            return 0
    if url.get_backend_name() == "postgresql":
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
            " AND backend_type = 'client backend'"  # others tidy up
        )
    else:
        # Transactions that have not touched a row are not listed.
        query = (
            "SELECT count(*) FROM information_schema.innodb_trx JOIN information_schema.processlist"
            " ON id = trx_mysql_thread_id WHERE db = DATABASE() AND id <> CONNECTION_ID()"
        )
    with _unpooled(db_uri).connect() as connection:
        return int(connection.scalar(sa.text(query)) or 0)


@pytest.fixture(scope="session")
def accounts_postgresql(postgresql_instance: Instance) -> str:
    """Return the ``db_uri`` of a migrated PostgreSQL database for many tests."""
    return postgresql_instance.new_migrated_database()


@pytest.fixture(scope="session")
def accounts_mariadb(mariadb_instance: Instance) -> str:
    """Return the ``db_uri`` of a migrated MariaDB database for many tests."""
    return mariadb_instance.new_migrated_database()


@pytest.fixture(params=ENGINES)
def accounts_database(request: pytest.FixtureRequest, empty_database: Path, tmp_path: Path) -> str:
    """Return the ``db_uri`` of a migrated database, of each engine in turn, with two domains."""
    if request.param == "sqlite":
        path = tmp_path / "automx.sqlite"
        path.write_bytes(empty_database.read_bytes())
        uri = f"sqlite:///{path}"
    else:
        uri = request.getfixturevalue(f"accounts_{request.param}")
    with _unpooled(uri).begin() as connection:
        for table in _CLEARED:
            connection.execute(sa.text(f"DELETE FROM {table}"))
        for statement in DOMAINS.strip().splitlines():
            connection.execute(sa.text(statement))
    return uri


@pytest.fixture
def engine(accounts_database: str) -> Iterator[sa.Engine]:
    """Return an engine as ``automx`` makes it."""
    engine = create_engine(engine_uri(accounts_database))
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: sa.Engine) -> Iterator[Session]:
    """Return a session."""
    with Session(engine) as session:
        yield session


@pytest.fixture
def mailboxes(session: Session, accounts_database: str) -> Mailboxes:
    """Return a mail server that checks on each call that no transaction is open meanwhile."""
    mailboxes = Mailboxes()

    def check(_: str, __: str) -> None:
        assert not session.in_transaction()
        assert open_transactions(accounts_database) == 0

    mailboxes.during = check
    return mailboxes
