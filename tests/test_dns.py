"""The records of a domain: complete, and a zone that a name server loads."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from automx import dns as records
from automx.clientconfig import (
    Authentication,
    ClientConfig,
    ServerType,
    Service,
    ServiceType,
    SocketType,
)
from tests.commandline import attempt, automx
from tests.conftest import Execute
from tests.documents import golden
from tests.examples import DOCUMENT, IMAP, SMTP, config
from tests.nameserver import name_server


@pytest.fixture
def env(database: Path, tmp_path: Path) -> dict[str, str]:
    """Settings of a database with everything in it."""
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}
    servers = [
        *DOCUMENT["servers"],
        {"type": "imap", "name": "second.example.com", "prio": 20},
        {"type": "pop", "name": "pop.example.com", "port": 110},
        {"type": "smtp", "name": "smtp.example.com", "port": 587},
        {"type": "caldav", "url": "https://dav.example.com/cal/%EMAILADDRESS%/"},
        {"type": "carddav", "url": "https://dav.example.com:8443/card"},
    ]
    seed = tmp_path / "seed.json"
    seed.write_text(json.dumps(DOCUMENT | {"servers": servers}))
    automx("seed", seed, env=env)
    return env


def test_the_zone_holds_all_records(env: dict[str, str]) -> None:
    zone = automx("dns", "Example.com", "--host", "automx.example.net", env=env)
    assert zone == golden("example.zone")


@pytest.mark.parametrize(
    "settings",
    [
        {"AUTOMX_PUBLIC_HOST": "automx.example.net"},
        {"AUTOMX_WEB_ENDPOINT": "https://automx.example.net/new_email"},
        {
            "AUTOMX_PUBLIC_HOST": "automx.example.net",
            "AUTOMX_WEB_ENDPOINT": "https://mail.example.org/new_email",
        },
    ],
)
def test_the_host_is_that_of_the_settings_by_default(
    env: dict[str, str], settings: dict[str, str]
) -> None:
    assert automx("dns", "Example.com", env=env | settings) == golden("example.zone")


def test_a_name_server_answers_what_is_printed(env: dict[str, str], tmp_path: Path) -> None:
    arguments = ("dns", "example.com", "--host", "automx.example.net")
    zone = automx(*arguments, env=env)
    told = json.loads(automx(*arguments, "--format", "json", env=env))
    with name_server(tmp_path / "names", {"example.com": zone}) as server:
        answered = {(r["name"], r["type"]): server.records(r["name"], r["type"]) for r in told}
    expected: dict[tuple[str, str], list[str]] = {}
    for record in told:
        expected.setdefault((record["name"], record["type"]), []).append(record["data"])
        assert record["ttl"] == 3600
    assert answered == {key: sorted(data) for key, data in expected.items()}
    assert len(told) == len(zone.splitlines()) - 1


def data(settings: ClientConfig, name: str) -> list[str]:
    """Return the data of the records of a name below the domain."""
    found = records.records(settings, "h.example")
    return [record.data for record in found if record.name == f"{name}.{settings.domain}"]


def test_nothing_is_denied_that_no_record_could_describe() -> None:
    of_each = replace(IMAP, hostname="%EMAILLOCALPART%.example.com")
    by_address = replace(SMTP, hostname="192.0.2.1")
    plain = replace(IMAP, type=ServerType.POP3, port=110, socket_type=SocketType.PLAIN)
    settings = config(of_each, by_address, plain)
    for name in ("_imaps._tcp", "_submissions._tcp", "_pop3._tcp"):
        assert data(settings, name) == []
    assert data(settings, "_pop3s._tcp") == ["0 0 0 ."]


@pytest.mark.parametrize("methods", [("GSSAPI",), ("TLS-client-cert",), ("NTLM", "GSSAPI")])
def test_a_server_that_documents_do_not_show_is_not_told(methods: tuple[str, ...]) -> None:
    authentication = tuple(map(Authentication, methods))
    first = replace(IMAP, hostname="first.example.com", authentication=authentication)
    pop = replace(first, type=ServerType.POP3, port=995)
    sieve = replace(first, type=ServerType.MANAGESIEVE, port=4190)
    usual_sieve = replace(sieve, hostname="sieve.example.com", authentication=IMAP.authentication)
    beside = config(first, pop, IMAP, SMTP, sieve, usual_sieve)
    assert data(beside, "_imaps._tcp") == ["0 1 993 imap.example.com."]
    assert data(beside, "_sieve._tcp") == ["0 1 4190 sieve.example.com."]
    assert data(beside, "_pop3s._tcp") == []  # it is not denied, either
    alone = config(first, SMTP)
    assert data(alone, "_imaps._tcp") == ["0 1 993 first.example.com."]


def test_the_domain_is_filled_in_and_equal_servers_are_told_once() -> None:
    server = replace(IMAP, hostname="imap.%EMAILDOMAIN%")
    again = replace(server, user_name="%EMAILLOCALPART%")
    assert data(config(server, again, SMTP), "_imaps._tcp") == ["0 1 993 imap.example.com."]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://dav.example.com", ["0 1 443 dav.example.com.", '"path=/"']),
        ("https://müller.example/", ["0 1 443 xn--mller-kva.example.", '"path=/"']),
        (
            'https://dav.example.com/"ü\\%EMAILADDRESS%',
            ["0 1 443 dav.example.com.", '"path=/"'],
        ),
        (
            "https://dav.example.com/ü%20;x/",
            ["0 1 443 dav.example.com.", '"path=/%C3%BC%20;x/"'],
        ),
        (
            "https://dav.example.com/" + "a" * 300,
            ["0 1 443 dav.example.com.", f'"path=/{"a" * 249}" "{"a" * 51}"'],
        ),
        ("https://192.0.2.1/cal/", []),
        ("https://%EMAILLOCALPART%.example.com/", []),
    ],
)
def test_where_calendars_are(url: str, expected: list[str]) -> None:
    calendars = Service(ServiceType.CALDAV, url, "%EMAILADDRESS%", domain_required=False)
    settings = replace(config(IMAP, SMTP), services=(calendars,))
    assert data(settings, "_caldavs._tcp") == expected


def test_quotes_and_backslashes_are_escaped() -> None:
    record = records.txt("example.com", 'a"b\\c')
    assert (record.data, record.text) == ('"a\\"b\\\\c"', 'a"b\\c')


def test_a_domain_beyond_ascii_and_one_that_a_wildcard_covers(
    env: dict[str, str], execute: Execute
) -> None:
    execute("UPDATE domain SET name = '*.müller.example';")
    zone = automx("dns", "Sub.MÜLLER.example", "--host", "HÄNS.example", env=env)
    lines = zone.splitlines()
    assert lines[0] == "; sub.xn--mller-kva.example, for mail clients; written by automx"
    assert lines[1].split() == [
        "autoconfig.sub.xn--mller-kva.example.",
        "3600",
        "IN",
        "CNAME",
        "xn--hns-qla.example.",
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["example.com"],
            "the public host name of automx is not known: give it by --host, or set public_host",
        ),
        (["example.org", "--host", "h.example"], "No configuration is known for this domain."),
    ],
)
def test_what_cannot_be_told(env: dict[str, str], arguments: list[str], complaint: str) -> None:
    result = attempt("dns", *arguments, env=env)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"automx: {complaint}")


def test_the_host_is_that_of_the_settings(env: dict[str, str]) -> None:
    settings = env | {"AUTOMX_WEB_ENDPOINT": "https://automx.example.net/new_email"}
    assert automx("dns", "example.com", env=settings) == golden("example.zone")


def test_a_name_that_is_the_services_own_gets_no_alias() -> None:
    names = [
        record.name for record in records.records(config(IMAP, SMTP), "autoconfig.example.com")
    ]
    assert "autoconfig.example.com" not in names
    assert "autodiscover.example.com" in names


def test_services_that_are_not_offered_are_denied(env: dict[str, str]) -> None:
    settings: ClientConfig = config(IMAP, SMTP)
    denied = [r.name for r in records.records(settings, "h.example") if r.data == "0 0 0 ."]
    assert denied == [
        "_imap._tcp.example.com",
        "_pop3s._tcp.example.com",
        "_pop3._tcp.example.com",
        "_submission._tcp.example.com",
    ]
