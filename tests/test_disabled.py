"""Domains that are switched off: what clients, people and administrators see of them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from automx.changes import Changes
from automx.database import open_session
from automx.lookup import knows
from automx.migrations import downgrade
from automx.references import DisabledRow, disabled_domains
from automx.seed import populate
from automx.seeddocument import SAMPLE
from tests.commandline import attempt, automx
from tests.conftest import EXAMPLE_ROWS, Execute
from tests.documents import autodiscover_request, timeless
from tests.mailboxes import NOW
from tests.mailprogram import mail_program
from tests.tokens import DISABLE, ENABLE

ADDRESS = "emailaddress=alice@example.com"
HOST = {"Host": "autoconfig.example.com"}
_OWN = {"Content-Length", "X-Request-ID"}  # headers that differ by the host, or by the request
Request = tuple[str, str, dict[str, str], str]
# Whatever is answered from the rows of a domain: method, URL, headers, body.
REQUESTS: list[Request] = [
    ("GET", f"/mail/config-v1.1.xml?{ADDRESS}", {}, ""),
    ("GET", "/mail/config-v1.1.xml", HOST, ""),
    ("GET", "/.well-known/autoconfig/mail/config-v1.1.xml", {"Host": "example.com"}, ""),
    ("GET", "/v1.1/example.com", {}, ""),
    (
        "POST",
        "/autodiscover/autodiscover.xml",
        {"Content-Type": "text/xml"},
        autodiscover_request("alice@example.com"),
    ),
    ("GET", "/autodiscover/autodiscover.xml", {"Host": "autodiscover.example.com"}, ""),
    (
        "GET",
        "/autodiscover/autodiscover.json?Email=alice@example.com&Protocol=Autodiscoverv1",
        {},
        "",
    ),
    ("GET", f"/mobileconfig?{ADDRESS}", {}, ""),
    ("GET", f"/mobileconfig.svg?{ADDRESS}", {}, ""),
    ("GET", "/.well-known/user-agent-configuration.json", {"Host": "example.com"}, ""),
    ("GET", "/.well-known/caldav", {"Host": "example.com"}, ""),
    ("PROPFIND", "/.well-known/carddav", {"Host": "example.com"}, ""),
    ("GET", "/logo?domain=example.com", {}, ""),
    ("GET", "/logo", HOST, ""),
    ("GET", "/?address=alice@example.com", {}, ""),
]
MORE_ROWS = """
UPDATE davserver SET url = 'https://dav.example.com/cal/';
INSERT INTO server VALUES (4, 10, 'mail.example.com', 993, 'imap', 'SSL', '%EMAILADDRESS%', 'plain');
INSERT INTO server VALUES (5, 10, 'mail.example.com', 465, 'smtp', 'SSL', '%EMAILADDRESS%', 'plain');
INSERT INTO server_domain VALUES (4, 1), (5, 1);
INSERT INTO provider_detail (provider_id, logo_type, logo_width, logo_height, logo)
    VALUES (1, 'image/png', 8, 8, x'89504e47');
"""  # noqa: E501 - rows are easier to compare when each stands on one line
WILDCARD = """
INSERT INTO domain VALUES (2, '*.com', 1, NULL);
INSERT INTO server_domain SELECT id, 2 FROM server;
INSERT INTO davserver_domain SELECT id, 2 FROM davserver;
"""
SINCE = "example.com has been off since 2026-11-30"
TOKEN = """
INSERT INTO token VALUES (1, 'oneday', 's3cret', 'digest1', 'example.com', 'tmp.', NULL, '1d', 50,
    0, NULL, 0, '', 0, '2026-01-01 00:00:00.000000');
