"""Mobileconfig: profiles for Apple's devices, by the types and words of Apple's schema."""

import logging
import plistlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from automx.address import EmailAddress
from automx.clientconfig import Service, ServiceType
from automx.config import load
from automx.formats import mobileconfig
from tests.conftest import Execute
from tests.documents import DATA, golden
from tests.examples import IMAP, SMTP, config
from tests.profiles import assert_valid, profile_of

ALICE = {"emailaddress": "alice@example.com", "name": "Alice Example"}

pytestmark = pytest.mark.usefixtures("example")


def mail_of(answer: TestResponse) -> dict[str, Any]:
    """Return the mail account of the checked profile that an answer holds."""
    mail: dict[str, Any] = profile_of(answer)["PayloadContent"][0]
    return mail


def test_the_profile_is_as_expected_by_get_and_post(client: FlaskClient) -> None:
    for path in ("/mobileconfig", "/mobileconfig/"):
        for answer in (client.get(path, query_string=ALICE), client.post(path, data=ALICE)):
            profile_of(answer)
            assert answer.text == golden("example-alice.mobileconfig")
            assert answer.headers["Content-Type"] == "application/x-apple-aspen-config"
            assert answer.headers["Content-Disposition"] == (
                'attachment; filename="alice-example.com.mobileconfig"'
            )
            assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.glob("*.mobileconfig")))
def test_each_expected_profile_keeps_to_apples_schema(name: str) -> None:
    assert_valid(plistlib.loads(golden(name).encode()))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("PayloadVersion", 1.0),
        ("PayloadVersion", True),
        ("PayloadRemovalDisallowed", 0),
        ("RemovalDate", "2026-11-22T10:00:00Z"),
        ("PayloadUUID", 7),
        ("PayloadColor", "red"),
    ],
)
def test_the_check_of_the_schema_notices_a_wrong_type_and_an_unknown_key(
    key: str, value: object
) -> None:
    profile = plistlib.loads(golden("example-alice.mobileconfig").encode()) | {key: value}
    with pytest.raises(AssertionError):
        assert_valid(profile)


def test_the_check_of_the_schema_notices_a_missing_key() -> None:
    profile = plistlib.loads(golden("example-alice.mobileconfig").encode())
    del profile["PayloadContent"][0]["IncomingMailServerHostName"]
    with pytest.raises(AssertionError):
        assert_valid(profile)


def test_each_column_reaches_the_profile(client: FlaskClient, execute: Execute) -> None:
    execute("""
        INSERT INTO provider VALUES (2, 'Ärzte & <Söhne>', 'Ärzte');
        INSERT INTO domain VALUES (2, 'MÜLLER.de', 2, NULL);
        INSERT INTO server VALUES (12, 20, 'pop.%EMAILDOMAIN%', 110, 'pop', 'STARTTLS', '%EMAILDOMAIN%/%EMAILLOCALPART%', 'secure');
        INSERT INTO server VALUES (13, 10, 'smtp.example.net', 25, 'smtp', 'plain', 'x', 'client-IP-address');
        INSERT INTO davserver VALUES (11, 'http://dav.example.net/', 8080, 'caldav', 0, 1, '');
        INSERT INTO davserver VALUES (12, 'https://dav.example.net/a/%EMAILLOCALPART%/', 0, 'caldav', 1, 1, 'cal');
        INSERT INTO davserver VALUES (13, 'https://files.example.net/', 0, 'webdav', 1, 0, '');
        INSERT INTO server_domain SELECT id, 2 FROM server WHERE id > 10;
        INSERT INTO davserver_domain VALUES (11, 2), (12, 2), (13, 2);
    """)  # noqa: E501 - rows are easier to compare when each stands on one line
    arguments = {"emailaddress": "bob&co@müller.de", "name": "Böb <&> 😀"}
    answer = client.get("/mobileconfig", query_string=arguments)
    profile_of(answer)
    assert answer.text == golden("columns.mobileconfig")


# Identifiers.


def identifiers(answer: TestResponse) -> list[tuple[str, str]]:
    profile = profile_of(answer)
    payloads = [profile, *profile["PayloadContent"]]
    return [(payload["PayloadIdentifier"], payload["PayloadUUID"]) for payload in payloads]


