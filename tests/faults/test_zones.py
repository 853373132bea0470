"""What ``automx dns-apply`` does while the name server of a zone fails: docs/reliability.md.

A real Knot stands behind a network, and fails before the zone is read, or before it is written.
"""

import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import pytest

from automx import config
from automx.errors import ZoneError, ZoneUncertainError
from automx.zones.apply import Options
from automx.zones.plan import Plan
from automx.zones.primary import Primary
from tests.commandline import attempt, automx
from tests.examples import DOCUMENT
from tests.faults.states import Fault, freezing, killed, weather_faults
from tests.faults.table import rows
from tests.network import Network, network
from tests.processes import listens, wait_until
from tests.zonekill import Run
from tests.zoneservers import ZoneServer, zone_server

LIMIT = 1.0  # seconds: zone_timeout
SLACK = 4.0  # the machine may be busy
HOST = "automx.example.net"
NOW = datetime(2026, 11, 30, 8, tzinfo=UTC)
UNCERTAIN = "may have been written"

PROMISES = {
    state: cells
    for states, *cells in rows("The name server of a zone")
    for state in states.split(", ")
}
WRONG = {
    "another secret": {"AUTOMX_ZONE_SECRET": "AAAA"},
    "another key": {"AUTOMX_ZONE_KEY": "other"},
}
FAULTS = [state for state in PROMISES if state not in WRONG]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZoneServer]:
    """A Knot, for all tests: it starts most quickly."""
    with zone_server("knot", tmp_path_factory.mktemp("zones") / "knot") as started:
        yield started


@pytest.fixture(scope="module")
def before(server: ZoneServer) -> Iterator[Network]:
    """The network before it."""
    with network(server.port) as running:
        yield running


@pytest.fixture
def faults(server: ZoneServer, before: Network) -> dict[str, Fault]:
    """Faults by state."""

    def restart() -> None:
        server.restart()
        wait_until(lambda: listens(server.port), "its return")

    def kill() -> None:
        assert server.started
        server.started.stop(signal.SIGKILL)

    found = weather_faults(before)
    found["refuses"] = killed(before, kill, restart)
    found["frozen"] = freezing(lambda: server.process)
    return found


@pytest.fixture
def domains(server: ZoneServer) -> list[str]:
    """Domains of which the zone knows nothing."""
    return sorted(server.new_domain() for _ in range(3))


@pytest.fixture
def env(
    database: Path, tmp_path: Path, server: ZoneServer, before: Network, domains: list[str]
) -> dict[str, str]:
    """Settings of a database with the domains; caches have no time."""
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}
    env |= server.environ | {"AUTOMX_ZONE_SERVER": f"127.0.0.1:{before.port}"}
    env |= {"AUTOMX_PUBLIC_HOST": HOST, "AUTOMX_ZONE_TIMEOUT": f"{LIMIT:g}"}
    env |= {"AUTOMX_DOMAIN_CACHE_SECONDS": "0", "AUTOMX_STALE_SECONDS": "0"}
    seed = tmp_path / "seed.json"
    seed.write_text(json.dumps(DOCUMENT | {"domains": [{"name": name} for name in domains]}))
    automx("seed", seed, env=env)
    return env


def holds(server: ZoneServer, env: dict[str, str], domain: str) -> set[bool]:
    """Return for the records of a domain whether the zone has them."""
    wanted = json.loads(automx("dns", domain, "--format", "json", env=env))
    return {
        record["data"] in server.records(record["name"], record["type"])
        for record in wanted
        if "ua-auto-config" not in record["name"]  # PACC is written in steps
    }


def check_back(server: ZoneServer, env: dict[str, str], domains: list[str]) -> None:
    """Check that the next run does everything."""
    result = attempt("dns-apply", "--all", "--yes", env=env | {"AUTOMX_ZONE_TIMEOUT": "30"})
    assert (result.returncode, result.stderr) == (3, "")  # further steps follow
    assert {one for name in domains for one in holds(server, env, name)} == {True}


