"""The profile of a new account, which the page of a token offers to people with Apple's devices."""

import plistlib
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from automx.accounts import accounts
from automx.database import open_session
from tests.conftest import Execute
from tests.profiles import profile_of
from tests.tls import Authority, verified
from tests.tokenpages import (
    ENDPOINT,
    FAILURES,
    OUT_OF_ORDER,
    PAGE_HEADERS,
    PROVIDER,
    SECRET,
    SPENT,
    UNKNOWN,
    AddToken,
    assert_page,
    error_page,
    provider_of,
    rows,
    steady,
    token_page,
)

pytestmark = pytest.mark.usefixtures("example")

URL = f"/new_email?t={SECRET}&n=summer"
FORM = {"profile": "1"}
NOT_OFFERED = (
    "This server gives out no profiles for these mailboxes. Please scan the QR code with the app"
    " Delta Chat."
)
OFFER = (
    "<section>\n<h2>Without Delta Chat</h2>\n"
    '<form method="post">\n'
    '<p class="remark">The mail app of this iPhone, iPad or Mac can have the mailbox instead. It is'
    " made as you tap the button; a profile with its settings and its password is downloaded. Open"
    " Settings (on a Mac, System Settings), tap “Profile Downloaded” and install it; an iPhone"
    " or iPad keeps it for eight minutes only.</p>\n"
    '<button class="button" name="profile" value="1">Make an account on this iPhone, iPad or Mac'
    "</button>\n</form>\n</section>\n"
)

Make = Callable[..., Flask]


@pytest.fixture
def app_client(make_app: Make) -> FlaskClient:
    """A client of an application that puts passwords into profiles."""
    return make_app(web_endpoint=ENDPOINT, permit_cleartext_passwords=True).test_client()


def offering_page() -> str:
    """Return the page of the token, with the form."""
    page = token_page(f"DCACCOUNT:{ENDPOINT}?t={SECRET}&n=summer")
    for old, new in (
        ("<section>\n<h2>Good to know</h2>", f"{OFFER}<section>\n<h2>Good to know</h2>"),
        (
            "<li>It is made when you scan the code, not by looking at this page.</li>",
            (
                "<li>It is made when you scan the code or tap the button, not by looking at this"
                " page.</li>\n"
                "<li>Your device removes the profile, and the mailbox from its app, at the same"
                " time.</li>"
            ),
        ),
    ):
        assert old in page
        page = page.replace(old, new)
    return page


def assert_told(
    answer: TestResponse, status: int, headline: str, reason: str, provider: str = ""
) -> None:
    """Check that an answer is the page that tells an error."""
    assert_page(answer, status, error_page(headline, reason, provider))


def test_the_page_offers_a_profile_and_may_send_its_form_to_this_server_alone(
    app_client: FlaskClient, add_token: AddToken, database: Path
) -> None:
    add_token()
    answer = app_client.get(URL)
    assert steady(answer.text) == offering_page()
    policy = PAGE_HEADERS["Content-Security-Policy"].replace(
        "form-action 'none'", "form-action 'self'"
    )
    for name, value in (PAGE_HEADERS | {"Content-Security-Policy": policy}).items():
        assert answer.headers[name] == value
    assert rows(database, "SELECT * FROM account") == []
    assert rows(database, "SELECT usecount FROM token") == [(0,)]


def test_an_account_without_end_is_not_said_to_leave_the_device(
    app_client: FlaskClient, add_token: AddToken
) -> None:
    add_token(expiry="never")
    page = app_client.get(URL).text
    assert OFFER in page
    assert "removes the profile" not in page


def test_the_form_makes_an_account_and_is_answered_with_its_profile(
    app_client: FlaskClient, add_token: AddToken, database: Path
) -> None:
    add_token()
    answer = app_client.post(URL, data=FORM)
    profile = profile_of(answer)
    mail, *dav = profile["PayloadContent"]
    address, password = mail["EmailAddress"], mail["IncomingPassword"]
    assert re.fullmatch(r"tmp\.[2345789acdefghjkmnpqrstuvwxyz]{5}@example\.com", address)
    assert re.fullmatch(r"[A-Za-z0-9-]{20}", password)
    assert mail["IncomingMailServerUsername"] == address
    assert [payload["PayloadType"].split(".")[2] for payload in dav] == ["caldav", "carddav"]
    assert [next(v for k, v in p.items() if k.endswith("Password")) for p in dav] == [password] * 2
    assert answer.headers["Content-Type"] == "application/x-apple-aspen-config"
    assert answer.headers["Content-Disposition"] == (
        f'attachment; filename="{address.replace("@", "-")}.mobileconfig"'
    )
    assert answer.headers["Cache-Control"] == "no-store"
    assert rows(database, "SELECT address, state FROM account") == [(address, "active")]
    assert rows(database, "SELECT usecount FROM token") == [(1,)]
    assert password.encode() not in database.read_bytes()


@pytest.mark.parametrize("expiry", ["30s", "36h", "2w"])
def test_the_device_removes_the_profile_when_the_account_ends(
    app_client: FlaskClient, add_token: AddToken, database: Path, expiry: str
) -> None:
    add_token(expiry=expiry)
    answer = app_client.post(URL, data=FORM)
    profile = profile_of(answer)
    address = profile["PayloadContent"][0]["EmailAddress"]
    with open_session(f"sqlite:///{database}") as session:
        account = accounts.get(session, address)
    assert account.expires_at is not None
    assert profile["RemovalDate"].replace(tzinfo=UTC) == account.expires_at
    written = f"<key>RemovalDate</key>\n\t<date>{account.expires_at:%Y-%m-%dT%H:%M:%SZ}</date>"
    assert written in answer.text


