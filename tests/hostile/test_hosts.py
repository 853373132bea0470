"""Every route at every host that a stranger may claim, in Host and in the headers of a proxy."""

import re
from collections.abc import Callable, Iterator, Sequence

import pytest

from automx import config, create_app
from tests.hostile.requests import faults
from tests.hostile.target import TOKEN, Target
from tests.hostile.wire import Answer, Connection
from tests.test_edge import routes

# Arguments with which each route has the most to say.
QUERY = (
    "emailaddress=alice@example.com&email=alice@example.com&address=alice@example.com"
    f"&protocol=autodiscoverv1&domain=example.com&t={TOKEN}"
)
BATCH = 20  # requests that are sent before their answers are read

Header = tuple[bytes, bytes]
Ask = Callable[[Sequence[Header]], list[tuple[str, Answer]]]


@pytest.fixture(scope="module")
def asked() -> list[tuple[str, str]]:
    """Methods and paths of all routes, without arguments and with them.

    HEAD and OPTIONS have no code of their own.
    """
    app = create_app(config.make(db_uri="sqlite://"))
    found = sorted(each for each in set(routes(app)) if each[0] not in {"HEAD", "OPTIONS"})
    assert len(found) > 25
    return [*found, *((method, f"{path}?{QUERY}") for method, path in found)]


@pytest.fixture
def ask(server: Target, asked: list[tuple[str, str]]) -> Iterator[Ask]:
    """Ask at every route with some headers; return the answers, and what was asked."""
    yield from asking(server, asked)


@pytest.fixture
def ask_with_arguments(server: Target, asked: list[tuple[str, str]]) -> Iterator[Ask]:
    """Likewise, at every route with arguments only: without them, some refuse anything."""
    yield from asking(server, [each for each in asked if QUERY in each[1]])


def asking(server: Target, asked: Sequence[tuple[str, str]]) -> Iterator[Ask]:
    before = len(server.output)

    def every(headers: Sequence[Header]) -> list[tuple[str, Answer]]:
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        messages = [
            (method, b"%s %s HTTP/1.1\r\n%s\r\n" % (method.encode(), target.encode(), lines))
            for method, target in asked
        ]
        found = answers(server.port, messages)
        places = [f"{method} {target} {headers}" for method, target in asked]
        return list(zip(places, found, strict=True))

    yield every
    assert not server.faults(before)


def answers(port: int, messages: Sequence[tuple[str, bytes]]) -> list[Answer]:
    """Return the answers to messages, which follow each other as long as the server lets them."""
    found: list[Answer] = []
    while len(found) < len(messages):
        with Connection(port) as connection:
            is_open = True
            while is_open and len(found) < len(messages):
                batch = messages[len(found) : len(found) + BATCH]
                connection.send(b"".join(message for _, message in batch))
                for method, _ in batch:
                    answer = connection.answer(method)
                    assert answer is not None
                    found.append(answer)
                    if answer.is_last:
                        is_open = False
                        break
    return found


def assert_harmless(where: str, answer: Answer, claimed: bytes = b"") -> None:
    """Check that an answer is no bug, and that no URL in it leads to a host that was claimed."""
    assert not list(faults(answer)), where
    if answer.headers.get("location"):
        assert answer.headers["cache-control"] == "no-store", where
    if claimed:
        assert claimed not in answer.body, where


def assert_refused(where: str, answer: Answer) -> None:
    """Check that an answer is 400 with one line, in the form of its protocol."""
    assert answer.status == 400, where
    assert "location" not in answer.headers, where
    if answer.headers.get("content-type", "").startswith("text/plain"):
        assert re.fullmatch(rb"(?:The [a-z ]+ is not [a-z ]+\.\n)?", answer.body), where


GOOD = [
    *("example.com", "EXAMPLE.com.", "autoconfig.example.com:65535", "xn--mller-kva.example:1"),
    *("unknown.example", "evil.test:81", "a_b.evil.test", "127.0.0.1:80", "[::1]:4243", "b"),
]
# Of each kind one or two: tests/test_edge.py knows more of them.
MALFORMED = [
    *("xn--", "xn--a", "[::ffff:127.0.01]", "[1:2:3:4:5:6:7:8:9]", "[::1", "127.0.01"),
    *("evil.test:+80", "evil.test:99999", "evil.test: 80", "user@evil.test", "evil..test"),
    *("...", "evil test", "evil.test/x", "http://evil.test", "evil%2etest", "<b>evil.test</b>"),
    *('"evil.test"', "evil" * 1_250),
]
# Each kind once, for headers that are read by the same code.
FEW = [*GOOD[::4], *MALFORMED[::4]]


