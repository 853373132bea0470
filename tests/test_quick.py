"""Answers without Flask: each is what the views would answer, and so is its line in the log."""

import asyncio
import gc
import json
import logging
import sqlite3
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from flask import Flask
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from werkzeug.test import run_wsgi_app

from automx import edge
from automx.counts import Counts
from automx.directory.database import PeopleDatabase
from automx.directory.pool import Directories
from automx.front import Front, make_front
from automx.log import JsonFormatter, TextFormatter
from automx.quick import _LONGEST, _READ, Asked, Quick, Sent, _address_in, _where
from automx.rsgi import environment
from automx.views.http import PARTS
from automx.wsgi import make_application
from tests.conftest import EXAMPLE_ROWS, Execute
from tests.directory import Directory, insert_ldapserver
from tests.documents import timeless
from tests.people import source
from tests.rsgi import Headers, Request

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# Beside example.com: a directory, user names of parts of the address, no outgoing server, off,
# a service at its own path, PACC documents that are stored, one of them as a text.
ROWS = """
INSERT INTO ldapserver (id, name, port, use_ssl, search_base, search_filter, attr_uid)
  VALUES (1, '127.0.0.1', 1, 0, 'dc=example', '(mail={0})', 'uid');
INSERT INTO server VALUES (11, 10, 'imap.example.com', 993, 'imap', 'SSL', '%EMAILLOCALPART%', 'plain'),
  (12, 10, 'smtp.%EMAILDOMAIN%', 465, 'smtp', 'SSL', '%EMAILADDRESS%', 'plain');
INSERT INTO domain VALUES (11, 'ldap.example', 1, 1), (12, 'parts.example', 1, NULL),
  (13, 'half.example', 1, NULL), (14, 'off.example', 1, NULL), (15, '*.wild.example', 1, NULL),
  (16, 'none.example', 99, NULL), (17, 'müller.example', 1, NULL), (18, 'dav.example', 1, NULL);
INSERT INTO davserver VALUES (11, 'https://dav.example/.well-known/caldav', 0, 'caldav', 1, 0, NULL),
  (12, 'https://dav.example/%EMAILDOMAIN%/', 0, 'caldav', 2, 0, NULL);
INSERT INTO davserver_domain VALUES (11, 18), (12, 18);
INSERT INTO server VALUES (13, 10, 'imap.example', 993, 'imap', 'SSL', '%EMAILADDRESS%', 'plain');
INSERT INTO server_domain VALUES (13, 18), (12, 18);
INSERT INTO managed_domain (name, document, step, ttl, changed_at, version)
  VALUES ('dav.example', x'7b7d', 'done', 1, '2026-11-30 10:00:00', 1),
  ('half.example', x'', 'done', 1, '2026-11-30 10:00:00', 1),
  ('parts.example', '{}', 'done', 1, '2026-11-30 10:00:00', 1);
INSERT INTO server_domain VALUES (11, 12), (12, 12), (12, 13), (12, 17), (11, 17), (12, 15), (11, 15),
  (12, 14), (11, 14);
INSERT INTO disabled_domain VALUES (14, '2026-11-30 10:00:00');
"""  # noqa: E501 - rows are easier to compare when each stands on one line

