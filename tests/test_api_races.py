"""Requests of the API at the same moment, on each database."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flask import Flask

from automx import changelog
from automx.database import open_session
from tests.apikeys import make_key
from tests.databases import engine_uri
from tests.test_apply import HOSTER

API = "/api/v1"
AT_ONCE = 4


def test_of_requests_at_once_one_is_done(
    make_app: Callable[..., Flask], any_migrated_uri: str
) -> None:
    uri = engine_uri(any_migrated_uri)
    app = make_app(db_uri=uri, db_timeout=60)
    key = {"Authorization": f"Bearer {make_key(uri, 'root', 'admin')}"}
    client = app.test_client()

    def at_once(method: str, path: str, headers: dict[str, str], body: object) -> list[int]:
        """Send a request several times at once, and return the statuses."""
        begin = threading.Barrier(AT_ONCE)

        def send(_: int) -> int:
            begin.wait(60)
            answer: Any = app.test_client().open(
                f"{API}/{path}", method=method, json=body, headers=key | headers
            )
            return int(answer.status_code)

        with ThreadPoolExecutor(AT_ONCE) as threads:
            return sorted(threads.map(send, range(AT_ONCE)))

    planned = client.post(f"{API}/apply?dry_run=true", json=HOSTER, headers=key)
    match = {"If-Match": planned.headers["ETag"]}
    assert at_once("POST", "apply", match, HOSTER) == [200, 412, 412, 412]

    token = {"name": "party", "domain": "a.example"}
    assert at_once("POST", "tokens", {}, token) == [201, 409, 409, 409]
    match = {"If-Match": client.get(f"{API}/tokens/party", headers=key).headers["ETag"]}
    assert at_once("PATCH", "tokens/party", match, {"maxuse": 7}) == [200, 412, 412, 412]

    once = {"Idempotency-Key": "order-4711"}
    assert at_once("POST", "accounts", once, {"token": "party"}) == [201, 409, 409, 409]
    listed = client.get(f"{API}/accounts", headers=key).json
    assert listed is not None
    assert len(listed["items"]) == 1

    new = {"name": "portal", "role": "read", "provider": 1}
    assert at_once("POST", "keys", {}, new) == [201, 409, 409, 409]


def test_a_change_that_waits_too_long_is_told_of_another_one(
    make_app: Callable[..., Flask], any_migrated_uri: str
) -> None:
    uri = engine_uri(any_migrated_uri)
    client = make_app(db_uri=uri, db_timeout=1).test_client()
    key = {"Authorization": f"Bearer {make_key(uri, 'root', 'admin')}"}
    client.get(f"{API}/openapi.json", headers=key)  # its use is kept, which needs no turn later
    with open_session(uri) as session:
        changelog.wait_for_turn(session)
        answer: Any = client.post(f"{API}/providers", json={"name": "New"}, headers=key)
        session.rollback()
    assert (answer.status_code, answer.json["detail"]) == (
        503,
        "Another change is running: send this one again later.",
    )
    assert int(answer.headers["Retry-After"]) > 0
    assert client.post(f"{API}/providers", json={"name": "New"}, headers=key).status_code == 201
