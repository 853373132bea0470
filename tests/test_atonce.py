"""Answers from memory by the thread of granian that has the request, without the event loop."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread

import pytest
from flask import Flask

from automx.front import make_front
from tests.conftest import EXAMPLE_ROWS, Execute
from tests.documents import autodiscover_request
from tests.processes import Server, one_worker
from tests.rsgi import Headers, Request

DOCUMENT = "/mail/config-v1.1.xml?emailaddress=alice@example.com"
HOST = {"Host": "example.com"}

# Python runs it at its start. Answers of the event loop, and of those that it asks, have a mark:
# how many other requests are on their way to it.
MARKING = """\
from automx.front import Front

class Marking:
    def __init__(self, exchange, front): self.exchange, self.front = exchange, front
    def __call__(self): return self.exchange()
    def __aiter__(self): return aiter(self.exchange)
    def client_disconnect(self): return self.exchange.client_disconnect()
    def response_bytes(self, status, headers, body):
        mark = ("X-Event-Loop", str(len(self.front._asked)))
        self.exchange.response_bytes(status, [*headers, mark], body)

def marking(answer):
    async def __rsgi__(self, scope, exchange): await answer(self, scope, Marking(exchange, self))
    return __rsgi__

Front.__rsgi__ = marking(Front.__rsgi__)
"""


@pytest.fixture
def server(database: Path, example: None, tmp_path: Path) -> Iterator[Server]:
    """A server of one worker that remembers nothing yet, whose event loop marks its answers."""
    (tmp_path / "sitecustomize.py").write_text(MARKING)
    env = {
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "AUTOMX_LOGLEVEL": "INFO",
        "PYTHONPATH": str(tmp_path),
    }
    with one_worker(env, tmp_path / "serve.log") as started:
        yield started


@contextlib.contextmanager
def connected(server: Server) -> Iterator[HTTPConnection]:
    with contextlib.closing(HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        yield connection


Answer = tuple[int, bytes, bool]  # status, body, whether it is of the event loop


def ask(connection: HTTPConnection, path: str, body: str | None = None, **headers: str) -> Answer:
    method = "GET" if body is None else "POST"
    connection.request(method, path, body, {**HOST, **headers})
    answer = connection.getresponse()
    mark = answer.headers.get("X-Event-Loop")
    assert mark in {None, "0"}
    return answer.status, answer.read(), mark is not None


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (DOCUMENT, 200),
        ("/mail/config-v1.1.xml", 200),
        ("/autodiscover/autodiscover.xml", 200),
        ("/mobileconfig?emailaddress=alice@example.com", 200),
        ("/.well-known/caldav", 301),
        ("/mail/config-v1.1.xml?emailaddress=alice@unknown.example", 404),
    ],
)
def test_what_is_remembered_is_answered_without_the_event_loop(
    server: Server, path: str, status: int
) -> None:
    with connected(server) as connection:
        first = ask(connection, path)
        again = [ask(connection, path) for _ in range(3)]
    assert first[::2] == (status, True)
    assert again == [(status, first[1], False)] * 3
    assert server.output.count(" INFO automx.access: ") == 4


def test_what_is_unusual_is_left_to_the_event_loop(server: Server) -> None:
    request = autodiscover_request("alice@example.com")
    with connected(server) as connection:
        document = ask(connection, DOCUMENT)[1]
        assert ask(connection, DOCUMENT) == (200, document, False)
        assert ask(connection, DOCUMENT, **{"If-None-Match": '"x"'}) == (200, document, True)
        for _ in range(2):
            status, _, is_marked = ask(connection, "/autodiscover/autodiscover.xml", request)
            assert (status, is_marked) == (200, True)
        assert ask(connection, "/healthz") == (200, b"ok\n", True)
        assert ask(connection, DOCUMENT) == (200, document, False)


def test_a_fault_is_left_to_the_event_loop_which_tells_it(
    make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    front = make_front(make_app())

    def fail(_: object) -> None:
        raise RuntimeError("a bug")

    assert front.quick is not None
    monkeypatch.setattr(front.quick, "asked", fail)
    request = Request("/mail/config-v1.1.xml", headers=Headers([("host", "example.com")]))
    assert not front.answers_at_once(request, request)
    assert request.answer == (0, [], b"")
    told = replace(request)
    asyncio.run(front.__rsgi__(told, told))
    assert told.answer[0] == 500


def test_answers_of_two_threads_are_all_counted(
    make_app: Callable[..., Flask], execute: Execute, database: Path
) -> None:
    execute(EXAMPLE_ROWS)
    values = {"db_uri": f"sqlite:///{database}", "domain_cache_seconds": 3600}
    front = make_front(make_app(**values, metrics_listen="127.0.0.1:1"))
    assert front.quick is not None
    assert front.counts is not None
    request = Request("/mail/config-v1.1.xml", headers=Headers([("host", "example.com")]))
    assert not front.answers_at_once(request, request)  # nothing is remembered
    asked = front.quick.asked(request)
    assert asked is not None
    front.quick.found(asked)
    with threads_in_turn():
        answer = partial(front.answers_at_once, request, request)
        threads = [Thread(target=lambda: [answer() for _ in range(2_000)]) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    at_once = [
        (*labels, sum(entry[1:]))
        for *labels, entry in front.counts.document()["requests"]
        if "front" in labels
    ]
    assert at_once == [("autoconfig", "delta_chat", 200, "front", 4_000)]
    hits = [value for _, labels, value in front.counts.gauges[0]() if labels == ("hit",)]
    assert hits == [4_000]


@contextlib.contextmanager
def threads_in_turn() -> Iterator[None]:
    """Let Python change threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