def test_identifiers_depend_on_the_address_alone(
    make_app: Callable[..., Flask], execute: Execute
) -> None:
    first = identifiers(make_app().test_client().get("/mobileconfig", query_string=ALICE))
    other_app = make_app(domain_cache_seconds=10, permit_cleartext_passwords=True).test_client()
    address = {"emailaddress": "ALICE@Example.COM"}
    assert identifiers(other_app.get("/mobileconfig", query_string=address)) == first
    form = address | {"name": "Other", "password": "secret"}
    assert identifiers(other_app.post("/mobileconfig/", data=form)) == first
    execute("UPDATE provider SET name = 'New'; UPDATE server SET name = 'new.example.com', port=1")
    execute("UPDATE davserver SET user_name = 'new'")
    changed = identifiers(make_app().test_client().get("/mobileconfig", query_string=ALICE))
    assert changed == first
    bob = identifiers(
        other_app.get("/mobileconfig", query_string={"emailaddress": "bob@example.com"})
    )
    assert not {pair[0] for pair in bob} & {pair[0] for pair in first}
    assert not {pair[1] for pair in bob} & {pair[1] for pair in first}


# Which servers.


@pytest.mark.parametrize(
    ("rows", "incoming", "outgoing"),
    [
        # IMAP before POP, whatever prio says.
        ("imap 20 SSL, pop 1 SSL, smtp 10 SSL", ("EmailTypeIMAP", 1), 3),
        ("pop 10 SSL, smtp 10 SSL", ("EmailTypePOP", 1), 2),
        # The lowest prio wins, then the lowest id.
        ("imap 20 SSL, imap 10 SSL, smtp 20 SSL, smtp 10 STARTTLS", ("EmailTypeIMAP", 2), 4),
        ("imap 10 SSL, imap 10 SSL, smtp 10 SSL, smtp 10 SSL", ("EmailTypeIMAP", 1), 3),
        # Not a plaintext server, if an encrypted one of the same type exists.
        ("imap 1 plain, imap 20 STARTTLS, smtp 1 plain, smtp 9 SSL", ("EmailTypeIMAP", 2), 4),
        ("imap 1 plain, pop 1 SSL, smtp 1 plain", ("EmailTypeIMAP", 1), 3),
        ("pop 1 plain, pop 2 SSL, smtp 1 SSL", ("EmailTypePOP", 2), 3),
    ],
)
def test_the_best_server_of_each_kind_is_chosen(
    client: FlaskClient, execute: Execute, rows: str, incoming: tuple[str, int], outgoing: int
) -> None:
    execute("DELETE FROM server; DELETE FROM server_domain")
    for number, row in enumerate(rows.split(", "), 1):
        type_, prio, socket_type = row.split()
        execute(f"""
            INSERT INTO server VALUES ({number}, {prio}, '{number}.example.com', 1, '{type_}',
                                       '{socket_type}', '', 'plain');
            INSERT INTO server_domain VALUES ({number}, 1);
        """)
    mail = mail_of(client.get("/mobileconfig", query_string=ALICE))
    assert mail["EmailAccountType"] == incoming[0]
    assert mail["IncomingMailServerHostName"] == f"{incoming[1]}.example.com"
    assert mail["OutgoingMailServerHostName"] == f"{outgoing}.example.com"


@pytest.mark.parametrize(("type_", "missing"), [("smtp", "outgoing"), ("imap", "incoming")])
def test_a_profile_needs_both_directions(
    client: FlaskClient,
    execute: Execute,
    caplog: pytest.LogCaptureFixture,
    type_: str,
    missing: str,
) -> None:
    execute(f"DELETE FROM server WHERE type = '{type_}' OR type = 'pop'")
    answer = client.get("/mobileconfig", query_string=ALICE)
    assert answer.status_code == 500
    assert answer.text == (
        "The settings of this domain are incomplete; its administrator has to look into it.\n"
    )
    assert f"domain example.com: no usable {missing} mail server" in caplog.text