def test_the_removal_is_in_utc_whatever_the_time_zone_of_the_server(
    app_client: FlaskClient, add_token: AddToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    add_token(expiry="1h")
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        removal = profile_of(app_client.post(URL, data=FORM))["RemovalDate"].replace(tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()
    left = removal - datetime.now(UTC)
    assert timedelta(minutes=50) < left <= timedelta(hours=1)


def test_an_account_without_end_stays_on_the_device(
    app_client: FlaskClient, add_token: AddToken
) -> None:
    add_token(expiry="never")
    assert "RemovalDate" not in profile_of(app_client.post(URL, data=FORM))


def test_the_profile_is_signed_if_profiles_are(
    make_app: Make, add_token: AddToken, tmp_path: Path
) -> None:
    add_token()
    (tmp_path / "authority").mkdir()
    authority = Authority(tmp_path / "authority")
    issued = authority.issue("automx.example.com", days=90)
    client = make_app(
        permit_cleartext_passwords=True,
        signing_certificate=str(issued.certificate),
        signing_key=str(issued.key),
    ).test_client()
    profile = plistlib.loads(verified(client.post(URL, data=FORM).data, authority, tmp_path))
    assert profile["RemovalDate"] > datetime.now(UTC).replace(tzinfo=None)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("", b""),
        ("application/x-www-form-urlencoded", b""),
        ("application/x-www-form-urlencoded", b"profile=0"),
        ("application/x-www-form-urlencoded", b"profile=1&profile=1"),
        ("application/x-www-form-urlencoded", b"t=1"),
        ("application/json", b"profile=1"),
        ("", b"profile=1"),
    ],
)
def test_whoever_sends_another_body_is_answered_as_by_mailadm(
    app_client: FlaskClient, add_token: AddToken, content_type: str, body: bytes
) -> None:
    add_token()
    answer = app_client.post(URL, data=body, content_type=content_type)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({}, ""),
        ({"permit_cleartext_passwords": True}, "DELETE FROM server WHERE type = 'smtp'"),
        ({"permit_cleartext_passwords": True}, "DELETE FROM server WHERE type <> 'smtp'"),
        (
            {"permit_cleartext_passwords": True},
            (
                "INSERT INTO ldapserver VALUES"
                " (1, 'ldap.example.com', 389, 0, 'dc=x', '(mail={0})', 'uid', 'cn', NULL, NULL);"
                "UPDATE domain SET ldapserver_id = 1"
            ),
        ),
    ],
    ids=["not permitted", "nothing outgoing", "nothing incoming", "a directory"],
)
def test_where_no_profile_can_be_right_none_is_offered_and_none_is_made(
    make_app: Make,
    add_token: AddToken,
    database: Path,
    execute: Execute,
    settings: dict[str, bool],
    change: str,
) -> None:
    add_token()
    execute(change)
    client = make_app(web_endpoint=ENDPOINT, **settings).test_client()
    assert_page(client.get(URL), 200, token_page(f"DCACCOUNT:{ENDPOINT}?t={SECRET}&n=summer"))
    assert_told(
        client.post(URL, data=FORM), 403, "This QR code does not work", NOT_OFFERED, PROVIDER
    )
    assert rows(database, "SELECT * FROM account") == []
    assert rows(database, "SELECT usecount FROM token") == [(0,)]


@pytest.mark.parametrize("name", SPENT)
def test_a_token_that_makes_no_more_accounts_says_why_on_a_page(
    app_client: FlaskClient, add_token: AddToken, execute: Execute, database: Path, name: str
) -> None:
    add_token()
    spend, reason = SPENT[name]
    spend(execute)
    answer = app_client.post(URL, data=FORM)
    assert_told(answer, 403, "This QR code does not work", reason, provider_of(name))
    assert rows(database, "SELECT * FROM account") == []


def test_a_token_that_is_none_and_an_outage_are_told_on_a_page(
    app_client: FlaskClient, add_token: AddToken, execute: Execute, database: Path
) -> None:
    answer = app_client.post(URL, data=FORM)
    assert_told(answer, 403, "This QR code does not work", UNKNOWN)
    add_token()
    execute("DELETE FROM domain")
    answer = app_client.post(URL, data=FORM)
    assert_told(answer, 500, "Not at the moment", OUT_OF_ORDER)
    database.unlink()
    assert app_client.post(URL, data=FORM).status_code == 503


@pytest.mark.parametrize("name", ["taken", "refused", "failed"])
def test_a_failure_of_the_mail_server_is_told_on_a_page_and_gives_the_use_back(
    make_app: Make, add_token: AddToken, database: Path, tmp_path: Path, name: str
) -> None:
    add_token()
    script, status, reason = FAILURES[name]
    file = tmp_path / "backend"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    client = make_app(
        permit_cleartext_passwords=True, account_backend="command", account_command=(str(file),)
    ).test_client()
    assert_told(client.post(URL, data=FORM), status, "Not at the moment", reason, PROVIDER)
    assert rows(database, "SELECT usecount FROM token") == [(0,)]


def test_who_asks_too_often_is_told_so_on_a_page(make_app: Make, add_token: AddToken) -> None:
    add_token()
    client = make_app(permit_cleartext_passwords=True, account_rate_limit="1 per day").test_client()
    assert client.post(URL, data=FORM).status_code == 200
    answer = client.post(URL, data=FORM)
    reason = "Too many accounts were asked for. Please wait a while and try again."
    assert_told(answer, 429, "A little too fast", reason)
    assert 0 < int(answer.headers["Retry-After"]) <= 86_400
