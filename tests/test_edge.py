"""Who asks, and at which URL: read once, checked, and the same for all protocols."""

import io
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse, create_environ, run_wsgi_app
from werkzeug.wrappers import Request

from automx import edge
from automx.errors import AddressError
from automx.log import TextFormatter, access_log
from tests.conftest import Execute
from tests.documents import golden

GOOD_HOSTS = {
    "example.com": ("example.com", ""),
    "AutoConfig.Example.COM.:8443": ("autoconfig.example.com", "8443"),
    "localhost:1": ("localhost", "1"),
    "a_b.example.com:65535": ("a_b.example.com", "65535"),
    "xn--mller-kva.de": ("xn--mller-kva.de", ""),
    "127.0.0.1:80": ("127.0.0.1", "80"),
    "[::1]": ("::1", ""),
    "[2001:DB8:0::1]:443": ("2001:db8::1", "443"),
}
BAD_HOSTS = [
    *("xn--", "xn--a", "xn--a.example.com", "autoconfig.xn--.com"),
    *("[::ffff:127.0.01]", "[1:2:3:4:5:6:7:8:9]", "[::1", "::1", "[]", "[:]", "[127.0.0.1]", "[x]"),
    *("[fe80::1%eth0]", "[fe80::1%25eth0]", "[::1]x", "[::1]:0", "[v1.x]"),
    *("127.0.01", "127.0.0.256", "1.2.3", "0x7f.1.999", "1", "example.123"),
    *("example.com:0", "example.com:65536", "example.com:+80", "example.com:", "example.com: 80"),
    *("example.com:080", "example.com:-1", "example.com:http", "example.com:80:80", ":80"),
    *("exam\x00ple.com", "exam\tple.com", "exam ple.com", "example.com\x7f", "example.com\n"),
    *("user@example.com", "user:password@example.com", "example.com@", "@"),
    *("example..com", ".example.com", "example.com..", ".", "...", "-", "-a.com", "a-.com"),
    *("a" * 64 + ".com", "a." * 127 + "com", "a" * 5_000),
    *("müller.de", "m\xfcller.de", "example。com", "\uff11.com", "\xff"),
    *("example.com,example.org", "example.com, example.com", "exam%70le.com", "%", "a%00"),
    *("example.com/x", "http://example.com", "example.com?x", "example.com#x", "a\\b", "<b>", "*"),
    *('"example.com"', "'", "a;b", "a=b", "$HOST"),
]


def environ_of(**variables: str) -> dict[str, Any]:
    """Return the WSGI environment of a request from a proxy on this machine."""
    environ = {"REMOTE_ADDR": "127.0.0.1", "wsgi.url_scheme": "http", "SCRIPT_NAME": ""}
    return environ | {"REQUEST_METHOD": "GET"} | variables


# Hosts.


@pytest.mark.parametrize("text", GOOD_HOSTS)
@pytest.mark.parametrize("header", ["HTTP_HOST", "HTTP_X_FORWARDED_HOST"])
def test_a_host_is_read_into_its_normal_form(text: str, header: str) -> None:
    environ = environ_of(**{header: text})
    found = edge.read(environ, 1)
    assert (found.host, found.port) == GOOD_HOSTS[text]
    assert (found.asked, found.error) == (text, None)
    assert edge.parse_authority(environ["HTTP_HOST"]) == GOOD_HOSTS[text]


@pytest.mark.parametrize("text", BAD_HOSTS)
@pytest.mark.parametrize("header", ["HTTP_HOST", "HTTP_X_FORWARDED_HOST"])
def test_a_malformed_host_is_none_and_nothing_of_it_is_left(text: str, header: str) -> None:
    environ = environ_of(**{"HTTP_HOST": "example.com", header: text})
    if header == "HTTP_X_FORWARDED_HOST" and "," in text:
        text = text.rpartition(",")[2].strip()  # the value of our proxy, which is a good one
        assert edge.read(environ, 1).host == text
        return
    found = edge.read(environ, 1)
    assert (found.host, found.port, found.asked) == ("", "", text.strip(" \t"))
    assert isinstance(found.error, AddressError)
    assert str(found.error) == "The host name is not valid."
    assert environ["HTTP_HOST"] == ""


