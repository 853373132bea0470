"""The log: what a line tells, in which form, and where it goes."""

import io
import json
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask

from automx import journal, log
from automx.config import make
from automx.errors import SettingsError
from automx.log import JsonFormatter, TextFormatter, shown_client, without_people

MakeApp = Callable[..., Flask]
AUTOCONFIG = "/mail/config-v1.1.xml"
CLIENT = {"X-Forwarded-For": "192.0.2.77", "User-Agent": "Thunderbird/140.0"}


@pytest.fixture(autouse=True)
def usual_log() -> Iterator[None]:
    """Let the log be as before after each test."""
    yield
    log.write(make(db_uri="sqlite://"))


@pytest.fixture
def lines(make_app: MakeApp, example: None) -> Callable[..., list[str]]:
    """Make requests of paths, and return their lines in the form that settings ask for."""

    def read(*paths: str, **settings: str) -> list[str]:
        app = make_app(proxy_count=1, loglevel="INFO", domain_cache_seconds=10, **settings)
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        kind = JsonFormatter if settings.get("log_format") == "json" else TextFormatter
        handler.setFormatter(kind(settings.get("log_addresses", "full")))
        logger = logging.getLogger("automx")
        logger.addHandler(handler)
        try:
            client = app.test_client()
            for path in paths:
                client.get(path, headers=CLIENT | {"X-Request-ID": "id-1"})
        finally:
            logger.removeHandler(handler)
        return stream.getvalue().splitlines()

    return read


def test_a_line_of_json_tells_all_that_is_known(lines: Callable[..., list[str]]) -> None:
    [line] = lines(f"{AUTOCONFIG}?emailaddress=alice@example.com", log_format="json")
    fields = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields.pop("time"))
    assert 0 < fields.pop("seconds") < 60
    assert fields == {
        "level": "INFO",
        "logger": "automx.access",
        "message": "GET /mail/config-v1.1.xml 200",
        "request_id": "id-1",
        "client": "192.0.2.77",
        "family": "thunderbird",
        "domain": "example.com",
        "protocol": "autoconfig",
        "method": "GET",
        "path": "/mail/config-v1.1.xml",
        "status": 200,
        "where": "database",
    }


def test_all_lines_of_a_request_have_its_id(lines: Callable[..., list[str]]) -> None:
    found = lines(f"{AUTOCONFIG}?emailaddress=alice@nowhere.example", log_format="json")
    fields = [json.loads(line) for line in found]
    assert [(each["logger"], each["request_id"], each["domain"]) for each in fields] == [
        ("automx.views.failure", "id-1", "nowhere.example"),
        ("automx.access", "id-1", "nowhere.example"),
    ]


PATHS_WITH_PEOPLE = (
    f"{AUTOCONFIG}?emailaddress=alice@example.com",
    "/autodiscover/autodiscover.json?Email=alice@example.com&Protocol=x",
    "/autodiscover/autodiscover.json/v1.0/alice@example.com?Protocol=x",
    "/alice@example.com",
    "/x/alice%40example.com",
    "/x/a alice@example.com",
    "/api/v1/accounts/alice@example.com",
    "/?address=alice@example.com",
    "/new_email?t=alice",
)


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_line_tells_a_local_part_or_a_token(lines: Callable[..., list[str]], form: str) -> None:
    found = lines(*PATHS_WITH_PEOPLE, log_format=form)
    assert len(found) >= len(PATHS_WITH_PEOPLE)
    assert not [line for line in found if "alice" in line]


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    ("addresses", "shown"),
    [("full", "192.0.2.77"), ("network", "192.0.2.0/24"), ("none", None)],
)
def test_a_line_tells_of_the_clients_address_what_may_be_told(
    lines: Callable[..., list[str]], form: str, addresses: str, shown: str | None
) -> None:
    found = lines("/x", AUTOCONFIG, log_format=form, log_addresses=addresses)
    assert found
    for line in found:
        assert re.findall(r"192\.0\.2\.[0-9/]+", line) == ([shown] if shown else [])


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("2001:db8:1:2:3::4", "2001:db8:1::/48"),
        ("10.1.2.3", "10.1.2.0/24"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_a_network_is_wide_enough_to_hide_a_customer(client: str, network: str) -> None:
    assert shown_client(client, "network") == network


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("alice@example.com", "…@example.com"),
        ("mailcow left a.b+c@example.com active: x", "mailcow left …@example.com active: x"),
        ("several entries fit 'o'neil@example.com'", "several entries fit …@example.com'"),
        ('"a b"@example.com, <b@x.example>', "…@example.com, <…@x.example>"),
        ("emailaddress=alice%40example.com", "…@example.com"),
        ("a@b@example.com", "…@…@example.com"),
        ("@ @", "@ @"),
        ("no address", "no address"),
    ],
)  # fmt: skip
def test_a_message_is_told_without_local_parts(text: str, shown: str) -> None:
    assert without_people(text) == shown


