"""Whatever administrators do, by commands, requests and documents: the rows are what was asked for.

The model says what each change leads to, or that it is refused. In the end, no row is dangling,
each domain is served, or unknown if it is off, and an export that is applied changes nothing.
``TEST_EXAMPLES=1000`` tries more sequences.
"""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine

from automx import kinds, members
from automx.api import access
from automx.changes import stored
from automx.check.finding import Level
from automx.check.rows import check_rows
from automx.database import Session, create_engine
from automx.errors import SeedError
from automx.members import Item
from automx.models import ORIGINS
from automx.references import dangling_references
from tests.apikeys import WithKey
from tests.commandline import attempt, automx

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "10"))
API = "/api/v1"
KINDS = ("provider", "directory", "server", "service", "domain")
COLLECTIONS = {kind: f"{kind}s" for kind in KINDS} | {"directory": "directories"}
MOSTLY_DOMAINS = (*KINDS, "domain", "domain", "domain")
ORIGIN = "git"

IDS = st.integers(1, 4)
NAMES = ["a.example", "b.example", "*.example", "xn--mller-kva.example", "Müller.example"]
NAMES += ["c.example", "d.a.example", "*.a.example"]
SOME_IDS = st.lists(IDS, max_size=3, unique=True).map(sorted)
SERVER = {
    "type": st.sampled_from(["imap", "smtp"]),
    "name": st.sampled_from(["mail.example", "mail.example.net"]),
    "port": st.sampled_from([143, 993, 587]),
    "socket_type": st.sampled_from(["SSL", "STARTTLS"]),
    "prio": st.integers(1, 3),
}
SERVICE = {
    "type": st.sampled_from(["caldav", "carddav"]),
    "url": st.sampled_from(["https://dav.example/", "https://dav.example.net/x/"]),
    "port": st.sampled_from([0, 8443]),
}
DIRECTORY = {
    "name": st.sampled_from(["ldap.example", "ldap.example.net"]),
    "search_base": st.sampled_from(["dc=example", "dc=net"]),
    "login_name": st.sampled_from(["X\\{uid}", "{uid}@example"]),
}
PROVIDER = {
    "name": st.sampled_from(["P", "Q"]),
    "short_name": st.sampled_from(["P", "Q"]),
    "details": st.fixed_dictionaries({"help_url": st.just("https://help.example/")}),
}
DOMAIN = {
    "name": st.sampled_from(NAMES),
    "provider": IDS,
    "servers": SOME_IDS,
    "davservers": SOME_IDS,
    "ldapserver_id": IDS,
    "disabled": st.booleans(),
}
MEMBERS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "provider": PROVIDER,
    "directory": DIRECTORY,
    "server": SERVER,
    "service": SERVICE,
    "domain": DOMAIN,
}


# The rows before the first change: two or three of each kind.
FIRST: list[tuple[str, Item]] = [
    *(("provider", {"name": name}) for name in ("P", "Q")),
    *(("directory", {"name": "ldap.example", "search_base": "dc=x"}) for _ in range(2)),
    *(("server", {"type": type_, "name": "mail.example"}) for type_ in ("imap", "smtp", "smtp")),
    *(("service", {"type": type_, "url": "https://dav.x/"}) for type_ in ("caldav", "carddav")),
    ("domain", {"name": "a.example", "provider": 1, "servers": [1, 2], "davservers": [1]}),
    ("domain", {"name": "*.example", "provider": 1, "servers": [2], "ldapserver_id": 1}),
    ("domain", {"name": "xn--mller-kva.example", "provider": 2, "disabled": True}),
]


@st.composite
def objects(draw: st.DrawFn, some: tuple[str, ...] = MOSTLY_DOMAINS) -> tuple[str, Item]:
    """A kind of row, and the object of a new one."""
    kind = draw(st.sampled_from(some))
    needed = {*members.REQUIRED[kind], *({"provider"} if kind == "domain" else ())}
    found = MEMBERS[kind]
    required = {name: of for name, of in found.items() if name in needed}
    optional = {name: of for name, of in found.items() if name not in needed}
    return kind, draw(st.fixed_dictionaries(required, optional=optional))