PATHS = [
    "/mail/config-v1.1.xml",
    "/.well-known/autoconfig/mail/config-v1.1.xml",
    "/autodiscover/autodiscover.xml",
    "/.well-known/user-agent-configuration.json",
    "/.well-known/caldav",
    "/.well-known/carddav",
    "/mobileconfig/",
    "/mobileconfig",
    "/v1.1/mail/config-v1.1.xml",
    "/Autodiscover/Autodiscover.xml",
    "/mail/config-v1.1.xml/",
    "//mail/config-v1.1.xml",
    "/.well-known/webdav",
    "/healthz",
]
DOMAINS = [
    "example.com", "EXAMPLE.com", "example.com.", "parts.example", "half.example", "off.example",
    "a.wild.example", "none.example", "xn--mller-kva.example", "xn--a", "nowhere.example",
    "dav.example", "-x.example", "a..example", "127.0.0.1",
    "m\N{LATIN SMALL LETTER U WITH DIAERESIS}ller.example",
    "", "a" * 64 + ".example", "example.com&", "example.com ", "%65xample.com",
    "autoconfig.example.com", ".".join(["a" * 60] * 3) + ".a.wild.example",
    ".".join(["a" * 59] * 4) + ".wild.example",
]  # fmt: skip
LOCAL_PARTS = [
    "alice", "EVOLUTIONUSER", "a.b-c_d", "a+b", "a b", "a..b", ".a", "a.", "-a", "_", "", "%20",
    "%41",
    "x" * 64, "x" * 65, "%22a%22", "a@b", "a%40b", "m\N{LATIN SMALL LETTER U WITH DIAERESIS}",
]  # fmt: skip
HOSTS = [
    "example.com", "autoconfig.example.com", "autodiscover.parts.example", "EXAMPLE.COM:8080",
    "dav.example", "half.example", "nowhere.example", "off.example", "xn--", "[::1]",
    "127.0.0.1:4243", "evil.test:0", "", "a,b",
]  # fmt: skip
SCHEMAS = [
    "outlook/responseschema/2006a", "mobilesync/responseschema/2006", "unknown/2006", "<a/>",
]  # fmt: skip
HEADERS = {
    "x-forwarded-host": [
        *("example.com", "xn--a", "a.example, autoconfig.example.com", ""),
        "a.example, " * 50 + "example.com",
    ],
    "x-forwarded-proto": ["https", "javascript", "HTTP"],
    "x-forwarded-for": ["192.0.2.1:5001", "[2001:db8::1]:5", "nobody", "192.0.2.9, 192.0.2.7"],
    "x-forwarded-prefix": ["/mail", "/..", "/"],
    "if-none-match": ["*", '"x"'],
    "accept-language": ["de"],
    "content-length": ["0"],
    "cookie": ["a=b"],
    "x-request-id": ["Root=1-67891233-abcdef", "a" * 129, "bad id", "", "\u00e4"],
    "user-agent": ["Thunderbird/140.0", "okhttp/4.12.0", "zgrab/0.x", "x" * 500, ""],
}


class Lines(logging.Handler):
    """Keeps the lines of the log, as text and as JSON, without their times."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(TextFormatter())
        self.json = JsonFormatter("network")

    def emit(self, record: logging.LogRecord) -> None:
        if record.name in {"automx.lookup", "automx.records"}:  # not each request reads the rows
            return
        self.lines.append(self.format(record).split(" ", 2)[2])
        fields = json.loads(self.json.format(record))
        varying = ("time", "seconds", "where")  # only one way has the front
        self.lines.append(repr({key: fields[key] for key in fields if key not in varying}))


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The lines of automx's log at level INFO."""
    handler = Lines()
    logger = logging.getLogger("automx")
    logger.addHandler(handler)
    yield handler.lines
    logger.removeHandler(handler)


def ask(
    front: Front, asked: Request, lines: list[str]
) -> tuple[tuple[int, list[tuple[str, str]], str], list[str]]:
    """Return what a front answers and writes into the log."""
    lines.clear()
    asyncio.run(front.__rsgi__(asked, asked))
    status, headers, body = asked.answer
    headers = sorted((name, value) for name, value in headers if name != "Date")
    return (status, headers, timeless(body.decode())), [*lines]


def counted(counts: Counts) -> dict[tuple[object, ...], float]:
    """Return the numbers of requests by protocol, family and status."""
    numbers: dict[tuple[object, ...], float] = defaultdict(float)
    for *labels, _, entry in counts.document()["requests"]:
        numbers[tuple(labels)] += sum(entry[1:])
    return dict(numbers)


