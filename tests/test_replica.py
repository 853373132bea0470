"""Look-ups from a read replica: what it has is served, and the primary when it is away.

The replica of most tests is a second database, which gets what the test gives it. One of PostgreSQL
that follows by streaming is among the machines of tests/clients/test_scaling.py.
"""

import contextlib
import math
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.engine import make_url

from automx import changelog, config, migrations
from automx.check import database as doctor
from automx.check.finding import Finding, Level
from automx.database import open_session
from automx.errors import SettingsError
from automx.seed import populate
from automx.seeddocument import SAMPLE
from automx.views.http import PARTS
from automx.views.session import REPLICA_TURNS
from tests.databases import Instance, engine_uri, running_mariadb
from tests.documents import autodiscover_request
from tests.faults.neighbours import TOKEN, fill, wired
from tests.network import Network, Weather
from tests.processes import REPOSITORY, SLACK, free_port, wait_until

LIMIT = 6.0  # db_timeout, in seconds; the replica has half of it
OWN, NEW = "/v1.1/own.example", "/v1.1/new.example"


@dataclass
class Pair:
    """A database, and a second one that stands for its replica, behind a network."""

    primary: str
    replica: str
    through_network: str
    network: Network
    instance: Instance

    def add(self, uri: str, domain: str) -> None:
        """Add a domain to one of the two, with its entry in the log of changes."""
        with open_session(uri) as session:
            populate(session, {**SAMPLE, "domains": [{"name": domain}]})

    def sql(self, uri: str, statements: str) -> str:
        return self.instance.sql(statements, make_url(uri).database)


