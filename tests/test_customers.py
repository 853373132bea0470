"""Three customers are set up from nothing in three ways: commands, requests, one document.

The scripts and the document stand in ``tests/data/customers``.
"""

import contextlib
import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import select

from automx import audit, lookup
from automx.address import EmailAddress
from automx.database import open_session
from automx.errors import DisabledDomainError
from automx.models import RECORDS, metadata
from tests.commandline import automx
from tests.databases import engine_uri
from tests.documents import DATA
from tests.processes import one_worker

CUSTOMERS = DATA / "customers"
COMMANDS, REQUESTS = CUSTOMERS / "commands.sh", CUSTOMERS / "requests.sh"
DOCUMENT = CUSTOMERS / "customers.yaml"
NOT_CONFIGURED = {"token", "account", "backend_key", "api_key", *RECORDS}
ACTOR = "user:alice"


class Way(NamedTuple):
    """One of the three ways: the settings of its database, and who has made the rows."""

    env: dict[str, str]
    actor: str


def settings(db_uri: str) -> dict[str, str]:
    return {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": db_uri, "SUDO_USER": "alice"}


# A program that notes its arguments and its standard input: to start the real one thirty times
# takes longer than all tests of this file.
NOTING = """#!/bin/sh
{ printf '%s\\0' "$@"; printf '\\1'; cat; printf '\\2'; } >>"$NOTES"
"""


def run(script: Path, env: dict[str, str]) -> None:
    """Run a shell script."""
    done = subprocess.run(
        ["sh", script],
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def run_commands(folder: Path, env: dict[str, str]) -> None:
    """Run the script of commands: the shell reads it, and the commands run within the test."""
    program = folder / "automx"
    program.write_text(NOTING)
    program.chmod(0o755)
    notes = folder / "notes"
    run(COMMANDS, {"PATH": f"{folder}:{os.environ['PATH']}", "NOTES": str(notes)})
    calls = notes.read_text().split("\2")[:-1]
    assert len(calls) == COMMANDS.read_text().count("\nautomx ")
    with contextlib.chdir(CUSTOMERS):
        for call in calls:
            words, stdin = call.split("\1")
            automx(*words.split("\0")[:-1], env=env, stdin=stdin)


@pytest.fixture(scope="module", params=["commands", "requests", "document"])
def way(
    request: pytest.FixtureRequest, empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Way:
    """A database that was filled in one of the three ways."""
    folder = tmp_path_factory.mktemp(request.param)
    database = folder / "automx.sqlite"
    database.write_bytes(empty_database.read_bytes())
    env = settings(f"sqlite:///{database}")
    match request.param:
        case "commands":
            run_commands(folder, env)
        case "requests":
            key = automx("apikey", "add", "portal", "--role", "write", env=env).split()[-1]
            with one_worker(env, folder / "log") as server:
                run(REQUESTS, {"KEY": key, "API": f"{server.url}/api/v1"})
            return Way(env, "key:portal")
        case _:
            automx("apply", DOCUMENT, "--yes", env=env)
    return Way(env, ACTOR)


def rows(env: dict[str, str]) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of the tables that configure something, without moments."""
    found = {}
    with open_session(engine_uri(env["AUTOMX_DB_URI"])) as session:
        for name, table in metadata.tables.items():
            if name not in NOT_CONFIGURED:
                columns = [column for column in table.columns if column.name != "since"]
                query = select(*columns).order_by(*table.primary_key)
                found[name] = [tuple(row) for row in session.execute(query)]
    return found


@pytest.fixture(scope="module")
def expected(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Way:
    """A database with the rows of the document."""
    database = tmp_path_factory.mktemp("expected") / "automx.sqlite"
    database.write_bytes(empty_database.read_bytes())
    env = settings(f"sqlite:///{database}")
    automx("apply", DOCUMENT, "--yes", env=env)
    return Way(env, ACTOR)


def test_the_three_ways_lead_to_the_same_rows(way: Way, expected: Way) -> None:
    assert rows(way.env) == rows(expected.env)
    numbers = {table: len(found) for table, found in rows(way.env).items() if found}
    assert numbers == {
        "provider": 3,
        "provider_detail": 2,
        "documentation": 2,
        "ldapserver": 1,
        "ldapserver_detail": 1,
        "server": 9,
        "davserver": 2,
        "domain": 7,
        "disabled_domain": 1,
        "server_domain": 23,
        "davserver_domain": 6,
    }


def test_the_three_ways_lead_to_the_same_export(way: Way, expected: Way) -> None:
    def exported(env: dict[str, str]) -> str:
        return automx("export", "--with-secrets", env=env)

    assert exported(way.env) == exported(expected.env)
    assert "s3cret: keep it" in exported(way.env)


def test_after_each_of_the_three_ways_the_document_changes_nothing(way: Way) -> None:
    assert automx("apply", DOCUMENT, env=way.env) == "Nothing to do.\n"


@pytest.mark.parametrize(
    ("domain", "hosts"),
    [
        ("müller.example", {"imap.muller.example", "smtp.muller.example"}),
        ("class-1.nordheim.example", {"mail.nordheim.example"}),
        ("club.example", {"imap.club.example", "smtp.club.example"}),
        ("chess.example", {"imap.club.example", "smtp.club.example"}),
    ],
)
def test_the_customers_are_served(expected: Way, domain: str, hosts: set[str]) -> None:
    with open_session(expected.env["AUTOMX_DB_URI"]) as session:
        found = lookup.find(session, EmailAddress.parse(f"alice@{domain}").domain)
    assert {server.hostname for server in found.config.mail_servers} == hosts


def test_a_domain_that_is_off_is_unknown(expected: Way) -> None:
    with (
        open_session(expected.env["AUTOMX_DB_URI"]) as session,
        pytest.raises(DisabledDomainError),
    ):
        lookup.find(session, "soon.example")


STEPS = [
    "add provider Müller & Söhne GmbH",
    "add server imap.muller.example",
    "add server imap.muller.example",
    "add server smtp.muller.example",
    "add server smtp.muller.example",
    "add server imap.muller.example",
    "add service https://dav.muller.example/cal/%EMAILADDRESS%/",
    "add service https://dav.muller.example/card/",
    "add domain xn--mller-kva.example",
    "add domain mueller.example",
    "add domain soon.example",
    "set domain soon.example",
    "add provider School of Nordheim",
    "add directory ldap.nordheim.example",
    "add server mail.nordheim.example",
    "add server mail.nordheim.example",
    "add domain nordheim.example",
    "add domain *.nordheim.example",
    "add provider Chess Club",
    "add server old.club.example",
    "add server old.club.example",
    "add domain club.example",
    "add domain chess.example",
    "set server smtp.club.example",
    "add server imap.club.example",
    "set domain club.example",
    "set domain chess.example",
    "set domain club.example",
    "delete server old.club.example",
    "set server smtp.club.example",
    "set provider Chess and Go Club",
]


def test_each_step_has_its_entry_in_the_audit(way: Way, request: pytest.FixtureRequest) -> None:
    with open_session(way.env["AUTOMX_DB_URI"]) as session:
        entries = [entry for entry in audit.entries(session) if entry.kind != "key"]
    assert {entry.actor for entry in entries} == {way.actor}
    if "document" in request.node.name:
        [entry] = entries
        digest = hashlib.sha256(DOCUMENT.read_bytes()).hexdigest()
        numbers = {"provider": 3, "directory": 1, "server": 9, "service": 2, "domain": 7}
        assert entry.details == {"numbers": {"add": numbers}, "digest": digest}
    else:
        assert [f"{entry.action} {entry.kind} {entry.name}" for entry in entries] == STEPS
    assert "s3cret" not in str(entries)


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
@pytest.mark.parametrize("kind", ["commands", "document"])
def test_other_databases_hold_the_same(
    request: pytest.FixtureRequest, tmp_path: Path, expected: Way, engine: str, kind: str
) -> None:
    env = settings(request.getfixturevalue(f"migrated_{engine}"))
    if kind == "commands":
        run_commands(tmp_path, env)
    else:
        automx("apply", DOCUMENT, "--yes", env=env)
    assert rows(env) == rows(expected.env)
