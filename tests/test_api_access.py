"""Who may use the API: keys, roles, networks, limits."""

import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from automx.api import access
from tests.apikeys import WithKey, make_key
from tests.conftest import Execute

PROBLEM = "application/problem+json"
PATHS = ("/api/v1", "/api/v1/", "/api/v1/domains", "/api/v1/openapi.json", "/api/v1/nothing/at/all")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", PATHS)
def test_without_any_key_there_is_no_api(
    client: FlaskClient, same_ids: None, method: str, path: str
) -> None:
    elsewhere = client.open("/apy/v1", method=method)
    answer = client.open(path, method=method)
    assert answer.status_code == elsewhere.status_code == 404
    assert (answer.data, answer.headers) == (elsewhere.data, elsewhere.headers)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer automx_x", f"Bearer automx_{'a' * 40}", "Basic YTpi"]
)
def test_a_missing_or_wrong_key_is_refused(api: WithKey, path: str, authorization: str) -> None:
    client = api("admin")
    client.environ_base["HTTP_AUTHORIZATION"] = authorization
    answer = client.get(path)
    assert (answer.status_code, answer.content_type) == (401, PROBLEM)
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="automx"'
    assert answer.json == {
        "title": "Unauthorized",
        "status": 401,
        "detail": "This needs a key that is valid (Authorization: Bearer KEY).",
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"networks": ("192.0.2.0/24",)}, "key portal: not valid from this address"),
        ({"valid_until": datetime.now(UTC) - timedelta(1)}, "key portal: expired"),
    ],
)
def test_a_key_that_is_not_valid_here_and_now_is_refused_and_logged(
    api: WithKey, caplog: pytest.LogCaptureFixture, options: dict[str, object], said: str
) -> None:
    answer = api("admin", name="portal", **options).get("/api/v1/domains")
    assert answer.status_code == 401
    assert said in caplog.text
    assert said not in answer.text


def test_a_revoked_key_is_refused(api: WithKey, execute: Execute) -> None:
    client = api("read")
    assert client.get("/api/v1/domains").status_code == 200
    execute("UPDATE api_key SET is_revoked = 1")
    assert client.get("/api/v1/domains").status_code == 401


