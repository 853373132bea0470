"""Login names from databases, as mail clients and administrators meet them."""

import contextlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from automx.check.finding import Finding
from automx.check.network import Network
from automx.check.people import PeopleChecks
from automx.directory.database import RETRY_SECONDS
from automx.directory.lookups import LOOKUPS
from tests.commandline import attempt, automx
from tests.conftest import Execute
from tests.databases import Instance
from tests.directory import MakeDirectory, insert_ldapserver
from tests.documents import autodiscover_request, timeless
from tests.network import Weather, network
from tests.people import MailDatabase, new_database, source
from tests.processes import wait_until

# A second domain with the same servers, whose people nothing knows.
PLAIN_DOMAIN = """
INSERT INTO domain VALUES (2, 'plain.example', 1, NULL);
INSERT INTO server_domain SELECT id, 2 FROM server;
INSERT INTO davserver_domain SELECT id, 2 FROM davserver;
"""
PEOPLE = """
CREATE TABLE people (address VARCHAR(255) PRIMARY KEY, login VARCHAR(255), name VARCHAR(255));
INSERT INTO people VALUES ('alice@example.com', 'aexample', 'Alice Example'),
  ('same@example.com', 'same@example.com', ''), ('nothing@example.com', '', '');
"""
QUERY = "SELECT login, name FROM people WHERE address = :address"
MakeClient = Callable[..., FlaskClient]

ALICE = "alice@example.com"
UNAVAILABLE = "The service is not available at the moment. Please try again later."


@pytest.fixture
def mail(tmp_path: Path, request: pytest.FixtureRequest) -> MailDatabase:
    """A database with people."""
    found = new_database("sqlite", request, tmp_path)
    found.sql(PEOPLE)
    return found


@pytest.fixture
def client(make_app: Callable[..., Flask], example: None, execute: Execute) -> MakeClient:
    """Make a client of an application with sources; further settings are those of a source."""
    execute(PLAIN_DOMAIN)

    def make(mail: MailDatabase | str, **settings: Any) -> FlaskClient:
        uri = mail if isinstance(mail, str) else mail.uri
        values = {"domains": ("example.com",), "people_query": QUERY, "people_cache_seconds": 0}
        return make_app(sources=(source(uri, **(values | settings)),)).test_client()

    return make


def autoconfig(client: FlaskClient, address: str) -> TestResponse:
    return client.get("/mail/config-v1.1.xml", query_string={"emailaddress": address})


def autodiscover(client: FlaskClient, address: str) -> TestResponse:
    document = autodiscover_request(address)
    return client.post("/autodiscover/autodiscover.xml", data=document, content_type="text/xml")


def mobileconfig(client: FlaskClient, address: str) -> TestResponse:
    return client.get("/mobileconfig", query_string={"emailaddress": address})


PROTOCOLS = [autoconfig, autodiscover, mobileconfig]
Protocol = Callable[[FlaskClient, str], TestResponse]


def answer(response: TestResponse) -> tuple[int, list[tuple[str, str]], str]:
    """Return all that a stranger sees."""
    # Each answer has its own.
    own = {"Date", "X-Request-ID"}
    headers = [(name, value) for name, value in response.headers if name not in own]
    return response.status_code, headers, timeless(response.text)


# Answers


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_login_name_and_display_name_stand_in_every_format(
    client: MakeClient,
    make_app: Callable[..., Flask],
    mail: MailDatabase,
    execute: Execute,
    protocol: Protocol,
) -> None:
    """Compared with whole documents of rows that hold the person's login name."""
    found = protocol(client(mail), "Alice@example.com")
    execute("UPDATE server SET user_name = 'aexample'; UPDATE davserver SET user_name = 'aexample'")
    expected = protocol(make_app().test_client(), "Alice@example.com").text
    for element in ("<DisplayName>{}</DisplayName>", "EmailAccountName</key>\n\t\t\t<string>{}<"):
        address, name = element.format("Alice@example.com"), element.format("Alice Example")
        expected = expected.replace(address, name)
    assert found.status_code == 200
    assert found.text == expected
    assert "Alice Example" in found.text or protocol is autoconfig
    assert found.headers["Cache-Control"] == "no-store"
    assert "ETag" not in found.headers


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("local_part", ["nobody", "nothing", "o'brien", "%", "_"])
def test_an_unknown_person_gets_what_a_domain_without_a_query_gives(
    client: MakeClient,
    make_app: Callable[..., Flask],
    mail: MailDatabase,
    protocol: Protocol,
    local_part: str,
) -> None:
    address = f"{local_part}@example.com"
    found = protocol(client(mail), address)
    assert found.status_code == 200
    assert found.text == protocol(make_app().test_client(), address).text
    assert found.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_person_who_logs_in_with_the_address_cannot_be_told_from_one_who_does_not_exist(
    client: MakeClient, mail: MailDatabase, execute: Execute, protocol: Protocol
) -> None:
    execute(
        "UPDATE server SET user_name = '%EMAILADDRESS%';"
        "UPDATE davserver SET user_name = '%EMAILADDRESS%'"
    )
    asked = client(mail)
    for spelling in ("same", "Same"):
        known = answer(protocol(asked, f"{spelling}@example.com"))
        unknown = answer(protocol(asked, f"{spelling[:-1]}z@example.com"))
        if protocol is not mobileconfig:  # where the identifiers depend on the address
            assert known == (
                unknown[0],
                unknown[1],
                unknown[2].replace(f"{spelling[:-1]}z", spelling),
            )
        assert [name for name, _ in known[1]] == [name for name, _ in unknown[1]]