def error_of(run: Run, prepare: Callable[[Primary], object]) -> ZoneError:
    """Return the error of a step that writes records; ``prepare`` is called just before."""
    update = Primary.update

    def failing(primary: Primary, plan: Plan) -> None:
        prepare(primary)
        update(primary, plan)

    with patch.object(Primary, "update", failing), pytest.raises(ZoneError) as caught:
        run.apply(NOW)
    return caught.value


@pytest.mark.parametrize("state", FAULTS)
def test_a_name_server_that_fails_is_waited_for_once(
    server: ZoneServer,
    faults: dict[str, Fault],
    env: dict[str, str],
    domains: list[str],
    state: str,
) -> None:
    reading, _, _ = PROMISES[state]
    with faults[state]():
        began = time.monotonic()
        result = attempt("dns-apply", "--all", "--yes", env=env)
        seconds = time.monotonic() - began
        lines = result.stderr.splitlines()
        assert (result.returncode, result.stdout) == (1, "")
        assert [line.split(": ")[1] for line in lines] == domains
        assert all(reading in line for line in lines), lines
        assert all("so it was not asked" in line for line in lines[1:]) == ("in time" in reading)
        assert seconds < LIMIT + SLACK
    check_back(server, env, domains)


@pytest.mark.parametrize("state", FAULTS)
def test_a_zone_is_written_whole_or_not_at_all(
    server: ZoneServer,
    faults: dict[str, Fault],
    env: dict[str, str],
    domains: list[str],
    state: str,
) -> None:
    _, writing, _ = PROMISES[state]
    domain = domains[0]
    run = Run(config.load(env), Options(HOST), domain)
    with contextlib.ExitStack() as stack:

        def fail(primary: Primary) -> None:
            primary.close()
            stack.enter_context(faults[state]())

        error = error_of(run, fail)
    assert writing in error.reason
    is_uncertain = isinstance(error, ZoneUncertainError)
    assert is_uncertain == (writing == UNCERTAIN)
    wait_until(lambda: len(holds(server, env, domain)) == 1, "an end of the update")
    entries = json.loads(automx("audit", "list", "--domain", domain, "--json", env=env))
    written = [each["details"] for each in entries if each["action"] == "records"]
    assert [each["is_certain"] for each in written] == [False] * is_uncertain
    check_back(server, env, domains)


@pytest.mark.parametrize("state", WRONG)
def test_an_update_that_another_key_has_signed_is_refused(
    server: ZoneServer, env: dict[str, str], domains: list[str], state: str
) -> None:
    reading, writing, _ = PROMISES[state]
    wrong = env | WRONG[state]
    result = attempt("dns-apply", "--all", "--yes", env=wrong)
    assert result.returncode == 1
    assert all(reading in line for line in result.stderr.splitlines()), result.stderr
    assert writing == "refused"
    wrong_keys = Primary(config.load(wrong).zone)._keys
    run = Run(config.load(env), Options(HOST), domains[0])
    error = error_of(run, lambda primary: setattr(primary, "_keys", wrong_keys))
    assert not isinstance(error, ZoneUncertainError)
    assert holds(server, env, domains[0]) == {False}
    check_back(server, env, domains)


@pytest.mark.parametrize("state", PROMISES)
def test_the_doctor_tells_it(
    server: ZoneServer,
    faults: dict[str, Fault],
    env: dict[str, str],
    domains: list[str],
    state: str,
) -> None:
    *_, finding = PROMISES[state]
    fault: Callable[[], contextlib.AbstractContextManager[None]]
    fault = faults.get(state, contextlib.nullcontext)
    words = ("--dns", f"127.0.0.1:{server.port}", "--timeout", "2", "--json")
    with fault():
        result = attempt("check", domains[0], *words, env=env | WRONG.get(state, {}))
    subject = env["AUTOMX_ZONE_SERVER"]
    [text] = [
        each["text"] for each in json.loads(result.stdout)["findings"] if each["subject"] == subject
    ]
    assert finding in text
