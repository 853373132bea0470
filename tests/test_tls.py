"""For which names a web server may get certificates, and who may ask."""

import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask, request
from flask.testing import FlaskClient

from automx import dns
from automx.cache import ConfigCache
from automx.log import TextFormatter
from automx.views import tls
from automx.views.http import NOT_LOCAL, PARTS
from tests.conftest import Execute

PATH = "/tls/ask"
TOKEN = "secret-1"
ROWS = """
INSERT INTO domain VALUES (2, 'Müller.example', 1, NULL);
INSERT INTO domain VALUES (3, 'off.example', 1, NULL);
INSERT INTO domain VALUES (4, '*.wild.example', 1, NULL);
INSERT INTO domain VALUES (5, 'own.wild.example', 1, NULL);
INSERT INTO domain VALUES (6, 'a_b.example', 1, NULL);
INSERT INTO domain VALUES (7, 'bad.example', 99, NULL);
INSERT INTO domain VALUES (8, ' Blank.example ', 1, NULL);
INSERT INTO domain VALUES (91, '192.0.2.1', 1, NULL);
INSERT INTO domain VALUES (92, 'localhost', 1, NULL);
INSERT INTO domain VALUES (93, 'test', 1, NULL);
INSERT INTO server_domain SELECT server.id, domain.id FROM server, domain WHERE domain.id > 1;
INSERT INTO disabled_domain VALUES (3, '2026-11-21 10:00:00.000000');
"""
HOST = "mail.example.org"


@pytest.fixture
def rows(example: None, execute: Execute) -> None:
    """Domains of each kind."""
    execute(ROWS)


@pytest.fixture
def client(make_app: Callable[..., Flask], rows: None) -> FlaskClient:
    """A program on this machine; the service has a public host."""
    return make_app(public_host=HOST).test_client()


def status(client: FlaskClient, name: str, **request: Any) -> int:
    """Return the status of the answer about a name."""
    return client.get(PATH, query_string={"domain": name}, **request).status_code


DOMAINS = [
    "example.com",
    "EXAMPLE.com",
    "example.com.",
    "müller.example",
    "MÜLLER.example",
    "xn--mller-kva.example",
    "own.wild.example",
    "blank.example",
]


def test_names_of_an_enabled_domain_may_have_certificates(client: FlaskClient) -> None:
    names = [f"{label}.{domain}" for label in dns.SERVICE_HOSTS for domain in DOMAINS]
    assert {name: status(client, name) for name in names} == dict.fromkeys(names, 200)


def test_the_answer_is_a_line_that_no_cache_keeps(client: FlaskClient) -> None:
    answer = client.get(PATH, query_string={"domain": "AUTOCONFIG.example.com."})
    assert (answer.status_code, answer.text) == (
        200,
        "autoconfig.example.com may have a certificate.\n",
    )
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    other = client.get(PATH, query_string={"domain": "autoconfig.other.example"})
    assert (other.status_code, other.text) == (
        404,
        "autoconfig.other.example gets no certificate.\n",
    )


def test_the_public_host_may_have_a_certificate(client: FlaskClient) -> None:
    assert [status(client, name) for name in (HOST, HOST.upper(), f"{HOST}.")] == [200, 200, 200]


def test_the_host_of_web_endpoint_may_have_a_certificate(make_app: Callable[..., Flask]) -> None:
    app = make_app(web_endpoint="https://chat.example.org/new_email")
    assert status(app.test_client(), "chat.example.org") == 200
    app = make_app(web_endpoint="https://192.0.2.1/new_email")
    assert status(app.test_client(), "192.0.2.1") == 404


OTHERS = [
    "example.com",
    "www.example.com",
    "mail.example.com",
    "autoconfig.autoconfig.example.com",
    "autoconfig.www.example.com",
    "xautoconfig.example.com",
    "autoconfig",
    "autoconfig.com",
    "autoconfig.other.example",
    "autoconfig.off.example",  # switched off
    "autoconfig.wild.example",
    "autoconfig.a.wild.example",  # a wildcard is there for any name that a stranger makes up
    "autoconfig.a_b.example",  # which no authority certifies
    "autoconfig.192.0.2.1",
    "autoconfig.localhost",
    "autoconfig.test",
    f"x.{HOST}",
    "127.0.0.1",
    "::1",
    "[::1]",
    "2001:db8::1",
    "localhost",
]
MALFORMED = [
    "autoconfig.*.wild.example",
    "*.example.com",
    "autoconfig.example.com:443",
    "127.0.0.1:443",
    "[::1]:443",
    "autoconfig.example.com/",
    "https://autoconfig.example.com",
    "autoconfig..example.com",
    ".",
    " ",
    "autoconfig.example.com\0",
    "autoconfig.example.com\nx",
    "autoconfig.xn--a.example",
    "autoconfig." + "a" * 64 + ".example",
    "autoconfig." + "a." * 200 + "example",
    "autoconfig." + "\u0301" * 5_000,
]


