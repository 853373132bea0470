"""The front of ``automx serve``: slow clients, bodies, forms of requests, places for accounts."""

import asyncio
import contextlib
import json
import re
import signal
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import pytest
from flask import Flask

from automx import edge
from automx.accounts import tokens
from automx.database import open_session
from automx.errors import BusyError
from automx.front import account_paths
from automx.places import Places
from automx.rsgi import environment
from tests.conftest import EXAMPLE_ROWS
from tests.documents import autodiscover_error, autodiscover_request, golden, timeless
from tests.processes import (
    Answer,
    Server,
    listening_sockets,
    one_worker,
    serving,
    wait_until,
)
from tests.rsgi import Headers, Request

DOCUMENT = "/mail/config-v1.1.xml?emailaddress=alice@example.com"
HOST = b"Host: example.com\r\n"
CLOSE = b"Connection: close\r\n"
POST = b"POST /autodiscover/autodiscover.xml HTTP/1.1\r\nContent-Type: text/xml\r\n" + HOST
REQUEST = autodiscover_request("alice@example.com").encode()

SLOW, SILENT, QUICK = "slow-token", "silent-token", "quick-token"

# Makes no mailboxes: it takes a second for the token "slow", and does not answer for "silent".
PROGRAM = """\
#!/bin/sh
request=$(cat)
case $request in
*'"create"'*slow*) sleep 1 ;;
*'"create"'*silent*) exec sleep 600 ;;
esac
echo '{"status": "created"}'
"""


def create_database(path: Path, empty: Path) -> str:
    """Make a SQLite file with the example rows and three tokens; return its URI."""
    path.write_bytes(empty.read_bytes())
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(EXAMPLE_ROWS)
    with open_session(f"sqlite:///{path}") as session:
        now = datetime.now(UTC)
        for token in (SLOW, SILENT, QUICK):
            name = token.partition("-")[0]
            tokens.add(session, name, "example.com", now=now, token=token, maxuse=0)
    return f"sqlite:///{path}"


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> dict[str, str]:
    """Settings of a server whose accounts are made by PROGRAM."""
    folder = tmp_path_factory.mktemp("front")
    command = folder / "program"
    command.write_text(PROGRAM)
    command.chmod(0o755)
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": create_database(folder / "automx.sqlite", empty_database),
        "AUTOMX_LOGLEVEL": "INFO",
        "AUTOMX_ACCOUNT_BACKEND": "command",
        "AUTOMX_ACCOUNT_COMMAND": str(command),
        "AUTOMX_ACCOUNT_TIMEOUT": "60",
        "AUTOMX_ACCOUNT_RATE_LIMIT": "",
    }


