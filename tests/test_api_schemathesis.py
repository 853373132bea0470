"""What a stranger's program makes of the OpenAPI document: schemathesis against a running server.

This is a short run; CONTRIBUTING.md has the long one.
"""

import re
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apikeys import make_key
from tests.processes import AUTOMX, REPOSITORY, Server, serving
from tests.test_api_scopes import ROWS

SETTINGS = REPOSITORY / "tests" / "schemathesis.toml"


@pytest.fixture(scope="module")
def server(
    empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, str]]:
    """A running server, and the URI of its database, which has rows of two providers."""
    folder = tmp_path_factory.mktemp("api")
    database = folder / "automx.sqlite"
    database.write_bytes(empty_database.read_bytes())
    connection = sqlite3.connect(database)
    connection.executescript(ROWS)
    connection.close()
    uri = f"sqlite:///{database}"
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": uri}
    with serving(env, folder / "log", "--workers", "1") as running:
        yield running, uri


@pytest.mark.parametrize("kind", ["write", "scoped", "none"])
def test_every_answer_is_documented_and_no_foreign_row_is_in_it(
    server: tuple[Server, str], tmp_path: Path, kind: str
) -> None:
    running, uri = server
    scope = {"provider": 1} if kind == "scoped" else {}
    secret = make_key(uri, kind, "admin" if kind == "scoped" else "write", **scope)
    given = "" if kind == "none" else f"Bearer {secret}"
    url = f"{running.url}/api/v1"
    report = tmp_path / "har.json"
    command: list[str | Path] = [
        *(AUTOMX.with_name("schemathesis"), "--config-file", SETTINGS, "run"),
        *(
            REPOSITORY / "docs" / "openapi.json",
            "--url",
            url,
            "--header",
            f"Authorization: {given}",
        ),
        *("--phases", "fuzzing", "--max-examples", "1", "--seed", "1", "--no-color"),
        *("--exclude-path", "/domains/{name}/check"),  # it asks the network
        *("--report", "har", "--report-har-path", report, "--output-sanitize", "false"),
    ]
    if kind == "none":
        command += ["--exclude-checks", "positive_data_acceptance"]

    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert result.returncode == 0, result.stdout
    assert re.search(r"[0-9]+ passed", result.stdout)
    if kind == "scoped":
        answers = re.findall(r'"text": "((?:[^"\\]|\\.)*)"', report.read_text())
        assert answers
        assert not [text for text in answers if "other.example" in text]