@pytest.fixture(params=["postgresql", "mariadb"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two equal databases of each kind in turn."""
    instance: Instance = request.getfixturevalue(f"{request.param}_instance")
    primary, replica = (engine_uri(instance.new_migrated_database()) for _ in range(2))
    for uri in (primary, replica):
        fill(uri)
    with wired(instance, str(make_url(replica).database)) as (uri, network, _):
        yield Pair(primary, replica, engine_uri(uri), network, instance)


@pytest.fixture
def app_of(make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Flask]:
    """Make an application that reads from the replica, and looks often into the log."""
    monkeypatch.setattr(changelog, "SECONDS", 0.05)

    def make(pair: Pair, **settings: object) -> Flask:
        values: dict[str, object] = {"db_timeout": LIMIT, "account_rate_limit": ""}
        values |= {"db_uri": pair.primary, "db_read_uri": pair.through_network}
        return make_app(**(values | settings))

    return make


def status(client: FlaskClient, path: str) -> int:
    return client.get(path).status_code


def test_look_ups_are_read_from_the_replica_and_all_else_from_the_primary(
    pair: Pair, app_of: Callable[..., Flask]
) -> None:
    client = app_of(pair).test_client()
    pair.sql(pair.replica, "DELETE FROM token; UPDATE server SET name = 'replica.example.com'")
    assert b"replica.example.com" in client.get(OWN).data
    answer = client.post(
        "/autodiscover/autodiscover.xml", data=autodiscover_request("a@own.example")
    )
    assert b"replica.example.com" in answer.data
    assert client.post(f"/?t={TOKEN}").status_code == 200
    assert pair.sql(pair.primary, "SELECT count(*) FROM account").strip() == "1"
    assert pair.sql(pair.replica, "SELECT count(*) FROM account").strip() == "0"


def test_a_change_is_seen_when_the_replica_has_it_with_its_log(
    pair: Pair, app_of: Callable[..., Flask]
) -> None:
    client = app_of(pair, domain_cache_seconds=3600).test_client()
    assert status(client, NEW) == 404
    pair.add(pair.primary, "new.example")
    assert status(client, NEW) == 404
    assert (
        client.get("/readyz").text == "ready; the read replica: it is behind, changes missing: 1\n"
    )
    pair.add(pair.replica, "new.example")
    wait_until(lambda: status(client, NEW) == 200, "the change")
    assert client.get("/readyz").text == "ready\n"


@pytest.mark.parametrize(
    "weather", [Weather.REFUSING, Weather.SILENT, Weather.GARBAGE, Weather.CUT]
)
def test_while_the_replica_is_away_look_ups_and_changes_come_from_the_primary(
    pair: Pair, app_of: Callable[..., Flask], weather: Weather
) -> None:
    app = app_of(pair, domain_cache_seconds=3600, metrics_token="secret-2")
    client = app.test_client()
    token = {"Authorization": "Bearer secret-2"}
    assert client.get("/readyz?details", headers=token).get_json()["read_replica"] == "ok"
    assert status(client, OWN) == 200
    pair.network.weather = weather
    began = time.monotonic()
    assert status(client, "/v1.1/other.example") == 200
    assert time.monotonic() - began < LIMIT + SLACK
    wait_until(lambda: app.extensions[REPLICA_TURNS].is_away, "the notice")
    assert client.get("/readyz").text == "ready; the read replica: it does not answer\n"
    details = client.get("/readyz?details", headers=token).get_json()
    assert details["read_replica"] == "it does not answer"
    assert status(client, NEW) == 404
    pair.add(pair.primary, "new.example")
    wait_until(lambda: status(client, NEW) == 200, "the change")
    pair.network.weather = Weather.CLEAR
    # The replica does not have it yet: what was remembered from the primary is forgotten.
    wait_until(lambda: status(client, NEW) == 404, "the return")
    pair.add(pair.replica, "new.example")
    wait_until(lambda: status(client, NEW) == 200, "the change")


def test_a_look_up_that_the_replica_leaves_silent_is_answered_though_it_answers_others(
    pair: Pair, app_of: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_of(pair)
    client = app.test_client()
    assert status(client, OWN) == 200
    turns = app.extensions[REPLICA_TURNS]
    monkeypatch.setattr(turns, "_answered_at", math.inf)
    pair.network.weather = Weather.SILENT
    assert status(client, "/v1.1/other.example") == 200
    assert not turns.is_away


def test_while_the_primary_is_away_documents_come_from_the_replica(
    pair: Pair, app_of: Callable[..., Flask]
) -> None:
    swapped = Pair(pair.through_network, pair.primary, pair.primary, pair.network, pair.instance)
    client = app_of(swapped).test_client()
    pair.network.weather = Weather.REFUSING
    assert status(client, OWN) == 200
    assert status(client, NEW) == 404
    assert status(client, "/readyz") == 503
    assert client.post(f"/?t={TOKEN}").status_code == 503
    pair.network.weather = Weather.CLEAR
    wait_until(lambda: status(client, "/readyz") == 200, "the return")


@pytest.mark.parametrize("statements", ["DROP TABLE managed_domain", "DROP TABLE change_log"])
def test_a_replica_with_an_older_schema_is_passed_over(
    pair: Pair, app_of: Callable[..., Flask], statements: str
) -> None:
    client = app_of(pair, domain_cache_seconds=3600).test_client()
    older = migrations.revisions()[-2]
    pair.sql(pair.replica, f"UPDATE automx_version SET version_num = '{older}'; {statements}")
    assert status(client, OWN) == 200
    text = "ready; the read replica: its schema is older than this automx\n"
    assert client.get("/readyz").text == text


def test_a_busy_replica_does_not_make_the_primary_busy(
    pair: Pair, app_of: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = app_of(pair).test_client()
    monkeypatch.setattr("automx.database.turns.PLACES", 0)
    reading = client.application.extensions[PARTS].reading
    monkeypatch.setattr(reading, "primary", None)
    assert status(client, OWN) == 503


def finding(level: Level, text: str, advice: str) -> list[Finding]:
    return [Finding("", level, "db_read_uri", text, advice)]


MEANWHILE = "look at the replica; look-ups read from db_uri meanwhile"
BEHIND = "see why it does not follow: clients get old settings meanwhile"


def test_the_doctor_tells_how_the_replica_is(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SECONDS", 2.0)
    settings = config.make(db_uri=pair.primary, db_read_uri=pair.through_network)

    def found() -> list[Finding]:
        with open_session(pair.primary) as session:
            return list(doctor.check_database(session, settings))

    assert found() == []
    pair.add(pair.primary, "new.example")
    text = "the replica is behind, changes missing after 2 s: 1"
    assert found() == finding(Level.WARNING, text, BEHIND)
    pair.add(pair.replica, "new.example")
    pair.add(pair.replica, "own.new.example")
    text = "this database has changes that db_uri does not have"
    assert found() == finding(Level.ERROR, text, "name a replica of db_uri")
    pair.network.weather = Weather.SILENT
    [silent] = found()
    assert (silent.level, silent.advice) == (Level.WARNING, MEANWHILE)
    assert silent.text == "database: no answer within 2 s"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("sqlite:////tmp/x", "db_read_uri must be a URI of PostgreSQL or MariaDB"),
        ("nonsense", "db_read_uri must be a URI such as"),
        ("mysql://db.example.com/automx", "db_read_uri and db_uri name databases of two kinds"),
    ],
)
def test_what_is_no_replica_is_refused(uri: str, message: str) -> None:
    environ = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": "postgresql:///automx"}
    with pytest.raises(SettingsError, match=message):
        config.load(environ | {"AUTOMX_DB_READ_URI": uri})


def mariadb_of_page(machine: int, ports: tuple[int, int]) -> tuple[list[str], str]:
    """Return the options and the statements of docs/scaling.md for the primary, or the replica."""
    page = (REPOSITORY / "docs" / "scaling.md").read_text()
    section = page.partition("### MariaDB\n")[2].partition("\n### ")[0]
    block = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[machine]
    options = [f"--{each.replace(' = ', '=')}" for each in re.findall(r"'(\w+ = \S+)'", block)]
    options += ["--skip-networking=0", "--bind-address=127.0.0.1", f"--port={ports[machine]}"]
    [statements] = re.findall(r"<<'SQL'\n(.*?)SQL\n", block, re.DOTALL)
    statements = re.sub(r"192\.0\.2\.[0-9%]+", "127.0.0.1", statements)
    return options, statements.replace("MASTER_USER", f"MASTER_PORT = {ports[0]}, MASTER_USER")


def test_a_mariadb_that_follows_as_the_page_says_is_a_replica(
    make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changelog, "SECONDS", 0.05)
    ports = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        primary, replica = (
            stack.enter_context(running_mariadb(*mariadb_of_page(machine, ports)[0]))
            for machine in (0, 1)
        )
        for machine, instance in enumerate((primary, replica)):
            instance.sql(mariadb_of_page(machine, ports)[1])
        uris = [engine_uri(f"mysql://automx:PASSWORD@127.0.0.1:{port}/automx") for port in ports]
        fill(uris[0])
        client = make_app(
            db_uri=uris[0], db_read_uri=uris[1], db_timeout=LIMIT, domain_cache_seconds=3600
        ).test_client()
        wait_until(lambda: client.get("/readyz").text == "ready\n", "the replica")
        replica.sql("STOP SLAVE")
        assert status(client, OWN) == 200
        with open_session(uris[0]) as session:
            populate(session, {**SAMPLE, "domains": [{"name": "new.example"}]})
        assert status(client, NEW) == 404
        text = "ready; the read replica: it is behind, changes missing: 1\n"
        assert client.get("/readyz").text == text
        replica.sql("START SLAVE")
        wait_until(lambda: status(client, NEW) == 200, "the change")
        replica.server.stop(signal.SIGKILL)
        assert status(client, "/v1.1/other.example") == 200
        assert client.post(f"/?t={TOKEN}").status_code == 200
        expected = "ready; the read replica: it does not answer\n"
        wait_until(lambda: client.get("/readyz").text == expected, "the notice")
