"""What strangers send, what administrators write, what databases do: no answer is a surprise.

Each gets its status, one clear line or an ``<Error>`` document, and a log line that names the
cause; no answer holds a traceback, SQL, a file name or anything that was sent.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from flask import Flask
from flask.testing import FlaskClient

from automx.formats import autoconfig, autodiscover
from automx.seeddocument import SAMPLE
from tests.commandline import automx
from tests.conftest import EXAMPLE_ROWS, Execute
from tests.databases import Instance, running_postgresql
from tests.documents import autodiscover_error, autodiscover_request, golden, timeless
from tests.processes import (
    AUTOMX,
    Server,
    free_port,
    listens,
    program,
    running,
    serving,
    wait_until,
)

AUTOCONFIG = "/mail/config-v1.1.xml"
AUTODISCOVER = "/autodiscover/autodiscover.xml"
MOBILECONFIG = "/mobileconfig"
UNKNOWN = "No configuration is known for this domain."
INCOMPLETE = "The settings of this domain are incomplete; its administrator has to look into it."
UNAVAILABLE = "The service is not available at the moment. Please try again later."
# What no answer may hold: how we are made, and where.
GIVEAWAYS = re.compile(
    r"Traceback|File \"|SELECT|sqlite|psycopg|sqlalchemy|/tmp|/work|\.py\b", re.IGNORECASE
)


class Answer(NamedTuple):
    """What a client was answered; ``headers`` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    text: str


def ask_all(client: FlaskClient, address: str) -> Iterator[Answer]:
    """Ask in each way for an address, and yield the answers; those of Autodiscover come last."""
    arguments = {"emailaddress": address}
    escaped = address.replace("&", "&amp;").replace("<", "&lt;")
    for answer in (
        client.get(AUTOCONFIG, query_string=arguments),
        client.get("/.well-known/autoconfig" + AUTOCONFIG, query_string=arguments),
        client.get(MOBILECONFIG, query_string=arguments),
        client.post(MOBILECONFIG, data=arguments),
        client.get(AUTODISCOVER, query_string=arguments),
        client.post(AUTODISCOVER, data=autodiscover_request(escaped), content_type="text/xml"),
    ):
        headers = {name.lower(): value for name, value in answer.headers.items()}
        yield Answer(answer.status_code, headers, answer.text)


def assert_told(answer: Answer, status: int, text: str, code: int = 0) -> None:
    """Check that an answer is one line of text, or an Error document with that text."""
    assert answer.status == status, answer.text
    assert not GIVEAWAYS.search(answer.text)
    assert answer.headers["cache-control"] == "no-store"
    if answer.headers["content-type"].startswith("text/xml"):
        assert timeless(answer.text) == autodiscover_error(code, text)
    else:
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.text == f"{text}\n"
    if status == 503:
        assert 0 < int(answer.headers["retry-after"]) < 100


# Addresses.