@st.composite
def patches(draw: st.DrawFn) -> tuple[str, Item]:
    """A kind of row, and some members of it; None stands for the default."""
    kind = draw(st.sampled_from(KINDS))
    never_null = {"name", "type", "url", "provider", "disabled", "search_base", "details"}
    optional = {
        name: of if name in never_null else of | st.none() for name, of in MEMBERS[kind].items()
    }
    return kind, draw(st.fixed_dictionaries({}, optional=optional).filter(bool))


@st.composite
def documents(draw: st.DrawFn) -> list[tuple[str, Item]]:
    """The objects of a document: rows with ids, and domains."""
    found: list[tuple[str, Item]] = []
    for kind in ("provider", "directory", "server", "service"):
        numbers = draw(st.lists(IDS, max_size=2, unique=True))
        found += [(kind, {**draw(objects((kind,)))[1], "id": number}) for number in numbers]
    named = draw(
        st.lists(objects(("domain",)), max_size=3, unique_by=lambda each: label(each[1]["name"]))
    )
    links: Item = {"servers": [], "davservers": []}
    return found + [(kind, links | value) for kind, value in named]


def label(name: str) -> str:
    return kinds.domain_a_label(name)


class Refused(Exception):  # noqa: N818 - it is what the model expects
    """The change is against a rule."""


