"""The doctor about zones that automx writes; and a program that writes them in place of DNS."""

import json
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from automx import config
from automx.database import open_session
from automx.formats import pacc
from automx.models import ManagedDomain
from automx.moments import this_second
from automx.zones import states
from automx.zones.apply import Options
from automx.zones.program import PATIENCE
from automx.zones.rollover import Step
from tests.commandline import attempt, automx
from tests.conftest import Execute
from tests.zonekill import Run
from tests.zoneservers import HOST, PARENT, ZoneServer, seeded, zone_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZoneServer]:
    """A Knot, for all tests: it starts most quickly."""
    with zone_server("knot", tmp_path_factory.mktemp("zones") / "knot") as started:
        yield started


@pytest.fixture
def domain(server: ZoneServer) -> str:
    """A domain of which the zone knows nothing."""
    return server.new_domain()


@pytest.fixture
def env(database: Path, server: ZoneServer, domain: str) -> dict[str, str]:
    """Settings of a database with the domain; caches have no time."""
    return seeded(server, database, domain)


def found(env: dict[str, str], *arguments: str) -> list[tuple[str, str]]:
    """Return subject and text of what the doctor finds about managed zones."""
    result = attempt("check", *arguments, "--json", env=env)
    told = json.loads(result.stdout)["findings"]
    return [
        (each["subject"], each["text"])
        for each in told
        if "dns-apply" in each["text"] + each["advice"] or "automx cannot" in each["text"]
    ]


def doctor(env: dict[str, str], server: ZoneServer, domain: str) -> list[tuple[str, str]]:
    return found(env, domain, "--dns", f"127.0.0.1:{server.port}", "--timeout", "2")


def test_records_that_would_be_written_are_told_and_then_they_are_there(
    server: ZoneServer, env: dict[str, str], domain: str
) -> None:
    server.add(f"_sieve._tcp.{domain}", "SRV", "0 1 4190 other.example.")
    assert doctor(env, server, domain) == [
        (
            f"zone {PARENT}",
            (
                f"automx dns-apply would change: + autoconfig.{domain}. CNAME {HOST}.;"
                f" + autodiscover.{domain}. CNAME {HOST}.;"
                f" + _autodiscover._tcp.{domain}. SRV 0 0 443 {HOST}. and 8 more"
            ),
        ),
        (
            f"_sieve._tcp.{domain}",
            (
                "automx cannot write SRV: there is SRV 0 1 4190 other.example., which automx has"
                " not written"
            ),
        ),
    ]
    server.delete(f"_sieve._tcp.{domain}", "SRV")
    Run(config.load(env), Options(HOST), domain).apply(this_second())
    assert doctor(env, server, domain) == []


def test_a_name_server_that_knows_another_secret_is_told(
    server: ZoneServer, env: dict[str, str], domain: str
) -> None:
    [(subject, text)] = [
        (each["subject"], each["text"])
        for each in json.loads(
            attempt(
                *("check", domain, "--json", "--dns", f"127.0.0.1:{server.port}", "--timeout", "2"),
                env=env | {"AUTOMX_ZONE_SECRET": "AAAA"},
            ).stdout
        )["findings"]
        if each["subject"] == f"127.0.0.1:{server.port}"
    ]
    assert (
        text == f"{subject}: the secret of the key is another one there (BADSIG): see zone_secret"
    )


@pytest.mark.parametrize("missing", ["AUTOMX_ZONE_KEY", "AUTOMX_ZONE_SECRET"])
def test_only_what_writes_zones_needs_the_key(
    server: ZoneServer, env: dict[str, str], domain: str, missing: str
) -> None:
    env[missing] = ""
    automx("dns", domain, env=env)
    result = attempt("dns-apply", domain, "--yes", env=env)
    assert result.returncode == 1
    complaint = "zone_key and zone_secret are missing: updates of 127.0.0.1:"
    assert f"automx: {domain}: {complaint}" in result.stderr
    texts = attempt("check", domain, "--dns", f"127.0.0.1:{server.port}", env=env).stdout
    assert complaint in texts


