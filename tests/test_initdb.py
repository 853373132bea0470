"""Seeding over HTTP: who may do it, and what it does."""

import contextlib
import json
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from automx.config import values
from automx.seeddocument import SAMPLE
from tests.conftest import Execute
from tests.databases import engine_uri
from tests.documents import golden

PATH = "/initdb/"
AUTOCONFIG = "/mail/config-v1.1.xml?emailaddress=alice@example.com"
DOCUMENT = {
    "version": 2,
    "provider": "Other Inc.",
    "domains": [{"name": "example.com"}],
    "servers": [
        {"type": "imap", "name": "imap.example.com"},
        {"type": "smtp", "name": "smtp.example.com", "port": 587},
    ],
}
NOT_LOCAL = "This is allowed from the server itself only, or with a token.\n"


def domains(client: FlaskClient) -> list[int]:
    """Return the status of Autoconfig for some domains."""
    names = ("example.com", "example.net", "example.org", "example.edu")
    return [client.get(f"/v1.1/{name}").status_code for name in names]


def test_get_seeds_the_sample_which_is_the_same_each_time(client: FlaskClient) -> None:
    answer = client.get(PATH)
    assert answer.status_code == 200
    assert answer.text == (
        "Added: 1 provider, 3 domains, 4 mail servers, 3 services, 0 LDAP servers.\n"
    )
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert domains(client) == [200, 200, 200, 404]
    assert client.get(AUTOCONFIG).text == golden("sample.autoconfig.xml")
    assert client.delete(PATH).status_code == 200
    assert client.get(PATH).text == answer.text
    assert client.get(AUTOCONFIG).text == golden("sample.autoconfig.xml")


def test_get_changes_nothing_if_there_is_data(client: FlaskClient, example: None) -> None:
    answer = client.get(PATH)
    assert answer.status_code == 200
    assert answer.text == "The database holds data already; nothing was changed.\n"
    assert client.get(AUTOCONFIG).text == golden("example-alice.autoconfig.xml")


@pytest.mark.parametrize("document", [DOCUMENT, SAMPLE])
def test_post_seeds_the_document_of_the_body(
    client: FlaskClient, document: dict[str, object]
) -> None:
    answer = client.post(PATH, json=document)
    assert answer.status_code == 200
    assert answer.text.startswith("Added: 1 provider, ")
    assert domains(client)[0] == 200


def test_post_with_automx2s_version_1_works(client: FlaskClient) -> None:
    document = DOCUMENT | {"domains": ["example.com", "example.edu"]}
    del document["version"]
    assert client.post(PATH, json=document).status_code == 200
    assert domains(client) == [200, 404, 404, 200]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "the body: line 1, column 1 is not valid JSON: expecting value"),
        (b"{", "the body: line 1, column 2 is not valid JSON"),
        (b"\xff", "the body: line 1, column 1 is not UTF-8"),
        (b"[" * 100_000, "the body cannot be read as JSON: "),
        (b"[]", ""),
        (b'{"version": 3}', "version"),
        (json.dumps(DOCUMENT | {"servers": [{"type": "imap"}]}).encode(), "servers[0]"),
        (json.dumps(DOCUMENT | {"domains": [{"name": "a b"}]}).encode(), "domains[0].name"),
    ],
)
def test_a_bad_document_changes_nothing_and_is_told_in_one_line(
    client: FlaskClient, body: bytes, text: str
) -> None:
    answer = client.post(PATH, data=body, content_type="application/json")
    assert answer.status_code == 400
    assert text in answer.text
    assert answer.text.count("\n") == 1
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert domains(client) == [404, 404, 404, 404]


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_a_document_of_a_type_that_a_web_page_could_send_is_refused(
    client: FlaskClient, content_type: str | None
) -> None:
    answer = client.post(PATH, data=json.dumps(DOCUMENT), content_type=content_type)
    assert answer.status_code == 400
    assert answer.text == "The Content-Type must be application/json.\n"
    assert domains(client) == [404, 404, 404, 404]


def test_a_document_with_a_domain_that_is_there_changes_nothing(
    client: FlaskClient, example: None
) -> None:
    document = DOCUMENT | {"domains": [{"name": "example.edu"}, {"name": "EXAMPLE.com"}]}
    answer = client.post(PATH, json=document)
    assert answer.status_code == 409
    assert "example.com" in answer.text
    assert answer.text.count("\n") == 1
    assert domains(client) == [200, 404, 404, 404]
    assert client.get(AUTOCONFIG).text == golden("example-alice.autoconfig.xml")


def test_delete_purges_all_rows(client: FlaskClient, example: None, execute: Execute) -> None:
    answer = client.delete(PATH)
    text = "All providers, servers, directories and domains were deleted.\n"
    assert (answer.status_code, answer.text) == (200, text)
    assert domains(client) == [404, 404, 404, 404]
    assert client.get("/readyz").status_code == 200


