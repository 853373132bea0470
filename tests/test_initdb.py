"""Seeding over HTTP: who may do it, and what it does."""

import contextlib
import json
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import create_environ

from automx import config
from automx import seed as seeding
from automx.config import values
from automx.database import open_session
from automx.seeddocument import SAMPLE
from automx.views.initdb import MAX_FIRST_SEED, MAX_SEED, max_body, warn_if_unfilled
from tests.conftest import Execute
from tests.databases import engine_uri
from tests.documents import golden

PATH = "/initdb/"
AUTOCONFIG = "/mail/config-v1.1.xml?emailaddress=alice@example.com"
DOCUMENT: dict[str, Any] = {
    "version": 2,
    "provider": "Other Inc.",
    "domains": [{"name": "example.com"}],
    "servers": [
        {"type": "imap", "name": "imap.example.com"},
        {"type": "smtp", "name": "smtp.example.com", "port": 587},
    ],
}
TOKEN = "secret-1"
NOT_LOCAL = "This is allowed from the server itself only, or with a token.\n"
HOLDS_DATA = "The database holds data already; nothing was changed.\n"
NEEDS_TOKEN = "the token of the setting initdb_token (Authorization: Bearer TOKEN)"
NO_DELETE = f"This needs {NEEDS_TOKEN}. Without it, run: automx purge\n"
NO_MORE = f"The database holds data already: to add more, send {NEEDS_TOKEN}.\n"


def with_token(app: Flask) -> FlaskClient:
    """Return a client that sends the token with each request."""
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
    return client


@pytest.fixture
def admin(make_app: Callable[..., Flask]) -> FlaskClient:
    """A client that has the token."""
    return with_token(make_app(initdb_token=TOKEN))