@pytest.mark.parametrize(
    ("authentication", "word"),
    [
        ("plain", "EmailAuthPassword"),
        ("secure", "EmailAuthCRAMMD5"),
        ("NTLM", "EmailAuthNTLM"),
        ("none", "EmailAuthNone"),
        ("OAuth2 secure plain", "EmailAuthCRAMMD5"),
        ("GSSAPI TLS-client-cert plain", "EmailAuthPassword"),
    ],
)
def test_the_authentication_is_the_best_one_that_apple_has_a_word_for(
    client: FlaskClient, execute: Execute, authentication: str, word: str
) -> None:
    execute(f"UPDATE server SET authentication = '{authentication}' WHERE type = 'imap'")
    mail = mail_of(client.get("/mobileconfig", query_string=ALICE))
    assert mail["IncomingMailServerAuthentication"] == word


@pytest.mark.parametrize("method", ["OAuth2", "GSSAPI", "TLS-client-cert", "OAuth2 GSSAPI"])
@pytest.mark.parametrize("type_", ["imap", "smtp"])
def test_a_server_whose_methods_a_profile_cannot_say_is_left_out(
    client: FlaskClient,
    execute: Execute,
    caplog: pytest.LogCaptureFixture,
    method: str,
    type_: str,
) -> None:
    execute(f"""
        DELETE FROM server WHERE type = 'pop';
        UPDATE server SET authentication = '{method}' WHERE type = '{type_}';
    """)
    answer = client.get("/mobileconfig", query_string=ALICE)
    assert answer.status_code == 500
    assert "incomplete" in answer.text
    assert "domain example.com: a profile cannot say OAuth2, GSSAPI or TLS-client-cert" in (
        caplog.text
    )
    page = client.get("/?address=alice@example.com").text
    assert "mobileconfig/" not in page
    assert client.get("/mobileconfig.svg?emailaddress=alice@example.com").status_code == 500

    execute(f"""
        INSERT INTO server VALUES (9, 99, 'x.example.com', 1, '{type_}', 'SSL', '', 'NTLM');
        INSERT INTO server_domain VALUES (9, 1);
    """)
    mail = mail_of(client.get("/mobileconfig", query_string=ALICE))
    direction = "Incoming" if type_ == "imap" else "Outgoing"
    assert mail[f"{direction}MailServerHostName"] == "x.example.com"
    assert mail[f"{direction}MailServerAuthentication"] == "EmailAuthNTLM"
    assert "mobileconfig/" in client.get("/?address=alice@example.com").text

    execute(f"""
        INSERT INTO server VALUES (10, 100, 'y.example.com', 1, '{type_}', 'SSL', '', 'plain');
        INSERT INTO server_domain VALUES (10, 1);
    """)
    mail = mail_of(client.get("/mobileconfig", query_string=ALICE))
    assert mail[f"{direction}MailServerHostName"] == "y.example.com"


def test_outgoing_mail_without_login_has_neither_user_name_nor_password(
    make_app: Callable[..., Flask], execute: Execute
) -> None:
    execute("UPDATE server SET user_name = '', authentication = 'none' WHERE type = 'smtp'")
    client = make_app(permit_cleartext_passwords=True).test_client()
    mail = mail_of(client.post("/mobileconfig", data=WITH_PASSWORD))
    assert mail["OutgoingMailServerAuthentication"] == "EmailAuthNone"
    assert mail["OutgoingPasswordSameAsIncomingPassword"] is False
    assert not {"OutgoingMailServerUsername", "OutgoingPassword"} & mail.keys()
    assert mail["IncomingPassword"] == WITH_PASSWORD["password"]


# Passwords.

WITH_PASSWORD = ALICE | {"password": " hunter2 & <more> "}


def app_of_automx2(make_app: Callable[..., Flask], consent: str) -> FlaskClient:
    """Return a client of an application whose passwords automx2's variable decides about."""
    settings = load({"AUTOMX_CONF": "/dev/null", "PERMIT_CLEARTEXT_PASSWORDS": consent})
    return make_app(
        permit_cleartext_passwords=settings.permit_cleartext_passwords,
        permit_passwords_in_urls=settings.permit_passwords_in_urls,
    ).test_client()