@pytest.mark.parametrize("host", GOOD)
def test_no_route_fails_at_a_host_or_leads_to_it(ask: Ask, host: str) -> None:
    for where, answer in ask([(b"Host", host.encode())]):
        assert_harmless(where, answer)
        assert answer.status in {200, 301, 302, 400, 403, 404, 405, 409}, where


@pytest.mark.parametrize("host", MALFORMED)
def test_every_route_refuses_a_malformed_host(ask_with_arguments: Ask, host: str) -> None:
    for where, answer in ask_with_arguments([(b"Host", host.encode())]):
        assert_harmless(where, answer, b"evil")
        assert_refused(where, answer)


@pytest.mark.parametrize("host", FEW)
def test_a_host_in_the_header_of_a_proxy_is_no_better(ask: Ask, host: str) -> None:
    for where, answer in ask([(b"Host", b"example.com"), (b"X-Forwarded-Host", host.encode())]):
        assert_harmless(where, answer, b"evil" if host in MALFORMED else b"")
        if host in MALFORMED:
            assert_refused(where, answer)


HOSTLESS: dict[str, list[Header]] = {
    "none": [],
    "empty": [(b"Host", b"")],
    "not ASCII": [(b"Host", "évil.test".encode())],
    "no encoding": [(b"Host", b"\xffevil.test")],
    "of a header with an underscore": [(b"X_Forwarded_Host", b"evil.test")],
}


@pytest.mark.parametrize("name", HOSTLESS)
def test_no_route_fails_without_a_host_that_can_be_read(ask: Ask, name: str) -> None:
    for where, answer in ask(HOSTLESS[name]):
        assert_harmless(where, answer, b"evil")


REFUSED: dict[str, list[Header]] = {
    "two hosts": [(b"Host", b"evil.test"), (b"Host", b"evil.test")],
    "a host with a control character": [(b"Host", b"evil\x1b.test")],
    "a host with a NUL": [(b"Host", b"evil.test\0")],
    "a list of hosts": [(b"Host", b"evil.test, example.com")],
    "another scheme": [(b"X-Forwarded-Proto", b"javascript")],
    "a list of schemes": [(b"X-Forwarded-Proto", b"https, evil")],
    "a prefix that is a host": [(b"X-Forwarded-Prefix", b"//evil.test")],
    "a prefix that is a URL": [(b"X-Forwarded-Prefix", b"https://evil.test")],
    "a prefix with dots": [(b"X-Forwarded-Prefix", b"/evil/..")],
    "a prefix with markup": [(b"X-Forwarded-Prefix", b'/"><b>evil')],
    "a prefix with an encoded line break": [(b"X-Forwarded-Prefix", b"/evil%0d%0a")],
}


@pytest.mark.parametrize("name", REFUSED)
def test_every_route_refuses_what_no_proxy_of_ours_says(ask_with_arguments: Ask, name: str) -> None:
    for where, answer in ask_with_arguments([*REFUSED[name], (b"X-Forwarded-For", b"192.0.2.1")]):
        assert_harmless(where, answer, b"evil")
        assert_refused(where, answer)


HARMLESS: dict[str, list[Header]] = {
    "no address": [(b"X-Forwarded-For", b"evil, <b>, \"192.0.2.1, ::1%" + b"z" * 500)],
    "many addresses": [(b"X-Forwarded-For", b"192.0.2.1, " * 1_000)],
    "addresses in many headers": [(b"X-Forwarded-For", b"evil")] * 50,
    "nothing": [(b"X-Forwarded-For", b""), (b"X-Forwarded-Host", b""), (b"X-Forwarded-Proto", b""),
                (b"X-Forwarded-Prefix", b"")],
    "commas": [(b"X-Forwarded-Host", b",,"), (b"X-Forwarded-Proto", b","),
               (b"X-Forwarded-Prefix", b",")],
    "not ASCII": [(b"X-Forwarded-Host", b"\xff"), (b"X-Forwarded-Proto", b"\xff"),
                  (b"X-Forwarded-Prefix", b"/\xff"), (b"X-Forwarded-For", b"\xff")],
    "another header for the same": [(b"Forwarded", b"for=evil;host=evil.test;proto=evil")],
    "a host before that of our proxy": [(b"X-Forwarded-Host", b"evil.test, example.com")],
    "a scheme in capitals": [(b"X-Forwarded-Proto", b"HTTPS")],
    "a prefix": [(b"X-Forwarded-Prefix", b"/a.b/~c/")],
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_no_route_fails_at_what_proxies_say(ask: Ask, name: str) -> None:
    for where, answer in ask([(b"Host", b"example.com"), *HARMLESS[name]]):
        assert_harmless(where, answer, b"evil")
        assert answer.status in {200, 301, 302, 400, 403, 404, 405}, where
