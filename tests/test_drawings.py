"""QR codes of pages: remembered, and never so many at once that other requests wait."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import pytest
from flask import Flask
from flask.testing import FlaskClient

from automx.database import open_session
from automx.errors import BadRequestError, UnavailableError
from automx.formats import qr
from automx.views import drawings
from automx.views.drawings import Drawings
from tests.processes import wait_until
from tests.tokens import add


class Pen:
    """Draws when it may, and counts the drawings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_draw = threading.Event()
        self.texts: list[str] = []
        self._svg = qr.svg
        monkeypatch.setattr(qr, "svg", self.svg)

    def svg(self, text: str, *, title: str) -> str:
        self.texts.append(text)
        assert self.may_draw.wait(60)
        return self._svg(text, title=title)


@pytest.fixture
def pen(monkeypatch: pytest.MonkeyPatch) -> Pen:
    return Pen(monkeypatch)


def test_a_code_is_drawn_once(pen: Pen) -> None:
    pen.may_draw.set()
    drawn = Drawings()
    first = drawn.svg("https://example.com/", title="Code")
    assert first == drawn.svg("https://example.com/", title="Code")
    assert drawn.svg("https://example.com/", title="QR-Code") != first
    assert len(pen.texts) == 2


def test_a_code_that_many_ask_for_at_once_is_drawn_once(pen: Pen) -> None:
    drawn = Drawings()
    with ThreadPoolExecutor(drawings.PLACES) as pool:
        asked = [pool.submit(drawn.svg, "text", title="t") for _ in range(drawings.PLACES)]
        wait_until(lambda: pen.texts != [], "the first drawing")
        pen.may_draw.set()
        assert len({each.result(60) for each in asked}) == 1
    assert pen.texts == ["text"]


def test_the_number_and_the_bytes_of_remembered_codes_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for length in (10, 40_000):
        monkeypatch.setattr(qr, "svg", lambda text, title, n=length: f"{text}{title}".ljust(n))
        drawn = Drawings()
        for number in range(10_000):
            drawn.svg(str(number), title="t")
        kept = list(drawn._drawn.values())
        assert sum(map(len, kept)) <= drawings.MEMORY
        assert len(kept) == drawings.MEMORY // max(length, drawings.LEAST)
        assert kept[-1].startswith("9999")


def test_a_code_that_cannot_be_drawn_leaves_no_trace() -> None:
    drawn = Drawings()
    for _ in range(2 * drawings.PLACES):
        with pytest.raises(BadRequestError):
            drawn.svg("x" * 5_000, title="t")
    assert drawn.svg("x", title="t")


def test_few_threads_wait_for_a_drawing(pen: Pen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawings, "WAIT_SECONDS", 60.0)
    drawn = Drawings()
    with ThreadPoolExecutor(100) as pool:
        asked = [pool.submit(drawn.svg, str(number), title="t") for number in range(100)]
        busy = 100 - drawings.PLACES
        wait_until(lambda: sum(each.done() for each in asked) == busy, "the answers to most")
        assert len(pen.texts) == 1
        pen.may_draw.set()
        errors = [each.exception(60) for each in asked]
    assert sum(error is None for error in errors) == drawings.PLACES
    assert {type(error) for error in errors if error} == {UnavailableError}


def test_nobody_waits_long_for_a_drawing(pen: Pen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawings, "WAIT_SECONDS", 0.01)
    drawn = Drawings()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(drawn.svg, "first", title="t")
        wait_until(lambda: pen.texts != [], "the first drawing")
        with pytest.raises(UnavailableError) as busy:
            drawn.svg("second", title="t")
        assert type(busy.value) is UnavailableError
        pen.may_draw.set()
        assert ElementTree.fromstring(first.result(60)).tag.endswith("svg")


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("page", ["profile", "token"])
def test_pages_with_codes_leave_threads_for_others(
    make_app: Callable[..., Flask],
    database: Path,
    pen: Pen,
    monkeypatch: pytest.MonkeyPatch,
    page: str,
) -> None:
    """A stranger asks for the codes of many addresses."""
    monkeypatch.setattr(drawings, "WAIT_SECONDS", 60.0)
    app = make_app(web_endpoint="https://mail.example.com/new_email", account_rate_limit="")

    def ask(number: int) -> int:
        client: FlaskClient = app.test_client()
        path = f"/mobileconfig.svg?emailaddress=a{number}@example.com"
        if page == "token":
            path = f"/?t={tokens[number]}"
        return client.get(path).status_code

    number = drawings.PLACES + 4
    tokens = [f"token{n}" for n in range(number)]
    with open_session(f"sqlite:///{database}") as session:
        for token in tokens:
            add(session, token, token=token)
    with ThreadPoolExecutor(number) as pool:
        asked = [pool.submit(ask, each) for each in range(number)]
        wait_until(lambda: sum(each.done() for each in asked) == 4, "the answers beyond")
        answer = app.test_client().get("/mail/config-v1.1.xml?emailaddress=a@example.com")
        assert answer.status_code == 200
        pen.may_draw.set()
        statuses = sorted(each.result(60) for each in asked)
    assert statuses == [200] * drawings.PLACES + [503] * 4


def test_a_local_part_has_64_octets_at_most(client: FlaskClient, example: None) -> None:
    """RFC 5321, section 4.5.3.1.1: else a code would be large, and slow to draw."""
    for local_part, status in (("a" * 64, 200), ("a" * 65, 400), ("ü" * 32, 200), ("ü" * 33, 400)):
        address = f"{local_part}@example.com"
        for path in ("/mobileconfig.svg", "/mobileconfig/", "/mail/config-v1.1.xml"):
            answer = client.get(path, query_string={"emailaddress": address})
            assert answer.status_code == status