@pytest.mark.parametrize("kind", [TextFormatter, JsonFormatter])
def test_no_form_tells_whose_mailbox_a_message_or_a_bug_is_about(
    kind: type[TextFormatter | JsonFormatter],
) -> None:
    error = ValueError("no alice@example.com", {"%": "x?address=alice%40example.com"})
    message = f"{'x' * (log.MAX_LINE - 3)} alice@example.com"
    record = logging.LogRecord(
        "automx", logging.ERROR, "", 0, message, (), (type(error), error, None)
    )
    line = kind().format(record)
    assert "no …@example.com" in line.replace("\\u2026", "…")
    assert "alice" not in line
    assert " al" not in line


def test_a_line_of_json_can_be_read_whatever_bytes_it_is_about() -> None:
    name = b"/srv/\xff".decode(errors="surrogateescape")
    error = OSError(name)
    message = f"{name} \u2028 \U0001f600 \x00"
    record = logging.LogRecord(
        "automx", logging.ERROR, "", 0, message, (), (type(error), error, None)
    )
    fields = json.loads(JsonFormatter().format(record))
    assert fields["message"] == "/srv/? \u2028 \U0001f600 \x00"
    assert fields["exception"].endswith("OSError: /srv/?")
    json.dumps(fields, ensure_ascii=False).encode()  # no half of a surrogate pair is left