def test_a_request_may_name_no_host() -> None:
    for environ in (environ_of(), environ_of(HTTP_HOST="")):
        assert edge.read(environ, 1) == edge.Inbound("127.0.0.1", "127.0.0.1")
        assert environ["HTTP_HOST"] == ""


@pytest.mark.parametrize("variable", ["RAW_URI", "REQUEST_URI"])
@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("http://autoconfig.example.com/x", "autoconfig.example.com"),
        ("HTTPS://example.org", "example.org"),
        ("http://example.org?http://example.com/", "example.org"),
        ("/x?http://example.org/", "example.com"),
        ("*", "example.com"),
        ("example.org:443", "example.com"),  # of CONNECT, which has no route
        ("", "example.com"),
        ("http:///x", ""),
        ("http://user@example.org/", ""),
        ("http://xn--a/", ""),
    ],
)
def test_an_absolute_target_wins_over_the_host(variable: str, target: str, host: str) -> None:
    environ = environ_of(**{"HTTP_HOST": "example.com", variable: target})
    found = edge.read(environ, 0)
    assert (found.host, environ["HTTP_HOST"]) == (host, host)
    assert (found.error is None) is bool(host)


@pytest.mark.parametrize("proxy_count", [0, 1, 2])
def test_the_outermost_proxy_of_ours_is_believed_and_nothing_beyond(proxy_count: int) -> None:
    environ = environ_of(
        HTTP_HOST="own.example",
        HTTP_X_FORWARDED_FOR="203.0.113.3, 203.0.113.2,203.0.113.1",
        HTTP_X_FORWARDED_HOST="three.example, two.example, one.example",
        HTTP_X_FORWARDED_PROTO="ftp,https,HTTPS",
        HTTP_X_FORWARDED_PREFIX="//evil, /two/, /one",
    )
    found = edge.read(environ, proxy_count)
    assert (found.client, found.host, environ["wsgi.url_scheme"], environ["SCRIPT_NAME"]) == [
        ("127.0.0.1", "own.example", "http", ""),
        ("203.0.113.1", "one.example", "https", "/one"),
        ("203.0.113.2", "two.example", "https", "/two"),
    ][proxy_count]
    assert found.error is None


def test_a_quotation_mark_of_a_client_hides_no_value_of_a_proxy() -> None:
    environ = environ_of(
        HTTP_X_FORWARDED_FOR='"192.0.2.66, 203.0.113.1',
        HTTP_X_FORWARDED_HOST='"evil.example, one.example',
    )
    found = edge.read(environ, 1)
    assert (found.client, found.host) == ("203.0.113.1", "one.example")


@pytest.mark.parametrize("name", ["FOR", "HOST", "PROTO", "PREFIX"])
@pytest.mark.parametrize("value", ["", " ", ",", "203.0.113.1"])
def test_a_proxy_that_says_nothing_changes_nothing(name: str, value: str) -> None:
    environ = environ_of(HTTP_HOST="example.com", SCRIPT_NAME="/own")
    found = edge.read(environ | {f"HTTP_X_FORWARDED_{name}": value}, 3)
    assert found == edge.read(environ, 3)
    assert environ["SCRIPT_NAME"] == "/own"


# Methods.


@pytest.mark.parametrize("method", ["get", "Get", "gET", "delete", "x-y", "po\u017ft"])
def test_a_method_in_small_letters_is_none(make_app: Callable[..., Flask], method: str) -> None:
    environ = environ_of(REQUEST_METHOD=method, HTTP_HOST="example.com")
    found = edge.read(environ, 0)
    assert (str(found.error), found.host) == ("The method is not valid.", "")
    answer = make_app().test_client().open("/healthz", environ_overrides={"REQUEST_METHOD": method})
    assert (answer.status_code, answer.text) == (400, "The method is not valid.\n")