def meant(quick: Quick, asked: Request) -> Asked | None:
    """Return what a request is for, if it may be answered without Flask."""
    found = quick.asked(asked)
    return quick.posted(found, asked.body) if found and asked.body else found


def asked_for(address: str, path: str = PATHS[0]) -> Request:
    """Return a usual request for the document of an address."""
    return Request(path, f"emailaddress={address}", Headers([("host", "x.example")]))


def asked_at(path: str, host: str) -> Request:
    """Return a usual request to a host, without an address."""
    return Request(path, headers=Headers([("host", host)]))


def posted_document(
    address: str,
    schema: str = "outlook/responseschema/2006a",
    host: str = "example.com",
    others: Sequence[tuple[str, str]] = (),
    query: str = "",
    before: str = "",
) -> Request:
    """Return a request of Outlook."""
    space = "http://schemas.microsoft.com/exchange/autodiscover"
    body = (
        f'{before}<Autodiscover xmlns="{space}/outlook/requestschema/2006"><Request>'
        f"<EMailAddress>{address}</EMailAddress>"
        f"<AcceptableResponseSchema>{space}/{schema}</AcceptableResponseSchema>"
        "</Request></Autodiscover>"
    ).encode()
    headers = [("host", host), ("content-length", str(len(body))), ("content-type", "text/xml")]
    others = [pair for pair in others if pair[0] != "content-length"]
    return Request(PATHS[2], query, Headers([*headers, *others]), "POST", body=body)


def requests() -> st.SearchStrategy[Request]:
    addresses = st.builds(
        "{}{}{}".format,
        st.sampled_from(LOCAL_PARTS),
        st.sampled_from(["@", "%40", "@@", ""]),
        st.sampled_from(DOMAINS),
    )
    queries = st.one_of(
        st.just(""),
        st.sampled_from(DOMAINS[:12]).map("emailaddress=alice@{}".format),
        addresses.map("emailaddress={}".format),
        addresses.map("emailaddress={}&x=1".format),
        st.builds("emailaddress={0}&emailaddress={0}".format, addresses),
        addresses.map("Emailaddress={}".format),
        st.text(max_size=20),
    )
    header = st.sampled_from([*HEADERS]).flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from(HEADERS[name]))
    )
    hosts = st.lists(st.sampled_from(HOSTS), min_size=0, max_size=2)
    pairs = st.builds(
        lambda hosts, others: [("host", host) for host in hosts] + others,
        st.one_of(st.sampled_from([[host] for host in HOSTS[:8]]), hosts),
        st.lists(header, max_size=2, unique_by=lambda pair: pair[0]),
    )
    usual = st.builds(
        lambda path, domain, host, others: Request(
            path, f"emailaddress=alice@{domain}", Headers([("host", host), *others])
        ),
        st.sampled_from(PATHS[:8]),
        st.sampled_from(DOMAINS),
        st.sampled_from(HOSTS[:8]),
        st.lists(header, max_size=1),
    )
    posted = st.builds(
        posted_document,
        addresses | st.sampled_from(DOMAINS).map("alice@{}".format),
        st.sampled_from(SCHEMAS),
        st.sampled_from(HOSTS[:8]),
        st.lists(header, max_size=1),
        st.sampled_from(["", "emailaddress=alice@example.com"]),
        st.sampled_from(["", " " * 4000, "<!DOCTYPE a>", "</x>"]),
    )
    return (
        usual
        | posted
        | st.builds(
            Request,
            path=st.sampled_from(PATHS[:8] * 3 + PATHS),
            query_string=queries,
            headers=pairs.map(Headers),
            method=st.sampled_from(["GET"] * 7 + ["HEAD", "POST", "get"]),
            authority=st.sampled_from([None] * 7 + ["example.com"]),
            http_version=st.sampled_from(["1.1", "1"]),
        )
    )