def test_other_names_get_no_certificate(client: FlaskClient) -> None:
    assert {name: status(client, name) for name in OTHERS} == dict.fromkeys(OTHERS, 404)


def test_what_is_no_host_name_is_a_bad_request(client: FlaskClient) -> None:
    for name in MALFORMED:
        answer = client.get(PATH, query_string={"domain": name})
        assert answer.status_code == 400, name
        assert answer.text in {
            "The domain name is not valid.\n",
            "The host name is not valid.\n",
        }, name


def test_a_name_that_gets_too_long_by_its_label_gets_no_certificate() -> None:
    domain = ".".join(["a" * 60] * 4)  # 243 characters
    assert dns.host_names(domain) == []
    assert dns.host_names(domain[1:]) == [f"autoconfig.{domain[1:]}"]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("", "The argument domain is missing.\n"),
        ("domain=", "The argument domain is missing.\n"),
        (
            "domain=autoconfig.example.com&domain=autoconfig.example.com",
            "The argument domain is given more than once.\n",
        ),
    ],
)
def test_a_request_without_one_name_is_a_bad_one(
    client: FlaskClient, query: str, text: str
) -> None:
    answer = client.get(f"{PATH}?{query}")
    assert (answer.status_code, answer.text) == (400, text)


def test_other_methods_are_not_allowed(client: FlaskClient) -> None:
    for method in ("POST", "PUT", "DELETE"):
        assert client.open(PATH, method=method).status_code == 405