# Clients.

CLIENTS = [
    ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
    ("192.0.2.1:5001", "192.0.2.1", "192.0.2.1"),
    ("[192.0.2.1]:5001", "192.0.2.1", "192.0.2.1"),
    ("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1"),
    ("[::FFFF:192.0.2.1]:80", "192.0.2.1", "192.0.2.1"),
    ("2001:DB8:0:1:0::1", "2001:db8:0:1::1", "2001:db8:0:1::/64"),
    ("[2001:db8::1]", "2001:db8::1", "2001:db8::/64"),
    ("[2001:db8::1]:5001", "2001:db8::1", "2001:db8::/64"),
    ("fe80::1%eth0", "fe80::1", "fe80::/64"),
    ("[fe80::1%eth0]:80", "fe80::1", "fe80::/64"),
    ("::1", "::1", "::/64"),
]
NO_CLIENTS = [
    *("unknown", "_hidden", "localhost", "x", "192.0.2.256", "192.0.02.1", "192.0.2", "192.0.2.1:"),
    *("192.0.2.1:x", "192.0.2.1:123456", "2001:db8::1::", "[2001:db8::1", "[]:80", "192.0.2.1/24"),
    *("192.0.2.1;x", "\x85", "٣.0.2.1", "::1%" + "z" * 200, '"192.0.2.1"', "3221225985"),
]


@pytest.mark.parametrize(("text", "client", "network"), CLIENTS)
def test_a_client_is_its_address_without_port_and_counts_by_its_network(
    text: str, client: str, network: str
) -> None:
    for environ, proxy_count in (
        (environ_of(HTTP_X_FORWARDED_FOR=f"198.51.100.9, {text}"), 1),
        (environ_of(REMOTE_ADDR=text), 0),
        (environ_of(REMOTE_ADDR=text), 1),
    ):
        found = edge.read(environ, proxy_count)
        assert (found.client, found.network) == (client, network)
        assert environ["REMOTE_ADDR"] == client


@pytest.mark.parametrize("text", NO_CLIENTS)
def test_what_is_no_address_counts_as_the_proxys_own(text: str) -> None:
    found = edge.read(environ_of(HTTP_X_FORWARDED_FOR=text, REMOTE_ADDR="192.0.2.7"), 1)
    assert (found.client, found.network) == ("192.0.2.7", "192.0.2.7")


@pytest.mark.parametrize("peer", ["", "unix:", *NO_CLIENTS])
def test_a_peer_without_an_address_is_unknown(peer: str) -> None:
    environ = environ_of(REMOTE_ADDR=peer)
    assert edge.read(environ, 0).client == environ["REMOTE_ADDR"] == "unknown"
    del environ[edge.KEY], environ["REMOTE_ADDR"]
    assert edge.read(environ, 0).network == environ["REMOTE_ADDR"] == "unknown"


def test_the_log_has_the_address_that_limits_count(make_app: Callable[..., Flask]) -> None:
    client = make_app(proxy_count=1, loglevel="INFO", account_rate_limit="1 per hour").test_client()
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(TextFormatter())
    access_log.addHandler(handler)
    try:
        for text in ("192.0.2.1:5001", "[::ffff:192.0.2.1]:5002", "192.0.2.1"):
            client.post("/?t=x", headers={"X-Forwarded-For": text})
    finally:
        access_log.removeHandler(handler)
    found = re.findall(r"automx\.access: (.*)", lines.getvalue())
    assert found == ["192.0.2.1 POST / 403", *["192.0.2.1 POST / 429"] * 2]


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("\x1b[31m\r\n", "\\x1b[31m\\x0d\\x0a"),
        ("\x9b\x7f", "\\x9b\\x7f"),
        ("\u202egnp.exe\u2066", "\\u202egnp.exe\\u2066"),  # shown in another order
        ("\u200b\ufeff\u00ad", "\\u200b\\ufeff\\xad"),  # not shown at all
        ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"),  # line breaks to some programs
        ("\U000e0041\ue000", "\\ue0041\\ue000"),
        ("é Ω 猫", "é Ω 猫"),
    ],
)
def test_the_log_shows_what_a_client_sent_as_what_it_is(sent: str, shown: str) -> None:
    formatter = TextFormatter()
    line = formatter.format(logging.makeLogRecord({"msg": "GET %s", "args": (sent,)}))
    assert line.endswith(f"GET {shown}")
    error = ValueError(sent.replace("\n", ""))
    record = logging.makeLogRecord({"msg": "a bug", "exc_info": (ValueError, error, None)})
    last = formatter.format(record).split("\n")[-1]
    assert last == "ValueError: " + shown.replace("\\x0a", "")