def passwords(answer: TestResponse) -> set[str]:
    """Return all passwords in the checked profile that an answer holds."""
    found = set()
    for payload in profile_of(answer)["PayloadContent"]:
        found |= {value for key, value in payload.items() if key.endswith("Password")}
    return found - {True, False}


def test_a_password_is_left_out_by_default_and_not_logged(
    make_app: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = make_app(loglevel="DEBUG").test_client()
    for answer in (
        client.post("/mobileconfig", data=WITH_PASSWORD),
        client.get("/mobileconfig", query_string=WITH_PASSWORD),
    ):
        assert answer.text == golden("example-alice.mobileconfig")
    assert "hunter2" not in caplog.text
    assert caplog.text.count("a password was sent and left out") == 2


def test_a_permitted_password_is_taken_from_a_form_only(make_app: Callable[..., Flask]) -> None:
    client = make_app(permit_cleartext_passwords=True).test_client()
    answer = client.post("/mobileconfig", data=WITH_PASSWORD)
    assert passwords(answer) == {" hunter2 & <more> "}
    assert answer.headers["Cache-Control"] == "no-store"
    assert "hunter2" not in str(answer.headers)
    by_url = client.get("/mobileconfig", query_string=WITH_PASSWORD)
    assert by_url.text == golden("example-alice.mobileconfig")
    both = client.post("/mobileconfig", data=ALICE, query_string={"password": "hunter2"})
    assert both.text == golden("example-alice.mobileconfig")


def test_the_profile_of_the_next_person_has_no_password_of_the_one_before(
    make_app: Callable[..., Flask],
) -> None:
    client = make_app(permit_cleartext_passwords=True, domain_cache_seconds=100).test_client()
    assert passwords(client.post("/mobileconfig", data=WITH_PASSWORD))
    answer = client.post("/mobileconfig", data=ALICE)
    assert answer.text == golden("example-alice.mobileconfig")


def test_automx2s_variable_permits_passwords_in_urls_as_well(
    make_app: Callable[..., Flask],
) -> None:
    client = app_of_automx2(make_app, "I_understand_the_risks")
    by_url = client.get("/mobileconfig", query_string=WITH_PASSWORD)
    assert passwords(by_url) == {" hunter2 & <more> "}
    assert passwords(client.post("/mobileconfig", data=WITH_PASSWORD)) == passwords(by_url)
    for other in ("", "yes", "i_understand_the_risks"):
        client = app_of_automx2(make_app, other)
        assert not passwords(client.get("/mobileconfig", query_string=WITH_PASSWORD))
        assert not passwords(client.post("/mobileconfig", data=WITH_PASSWORD))


def test_the_same_password_goes_out_if_both_servers_have_the_same_login(
    make_app: Callable[..., Flask], execute: Execute
) -> None:
    client = make_app(permit_cleartext_passwords=True).test_client()
    mail = mail_of(client.post("/mobileconfig", data=WITH_PASSWORD))
    assert mail["OutgoingPasswordSameAsIncomingPassword"] is True
    assert "OutgoingPassword" not in mail
    execute("UPDATE server SET user_name = 'other' WHERE type = 'smtp'")
    mail = mail_of(client.post("/mobileconfig", data=WITH_PASSWORD))
    assert mail["OutgoingPasswordSameAsIncomingPassword"] is False
    assert mail["OutgoingPassword"] == mail["IncomingPassword"] == " hunter2 & <more> "


# Arguments.


def test_without_a_name_the_address_is_shown(client: FlaskClient) -> None:
    for name in ({}, {"name": ""}, {"name": "  "}):
        arguments = {"emailaddress": "alice@example.com"} | name
        mail = mail_of(client.get("/mobileconfig", query_string=arguments))
        assert mail["EmailAccountName"] == "alice@example.com"


@pytest.mark.parametrize(
    ("address", "file_name"),
    [
        ("alice@example.com", "alice-example.com"),
        ('a"b@example.com', None),
        ("a/etc/passwd@example.com", "a-etc-passwd-example.com"),
        ("a/../etc@example.com", None),
        ("..@example.com", None),
        ("-rf@example.com", "rf-example.com"),
        ("a'b;c=d`e|f$g@example.com", None),
        ("a'b=d`e|f$g{}@example.com", "a-b-d-e-f-g-example.com"),
        ("%0d%0aSet-Cookie@example.com", "0d-0aSet-Cookie-example.com"),
        ("jürgen@example.com", "j-rgen-example.com"),
        ("用户@example.com", "example.com"),
        ("a" * 64 + "@example.com", "a" * 64 + "-example.com"),
    ],
)
def test_the_file_name_is_safe_whatever_the_address_is(
    client: FlaskClient, address: str, file_name: str | None
) -> None:
    answer = client.get("/mobileconfig", query_string={"emailaddress": address})
    if file_name is None:
        assert answer.status_code == 400
        assert "Content-Disposition" not in answer.headers
        return
    mail = mail_of(answer)
    assert mail["EmailAddress"] == address
    assert mail["IncomingMailServerUsername"] == address
    assert answer.headers["Content-Disposition"] == (
        f'attachment; filename="{file_name}.mobileconfig"'
    )


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("", "The argument emailaddress is missing."),
        ("emailaddress=", "The argument emailaddress is missing."),
        ("emailaddress=alice", "A mail address has exactly one @."),
        ("emailaddress=a@example.com&emailaddress=b@example.com", "The argument emailaddress is"),
        ("emailaddress=a@example.com&name=x&name=y", "The argument name is given more than once."),
        ("emailaddress=a@example.com&name=%0D%0Ax", "The argument name has a character that is"),
        ("emailaddress=a@example.com&name=%00", "The argument name has a character that is"),
        ("emailaddress=a@example.com&name=%EF%BF%BF", "The argument name has a character that is"),
        ("emailaddress=a@example.com&name=" + "n" * 257, "The argument name is too long."),
        ("emailaddress=a@example.com&only=dav", "The argument only can be mail, or missing."),
        ("emailaddress=a@example.com&only=mail&only=", "The argument only is given more than"),
        ("emailaddress=a@example.com&password=%07", "The argument password has a character that"),
        ("emailaddress=a@example.com&password=" + "p" * 257, "The argument password is too long."),
    ],
)
def test_bad_arguments_are_told_in_one_line(client: FlaskClient, query: str, text: str) -> None:
    for answer in (
        client.get(f"/mobileconfig?{query}"),
        client.post("/mobileconfig/", data=query, content_type="application/x-www-form-urlencoded"),
    ):
        assert answer.status_code == 400
        assert answer.text.startswith(text)
        assert answer.text.count("\n") == 1
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("name", ["</string><key>x", "&amp;", "]]>", "%EMAILADDRESS%", "A\u2028B"])
def test_a_name_is_a_text_and_nothing_else(client: FlaskClient, name: str) -> None:
    answer = client.post("/mobileconfig", data=ALICE | {"name": name})
    assert mail_of(answer)["EmailAccountName"] == name