USUAL = [
    asked_for("alice@example.com"),
    asked_for("alice@dav.example"),
    asked_for("alice@nowhere.example"),
    asked_for("alice@example.com", PATHS[6]),
    asked_for("alice@parts.example", PATHS[7]),
    posted_document("alice@parts.example"),
    posted_document("alice@nowhere.example"),
    asked_at(PATHS[0], "dav.example"),
    asked_at(PATHS[1], "dav.example"),
    asked_at(PATHS[2], "example.com"),
    asked_at(PATHS[3], "dav.example"),
    asked_at(PATHS[3], "parts.example"),
    asked_at(PATHS[4], "dav.example"),
    asked_at(PATHS[5], "example.com"),
]


OFTEN = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def usual_examples(compare: Callable[[Request], None]) -> Callable[[Request], None]:
    """Let a property be tried with USUAL, too."""
    for asked in USUAL:
        compare = example(asked)(compare)
    return compare


@pytest.fixture(params=[0, 1], ids=["no proxy", "a proxy"])
def two_apps(
    request: pytest.FixtureRequest,
    make_app: Callable[..., Flask],
    execute: Execute,
    database: Path,
    lines: list[str],
    same_ids: None,
) -> tuple[Flask, Flask]:
    """Two applications of the same rows and settings, which log and count all requests."""
    execute(EXAMPLE_ROWS + ROWS)
    values = {"db_uri": f"sqlite:///{database}", "domain_cache_seconds": 10, "loglevel": "INFO"}
    values |= {"log_format": "json", "metrics_listen": "127.0.0.1:1"}
    first, second = (make_app(**values, proxy_count=request.param) for _ in range(2))
    return first, second


def test_an_answer_without_flask_is_that_of_flask(
    two_apps: tuple[Flask, Flask], lines: list[str]
) -> None:
    """Twice, so that it comes from the database first and then from memory."""
    front, plain = map(make_front, two_apps)
    plain.quick = None
    answered: Counter[str] = Counter()
    again: dict[tuple[object, ...], float] = defaultdict(float)

    @OFTEN
    @given(asked=requests())
    @usual_examples
    def compare(asked: Request) -> None:
        expected = ask(plain, asked, lines)
        for _ in range(2):
            assert ask(front, asked, lines) == expected
        assert front.quick is not None
        found = front.quick.asked(asked)
        is_good = expected[0][0] in {200, 301}
        found = found and (front.quick.posted(found, asked.body) if asked.body else found)
        before = counted(front.counts) if front.counts else {}
        is_known = is_good and found and front.quick.known(found)
        for key, number in (counted(front.counts) if front.counts else {}).items():
            again[key] += number - before.get(key, 0)
        answered[f"{asked.method} {asked.path}" if is_known else ""] += 1

    compare()
    # Both ways are tried.
    assert {*answered} == {*(f"GET {path}" for path in PATHS[:8]), f"POST {PATHS[2]}", ""}
    # The way through Flask was asked once where the other one was asked twice.
    assert front.counts is not None
    assert plain.counts is not None
    numbers = {key: 2 * number for key, number in counted(plain.counts).items()}
    assert {key: n - again[key] for key, n in counted(front.counts).items()} == numbers


class Counted:
    """A WSGI application that counts its calls."""

    def __init__(self, app: "WSGIApplication") -> None:
        self.app = app
        self.calls = 0

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        self.calls += 1
        return self.app(environ, start_response)


def environment_of(asked: Request) -> "WSGIEnvironment":
    """Return the environment of a request, as gunicorn makes it."""
    environ = environment(replace(asked, authority=None))
    del environ[edge.BEGAN]
    address, _, port = asked.client.rpartition(":")
    environ |= {"REMOTE_ADDR": address, "REMOTE_PORT": port}
    target = f"http://{asked.authority}{asked.path}" if asked.authority else asked.path
    return {**environ, "RAW_URI": target, "wsgi.input": BytesIO(asked.body)}


