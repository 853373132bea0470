"""The root page, and the two pages for load balancers."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from automx.views import site
from tests.conftest import Execute
from tests.documents import golden, unversioned

NOT_AVAILABLE = "The service is not available at the moment. Please try again later.\n"


def test_the_root_page_is_there_before_there_are_any_providers(client: FlaskClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert unversioned(answer.text) == golden("root-ready.html")


def test_the_root_page_says_if_the_server_is_not_ready_but_not_why(
    client: FlaskClient, database: Path
) -> None:
    database.unlink()
    answer = client.get("/")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert unversioned(answer.text) == golden("root-not-ready.html")


def test_the_root_page_shows_nothing_of_the_request_that_it_does_not_know(
    client: FlaskClient,
) -> None:
    answer = client.get("/?<script>", headers={"Host": "evil.example", "User-Agent": "<script>"})
    assert unversioned(answer.text) == golden("root-ready.html")


def test_a_bug_in_the_root_page_has_nothing_to_do_with_qr_codes(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "page", lambda: 1 / 0)
    answer = client.get("/")
    assert (answer.status_code, answer.text) == (500, "The server cannot answer this request.\n")


def test_head_works_for_each_page(client: FlaskClient) -> None:
    for path in ("/", "/healthz", "/readyz"):
        answer = client.head(path)
        assert (answer.status_code, answer.data) == (200, b"")


def test_a_process_with_a_current_database_is_up_and_ready(client: FlaskClient) -> None:
    for path, text in (("/healthz", "ok\n"), ("/readyz", "ready\n")):
        answer = client.get(path)
        assert (answer.status_code, answer.text) == (200, text)
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-store"


OUTAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (
        Path.unlink,
        'database: unable to open database file; was "automx db upgrade" run?',
    ),
    "empty": (
        lambda path: path.write_bytes(b""),
        "the database holds no automx schema: run automx db upgrade",
    ),
    "damaged": (
        lambda path: path.write_bytes(b"This is not a database." * 100),
        "database: file is not a database",
    ),
    "older": (
        lambda path: change(path, "UPDATE automx_version SET version_num = '0001'"),
        "the database schema is older than this automx: run automx db upgrade",
    ),
    "of automx2": (
        lambda path: change(path, "DROP TABLE automx_version"),
        "the database holds no automx schema: run automx db upgrade",
    ),
}


def change(path: Path, statement: str) -> None:
    """Run one statement in a SQLite file."""
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("outage", OUTAGES)
def test_a_process_is_up_but_not_ready_without_a_current_database(
    client: FlaskClient, database: Path, caplog: pytest.LogCaptureFixture, outage: str
) -> None:
    spoil, cause = OUTAGES[outage]
    spoil(database)
    assert client.get("/healthz").text == "ok\n"
    answer = client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, NOT_AVAILABLE)
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["Cache-Control"] == "no-store"
    (record,) = caplog.records
    assert record.getMessage() == f"GET /readyz 503: {NOT_AVAILABLE.strip()} ({cause})"


def test_a_process_is_ready_as_soon_as_its_database_is(
    client: FlaskClient, database: Path, execute: Execute
) -> None:
    content = database.read_bytes()
    database.unlink()
    assert client.get("/readyz").status_code == 503
    database.write_bytes(content)
    assert client.get("/readyz").status_code == 200
    assert client.get("/").status_code == 200
    execute("UPDATE automx_version SET version_num = '0001'")
    assert client.get("/readyz").status_code == 503


@pytest.mark.usefixtures("example")
def test_a_process_goes_on_and_stays_ready_when_a_newer_automx_has_upgraded_the_database(
    client: FlaskClient, execute: Execute
) -> None:
    execute("UPDATE automx_version SET version_num = '9999'; CREATE TABLE later (id INTEGER);")
    assert client.get("/readyz").text == "ready\n"
    assert client.get("/").status_code == 200
    assert client.get("/v1.1/example.com").status_code == 200


def test_probes_are_logged_at_level_debug_unless_they_fail(
    make_app: Callable[..., Flask], database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    client = make_app(loglevel="DEBUG").test_client()
    client.get("/healthz")
    client.get("/readyz")
    database.unlink()
    client.get("/readyz")
    client.get("/")
    levels = [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name == "automx.access"
    ]
    assert levels == [
        ("DEBUG", "GET /healthz 200"),
        ("DEBUG", "GET /readyz 200"),
        ("INFO", "GET /readyz 503"),
        ("INFO", "GET / 503"),
    ]