# Schemes and prefixes.


@pytest.mark.parametrize(
    "scheme", ["javascript", "ftp", "ws", "https:", "http\x00", "\uff48ttp", "data", "1"]
)
def test_another_scheme_than_http_is_refused_and_in_no_url(
    make_app: Callable[..., Flask], example: None, scheme: str
) -> None:
    client = make_app(proxy_count=1).test_client()
    headers = {"X-Forwarded-Proto": scheme.encode().decode("latin-1")}
    for path in ("/mobileconfig.svg?emailaddress=alice@example.com", "/", "/initdb"):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 400
        assert "javascript" not in answer.text
    environ = environ_of(HTTP_X_FORWARDED_PROTO=scheme)
    assert edge.read(environ, 1).error
    assert environ["wsgi.url_scheme"] == "http"


@pytest.mark.parametrize(
    ("prefix", "path"),
    [("/", ""), ("/x", "/x"), ("/x/y/", "/x/y"), ("/a.b/~c/_-", "/a.b/~c/_-"), ("/...", "/...")],
)
def test_a_plain_path_is_a_prefix(prefix: str, path: str) -> None:
    environ = environ_of(HTTP_X_FORWARDED_PREFIX=prefix)
    assert edge.read(environ, 1).error is None
    assert environ["SCRIPT_NAME"] == path


@pytest.mark.parametrize(
    "prefix",
    [
        *(
            "//evil.test",
            "/x//y",
            "x",
            "https://evil.test",
            "/..",
            "/x/../y",
            "/.",
            "/x/./y",
            "/x/..",
        ),
        *("/x\r\n", "/x\x00", "/x y", "/%2e%2e", "/\xff", "/x?y", "/x#y", "/x\\y", "\\\\evil.test"),
        *('/"x', "/<b>", "/javascript:x", "///"),
    ],
)
def test_what_is_no_plain_path_is_no_prefix(
    make_app: Callable[..., Flask], example: None, prefix: str
) -> None:
    environ = environ_of(HTTP_X_FORWARDED_PREFIX=prefix)
    assert str(edge.read(environ, 1).error) == "The path prefix is not valid."
    assert environ["SCRIPT_NAME"] == ""
    client = make_app(proxy_count=1).test_client()
    environ = {"HTTP_X_FORWARDED_PREFIX": prefix}
    answer = client.get("/email.mobileconfig", environ_overrides=environ)
    assert (answer.status_code, answer.headers.get("Location")) == (400, None)


# Caches.


@pytest.mark.parametrize(
    ("proxy_count", "vary"),
    [(0, "Host"), (1, "Host, X-Forwarded-Host"), (2, "Host, X-Forwarded-Host")],
)
@pytest.mark.parametrize(
    "path",
    [
        "/mail/config-v1.1.xml",
        "/.well-known/autoconfig/mail/config-v1.1.xml",
        "/autodiscover/autodiscover.xml",
        "/.well-known/user-agent-configuration.json",
    ],
)
def test_a_cache_keeps_documents_apart_by_all_that_chose_the_domain(
    make_app: Callable[..., Flask],
    example: None,
    execute: Execute,
    path: str,
    proxy_count: int,
    vary: str,
) -> None:
    execute(
        "INSERT INTO domain VALUES (9, 'other.example', 1, NULL);"
        "INSERT INTO server_domain SELECT id, 9 FROM server"
    )
    client = make_app(proxy_count=proxy_count, domain_cache_seconds=60).test_client()
    headers = {"Host": "example.com", "X-Forwarded-Host": "other.example, other.example"}
    answers = [client.get(path, headers=given) for given in (headers, {"Host": "example.com"})]
    for answer in answers:
        assert (answer.status_code, answer.headers["Vary"]) == (200, vary)
        assert "public" in answer.headers["Cache-Control"]


