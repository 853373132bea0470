"""A key of one provider cannot tell whether another one exists.

Calls go to two databases: one has two providers, its twin the first one only. With a key of the
first provider, both give the same answers, byte for byte, and the rows of the second provider stay
as they are. What cannot be hidden is listed, and told in docs/api.md.
"""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from werkzeug.test import TestResponse

from automx import config, create_app
from automx.api import access
from automx.api.dispatch import OPERATIONS
from automx.api.operations import Operation
from automx.views.http import PARTS
from automx.views.session import TURNS, db
from tests.apikeys import make_key
from tests.canaries import FOREIGN, MARK, OWN, PROVIDER

API = "/api/v1"
EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "12"))
SCOPES: dict[str, dict[str, Any]] = {
    "provider": {"provider": PROVIDER},
    "domain": {"domains": ("own.example", "second.example")},
    "both": {"provider": PROVIDER, "domains": ("own.example", "new1.example")},
}
ROLES = ("admin", "write", "accounts")

IDS = [90001, 90002, 90003, 90004, 90005, 90006, 90007, 71001, 71002, 71003, 77]
OWN_NAMES = ["own.example", "second.example", "off.example", "gone.example", "new1.example"]
NEW_NAMES = [*OWN_NAMES, "new2.example", "below.own.example", "*.own.example", "MÜLLER.example"]
NAMES = [
    *(*OWN_NAMES, "*.own.example", "missing.example", "canary.example", "x.canary.example"),
    *("a.canary-wild.example", "*.canary-wild.example", "canary-upper.example", "cänary.example"),
    *("off.canary.example", "*", "*.missing.example"),
]
TOKENS = ["own", "gone", "new", "missing", "canary", "canary-bad"]
ADDRESSES = [
    *("guest@own.example", "new@own.example", "guest@canary.example", "bad@canary.example"),
    *("lost@canary.example", "missing@missing.example"),
]
HOSTS = ["imap.own.example", "imap.new.example", "imap.canary.example"]


def some(*values: object) -> SearchStrategy[Any]:
    return st.sampled_from(values)