def ask_by_wsgi(
    app: "WSGIApplication", asked: Request, lines: list[str]
) -> tuple[str, list[tuple[str, str]], str, list[str]]:
    """Return what an application answers and writes into the log."""
    lines.clear()
    chunks, status, headers = run_wsgi_app(app, environment_of(asked), buffered=True)
    found = sorted((name, value) for name, value in headers if name != "Date")
    return status, found, timeless(b"".join(chunks).decode()), [*lines]


def test_an_answer_without_flask_under_another_wsgi_server_is_that_of_flask(
    two_apps: tuple[Flask, Flask], lines: list[str]
) -> None:
    """Twice, so that it comes from the database first and then from memory."""
    first, plain = two_apps
    left = Counted(first.wsgi_app)
    first.wsgi_app = left  # type: ignore[method-assign]
    application = make_application(first)
    answered: set[str] = set()

    @OFTEN
    @given(asked=requests())
    @usual_examples
    def compare(asked: Request) -> None:
        expected = ask_by_wsgi(plain, asked, lines)
        before = left.calls
        for _ in range(2):
            assert ask_by_wsgi(application, asked, lines) == expected
        is_good = expected[0][:3] in {"200", "301"}
        is_known = is_good and left.calls == before
        answered.add(f"{asked.method} {asked.path}" if is_known else "")

    compare()
    # Both ways are tried.
    assert answered == {*(f"GET {path}" for path in PATHS[:8]), f"POST {PATHS[2]}", ""}
    # The way through Flask alone was asked once where the other one was asked twice.
    numbers = {key: 2 * number for key, number in counted(plain.extensions[PARTS].counts).items()}
    assert counted(first.extensions[PARTS].counts) == numbers


@pytest.mark.parametrize(
    ("variables", "is_left"),
    [
        ({}, False),
        ({"CONTENT_LENGTH": "", "CONTENT_TYPE": ""}, False),  # as wsgiref and uWSGI have it
        ({"RAW_URI": "https://example.com/.well-known/x"}, True),
        ({"RAW_URI": "", "REQUEST_URI": "/.well-known/x"}, False),
        ({"RAW_URI": "", "REQUEST_URI": "https://example.com/.well-known/x"}, True),
        ({"HTTP_HOST": "example.com,example.org"}, True),
        ({"HTTP_HOST": "m\xfcller.example"}, True),
        ({"HTTP_IF_NONE_MATCH": ""}, True),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, True),
        ({"CONTENT_LENGTH": "0"}, True),
        ({"CONTENT_LENGTH": "9" * 5000}, True),
        ({"REQUEST_METHOD": "HEAD"}, True),
    ],
)
def test_only_the_usual_environment_is_answered_without_flask(
    make_app: Callable[..., Flask],
    execute: Execute,
    same_ids: None,
    variables: dict[str, str],
    is_left: bool,
) -> None:
    execute(EXAMPLE_ROWS)
    app = make_app()
    left = Counted(app.wsgi_app)
    app.wsgi_app = left  # type: ignore[method-assign]
    environ = environment_of(asked_at(PATHS[0], "example.com")) | variables
    expected = run_wsgi_app(left.app, {**environ}, buffered=True)
    answer = run_wsgi_app(make_application(app), environ, buffered=True)
    assert (b"".join(answer[0]), answer[1]) == (b"".join(expected[0]), expected[1])
    others = [[pair for pair in one[2] if pair[0] != "Date"] for one in (answer, expected)]
    assert others[0] == others[1]
    assert left.calls == is_left


class Part:
    """A part of an environment, which weak references may point to."""