def rows_of(database: Path) -> list[str]:
    """Return all rows of a SQLite database, as SQL."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return list(connection.iterdump())


def domains(client: FlaskClient) -> list[int]:
    """Return the status of Autoconfig for some domains."""
    names = ("example.com", "example.net", "example.org", "example.edu")
    return [client.get(f"/v1.1/{name}").status_code for name in names]


def test_get_seeds_the_sample_which_is_the_same_each_time(admin: FlaskClient) -> None:
    client = admin
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


def test_get_changes_nothing_if_there_is_data(
    client: FlaskClient, admin: FlaskClient, example: None
) -> None:
    for asking in (client, admin):
        answer = asking.get(PATH)
        assert (answer.status_code, answer.text) == (200, HOLDS_DATA)
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
    admin: FlaskClient, example: None
) -> None:
    client = admin
    document = DOCUMENT | {"domains": [{"name": "example.edu"}, {"name": "EXAMPLE.com"}]}
    answer = client.post(PATH, json=document)
    assert answer.status_code == 409
    assert "example.com" in answer.text
    assert answer.text.count("\n") == 1
    assert domains(client) == [200, 404, 404, 404]
    assert client.get(AUTOCONFIG).text == golden("example-alice.autoconfig.xml")


def test_delete_purges_all_rows(admin: FlaskClient, example: None) -> None:
    client = admin
    answer = client.delete(PATH)
    text = "All providers, servers, directories and domains were deleted.\n"
    assert (answer.status_code, answer.text) == (200, text)
    assert domains(client) == [404, 404, 404, 404]
    assert client.get("/readyz").status_code == 200


def test_what_was_changed_over_http_is_served_at_once(make_app: Callable[..., Flask]) -> None:
    client = with_token(make_app(domain_cache_seconds=900_000, initdb_token=TOKEN))
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
    client = with_token(make_app(db_uri=f"sqlite:///{database}", initdb_token=TOKEN))
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
    uri = f"sqlite:///{tmp_path}/file/automx.sqlite"
    client = with_token(make_app(db_uri=uri, initdb_token=TOKEN))
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
    texts = sorted(answer.text for answer in answers)
    assert texts == [texts[0], *[HOLDS_DATA] * 3]
    assert texts[0].startswith("Added: 1 provider")
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
    app = make_app(db_uri="sqlite:///:memory:", initdb_token=TOKEN)

    def add(number: int) -> int:
        document = DOCUMENT | {"domains": [{"name": f"d{number}.test"}]}
        return with_token(app).post(PATH, json=document).status_code

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(add, range(24))) == {200}
    client = app.test_client()
    assert {client.get(f"/v1.1/d{number}.test").status_code for number in range(24)} == {200}


# Who may do it.


def refused(
    client: FlaskClient, text: str = NOT_LOCAL, *, delete_text: str = NO_DELETE, **request: Any
) -> bool:
    """Tell whether a request is refused for each method."""
    for method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS"):
        answer = client.open(PATH, method=method, json=DOCUMENT, **request)
        told = {"HEAD": "", "DELETE": delete_text}.get(method, text)
        if (answer.status_code, answer.text) != (403, told):
            return False
    return True


def from_address(address: str) -> dict[str, Any]:
    return {"environ_overrides": {"REMOTE_ADDR": address}}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:4243", "127.0.0.1:4243", "[::1]:4243"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_programs_on_this_machine_may_fill_an_empty_database(
    client: FlaskClient, method: str, address: str, host: str
) -> None:
    answer = client.open(
        PATH, method=method, json=DOCUMENT, headers={"Host": host}, **from_address(address)
    )
    assert (answer.status_code, answer.text[:17]) == (200, "Added: 1 provider")


@pytest.mark.parametrize(
    "row",
    [
        "provider VALUES (1, 'A', 'A')",
        "ldapserver VALUES (1, 'a', 389, 0, 'dc=a', '(mail={0})', 'uid', 'cn', NULL, NULL)",
        "server VALUES (1, 10, 'a.test', 993, 'imap', 'SSL', '%EMAILADDRESS%', 'plain')",
        "server_domain VALUES (1, 1)",
        "token VALUES (1, 'a', 'a', 'a', 'a.test', '', NULL, '1d', 1, 0, NULL, 0, '', 0, '')",
        "account VALUES (1, 'a@a.test', 1, 'a', '', 'active', '', NULL, '', NULL)",
        "backend_key VALUES ('a', 'accepted', '2026-01-01')",
        "documentation VALUES (1, 1, 'https://a.test/', '', '')",
        "disabled_domain VALUES (1, '2026-01-01 00:00:00')",
    ],
)
def test_a_database_with_any_row_gets_no_other_without_the_token(
    client: FlaskClient, execute: Execute, database: Path, row: str
) -> None:
    execute(f"INSERT INTO {row}")
    before = rows_of(database)
    answer = client.get(PATH)
    assert (answer.status_code, answer.text) == (200, HOLDS_DATA)
    answer = client.post(PATH, json=DOCUMENT)
    assert (answer.status_code, answer.text) == (403, NO_MORE)
    answer = client.delete(PATH)
    assert (answer.status_code, answer.text) == (403, NO_DELETE)
    assert rows_of(database) == before


def test_nobody_deletes_without_the_token_even_if_there_is_nothing(client: FlaskClient) -> None:
    for address in ("127.0.0.1", "192.0.2.1"):
        answer = client.delete(PATH, **from_address(address))
        assert (answer.status_code, answer.text) == (403, NO_DELETE)


@pytest.mark.parametrize("method", ["delete", "Delete", "dELETE", "get", "post", "head"])
def test_a_method_in_small_letters_changes_nothing(
    make_app: Callable[..., Flask], database: Path, method: str
) -> None:
    before = rows_of(database)
    for client in (make_app().test_client(), with_token(make_app(initdb_token=TOKEN))):
        answer = client.open(PATH, json=DOCUMENT, environ_overrides={"REQUEST_METHOD": method})
        assert (answer.status_code, answer.text) == (400, "The method is not valid.\n")
        assert rows_of(database) == before


def test_where_a_token_is_set_it_is_needed_on_this_machine_as_well(
    make_app: Callable[..., Flask], database: Path
) -> None:
    client, before = make_app(initdb_token=TOKEN).test_client(), rows_of(database)
    assert refused(client, f"This needs {NEEDS_TOKEN}.\n")
    assert rows_of(database) == before


# The same document again.

FULL: dict[str, Any] = {
    "version": 2,
    "providers": [
        {
            "id": 1,
            "name": "One Inc.",
            "details": {
                "webmail_url": "https://webmail.one.test/",
                "documentation": [{"url": "https://one.test/help", "lang": "en", "text": "Help"}],
            },
        },
        {"id": 2, "name": "Two Inc.", "short_name": "Two"},
    ],
    "ldapservers": [
        {"id": 1, "name": "ldap.one.test", "search_base": "dc=one", "bind_password": "hidden"},
        {"id": 2, "name": "ldap.two.test", "search_base": "dc=two", "login_name": "TWO\\{uid}"},
    ],
    "servers": [
        {"id": 1, "type": "imap", "name": "imap.one.test"},
        {"id": 2, "type": "smtp", "name": "smtp.one.test", "port": 587},
        {"id": 3, "type": "imap", "name": "imap.two.test"},
        {"type": "caldav", "url": "https://dav.one.test/%EMAILADDRESS%/", "id": 1},
    ],
    "domains": [
        {"name": "one.test", "provider": 1, "ldapserver_id": 1, "servers": [1, 2]},
        {"name": "müller.test", "provider": 1, "servers": [1, 2], "davservers": []},
        {"name": "*.two.test", "provider": 2, "ldapserver_id": 2, "servers": [3]},
    ],
}


def without(document: dict[str, Any], key: str, index: int) -> dict[str, Any]:
    """Return a document with one item of a list left out."""
    items = document[key]
    return document | {key: items[:index] + items[index + 1 :]}


def replaced(document: dict[str, Any], key: str, index: int, **values: object) -> dict[str, Any]:
    """Return a document with some values of one item of a list replaced, or removed (None)."""
    items = list(document[key])
    item = items[index] | values
    items[index] = {name: value for name, value in item.items() if value is not None}
    return document | {key: items}


OFF = replaced(FULL, "domains", 1, disabled=True)
NAMED = {
    "version": 2,
    "origin": "git",
    "providers": [{"name": "One Inc."}, {"name": "Two Inc."}],
    "ldapservers": [{"name": "ldap.one.test", "search_base": "dc=one"}],
    "servers": [],
    "domains": [
        {"name": "one.test", "provider": "One Inc.", "ldapserver_id": "ldap.one.test"},
        {"name": "two.test", "provider": "Two Inc."},
    ],
}
NOTHING_NEW = {
    "the same": (FULL, FULL),
    "the sample": (SAMPLE, SAMPLE),
    "version 1": (DOCUMENT, {key: DOCUMENT[key] for key in DOCUMENT if key != "version"}
                  | {"domains": ["EXAMPLE.com."]}),
    "fewer domains": (SAMPLE, without(SAMPLE, "domains", 1)),
    "no domain": (SAMPLE, SAMPLE | {"domains": []}),
    "fewer servers": (SAMPLE, without(SAMPLE, "servers", 0)),
    "other order": (SAMPLE, SAMPLE | {"servers": SAMPLE["servers"][::-1]}),
    "names in another form": (
        FULL,
        replaced(replaced(FULL, "domains", 0, name="ONE.test."), "domains", 1,
                 name="xn--mller-kva.TEST"),
    ),
    "a server in another form": (FULL, replaced(FULL, "servers", 0, name="IMAP.one.TEST")),
    "fewer links": (FULL, replaced(FULL, "domains", 0, servers=[2])),
    "defaults in words": (DOCUMENT, DOCUMENT | {"short_name": "Other"}),
    "a page less": (FULL, replaced(FULL, "providers", 0, details={
        "webmail_url": "https://webmail.one.test/"})),
    "a domain that is off": (OFF, OFF),
    "a domain that is on in words": (FULL, replaced(FULL, "domains", 0, disabled=False)),
    "the name of the provider": (FULL, replaced(FULL, "domains", 0, provider="One Inc.")),
    "names": (NAMED, NAMED),
    "rows of the database": (
        FULL, {"version": 2, "providers": [], "servers": [],
               "domains": [{"name": "one.test", "provider": 1, "ldapserver_id": 1,
                            "servers": [1]}]},
    ),
    # It is not compared, so that nobody can guess it.
    "another password": (FULL, replaced(FULL, "ldapservers", 0, bind_password="guess")),
}  # fmt: skip
SOMETHING_NEW = {
    "another document": (SAMPLE, FULL),
    "another domain": (SAMPLE, replaced(SAMPLE, "domains", 0, name="example.edu")),
    "one domain more": (
        SAMPLE, SAMPLE | {"domains": [*SAMPLE["domains"], {"name": "example.edu"}]},
    ),
    "a subdomain": (FULL, replaced(FULL, "domains", 2, name="a.two.test")),
    "another server": (SAMPLE, replaced(SAMPLE, "servers", 0, name="evil.test")),
    "another port": (SAMPLE, replaced(SAMPLE, "servers", 0, port=994)),
    "another URL": (SAMPLE, replaced(SAMPLE, "servers", 4, url="https://evil.test/")),
    "another provider": (SAMPLE, SAMPLE | {"provider": "Evil Inc."}),
    "another id": (FULL, replaced(FULL, "servers", 3, id=2)),
    "another directory": (FULL, replaced(FULL, "ldapservers", 0, name="evil.test")),
    "another login name": (FULL, replaced(FULL, "ldapservers", 1, login_name="EVIL\\{uid}")),
    "a directory more": (FULL, replaced(FULL, "domains", 1, ldapserver_id=1)),
    "no directory": (FULL, replaced(FULL, "domains", 0, ldapserver_id=None)),
    "the name of the other provider": (FULL, replaced(FULL, "domains", 0, provider="Two Inc.")),
    "the other provider": (FULL, replaced(FULL, "domains", 0, provider=2)),
    "a link more": (FULL, replaced(FULL, "domains", 0, servers=[1, 2, 3])),
    "all services": (FULL, replaced(FULL, "domains", 1, davservers=None)),
    "a domain off": (FULL, OFF),
    "a domain on again": (OFF, FULL),
    "details": (SAMPLE, SAMPLE | {"details": {"webmail_url": "https://evil.test/"}}),
    "other details": (
        FULL, replaced(FULL, "providers", 0, details={"webmail_url": "https://evil.test/"}),
    ),
    "a page more": (FULL, replaced(FULL, "providers", 0, details={
        "webmail_url": "https://webmail.one.test/",
        "documentation": [{"url": "https://evil.test/"}]})),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTHING_NEW)
def test_a_document_that_would_add_nothing_may_come_again(
    client: FlaskClient, database: Path, name: str
) -> None:
    first, second = NOTHING_NEW[name]
    assert client.post(PATH, json=first).text.startswith("Added: ")
    before = rows_of(database)
    answer = client.post(PATH, json=second)
    assert (answer.status_code, answer.text) == (200, HOLDS_DATA)
    assert rows_of(database) == before


@pytest.mark.parametrize("name", SOMETHING_NEW)
def test_a_document_that_would_add_something_needs_the_token(
    client: FlaskClient, database: Path, name: str
) -> None:
    first, second = SOMETHING_NEW[name]
    assert client.post(PATH, json=first).text.startswith("Added: ")
    before = rows_of(database)
    answer = client.post(PATH, json=second)
    assert (answer.status_code, answer.text) == (403, NO_MORE)
    assert rows_of(database) == before


def test_rows_in_the_words_of_automx2_hold_a_document_in_normal_form(
    client: FlaskClient, example: None
) -> None:
    answer = client.post(
        PATH,
        json={
            "version": 2,
            "provider": "Example Inc.",
            "domains": [{"name": "EXAMPLE.com"}],
            "servers": [
                {"type": "imap", "name": "imap.example.com"},
                {"type": "smtp", "name": "smtp.example.com", "port": 587},
            ],
        },
    )
    assert (answer.status_code, answer.text) == (200, HOLDS_DATA)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_of_several_first_seeds_at_once_one_wins(
    make_app: Callable[..., Flask], any_migrated_uri: str, method: str
) -> None:
    uri = engine_uri(any_migrated_uri)
    clients = [make_app(db_uri=uri).test_client() for _ in range(4)]
    start = Barrier(4)

    def seed(number: int) -> str:
        start.wait()
        document = DOCUMENT | {"provider": f"Provider {number}"}
        answer = clients[number].open(PATH, method=method, json=document)
        return f"{answer.status_code} {answer.text}"

    with ThreadPoolExecutor(4) as threads:
        answers = sorted(threads.map(seed, range(4)))
    lost = f"200 {HOLDS_DATA}" if method == "GET" else f"403 {NO_MORE}"
    (won,) = [answer for answer in answers if answer != lost]
    assert won.startswith("200 Added: 1 provider, ")
    assert answers.count(lost) == 3
    with open_session(uri) as session:
        assert seeding.count(session).providers == 1


@pytest.mark.parametrize("is_set", [True, False])
@pytest.mark.parametrize("state", ["no file", "no tables", "no rows", "rows", "unusable"])
def test_the_web_server_warns_of_a_database_that_may_be_filled(
    database: Path, execute: Execute, caplog: pytest.LogCaptureFixture, state: str, is_set: bool
) -> None:
    match state:
        case "no file":
            database.unlink()
        case "no tables":
            database.write_bytes(b"")
        case "rows":
            execute("INSERT INTO provider VALUES (1, 'A', 'A')")
        case "unusable":
            database.write_bytes(b"x" * 4096)
    token = TOKEN if is_set else ""
    warn_if_unfilled(config.make(db_uri=f"sqlite:///{database}", initdb_token=token))
    warned = "the database is empty and initdb_token is not set: " in caplog.text
    assert warned is (not is_set and state in {"no file", "no tables", "no rows"})
    assert database.exists() is (state != "no file")


@pytest.mark.parametrize(
    ("variables", "is_local", "has_token"),
    [
        ({}, True, True),
        ({"REQUEST_METHOD": "GET"}, True, True),
        ({"REQUEST_METHOD": "DELETE"}, False, True),
        ({"REQUEST_METHOD": "delete"}, False, False),
        ({"REMOTE_ADDR": "192.0.2.1"}, False, True),
        ({"HTTP_HOST": "automx.example.com"}, False, True),
        ({"HTTP_X_FORWARDED_FOR": "127.0.0.1"}, False, True),
        ({"SERVER_PROTOCOL": "HTTP/1.0"}, False, True),
        ({"HTTP_AUTHORIZATION": "Bearer wrong"}, True, False),
        ({"HTTP_HOST": "xn--a"}, False, False),
    ],
)
def test_a_web_server_learns_before_the_body_whether_it_may_come(
    variables: dict[str, str], is_local: bool, has_token: bool
) -> None:
    """The database is not asked: there is none."""
    uri = "sqlite:////nowhere/automx.sqlite"
    closed, open_ = config.make(db_uri=uri, initdb_token=TOKEN), config.make(db_uri=uri)

    def environ(**more: str) -> dict[str, Any]:
        made = create_environ(PATH, "http://localhost/", method="POST")
        return made | {"REMOTE_ADDR": "127.0.0.1"} | more | variables

    requests = [
        (environ(), open_, MAX_FIRST_SEED if is_local else 0),
        (environ(), closed, 0),
        (environ(HTTP_AUTHORIZATION=f"Bearer {TOKEN}"), closed, MAX_SEED if has_token else 0),
    ]
    for asked, settings, size in requests:
        assert max_body(asked, settings) == size


def test_a_first_seed_has_a_limit_and_one_with_the_token_a_larger_one(
    client: FlaskClient, admin: FlaskClient
) -> None:
    large = json.dumps(DOCUMENT).encode().ljust(5 * 1024 * 1024)
    for chunked in ({}, {"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}):
        request: dict[str, Any] = {"data": large, "content_type": "application/json"}
        request["environ_overrides"] = chunked | ({"CONTENT_LENGTH": ""} if chunked else {})
        assert client.post(PATH, **request).status_code == 413
        assert domains(client)[0] == 404
    assert admin.post(PATH, **request).status_code == 200


@pytest.mark.parametrize(
    "address", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "::ffff:192.0.2.1", "0.0.0.0", "", "x"]
)
def test_other_machines_may_not(
    client: FlaskClient, database: Path, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = rows_of(database)
    assert refused(client, **from_address(address))
    assert rows_of(database) == before
    assert "POST /initdb/ 403: This is allowed from the server itself only" in caplog.text


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
        ("X-Forwarded-Port", "80"),
        ("X-Forwarded-Server", "proxy"),
        ("X-Real-IP", "127.0.0.1"),
        ("X-Original-Forwarded-For", "127.0.0.1"),
        ("X-Client-IP", "127.0.0.1"),
        ("True-Client-IP", "127.0.0.1"),
        ("CF-Connecting-IP", "127.0.0.1"),
        ("Fastly-Client-IP", "127.0.0.1"),
        ("Via", "1.1 proxy"),
    ],
)
def test_what_came_through_a_proxy_may_not_even_if_it_claims_to_be_local(
    make_app: Callable[..., Flask], database: Path, proxy_count: int, header: tuple[str, str]
) -> None:
    client, before = make_app(proxy_count=proxy_count).test_client(), rows_of(database)
    assert refused(client, headers=[header])
    assert rows_of(database) == before


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1"])
def test_the_version_of_http_that_nginx_speaks_is_a_sign_of_a_proxy(
    client: FlaskClient, version: str
) -> None:
    assert refused(client, environ_overrides={"SERVER_PROTOCOL": version})


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
    client: FlaskClient, database: Path, headers: dict[str, str]
) -> None:
    before = rows_of(database)
    assert refused(client, headers=headers)
    assert rows_of(database) == before


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
    wrong = "The token is wrong.\n"
    headers = {"Authorization": f"Bearer {token}"}
    assert refused(client, wrong, delete_text=wrong, headers=headers)
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Basic c2VjcmV0", "Bearer x", "secret-1"]
)
def test_without_a_token_in_the_settings_none_helps(
    client: FlaskClient, authorization: str
) -> None:
    headers = {"Authorization": authorization}
    assert refused(client, headers=headers, **from_address("192.0.2.1"))


def test_the_path_is_answered_without_its_slash(admin: FlaskClient) -> None:
    client = admin
    assert client.post("/initdb", json=DOCUMENT).status_code == 200
    assert domains(client) == [200, 404, 404, 404]
    assert client.get("/initdb").text == HOLDS_DATA
    assert client.delete("/initdb").status_code == 200
    assert client.options("/initdb").headers["Allow"] == client.options(PATH).headers["Allow"]
    del client.environ_base["HTTP_AUTHORIZATION"]
    assert client.get("/initdb").status_code == 403


def test_other_methods_are_refused(client: FlaskClient) -> None:
    for path in (PATH, "/initdb"):
        assert client.put(path, json=DOCUMENT).status_code == 405