def test_a_rollover_that_stands_still_and_a_zone_without_settings_are_told(
    server: ZoneServer, env: dict[str, str], domain: str
) -> None:
    now = this_second()
    run = Run(config.load(env), Options(HOST), domain)
    run.apply(now - timedelta(days=3))
    day = f"{now - timedelta(days=3):%Y-%m-%d}"
    text = f"the rollover of the PACC document stands still since {day} (pinned)"
    assert found(env) == [(domain, text)]
    without = {key: value for key, value in env.items() if not key.startswith("AUTOMX_ZONE")}
    text = "automx manages the digest of its PACC document, and its zone has no zone_server"
    assert found(without) == [(domain, text)]
    run.apply(now)
    assert found(env) == []


def test_the_doctor_expects_the_stored_document_and_its_digest(
    server: ZoneServer, env: dict[str, str], domain: str, database: Path
) -> None:
    now = this_second() - timedelta(hours=9)
    run = Run(config.load(env), Options(HOST), domain)
    for hours in (0, 2):
        run.apply(now + timedelta(hours=hours))
    with open_session(env["AUTOMX_DB_URI"]) as session:
        state = states.read(session, domain)
        assert state
        assert server.records(f"_ua-auto-config.{domain}", "TXT") == [
            f'"{pacc.digest_record(state.document)}"'
        ]
    automx("server", "set", "imap.example.com:993", "--name", "new.example.com", env=env)
    result = attempt(
        "check", domain, "--dns", f"127.0.0.1:{server.port}", "--timeout", "2", env=env
    )
    assert "the digest is not that of the document" not in result.stdout
    run.apply(now + timedelta(hours=3))  # it announces the next document
    run.apply(now + timedelta(hours=8))  # it serves it
    result = attempt(
        "check", domain, "--dns", f"127.0.0.1:{server.port}", "--timeout", "2", env=env
    )
    assert "the digest is not that of the document" not in result.stdout


def test_a_domain_that_is_given_up_is_served_from_its_rows_at_once(
    server: ZoneServer, env: dict[str, str], domain: str
) -> None:
    run = Run(config.load(env), Options(HOST), domain)
    run.apply(this_second() - timedelta(hours=9))
    run.apply(this_second() - timedelta(hours=5))
    automx("server", "set", "imap.example.com:993", "--name", "new.example.com", env=env)
    before = server.records(f"_ua-auto-config.{domain}", "TXT")
    assert attempt("dns-apply", domain, "--abandon", env=env).returncode == 2
    printed = automx("dns-apply", domain, "--abandon", "--yes", env=env)
    [wanted] = [
        record["data"]
        for record in json.loads(automx("dns", domain, "--format", "json", env=env))
        if record["type"] == "TXT"
    ]
    assert printed.endswith(f"The zone should have: _ua-auto-config.{domain}. IN TXT {wanted}\n")
    assert server.records(f"_ua-auto-config.{domain}", "TXT") == before != [wanted]
    with open_session(env["AUTOMX_DB_URI"]) as session:
        assert session.execute(ManagedDomain.select()).all() == []
    again = attempt("dns-apply", domain, "--abandon", "--yes", env=env)
    assert again.stderr == f"automx: automx does not manage the records of {domain}.\n"


