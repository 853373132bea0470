"""nginx answers by published files as automx would, byte for byte."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.commandline import automx
from tests.conftest import EXAMPLE_ROWS
from tests.databases import run
from tests.processes import program, serving
from tests.publishednginx import exchange, nginx
from tests.test_quick import HEADERS, LOCAL_PARTS, ROWS

PATHS = [
    "/mail/config-v1.1.xml",
    "/.well-known/autoconfig/mail/config-v1.1.xml",
    "/v1.1/mail/config-v1.1.xml",
    "/.well-known/user-agent-configuration.json",
    "/v1.1/plain.example",
]
ODD_PATHS = [
    "/v1.1/ldap.example", "/v1.1/Plain.example", "/v1.1/plain.example/", "/v1.1/plain.example.",
    "/v1.1/..", "/v1.1/%70lain.example", "/v1.1/xn--mller-kva.example", "/v1.1/",
    "/mail/config-v1.1.xml/", "//mail/config-v1.1.xml", "/mail//config-v1.1.xml",
    "/mail/../mail/config-v1.1.xml", "/mail/./config-v1.1.xml", "/mail/%63onfig-v1.1.xml",
    "/Mail/config-v1.1.xml", "/mail/config-v1.1.xmlx", "/mail/config-v1.1.xml%00",
    "/mail/config-v1.1.xml;a", "/mail/config-v1.1.xml#a", "/mail/config-v1x1.xml",
    "/v1.1/plain.example?a=1", "/mail/", "/autoconfig/in/plain.example", "/pacc/in/plain.example",
    "/mail/../autoconfig/in/plain.example", "/.state", "/healthz", "/none",
    "/.well-known/user-agent-configuration.json?a=1", "/.well-known/autoconfig/",
    "/autodiscover/autodiscover.xml", "/.well-known/user-agent-configuration.json/",
]  # fmt: skip
DOMAINS = [
    "plain.example", "xn--mller-kva.example", "example.com", "ldap.example", "parts.example",
    "half.example", "off.example", "a.wild.example", "none.example", "nowhere.example",
    "PLAIN.example", "plain.example.", "xn--a", "-x.example", "a..example", "..", ".", "",
    "plain.example/", "../in/plain.example", "127.0.0.1", "7.7.7.7", "a_b.example", "localhost",
    "a" * 64 + ".example", "plain.example&", "plain.example ", "%70lain.example", "x" * 260,
    "m\xc3\xbcller.example", "autoconfig.plain.example",
]  # fmt: skip
HOSTS = [
    "plain.example", "autoconfig.plain.example", "autodiscover.plain.example:443",
    "ua-auto-config.plain.example:8443", "autoconfig.xn--mller-kva.example",
    "autoconfig.autoconfig.plain.example", "AUTOCONFIG.plain.example", "plain.example.",
    "plain.example:0", "plain.example:65536", "plain.example:65535", "plain.example:080",
    "autoconfig.example.com", "autoconfig.ldap.example", "autoconfig.", "localhost", "7.7.7.7",
    "a.7", "[::1]", "[::1]:80", "xn--a.example", "-x.plain.example", "a..example", "a_b.example",
    "plain.example/..", "a,b", "", "evil.test", "plain.example:", "a" * 64 + ".example",
    ".".join(["a" * 60] * 5), "off.example", "autoconfig.com", "x.wild.example",
]  # fmt: skip
MORE_HEADERS = {
    "range": ["bytes=0-9"],
    "if-range": ['"x"'],
    "if-match": ["*", '"x"'],
    "if-modified-since": ["Thu, 01 Jan 1970 00:00:01 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"],
    "if-unmodified-since": ["Thu, 01 Jan 1970 00:00:01 GMT"],
    "accept-encoding": ["gzip"],
    "accept": ["text/html"],
    "origin": ["https://evil.test"],
    "x-forwarded-host": ["autoconfig.plain.example", "xn--a", "a, autoconfig.example.com", '"'],
}
MORE_ROWS = """
INSERT INTO domain VALUES (20, 'plain.example', 1, NULL), (21, '7.7.7.7', 1, NULL),
  (22, 'a.7', 1, NULL), (23, 'a_b.example', 1, NULL), (24, 'localhost', 1, NULL),
  (25, 'm\N{LATIN SMALL LETTER U WITH DIAERESIS}ller.test', 1, NULL), (26, 'com', 1, NULL);