@pytest.mark.parametrize("proxy_count", [0, 1])
@pytest.mark.parametrize(
    ("given", "is_taken"),
    [
        ("0f9c", True),
        ("Root=1-67891233-abcdef012345678912345678", True),
        ("7F000001:8296_7F00001E:1F90_4F7B0A69_0003:790B", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("a" * 10_000, False),
        ("a\n", False),
        ("a\r\nSet-Cookie: x=y", False),
        ("", False),
        ("a b", False),
        ("a,b", False),
        ("alice@example.com", False),
        ('"x"', False),
        ("\u00e4", False),
    ],
)
def test_the_id_of_a_request_is_that_of_a_proxy_if_it_is_well_formed(
    make_app: MakeApp, example: None, proxy_count: int, given: str, is_taken: bool
) -> None:
    client = make_app(proxy_count=proxy_count).test_client()
    sent = {"HTTP_X_REQUEST_ID": given.encode().decode("latin-1")}
    answers = [client.get("/v1.1/example.com", environ_base=sent) for _ in range(2)]
    found = [answer.headers["X-Request-ID"] for answer in answers]
    if proxy_count and is_taken:
        assert found == [given, given]
    else:
        assert found[0] != found[1]
        assert all(re.fullmatch("[0-9a-f]{32}", each) for each in found)


def test_an_unchanged_document_is_answered_as_such_with_another_id(
    make_app: MakeApp, example: None
) -> None:
    client = make_app().test_client()
    first = client.get("/v1.1/example.com")
    again = client.get("/v1.1/example.com", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert again.headers["X-Request-ID"] != first.headers["X-Request-ID"]


def test_lines_of_requests_go_to_a_file_of_their_own(
    make_app: MakeApp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "access.log"
    client = make_app(access_log=str(path), log_addresses="none").test_client()
    client.get("/x")
    path.rename(tmp_path / "access.log.1")  # as logrotate does
    client.get("/y")
    assert (tmp_path / "access.log.1").read_text().endswith("INFO automx.access: GET /x 404\n")
    assert path.read_text().endswith("INFO automx.access: GET /y 404\n")
    others = capsys.readouterr().err
    assert others.count("automx.views.failure: GET /") == 2
    assert "automx.access" not in others


@pytest.mark.parametrize(("place", "number"), [("-", 1), ("off", 0)])
def test_lines_of_requests_go_to_standard_output_or_nowhere(
    make_app: MakeApp, capsys: pytest.CaptureFixture[str], place: str, number: int
) -> None:
    make_app(access_log=place, loglevel="INFO").test_client().get("/x")
    found = capsys.readouterr()
    assert found.out.count("127.0.0.1 GET /x 404\n") == number
    assert "automx.access" not in found.err


def test_a_file_that_cannot_be_written_stops_the_start(make_app: MakeApp, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        make_app(access_log=f"{tmp_path}/missing/access.log")
    text = f"access_log: {tmp_path}/missing/access.log cannot be written: No such file or directory"
    assert str(caught.value) == text


def test_lines_that_are_lost_are_told_once(
    make_app: MakeApp, capsys: pytest.CaptureFixture[str]
) -> None:
    client = make_app(access_log="/dev/full", log_addresses="none").test_client()
    assert [client.get("/healthz?x").status_code for _ in range(3)] == [200, 200, 200]
    client.get("/x")
    client.get("/y")
    lost = "access_log cannot be written, its lines are lost: [Errno 28] No space left on device"
    assert capsys.readouterr().err.count(lost) == 1


def entry_of(data: bytes) -> dict[str, str]:
    """Return the fields of an entry for the journal, each with the length of its value."""
    fields = {}
    while data:
        name, _, data = data.partition(b"\n")
        length = int.from_bytes(data[:8], "little")
        fields[name.decode()] = data[8 : 8 + length].decode()
        assert data[8 + length : 9 + length] == b"\n"
        data = data[9 + length :]
    return fields


def test_the_journal_gets_what_is_known_in_fields(
    make_app: MakeApp, example: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SOCKET", str(tmp_path / "socket"))
    with (
        (tmp_path / "journal").open("w+") as stream,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald,
    ):
        journald.bind(journal.SOCKET)
        journald.settimeout(30)
        monkeypatch.setattr("sys.stderr", stream)
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        app = make_app(
            proxy_count=1, loglevel="INFO", tls_ask_token="tell-me", log_addresses="none"
        )
        path = f"{AUTOCONFIG}?emailaddress=alice@example.com"
        app.test_client().get(path, headers=CLIENT | {"X-Request-ID": "id-1"})
        app.test_client().get("/tell-me\n/alice@example.com", headers=CLIENT)
        logging.getLogger("automx").critical("a bug", exc_info=ValueError("x\nPRIORITY=7"))
        entries = [entry_of(journald.recv(100_000)) for _ in range(4)]
        assert 0 < float(entries[0].pop("AUTOMX_SECONDS")) < 60
        assert entries[0].pop("MESSAGE").endswith(f" INFO automx.access: GET {AUTOCONFIG} 200")
        assert entries[0] == {
            "PRIORITY": "6",
            "SYSLOG_IDENTIFIER": "automx",
            "AUTOMX_LOGGER": "automx.access",
            "AUTOMX_REQUEST_ID": "id-1",
            "AUTOMX_FAMILY": "thunderbird",
            "AUTOMX_DOMAIN": "example.com",
            "AUTOMX_PROTOCOL": "autoconfig",
            "AUTOMX_METHOD": "GET",
            "AUTOMX_PATH": AUTOCONFIG,
            "AUTOMX_STATUS": "200",
            "AUTOMX_WHERE": "database",
        }
        told = [value for entry in entries for value in entry.values()]
        assert not [text for text in told if "alice" in text or "tell-me" in text]
        assert (entries[3]["PRIORITY"], len(entries[3])) == ("2", 4)
        assert "PRIORITY=7" in entries[3]["MESSAGE"]
        # What is too long for a datagram goes another way.
        logging.getLogger("automx").error("%s", "y", exc_info=ValueError("z" * 1_000_000))
        logging.getLogger("automx").error("short again")
        assert "short again" in entry_of(journald.recv(100_000))["MESSAGE"]
        stream.seek(0)
        assert "<3>ValueError: zzz" in stream.read()


@pytest.mark.parametrize("is_ours", [True, False])
def test_lines_for_the_journal_begin_with_their_priority_without_its_socket(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_ours: bool
) -> None:
    monkeypatch.setattr(journal, "SOCKET", str(tmp_path / "nothing"))
    with (tmp_path / "journal").open("w+") as stream:
        monkeypatch.setattr("sys.stderr", stream)
        found = os.fstat(stream.fileno())
        number = found.st_ino if is_ours else found.st_ino + 1
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{number}")
        make_app(loglevel="INFO", log_addresses="none").test_client().get("/x")
        logging.getLogger("automx").critical("a bug", exc_info=ValueError("x\ny\nz"))
        stream.seek(0)
        prefixes = [line[:3] for line in stream]
    if is_ours:
        assert prefixes[:2] == ["<4>", "<6>"]
        assert len(prefixes) > 4
        assert set(prefixes[2:]) == {"<2>"}
    else:
        assert not [prefix for prefix in prefixes if prefix.startswith("<")]