"""


@pytest.fixture
def env(database: Path) -> dict[str, str]:
    return {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}


def ask(client: FlaskClient, request: Request) -> TestResponse:
    method, url, headers, body = request
    return client.open(url, method=method, headers=headers, data=body)


def shown(answer: TestResponse) -> tuple[int, dict[str, str], str]:
    headers = {name: value for name, value in answer.headers.items() if name not in _OWN}
    return answer.status_code, headers, timeless(answer.text)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: " ".join(request[:2]))
def test_a_domain_that_is_off_is_answered_as_an_unknown_one(
    client: FlaskClient, execute: Execute, request_: Request
) -> None:
    unknown = shown(ask(client, request_))
    assert unknown[0] == 404
    execute(EXAMPLE_ROWS + MORE_ROWS)
    assert ask(client, request_).status_code in {200, 301}
    execute(WILDCARD + DISABLE)
    assert shown(ask(client, request_)) == unknown
    execute(ENABLE)
    assert ask(client, request_).status_code in {200, 301}


@pytest.mark.usefixtures("example")
def test_documents_lead_to_no_host_of_a_domain_that_is_off(
    client: FlaskClient, execute: Execute
) -> None:
    execute("INSERT INTO domain VALUES (2, 'example.net', 1, NULL)")
    execute("INSERT INTO server_domain SELECT id, 2 FROM server")
    query = "Email=alice@example.net&Protocol=Autodiscoverv1"

    def url() -> object:
        headers = {"Host": "autodiscover.example.com"}
        answer = client.get(f"/autodiscover/autodiscover.json?{query}", headers=headers)
        return json.loads(answer.text)["Url"]

    assert url() == "https://autodiscover.example.com/autodiscover/autodiscover.xml"
    execute(DISABLE)
    assert url() == "https://autodiscover.example.net/autodiscover/autodiscover.xml"


@pytest.mark.usefixtures("example")
def test_a_domain_that_is_off_is_not_served_while_the_database_is_away(
    make_app: Callable[..., Flask], execute: Execute, database: Path
) -> None:
    client = make_app(stale_seconds=600).test_client()
    execute("INSERT INTO domain VALUES (2, 'example.net', 1, NULL)")
    execute("INSERT INTO server_domain SELECT id, 2 FROM server")
    urls = ["/v1.1/example.com", "/v1.1/example.net"]
    assert [client.get(url).status_code for url in urls] == [200, 200]
    execute(DISABLE)
    assert [client.get(url).status_code for url in urls] == [404, 200]
    database.rename(database.with_name("away"))
    assert [client.get(url).status_code for url in urls] == [503, 200]


def test_a_database_of_an_older_schema_is_answered_with_503(
    client: FlaskClient, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    downgrade(f"sqlite:///{database}", "0005")
    for url in ("/v1.1/example.com", "/readyz"):
        answer = client.get(url)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert "disabled_domain" in caplog.text
    assert "run automx db upgrade" in caplog.text


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    "command",
    [
        ["show", "alice@example.com"],
        ["show", "alice@EXAMPLE.com", "--format", "autoconfig"],
        ["dns", "example.com", "--host", "automx.example.org"],
        ["mobileconfig-qr", "alice@example.com"],
        ["token", "add", "new", "--domain", "example.com"],
        ["token", "add", "new"],
        ["token", "qr", "oneday"],
    ],
)
def test_commands_say_in_one_line_that_a_domain_is_off(
    env: dict[str, str], execute: Execute, command: list[str]
) -> None:
    execute(TOKEN + DISABLE)
    env["AUTOMX_WEB_ENDPOINT"] = "https://example.com/"
    result = attempt(*command, env=env)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"automx: {SINCE}\n"


@pytest.mark.usefixtures("example")
def test_a_token_of_a_domain_that_is_off_is_listed_as_such_and_makes_nothing(
    env: dict[str, str], execute: Execute
) -> None:
    execute(TOKEN)
    assert "domain off" not in automx("token", "list", env=env)
    execute(DISABLE)
    assert automx("token", "list", env=env).splitlines()[1].endswith("domain off")
    assert f"State         domain off ({SINCE})\n" in automx("token", "show", "oneday", env=env)
    result = attempt("account", "add", "--token", "oneday", env=env)
    text = f"automx: The token oneday makes no account: domain off ({SINCE}).\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", text)
    assert automx("account", "list", env=env) == "There are no accounts.\n"


@pytest.mark.usefixtures("example")
def test_a_token_is_for_the_only_domain_that_is_not_off(
    env: dict[str, str], execute: Execute
) -> None:
    execute("INSERT INTO domain VALUES (2, 'example.net', 1, NULL)")
    assert "Say which domain" in attempt("token", "add", "new", env=env).stderr
    execute(DISABLE)
    assert "tmp.…@example.net" in automx("token", "add", "new", env=env)


@pytest.mark.usefixtures("example")
def test_accounts_of_a_domain_that_is_off_still_end(
    env: dict[str, str], execute: Execute, tmp_path: Path
) -> None:
    server = mail_program(tmp_path / "server")
    server.add("bob@example.com", "mark-bob")
    env |= {
        "AUTOMX_ACCOUNT_BACKEND": "command",
        "AUTOMX_ACCOUNT_COMMAND": str(server.program),
    }
    execute(
        f"""{TOKEN}{DISABLE};
        INSERT INTO account VALUES (1, 'bob@example.com', 1, 'mark-bob', 'command', 'active',
            '2026-01-01 00:00:00.000000', '2026-01-02 00:00:00.000000',
            '2026-01-01 00:00:00.000000', NULL);"""
    )
    assert "bob@example.com" in automx("account", "list", env=env)
    assert "deleted bob@example.com" in automx("prune", env=env)
    assert automx("account", "list", env=env) == "There are no accounts.\n"


def test_a_new_domain_may_be_off(env: dict[str, str]) -> None:
    with open_session(env["AUTOMX_DB_URI"]) as session:
        populate(session, SAMPLE)
        changes = Changes(session, "user:test", now=NOW)
        domain = {"name": "off.example", "provider": 1, "servers": [1, 3], "disabled": True}
        row_id = changes.add("domain", domain).id
        changes.finish()
        assert list(disabled_domains(session)) == [DisabledRow(row_id, "off.example", NOW)]
        assert not knows(session, "off.example")


# The doctor

OFF_ROWS = """
INSERT INTO provider VALUES (1, 'Example', 'Example');
INSERT INTO server VALUES (1, 10, 'mail.a.test', 993, 'imap', 'SSL', '', 'plain');
INSERT INTO domain VALUES
    (1, 'empty.test', 1, NULL),
    (2, 'A.test', 1, NULL),
    (3, '*.a.test', 1, NULL),
    (4, 'xn--mller-kva.test', 1, NULL),
    (5, 'müller.test', 1, NULL),
    (6, ' b.test', 1, NULL),
    (7, 'b.test', 1, NULL);