INSERT INTO server VALUES (20, 10, 'imap.example.com', 993, 'imap', 'SSL', '%EMAILADDRESS%', 'plain'),
  (21, 10, 'smtp.example.com', 465, 'smtp', 'SSL', '%EMAILADDRESS%', 'plain');
INSERT INTO server_domain SELECT server.id, domain.id FROM server, domain
  WHERE server.id IN (20, 21) AND domain.id IN (11, 17, 20, 21, 22, 23, 24, 25, 26);
DELETE FROM server_domain WHERE domain_id IN (11, 17) AND server_id < 20;
"""  # noqa: E501 - rows are easier to compare when each stands on one line


class Ways(NamedTuple):
    """The ports of nginx with published files, and of nginx that asks automx."""

    files: int
    automx: int


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    """Both ways to the same automx."""
    folder = tmp_path_factory.mktemp("ways")
    database = folder / "automx.sqlite"
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}
    automx("db", "upgrade", env=env)
    run([program("sqlite3", "sqlite3"), str(database)], EXAMPLE_ROWS + ROWS + MORE_ROWS)
    automx("publish", str(folder / "published"), env=env)
    with ExitStack() as stack:
        server = stack.enter_context(
            serving({**env, "AUTOMX_PROXY_COUNT": "1"}, folder / "serve.log", "--workers", "1")
        )
        ports = []
        for name, published in (
            ("nginx-published.conf", folder / "published"),
            ("nginx.conf", None),
        ):
            (own := folder / name).mkdir()
            ports.append(stack.enter_context(nginx(name, own, server.port, published)))
        yield Ways(*ports)
        assert "Traceback" not in server.output


def request(
    target: str,
    host: str | None = "autoconfig.plain.example",
    method: str = "GET",
    headers: tuple[tuple[str, str], ...] = (),
    version: str = "1.1",
) -> bytes:
    """Return the bytes of a request that asks to close the connection."""
    lines = [f"{method} {target} HTTP/{version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1", "replace")


def answer(text: bytes) -> tuple[bytes, list[bytes], bytes, bool]:
    """Return status line, headers, body, and whether there is an ETag.

    Date differs by the second. A file has no ETag and no ID of its request; no other header of
    automx's is missing.
    """
    head, _, body = text.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    pairs = [line.partition(b":") for line in lines]
    headers = [name.lower() + colon + value for name, colon, value in pairs]
    has_etag = any(header.startswith(b"etag:") for header in headers)
    own = (b"date:", b"etag:", b"x-request-id:")
    kept = sorted(each for each in headers if not each.startswith(own))
    return status, kept, re.sub(rb'Time="[^"]*" Id="[^"]*"', b"", body), has_etag


def compare(ways: Ways, sent: bytes) -> bool:
    """Compare what both ways answer; return whether a file was the answer."""
    by_file, by_automx = (answer(exchange(port, sent)) for port in ways)
    assert by_file[:3] == by_automx[:3]
    return by_automx[3] and not by_file[3]


@pytest.mark.parametrize(
    "sent",
    [
        request("/mail/config-v1.1.xml"),
        request("/mail/config-v1.1.xml?"),
        request("/mail/config-v1.1.xml?emailaddress=alice@plain.example"),
        request("/mail/config-v1.1.xml?emailaddress=a.b-c_d%40plain.example", "evil.test"),
        request("/.well-known/autoconfig/mail/config-v1.1.xml", "plain.example"),
        request("/.well-known/autoconfig/mail/config-v1.1.xml", "plain.example:443"),
        request("/v1.1/mail/config-v1.1.xml?emailaddress=alice@plain.example"),
        request("/v1.1/plain.example"),
        request("/v1.1/localhost"),
        request("/mail/config-v1.1.xml?emailaddress=alice@localhost"),
        request("/mail/config-v1.1.xml?emailaddress=alice@7.7.7.7"),
        request("/mail/config-v1.1.xml", "autoconfig.xn--mller-kva.example"),
        request(
            "/mail/config-v1.1.xml?emailaddress=alice@xn--mller-kva.example",
            "autoconfig.xn--mller-kva.example",
        ),
        request("/.well-known/user-agent-configuration.json", "ua-auto-config.plain.example"),
        request("/.well-known/user-agent-configuration.json", "ua-auto-config.ldap.example"),
        request("/mail/config-v1.1.xml", headers=(("Range", "bytes=0-9"),)),
        request("/mail/config-v1.1.xml", version="1.0"),
    ],
)
def test_a_usual_request_is_answered_by_a_file(ways: Ways, sent: bytes) -> None:
    assert compare(ways, sent)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("target", PATHS[:4])
def test_each_host_is_answered_as_by_automx(ways: Ways, target: str, host: str) -> None:
    compare(ways, request(target, host))
    compare(ways, request(f"{target}?emailaddress=alice@plain.example", host))


@pytest.mark.parametrize("domain", DOMAINS)
def test_each_address_is_answered_as_by_automx(ways: Ways, domain: str) -> None:
    for at in ("@", "%40"):
        compare(ways, request(f"/mail/config-v1.1.xml?emailaddress=alice{at}{domain}"))


@pytest.mark.parametrize("target", ODD_PATHS)
def test_an_odd_path_is_answered_as_by_automx(ways: Ways, target: str) -> None:
    compare(ways, request(target))
    compare(ways, request(f"{target}?emailaddress=alice@plain.example"))


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "OPTIONS", "get", "PROPFIND", "X"])
def test_another_method_is_answered_as_by_automx(ways: Ways, method: str) -> None:
    for path in PATHS:
        assert not compare(ways, request(path, method=method))


def requests() -> st.SearchStrategy[bytes]:
    addresses = st.builds(
        "{}{}{}".format,
        st.sampled_from(LOCAL_PARTS),
        st.sampled_from(["@", "%40", "@@", "", "%2540"]),
        st.sampled_from(DOMAINS[:4]) | st.sampled_from(DOMAINS),
    )
    queries = st.one_of(
        st.just(""),
        st.sampled_from(DOMAINS[:12]).map("?emailaddress=alice@{}".format),
        addresses.map("?emailaddress={}".format),
        addresses.map("?emailaddress={}&x=1".format),
        st.builds("?emailaddress={0}&emailaddress={0}".format, addresses),
        addresses.map("?Emailaddress={}".format),
        addresses.map("?email%61ddress={}".format),
        st.text(st.characters(codec="latin-1"), max_size=20).map("?{}".format),
    )
    known = HEADERS | MORE_HEADERS
    header = st.sampled_from([*known]).flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from(known[name]))
    )
    whole = st.builds(
        lambda path, query, *others: request(path + query, *others),
        st.sampled_from(PATHS) | st.sampled_from(ODD_PATHS),
        queries,
        st.one_of(st.sampled_from(HOSTS[:6]), st.sampled_from(HOSTS), st.none()),
        st.sampled_from(["GET"] * 9 + ["HEAD", "POST", "get"]),
        st.lists(header, max_size=2).map(tuple),
        st.sampled_from(["1.1", "1.1", "1.1", "1.0"]),
    )
    absolute = st.builds(
        lambda host, path, other: request(f"http://{host}{path}", other),
        st.sampled_from(HOSTS[:6]),
        st.sampled_from(PATHS),
        st.sampled_from(HOSTS[:6]),
    )
    return st.one_of(whole, whole, absolute, mutations(whole))


def mutations(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Requests with other bytes somewhere in their first two lines."""

    def changed(sent: bytes, at: int, length: int, new: bytes) -> bytes:
        lines, closing = sent.split(b"Connection: close")[:2]
        at %= len(lines) - 4  # the last header stays one of its own
        return lines[:at] + new + lines[at + length :] + b"Connection: close" + closing

    new = st.binary(max_size=2) | st.sampled_from(
        [b"%", b".", b"/", b"@", b"%40", b":", b" ", b"+"]
    )
    return st.builds(changed, whole, st.integers(0, 10**6), st.integers(0, 2), new)


def test_files_change_no_answer(ways: Ways) -> None:
    by_files = []

    @settings(
        max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @given(sent=requests())
    @example(request("/mail/config-v1.1.xml?emailaddress=alice@plain.example"))
    def check(sent: bytes) -> None:
        by_files.append(compare(ways, sent))

    check()
    assert 20 < sum(by_files) < len(by_files)  # both ways are tried