@pytest.mark.parametrize(
    "path",
    [
        "/mail/config-v1.1.xml",
        "/.well-known/autoconfig/mail/config-v1.1.xml",
        "/v1.1/example.com",
        "/autodiscover/autodiscover.xml",
    ],
)
def test_a_request_without_an_address_asks_no_database(
    client: MakeClient, make_app: Callable[..., Flask], path: str
) -> None:
    headers = {"Host": "autoconfig.example.com"}
    found = answer(client("sqlite:////nowhere/mail.sqlite").get(path, headers=headers))
    assert found[0] == 200
    assert found == answer(make_app().test_client().get(path, headers=headers))


def test_the_page_shows_no_login_names_of_such_a_domain(
    client: MakeClient, mail: MailDatabase
) -> None:
    told = "the login name that you were given"
    pages = [
        client(mail, domains=(domain,)).get("/", query_string={"address": ALICE}).text
        for domain in ("example.com", "plain.example")
    ]
    assert [page.count(told) > 0 for page in pages] == [True, False]
    assert "aexample" not in pages[0]


# Whose people


def login(client: FlaskClient, address: str) -> str:
    found = autoconfig(client, address)
    assert found.status_code == 200
    return "aexample" if ">aexample<" in found.text else ""


EVERYBODY = "SELECT 'aexample' AS login WHERE :address <> ''"


@pytest.mark.parametrize(
    ("domains", "expected"),
    [
        (("example.com",), {"example.com"}),
        (("*",), {"example.com", "plain.example", "a.b.wild.example"}),
        (("*.wild.example", "plain.example"), {"plain.example", "a.b.wild.example"}),
        (("b.wild.example",), set()),
        ((), {"example.com"}),
    ],
)
def test_people_are_those_of_some_domains_or_of_the_rows_that_the_source_has_made(
    client: MakeClient,
    mail: MailDatabase,
    execute: Execute,
    domains: tuple[str, ...],
    expected: set[str],
) -> None:
    execute(
        "INSERT INTO domain VALUES (3, '*.wild.example', 1, NULL);"
        "INSERT INTO server_domain SELECT id, 3 FROM server;"
        "INSERT INTO domain_origin VALUES (1, 'source:mail'), (2, 'source:other')"
    )
    asked = client(mail, domains=domains, people_query=EVERYBODY)
    names = ("example.com", "plain.example", "a.b.wild.example")
    assert {name for name in names if login(asked, f"alice@{name}")} == expected


def test_the_directory_of_a_row_goes_before_a_source(
    client: MakeClient,
    mail: MailDatabase,
    execute: Execute,
    make_directory: MakeDirectory,
) -> None:
    directory = make_directory()
    execute(insert_ldapserver(directory))
    execute("UPDATE domain SET ldapserver_id = 3 WHERE id = 1")
    found = autoconfig(client(mail), "alice@example.com").text
    assert ">alice<" in found
    assert "aexample" not in found


def test_of_two_sources_the_first_that_fits_is_asked(
    make_app: Callable[..., Flask], example: None, mail: MailDatabase
) -> None:
    sources = tuple(
        source(mail.uri, name=name, people_query=EVERYBODY.replace("aexample", name))
        for name in ("one", "two")
    )
    assert ">one<" in autoconfig(make_app(sources=sources).test_client(), "a@example.com").text


