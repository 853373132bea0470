"""Delta Chat accounts by HTTP: what the app gets, what people read, and what nobody ever sees."""

import contextlib
import json
import re
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from automx.accounts import tokens
from automx.database import open_session
from tests.conftest import EXAMPLE_ROWS, Execute
from tests.documents import golden, unversioned
from tests.processes import Server, free_port, listens, running, serving, wait_until
from tests.tokenpages import (
    DAMAGED,
    ENDPOINT,
    FAILURES,
    FOR_THE_APP,
    INCOMPLETE,
    OUT_OF_ORDER,
    PROVIDER,
    SECRET,
    SPENT,
    TOO_LARGE,
    UNAVAILABLE,
    UNKNOWN,
    WRONG_ADDRESS,
    AddToken,
    assert_page,
    error_page,
    provider_of,
    rows,
    style_of,
    token_page,
)

pytestmark = pytest.mark.usefixtures("example")

TAKEN = "The address of this QR code is taken already. Please ask for another QR code."
PATHS = ["/", "/new_email", "/new_email/", "/x/y", "/x/y/"]

Make = Callable[..., Flask]


@pytest.fixture
def app_client(make_app: Make) -> FlaskClient:
    """A client of an application whose QR codes lead to ``ENDPOINT``."""
    return make_app(web_endpoint=ENDPOINT).test_client()


def assert_error(answer: TestResponse, status: int, reason: str) -> None:
    """Check that an answer is mailadm's error document with this reason."""
    assert answer.text == (
        f'{{\n  "type": "error",\n  "status_code": {status},\n  "reason": "{reason}"\n}}\n'
    )
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert ("Retry-After" in answer.headers) == (status in {503, 504})


# What the app gets.


@pytest.mark.parametrize("path", PATHS)
def test_a_post_makes_an_account_and_is_answered_as_by_mailadm(
    app_client: FlaskClient, add_token: AddToken, database: Path, path: str
) -> None:
    add_token()
    answer = app_client.post(f"{path}?t={SECRET}&n=summer")
    found = re.fullmatch(
        r"""\{
  "status_code": 200,
  "email": "(tmp\.[2345789acdefghjkmnpqrstuvwxyz]{5}@example\.com)",
  "password": "([A-Za-z0-9-]{20})",
  "expiry": "1d",
  "ttl": 86400,
  "dclogin_url": "dclogin://(.*)/\?p=(.*)&v=1"
\}
""",
        answer.text,
    )
    assert found, answer.text
    address, password = found[1], found[2]
    assert (found[3], found[4]) == (address, password)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert rows(database, "SELECT address, state, backend FROM account") == [
        (address, "active", "none")
    ]
    assert rows(database, "SELECT usecount FROM token") == [(1,)]
    assert password.encode() not in database.read_bytes()


@pytest.mark.parametrize(
    ("expiry", "ttl"), [("never", None), ("30s", 30), ("12h", 43_200), ("2w", 1_209_600)]
)
def test_the_time_to_live_is_told_in_mailadms_words_and_in_seconds(
    app_client: FlaskClient, add_token: AddToken, expiry: str, ttl: int | None
) -> None:
    add_token(expiry=expiry)
    document = app_client.post(f"/?t={SECRET}").json
    assert document is not None
    assert (document["expiry"], document["ttl"]) == (expiry, ttl)


def test_a_token_for_one_mailbox_makes_that_one(
    app_client: FlaskClient, add_token: AddToken
) -> None:
    add_token(address="alice+x@example.com")
    document = app_client.post(f"/?t={SECRET}").json
    assert document is not None
    assert document["email"] == "alice+x@example.com"
    url = urlsplit(document["dclogin_url"])
    assert (url.scheme, url.netloc, url.path) == ("dclogin", "alice+x@example.com", "/")
    assert parse_qs(url.query) == {"p": [document["password"]], "v": ["1"]}


def test_a_mailbox_that_its_token_has_made_is_taken(
    app_client: FlaskClient, add_token: AddToken, execute: Execute
) -> None:
    add_token(address="alice@example.com")
    assert app_client.post(f"/?t={SECRET}").status_code == 200
    assert_error(app_client.post(f"/?t={SECRET}"), 409, TAKEN)
    execute("DELETE FROM account")
    assert app_client.post(f"/?t={SECRET}").status_code == 403