class World:
    """The rows as they should be: kind -> id -> item; ``own`` are the rows of the origin."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[int, Item]] = {kind: {} for kind in KINDS}
        self.own: set[tuple[str, int]] = set()

    def add(self, kind: str, value: Item) -> int:
        row_id: int = value.get("id") or max(self.rows[kind], default=0) + 1
        self._put(kind, row_id, members.read(kind, value))
        return row_id

    def set(self, kind: str, row_id: int, patch: Item) -> None:
        self._put(kind, row_id, members.changed(kind, self._get(kind, row_id), patch))

    def delete(self, kind: str, row_id: int, *, unlink: bool = False) -> None:
        self._get(kind, row_id)
        for domain in self.rows["domain"].values() if kind != "domain" else ():
            [member] = [name for name, of in members.REFERENCES.items() if of == kind]
            used = domain[member]
            if row_id not in (used if isinstance(used, tuple) else (used,)):
                continue
            if kind == "provider" or not unlink:
                raise Refused
            rest = (
                tuple(each for each in used if each != row_id) if member in members.LINKS else None
            )
            domain[member] = rest
        del self.rows[kind][row_id]
        self.own.discard((kind, row_id))

    def apply(self, document: list[tuple[str, Item]], *, prune: bool) -> None:
        names = {label(item["name"]): at for at, item in self.rows["domain"].items()}
        kept = set()
        wanted = []
        for kind, value in document:
            if kind == "domain":
                new = max(self.rows[kind], default=0) + 1
                row_id = names.setdefault(label(value["name"]), new)
                self.rows[kind].setdefault(row_id, {})
            else:
                row_id = value["id"]
            kept.add((kind, row_id))
            wanted.append((kind, row_id, value))
        removed = self.own - kept if prune else set()
        for kind, row_id in removed:
            if kind == "domain":
                del self.rows[kind][row_id]
        for kind, row_id, value in wanted:
            item = members.read(kind, value) | {"id": row_id}
            if kind == "domain":
                item |= {member: item[member] or () for member in members.LINKS}
            self.rows[kind][row_id] = item
        self.own = (self.own - removed) | kept
        for kind, row_id in removed:
            if kind != "domain":
                self.delete(kind, row_id)
        self.check()

    def shared(self, provider: int) -> Item:
        """Return what all domains of a provider share: a command gives it to a new one."""
        domains = [each for each in self.rows["domain"].values() if each["provider"] == provider]
        return {
            member: sorted(set.intersection(*(set(each[member]) for each in domains)))
            for member in members.LINKS
            if domains
        }

    def check(self) -> None:
        """Raise Refused if two domains have a name, or a domain refers to no row."""
        domains = self.rows["domain"].values()
        if len({label(each["name"]) for each in domains}) < len(domains):
            raise Refused
        for each in domains:
            for member, kind in members.REFERENCES.items():
                found = each[member]
                for row_id in found if isinstance(found, tuple) else (found,):
                    if row_id is not None and row_id not in self.rows[kind]:
                        raise Refused

    def _get(self, kind: str, row_id: int) -> Item:
        if row_id not in self.rows[kind]:
            raise Refused
        return self.rows[kind][row_id]

    def _put(self, kind: str, row_id: int, item: Item) -> None:
        if kind == "domain":
            item |= {member: item[member] or () for member in members.LINKS}
        self.rows[kind][row_id] = item | {"id": row_id}
        self.check()


def options(kind: str, patch: Item) -> list[str]:
    """Return the options of a command for members."""
    words: list[str] = []
    for member, value in patch.items():
        option = "--" + member.replace("_", "-")
        match value:
            case None | []:
                words += ["--unset", member]
            case bool():
                words.append(option if value else f"--no-{member}")
            case dict():
                words += options(kind, value)
            case list():
                words += [word for each in value for word in (option, str(each))]
            case _:
                words += [option, str(value)]
    return words


class Administration(RuleBasedStateMachine):
    """Changes in three ways, each compared with the model."""

    client: FlaskClient
    database: Path
    engine: Engine  # one for all: a new one compiles each query anew
    empty: sqlite3.Connection

    @initialize()
    def begin(self) -> None:
        with closing(sqlite3.connect(self.database)) as connection:
            self.empty.backup(connection)
        self.env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{self.database}"}
        self.world = World()
        for kind, value in FIRST:
            self.world.add(kind, value)

    def command(self, *words: str, stdin: str | None = None) -> bool:
        done = attempt(*words, env=self.env, stdin=stdin)
        assert done.returncode in {0, 1, 2}
        return done.returncode == 0

    def request(self, method: str, path: str, body: object = None) -> bool:
        answer = self.client.open(f"{API}/{path}", method=method, json=body)
        assert answer.status_code < 500
        return answer.status_code < 300

    def expect(self, change: Any, done: bool) -> None:
        """Compare a change with that of the model: a function that changes a World."""
        world = deepcopy(self.world)
        try:
            change(world)
        except (Refused, SeedError):
            assert not done
        else:
            assert done
            self.world = world
        assert self.stored() == (self.world.rows, self.world.own)

    def stored(self) -> tuple[dict[str, dict[int, Item]], set[tuple[str, int]]]:
        with Session(self.engine) as session:
            rows = {kind: dict(stored.items(session, kind)) for kind in KINDS}
            own = {
                (kind, row_id)
                for kind in KINDS
                for (row_id, _) in session.execute(ORIGINS[members.TABLES[kind]].select())
            }
        return rows, own

    def path(self, kind: str, row_id: int) -> str:
        name = self.world.rows["domain"].get(row_id, {}).get("name", "missing.example")
        return f"{COLLECTIONS[kind]}/{quote(name) if kind == 'domain' else row_id}"

    @rule(given=objects(), by_command=st.booleans())
    def add(self, given: tuple[str, Item], by_command: bool) -> None:
        kind, value = given
        if not by_command:
            done = self.request("POST", COLLECTIONS[kind], value)
        elif kind == "domain":
            value = {member: each for member, each in value.items() if each not in ([], False)}
            rest = {member: each for member, each in value.items() if member != "name"}
            done = self.command("domain", "add", value["name"], *options(kind, rest))
            if not {"servers", "davservers"} & value.keys():
                value = self.world.shared(value["provider"]) | value
        else:
            done = self.command(kind, "add", *options(kind, value))
        self.expect(lambda world: world.add(kind, value), done)

    @rule(name=st.sampled_from(NAMES), provider=st.integers(1, 3))
    def add_as_others(self, name: str, provider: int) -> None:
        done = self.command("domain", "add", name, "--provider", str(provider))
        value = {"name": name, "provider": provider} | self.world.shared(provider)
        self.expect(lambda world: world.add("domain", value), done)

    @rule(given=patches(), row_id=IDS, by_command=st.booleans())
    def set(self, given: tuple[str, Item], row_id: int, by_command: bool) -> None:
        kind, patch = given
        if by_command:
            done = self.command(kind, "set", str(row_id), *options(kind, patch), "--yes")
        else:
            done = self.request("PATCH", self.path(kind, row_id), patch)
        self.expect(lambda world: world.set(kind, row_id, patch), done)

    @rule(kind=st.sampled_from(KINDS), row_id=IDS, unlink=st.booleans(), by_command=st.booleans())
    def delete(self, kind: str, row_id: int, unlink: bool, by_command: bool) -> None:
        unlink = unlink and kind not in {"provider", "domain"}
        if by_command:
            words = ["--unlink", "--yes"] if unlink else []
            done = self.command(kind, "del", str(row_id), *words)
        else:
            query = "?unlink=true" if unlink else ""
            done = self.request("DELETE", f"{self.path(kind, row_id)}{query}")
        self.expect(lambda world: world.delete(kind, row_id, unlink=unlink), done)

    @rule(names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=2), provider=IDS)
    def add_several(self, names: list[str], provider: int) -> None:
        done = self.request("POST", "bulk/domains", {"names": names, "provider": provider})

        def change(world: World) -> None:
            for name in names:
                world.add("domain", {"name": name, "provider": provider})

        self.expect(change, done)

    @rule(verb=st.sampled_from(["link", "unlink"]), row_id=IDS, server=IDS)
    def link(self, verb: str, row_id: int, server: int) -> None:
        done = self.command("domain", verb, str(row_id), str(server))

        def change(world: World) -> None:
            if server not in world.rows["server"]:
                raise Refused
            before = set(world.rows["domain"].get(row_id, {}).get("servers", ()))
            after = before | {server} if verb == "link" else before - {server}
            world.set("domain", row_id, {"servers": sorted(after)})

        self.expect(change, done)

    @rule(verb=st.sampled_from(["enable", "disable"]), row_id=IDS)
    def switch(self, verb: str, row_id: int) -> None:
        done = self.command("domain", verb, str(row_id))
        patch = {"disabled": verb == "disable"}
        self.expect(lambda world: world.set("domain", row_id, patch), done)

    @rule(found=documents(), prune=st.booleans())
    def apply(self, found: list[tuple[str, Item]], prune: bool) -> None:
        document: dict[str, Any] = {"version": 2, "origin": ORIGIN}
        tables = {"provider": "providers", "directory": "ldapservers", "domain": "domains"}
        for table in ("providers", "ldapservers", "servers", "domains"):
            document[table] = [
                value for kind, value in found if tables.get(kind, "servers") == table
            ]
        words = ["apply", "-", "--yes", *(["--prune"] if prune else [])]
        done = self.command(*words, stdin=json.dumps(document))
        self.expect(lambda world: world.apply(found, prune=prune), done)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        with Session(self.engine) as session:
            assert list(dangling_references(session)) == []
            wrong = [
                each
                for each in check_rows(session)
                if each.level > Level.OK
                and each.text != "no domain uses this row"
                and "has no mail server" not in each.text
                and each.subject not in {"unused rows", "domains without servers"}
            ]
            assert wrong == []
        for row_id, item in self.world.rows["domain"].items():
            self.check_domain(row_id, item)
        document = automx("export", "--with-secrets", env=self.env)
        assert automx("apply", "-", env=self.env, stdin=document) == "Nothing to do.\n"

    def check_domain(self, row_id: int, item: Item) -> None:
        shown = json.loads(automx("domain", "show", item["name"], "--json", env=self.env))
        assert {name: shown[name] for name in item} == json.loads(json.dumps(item))
        name = item["name"].replace("*", "elsewhere")
        answer = self.client.get(f"/v1.1/{quote(name)}")  # no address: no directory is asked
        types = {self.world.rows["server"][server]["type"] for server in item["servers"]}
        if item["disabled"]:
            assert answer.status_code == 404
        elif types == {"imap", "smtp"}:
            assert answer.status_code == 200
        else:  # the settings are incomplete
            assert answer.status_code == 500


@pytest.fixture
def machine(api: WithKey, database: Path) -> Iterator[type[Administration]]:
    """The machine on a database of the test, which has a key of the API and the first rows."""
    empty = sqlite3.connect(":memory:")
    engine = create_engine(f"sqlite:///{database}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(access, "REQUESTS", 10**9)  # no request is refused for their number
        client = api("admin")
        parts = {"client": client, "database": database, "engine": engine, "empty": empty}
        for kind, value in FIRST:
            answer = client.post(f"{API}/{COLLECTIONS[kind]}", json=value)
            assert answer.status_code == 201
        with closing(sqlite3.connect(database)) as connection:
            connection.backup(empty)
        yield type("Machine", (Administration,), parts)
    engine.dispose()
    empty.close()


def test_any_sequence_of_changes_leaves_whole_rows_that_are_served(
    machine: type[Administration],
) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=20,
            deadline=None,
            derandomize="TEST_EXAMPLES" not in os.environ,
            phases=[Phase.generate],  # to find a shorter sequence takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