def test_an_unknown_domain_is_not_found(client: FlaskClient) -> None:
    answer = client.get("/mobileconfig?emailaddress=alice@example.org")
    assert answer.status_code == 404
    assert answer.text == "No configuration is known for this domain.\n"


def test_a_form_of_5_megabytes_is_too_large(client: FlaskClient) -> None:
    answer = client.post("/mobileconfig", data=ALICE | {"x": "y" * 5_000_000})
    assert answer.status_code == 413
    assert answer.text == "The request is too large.\n"
    part = 'Content-Disposition: form-data; name="x"\r\n\r\n' + "y" * 5_000_000
    by_parts = client.post(
        "/mobileconfig",
        data=f"--b\r\n{part}\r\n--b--\r\n",
        content_type="multipart/form-data; boundary=b",
    )
    assert by_parts.status_code == 413


# Calendars and address books.


def calendars(answer: TestResponse) -> list[dict[str, Any]]:
    """Return the calendars of the checked profile that an answer holds."""
    content = profile_of(answer)["PayloadContent"]
    return [payload for payload in content if payload["PayloadType"] == "com.apple.caldav.account"]


def test_two_calendars_with_one_url_and_different_user_names_are_two_accounts(
    client: FlaskClient, execute: Execute
) -> None:
    (before,) = calendars(client.get("/mobileconfig", query_string=ALICE))
    execute("""
        INSERT INTO davserver SELECT 11, url, port, type, use_ssl, 1, 'team' FROM davserver WHERE id = 1;
        INSERT INTO davserver SELECT 12, url, port, type, use_ssl, 1, 'team' FROM davserver WHERE id = 1;
        INSERT INTO davserver SELECT 13, url, port, type, use_ssl, 1, 'boss' FROM davserver WHERE id = 1;
        INSERT INTO davserver_domain VALUES (11, 1), (12, 1), (13, 1);
    """)  # noqa: E501 - rows are easier to compare when each stands on one line
    first, *others = calendars(client.get("/mobileconfig", query_string=ALICE))
    assert first == before
    assert [payload["CalDAVUsername"] for payload in others] == ["team", "boss"]