ONE_AT = "A mail address has exactly one @."
TWO_PARTS = "A mail address has a name before the @ and a domain after it."
LOCAL_PART = "The part before the @ has a character that is not allowed there."
DOMAIN = "The domain name is not valid."
HOST_NAME = "The host name is not valid."
LONG = "The mail address is too long."


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("zqx", ONE_AT),
        ("@", TWO_PARTS),
        ("@example.com", TWO_PARTS),
        ("zqx@", TWO_PARTS),
        ("zqx@zqx@example.com", ONE_AT),
        ("zqx@@example.com", ONE_AT),
        ("zqx@exam ple.com", DOMAIN),
        ("<zqx>@example.com", LOCAL_PART),
        ("zqx@<b>.example.com", DOMAIN),
        ('"zqx"@example.com', LOCAL_PART),
        ("zqx@example.com, zqx@example.org", ONE_AT),
        ("['zqx@example.com']", LOCAL_PART),
        ("zqx@[127.0.0.1]", DOMAIN),
        ("zqx@*.example.com", DOMAIN),
        ("zqx@*", DOMAIN),
        ("zqx@-example.com", DOMAIN),
        ("zqx@exa..mple.com", DOMAIN),
        ("zqx@..", DOMAIN),
        ("zqx@' OR 1=1--.com", DOMAIN),
        ("zqx\ufffd@example.com", LOCAL_PART),
        ("zqx\u202e@example.com", LOCAL_PART),
        ("zqx@\u202e.com", DOMAIN),
        ("zqx@xn--zzzzzzzz99999.com", DOMAIN),
        ("zqx@xn--.com", DOMAIN),
        ("zqx@xn--mller-.de", DOMAIN),
        ("zqx@" + "a" * 64 + ".com", DOMAIN),
        ("zqx@" + "a." * 130 + "com", DOMAIN),
        ("z" * 10_000 + "qx@example.com", LONG),
        ("zqx@" + "x" * 10_000 + ".com", LONG),
        ("ü" * 200 + "@example.com", LONG),
    ],
)  # fmt: skip
def test_a_bad_address_is_told_in_each_protocol_and_not_repeated(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, address: str, text: str
) -> None:
    answers = list(ask_all(client, address))
    for answer in answers:
        assert_told(answer, 400, text, code=600)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(answers)
    assert all(message.endswith(f" 400: {text}") for message in messages)
    assert "zqx" not in caplog.text


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("char", ["\x00", "\x07", "\n", "\r\n", "\x1b", "\x7f", "\x85", "\u2028"])
def test_control_characters_in_an_address_are_refused(client: FlaskClient, char: str) -> None:
    for address in (f"zqx{char}@example.com", f"zqx@exam{char}ple.com"):
        for path in (AUTOCONFIG, AUTODISCOVER, MOBILECONFIG):
            answer = client.get(path, query_string={"emailaddress": address})
            assert answer.status_code == 400
            assert "zqx" not in answer.text + str(answer.headers)


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    "address",
    [
        "alice@example.org",
        "alice@sub.example.com",
        "alice@com",
        "alice@localhost",
        "alice@127.0.0.1",
        "alice@münchen.example",
        "alice@例え.テスト",
        "alice@xn--r8jz45g.xn--zckzah",
        "alice@" + "a." * 100 + "com",
    ],
)
def test_an_unknown_domain_is_not_found_in_each_protocol(client: FlaskClient, address: str) -> None:
    for answer in ask_all(client, address):
        assert_told(answer, 404, UNKNOWN, code=500)


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("path", [AUTOCONFIG, AUTODISCOVER, MOBILECONFIG])
def test_an_argument_that_is_not_one_text_is_refused(client: FlaskClient, path: str) -> None:
    twice = client.get(path, query_string="emailaddress=a@example.com&emailaddress=b@example.com")
    assert twice.status_code == 400
    assert "The argument emailaddress is given more than once." in twice.text
    for query in (
        "emailaddress[]=a@example.com",
        "emailaddress[0]=a@example.com",
        "emailAddress=x",
    ):
        answer = client.get(path, query_string=query, headers={"Host": "example.org"})
        assert answer.status_code == (400 if path == MOBILECONFIG else 404)


# Hosts.


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    "host",
    [
        "",
        "example.org",
        "localhost",
        "[::1]",
        "127.0.0.1:80",
        "example.com.evil.example",
    ],
)
def test_without_an_address_an_unknown_host_is_not_found(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, host: str
) -> None:
    for path in (AUTOCONFIG, AUTODISCOVER):
        answer = client.get(path, headers={"Host": host})
        headers = {name.lower(): value for name, value in answer.headers.items()}
        assert_told(Answer(answer.status_code, headers, answer.text), 404, UNKNOWN, code=500)
    assert caplog.text.count("(Host ") + caplog.text.count("(domain ") == 2


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("host", ["<b>", "-", "user@example.com", "example.com:0"])
def test_a_malformed_host_is_told_in_each_protocol_even_beside_an_address(
    make_app: Callable[..., Flask], caplog: pytest.LogCaptureFixture, host: str
) -> None:
    client = make_app(proxy_count=1).test_client()
    client.environ_base["HTTP_X_FORWARDED_HOST"] = host
    for answer in ask_all(client, "alice@example.com"):
        assert_told(answer, 400, HOST_NAME, code=600)
    assert caplog.text.count(f"{HOST_NAME} (Host '{host}')") == 6