ids = st.sampled_from(IDS)
MEMBERS: dict[str, dict[str, SearchStrategy[Any]]] = {
    "providers": {"name": some("New", "Canary Ltd"), "short_name": some("New", "Canary")},
    "servers": {
        "type": some("imap", "smtp", "caldav"),
        "name": st.sampled_from(HOSTS),
        "port": some(143, 993, None),
        "id": ids,
    },
    "services": {
        "type": some("caldav", "imap"),
        "url": some("https://dav.new.example/", "https://dav.canary.example/"),
        "id": ids,
    },
    "directories": {
        "name": some("ldap.new.example", "ldap.canary.example"),
        "search_base": some("dc=new", "dc=canary"),
        "id": ids,
    },
    "domains": {
        "name": st.sampled_from(NEW_NAMES),
        "provider": some(PROVIDER, PROVIDER, 71001, 77, None),
        "servers": st.lists(ids, max_size=3),
        "davservers": st.lists(ids, max_size=2),
        "ldapserver_id": ids | st.none(),
        "disabled": st.booleans(),
        "id": ids,
    },
    "bulk": {
        "names": st.lists(st.sampled_from(NEW_NAMES), min_size=1, max_size=3),
        "provider": some(PROVIDER, 71001),
        "servers": st.lists(ids, max_size=3),
        "skip_existing": st.booleans(),
    },
    "tokens": {
        "name": some("own", "new", "new2"),
        "domain": st.sampled_from(NAMES),
        "prefix": some("x.", ""),
        "address": some("one@own.example", "one@canary.example", None),
        "maxuse": some(0, 1),
        "revoked": st.booleans(),
    },
    "accounts": {
        "token": st.sampled_from(TOKENS),
        "address": st.sampled_from(ADDRESSES),
        "password": some("secret-password-1"),
        "expires": some("2099-12-31", "2020-01-01", None),
    },
}
NEEDED: dict[str, dict[str, Any]] = {
    "servers": {"type": "imap", "name": "imap.new.example"},
    "services": {"type": "caldav", "url": "https://dav.new.example/"},
    "directories": {"name": "ldap.new.example", "search_base": "dc=new"},
    "domains": {"name": "new1.example"},
    "bulk": {"names": ["new1.example"]},
    "tokens": {"name": "new", "domain": "own.example"},
    "accounts": {"token": "own", "address": "new@own.example", "password": "secret-password-1"},
    "providers": {"name": "New"},
}
QUERY: dict[str, SearchStrategy[Any]] = {
    "cursor": some(0, -1, 71001, 71002, 90001, 500),
    "limit": some(1, 2, 1000),
    "pattern": some("*", "canary*", "*canary*", "own*", "guest*"),
    "unused": some("true", "false"),
    "disabled": some("true", "false"),
    "unlink": some("true", "false"),
    "provider": ids,
    "server": ids,
    "service": ids,
    "directory": ids,
    "token": st.sampled_from(TOKENS),
    "state": some("active", "creating"),
    "domain": st.sampled_from(NAMES),
    "since": some("2026-11-21", "2099-01-01"),
    "address": st.sampled_from(ADDRESSES),
    "dry_run": some("true", "false"),
    "prune": some("true", "false"),
    "origin": some("canary", "new"),
}
# Tables whose rows may hold a mark because a key has written it; the id is none then.
MADE = {"audit", "server", "davserver", "api_request"}
PATH: dict[str, dict[str, SearchStrategy[Any]]] = {
    "domains": {"name": st.sampled_from(NAMES), "format": some("autoconfig", "pacc", "canary")},
    "tokens": {"name": st.sampled_from(TOKENS)},
    "accounts": {"address": st.sampled_from(ADDRESSES)},
    "keys": {"name": some("own", "canary", "provider-admin")},
}


@dataclass(frozen=True)
class Request:
    """A request for an operation."""

    method: str
    path: str
    query: dict[str, Any]
    body: dict[str, Any] | None
    headers: dict[str, str]

    def send(self, client: FlaskClient) -> TestResponse:
        return client.open(
            f"{API}{self.path}",
            method=self.method,
            query_string=self.query,
            json=self.body,
            headers=self.headers,
        )


@st.composite
def requests(draw: st.DrawFn) -> Request:
    operation: Operation = draw(st.sampled_from(OPERATIONS))
    collection = operation.path.split("/")[1]
    places = {"id": ids, **PATH.get(collection, {})}
    path = re.sub(r"\{(\w+)\}", lambda found: str(draw(places[found[1]])), operation.path)
    query = draw(st.fixed_dictionaries({}, optional={n: QUERY[n] for n in operation.query}))
    body = None
    if operation.body is not None:
        members = MEMBERS.get(collection, {})
        body = draw(st.fixed_dictionaries({}, optional=members))
        if operation.method == "POST":
            body = NEEDED.get(collection, {}) | body
    given = {"If-Match": some('"x"', "*"), "Idempotency-Key": some("1", "2")}
    known = {name: given[name] for name in operation.headers if name in given}
    headers = draw(st.fixed_dictionaries({}, optional=known))
    return Request(operation.method, path, query, body, headers)


def steady(answer: TestResponse) -> tuple[int, dict[str, str], str]:
    """Return an answer without the time and without secrets that are made at random."""
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", answer.text)
    text = re.sub(r'"token": "\w{24}"', '"token": "SECRET"', text)
    headers = dict(answer.headers)
    headers.pop("X-Request-ID")  # each answer has its own
    if "TIME" in text:
        headers.pop("ETag", None)
    return answer.status_code, headers, text


