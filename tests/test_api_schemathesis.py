"""What a stranger's program makes of the OpenAPI document: schemathesis against a running server.

This is a short run; CONTRIBUTING.md has the long one.
"""

import json
import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from automx.api.dispatch import OPERATIONS
from automx.apikeys import PERMISSIONS
from automx.words import Role
from tests.apikeys import make_key
from tests.canaries import FOREIGN, MARK, OWN, PROVIDER
from tests.processes import AUTOMX, REPOSITORY, Server, one_worker

SETTINGS = REPOSITORY / "tests" / "schemathesis.toml"
HOOKS = REPOSITORY / "tests" / "schemathesis_hooks.py"
EXAMPLES = os.environ.get("TEST_EXAMPLES", "1")
KEYS: dict[str, dict[str, Any]] = {
    "write": {"role": "write"},
    "scoped": {"role": "admin", "provider": PROVIDER},
    "admin": {"role": "admin"},
}
# Operations that no request of the run can make succeed.
OUTSIDE = {
    operation.id
    for operation in OPERATIONS
    if operation.unscoped
    or "providers" in operation.path
    or ("directories" in operation.path and operation.role is Role.WRITE)
} - {"get_providers"}
ASKS_NETWORK = {"get_domains_name_check"}  # it connects to the hosts of rows: tests/test_api_rows


@pytest.fixture(scope="module")
def running(
    empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Path]]:
    """A running server, and the file of its database."""
    folder = tmp_path_factory.mktemp("api")
    database = folder / "automx.sqlite"
    database.write_bytes(empty_database.read_bytes())
    env = {"AUTOMX_DB_URI": f"sqlite:///{database}", "AUTOMX_PUBLIC_HOST": "automx.own.example"}
    with one_worker(env, folder / "log") as server:
        yield server, database


@pytest.fixture
def server(running: tuple[Server, Path], empty_database: Path) -> tuple[Server, str]:
    """The server, and the URI of its database, which has the rows of two providers only."""
    server, database = running
    with (
        closing(sqlite3.connect(empty_database)) as empty,
        closing(sqlite3.connect(database)) as connection,
    ):
        empty.backup(connection)
        connection.executescript(OWN + FOREIGN)
    return server, f"sqlite:///{database}"


def run(source: str | Path, server: Server, authorization: str, folder: Path) -> list[Any]:
    """Let schemathesis ask the server; return the requests with their answers."""
    report = folder / "har.json"
    command: list[str | Path] = [
        *(AUTOMX.with_name("schemathesis"), "--config-file", SETTINGS, "run", source),
        *("--url", f"{server.url}/api/v1", "--header", f"Authorization: {authorization}"),
        *("--phases", "examples,fuzzing", "--max-examples", EXAMPLES, "--seed", "1", "--no-color"),
        *("--exclude-path", "/domains/{name}/check"),
        *("--report", "har", "--report-har-path", report, "--output-sanitize", "false"),
    ]
    if not authorization:
        command += ["--exclude-checks", "positive_data_acceptance"]
    env = {"SCHEMATHESIS_HOOKS": str(HOOKS), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"[0-9]+ passed", done.stdout)
    found: list[Any] = json.loads(report.read_text())["log"]["entries"]
    return found


def operation_of(method: str, url: str) -> str:
    """Return the name of the operation of a request, "" if there is none."""
    path = urlsplit(url).path.removeprefix("/api/v1")
    for operation in OPERATIONS:
        pattern = re.sub(r"\{\w+\}", "[^/]+", operation.path)
        if operation.method == method and re.fullmatch(pattern, path):
            return operation.id
    return ""


def statuses(entries: list[Any]) -> dict[str, set[int]]:
    """Return the statuses with which each operation was answered."""
    found: dict[str, set[int]] = {operation.id: set() for operation in OPERATIONS}
    for entry in entries:
        name = operation_of(entry["request"]["method"], entry["request"]["url"])
        found.setdefault(name, set()).add(entry["response"]["status"])
    return found


@pytest.mark.parametrize("kind", KEYS)
def test_every_answer_is_documented_and_every_operation_succeeds(
    server: tuple[Server, str], tmp_path: Path, kind: str
) -> None:
    running, uri = server
    secret = make_key(uri, kind, **KEYS[kind])
    for name in ("kept", "gone"):
        make_key(uri, name, "read")
    source = f"{running.url}/api/v1/openapi.json"
    entries = run(source, running, f"Bearer {secret}", tmp_path)
    allowed = PERMISSIONS[Role(KEYS[kind]["role"])]
    impossible = ASKS_NETWORK | {
        operation.id for operation in OPERATIONS if operation.role not in allowed
    }
    if kind == "scoped":
        impossible |= OUTSIDE
    found = statuses(entries)
    failed = {name for name in found if name and not found[name] & {200, 201, 204}}
    assert failed == impossible, "tests/schemathesis_hooks.py has a request for each operation"
    if kind == "scoped":
        for entry in entries:
            asked = json.dumps(entry["request"])
            shown = MARK.findall(json.dumps(entry["response"]["content"]))
            assert not [mark for mark in shown if mark not in asked]


def test_without_a_key_every_answer_is_that_a_key_is_missing(
    server: tuple[Server, str], tmp_path: Path
) -> None:
    running, uri = server
    make_key(uri, "other", "read")
    entries = run(REPOSITORY / "docs" / "openapi.json", running, "", tmp_path)
    found = statuses(entries)
    assert {name for name, codes in found.items() if not codes} - {""} == ASKS_NETWORK
    assert set().union(*found.values()) <= {401, 405}
    assert not [each for each in entries if MARK.search(json.dumps(each["response"]["content"]))]