# Rows.


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ("DELETE FROM server_domain", "table domain, id 1: no usable mail server"),
        ("UPDATE server SET type = 'uucp'", "table server, id 2: type: expected one of imap, pop,"),
        ("UPDATE server SET port = 0", "table server, id 2: port: expected a whole number"),
        ("UPDATE server SET port = 70000", "table server, id 2: port: expected a whole number"),
        ("UPDATE server SET socket_type = 'TLS9'", "table server, id 2: socket_type: expected one"),
        ("UPDATE server SET authentication = '?'", "table server, id 2: authentication: expected"),
        ("UPDATE server SET name = 'a b'", "table server, id 2: name: expected a host name"),
        ("UPDATE server SET user_name = '%u'", 'table server, id 2: user_name: "%u" is no'),
        ("DELETE FROM provider", "table domain, id 1: there is no such provider"),
    ],
)
def test_rows_that_cannot_be_served_are_500_and_named_in_the_log_only(
    client: FlaskClient, execute: Execute, caplog: pytest.LogCaptureFixture, change: str, cause: str
) -> None:
    execute(change)
    for answer in ask_all(client, "alice@example.com"):
        assert_told(answer, 500, INCOMPLETE, code=603)
    assert caplog.text.count(cause) == 6


@pytest.mark.usefixtures("example")
def test_one_bad_row_does_not_keep_the_others_from_being_served(
    client: FlaskClient, execute: Execute
) -> None:
    execute("INSERT INTO server VALUES (9, 1, 'x.example.com', 0, 'imap', 'SSL', '', 'plain');"
            "INSERT INTO server_domain VALUES (9, 1)")  # fmt: skip
    answers = list(ask_all(client, "alice@example.com"))
    assert [answer.status for answer in answers] == [200] * 6
    assert answers[0].text == golden("example-alice.autoconfig.xml")
    assert answers[2].text == golden("example-alice.mobileconfig").replace(
        "<string>Alice Example</string>", "<string>alice@example.com</string>"
    )
    assert answers[5].text == golden("example-alice.autodiscover.xml")


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    ("change", "status", "cause"),
    [
        ("UPDATE server SET name = {} WHERE id = 2", 200, "table server, id 2: name: expected"),
        ("UPDATE server SET user_name = {} WHERE id = 2", 200, "table server, id 2: user_name: "),
        ("UPDATE davserver SET url = {} WHERE id = 3", 200, "table davserver, id 3: url: expected"),
        ("UPDATE provider SET name = {}", 200, "table provider, id 1: name: expected"),
        ("INSERT INTO domain VALUES (2, {}, 1, NULL)", 200, ""),
        (
            "INSERT INTO provider_detail (provider_id, help_url) VALUES (1, {})",
            *(200, "table provider_detail, id 1: help_url: expected"),
        ),
        (
            """INSERT INTO ldapserver VALUES (1, 'a', 1, 0, '', '(a={{0}})', 'uid', NULL, {}, '');
            UPDATE domain SET ldapserver_id = 1""",
            *(500, "table ldapserver, id 1: bind_password: expected"),
        ),
    ],
)
def test_a_text_that_is_not_utf_8_takes_its_row_only(
    client: FlaskClient,
    execute: Execute,
    caplog: pytest.LogCaptureFixture,
    change: str,
    status: int,
    cause: str,
) -> None:
    execute(change.format("CAST(x'4dfc6c6c6572' AS TEXT)"))
    answers = [
        client.get(f"{path}?emailaddress=alice@example.com")
        for path in ("/mail/config-v1.1.xml", "/mobileconfig")
    ]
    assert [answer.status_code for answer in answers] == [status] * len(
        ("/mail/config-v1.1.xml", "/mobileconfig")
    )
    assert cause in caplog.text
    assert "\\xfcller" not in caplog.text or "bind_password" not in caplog.text


# Bugs.


@pytest.mark.usefixtures("example")
def test_a_bug_is_told_without_its_traceback_which_is_logged(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(*_: object) -> bytes:
        raise ZeroDivisionError("SELECT a secret")

    monkeypatch.setattr(autoconfig, "render", bug)
    monkeypatch.setattr(autodiscover, "template", bug)
    answers = list(ask_all(client, "alice@example.com"))
    for answer in (answers[0], answers[1], answers[5]):
        assert_told(answer, 500, "The server cannot answer this request.", code=603)
        assert "secret" not in answer.text
    assert caplog.text.count("ZeroDivisionError: SELECT a secret") == 3
    assert caplog.text.count("a bug in automx") == 3


# Databases.


def break_by_removing(path: Path) -> None:
    path.unlink()


def break_by_emptying(path: Path) -> None:
    path.write_bytes(b"")


def break_by_overwriting(path: Path) -> None:
    path.write_bytes(b"This is no database. " * 1000)


def break_in_the_middle(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))