def test_answers_are_remembered_for_their_time(client: MakeClient, mail: MailDatabase) -> None:
    remembering, asking = client(mail, people_cache_seconds=600), client(mail)
    for each in (remembering, asking):
        assert login(each, "alice@example.com") == "aexample"
        assert login(each, "carol@example.com") == ""
    mail.sql("DELETE FROM people; INSERT INTO people VALUES ('carol@example.com', 'aexample', '')")
    assert login(remembering, "alice@example.com") == login(remembering, "ALICE@example.com")
    assert login(remembering, "ALICE@example.com") == "aexample"
    assert login(remembering, "carol@example.com") == ""
    assert login(asking, "alice@example.com") == ""
    assert login(asking, "carol@example.com") == "aexample"


# Commands


def environment(database: Path, mail: str, **settings: str) -> dict[str, str]:
    values = {"TYPE": "sql", "URI": mail, "PEOPLE_QUERY": QUERY, "DOMAINS": "example.com"}
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        **{f"AUTOMX_SOURCE_MAIL_{key}": text for key, text in (values | settings).items() if text},
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("local_part", ["alice", "nobody", "same"])
def test_show_prints_what_the_client_of_a_person_gets(
    client: MakeClient, mail: MailDatabase, database: Path, protocol: Protocol, local_part: str
) -> None:
    address = f"{local_part}@example.com"
    answered = protocol(client(mail), address).text
    env = environment(database, mail.uri)
    assert automx("show", address, "--format", protocol.__name__, env=env) == answered


def test_ldap_test_names_the_source_that_is_asked_instead(
    example: None, mail: MailDatabase, database: Path
) -> None:
    result = attempt("ldap", "test", "alice@example.com", env=environment(database, mail.uri))
    assert result.returncode == 1
    assert result.stderr == (
        "automx: the people of example.com are looked up by SQL, in the source mail: see automx"
        " show alice@example.com and automx check example.com\n"
    )


def findings(uri: str, **settings: Any) -> list[tuple[str, str, str]]:
    """Return what the doctor finds about a source."""
    checks = PeopleChecks(
        "example.com", Network(timeout=20), source(uri, **({"people_query": QUERY} | settings))
    ).checks()
    found = [finding for check in checks for finding in check()]
    assert all(isinstance(each, Finding) and each.subject == "source mail" for each in found)
    return [
        (each.level.name, each.text, each.advice) for each in found if isinstance(each, Finding)
    ]


def test_the_doctor_looks_up_a_person(example: None, mail: MailDatabase, database: Path) -> None:
    assert findings(mail.uri) == []
    query = "SELECT login, phone FROM people WHERE address = :address"
    advice = "check people_query, the tables of the database, and what its account may read"
    see = "see preset or query, and whether uri names the right database"
    text = f"people cannot be looked up: database: no such column: phone; {see}"
    assert findings(mail.uri, people_query=query) == [("ERROR", text, advice)]
    env = environment(database, mail.uri, PEOPLE_QUERY=query)
    words = ("check", "example.com", "--dns", "127.0.0.1:1", "--timeout", "0.5", "--json")
    told = json.loads(attempt(*words, env=env).stdout)["findings"]
    of_source = [each for each in told if each["subject"] == "source mail"]
    assert {each["domain"]: each["text"] for each in of_source} == {"": text, "example.com": text}
    query = "SELECT login AS uid FROM people WHERE address = :address"
    text = "people cannot be looked up: people_query has a column uid; known are login, name"
    assert findings(mail.uri, people_query=query) == [("ERROR", text, advice)]
    [(level, text, advice)] = findings("sqlite:////nowhere/mail.sqlite")
    assert (level, advice) == ("ERROR", "check uri and the database, see the log of automx")
    assert text.startswith("people cannot be looked up: database: unable to open database file")