@pytest.mark.parametrize(
    "asked",
    [
        asked_for("alice@example.com"),
        asked_for("alice@unknown.example"),
        asked_for("alice@example.com", PATHS[6]),
        posted_document("alice@example.com"),
        posted_document("alice@unknown.example"),
        replace(posted_document("alice@example.com"), body=b"<nonsense>"),
        asked_at("/healthz", "example.com"),
    ],
)
def test_no_request_is_kept_by_another_wsgi_server(
    make_app: Callable[..., Flask],
    execute: Execute,
    monkeypatch: pytest.MonkeyPatch,
    asked: Request,
) -> None:
    """Not even until the garbage collector runs, which could take many of them."""
    monkeypatch.setattr(logging.getLogger("automx"), "propagate", False)  # pytest keeps each line
    execute(EXAMPLE_ROWS)
    app = make_app()
    application = make_application(app)
    gc.disable()
    try:
        for _ in range(2):  # the first one makes what is kept for all
            part = Part()
            environ = {**environment_of(asked), "part": part}
            run_wsgi_app(application, environ, buffered=True)
            kept = weakref.ref(part)
            del part, environ
        assert kept() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("ask_for", [asked_for, posted_document])
def test_what_fails_without_flask_is_told_by_it_and_not_tried_again(
    make_app: Callable[..., Flask],
    execute: Execute,
    lines: list[str],
    same_ids: None,
    ask_for: Callable[[str], Request],
) -> None:
    """Nothing listens where the directory is."""
    execute(EXAMPLE_ROWS + ROWS + "UPDATE domain SET ldapserver_id = 1")
    first, plain = (make_app() for _ in range(2))
    asked = ask_for("alice@example.com")
    answer = ask_by_wsgi(make_application(first), asked, lines)
    assert answer == ask_by_wsgi(plain, asked, lines)
    assert answer[0] == "503 SERVICE UNAVAILABLE"
    for app in (first, plain):
        counters = app.extensions[PARTS].counts.document()["counters"]
        assert ("automx_directory_lookups_total", ("1", "failed"), 1) in counters


def test_a_person_of_a_directory_is_answered_without_flask_as_by_it(
    make_app: Callable[..., Flask],
    execute: Execute,
    database: Path,
    lines: list[str],
    same_ids: None,
    shared_directory: Directory,
) -> None:
    execute(EXAMPLE_ROWS + insert_ldapserver(shared_directory))
    execute("UPDATE domain SET ldapserver_id = 3")
    values = {"db_uri": f"sqlite:///{database}", "domain_cache_seconds": 10, "loglevel": "INFO"}
    front, plain = (make_front(make_app(**values)) for _ in range(2))
    plain.quick = None
    assert front.quick is not None
    for name in ("person0001", "nobody", "EVOLUTIONUSER"):
        address = f"{name}@example.com"
        gets = (asked_for(address, path) for path in (PATHS[0], PATHS[6]))
        for asked in (*gets, posted_document(address)):
            expected = ask(plain, asked, lines)
            for _ in range(2):
                assert ask(front, asked, lines) == expected
            found = meant(front.quick, asked)
            assert found is not None
            for sent in (front.quick.known(found), front.quick.found(found)):
                assert sent is not None
                assert (b">person0001</" in sent[2].lower()) is (name == "person0001")


Kind = Literal["directory", "database"]
PERSON, NOBODY, NEW = "person0001@example.com", "nobody@example.com", "person0002@example.com"
PERSONAL: list[Callable[[str], Request]] = [
    asked_for,
    partial(asked_for, path=PATHS[6]),
    posted_document,
]


@dataclass
class Neighbour:
    """What knows the people of example.com, for a front that remembers PERSON and NOBODY."""

    front: Front
    keeper: Directories | PeopleDatabase
    silent: Callable[[], AbstractContextManager[object]]

    @property
    def quick(self) -> Quick:
        assert self.front.quick is not None
        return self.front.quick

    def set_clock(self, seconds: float) -> None:
        self.keeper._now = self.keeper._people._now = lambda: seconds

    def known(self, asked: Request) -> Sent | None:
        """Return what the event loop answers by itself."""
        found = meant(self.quick, asked)
        assert found is not None
        return self.quick.known(found)


MakeNeighbour = Callable[..., Neighbour]