def test_what_was_changed_over_http_is_served_at_once(make_app: Callable[..., Flask]) -> None:
    client = make_app(domain_cache_seconds=900_000).test_client()
    assert client.get(AUTOCONFIG).status_code == 404
    client.get(PATH)
    assert client.get(AUTOCONFIG).status_code == 200
    client.delete(PATH)
    assert client.get(AUTOCONFIG).status_code == 404
    client.post(PATH, json=DOCUMENT)
    assert "Other Inc." in client.get(AUTOCONFIG).text


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/initdb", "/initdb/"])
def test_a_database_that_is_missing_is_made_first(
    make_app: Callable[..., Flask], tmp_path: Path, method: str, path: str
) -> None:
    database = tmp_path / "new" / "folder" / "automx.sqlite"
    client = make_app(db_uri=f"sqlite:///{database}").test_client()
    assert client.get("/readyz").status_code == 503
    assert client.open(path, method=method, json=DOCUMENT).status_code == 200
    assert client.get("/readyz").text == "ready\n"
    assert domains(client)[0] == (404 if method == "DELETE" else 200)


def test_an_empty_database_gets_its_tables_first(
    make_app: Callable[..., Flask], any_database_uri: str, tmp_path: Path
) -> None:
    (tmp_path / "empty.sqlite").touch()
    uri = engine_uri(any_database_uri).replace("automx.sqlite", "empty.sqlite")
    client = make_app(db_uri=uri).test_client()
    assert client.get("/readyz").status_code == 503
    assert client.get(PATH).text.startswith("Added: 1 provider, 3 domains")
    assert client.get("/readyz").text == "ready\n"
    assert client.get(PATH).text == "The database holds data already; nothing was changed.\n"


@pytest.mark.parametrize("request_", [("HEAD", {}), ("POST", {"data": "{"}), ("OPTIONS", {})])
def test_a_request_that_does_nothing_makes_no_database(
    client: FlaskClient, database: Path, request_: tuple[str, dict[str, Any]]
) -> None:
    database.unlink()
    method, arguments = request_
    client.open(PATH, method=method, content_type="application/json", **arguments)
    assert not database.exists()


def test_a_request_that_is_not_permitted_makes_no_database(
    client: FlaskClient, database: Path
) -> None:
    database.unlink()
    assert refused(client, headers=[("X-Forwarded-For", "127.0.0.1")])
    assert not database.exists()


def test_a_database_of_automx2_is_not_adopted_by_a_request(
    make_app: Callable[..., Flask], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = tmp_path / "automx2.sqlite"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE provider (id INTEGER PRIMARY KEY, name VARCHAR)")
    client = make_app(db_uri=f"sqlite:///{database}").test_client()
    assert client.get(PATH).status_code == 503
    assert 'was "automx db upgrade" run?' in caplog.text
    with contextlib.closing(sqlite3.connect(database)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("provider",)]


def test_a_database_that_cannot_be_made_is_told_as_such(
    make_app: Callable[..., Flask], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    client = make_app(db_uri=f"sqlite:///{tmp_path}/file/automx.sqlite").test_client()
    for answer in (client.get(PATH), client.post(PATH, json=DOCUMENT), client.delete(PATH)):
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.text == (
            "The service is not available at the moment. Please try again later.\n"
        )
    assert caplog.text.count(f"(the folder {tmp_path}/file cannot be created: ") == 3


def test_several_processes_that_make_a_database_at_once_wait_for_each_other(
    make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path}/automx.sqlite"
    clients = [make_app(db_uri=uri).test_client() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda client: client.get(PATH), clients))
    # The samples of two may collide.
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert domains(clients[0]) == [200, 200, 200, 404]


# In memory.


@pytest.mark.parametrize(
    "uri",
    [
        *("sqlite:///:memory:", "sqlite://", "sqlite:///"),
        *("sqlite:///file::memory:?uri=true", "sqlite:///file:x?mode=memory&cache=shared&uri=true"),
    ],
)
def test_a_database_in_memory_has_its_tables_from_the_start(
    make_app: Callable[..., Flask], uri: str
) -> None:
    client = make_app(db_uri=values.db_uri(uri)).test_client()
    assert client.get("/readyz").text == "ready\n"
    assert client.get(AUTOCONFIG).status_code == 404
    assert client.get("/initdb").status_code == 200
    assert client.get(AUTOCONFIG).text == golden("sample.autoconfig.xml")


def test_threads_share_a_database_in_memory_without_disturbing_each_other(
    make_app: Callable[..., Flask],
) -> None:
    app = make_app(db_uri="sqlite:///:memory:")

    def add(number: int) -> int:
        document = DOCUMENT | {"domains": [{"name": f"d{number}.test"}]}
        return app.test_client().post(PATH, json=document).status_code

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(add, range(24))) == {200}
    client = app.test_client()
    assert {client.get(f"/v1.1/d{number}.test").status_code for number in range(24)} == {200}