def test_the_answer_has_all_servers_where_a_client_guesses_others(
    app_client: FlaskClient, add_token: AddToken, execute: Execute
) -> None:
    execute("UPDATE server SET port = 2525, socket_type = 'STARTTLS' WHERE type = 'smtp'")
    add_token()
    document = app_client.post(f"/?t={SECRET}").json
    assert document is not None
    login = parse_qs(urlsplit(document["dclogin_url"]).query)
    assert login.keys() == {"p", "v", "ih", "ip", "iu", "is", "sh", "sp", "su", "ss"}
    assert (login["sh"], login["sp"], login["ss"]) == (["smtp.example.com"], ["2525"], ["starttls"])
    assert login["su"] == [document["email"]]


def test_a_domain_whose_servers_are_missing_still_makes_accounts(
    app_client: FlaskClient, add_token: AddToken, execute: Execute
) -> None:
    execute("DELETE FROM server_domain; DELETE FROM davserver_domain")
    add_token()
    document = app_client.post(f"/?t={SECRET}").json
    assert document is not None
    assert parse_qs(urlsplit(document["dclogin_url"]).query).keys() == {"p", "v"}


def test_a_program_is_told_of_an_account_without_its_password(
    make_app: Make, add_token: AddToken, tmp_path: Path
) -> None:
    command = ("/bin/sh", "-c", f"cat >{tmp_path}/told")
    add_token(expiry="never")
    document = make_app(account_created_command=command).test_client().post(f"/?t={SECRET}").json
    assert document is not None
    assert json.loads((tmp_path / "told").read_text()) == {
        "version": 1,
        "action": "created",
        "address": document["email"],
        "token": "summer",
        "expires_at": None,
    }


@pytest.mark.parametrize(
    "endpoint", ["", "https://mail.example.com", "https://example.com/new_email"]
)
def test_the_usual_paths_work_whatever_the_endpoint(
    make_app: Make, add_token: AddToken, endpoint: str
) -> None:
    add_token()
    client = make_app(web_endpoint=endpoint).test_client()
    assert client.post(f"/?t={SECRET}").status_code == 200
    assert client.post(f"/new_email?t={SECRET}").status_code == 200
    assert client.get("/").status_code == 200
    assert_error(client.post(f"/x/y?t={SECRET}"), 404, WRONG_ADDRESS)


def test_an_endpoint_with_encoded_characters_is_answered(
    make_app: Make, add_token: AddToken
) -> None:
    add_token()
    client = make_app(web_endpoint="https://example.com/f%C3%BCr%20alle").test_client()
    assert client.post(f"/für alle?t={SECRET}").status_code == 200


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded", b"t=somebody-elses&n=x"),
        ("multipart/form-data; boundary=x", b"--x\r\nnonsense"),
        ("application/json", b"{"),
        ("text/plain", b"\xff\x00" * 1000),
        ("", b"t=somebody-elses"),
    ],
)
def test_the_body_and_its_type_have_no_effect(
    app_client: FlaskClient, add_token: AddToken, content_type: str, body: bytes
) -> None:
    add_token()
    answer = app_client.post(f"/?t={SECRET}", data=body, content_type=content_type)
    assert answer.status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_the_token_is_read_from_the_url_alone(
    app_client: FlaskClient, add_token: AddToken, path: str
) -> None:
    add_token()
    assert_error(app_client.post(path, data={"t": SECRET}), 403, INCOMPLETE)
    assert_error(
        app_client.post(path, headers={"t": SECRET, "Cookie": f"t={SECRET}"}), 403, INCOMPLETE
    )


# What people read when something is wrong.


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", SPENT)
def test_a_token_that_makes_no_more_accounts_says_why(
    app_client: FlaskClient,
    add_token: AddToken,
    database: Path,
    execute: Execute,
    name: str,
    path: str,
) -> None:
    add_token()
    spend, reason = SPENT[name]
    spend(execute)
    assert_error(app_client.post(f"{path}?t={SECRET}"), 403, reason)
    assert rows(database, "SELECT * FROM account") == []