@pytest.fixture(scope="module")
def server(variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server of one worker, which must not log a traceback."""
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with one_worker(variables, log) as started:
        yield started


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), 30)


def received(connection: socket.socket) -> bytes:
    """Return all that comes until the server closes."""
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    return data


def exchange(server: Server, request: bytes) -> bytes:
    """Send bytes as they are; return all that comes until the server closes."""
    with connect(server) as connection:
        connection.sendall(request)
        return received(connection)


def parsed(data: bytes) -> Answer:
    head, _, body = data.decode().partition("\r\n\r\n")
    line, *lines = head.split("\r\n")
    return Answer(int(line.split()[1]), dict(text.split(": ", 1) for text in lines), body)


def get(server: Server, path: str) -> Answer:
    return parsed(exchange(server, f"GET {path} HTTP/1.1\r\n".encode() + HOST + CLOSE + b"\r\n"))


# Slow clients and large bodies


@contextlib.contextmanager
def dripping(connections: list[socket.socket]) -> Iterator[None]:
    """Send a byte on each connection now and then."""
    end = threading.Event()

    def drip() -> None:
        while not end.wait(0.5):
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.send(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def test_two_hundred_dripping_bodies_keep_nobody_waiting_and_get_408(server: Server) -> None:
    head = POST + b"Content-Length: 1000\r\n\r\n"
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(server)) for _ in range(200)]
        for connection in slow:
            connection.sendall(head)
        with dripping(slow):
            start = time.monotonic()
            assert get(server, "/healthz").body == "ok\n"
            assert get(server, DOCUMENT).body == golden("example-alice.autoconfig.xml")
            assert time.monotonic() - start < 4  # of the 5 s that a body may take
            answers = [parsed(received(connection)) for connection in slow]
    expected = autodiscover_error(600, "The request took too long.")
    assert Counter((answer.status, timeless(answer.body)) for answer in answers) == {
        (408, expected): 200
    }
    assert {answer.headers["connection"] for answer in answers} == {"close"}


def test_a_slow_phone_reads_its_reason_in_json(server: Server) -> None:
    request = f"POST /?t={QUICK} HTTP/1.1\r\nContent-Length: 9\r\n".encode() + HOST + b"\r\nx"
    answer = parsed(exchange(server, request))
    assert json.loads(answer.body) == {
        "type": "error",
        "status_code": 408,
        "reason": "This request came too slowly. Please check your connection and try again.",
    }


@pytest.mark.parametrize("size", [70_000, 1_000_000, 5_000_000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_over_the_limit_is_refused_while_it_is_sent(
    server: Server, size: int, is_chunked: bool
) -> None:
    length = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % size
    first = b"%x\r\n" % size if is_chunked else b""
    with connect(server) as connection:
        connection.sendall(POST + length + b"\r\n\r\n" + first)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(b"x" * size)  # only after that does it read
        answer = parsed(received(connection))
    assert answer.status == 413
    assert timeless(answer.body) == autodiscover_error(600, "The request is too large.")


def test_a_client_that_waits_for_a_word_to_send_a_large_body_is_refused(server: Server) -> None:
    head = POST + b"Expect: 100-continue\r\nContent-Length: 70000\r\n\r\n"
    assert exchange(server, head).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_waits_for_a_word_to_send_its_body_gets_it(server: Server) -> None:
    with connect(server) as connection:
        head = b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(REQUEST)
        connection.sendall(POST + CLOSE + head)
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(REQUEST)
        assert parsed(received(connection)).body == golden("example-alice.autodiscover.xml")


def test_a_seed_document_of_a_stranger_is_not_read(server: Server) -> None:
    head = b"POST /initdb/ HTTP/1.1\r\nVia: 1.1 proxy\r\nContent-Type: application/json\r\n"
    answer = parsed(exchange(server, head + HOST + b"Content-Length: 200000000\r\n\r\n[1"))
    assert answer.status == 403


# Forms of requests


def test_requests_in_a_row_are_answered_in_a_row(server: Server) -> None:
    line = b"GET /healthz HTTP/1.1\r\n" + HOST
    post = POST + b"Content-Length: %d\r\n\r\n%s" % (len(REQUEST), REQUEST)
    data = exchange(server, line + b"\r\n" + post + line + CLOSE + b"\r\n").decode()
    assert re.findall(r"HTTP/1\.1 \d+|^ok|</Autodiscover>", data, re.MULTILINE) == [
        "HTTP/1.1 200", "ok", "HTTP/1.1 200", "</Autodiscover>", "HTTP/1.1 200", "ok",
    ]  # fmt: skip


BROKEN = {
    "a length without a body": POST + b"Content-Length: 5\r\n\r\n",
    "half a body": POST + b"Content-Length: 5\r\n\r\nab",
    "half a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    "a chunk of no size": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n",
    "no last chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("is_half_closed", [False, True])
def test_a_client_that_breaks_off_is_no_bug(
    server: Server, name: str, is_half_closed: bool
) -> None:
    before = len(server.output)
    with connect(server) as connection:
        connection.sendall(BROKEN[name])
        if is_half_closed:
            connection.shutdown(socket.SHUT_WR)
            assert parsed(received(connection)).status == 400
    line = "400: The request cannot be understood. (the body breaks off)"
    wait_until(lambda: line in server.output[before:], "writing the line")


def test_a_client_that_goes_while_it_is_answered_is_no_bug(server: Server) -> None:
    before = len(server.output)
    with connect(server) as connection:
        connection.sendall(f"POST /?t={SLOW} HTTP/1.1\r\n".encode() + HOST + b"\r\n")
        get(server, "/healthz")  # the first request is read when the second one is answered
    wait_until(lambda: "POST / 200" in server.output[before:], "making the account")
    assert get(server, "/healthz").body == "ok\n"


SAME = {
    "a document": ("GET", "/mail/config-v1.1.xml", {}, b""),
    "a document for one": ("GET", DOCUMENT, {}, b""),
    "its head": ("HEAD", "/mail/config-v1.1.xml", {}, b""),
    "a document that is known": (
        "GET", "/mail/config-v1.1.xml", {"If-None-Match": '"1", "2"'}, b"",
    ),
    "a page": ("GET", "/", {"Accept-Language": "de"}, b""),
    "a profile": ("GET", "/mobileconfig?emailaddress=alice@example.com", {}, b""),
    "a form": (
        "POST", "/mobileconfig", {"Content-Type": "application/x-www-form-urlencoded"},
        b"emailaddress=alice%40example.com",
    ),
    "Autodiscover": ("POST", "/autodiscover/autodiscover.xml", {}, REQUEST),
    "health": ("GET", "/healthz", {}, b""),
    "the head of health": ("HEAD", "/healthz", {}, b""),
    "readiness": ("GET", "/readyz", {}, b""),
    "methods": ("OPTIONS", "/healthz", {}, b""),
    "a wrong method": ("DELETE", "/healthz", {}, b""),
    "a redirect": ("GET", "/.well-known/caldav", {}, b""),
    "letters that are not ASCII": ("GET", "/%C3%A9/%ff%fe?%C3%A9", {}, b""),
    "a cookie": ("GET", "/healthz", {"Cookie": "a=b"}, b""),
    "an unknown domain": ("GET", DOCUMENT.replace("example.com", "nowhere.example"), {}, b""),
    "a token": ("GET", f"/?t={QUICK}", {}, b""),
    "an unknown token": ("POST", "/?t=unknown", {}, b""),
    "a seed of a stranger": ("POST", "/initdb/", {"Via": "x"}, b"[]"),
}  # fmt: skip


def comparable(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return headers without what is another one for each answer, process or server."""
    sorted_words = ((key, ", ".join(sorted(value.split(", ")))) for key, value in headers)
    lines = [(key.lower(), value) for key, value in sorted_words]
    return [(key, value) for key, value in lines if key not in {"server", "date", "x-request-id"}]


@pytest.mark.parametrize("name", SAME)
def test_an_answer_is_that_of_the_application(
    server: Server, variables: dict[str, str], make_app: Callable[..., Flask], name: str
) -> None:
    method, path, headers, body = SAME[name]
    client = make_app(
        db_uri=variables["AUTOMX_DB_URI"], account_backend="command", domain_cache_seconds=10
    ).test_client()
    expected = client.open(
        path, method=method, headers=headers | {"Host": "example.com"}, data=body
    )
    with contextlib.closing(HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request(method, path, body or None, headers | {"Host": "example.com"})
        answer = connection.getresponse()
        found = answer.read()
    assert comparable(answer.getheaders()) == comparable(expected.headers.items())
    assert answer.status == expected.status_code
    assert timeless(found.decode()) == timeless(expected.text)


ODD = Request("/é", "é=%C3", server="[::1]:4243", client="[2001:db8::1]:5001")


def test_an_environment_is_that_of_pep_3333() -> None:
    found = environment(ODD)
    assert {key: found[key] for key in found if not key.startswith(("wsgi.", "automx."))} == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/Ã©",
        "QUERY_STRING": "Ã©=%C3",
        "SERVER_NAME": "::1",
        "SERVER_PORT": "4243",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "2001:db8::1",
        "HTTP_HOST": "",
    }


@pytest.mark.parametrize("path", ["/", "/new_email", "/a b", "/A/", "/konto-für-alle", "/新/x"])
def test_every_path_of_the_settings_has_the_threads_of_accounts(path: str) -> None:
    asked = environment(replace(ODD, path=path))["PATH_INFO"]
    for endpoint in (path, quote(path)):
        assert asked.rstrip("/") in account_paths(f"https://mail.example.com{endpoint}")


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("content-type", "a"), ("content-length", "1")],
         {"CONTENT_TYPE": "a", "CONTENT_LENGTH": "1"}),
        ([("x-a", "1"), ("x-b", "2"), ("x-a", "3")], {"HTTP_X_A": "1,3", "HTTP_X_B": "2"}),
        ([("cookie", "a=1"), ("cookie", "b=2")], {"HTTP_COOKIE": "a=1;b=2"}),
        ([("x_forwarded_for", "192.0.2.1")], {}),
        ([("x-forwarded-for", "192.0.2.1"), ("x_forwarded_for", "192.0.2.2")],
         {"HTTP_X_FORWARDED_FOR": "192.0.2.1"}),
        ([("x-forwarded-for", None)], {"HTTP_X_FORWARDED_FOR": ""}),
        ([("x_y", None), ("host", "a"), ("host", "b")], {"HTTP_HOST": "a,b"}),
    ],
)  # fmt: skip
def test_a_header_has_one_variable(
    pairs: list[tuple[str, str | None]], expected: dict[str, str]
) -> None:
    found = environment(replace(ODD, headers=Headers(pairs)))
    own = {key: found[key] for key in ("wsgi.input", edge.BEGAN)}
    assert found == environment(ODD) | expected | own