@pytest.mark.parametrize("engine", ["mariadb", "postgresql"])
def test_the_doctor_tells_that_the_account_may_not_read_a_column(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    found = new_database(engine, request, tmp_path)
    found.sql(PEOPLE)
    found.grant("people")
    assert findings(found.uri) == []
    reader = f"reader_{found.name}"
    table = f"{found.name}.people" if engine == "mariadb" else "people"
    found.sql(f"REVOKE ALL ON {table} FROM {reader}; GRANT SELECT (login) ON {table} TO {reader}")
    [(level, text, _)] = findings(found.uri)
    assert level == "ERROR"
    assert "denied" in text


# Outages


@pytest.fixture(params=["mariadb", "postgresql"])
def distant(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A database with people behind a network."""
    instance: Instance = request.getfixturevalue(f"{request.param}_instance")
    found = MailDatabase(request.param, instance.new_database(), instance)
    found.sql(PEOPLE)
    with network(instance.socket) as before:
        if request.param == "postgresql":
            rest = "?sslmode=disable&gssencmode=disable"
            found.uri = f"postgresql://postgres@127.0.0.1:{before.port}/{found.name}{rest}"
        else:
            reader = f"reader_{found.name}"
            found.sql(f"CREATE USER {reader}; GRANT SELECT ON {found.name}.* TO {reader}")
            port = before.port
            found.uri = f"mysql://{reader}@127.0.0.1:{port}/{found.name}?ssl_disabled=true"
        yield found, before


def test_a_silent_database_takes_few_threads_and_leaves_others_alone(
    client: MakeClient, distant: Any, caplog: pytest.LogCaptureFixture
) -> None:
    mail, before = distant
    asked = client(mail, people_timeout=4.0)
    assert login(asked, "alice@example.com") == "aexample"
    before.weather = Weather.SILENT
    others = {*threading.enumerate()}
    threads = ThreadPoolExecutor(24)
    began = time.monotonic()
    answers = [
        threads.submit(autoconfig, asked.application.test_client(), f"p{n}@example.com")
        for n in range(24)
    ]
    assert autoconfig(asked, "alice@plain.example").status_code == 200
    assert {each.result().status_code for each in answers} == {503}
    assert time.monotonic() - began < 4 + 6  # and what the machine needs
    new = {*threading.enumerate()} - others
    assert len([thread for thread in new if thread.name.startswith("people-mail")]) < LOOKUPS
    assert before.connections <= LOOKUPS + 2
    began = time.monotonic()  # it is passed over now
    found = autoconfig(asked, "alice@example.com")
    assert time.monotonic() - began < 4
    assert (found.status_code, found.text) == (503, f"{UNAVAILABLE}\n")
    assert int(found.headers["Retry-After"]) > 0
    before.weather = Weather.CLEAR
    wait_until(
        lambda: autoconfig(asked, "alice@example.com").status_code == 200, "the database's return"
    )
    threads.shutdown()
    words = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert sum("people cannot be looked up" in each for each in words) == 1
    assert sum("people are looked up again" in each for each in words) == 1


def test_a_restart_of_the_database_is_not_noticed(client: MakeClient, distant: Any) -> None:
    mail, before = distant
    asked = client(mail, people_timeout=10.0)
    assert login(asked, "alice@example.com") == "aexample"
    before.weather = Weather.REFUSING
    wait_until(lambda: not before.connections, "the end of all connections")
    before.weather = Weather.CLEAR
    assert login(asked, "alice@example.com") == "aexample"


@pytest.mark.parametrize("engine", ["mariadb", "postgresql"])
def test_a_query_that_takes_too_long_is_ended_at_the_server(
    engine: str, client: MakeClient, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    mail = new_database(engine, request, tmp_path)
    sleep = "SLEEP(600)" if engine == "mariadb" else "pg_sleep(600)::text"
    asked = client(
        mail,
        people_query=f"SELECT CASE :local WHEN 'slow' THEN {sleep} ELSE 'aexample' END AS login",
        people_timeout=3.0,
    )
    assert login(asked, "alice@example.com") == "aexample"
    assert autoconfig(asked, "slow@example.com").status_code == 503
    running = {
        "mariadb": "SELECT id FROM information_schema.processlist WHERE info LIKE '%SLEEP(600)%'"
        " AND id <> CONNECTION_ID()",
        "postgresql": "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname ="
        " current_database()",
    }
    wait_until(lambda: not mail.sql(running[engine]).strip(), "the end of the statement")


def test_a_locked_file_is_waited_for_and_then_passed_over(
    client: MakeClient, mail: MailDatabase
) -> None:
    asked = client(mail, people_timeout=2.0)
    assert login(asked, "alice@example.com") == "aexample"
    path = mail.uri.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert autoconfig(asked, "alice@example.com").status_code == 503
    began = time.monotonic()
    wait_until(
        lambda: autoconfig(asked, "alice@example.com").status_code == 200, "the end of the lock"
    )
    assert time.monotonic() - began < RETRY_SECONDS + 4
