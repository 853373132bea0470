"""Requests of the API at the same moment, on each database."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flask import Flask

from automx.migrations import upgrade
from tests.apikeys import make_key
from tests.databases import engine_uri
from tests.test_apply import HOSTER

API = "/api/v1"
AT_ONCE = 4


def test_of_requests_at_once_one_is_done(
    make_app: Callable[..., Flask], any_database_uri: str
) -> None:
    uri = engine_uri(any_database_uri)
    upgrade(uri)
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