def program(folder: Path, script: str) -> str:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_program_gets_the_changes_and_the_next_run_sees_what_it_did(
    server: ZoneServer, env: dict[str, str], domain: str, tmp_path: Path
) -> None:
    env |= {"AUTOMX_ZONE_COMMAND": program(tmp_path, f"cat >> {tmp_path}/plans")}
    for _ in range(2):  # the zone is as it was, so it gets the same again
        assert attempt("dns-apply", domain, "--yes", env=env).returncode == 3
    first, second = map(json.loads, (tmp_path / "plans").read_text().splitlines())
    assert first == second
    assert (first["version"], first["zone"], first["domain"]) == (1, PARENT, domain)
    assert first["delete"] == []
    wanted = json.loads(automx("dns", domain, "--format", "json", env=env))
    wanted = [record for record in wanted if "ua-auto-config" not in record["name"]]
    assert first["add"][:-1] == wanted
    [registry] = first["add"][-1:]
    assert (registry["name"], registry["type"]) == (f"_automx.{domain}", "TXT")
    for record in first["add"]:
        server.add(record["name"], record["type"], record["data"], ttl=record["ttl"])
    automx("server", "set", "imap.example.com:993", "--name", "new.example.com", env=env)
    (tmp_path / "plans").unlink()
    attempt("dns-apply", domain, "--yes", env=env)
    changed = json.loads((tmp_path / "plans").read_text())
    name, before = f"_imaps._tcp.{domain}", "0 1 993 imap.example.com."
    record = {"name": name, "type": "SRV", "ttl": 3600, "data": before}
    assert changed["delete"] == [record, registry]
    assert changed["add"][0] == record | {"data": "0 1 993 new.example.com."}


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("echo no credit >&2; exit 1", "exit status 1: no credit"),
        ("exec sleep 60", "was killed after 5 s"),
    ],
)
def test_a_program_that_fails_is_told_and_tried_again(
    env: dict[str, str], domain: str, tmp_path: Path, script: str, complaint: str
) -> None:
    env |= {"AUTOMX_ZONE_COMMAND": program(tmp_path, script), "AUTOMX_ZONE_TIMEOUT": "5"}
    result = attempt("dns-apply", domain, "--yes", env=env)
    assert result.returncode == 1
    assert complaint in result.stderr
    with open_session(env["AUTOMX_DB_URI"]) as session:
        state = states.read(session, domain)
    assert state
    assert state.due_at


@pytest.mark.parametrize(("hanging", "runs"), [([0, 1, 2, 3], PATIENCE), ([0, 2], 4)])
def test_a_program_that_always_hangs_is_not_waited_for_once_per_domain(
    server: ZoneServer,
    env: dict[str, str],
    domain: str,
    tmp_path: Path,
    hanging: list[int],
    runs: int,
) -> None:
    domains = [domain, *(server.new_domain() for _ in range(3))]
    for each in domains[1:]:
        automx("domain", "add", each, "--like", domain, env=env)
    names = " ".join(f"-e '\"{domains[number]}\"'" for number in hanging)
    script = f"echo >>{tmp_path}/runs; if grep -q {names}; then exec sleep 60; fi"
    env |= {"AUTOMX_ZONE_COMMAND": program(tmp_path, script), "AUTOMX_ZONE_TIMEOUT": "2"}
    result = attempt("dns-apply", *domains, "--yes", env=env)
    assert (tmp_path / "runs").read_text() == "\n" * runs
    assert [line for line in result.stderr.splitlines() if "was killed after" not in line] == [
        f"automx: {each}: zone_command: took too long for earlier domains, so it was not run"
        for each in domains[runs:]
    ]


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("document", "'{}'", "document must be bytes and no text"),
        ("old_document", "1", "old_document must be bytes and no text"),
        ("ttl", "'long'", "ttl must be a number"),
        ("changed_at", "'today'", "changed_at must be a moment"),
        ("step", "'x'", f"step must be one of {', '.join(Step)}"),
    ],
)
def test_a_state_that_was_written_by_sql_is_told_as_a_bad_row(
    env: dict[str, str], domain: str, execute: Execute, column: str, value: str, told: str
) -> None:
    """SQLite lets any value into a column."""
    Run(config.load(env), Options(HOST), domain).apply(this_second())
    execute(f"UPDATE managed_domain SET {column} = {value}")
    row = f"table managed_domain, {domain}"
    checked = attempt("check", "--json", env=env)
    assert [
        (each["level"], each["subject"], each["text"])
        for each in json.loads(checked.stdout)["findings"]
        if "managed_domain" in each["subject"]
    ] == [("error", row, told)]
    looked_at = attempt("check", domain, "--dns", "127.0.0.1:1", "--json", env=env)
    found = json.loads(looked_at.stdout)["findings"]
    assert f"{row}: {told}" in [each["text"] for each in found if each["domain"] == domain]
    applied = attempt("dns-apply", domain, "--yes", env=env)
    assert (applied.returncode, applied.stderr) == (1, f"automx: {row}: {told}\n")
    given_up = attempt("dns-apply", domain, "--abandon", "--yes", env=env)
    assert (given_up.returncode, given_up.stderr) == (0, "")
