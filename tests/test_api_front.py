"""The API under ``automx serve``: large bodies, and which requests have the threads of accounts."""

import contextlib
import http.client
import json
import socket
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from automx import api
from automx.database import PLACES
from automx.front import SEEDS
from tests.apikeys import make_key
from tests.processes import PATIENCE, Server, serving


@pytest.fixture(scope="module")
def server(
    empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, str]]:
    """A running server, and a key of its empty database."""
    folder = tmp_path_factory.mktemp("front")
    database = folder / "automx.sqlite"
    database.write_bytes(empty_database.read_bytes())
    uri = f"sqlite:///{database}"
    key = make_key(uri, "root", "admin")
    with serving({"AUTOMX_DB_URI": uri}, folder / "log", "--workers", "1") as running:
        yield running, key


def post(server: Server, path: str, key: str, document: object) -> int:
    """Send a document and return the status of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", f"/api/v1/{path}", json.dumps(document), headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_list_of_domains_may_be_large_with_a_key(server: tuple[Server, str]) -> None:
    running, key = server
    assert post(running, "providers", key, {"name": "One"}) == 201
    names = [f"{'d' * 50}{number}.example" for number in range(2_000)]
    body = {"names": names, "provider": 1, "_comment": "x" * 70_000}
    assert post(running, "bulk/domains", f"automx_{'a' * 40}", body) == 401
    assert post(running, "bulk/domains", "no-key", body) in {401, 413}
    assert post(running, "domains", key, body) == 413
    assert post(running, "bulk/domains", key, {**body, "_comment": ""}) == 201
    document = {"version": 2, "provider": "One", "servers": [], "_comment": "x" * 70_000}
    domains = [{"name": name} for name in names]
    assert post(running, "apply?dry_run=true", key, {**document, "domains": domains}) == 200


@pytest.mark.parametrize(
    ("method", "path", "authorization", "size"),
    [
        ("POST", "/api/v1/bulk/domains", f"Bearer automx_{'a' * 40}", api.MAX_LARGE_BODY),
        ("POST", "/api/v1/apply", f"Bearer automx_{'a' * 40}", api.MAX_LARGE_BODY),
        ("POST", "/api/v1/apply/more", f"Bearer automx_{'a' * 40}", 0),
        ("POST", "//api/v1//bulk/domains", f"bearer automx_{'a' * 40}", api.MAX_LARGE_BODY),
        ("POST", "/api/v1/bulk/domains", f"Bearer automx_{'a' * 39}", 0),
        ("POST", "/api/v1/bulk/domains", "", 0),
        ("PATCH", "/api/v1/bulk/domains", f"Bearer automx_{'a' * 40}", 0),
        ("POST", "/api/v1/domains", f"Bearer automx_{'a' * 40}", 0),
        ("POST", "/", f"Bearer automx_{'a' * 40}", 0),
    ],
)
def test_only_two_paths_take_a_large_body(
    method: str, path: str, authorization: str, size: int
) -> None:
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "HTTP_AUTHORIZATION": authorization,
    }
    assert api.max_body(environ) == size


def test_strangers_do_not_keep_large_bodies_from_those_with_a_key(
    server: tuple[Server, str],
) -> None:
    running, key = server
    head = (
        "POST /api/v1/bulk/domains HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer automx_{'a' * 40}\r\nContent-Length: 15000000\r\n\r\n"
    )
    with contextlib.ExitStack() as stack:
        for _ in range(2 * SEEDS):
            client = socket.create_connection(("127.0.0.1", running.port), PATIENCE)
            stack.callback(client.close)
            client.sendall(head.encode())
            assert client.recv(100).startswith((b"HTTP/1.1 401", b"HTTP/1.1 429"))
        assert post(running, "bulk/domains", key, {"names": []}) == 422


def test_changes_that_wait_for_another_one_stop_no_look_up(server: tuple[Server, str]) -> None:
    running, key = server
    uri = running.log.with_name("automx.sqlite")
    with contextlib.closing(sqlite3.connect(uri)) as other, ThreadPoolExecutor(PLACES + 4) as some:
        other.execute("BEGIN IMMEDIATE")
        body = {"type": "imap", "name": "imap.example"}
        sent = [some.submit(post, running, "servers", key, body) for _ in range(PLACES + 4)]
        asked: list[int] = []
        while not all(one.done() for one in sent):
            path = f"/mail/config-v1.1.xml?emailaddress=a@unknown{len(asked)}.example"
            connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
            connection.request("GET", path)
            asked.append(connection.getresponse().status)
            connection.close()
        other.rollback()
    assert set(asked) == {404}
    assert {one.result() for one in sent} == {503}


@pytest.mark.parametrize(
    ("method", "path", "changes"),
    [
        ("POST", "/api/v1/domains", True),
        ("PATCH", "//api/v1/servers/1", True),
        ("DELETE", "/api/v1/tokens/party", True),
        ("GET", "/api/v1/domains", False),
        ("HEAD", "/api/v1/domains", False),
        ("POST", "/", False),
    ],
)
def test_requests_that_may_change_rows_are_known(method: str, path: str, changes: bool) -> None:
    assert api.may_change({"REQUEST_METHOD": method, "PATH_INFO": path}) is changes


@pytest.mark.parametrize(
    ("method", "path", "asks"),
    [
        ("POST", "/api/v1/accounts", True),
        ("PATCH", "/api/v1/accounts/guest@example.com", True),
        ("DELETE", "/api/v1/accounts/guest@example.com", True),
        ("GET", "/api/v1/accounts", False),
        ("POST", "/api/v1/domains", False),
        ("POST", "/", False),
    ],
)
def test_requests_that_wait_for_a_backend_are_known(method: str, path: str, asks: bool) -> None:
    assert api.asks_backend({"REQUEST_METHOD": method, "PATH_INFO": path}) is asks