@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ("", 403, INCOMPLETE),
        ("?t=", 403, INCOMPLETE),
        ("?n=summer", 403, INCOMPLETE),
        ("?T=" + SECRET, 403, INCOMPLETE),
        ("?t=unknown", 403, UNKNOWN),
        ("?t=" + SECRET.upper(), 403, UNKNOWN),
        ("?t=" + SECRET[:-1], 403, UNKNOWN),
        ("?t=%00", 403, UNKNOWN),
        ("?t=%ff%fe", 403, UNKNOWN),
        ("?t=%ED%A0%80", 403, UNKNOWN),
        ("?t=%27%20OR%201=1--", 403, UNKNOWN),
        ("?t=" + "x" * 10_000, 403, UNKNOWN),
        (f"?t={SECRET}&t={SECRET}", 400, DAMAGED),
        (f"?t={SECRET}&t=", 400, DAMAGED),
    ],
)
def test_a_token_that_is_none_says_so(
    app_client: FlaskClient, add_token: AddToken, query: str, status: int, reason: str
) -> None:
    add_token()
    for path in PATHS:
        assert_error(app_client.post(path + query), status, reason)


@pytest.mark.parametrize(
    "path",
    [
        "/newemail",
        "/new_email/x",
        "/x",
        "/x/y/z",
        "/X/Y",
        "/mail",
        "/%3Cscript%3E",
        "/a//b",
    ],
)
def test_a_code_that_leads_to_a_wrong_path_has_a_reason_to_show(
    app_client: FlaskClient, path: str
) -> None:
    assert_error(app_client.post(f"{path}?t={SECRET}"), 404, WRONG_ADDRESS)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "BREW"])
def test_another_method_has_a_reason_to_show(
    app_client: FlaskClient, path: str, method: str
) -> None:
    answer = app_client.open(f"{path}?t={SECRET}", method=method)
    assert_error(answer, 405, FOR_THE_APP)
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}


def test_a_host_that_cannot_be_one_has_a_reason_to_show(app_client: FlaskClient) -> None:
    assert_error(app_client.post("/?t=x", headers={"Host": "..."}), 400, DAMAGED)


def test_any_host_name_will_do(app_client: FlaskClient, add_token: AddToken) -> None:
    add_token()
    for host in ("unknown.example", "127.0.0.1:80", "[::1]", "a_b.example", "xn--mller-kva.de"):
        assert app_client.post(f"/?t={SECRET}", headers={"Host": host}).status_code == 200


def test_a_large_body_is_refused(app_client: FlaskClient, add_token: AddToken) -> None:
    add_token()
    assert_error(app_client.post(f"/?t={SECRET}", data=b"x" * 70_000), 413, TOO_LARGE)


def test_a_missing_domain_is_a_matter_for_the_administrator(
    app_client: FlaskClient,
    add_token: AddToken,
    execute: Execute,
    caplog: pytest.LogCaptureFixture,
) -> None:
    add_token()
    execute("DELETE FROM domain")
    assert_error(app_client.post(f"/?t={SECRET}"), 500, OUT_OF_ORDER)
    assert "token summer: the domain example.com is not in the table domain" in caplog.text