def test_the_host_of_a_target_takes_the_place_of_the_header() -> None:
    headers = Headers([("host", "example.org")])
    scope = replace(ODD, headers=headers, authority="user@example.com:8080")
    assert environment(scope)["HTTP_HOST"] == "example.com:8080"


# Places for accounts


def scan(server: Server, token: str) -> Answer:
    """Ask for an account as Delta Chat does."""
    request = f"POST /new_email?t={token} HTTP/1.1\r\n".encode() + HOST + CLOSE
    return parsed(exchange(server, request + b"Content-Length: 0\r\n\r\n"))


def test_twenty_phones_at_one_poster_get_their_accounts(server: Server) -> None:
    with ThreadPoolExecutor(20) as phones:
        answers = list(phones.map(lambda _: scan(server, SLOW), range(20)))
    assert Counter(answer.status for answer in answers) == {200: 20}
    assert len({json.loads(answer.body)["email"] for answer in answers}) == 20


def test_a_silent_backend_of_one_token_stops_nothing_else_and_not_the_end(
    variables: dict[str, str], tmp_path: Path
) -> None:
    with (
        serving(variables, tmp_path / "log", "--workers", "1") as server,
        ThreadPoolExecutor(40) as phones,
    ):
        waiting = [phones.submit(scan, server, SILENT) for _ in range(40)]
        assert [scan(server, QUICK).status for _ in range(9)] == [200] * 9
        assert get(server, "/healthz").body == "ok\n"
        assert get(server, DOCUMENT).body == golden("example-alice.autoconfig.xml")
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        assert time.monotonic() - start < 10
        answers = [one.result() for one in waiting]
        output = server.output
    busy = "The server is busy at the moment. Please try again in a minute."
    silent = "The mail server did not answer in time. Please try again later."
    found = Counter((one.status, json.loads(one.body)["reason"]) for one in answers)
    assert found == {(503, busy): 32, (504, silent): 8}
    assert {one.headers["retry-after"] for one in answers if one.status == 503} == {"10"}
    assert "Traceback" not in output