@pytest.fixture
def make_neighbour(
    make_app: Callable[..., Flask],
    execute: Execute,
    database: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> MakeNeighbour:
    """Make a neighbour of a kind, and a front that asks it."""
    execute(EXAMPLE_ROWS)
    values = {"db_uri": f"sqlite:///{database}", "domain_cache_seconds": 3600}

    def of_directory(seconds: int) -> Neighbour:
        directory: Directory = request.getfixturevalue("shared_directory")
        execute(insert_ldapserver(directory) + "UPDATE domain SET ldapserver_id = 3")
        app = make_app(**values, ldap_cache_seconds=seconds, ldap_timeout=1)
        return Neighbour(make_front(app), app.extensions[PARTS].directories, directory.frozen)

    def of_database(seconds: int) -> Neighbour:
        file = tmp_path / "mail.sqlite"
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE people (address TEXT, login TEXT)")
            rows = [(f"{name}@example.com", name) for name in ("person0001", "person0002")]
            connection.executemany("INSERT INTO people VALUES (?, ?)", rows)
            connection.commit()
        query = "SELECT login FROM people WHERE address = :address"
        settings = {"people_query": query, "people_timeout": 1, "people_cache_seconds": seconds}
        people = source(f"sqlite:///{file}", **settings)
        app = make_app(**values, sources=(people,))
        keeper = app.extensions[PARTS].directories._databases[people.name]

        @contextmanager
        def locked() -> Iterator[None]:
            with closing(sqlite3.connect(file, isolation_level=None)) as connection:
                connection.execute("BEGIN EXCLUSIVE")
                yield

        return Neighbour(make_front(app), keeper, locked)

    def make(kind: Kind, seconds: int = 3600) -> Neighbour:
        made = of_directory(seconds) if kind == "directory" else of_database(seconds)
        for ask_for in PERSONAL:
            for address in (PERSON, NOBODY):
                asked = ask_for(address)
                asyncio.run(made.front.__rsgi__(asked, asked))
                assert asked.answer[0] == 200
        return made

    return make


@pytest.mark.parametrize("kind", ["directory", "database"])
def test_people_who_are_remembered_are_answered_by_the_event_loop_while_their_neighbour_is_silent(
    make_neighbour: MakeNeighbour, same_ids: None, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    made = make_neighbour(kind)
    parts = made.quick._parts
    requests = [ask_for(address) for ask_for in PERSONAL for address in (PERSON, NOBODY)]
    expected = []
    for asked in requests:
        found = meant(made.quick, asked)
        assert found is not None
        expected.append(made.quick.found(found))
    monkeypatch.setattr(made.quick, "found", None)  # no thread is asked
    for locked in (parts.directories, parts.cache, made.keeper):
        monkeypatch.setattr(locked, "_lock", None)  # another thread may hold it for long
    with made.silent():
        for asked, sent in zip(requests, expected, strict=True):
            asyncio.run(made.front.__rsgi__(asked, asked))
            assert sent is not None
            assert (asked.answer[0], asked.answer[1]) == (sent[0], sent[1])
            assert timeless(asked.answer[2].decode()) == timeless(sent[2].decode())
            assert (b">person0001</" in sent[2].lower()) is (PERSON in str(asked))
        assert [made.known(ask_for(NEW)) for ask_for in PERSONAL] == [None] * len(PERSONAL)


@pytest.mark.parametrize("ask_for", PERSONAL)
@pytest.mark.parametrize("address", [PERSON, NOBODY])
@pytest.mark.parametrize("kind", ["directory", "database"])
def test_a_person_whose_time_is_over_is_looked_up_by_a_thread(
    make_neighbour: MakeNeighbour, kind: Kind, address: str, ask_for: Callable[[str], Request]
) -> None:
    made = make_neighbour(kind, 60)
    now, asked = made.keeper._now(), ask_for(address)
    made.set_clock(now + 59)
    assert made.known(asked) is not None
    made.set_clock(now + 61)
    assert made.known(asked) is None
    asyncio.run(made.front.__rsgi__(asked, asked))
    assert asked.answer[0] == 200
    assert made.known(asked) is not None


@pytest.mark.parametrize("kind", ["directory", "database"])
def test_people_of_a_neighbour_of_whom_nothing_is_kept_are_looked_up_by_a_thread(
    make_neighbour: MakeNeighbour, kind: Kind
) -> None:
    made = make_neighbour(kind, 0)
    for ask_for in PERSONAL:
        assert made.known(ask_for(PERSON)) is None


def test_what_a_directory_said_by_an_earlier_row_is_not_used(
    make_neighbour: MakeNeighbour, execute: Execute
) -> None:
    made = make_neighbour("directory")
    assert made.known(asked_for(PERSON)) is not None
    execute("UPDATE ldapserver SET attr_uid = 'mail'")
    made.quick._parts.cache.clear()
    asked = asked_for(NEW)
    asyncio.run(made.front.__rsgi__(asked, asked))  # the domain is remembered again
    assert made.known(asked_for(PERSON)) is None


STRANGERS = {
    "different queries": lambda n: asked_for(f"a{n}@example.com"),
    "different hosts": lambda n: asked_at(PATHS[0], f"h{n}.example"),
    "different hosts of a proxy": lambda n: Request(
        PATHS[0], headers=Headers([("host", "a.example"), ("x-forwarded-host", f"h{n}.example")])
    ),
    "different clients of a proxy": lambda n: Request(
        PATHS[0],
        headers=Headers([("host", "a.example"), ("x-forwarded-for", f"2001:db8::{n:x}")]),
    ),
    "long queries": lambda n: asked_for(f"a{n}@{'a.' * 10_000}example"),
    "long hosts": lambda n: asked_at(PATHS[0], f"h{n}{'.a' * 10_000}.example"),
}


@pytest.mark.parametrize("different", STRANGERS.values(), ids=STRANGERS)
def test_what_strangers_send_is_remembered_within_bounds(
    make_app: Callable[..., Flask], different: Callable[[int], Request]
) -> None:
    front = make_front(make_app(proxy_count=1))
    assert front.quick is not None
    memories = (_where, _address_in)
    for memory in memories:
        memory.cache_clear()
    for number in range(2 * _READ):
        front.quick.asked(different(number))
    kept = sum(memory.cache_info().currsize for memory in memories)
    assert kept <= (1 if len(repr(different(0))) > _LONGEST else _READ + 1)


AGENTS = [
    "Thunderbird/140.0",
    "",
    "okhttp/4.12.0",
    "zgrab/0.x",
    "unheard of",
    "x" * 500 + "Outlook",
]


def test_an_answer_without_flask_is_counted_as_that_of_flask(
    make_app: Callable[..., Flask], execute: Execute, database: Path
) -> None:
    execute(EXAMPLE_ROWS + ROWS)
    values = {"db_uri": f"sqlite:///{database}", "domain_cache_seconds": 10}
    values["metrics_listen"] = "127.0.0.1:1"
    front, plain = (make_front(make_app(**values)) for _ in range(2))
    plain.quick = None
    asked = [
        Request(path, f"emailaddress={address}", Headers([("host", "x"), ("user-agent", agent)]))
        for path in PATHS[:8]
        for address in ("alice@half.example", "EVOLUTIONUSER@half.example", "alice@nowhere.example")
        for agent in AGENTS
    ]
    found: list[dict[tuple[object, ...], float]] = []
    for one in (front, plain):
        for request in asked * 2:
            asyncio.run(one.__rsgi__(request, request))
        assert one.counts is not None
        found.append(counted(one.counts))
        places = {where for _, _, _, where, _ in one.counts.document()["requests"]}
        assert ("front" in places) == (one is front)
    assert found[0] == found[1]
    assert sum(found[0].values()) == 2 * len(asked)