# Who may do it.


def refused(client: FlaskClient, text: str = NOT_LOCAL, **request: Any) -> bool:
    """Tell whether a request is refused for each method, and changes nothing."""
    for method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS"):
        answer = client.open(PATH, method=method, json=DOCUMENT, **request)
        if answer.status_code != 403 or answer.text != (text if method != "HEAD" else ""):
            return False
    return True


def from_address(address: str) -> dict[str, Any]:
    return {"environ_overrides": {"REMOTE_ADDR": address}}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:4243", "127.0.0.1:4243", "[::1]:4243"])
def test_programs_on_this_machine_may(client: FlaskClient, address: str, host: str) -> None:
    answer = client.delete(PATH, headers={"Host": host}, **from_address(address))
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "address", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "::ffff:192.0.2.1", "0.0.0.0", "", "x"]
)
def test_other_machines_may_not(
    client: FlaskClient, example: None, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert refused(client, **from_address(address))
    assert client.get(AUTOCONFIG).status_code == 200
    assert "DELETE /initdb/ 403: This is allowed from the server itself only" in caplog.text


@pytest.mark.parametrize("proxy_count", [0, 1, 2])
@pytest.mark.parametrize(
    "header",
    [
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-For", "203.0.113.9"),
        ("X-Forwarded-For", "127.0.0.1, 127.0.0.1"),
        ("X-Forwarded-For", ""),
        ("Forwarded", "for=127.0.0.1"),
        ("X-Forwarded-Host", "localhost"),
        ("X-Forwarded-Proto", "http"),
        ("X-Real-IP", "127.0.0.1"),
        ("Via", "1.1 proxy"),
    ],
)
def test_what_came_through_a_proxy_may_not_even_if_it_claims_to_be_local(
    make_app: Callable[..., Flask], example: None, proxy_count: int, header: tuple[str, str]
) -> None:
    client = make_app(proxy_count=proxy_count).test_client()
    assert refused(client, headers=[header])


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},  # a name that was made to point to this machine
        {"Host": "evil.example:4243", "Sec-Fetch-Site": "same-origin"},
        {"Host": "localhost.evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
    ],
)
def test_a_web_page_in_a_browser_on_this_machine_may_not(
    client: FlaskClient, example: None, headers: dict[str, str]
) -> None:
    assert refused(client, headers=headers)


@pytest.mark.parametrize(
    "authorization", ["Bearer secret-1", "bearer secret-1", "Bearer  secret-1"]
)
def test_who_knows_the_token_may_from_anywhere(
    make_app: Callable[..., Flask], authorization: str
) -> None:
    client = make_app(initdb_token="secret-1", proxy_count=1).test_client()
    headers = {
        "Authorization": authorization,
        "X-Forwarded-For": "203.0.113.9",
        "Host": "autoconfig.example.com",
    }
    for method, status in (("GET", 200), ("DELETE", 200), ("POST", 200)):
        answer = client.open(
            PATH, method=method, json=DOCUMENT, headers=headers, **from_address("192.0.2.1")
        )
        assert answer.status_code == status


@pytest.mark.parametrize(
    "token", ["", "secret", "secret-12", "SECRET-1", "sécret-1", "secret-1 x", "\xff"]
)
def test_a_wrong_token_is_refused_even_to_this_machine_and_not_logged(
    make_app: Callable[..., Flask], caplog: pytest.LogCaptureFixture, token: str
) -> None:
    caplog.set_level(logging.DEBUG)
    client = make_app(initdb_token="secret-1", loglevel="DEBUG").test_client()
    assert refused(client, "The token is wrong.\n", headers={"Authorization": f"Bearer {token}"})
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Basic c2VjcmV0", "Bearer x", "secret-1"]
)
def test_without_a_token_in_the_settings_none_helps(
    client: FlaskClient, authorization: str
) -> None:
    headers = {"Authorization": authorization}
    assert refused(client, headers=headers, **from_address("192.0.2.1"))


def test_the_path_is_answered_without_its_slash(client: FlaskClient) -> None:
    assert client.post("/initdb", json=DOCUMENT).status_code == 200
    assert domains(client) == [200, 404, 404, 404]
    assert client.get("/initdb").text == "The database holds data already; nothing was changed.\n"
    assert client.delete("/initdb").status_code == 200
    assert client.get("/initdb", **from_address("192.0.2.1")).status_code == 403


def test_other_methods_are_refused(client: FlaskClient) -> None:
    assert client.put(PATH, json=DOCUMENT).status_code == 405