def test_a_key_reads_while_another_program_writes(
    make_app: Callable[..., Flask],
    database: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = make_key(f"sqlite:///{database}", "portal", "read")
    client = make_app(db_timeout=3).test_client()
    headers = {"Authorization": f"Bearer {secret}"}
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(2):  # the second one waits no more
            assert client.get("/api/v1/domains", headers=headers).status_code == 200
        assert caplog.text.count("the use of the key portal is not kept: database is locked") == 1
        connection.rollback()
        monkeypatch.setattr(access, "monotonic", lambda: time.monotonic() + access.NOTE_SECONDS)
        assert client.get("/api/v1/domains", headers=headers).status_code == 200
        [[used]] = connection.execute("SELECT used_on FROM api_key")
    assert used is not None


def test_a_row_of_a_key_that_cannot_be_read_gives_no_access(
    api: WithKey, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    client = api("read")
    execute("UPDATE api_key SET networks = 'all'")
    assert client.get("/api/v1/domains").status_code == 401
    assert "table api_key, id 1: networks" in caplog.text


def test_the_address_of_a_client_is_that_of_the_proxy_that_is_trusted(
    make_app: Callable[..., Flask], database: Path
) -> None:
    secret = make_key(f"sqlite:///{database}", "portal", "read", networks=("192.0.2.0/24",))
    client = make_app(proxy_count=1).test_client()
    headers = {"Authorization": f"Bearer {secret}"}
    for forwarded, status in (("192.0.2.1", 200), ("192.0.2.1, 198.51.100.1", 401)):
        answer = client.get("/api/v1/domains", headers=headers | {"X-Forwarded-For": forwarded})
        assert answer.status_code == status


def test_wrong_keys_of_a_client_are_slowed_down_and_right_ones_are_not(api: WithKey) -> None:
    right = api("read")
    wrong = {"Authorization": f"Bearer automx_{'a' * 40}"}
    for missing in ("", "Bearer no-key") * access.WRONG:  # these guess nothing
        answer = right.get("/api/v1/domains", headers={"Authorization": missing})
        assert answer.status_code == 401
    statuses = [
        right.get("/api/v1/domains", headers=wrong).status_code for _ in range(access.WRONG + 1)
    ]
    assert statuses == [401] * access.WRONG + [429]
    answer = right.get("/api/v1/domains", headers=wrong)
    assert (answer.content_type, int(answer.headers["Retry-After"]) > 0) == (PROBLEM, True)
    assert right.get("/api/v1/domains").status_code == 200
    other = {"REMOTE_ADDR": "192.0.2.1"}
    assert right.get("/api/v1/domains", headers=wrong, environ_base=other).status_code == 401


def test_requests_of_a_key_are_limited(api: WithKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "REQUESTS", 2)
    one, other = api("read"), api("read")
    assert [one.get("/api/v1/domains").status_code for _ in range(3)] == [200, 200, 429]
    assert other.get("/api/v1/domains").status_code == 200


def test_the_day_of_the_last_use_is_kept(api: WithKey, database: Path) -> None:
    assert api("read").get("/api/v1/domains").status_code == 200
    with sqlite3.connect(database) as connection:
        found = connection.execute("SELECT used_on FROM api_key").fetchone()
    connection.close()
    assert datetime.now(UTC).date() - datetime.fromisoformat(found[0]).date() <= timedelta(1)


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    ("role", "statuses"),
    [
        ("read", {"GET": 200, "POST": 403, "PATCH": 403, "DELETE": 403}),
        ("accounts", {"GET": 403, "POST": 403, "PATCH": 403, "DELETE": 403}),
        ("write", {"GET": 200, "POST": 422, "PATCH": 200, "DELETE": 409}),
        ("admin", {"GET": 200, "POST": 422, "PATCH": 200, "DELETE": 409}),
    ],
)
def test_a_role_permits_some_methods(api: WithKey, role: str, statuses: dict[str, int]) -> None:
    client = api(role)
    for method, status in statuses.items():
        path = "/api/v1/servers" if method == "POST" else "/api/v1/servers/1"
        body: dict[str, object] | None = None if method == "GET" else {}
        assert client.open(path, method=method, json=body).status_code == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/api/v1/domains", 405),
        ("POST", "/api/v1/domains/example.com", 405),
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v1/nothing/%0A/at//all", 404),
        ("GET", "/api/v1/tokens/%0A", 404),
        ("GET", "/api/v1/domains?limit=0", 400),
        ("GET", "/api/v1/domains?limit=1&limit=2", 400),
        ("GET", "/api/v1/domains?colour=red", 400),
        ("GET", "/api/v1/domains?pattern=%00", 400),
        ("POST", "/api/v1/domains", 415),
    ],
)
def test_errors_are_problems(api: WithKey, method: str, path: str, status: int) -> None:
    answer = api("write").open(path, method=method)
    assert (answer.status_code, answer.content_type) == (status, PROBLEM)
    assert answer.json is not None
    assert answer.json["status"] == status
    if status == 405:
        assert "POST" in answer.headers["Allow"] or "GET" in answer.headers["Allow"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"a":1,"a":2}', b'{"a":NaN}', b"[" * 60_000, b"1" * 5_000]
)
def test_a_body_that_is_no_json_is_a_bad_request(api: WithKey, body: bytes) -> None:
    answer = api("write").post("/api/v1/domains", data=body, content_type="application/json")
    assert (answer.status_code, answer.content_type) == (400, PROBLEM)


def test_the_api_is_loaded_with_the_first_request_that_has_a_key(database: Path) -> None:
    secret = make_key(f"sqlite:///{database}", "portal", "read")
    code = f"""
import sys
from automx import config, create_app
client = create_app(config.make(db_uri="sqlite:///{database}")).test_client()
for path in ("/healthz", "/v1.1/example.com", "/nothing", "/api/v1/domains"):
    client.get(path)
heavy = {{"automx.api.dispatch", "automx.changes", "automx.seeddocument"}}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
client.get("/api/v1/domains", headers={{"Authorization": "Bearer {secret}"}})
assert heavy <= sys.modules.keys()
assert "automx.check" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_body_is_limited_but_for_lists_of_domains(api: WithKey) -> None:
    client = api("write")
    body = b" " * 70_000 + b"{}"
    answers = [
        client.post(f"/api/v1/{path}", data=body, content_type="application/json")
        for path in ("domains", "bulk/domains")
    ]
    assert [answer.status_code for answer in answers] == [413, 422]