INSERT INTO server_domain SELECT 1, id FROM domain WHERE id > 1;
INSERT INTO token VALUES (1, 'off', 's3cret', 'digest1', 'x.a.test', 'tmp.', NULL, '1d', 50, 0,
    NULL, 0, 'command', 0, '2026-01-01 00:00:00.000000');
"""


def disable(*ids: int) -> str:
    values = ", ".join(f"({number}, '2026-11-30 10:00:00')" for number in ids)
    return f"INSERT INTO disabled_domain VALUES {values};"


def check(env: dict[str, str], *arguments: str) -> tuple[int, list[str]]:
    result = attempt("check", *arguments, env=env)
    return result.returncode, result.stdout.splitlines()


def test_the_doctor_lists_what_is_off_and_finds_no_fault_there(
    env: dict[str, str], execute: Execute
) -> None:
    execute(OFF_ROWS)
    execute("DELETE FROM server_domain WHERE domain_id > 3; DELETE FROM domain WHERE id > 3;")
    status, lines = check(env)
    assert status == 2  # no mail server, and a token without settings of its backend
    execute(disable(1, 2, 3))
    off = [
        f"ok       -  table domain, id {row_id}: {name} has been off since 2026-11-30"
        for row_id, name in ((1, "empty.test"), (2, "A.test"), (3, "*.a.test"))
    ]
    assert check(env) == (0, [*off, *check(env)[1][-2:]])
    assert check(env, "--quiet") == (0, [])
    repaired = attempt("check", "--repair", "--yes", "--quiet", env=env)  # the token stays
    assert (repaired.returncode, repaired.stderr) == (0, "automx: there is nothing to repair\n")
    # No name server is asked: this one does not answer.
    status, lines = check(env, "--dns", "127.0.0.1:9", "--all")
    assert (status, sorted(lines[3:-1])) == (
        0,
        [
            "ok       *.a.test    *.a.test has been off since 2026-11-30",
            "ok       a.test      a.test has been off since 2026-11-30",
            "ok       empty.test  empty.test has been off since 2026-11-30",
        ],
    )
    status, lines = check(env, "--dns", "127.0.0.1:9", "x.a.test")
    text = "x.a.test has been off since 2026-11-30, by the row *.a.test"
    assert (status, lines[3]) == (0, f"ok       x.a.test  {text}")


def test_the_doctor_names_a_row_that_is_off_without_effect(
    env: dict[str, str], execute: Execute
) -> None:
    execute(OFF_ROWS + disable(1, 3, 5, 6))
    status, lines = check(env)
    assert status == 2  # for the names
    assert [line for line in lines if "off since" in line and line.startswith("warning")] == [
        (
            f"warning  -  table domain, id {row_id}: {name} has been off since 2026-11-30, but"
            f" look-ups use the row of id {used} for this domain -> switch that row off, too, or"
            " correct the names"
        )
        for row_id, name, used in ((5, "müller.test", 4), (6, " b.test", 7))
    ]
    execute("DELETE FROM disabled_domain;" + disable(1, 3, 4, 5, 6, 7))
    assert not [line for line in check(env)[1] if "without effect" in line or "but look" in line]


def test_many_domains_that_are_off_are_counted(env: dict[str, str], execute: Execute) -> None:
    execute("INSERT INTO provider VALUES (1, 'Example', 'Example');")
    for number in range(1, 24):
        execute(f"INSERT INTO domain VALUES ({number}, 'd{number}.test', 1, NULL)")
    execute(disable(*range(1, 24)))
    status, lines = check(env)
    assert (status, len(lines)) == (0, 23)
    assert lines[20] == "ok       -  domains that are off: 3 more are not shown"


ORIGINS = {
    f"{table}_origin": table
    for table in ("provider", "server", "davserver", "ldapserver", "domain")
}


@pytest.mark.parametrize("table", ["disabled_domain", *ORIGINS])
def test_rows_about_rows_that_are_gone_are_named_and_deleted(
    env: dict[str, str], execute: Execute, table: str
) -> None:
    missing = ORIGINS.get(table, "domain")
    value = "2026-11-30 10:00:00" if table == "disabled_domain" else "file"
    execute(f"INSERT INTO {table} VALUES (7, '{value}')")
    assert check(env)[1][0] == (
        f"warning  -  table {table}, {missing}_id 7: there is no {missing} 7 -> delete the row:"
        " automx check --repair does it"
    )
    result = attempt("check", "--repair", "--yes", env=env)
    assert result.stderr == (
        f"automx: deleted: rows of {table} that refer to rows that do not exist: 1\n"
    )
    assert result.stdout.splitlines()[0] == "ok       -  settings and database are in order"