def test_missing_settings_are_a_matter_for_the_administrator(
    make_app: Make, add_token: AddToken, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_token()
    answer = make_app(account_backend="command").test_client().post(f"/?t={SECRET}")
    assert_error(answer, 500, OUT_OF_ORDER)
    assert "POST / 500: account_command is empty" in caplog.text
    assert rows(database, "SELECT usecount FROM token") == [(0,)]


def test_an_outage_of_the_database_is_told_with_a_time_to_try_again(
    app_client: FlaskClient, add_token: AddToken, database: Path, execute: Execute
) -> None:
    add_token()
    content = database.read_bytes()
    database.unlink()
    answer = app_client.post(f"/?t={SECRET}")
    assert_error(answer, 503, UNAVAILABLE)
    assert answer.headers["Retry-After"] == "10"
    database.write_bytes(content)
    execute("DROP TABLE account")
    assert_error(app_client.post(f"/?t={SECRET}"), 503, UNAVAILABLE)


Command = Callable[[str], FlaskClient]


@pytest.fixture
def command(make_app: Make, tmp_path: Path) -> Command:
    """Return a client of an application whose backend is this shell script."""

    def make(script: str) -> FlaskClient:
        file = tmp_path / "backend"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        app = make_app(account_backend="command", account_command=(str(file),), account_timeout=1)
        return app.test_client()

    return make


@pytest.mark.parametrize("name", FAILURES)
def test_each_failure_of_a_mail_server_has_its_reason_and_gives_the_use_back(
    command: Command, add_token: AddToken, database: Path, name: str
) -> None:
    add_token(maxuse=3)
    script, status, reason = FAILURES[name]
    client = command(script)
    if name == "not there":
        client.post(f"/?t={SECRET}")
    answer = client.post(f"/?t={SECRET}")
    assert_error(answer, status, reason)
    if status != 409:
        assert answer.headers["Retry-After"] == "60"
    assert rows(database, "SELECT usecount FROM token") == [(0,)]


def test_the_address_of_a_token_for_one_mailbox_may_be_taken(
    command: Command, add_token: AddToken
) -> None:
    add_token(address="alice@example.com")
    answer = command("""echo '{"status": "exists"}'""").post(f"/?t={SECRET}")
    assert_error(answer, 409, TAKEN)


def bug(*_: object, **__: object) -> None:
    raise ZeroDivisionError("SELECT a secret")


def test_a_bug_is_told_without_its_traceback_which_is_logged(
    app_client: FlaskClient,
    add_token: AddToken,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    add_token()
    monkeypatch.setattr("automx.accounts.accounts.create", bug)
    for path in PATHS:
        assert_error(app_client.post(f"{path}?t={SECRET}"), 500, OUT_OF_ORDER)
    assert caplog.text.count("ZeroDivisionError: SELECT a secret") == len(PATHS)
    assert SECRET not in caplog.text


@pytest.mark.parametrize("name", ["automx.views.failure.record", "automx.views.dcaccount.reason"])
def test_a_bug_in_what_answers_errors_is_told_the_same_way(
    app_client: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    monkeypatch.setattr(name, bug)
    for path in PATHS:
        assert_error(app_client.post(f"{path}?t={SECRET}"), 500, OUT_OF_ORDER)
        assert_error(app_client.put(f"{path}?t={SECRET}"), 500, OUT_OF_ORDER)
    assert caplog.text.count("ZeroDivisionError: SELECT a secret") == 2 * len(PATHS)
    assert SECRET not in caplog.text


def test_a_bug_in_the_page_that_tells_errors_is_told_in_one_line(
    app_client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("automx.views.tokenpage.render_template", bug)
    answer = app_client.get("/new_email?t=x")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error.\n")


def test_other_protocols_keep_the_form_of_their_errors(client: FlaskClient) -> None:
    unknown = "No configuration is known for this domain.\n"
    no_method = "This method is not allowed here.\n"
    for answer, status, text in (
        (client.post("/mobileconfig", data={"emailaddress": "a@b.example"}), 404, unknown),
        (client.get("/mail/config-v1.1.xml?emailaddress=a@b.example"), 404, unknown),
        (client.post("/mail/config-v1.1.xml"), 405, no_method),
        (client.put("/healthz"), 405, no_method),
        (client.get("/newemail"), 404, "There is nothing at this address.\n"),
        (client.put("/newemail"), 404, "There is nothing at this address.\n"),
    ):
        assert (answer.status_code, answer.text) == (status, text)
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    answer = client.post("/autodiscover/autodiscover.xml", content_type="text/xml")
    assert answer.text.startswith("<?xml")


# What people see.


@pytest.mark.parametrize("path", PATHS)
def test_a_browser_sees_the_code_and_nothing_is_made(
    app_client: FlaskClient, add_token: AddToken, database: Path, path: str
) -> None:
    add_token()
    answer = app_client.get(f"{path}?t={SECRET}&n=anything")
    assert_page(answer, 200, token_page(f"DCACCOUNT:{ENDPOINT}?t={SECRET}&n=summer"))
    head = app_client.head(f"{path}?t={SECRET}")
    assert (head.status_code, head.data) == (200, b"")
    assert rows(database, "SELECT * FROM account") == []
    assert rows(database, "SELECT usecount FROM token") == [(0,)]


@pytest.mark.parametrize(
    ("expiry", "text"),
    [
        ("never", "The mailbox has no end date."),
        ("24h", "The mailbox lasts 1 day. After that it is deleted, with all that is in it."),
        ("36h", "The mailbox lasts 36 hours. After that it is deleted, with all that is in it."),
        ("2w", "The mailbox lasts 2 weeks. After that it is deleted, with all that is in it."),
    ],
)
def test_the_page_tells_how_long_a_mailbox_lasts(
    app_client: FlaskClient, add_token: AddToken, expiry: str, text: str
) -> None:
    add_token(expiry=expiry)
    assert f"<li>{text}</li>" in app_client.get(f"/?t={SECRET}").text


def test_the_page_does_not_tell_how_often_the_code_can_still_be_used_or_for_whom_it_is(
    app_client: FlaskClient, add_token: AddToken
) -> None:
    add_token(address="alice@example.com")
    link = f"DCACCOUNT:{ENDPOINT}?t={SECRET}&n=summer"
    assert_page(app_client.get(f"/?t={SECRET}"), 200, token_page(link))


def test_the_page_shows_names_as_they_are(
    app_client: FlaskClient, add_token: AddToken, execute: Execute
) -> None:
    add_token(name="a&b<c>'\"ü")
    execute("UPDATE provider SET name = '<b>Ham & Eggs</b>'")
    execute("UPDATE domain SET name = 'bücher.example'")
    execute("UPDATE token SET domain = 'xn--bcher-kva.example'")
    page = app_client.get(f"/?t={SECRET}").text
    assert '<p class="provider">&lt;b&gt;Ham &amp; Eggs&lt;/b&gt;</p>' in page
    assert "<strong>bücher.example</strong>" in page
    assert f'href="dcaccount:{ENDPOINT}?t={SECRET}&amp;n=a%26b%3Cc%3E%27%22%C3%BC"' in page


def test_without_an_endpoint_the_code_leads_where_the_page_was_found(
    make_app: Make, add_token: AddToken
) -> None:
    add_token()
    client = make_app(proxy_count=1).test_client()
    headers = {
        "X-Forwarded-For": "192.0.2.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "mail.example.com",
        "X-Forwarded-Prefix": "/automx",
    }
    for scheme in ("https", "http"):  # a proxy behind the one that speaks TLS says http
        headers["X-Forwarded-Proto"] = scheme
        for path in ("/", "/new_email"):
            link = f"DCACCOUNT:https://mail.example.com/automx{path}?t={SECRET}&n=summer"
            answer = client.get(f"{path}?t={SECRET}", headers=headers)
            assert_page(answer, 200, token_page(link))


@pytest.mark.parametrize("host", ["localhost", "b", "example.com:8080", "[::1]"])
def test_a_page_that_was_found_by_plain_http_has_no_code_that_would_work(
    make_app: Make, add_token: AddToken, caplog: pytest.LogCaptureFixture, host: str
) -> None:
    add_token()
    answer = make_app().test_client().get(f"/?t={SECRET}", headers={"Host": host})
    assert_page(answer, 404, error_page("This QR code does not work", WRONG_ADDRESS, PROVIDER))
    assert f"(web_endpoint is not set, and apps do not ask http://{host}/)" in caplog.text


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", SPENT)
def test_the_page_of_a_token_that_makes_no_more_accounts_says_why(
    app_client: FlaskClient, add_token: AddToken, execute: Execute, name: str, path: str
) -> None:
    add_token()
    spend, reason = SPENT[name]
    spend(execute)
    document = error_page("This QR code does not work", reason, provider_of(name))
    assert_page(app_client.get(f"{path}?t={SECRET}"), 403, document)


def test_the_page_of_a_token_that_is_none_says_so(
    app_client: FlaskClient, add_token: AddToken
) -> None:
    add_token()
    for query, status, reason in (
        ("?t=", 403, INCOMPLETE),
        ("?t=unknown", 403, UNKNOWN),
        ("?t=<script>", 403, UNKNOWN),
        (f"?t={SECRET}&t={SECRET}", 400, DAMAGED),
    ):
        for path in PATHS:
            document = error_page("This QR code does not work", reason)
            assert_page(app_client.get(path + query), status, document)


def test_without_a_token_the_root_is_the_root_page_and_the_others_say_what_is_missing(
    app_client: FlaskClient,
) -> None:
    assert unversioned(app_client.get("/").text) == golden("root-ready.html")
    assert unversioned(app_client.get("/?n=summer").text) == golden("root-ready.html")
    for path in PATHS[1:]:
        document = error_page("This QR code does not work", INCOMPLETE)
        assert_page(app_client.get(path), 403, document)


def test_the_page_tells_an_outage(
    app_client: FlaskClient, add_token: AddToken, database: Path, execute: Execute
) -> None:
    add_token()
    execute("DELETE FROM domain")
    document = error_page("Not at the moment", OUT_OF_ORDER)
    assert_page(app_client.get(f"/?t={SECRET}"), 500, document)
    database.unlink()
    answer = app_client.get(f"/?t={SECRET}")
    assert_page(answer, 503, error_page("Not at the moment", UNAVAILABLE))
    assert answer.headers["Retry-After"] == "10"


@pytest.mark.parametrize("path", PATHS)
def test_the_style_sheet_is_at_the_path_of_the_page_and_may_be_kept(
    app_client: FlaskClient, path: str
) -> None:
    query = style_of(app_client.get(f"{path}?t=unknown").text)
    answer = app_client.get(path + query)
    assert answer.status_code == 200
    assert answer.text == app_client.get("/static/page.css").text
    assert answer.headers["Content-Type"] == "text/css; charset=utf-8"
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_is_in_the_color_of_the_provider(
    app_client: FlaskClient, add_token: AddToken, execute: Execute
) -> None:
    add_token()
    execute("INSERT INTO provider_detail (provider_id, color) SELECT id, '#1A5FB4' FROM provider")
    query = style_of(app_client.get(f"/?t={SECRET}").text)
    assert ":root{--accent:#1a5fb4;--brand:#1a5fb4;" in app_client.get(f"/{query}").text


# Over real HTTP.


@pytest.fixture(scope="module")
def served_database(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A SQLite file with a token that makes any number of accounts."""
    path = tmp_path_factory.mktemp("served") / "automx.sqlite"
    path.write_bytes(empty_database.read_bytes())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(EXAMPLE_ROWS)
    with open_session(f"sqlite:///{path}") as session:
        now = datetime.now(UTC)
        tokens.add(session, "summer", "example.com", now=now, token=SECRET, maxuse=0)
    return path


def environment(database: Path) -> dict[str, str]:
    """Return settings that log as much as can be."""
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "AUTOMX_DB_ECHO": "yes",
        "AUTOMX_LOGLEVEL": "DEBUG",
        "AUTOMX_WEB_ENDPOINT": ENDPOINT,
        "AUTOMX_ACCOUNT_RATE_LIMIT": "1000 per minute",
    }


@pytest.fixture(scope="module")
def server(served_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server of two workers."""
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serving(environment(served_database), log, "--workers", "2") as started:
        yield started


def exchange(port: int, head: str, body: bytes = b"") -> tuple[int, str]:
    """Send a request as it is, and return status and body of the answer."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    answer, _, text = received.decode().partition("\r\n\r\n")
    return int(answer.split()[1]), text


HOST = "Host: mail.example.com\nConnection: close"
REQUESTS = {
    "neither length nor type": f"POST /new_email?t={SECRET}&n=summer HTTP/1.1\n{HOST}",
    "no length, the root": f"POST /?t={SECRET} HTTP/1.1\n{HOST}",
    "a length of 0": f"POST /x/y?t={SECRET} HTTP/1.1\n{HOST}\nContent-Length: 0",
    "the token last": f"POST /?n=summer&t={SECRET} HTTP/1.1\n{HOST}",
    "an absolute target": f"POST https://mail.example.com/new_email?t={SECRET} HTTP/1.1\n{HOST}",
    "an absolute target with a port": (
        f"POST https://mail.example.com:443/x/y?t={SECRET} HTTP/1.1\n{HOST}"
    ),
    "an absolute target without a path": (
        f"POST https://mail.example.com?t={SECRET} HTTP/1.1\n{HOST}"
    ),
    "an absolute target of another host": f"POST http://example.org/?t={SECRET} HTTP/1.1\n{HOST}",
    "two slashes": f"POST //new_email?t={SECRET} HTTP/1.1\n{HOST}",
    "HTTP/1.0": f"POST /new_email?t={SECRET} HTTP/1.0",
    "HTTP/1.0 with a host": f"POST /new_email?t={SECRET} HTTP/1.0\nHost: mail.example.com",
}


@pytest.mark.parametrize("name", REQUESTS)
def test_each_form_of_a_request_makes_an_account(
    server: Server, served_database: Path, name: str
) -> None:
    status, text = exchange(server.port, REQUESTS[name])
    assert status == 200, text
    address = json.loads(text)["email"]
    assert rows(served_database, f"SELECT state FROM account WHERE address = '{address}'") == [
        ("active",)
    ]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("Content-Type: application/x-www-form-urlencoded\nContent-Length: 3", b"t=x"),
        ("Content-Type: nonsense\nContent-Length: 60000", b"\x00" * 60_000),
        ("Transfer-Encoding: chunked", b"5\r\nt=abc\r\n0\r\n\r\n"),
        ("Content-Length: 3\nExpect: 100-continue", b"t=x"),
    ],
)
def test_a_body_has_no_effect(server: Server, headers: str, body: bytes) -> None:
    head = f"POST /?t={SECRET} HTTP/1.1\n{HOST}\n{headers}"
    status, text = exchange(server.port, head, body)
    assert '"email": "tmp.' in text
    assert status == (100 if "Expect" in headers else 200)


def test_a_connection_can_be_used_for_the_next_request(server: Server) -> None:
    first = f"POST /?t={SECRET} HTTP/1.1\nHost: x\nContent-Length: 5\n\nGET /".replace("\n", "\r\n")
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(f"{first}GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        received = b""
        while b"ok\n" not in received:
            chunk = connection.recv(65536)
            assert chunk, received
            received += chunk
    assert received.count(b"HTTP/1.1 200 OK") == 2


def test_tokens_and_passwords_are_in_no_log(server: Server, served_database: Path) -> None:
    answers = [exchange(server.port, request)[1] for request in REQUESTS.values()]
    passwords = [json.loads(answer)["password"] for answer in answers]
    secrets = [SECRET, "another-secret", *passwords]
    for request in (
        f"GET /new_email?t={SECRET}",
        "GET /?t=another-secret",
        "POST /?t=another-secret",
        "POST /?t=another-secret&t=another-secret",
        f"POST /somewhere?t={SECRET}",
        f"PUT /?t={SECRET}",
        f"OPTIONS /?t={SECRET}",
    ):
        exchange(server.port, f"{request} HTTP/1.1\n{HOST}")
    connection = sqlite3.connect(served_database, isolation_level=None)
    with contextlib.closing(connection):
        connection.execute("ALTER TABLE account RENAME COLUMN mark TO marked")
        status, text = exchange(server.port, f"POST /?t={SECRET} HTTP/1.1\n{HOST}")
        connection.execute("ALTER TABLE account RENAME COLUMN marked TO mark")
    assert status == 503, text
    wait_until(lambda: "PUT / 405" in server.output, "the last line of the log")
    assert "SELECT token.id" in server.output
    assert "INSERT INTO account" in server.output
    assert "automx.access: 127.0.0.1 POST /new_email 200" in server.output
    for secret in secrets:
        assert secret not in server.output


def test_tokens_are_in_no_log_of_flask_run_either(served_database: Path, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "flask", "--app", "automx.server", "run", "--port", str(port)]
    log, env = tmp_path / "log", environment(served_database)
    with running(command, log, ready=lambda: listens(port), env=env) as server:
        assert exchange(port, REQUESTS["neither length nor type"])[0] == 200
        line = '"POST /new_email HTTP/1.1" 200 -'
        wait_until(lambda: line in server.output, "the line in the log of werkzeug")
        assert SECRET not in server.output
