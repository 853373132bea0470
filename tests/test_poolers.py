"""PostgreSQL behind a real PgBouncer in transaction mode, whose sessions all programs share."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy.engine import make_url

from automx import migrations
from automx.database import create_engine
from automx.errors import UnavailableError
from automx.views.session import TURNS
from tests.commandline import automx
from tests.databases import Instance, engine_uri
from tests.faults.neighbours import TOKEN, fill
from tests.people import find as find_person
from tests.people import people_of
from tests.pgbouncer import asked, running_pgbouncer
from tests.processes import SLACK, Running, free_port, frozen, wait_until

# What a session of PostgreSQL keeps for the program that is given it next.
STATE = """\
SELECT current_setting('statement_timeout'), current_setting('default_transaction_read_only'),
  (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_listening_channels()),
  (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), pg_my_temp_schema()
"""
UNTOUCHED = "0|off|0|0|0|0"
OWN = "/v1.1/own.example"
LIMIT = 1.0  # db_timeout, in seconds
SOURCE = """\
[source.list]
type = command
command = /bin/echo x.example
provider = 1
like = own.example
"""
BEARER = {"Authorization": "Bearer secret-of-initdb"}


@dataclass
class Pooled:
    """A database with two ways to it: ``uri`` leads through the one session of a PgBouncer."""

    uri: str
    direct: str
    instance: Instance
    pgbouncer: Running

    @property
    def env(self) -> dict[str, str]:
        return {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": self.uri}

    def sql(self, statements: str) -> str:
        """Run SQL without PgBouncer."""
        return self.instance.sql(statements, make_url(self.direct).database)

    def state(self) -> str:
        """Return what was left in the session."""
        return asked(self.uri, STATE)


@pytest.fixture(scope="module")
def pgbouncer(postgresql_instance: Instance) -> Iterator[tuple[Running, str]]:
    """A PgBouncer with one session for each database and user."""
    with running_pgbouncer(postgresql_instance.socket.parent, 1) as started:
        yield started


@pytest.fixture
def pooled(postgresql_instance: Instance, pgbouncer: tuple[Running, str]) -> Pooled:
    """A new empty database behind the PgBouncer."""
    direct = postgresql_instance.new_database()
    uri = pgbouncer[1].format(user="postgres", database=make_url(direct).database)
    return Pooled(uri, direct, postgresql_instance, pgbouncer[0])


@pytest.fixture
def app_of(make_app: Callable[..., Flask]) -> Callable[..., Flask]:
    """Make an application that remembers nothing and waits a second at most."""

    def make(uri: str) -> Flask:
        return make_app(
            db_uri=engine_uri(uri),
            db_timeout=LIMIT,
            account_rate_limit="",
            web_endpoint="https://mail.example.com/new",
            initdb_token="secret-of-initdb",
        )

    return make


def test_servers_and_commands_share_one_session_and_leave_nothing_in_it(
    pooled: Pooled, app_of: Callable[..., Flask], tmp_path: Path
) -> None:
    automx("db", "upgrade", env=pooled.env)
    clients = [app_of(pooled.uri).test_client() for _ in range(2)]
    assert clients[0].get("/initdb/", headers=BEARER).status_code == 200
    assert clients[0].delete("/initdb/", headers=BEARER).status_code == 200
    fill(engine_uri(pooled.uri))
    for _ in range(8):  # the driver prepares a statement that it has seen five times
        for client in clients:
            assert client.get(OWN).status_code == 200
            assert client.get("/readyz").text == "ready\n"
            assert client.post(f"/new?t={TOKEN}").status_code == 200
    sources = tmp_path / "automx.conf"
    sources.write_text(SOURCE)
    automx("sync", "--due", env=pooled.env | {"AUTOMX_CONF": str(sources)})
    assert clients[1].get("/v1.1/x.example").status_code == 200
    automx("prune", env=pooled.env)
    automx("export", env=pooled.env)
    assert automx("account", "list", "--json", env=pooled.env).count('"address"') == 16
    assert pooled.state() == UNTOUCHED


def test_people_behind_a_pooler_are_read_by_transactions_that_refuse_to_write(
    pooled: Pooled, caplog: pytest.LogCaptureFixture
) -> None:
    pooled.sql(
        "CREATE TABLE people (address text, login text);"
        "INSERT INTO people VALUES ('a@own.example', 'alice');"
        "CREATE FUNCTION forget() RETURNS text LANGUAGE sql AS 'DELETE FROM people RETURNING login'"
    )
    uri = engine_uri(pooled.uri)
    query = "SELECT login FROM people WHERE address = :address"
    people = people_of(uri, people_query=query)
    writing = people_of(uri, people_query="SELECT forget() AS login")
    with contextlib.closing(people), contextlib.closing(writing):
        for _ in range(8):
            found = find_person(people, "a@own.example")
            assert found is not None
            assert found.login_name == "alice"
        with pytest.raises(UnavailableError):
            find_person(writing, "a@own.example")
    assert "cannot execute DELETE in a read-only transaction" in caplog.text
    assert pooled.state() == UNTOUCHED
    asked(pooled.uri, "DELETE FROM people")


@pytest.fixture
def limited(pooled: Pooled, pgbouncer: tuple[Running, str]) -> str:
    """The URI of the sample for the role "web", whose statements may take less than LIMIT."""
    fill(engine_uri(pooled.direct))
    pooled.instance.sql(
        "DROP ROLE IF EXISTS web; CREATE ROLE web LOGIN SUPERUSER;"
        " ALTER ROLE web SET statement_timeout = '900ms';"
    )
    return pgbouncer[1].format(user="web", database=make_url(pooled.direct).database)


@contextlib.contextmanager
def locked(uri: str) -> Iterator[None]:
    """Lock the domains of a database."""
    engine = create_engine(engine_uri(uri))
    with contextlib.closing(engine.connect()) as connection:
        connection.exec_driver_sql("LOCK TABLE domain")
        yield
    engine.dispose()


def waiting(pooled: Pooled, seconds: float = 0) -> int:
    """Return how many sessions have waited for a lock for so long."""
    found = pooled.sql(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        f" AND datname = current_database() AND now() - query_start > '{seconds} s'"
    )
    return int(found)


def test_behind_a_pooler_the_limit_of_the_role_ends_what_a_request_has_given_up(
    pooled: Pooled, limited: str, app_of: Callable[..., Flask]
) -> None:
    client = app_of(limited).test_client()
    assert client.get(OWN).status_code == 200
    with locked(pooled.direct):
        began = time.monotonic()
        assert client.get(OWN).status_code == 503
        assert time.monotonic() - began < LIMIT + SLACK
        wait_until(lambda: waiting(pooled) == 0, "the end of the statement")
    wait_until(lambda: client.get(OWN).status_code == 200, "the return")


def test_the_limit_of_the_role_does_not_hold_for_commands(pooled: Pooled, limited: str) -> None:
    env = pooled.env | {"AUTOMX_DB_URI": limited}
    with ThreadPoolExecutor(1) as threads:
        with locked(pooled.direct):
            listed = threads.submit(automx, "domain", "list", env=env)
            wait_until(lambda: waiting(pooled, 1) == 1, "a statement that waits for a second")
        assert "own.example" in listed.result(30)
        with locked(pooled.direct):
            upgraded = threads.submit(downgrade_and_upgrade, limited)
            wait_until(lambda: waiting(pooled, 1) == 1, "an upgrade that waits for a second")
        upgraded.result(60)


def downgrade_and_upgrade(uri: str) -> None:
    """Let both change the schema, which needs each table for itself."""
    migrations.downgrade(engine_uri(uri), "0001")
    migrations.upgrade(engine_uri(uri))


def test_a_server_that_is_silent_behind_a_pooler_is_noticed_in_time_and_seen_to_return(
    pooled: Pooled, app_of: Callable[..., Flask]
) -> None:
    fill(engine_uri(pooled.direct))
    client = app_of(pooled.uri).test_client()
    assert client.get(OWN).status_code == 200
    with frozen(pooled.instance.server.process):
        for _ in range(3):
            began = time.monotonic()
            assert client.get(OWN).status_code == 503
            assert time.monotonic() - began < LIMIT + SLACK
    wait_until(lambda: client.get(OWN).status_code == 200, "the return")


def test_a_server_that_is_gone_behind_a_pooler_is_away_and_seen_to_return(
    pooled: Pooled, app_of: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    fill(engine_uri(pooled.direct))
    app = app_of(pooled.uri)
    client = app.test_client()
    assert client.get(OWN).status_code == 200
    pooled.instance.sql("CHECKPOINT")
    pooled.instance.server.stop(signal.SIGQUIT)
    try:
        assert client.get(OWN).status_code == 503
        assert app.extensions[TURNS].is_away
        lines = len(caplog.records)
        assert {client.get(OWN).status_code for _ in range(20)} == {503}
        assert len(caplog.records) == lines
    finally:
        pooled.instance.run()
    wait_until(lambda: client.get(OWN).status_code == 200, "the return")


def test_a_pooler_that_is_restarted_costs_no_answer(
    postgresql_instance: Instance, app_of: Callable[..., Flask]
) -> None:
    direct, port = postgresql_instance.new_database(), free_port()
    fill(engine_uri(direct))
    name, server = make_url(direct).database, postgresql_instance.socket.parent
    with running_pgbouncer(server, 2, port) as (_, uri):
        client = app_of(uri.format(user="postgres", database=name)).test_client()
        assert client.post(f"/new?t={TOKEN}").status_code == 200
    with running_pgbouncer(server, 2, port):
        assert client.get(OWN).status_code == 200
        assert client.post(f"/new?t={TOKEN}").status_code == 200