def test_calendars_that_differ_in_the_user_name_alone_are_one_with_a_login_name() -> None:
    calendar = Service(ServiceType.CALDAV, "https://dav.example.com/", "%EMAILADDRESS%", False)
    services = (calendar, replace(calendar, user_name="team"))
    settings = replace(config(IMAP, SMTP), services=services).for_person("login")
    alice = EmailAddress("alice", "example.com")
    content = plistlib.loads(mobileconfig.render(settings, alice))["PayloadContent"]
    assert [payload["PayloadType"] for payload in content] == [
        "com.apple.mail.managed",
        "com.apple.caldav.account",
    ]


@pytest.mark.parametrize(
    ("url", "principal"),
    [
        ("https://dav.example.com", None),
        ("https://dav.example.com/", None),
        ("https://dav.example.com/?a=1", "/?a=1"),
        ("https://dav.example.com?a=1", "/?a=1"),
        ("https://dav.example.com/c;v=1?u=%EMAILADDRESS%&b=+", "/c;v=1?u=alice@example.com&b=+"),
    ],
)
def test_the_url_of_a_calendar_keeps_its_query(
    client: FlaskClient, execute: Execute, url: str, principal: str | None
) -> None:
    execute(f"UPDATE davserver SET url = '{url}' WHERE id = 1")
    (calendar,) = calendars(client.get("/mobileconfig", query_string=ALICE))
    assert calendar.get("CalDAVPrincipalURL") == principal
    assert calendar["CalDAVHostName"] == "dav.example.com"


def test_a_profile_for_mail_only_replaces_the_whole_one(make_app: Callable[..., Flask]) -> None:
    client = make_app(permit_cleartext_passwords=True, domain_cache_seconds=100).test_client()
    whole = profile_of(client.get("/mobileconfig", query_string=ALICE))
    mail = whole | {"PayloadContent": whole["PayloadContent"][:1]}
    for answer in (
        client.get("/mobileconfig", query_string=ALICE | {"only": "mail"}),
        client.get("/email.mobileconfig", query_string=ALICE | {"only": "mail"}),
        client.post("/mobileconfig/", data=ALICE | {"only": "mail"}),
    ):
        assert profile_of(answer) == mail
    answer = client.post("/mobileconfig", data=WITH_PASSWORD | {"only": "mail"})
    assert passwords(answer) == {" hunter2 & <more> "}
    assert len(profile_of(answer)["PayloadContent"]) == 1
    assert profile_of(client.get("/mobileconfig", query_string=ALICE | {"only": ""})) == whole


def test_people_may_switch_smime_on(client: FlaskClient) -> None:
    mail = mail_of(client.get("/mobileconfig", query_string=ALICE))
    choices = {key: value for key, value in mail.items() if key.startswith("SMIME")}
    assert choices == {
        "SMIMESigningUserOverrideable": True,
        "SMIMESigningCertificateUUIDUserOverrideable": True,
        "SMIMEEncryptByDefaultUserOverrideable": True,
        "SMIMEEncryptionCertificateUUIDUserOverrideable": True,
        "SMIMEEnableEncryptionPerMessageSwitch": True,
    }