def break_by_cutting(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


BROKEN = {
    "missing": (break_by_removing, 'unable to open database file; was "automx db upgrade" run?'),
    "empty": (break_by_emptying, 'no such table: domain; was "automx db upgrade" run?'),
    "no database": (break_by_overwriting, "file is not a database"),
    "damaged": (break_in_the_middle, "database disk image is malformed"),
    "cut off": (break_by_cutting, "database disk image is malformed"),
}


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("name", BROKEN)
def test_a_database_that_cannot_be_used_is_503_until_it_can(
    make_app: Callable[..., Flask], database: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    client = make_app(domain_cache_seconds=0).test_client()
    content = database.read_bytes()
    assert [answer.status for answer in ask_all(client, "alice@example.com")] == [200] * 6
    caplog.clear()
    spoil, cause = BROKEN[name]
    spoil(database)
    for answer in ask_all(client, "alice@example.com"):
        assert_told(answer, 503, UNAVAILABLE, code=603)
    assert caplog.text.count(f" 503: {UNAVAILABLE} (database: {cause})") == 6
    database.write_bytes(content)
    assert [answer.status for answer in ask_all(client, "alice@example.com")] == [200] * 6


@pytest.mark.usefixtures("example")
def test_a_database_that_is_gone_is_not_noticed_by_those_whose_domain_is_remembered(
    make_app: Callable[..., Flask], database: Path
) -> None:
    client = make_app(domain_cache_seconds=900_000).test_client()
    assert [answer.status for answer in ask_all(client, "alice@example.com")] == [200] * 6
    database.unlink()
    assert [answer.status for answer in ask_all(client, "alice@example.com")] == [200] * 6
    assert [answer.status for answer in ask_all(client, "alice@example.org")] == [503] * 6


@pytest.mark.usefixtures("example")
def test_a_database_of_a_newer_schema_is_served_as_far_as_it_can_be_read(
    client: FlaskClient, execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    execute("UPDATE automx_version SET version_num = '9999'")
    assert client.get("/readyz").status_code == 200  # other machines may have got their version
    assert [answer.status for answer in ask_all(client, "alice@example.com")] == [200] * 6
    execute("ALTER TABLE server RENAME COLUMN prio TO rank")
    for answer in ask_all(client, "alice@example.com"):
        assert_told(answer, 503, UNAVAILABLE, code=603)
    assert "no such column: server.prio" in caplog.text


# Over real HTTP.


@pytest.fixture(scope="module")
def served_database(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """Return a SQLite file with the example rows, for all tests that only read it."""
    path = tmp_path_factory.mktemp("served") / "automx.sqlite"
    path.write_bytes(empty_database.read_bytes())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(EXAMPLE_ROWS)
    return path


def environment(database: Path | str) -> dict[str, str]:
    uri = database if isinstance(database, str) else f"sqlite:///{database}"
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": uri,
        "AUTOMX_DOMAIN_CACHE_SECONDS": "0",
        "AUTOMX_STALE_SECONDS": "0",
        "AUTOMX_LOGLEVEL": "INFO",
    }


@pytest.fixture(scope="module")
def server(served_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a running server of one worker."""
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serving(environment(served_database), log, "--workers", "1") as started:
        yield started


def exchange(server: Server, request: bytes) -> Answer:
    """Send bytes to a server as they are, and return its answer."""
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        received = b""
        # A server that refuses a body answers and closes before it has read all of it.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Answer(int(status.split()[1]), headers, body.decode())


def message(line: str, *headers: str, body: bytes = b"") -> bytes:
    """Return an HTTP request that asks the server to close the connection."""
    return "\r\n".join([line, "Connection: close", *headers, "", ""]).encode("latin-1") + body


def chunked(body: bytes, size: int) -> bytes:
    """Return a body in chunks, which has no Content-Length."""
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])


GET = f"GET {AUTOCONFIG} HTTP/1.1"
GET_ALICE = f"GET {AUTOCONFIG}?emailaddress=alice@example.com HTTP/1.1"
POST = f"POST {AUTODISCOVER} HTTP/1.1"
HOST = "Host: example.com"
OTHER = "Host: unknown.example"
XML = "Content-Type: text/xml"
CHUNKED = "Transfer-Encoding: chunked"
REQUEST = autodiscover_request("alice@example.com").encode()

GOOD = {
    "HTTP/1.0": message(GET_ALICE.replace("HTTP/1.1", "HTTP/1.0")),
    "a body that nobody asked for": message(GET_ALICE, HOST, "Content-Length: 3", body=b"abc"),
    "an absolute request target": message(
        GET.replace(" /", " http://autoconfig.example.com/"), "Host: autoconfig.example.com"
    ),
    "an absolute request target, and another Host": message(
        GET.replace(" /", " http://autoconfig.example.com/"), "Host: example.org"
    ),
    "300 bytes of unknown header": message(GET_ALICE, HOST, f"X: {'x' * 300}"),
    "no Host, but an address": message(GET_ALICE),
    "chunks": message(POST, HOST, XML, CHUNKED, body=chunked(REQUEST, 100)),
    "no type": message(POST, HOST, f"Content-Length: {len(REQUEST)}", body=REQUEST),
    "chunks of one byte": message(POST, HOST, XML, CHUNKED, body=chunked(REQUEST, 1)),
}


@pytest.mark.parametrize("name", GOOD)
def test_an_unusual_but_right_request_is_answered(server: Server, name: str) -> None:
    answer = exchange(server, GOOD[name])
    assert answer.status == 200
    if b"POST" in GOOD[name]:
        document = "example-alice.autodiscover.xml"
    else:
        is_alice = b"alice" in GOOD[name]
        document = "example-alice.autoconfig.xml" if is_alice else "example.autoconfig.xml"
    assert answer.text == golden(document)


NO_XML = "The request is not an XML document."
TOO_LARGE = "The request is too large."
NOWHERE = "There is nothing at this address."
BAD: dict[str, tuple[bytes, int, str]] = {
    "no Host": (message(GET), 404, UNKNOWN),
    "an empty Host": (message(GET, "Host:"), 404, UNKNOWN),
    "two Hosts": (message(GET, HOST, "Host: example.org"), 400, HOST_NAME),
    "markup as Host": (message(GET, "Host: <b>x</b>.com"), 400, HOST_NAME),
    "a Host with a space": (message(GET, "Host: exam ple.com"), 400, HOST_NAME),
    "a Host in Latin-1": (message(GET, "Host: m\xfcller.de"), 404, UNKNOWN),
    "a Host with a user": (message(GET, "Host: alice@example.com"), 400, HOST_NAME),
    "half an IPv6 address as Host": (message(GET, "Host: [::1"), 400, HOST_NAME),
    "a Host with a bad port": (message(GET, "Host: example.com:99999"), 400, HOST_NAME),
    "a Host that does not decode": (message(GET, "Host: xn--zz99.de"), 400, HOST_NAME),
    "a Host that does not decode, in a QR code": (
        message(
            "GET /mobileconfig.svg?emailaddress=alice@example.com HTTP/1.1", "Host: xn--a.com"
        ),
        400, HOST_NAME,
    ),
    "a Host of dots": (message(GET, "Host: ..."), 400, HOST_NAME),
    "a Host of 5 kB": (message(GET, f"Host: {'a.' * 2500}com"), 400, HOST_NAME),
    "an absolute target of another host": (
        message(GET.replace(" /", " http://example.org/"), HOST), 404, UNKNOWN,
    ),
    "an address of 10 kB": (message(GET_ALICE.replace("alice", "a" * 10_000), OTHER), 400, LONG),
    "a line break in an address": (
        message(GET_ALICE.replace("alice", "a%0d%0aSet-Cookie:x"), OTHER), 400, LOCAL_PART,
    ),
    "a path of no encoding": (message("GET /v1.1/%ff%fe HTTP/1.1", HOST), 400, DOMAIN),
    "markup as path": (message("GET /%3Cscript%3E%0d%0aX:%20y HTTP/1.1", HOST), 404, NOWHERE),
    "a path out of the root": (
        message("GET /../../../../etc/passwd HTTP/1.1", HOST), 404, NOWHERE,
    ),
    "another method": (
        message("BREW /healthz HTTP/1.1", HOST), 405, "This method is not allowed here.",
    ),
    "TRACE": (message("TRACE /healthz HTTP/1.1", HOST), 405, "This method is not allowed here."),
    "a body of 5 MB": (
        message(POST, HOST, XML, "Content-Length: 5000000", body=b"x" * 5_000_000), 413, TOO_LARGE,
    ),
    "5 MB in chunks": (
        message(POST, HOST, XML, CHUNKED, body=chunked(b"<a>" + b"x" * 5_000_000, 65536)),
        413, TOO_LARGE,
    ),
    "a form of 5 MB": (
        message(f"POST {MOBILECONFIG} HTTP/1.1", HOST, "Content-Length: 5000000",
                "Content-Type: application/x-www-form-urlencoded", body=b"x" * 5_000_000),
        413, TOO_LARGE,
    ),
    "a seed of 300 MB that is only announced": (
        message("POST /initdb/ HTTP/1.1", "Host: localhost", "Content-Length: 300000000",
                "Content-Type: application/json"),
        413, TOO_LARGE,
    ),
    "no body": (message(POST, HOST, XML), 400, NO_XML),
    "an empty body": (message(POST, HOST, XML, "Content-Length: 0"), 400, NO_XML),
    "chunks of no size": (
        message(POST, HOST, XML, CHUNKED, body=b"zz\r\nabc\r\n"),
        400, "The request cannot be understood.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_told_and_logged(server: Server, name: str) -> None:
    request, status, text = BAD[name]
    before = len(server.output)
    assert_told(exchange(server, request), status, text, code=500 if status == 404 else 600)
    pattern = re.compile(rf" WARNING [^\n]* {status}: {re.escape(text)}")
    wait_until(lambda: bool(pattern.search(server.output[before:])), "writing the log line")
    assert "Traceback" not in server.output


def test_a_stranger_cannot_write_lines_into_the_log_or_fill_it(
    served_database: Path, tmp_path: Path
) -> None:
    variables = environment(served_database) | {"AUTOMX_PROXY_COUNT": "1"}
    with serving(variables, tmp_path / "log", "--workers", "1") as server:
        wait_until(lambda: "automx answers at" in server.output, "starting")
        before = len(server.output)
        exchange(server, message("GET /%0a2026-01-01%1b%E2%80%A8%C2%85 HTTP/1.1", HOST))
        exchange(server, message(f"GET /{'a' * 20_000} HTTP/1.1", HOST))
        exchange(server, message(GET, f"Host: {'b' * 20_000}"))
        exchange(server, message(GET_ALICE, HOST, f"X-Forwarded-For: \x85\t{'c' * 20_000}"))
        lines = server.output[before:].split("\n")
    assert lines.pop() == ""
    assert len(lines) == 7
    for line in lines:
        assert re.match(r"20\d\d-\d\d-\d\d [\d:,]+ (INFO|WARNING) automx\.", line)
        assert len(line) < 3_000
        assert line.isprintable()


def get(server: Server, path: str = f"{AUTOCONFIG}?emailaddress=alice@example.com") -> Answer:
    """Ask a server by GET."""
    return exchange(server, message(f"GET {path} HTTP/1.1", "Host: localhost"))


def assert_outage(server: Server, cause: str) -> None:
    """Check that a server tells each client that it cannot answer, and its log why."""
    before = len(server.output)
    asking = [
        message(GET_ALICE, HOST),
        message(GET_ALICE.replace(AUTOCONFIG, MOBILECONFIG), HOST),
        message(POST, HOST, XML, f"Content-Length: {len(REQUEST)}", body=REQUEST),
        message("GET /readyz HTTP/1.1", HOST),
    ]
    with ThreadPoolExecutor() as threads:
        for answer in threads.map(lambda request: exchange(server, request), asking):
            assert_told(answer, 503, UNAVAILABLE, code=603)
    assert get(server, "/healthz").status == 200
    assert cause in server.output[before:]
    assert "Traceback" not in server.output


def test_a_sqlite_file_that_is_moved_away_and_back_is_noticed(
    database: Path, example: None, execute: Execute, tmp_path: Path
) -> None:
    with serving(environment(database), tmp_path / "log", "--workers", "1") as server:
        assert get(server).text == golden("example-alice.autoconfig.xml")
        database.rename(tmp_path / "elsewhere")
        assert_outage(
            server, '(database: unable to open database file; was "automx db upgrade" run?)'
        )
        assert not database.exists()
        (tmp_path / "elsewhere").rename(database)
        assert get(server).text == golden("example-alice.autoconfig.xml")
        replacement = tmp_path / "replacement"
        replacement.write_bytes(database.read_bytes())
        with contextlib.closing(sqlite3.connect(replacement)) as connection:
            connection.execute("UPDATE provider SET name = 'Restored Inc.'")
            connection.commit()
        replacement.rename(database)
        assert "Restored Inc." in get(server).text


def test_a_locked_sqlite_file_is_told_after_a_few_seconds(
    database: Path, example: None, tmp_path: Path
) -> None:
    with serving(environment(database), tmp_path / "log", "--workers", "1") as server:
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            start = time.monotonic()
            assert_outage(server, "(database: database is locked)")
            assert time.monotonic() - start < 30
        wait_until(lambda: get(server, "/readyz").status == 200, "the recovery")
        assert get(server).text == golden("example-alice.autoconfig.xml")


def test_a_read_only_sqlite_file_is_read_and_cannot_be_written(
    database: Path, example: None, tmp_path: Path
) -> None:
    database.chmod(0o444)
    port = free_port()
    command: list[str | Path] = [AUTOMX, "serve", "--workers", "1", "--port", str(port)]
    if os.geteuid() == 0:  # who may write to any file, unless that right is given up
        setpriv = program("setpriv", "util-linux")
        command = [setpriv, "--bounding-set=-dac_override", *command]
    log = tmp_path / "log"
    env = environment(database) | {"AUTOMX_INITDB_TOKEN": "secret-1"}
    with running(command, log, ready=lambda: listens(port), env=env) as started:
        server = Server(started.process, started.log, port)
        assert get(server).text == golden("example-alice.autoconfig.xml")
        assert get(server, "/readyz").status == 200
        for method in ("DELETE", "POST"):
            seed = json.dumps(SAMPLE | {"domains": [{"name": "a.example"}]}).encode()
            request = message(
                f"{method} /initdb/ HTTP/1.1",
                "Host: localhost",
                "Authorization: Bearer secret-1",
                "Content-Type: application/json",
                f"Content-Length: {len(seed)}",
                body=seed,
            )
            assert_told(exchange(server, request), 503, UNAVAILABLE)
        assert server.output.count("(database: attempt to write a readonly database") == 2
        assert get(server).text == golden("example-alice.autoconfig.xml")


def stop_postgresql(instance: Instance) -> list[str]:
    """Stop an instance at once; return the command that starts it again."""
    folder = Path(instance.uri.partition("host=")[2]) / "data"
    command = shlex.split((folder / "postmaster.opts").read_text())
    os.kill(int((folder / "postmaster.pid").read_text().split()[0]), signal.SIGINT)
    wait_until(lambda: not (folder / "postmaster.pid").exists(), "stopping PostgreSQL")
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        setpriv = program("setpriv", "util-linux")
        command = [setpriv, "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
    return command


def test_a_postgresql_that_is_stopped_and_started_again_is_noticed(tmp_path: Path) -> None:
    with running_postgresql() as instance:
        uri = instance.new_database()
        variables = environment(uri)
        automx("db", "upgrade", env=variables)
        rows = EXAMPLE_ROWS.replace(", 1, 0, ", ", true, false, ").replace(
            ", 1, 1, ", ", true, true, "
        )
        instance.sql(rows, uri.partition("?")[0].rpartition("/")[2])
        with serving(variables, tmp_path / "log", "--workers", "1") as server:
            assert get(server).text == golden("example-alice.autoconfig.xml")
            command = stop_postgresql(instance)
            assert_outage(
                server, "Is the server running locally and accepting connections on that socket?)"
            )
            assert get(server, "/readyz").status == 503

            def back() -> bool:
                return get(server, "/readyz").status == 200

            with running(command, tmp_path / "postgres.log", ready=back, cwd=Path("/")) as again:
                assert get(server).text == golden("example-alice.autoconfig.xml")
                again.stop(signal.SIGINT)


def test_a_server_starts_without_its_database_and_answers_when_it_is_there(
    database: Path, example: None, tmp_path: Path
) -> None:
    database.rename(tmp_path / "elsewhere")
    with serving(environment(database), tmp_path / "log", "--workers", "1") as server:
        assert_outage(
            server, '(database: unable to open database file; was "automx db upgrade" run?)'
        )
        (tmp_path / "elsewhere").rename(database)
        assert get(server, "/readyz").status == 200
        assert get(server).text == golden("example-alice.autoconfig.xml")