class Twin:
    """A database with a server, and what it is reset to."""

    def __init__(self, empty: Path, folder: Path, rows: str) -> None:
        folder.mkdir()
        self.path = folder / "automx.sqlite"
        self.path.write_bytes(empty.read_bytes())
        with closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(rows)
        uri = f"sqlite:///{self.path}"
        self.keys = {
            (scope, role): make_key(uri, f"{scope}-{role}", role, **SCOPES[scope])
            for scope in SCOPES
            for role in ROLES
        }
        self._begin = sqlite3.connect(":memory:", check_same_thread=False)
        with closing(sqlite3.connect(self.path)) as connection:
            connection.backup(self._begin)
        self.app = create_app(
            config.make(
                db_uri=uri,
                domain_cache_seconds=0,
                stale_seconds=0,
                public_host="automx.example.net",
            )
        )

    def reset(self) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            self._begin.backup(connection)

    def client(self, scope: str, role: str) -> FlaskClient:
        client = self.app.test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {self.keys[scope, role]}"
        return client

    def foreign_rows(self) -> set[tuple[Any, ...]]:
        """Return the rows that hold a mark, but for those that a key may have made."""
        found = set()
        with closing(sqlite3.connect(self.path)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for (table,) in tables.fetchall():
                for row in connection.execute(f"SELECT * FROM {table}"):
                    is_marked = MARK.search(repr(row[:1] if table in MADE else row))
                    found |= {(table, *row)} if is_marked else set()
        return found

    def close(self) -> None:
        parts = self.app.extensions[PARTS]
        for part in (parts.directories, parts.backends, parts.limits, self.app.extensions[TURNS]):
            part.close()
        with self.app.app_context():
            for engine in db.engines.values():
                engine.dispose()
        self._begin.close()


@pytest.fixture(scope="module")
def twins(
    empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Twin, Twin]]:
    """The database with two providers, and its twin with the first one only."""
    folder = tmp_path_factory.mktemp("twins")
    both, twin = (
        Twin(empty_database, folder / "both", OWN + FOREIGN),
        Twin(empty_database, folder / "one", OWN),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(access, "REQUESTS", 10**9)  # no request is refused for their number
        yield both, twin
    both.close()
    twin.close()


def marks(text: str) -> set[str]:
    return {found.lower() for found in MARK.findall(text)}


@pytest.mark.parametrize("scope", SCOPES)
def test_answers_do_not_depend_on_another_provider(twins: tuple[Twin, Twin], scope: str) -> None:
    both, twin = twins

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.generate],  # to find a shorter sequence takes minutes
        derandomize="TEST_EXAMPLES" not in os.environ,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(role=st.sampled_from(ROLES), calls=st.lists(requests(), min_size=8, max_size=30))
    def run(role: str, calls: list[Request]) -> None:
        both.reset()
        twin.reset()
        before = both.foreign_rows()
        clients = [each.client(scope, role) for each in twins]
        for call in calls:
            found, expected = (steady(call.send(client)) for client in clients)
            assert found == expected, call
            assert found[0] < 500, call
            assert marks(str(found)) <= marks(str(call))  # an error may quote the request
        assert both.foreign_rows() == before

    run()


@pytest.fixture
def both(twins: tuple[Twin, Twin]) -> FlaskClient:
    """An administrator of the first provider, in the database with two."""
    found, _ = twins
    found.reset()
    return found.client("provider", "admin")


CONFLICT = "The database holds the domain {} already"
# Names that others hold, as the key writes them, and as the answer does: as those of its own.
TAKEN = [
    ("canary.example", "canary.example"),
    ("CANARY.example", "canary.example"),
    ("canary-upper.example", "canary-upper.example"),
    ("xn--cnary-gra.example", "xn--cnary-gra.example"),
    ("Cänary.example", "cänary.example"),
    ("off.canary.example", "off.canary.example"),
    ("x.canary-wild.example", "x.canary-wild.example"),
    ("left.example", "left.example"),  # tokens and accounts are left of it
    ("own.example", "own.example"),
]
LEFT = """
INSERT INTO token VALUES (71009, 'canary-left', 'canary-left', 'digest-9', 'left.example', 'tmp.',
  NULL, '1d', 50, 1, NULL, 0, '', 0, '2026-11-21 10:00:00');
"""