def test_rows_that_cannot_be_served_give_no_certificate_and_are_named_in_the_log(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.get(PATH, query_string={"domain": "autoconfig.bad.example"})
    assert answer.status_code == 500
    assert "example" not in answer.text
    assert "table domain, id 7: there is no such provider" in caplog.text


# Who may ask.

STRANGERS: dict[str, dict[str, Any]] = {
    "another machine": {"environ_overrides": {"REMOTE_ADDR": "192.0.2.1"}},
    "a proxy": {"headers": {"X-Forwarded-For": "127.0.0.1"}},
    "a proxy of another kind": {"headers": {"Via": "1.1 proxy"}},
    "a bare proxy": {"environ_overrides": {"SERVER_PROTOCOL": "HTTP/1.0"}},
    "another host name": {"headers": {"Host": "autoconfig.example.com"}},
    "a page in a browser": {"headers": {"Sec-Fetch-Site": "cross-site"}},
    "a Unix socket": {"environ_overrides": {"REMOTE_ADDR": ""}},
}
ASKED = ["autoconfig.example.com", "autoconfig.other.example", "autoconfig.bad.example", HOST, "-"]


@pytest.mark.parametrize("proxy_count", [0, 1])
def test_a_stranger_learns_nothing(
    make_app: Callable[..., Flask], rows: None, proxy_count: int
) -> None:
    client = make_app(public_host=HOST, proxy_count=proxy_count).test_client()
    queries = [*({"domain": name} for name in ASKED), {}, {"domain": ["a", "b"]}]
    for who, request_of in STRANGERS.items():
        answers = [client.get(PATH, query_string=query, **request_of) for query in queries]
        found = {(answer.status_code, answer.text) for answer in answers}
        assert found == {(403, f"{NOT_LOCAL}\n")}, who


def test_a_stranger_with_the_token_is_answered(make_app: Callable[..., Flask], rows: None) -> None:
    client = make_app(tls_ask_token=TOKEN, proxy_count=1).test_client()
    for who, request_of in STRANGERS.items():
        for name, expected in (("autoconfig.example.com", 200), ("autoconfig.other.example", 404)):
            query = {"domain": name, "token": TOKEN}
            answer = client.get(PATH, query_string=query, **request_of)
            assert answer.status_code == expected, who


WRONG = [b"x", b"secret-", b"secret-12", b"SECRET-1", "é".encode(), b"\xff", b"\0"]


@pytest.mark.parametrize("setting", [TOKEN, ""])
def test_a_wrong_token_is_refused_from_everywhere(
    make_app: Callable[..., Flask], rows: None, setting: str
) -> None:
    client = make_app(tls_ask_token=setting).test_client()
    for token in WRONG:
        for request_of in ({}, STRANGERS["another machine"]):
            query = {"domain": ASKED[0], "token": token}
            answer = client.get(PATH, query_string=query, **request_of)
            assert (answer.status_code, answer.text) == (403, "The token is wrong.\n"), token


def test_programs_on_this_machine_need_no_token(make_app: Callable[..., Flask], rows: None) -> None:
    client = make_app(tls_ask_token=TOKEN).test_client()
    assert status(client, "autoconfig.example.com") == 200
    assert client.get(f"{PATH}?domain=autoconfig.example.com&token=").status_code == 200


# The log.


@pytest.fixture
def lines() -> Iterator[Callable[[], str]]:
    """What the handler of the program writes."""
    stream = io.StringIO()
    logger = logging.getLogger("automx")
    [formatter] = [
        handler.formatter
        for handler in logger.handlers
        if isinstance(handler.formatter, TextFormatter)
    ] or [TextFormatter()]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    yield stream.getvalue
    logger.removeHandler(handler)


@pytest.mark.parametrize("token", [TOKEN, "wrong-1", "a&b=c+d"])
def test_no_line_of_the_log_has_the_token(
    make_app: Callable[..., Flask],
    rows: None,
    lines: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    token: str,
) -> None:
    def broken(domain: str) -> object:
        raise RuntimeError(f"{request.url} {dict(request.args)}")

    client = make_app(tls_ask_token=token.replace("wrong", TOKEN), loglevel="DEBUG").test_client()
    query = {"domain": "autoconfig.example.com", "token": token}
    assert client.get(PATH, query_string=query).status_code in {200, 403}
    client.get(PATH, query_string=query | {"domain": "autoconfig.other.example"})
    client.get(PATH, query_string=query | {"domain": "-"})
    monkeypatch.setattr(tls, "found_config", broken)
    is_right = token != "wrong-1"
    assert client.get(PATH, query_string=query).status_code == (500 if is_right else 403)
    text = lines()
    assert text.count(f"GET {PATH} ") >= 4
    assert ("Traceback" in text) == is_right
    assert token not in text
    assert "a%26b" not in text
    assert client.application.extensions[PARTS].settings.tls_ask_token not in text


def test_names_that_scanners_make_up_are_no_warnings(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "automx")
    status(client, "autoconfig.other.example")
    status(client, "www.example.com")
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert found == [
        ("INFO", "no certificate for autoconfig.other.example"),
        ("INFO", "no certificate for www.example.com"),
    ]


# What it costs.


def test_answers_are_remembered_as_settings_are(
    make_app: Callable[..., Flask], rows: None, execute: Execute
) -> None:
    client = make_app(domain_cache_seconds=900_000).test_client()
    assert status(client, "autoconfig.example.com") == 200
    assert status(client, "autoconfig.other.example") == 404
    execute("DELETE FROM domain WHERE id = 1")
    execute("INSERT INTO domain VALUES (9, 'other.example', 1, NULL)")
    assert status(client, "autodiscover.example.com") == 200
    assert status(client, "autodiscover.other.example") == 404


def test_names_without_a_label_of_ours_ask_no_database(
    make_app: Callable[..., Flask], execute: Execute
) -> None:
    client = make_app(public_host=HOST).test_client()
    execute("DROP TABLE domain")
    for name, expected in ((HOST, 200), ("www.example.com", 404), ("192.0.2.1", 404)):
        assert status(client, name) == expected
    assert status(client, "autoconfig.example.com") == 503


def test_a_scanner_fills_no_memory_and_meets_no_limit(
    make_app: Callable[..., Flask], rows: None
) -> None:
    app = make_app(account_rate_limit="1 per day")
    memory = ConfigCache(900_000, stale_seconds=900_000, size=10, stale_size=10)
    app.extensions[PARTS] = replace(app.extensions[PARTS], cache=memory)
    client = app.test_client()
    for domain in ("wild.example", "other.example"):
        for number in range(12):
            assert status(client, f"autoconfig.{number}.{domain}") == 404
    assert memory.size() == 10
    assert status(client, "autoconfig.example.com") == 200


# While the database is away.


def test_an_outage_is_told_and_domains_that_were_known_stay_allowed(
    make_app: Callable[..., Flask], rows: None, execute: Execute
) -> None:
    client = make_app(stale_seconds=3_600, public_host=HOST).test_client()
    assert status(client, "autoconfig.example.com") == 200
    assert status(client, "autoconfig.other.example") == 404
    execute("ALTER TABLE domain RENAME TO gone")
    known = client.get(PATH, query_string={"domain": "autoconfig.example.com"})
    assert (known.status_code, known.headers["Age"]) == (200, "0")
    for name in (
        "autoconfig.other.example",
        "autoconfig.off.example",
        "autoconfig.own.wild.example",
    ):
        answer = client.get(PATH, query_string={"domain": name})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert status(client, HOST) == 200
    execute("ALTER TABLE gone RENAME TO domain")
    assert status(client, "autoconfig.own.wild.example") == 200