# Every route.

KNOWN = "example.com"


def routes(app: Flask) -> Iterator[tuple[str, str]]:
    """Yield each method of each route with its path."""
    values = {"domain": KNOWN, "address": f"alice@{KNOWN}", "name": "caldav", "path": "domains"}
    for rule in app.url_map.iter_rules():
        built = rule.build({name: values[name] for name in rule.arguments})
        assert built
        for method in sorted(rule.methods or ()):
            yield method, built[1]


def forms(path: str) -> set[str]:
    """Return the forms of a path that lead to the same document."""
    bare = path.rstrip("/")
    return {path, bare or "/", f"{bare}/", f"/{bare}//", bare.replace("/", "//") or "//"}


def ask(app: Flask, method: str, path: str, header: str, host: str) -> TestResponse:
    """Ask for a path as it is, with a host as it is, which werkzeug's client would read."""
    environ = create_environ(method=method)
    environ |= {"PATH_INFO": path, "HTTP_HOST": KNOWN, header: host.encode().decode("latin-1")}
    body, status, headers = run_wsgi_app(app, environ, buffered=True)
    return TestResponse(body, status, headers, Request(environ))


@pytest.fixture
def grid(make_app: Callable[..., Flask], example: None, execute: Execute) -> Flask:
    """An application behind a proxy whose database has an answer for each route."""
    execute(
        "INSERT INTO provider_detail (provider_id, logo_type, logo_width, logo_height, logo)"
        " VALUES (1, 'image/svg+xml', 8, 8, '<svg/>')"
    )
    return make_app(proxy_count=1, account_rate_limit="")


def test_every_route_answers_with_and_without_its_slash_and_never_by_a_redirect_to_itself(
    grid: Flask,
) -> None:
    for method, path in sorted(set(routes(grid))):
        answers = {form: ask(grid, method, form, "HTTP_HOST", KNOWN) for form in forms(path)}
        assert {answer.status_code for answer in answers.values()} in (
            [{status} for status in (200, 301, 302, 400, 403, 404, 405)]
        ), (method, path, {form: answer.status_code for form, answer in answers.items()})
        assert not {answer.status_code for answer in answers.values()} & {307, 308}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS", "PROPFIND"])
@pytest.mark.parametrize("path", ["/x", "/x/", "//x", "/mail", "/initdb/x", "/autodiscover"])
def test_a_path_that_is_none_leads_nowhere(grid: Flask, method: str, path: str) -> None:
    answer = ask(grid, method, path, "HTTP_HOST", "evil.test")
    assert (answer.status_code, answer.headers.get("Location")) == (404, None)


def test_a_known_host_gets_its_document_through_the_whole_edge(grid: Flask) -> None:
    answer = ask(grid, "GET", "//mail//config-v1.1.xml/", "HTTP_X_FORWARDED_HOST", "EXAMPLE.com.")
    assert answer.text == golden("example.autoconfig.xml")


def test_a_request_without_a_host_is_answered_where_none_is_needed(grid: Flask) -> None:
    address = "emailaddress=alice@example.com"
    for path, query, status in (
        ("/mail/config-v1.1.xml", address, 200),
        ("/healthz", "", 200),
        ("/mail/config-v1.1.xml", "", 404),
        ("/mobileconfig.svg", address, 400),
    ):
        environ = create_environ(path, query_string=query)
        del environ["HTTP_HOST"]
        assert run_wsgi_app(grid, environ, buffered=True)[1].startswith(f"{status} ")