@pytest.mark.parametrize(("name", "shown"), TAKEN)
def test_that_a_domain_exists_is_told_but_not_how(
    both: FlaskClient, twins: tuple[Twin, Twin], name: str, shown: str
) -> None:
    with closing(sqlite3.connect(twins[0].path)) as connection:
        connection.executescript(LEFT)
    new = both.post(f"{API}/domains", json={"name": name})
    renamed = both.patch(f"{API}/domains/second.example", json={"name": name})
    several = both.post(f"{API}/bulk/domains", json={"names": ["new1.example", name]})
    passed = {"names": ["new1.example", name], "skip_existing": True}
    some = both.post(f"{API}/bulk/domains", json=passed)
    assert (new.status_code, new.json and new.json["detail"]) == (409, CONFLICT.format(shown))
    assert (renamed.status_code, renamed.data) == (409, new.data)
    assert several.status_code == 409
    assert several.json is not None
    assert several.json["detail"] == f"1 of 2 domains exists already: {shown}"
    assert (some.status_code, some.json) == (201, {"added": 1, "existing": 1})


def test_that_the_name_of_a_token_is_taken_is_told(both: FlaskClient) -> None:
    answers = [
        both.post(f"{API}/tokens", json={"name": name, "domain": "own.example"})
        for name in ("canary", "canary-bad", "own")
    ]
    texts = {
        answer.text.replace("canary-bad", "own").replace("canary", "own") for answer in answers
    }
    assert [answer.status_code for answer in answers] == [409] * 3
    assert len(texts) == 1


@pytest.mark.parametrize("path", ["servers/90003", "services/90003"])
def test_that_others_use_a_shared_server_is_told(twins: tuple[Twin, Twin], path: str) -> None:
    unlink = "DELETE FROM {}_domain WHERE domain_id = 90004"  # else the wildcard is in the way
    for twin, status in zip(twins, (403, 200), strict=True):
        twin.reset()
        with closing(sqlite3.connect(twin.path)) as connection:
            connection.executescript(";".join(unlink.format(t) for t in ("server", "davserver")))
        client = twin.client("provider", "admin")
        assert client.patch(f"{API}/{path}", json={"port": 8443}).status_code == status


def test_a_domain_with_tokens_or_accounts_keeps_its_name(both: FlaskClient) -> None:
    answer = both.patch(f"{API}/domains/own.example", json={"name": "new1.example"})
    assert answer.status_code == 409
    assert "is in use: 2 tokens (gone, own), 2 accounts" in answer.text


def test_a_domain_with_tokens_gets_another_spelling(
    both: FlaskClient, twins: tuple[Twin, Twin]
) -> None:
    names = ["müller.example", "xn--mller-kva.example", "müller.example"]
    with closing(sqlite3.connect(twins[0].path)) as connection:
        connection.executescript(
            f"UPDATE domain SET name = '{names[0]}' WHERE id = 90001;"
            f"UPDATE token SET domain = '{names[1]}' WHERE domain = 'own.example';"
        )
    for name, new in pairwise(names):
        answer = both.patch(f"{API}/domains/{name}", json={"name": new})
        assert (answer.status_code, answer.json and answer.json["name"]) == (200, new)


def test_a_preview_does_not_show_the_row_of_others_for_the_same_domain(
    both: FlaskClient, twins: tuple[Twin, Twin]
) -> None:
    with closing(sqlite3.connect(twins[0].path)) as connection:
        connection.executescript(
            "UPDATE domain SET name = 'xn--cnary-gra.example' WHERE id = 71004;"
            "INSERT INTO domain VALUES (90010, 'cänary.example', 90001, NULL);"
        )
    assert both.get(f"{API}/domains/cänary.example").status_code == 200
    for path in ("documents/autoconfig", "dns"):
        assert both.get(f"{API}/domains/cänary.example/{path}").status_code == 404