def test_a_key_has_its_share_and_the_others_wait_in_turn() -> None:
    async def run() -> list[str]:
        places = Places(4, share=2, waiting=10, seconds=30)
        order: list[str] = []
        full = asyncio.Event()

        async def work(name: str) -> None:
            async with places.place(name[0]):
                order.append(name)
                await full.wait()

        names = ("a1", "a2", "a3", "a4", "b1", "c1", "b2")
        tasks = [asyncio.ensure_future(work(name)) for name in names]
        await asyncio.sleep(0)
        assert order == ["a1", "a2", "b1", "c1"]
        full.set()
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(run()) == ["a1", "a2", "b1", "c1", "a3", "a4", "b2"]


def test_who_waits_too_long_or_is_one_too_many_is_refused() -> None:
    async def run() -> None:
        places = Places(2, share=1, waiting=4, seconds=0.05)
        async with places.place("a"):
            waiting = [asyncio.ensure_future(places.take("a", None)) for _ in range(3)]
            await asyncio.sleep(0)
            assert [one.done() for one in waiting] == [False, False, True]  # half of them for "a"
            async with places.place("b"):
                pass
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(result) for result in results] == [BusyError] * 3
        async with places.place("a"):
            pass

    asyncio.run(run())


def test_a_place_is_not_kept_for_a_client_that_has_gone() -> None:
    async def run() -> None:
        places = Places(1, share=1, waiting=4, seconds=30)
        leaves = asyncio.Event()

        async def gone() -> None:
            await leaves.wait()

        async with places.place("a"):
            first = asyncio.ensure_future(places.take("a", gone))
            second = asyncio.ensure_future(places.take("a", None))
            await asyncio.sleep(0)
            leaves.set()
            with pytest.raises(BusyError):
                await first
        await second

    asyncio.run(run())


# The end


class Client(threading.Thread):
    """Asks again and again on one connection; counts whole answers, and those that are cut."""

    def __init__(self, server: Server, request: bytes) -> None:
        super().__init__()
        self._server = server
        self._request = request
        self.whole = self.cut = 0

    def run(self) -> None:
        """Ask until the server takes no connection."""
        with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):
            while True:
                with connect(self._server) as connection:
                    self._ask(connection)

    def _ask(self, connection: socket.socket) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while True:
                connection.sendall(self._request)
                data = b""
                while not (is_whole := self._is_whole(data)) and (chunk := connection.recv(65536)):
                    data += chunk
                self.whole += is_whole
                self.cut += bool(data) and not is_whole
                if not is_whole:  # the request came when the server was closing
                    return

    @staticmethod
    def _is_whole(data: bytes) -> bool:
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        return length is not None and len(body) == int(length[1])


@pytest.mark.alone
def test_sigterm_cuts_no_request_that_was_read(variables: dict[str, str], tmp_path: Path) -> None:
    requests = [
        f"GET {DOCUMENT} HTTP/1.1\r\n".encode() + HOST + b"\r\n",
        POST + b"Content-Length: %d\r\n\r\n%s" % (len(REQUEST), REQUEST),
    ]
    with serving(variables, tmp_path / "log", "--workers", "2") as server:
        wait_until(lambda: listening_sockets(server.port) == 2, "starting two workers")
        clients = [Client(server, requests[number % 2]) for number in range(40)]
        for client in clients:
            client.start()
        wait_until(lambda: sum(client.whole for client in clients) > 3_000, "the load")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        for client in clients:
            client.join(30)
        read = server.output.count(" INFO automx.access: ")
    assert sum(client.cut for client in clients) == 0
    assert sum(client.whole for client in clients) == read
