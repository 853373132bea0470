"""Tests of automx.apply: the database holds what a document says, and everything else stays."""

import base64
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from automx import audit, lookup
from automx.apply import apply
from automx.changes import Changes
from automx.changes.plan import Plan
from automx.database import Session, create_engine
from automx.errors import ConflictError, SeedError
from automx.export import export
from automx.models import metadata
from automx.references import dangling_references
from automx.seed import populate, purge
from tests.databases import engine_uri
from tests.examples import DOCUMENT
from tests.test_changes import everything
from tests.test_seed import EVERYTHING, NAMED

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)

HOSTER: dict[str, Any] = {
    "version": 2,
    "origin": "git",
    "providers": [
        {"name": "East", "details": {"color": "#1a5fb4"}},
        {"name": "West", "short_name": "W"},
    ],
    "ldapservers": [{"name": "ldap.example.com", "search_base": "dc=example", "bind_user": "cn=a"}],
    "servers": [
        {"type": "imap", "name": "imap.example.com", "port": 143},
        {"type": "smtp", "name": "smtp.example.com", "prio": 20},
        {"type": "smtp", "name": "smtp.example.com", "port": 587},
        {"type": "caldav", "url": "https://dav.example.com/", "domain_required": False},
    ],
    "domains": [
        {"name": "a.example", "provider": "East"},
        {"name": "b.example", "provider": "West", "davservers": [], "disabled": True},
        {"name": "müller.example", "provider": "East", "ldapserver_id": "ldap.example.com"},
    ],
}


@contextmanager
def opened(uri: str) -> Iterator[Session]:
    engine = create_engine(uri)
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.fixture
def any_session(any_migrated_uri: str) -> Iterator[Session]:
    uri = engine_uri(any_migrated_uri)
    with opened(uri) as session:
        yield session


@pytest.fixture
def session(database: Any) -> Iterator[Session]:
    with opened(f"sqlite:///{database}") as session:
        yield session


def applied(session: Session, document: object, **options: Any) -> Plan:
    """Apply a document and commit; return the plan."""
    session.rollback()
    options = {"actor": "user:root", "now": NOW, "digest": "d" * 64, **options}
    plan = apply(session, document, **options)
    session.commit()
    assert list(dangling_references(session)) == []
    return plan


def refused(session: Session, document: object, **options: Any) -> str:
    """Return why a document is not applied; nothing is changed."""
    before = everything(session)
    with pytest.raises((SeedError, ConflictError)) as caught:
        applied(session, document, **options)
    session.rollback()
    assert everything(session) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edited(path: str, value: object, document: dict[str, Any] = HOSTER) -> dict[str, Any]:
    """Return a document with another value at a path such as ``servers.0.port``; ... deletes it."""
    document = deepcopy(document)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = document
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    elif isinstance(last, int) and last == len(place):
        place.append(value)
    else:
        place[last] = value
    return document


def shown(plan: Plan) -> list[str]:
    """Return the changes of a plan in short lines."""
    lines = [f"+ {each.kind} {each.name}" for each in plan.added]
    lines += [
        f"~ {each.kind} {each.name}: {member} {before} -> {after}"
        for each in plan.changed
        for member, (before, after) in each.difference().items()
    ]
    return lines + [f"- {each.kind} {each.name}" for each in plan.removed]


def exported(session: Session, *, secrets: bool = True) -> Any:
    pieces = export(session, with_secrets=secrets, warn=lambda _: None)
    return json.loads("".join(pieces))


def test_a_document_fills_a_database_and_changes_nothing_later(any_session: Session) -> None:
    plan = applied(any_session, HOSTER)
    assert shown(plan) == [
        "+ provider East",
        "+ provider West",
        "+ directory ldap.example.com",
        "+ server imap.example.com",
        "+ server smtp.example.com",
        "+ server smtp.example.com",
        "+ service https://dav.example.com/",
        "+ domain a.example",
        "+ domain b.example",
        "+ domain müller.example",
    ]
    before = everything(any_session)
    assert before["domain"] == [
        (1, "a.example", 1, None),
        (2, "b.example", 2, None),
        (3, "müller.example", 1, 1),
    ]
    assert before["davserver_domain"] == [(1, 1), (1, 3)]
    assert before["domain_origin"] == [(1, "git"), (2, "git"), (3, "git")]
    assert len(before["server_domain"]) == 9
    assert not applied(any_session, HOSTER, prune=True)
    assert everything(any_session) == before
    assert len(list(audit.entries(any_session))) == 1


@pytest.mark.parametrize("document", [HOSTER, EVERYTHING, NAMED, DOCUMENT])
def test_an_applied_document_leaves_what_a_seed_of_the_same_leaves(
    session: Session, document: dict[str, Any]
) -> None:
    populate(session, document, now=NOW)
    session.commit()
    before = everything(session)
    assert not applied(session, document)
    purge(session)
    session.commit()
    applied(session, document)
    assert everything(session) == before


EDITS: list[tuple[str, object, list[str]]] = [
    ("providers.0.short_name", "Sunrise", ["~ provider East: short_name East -> Sunrise"]),
    (
        "providers.1.short_name",
        ...,
        ["~ provider West: short_name W -> West"],
    ),
    ("providers.0.details", ..., ["~ provider East: details {'color': '#1a5fb4'} -> {}"]),
    (
        "ldapservers.0.port",
        636,
        [
            "~ directory ldap.example.com: port 389 -> 636",
            "~ directory ldap.example.com: use_ssl False -> True",
        ],
    ),
    ("ldapservers.0.bind_user", ..., ["~ directory ldap.example.com: bind_user cn=a -> None"]),
    (
        "servers.0.port",
        ...,
        [
            "~ server imap.example.com: port 143 -> 993",
            "~ server imap.example.com: socket_type STARTTLS -> SSL",
        ],
    ),
    ("servers.1.prio", ..., ["~ server smtp.example.com: prio 20 -> 10"]),
    (
        "servers.3.domain_required",
        ...,
        ["~ service https://dav.example.com/: domain_required False -> True"],
    ),
    ("domains.1.disabled", ..., ["~ domain b.example: disabled True -> False"]),
    ("domains.1.davservers", ..., ["~ domain b.example: davservers () -> (1,)"]),
    ("domains.0.servers", [], ["~ domain a.example: servers (1, 2, 3) -> ()"]),
    ("domains.0.provider", "West", ["~ domain a.example: provider 1 -> 2"]),
    ("domains.2.ldapserver_id", ..., ["~ domain müller.example: ldapserver_id 1 -> None"]),
    (
        "domains.2.name",
        "xn--mller-kva.example",
        ["~ domain xn--mller-kva.example: name müller.example -> xn--mller-kva.example"],
    ),
    (
        "servers.4",
        {"type": "pop", "name": "pop.example.com"},
        [
            "+ server pop.example.com",
            "~ domain a.example: servers (1, 2, 3) -> (1, 2, 3, 4)",
            "~ domain b.example: servers (1, 2, 3) -> (1, 2, 3, 4)",
            "~ domain müller.example: servers (1, 2, 3) -> (1, 2, 3, 4)",
        ],
    ),
    ("domains.3", {"name": "c.example", "provider": "West"}, ["+ domain c.example"]),
    ("domains.0", ..., ["- domain a.example"]),
    (
        "servers.0",
        ...,
        [
            "~ domain a.example: servers (1, 2, 3) -> (2, 3)",
            "~ domain b.example: servers (1, 2, 3) -> (2, 3)",
            "~ domain müller.example: servers (1, 2, 3) -> (2, 3)",
            "- server imap.example.com",
        ],
    ),
    (
        "servers.3.url",
        "https://dav.example.org/",
        [
            "+ service https://dav.example.org/",
            "~ domain a.example: davservers (1,) -> (2,)",
            "~ domain müller.example: davservers (1,) -> (2,)",
            "- service https://dav.example.com/",
        ],
    ),
]


@pytest.mark.parametrize(("path", "value", "changes"), EDITS, ids=[edit[0] for edit in EDITS])
def test_a_change_of_the_document_is_that_change_of_the_database(
    session: Session, path: str, value: object, changes: list[str]
) -> None:
    document = edited(path, value)
    applied(session, HOSTER)
    before = everything(session)
    plan = applied(session, document, prune=True)
    assert shown(plan) == changes
    assert not applied(session, document, prune=True)
    if not any(line[0] in "+-" for line in changes):  # ids would be others
        applied(session, HOSTER)
        assert everything(session) == before


def test_what_was_changed_by_a_command_is_undone(any_session: Session) -> None:
    applied(any_session, HOSTER)
    before = everything(any_session)
    any_session.rollback()
    changes = Changes(any_session, "user:root", now=NOW)
    changes.set("server", 1, {"port": 144, "user_name": "x"})
    changes.set("domain", 1, {"servers": [], "disabled": True, "ldapserver_id": 1})
    changes.set("domain", 2, {"disabled": False, "davservers": [1]})
    changes.set("provider", 1, {"details": {"documentation": [{"url": "https://example.com/"}]}})
    changes.finish()
    any_session.commit()
    assert len(applied(any_session, HOSTER).changed) == 4
    assert everything(any_session) == before


def test_the_password_of_a_directory_changes_only_if_it_is_said(session: Session) -> None:
    said = edited("ldapservers.0.bind_password", "s3cret")
    applied(session, said)
    assert not applied(session, HOSTER)  # as in an export without secrets
    plan = applied(session, edited("ldapservers.0.bind_password", None))
    assert shown(plan) == ["~ directory ldap.example.com: bind_password s3cret -> None"]
    assert "s3cret" not in json.dumps(plan.document())


def test_an_object_with_an_id_is_the_row_of_this_id(session: Session) -> None:
    applied(session, EVERYTHING)
    document = deepcopy(EVERYTHING)
    document["domains"][0]["name"] = "renamed.example"
    document["domains"].append({"id": 70, "name": "example.com", "provider": 3})
    document["servers"][0]["name"] = "imap2.example.com"
    assert shown(applied(session, document)) == [
        "+ domain example.com",
        "~ server imap2.example.com: name imap.example.com -> imap2.example.com",
        "~ domain renamed.example: name example.com -> renamed.example",
    ]


TWINS = [
    {"type": "imap", "name": "imap.example.com"},
    {"type": "imap", "name": "imap.example.com", "user_name": "%EMAILLOCALPART%"},
]


def test_rows_that_only_differ_in_other_members_are_found_if_they_are_equal(
    session: Session,
) -> None:
    document = edited("servers", TWINS)
    applied(session, document)
    assert not applied(session, document)
    assert not applied(session, edited("servers", TWINS[::-1]))
    assert shown(applied(session, edited("servers.1.prio", 5, document))) == [
        "~ server imap.example.com: prio 10 -> 5"
    ]


@pytest.mark.parametrize(
    ("kind", "value", "changed", "rows"),
    [
        (
            "servers",
            TWINS,
            [{"type": "imap", "name": "imap.example.com", "prio": 1}],
            "1 (imap.example.com), 2 (imap.example.com)",
        ),
        (
            "servers",
            [
                {"type": "caldav", "url": "https://dav.example.com/", "port": port}
                for port in (1, 2)
            ],
            [{"type": "caldav", "url": "https://dav.example.com/"}],
            "1 (https://dav.example.com/), 2 (https://dav.example.com/)",
        ),
    ],
)
def test_an_object_that_fits_several_rows_needs_an_id(
    session: Session, kind: str, value: object, changed: object, rows: str
) -> None:
    applied(session, edited(kind, value))
    assert refused(session, edited(kind, changed)) == (
        f"servers[0]: expected an id, found none, and several rows fit: {rows}"
    )


def test_names_of_one_domain_in_two_rows_need_an_id(session: Session) -> None:
    applied(session, HOSTER)
    domain = metadata.tables["domain"]
    session.execute(domain.insert().values(id=9, name="xn--mller-kva.example", provider_id=1))
    session.commit()
    assert refused(session, HOSTER) == (
        "domains[2]: expected an id, found none, and several rows fit: "
        "3 (müller.example), 9 (xn--mller-kva.example)"
    )


def test_an_id_says_which_of_two_rows_for_a_domain_is_meant(session: Session) -> None:
    applied(session, HOSTER)
    domain = metadata.tables["domain"]
    session.execute(domain.insert().values(id=9, name="xn--mller-kva.example", provider_id=1))
    session.commit()
    document = edited("domains.2.id", 9)
    assert refused(session, document) == "The database holds the domain müller.example already"
    document["domains"][2]["name"] = "xn--mller-kva.example"
    plan = applied(session, document)
    assert [(each.kind, each.id) for each in plan.changed] == [("domain", 9)]
    assert not applied(session, document)


NAMES = (
    {1: "b.example", 2: "a.example"},
    {1: "new.example", 2: "a.example"},
    {1: "b.example", 2: "xn--mller-kva.example", 3: "a.example"},
)


def test_domains_swap_their_names(any_session: Session) -> None:
    applied(any_session, HOSTER)
    document = deepcopy(HOSTER)
    for names in NAMES:
        plan = applied(any_session, with_names(document, names))
        assert {each.id: each.name for each in plan.changed} == names
        assert not applied(any_session, with_names(document, names))
        applied(any_session, with_names(document, {}))


def with_names(document: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
    """Return a document that names its domains by ids, some with another name."""
    domains = [
        value | {"id": row_id, "name": names.get(row_id, value["name"])}
        for row_id, value in enumerate(document["domains"], 1)
    ]
    return document | {"domains": domains}


def test_a_name_that_a_domain_gives_up_may_be_that_of_a_new_one(any_session: Session) -> None:
    applied(any_session, HOSTER)
    document = edited("domains.0", {**HOSTER["domains"][0], "id": 1, "name": "moved.example"})
    document["domains"].append(HOSTER["domains"][0])
    plan = applied(any_session, document)
    assert ([each.name for each in plan.added], [each.name for each in plan.changed]) == (
        ["a.example"],
        ["moved.example"],
    )
    assert not applied(any_session, document)


@pytest.mark.parametrize("kind", ["servers", "providers"])
def test_rows_of_other_kinds_swap_their_names(session: Session, kind: str) -> None:
    applied(session, HOSTER)
    document = edited(f"{kind}.0.id", 1)
    first, second = document[kind][:2]
    second["id"] = 2
    first["name"], second["name"] = second["name"], first["name"]
    plan = applied(session, document)
    assert {each.id for each in plan.changed if each.kind == kind[:-1]} == {1, 2}
    assert not applied(session, document)


def test_a_port_is_changed_if_type_and_name_say_which_server_is_meant(session: Session) -> None:
    applied(session, HOSTER)
    plan = applied(session, edited("servers.2.port", 2525))  # there are two of this name
    assert shown(plan)[0] == "+ server smtp.example.com"
    assert [each.kind for each in plan.changed] == ["domain"] * 3


# Origins.


@pytest.fixture
def shared(session: Session) -> Session:
    """A database with rows of HOSTER, and of a second document that uses one of its servers."""
    applied(session, HOSTER)
    second = {
        "version": 2,
        "origin": "other",
        "provider": "Other Inc.",
        "servers": [{"type": "imap", "name": "imap.other.example"}],
        "domains": [{"name": "other.example", "servers": [1]}],
    }
    applied(session, second)
    return session


@pytest.mark.parametrize("origin", ["other", None])
def test_rows_of_another_origin_are_never_changed(shared: Session, origin: str | None) -> None:
    document = HOSTER | {"origin": origin} if origin else edited("origin", ...)
    assert not applied(shared, document)
    document = edited("servers.0.port", 993, edited("domains.0.disabled", True, document))
    assert refused(shared, document) == (
        "Rows of another origin are not changed: server 1 (imap.example.com) of git,"
        " domain a.example of git."
    )


def test_pruning_removes_rows_of_the_same_origin_only(shared: Session) -> None:
    nothing = {"version": 2, "origin": "other", "providers": [], "servers": [], "domains": []}
    assert shown(applied(shared, nothing)) == []
    assert shown(applied(shared, nothing, prune=True)) == [
        "- provider Other Inc.",
        "- server imap.other.example",
        "- domain other.example",
    ]
    assert not applied(shared, HOSTER, prune=True)


def test_pruning_leaves_rows_on_which_others_depend(shared: Session) -> None:
    assert refused(shared, edited("servers.0", ...), prune=True) == (
        "server 1 (imap.example.com) is in use: 1 domain (other.example)"
    )


@pytest.mark.parametrize("number", [0, 30])
def test_pruning_names_all_domains_with_tokens_or_accounts(session: Session, number: int) -> None:
    more = [{"name": f"d{i}.example", "provider": "East"} for i in range(number)]
    applied(session, edited("domains", [*HOSTER["domains"], *more]))
    token, account = metadata.tables["token"], metadata.tables["account"]
    values: dict[str, Any] = dict.fromkeys(token.columns.keys(), "") | {"maxuse": 0, "usecount": 0}
    values |= {"is_revoked": False, "spare_active": False, "created_at": NOW, "valid_until": None}
    session.execute(token.insert(), values | {"id": 1, "name": "t", "domain": "a.example"})
    values = dict.fromkeys(account.columns.keys(), "") | {"token_id": 1, "id": 1}
    values |= {"created_at": NOW, "changed_at": NOW, "expires_at": None, "warned_at": None}
    session.execute(account.insert(), values | {"address": "x@xn--mller-kva.example"})
    session.commit()
    error = refused(session, edited("domains", []), prune=True)
    assert error == (
        "domain a.example is in use: 1 token (t); "
        "domain müller.example is in use: 1 account (x@xn--mller-kva.example)"
    )


def test_rows_without_origin_get_that_of_the_document(any_session: Session) -> None:
    without = edited("origin", ...)
    applied(any_session, without)
    plan = applied(any_session, without, origin="git")
    assert len(plan.changed) == 10
    assert {each.difference()["origin"] for each in plan.changed} == {(None, "git")}
    assert not applied(any_session, HOSTER)
    [entry] = list(audit.entries(any_session))[1:]
    kinds = {"provider": 2, "directory": 1, "server": 3, "service": 1, "domain": 3}
    assert entry.details == {"numbers": {"adopt": kinds}, "digest": "d" * 64}


@pytest.mark.parametrize(
    ("document", "options", "error"),
    [
        (HOSTER, {"origin": "svn"}, "origin: the document says git, the command says svn"),
        (
            edited("origin", ...),
            {"prune": True},
            "origin: expected a name, because only rows of one origin are pruned, found none",
        ),
        (edited("origin", 7), {}, "origin: expected a text of 1 to 64 characters without control"),
        *(
            (
                edited("origin", name),
                {},
                f"origin: expected a name that does not begin with key: or source:, found {name}",
            )
            for name in ("source:mail", "Key:shop")
        ),
    ],
)
def test_it_must_be_clear_what_rows_come_from(
    session: Session, document: object, options: dict[str, Any], error: str
) -> None:
    assert refused(session, document, **options).startswith(error)


# One transaction.


def test_a_dry_run_changes_nothing_and_finds_the_same(any_session: Session) -> None:
    applied(any_session, HOSTER)
    document = edited("servers.0", ..., edited("domains.0", ...))
    before, entries = everything(any_session), len(list(audit.entries(any_session)))
    plan = applied(any_session, document, prune=True, dry_run=True)
    assert everything(any_session) == before
    assert len(list(audit.entries(any_session))) == entries
    assert applied(any_session, document, prune=True, expected=plan).is_like(plan)


def test_a_plan_that_was_agreed_to_is_not_another_one(session: Session) -> None:
    applied(session, HOSTER)
    document = edited("servers.0.port", 993)
    plan = applied(session, document, dry_run=True)
    applied(session, edited("servers.0.prio", 5))
    assert refused(session, document, expected=plan) == (
        "Meanwhile, the database was changed: look at the new plan."
    )


def test_what_was_applied_is_found_and_is_one_entry_of_the_audit(session: Session) -> None:
    applied(session, HOSTER, digest="a" * 64)
    config = lookup.find(session, "a.example").config
    assert [server.hostname for server in config.mail_servers] == [
        "imap.example.com",
        "smtp.example.com",
        "smtp.example.com",
    ]
    [entry] = audit.entries(session)
    numbers = {"provider": 2, "directory": 1, "server": 3, "service": 1, "domain": 3}
    assert entry._replace(id=0) == audit.Entry(
        0, NOW, "user:root", "bulk", "", "", {"numbers": {"add": numbers}, "digest": "a" * 64}
    )


def test_domains_that_stay_cost_no_statement_each(session: Session) -> None:
    document = edited(
        "domains", [{"name": f"d{i}.example", "provider": "East"} for i in range(1_200)]
    )
    applied(session, document)
    statements: list[str] = []
    event.listen(
        session.engine, "before_cursor_execute", lambda _, __, text, *___: statements.append(text)
    )
    applied(session, edited("domains.700.disabled", True, document))
    assert len(statements) < 100


KILLED = """
import json, os, signal, sys
from datetime import UTC, datetime
from sqlalchemy import Engine, event
from automx.apply import apply
from automx.database import open_session

@event.listens_for(Engine, "after_cursor_execute")
def kill(connection, cursor, statement, *_):
    if sys.argv[2] in statement:
        os.kill(os.getpid(), signal.SIGKILL)

with open_session(sys.argv[1]) as session:
    document = json.load(sys.stdin)
    apply(session, document, actor="user:root", now=datetime.now(UTC), digest="", prune=True)
"""


def test_an_apply_that_is_killed_leaves_all_or_nothing(any_migrated_uri: str) -> None:
    uri = engine_uri(any_migrated_uri)
    document = edited("servers.0", ..., edited("domains.0", ...))
    document["domains"].append({"name": "c.example", "provider": "West"})
    with opened(uri) as session:
        applied(session, HOSTER)
        before = everything(session)
    places = ["INSERT INTO domain_origin", "DELETE FROM server ", "INSERT INTO audit"]
    for statement in places:
        command = [sys.executable, "-c", KILLED, uri, statement]
        killed = subprocess.run(command, input=json.dumps(document), text=True, check=False)
        assert killed.returncode == -signal.SIGKILL
        with opened(uri) as session:
            assert everything(session) == before
    with opened(uri) as session:
        assert len(applied(session, document, prune=True).removed) == 2


WAITING = """
import json, signal, sys
from datetime import UTC, datetime
from sqlalchemy import Engine, event
from automx.apply import apply
from automx.database import open_session

@event.listens_for(Engine, "after_cursor_execute")
def wait(connection, cursor, statement, *_):
    if statement.startswith(sys.argv[2]):
        print("in the middle", flush=True)
        signal.pause()

with open_session(sys.argv[1]) as session:
    document = json.load(sys.stdin)
    apply(session, document, actor="user:root", now=datetime.now(UTC), digest="")
"""


def test_ten_thousand_domains_are_applied_or_none(any_migrated_uri: str) -> None:
    """The program is killed when it has inserted the domains, and before their servers."""
    uri = engine_uri(any_migrated_uri)
    domains = [{"name": f"d{number}.example", "provider": "East"} for number in range(10_000)]
    document = edited("domains", domains)
    command = [sys.executable, "-c", WAITING, uri, "INSERT INTO server_domain"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(document))
        process.stdin.close()
        assert process.stdout.readline() == "in the middle\n"
        process.kill()
    with opened(uri) as session:
        assert {name: rows for name, rows in everything(session).items() if rows} == {}
        assert list(audit.entries(session)) == []
        assert len(applied(session, HOSTER).added) == 10  # no lock is left


# Any database.

_HOSTS = st.sampled_from(["a.example.com", "b.example.com", "xn--mller-kva.de", "192.0.2.1"])
_SERVERS = st.fixed_dictionaries(
    {"type": st.sampled_from(["imap", "pop3", "smtp", "sieve"]), "name": _HOSTS},
    optional={
        "port": st.sampled_from([25, 143, 465, 993]),
        "prio": st.integers(-1, 1),
        "socket_type": st.sampled_from(["ssl", "STARTTLS", "", "none"]),
        "user_name": st.sampled_from(["", "%emailaddress%", "x"]),
        "authentication": st.sampled_from(["plain", "OAuth2 plain", ""]),
    },
)
_SERVICES = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["caldav", "jmap"]),
        "url": st.sampled_from(["http://a.de", "b.de/x"]),
    },
    optional={"port": st.integers(0, 2), "use_ssl": st.booleans(), "user_name": st.none()},
)
_IMAGE = {"type": "image/png", "width": 1, "height": 1, "data": base64.b64encode(b"x").decode()}
_DETAILS = st.fixed_dictionaries(
    {},
    optional={
        "webmail_url": st.sampled_from(["https://example.com/", "", None]),
        "logo": st.just(_IMAGE),
        "oauth2": st.just({"issuer": "a", "scope": "b"}),
        "documentation": st.lists(
            st.fixed_dictionaries(
                {"url": st.just("https://example.com/")}, optional={"lang": st.just("no")}
            ),
            max_size=2,
        ),
    },
)
_PROVIDERS = st.fixed_dictionaries(
    {"name": st.sampled_from(["One", "Two Inc.", "Three"])},
    optional={"short_name": st.just("x"), "details": _DETAILS},
)
_DIRECTORIES = st.fixed_dictionaries(
    {"name": _HOSTS, "search_base": st.sampled_from(["", "dc=a", "ou=" + "x" * 500])},
    optional={
        "port": st.sampled_from([0, 636]),
        "attr_cn": st.none(),
        "bind_password": st.just(" x "),
        "login_name": st.just("A\\{uid}"),
    },
)


@st.composite
def _documents(draw: Any) -> dict[str, Any]:
    ids = st.integers(-1, 20)

    def some(objects: st.SearchStrategy[Any], least: int) -> list[dict[str, Any]]:
        found = draw(st.lists(objects, min_size=least, max_size=3))
        numbers = draw(st.lists(ids, min_size=len(found), max_size=len(found), unique=True))
        return [{"id": number, **each} for number, each in zip(numbers, found, strict=True)]

    providers, directories = some(_PROVIDERS, 1), some(_DIRECTORIES, 0)
    servers, services = some(_SERVERS, 0), some(_SERVICES, 0)
    names = draw(
        st.lists(st.sampled_from(["a.de", "*.a.de", "*", "müller.de", "B.de"]), unique=True)
    )
    domains: list[dict[str, Any]] = []
    for name in names:
        domain = {"name": name, "provider": draw(st.sampled_from(providers))["id"]}
        for key, rows in (("servers", servers), ("davservers", services)):
            if rows and draw(st.booleans()):
                domain[key] = draw(st.lists(st.sampled_from([row["id"] for row in rows])))
        if directories and draw(st.booleans()):
            domain["ldapserver_id"] = draw(st.sampled_from(directories))["id"]
        domain["disabled"] = draw(st.booleans())
        domains.append(domain)
    return {
        "version": 2,
        "providers": providers,
        "ldapservers": directories,
        "servers": servers + services,
        "domains": domains,
    }


def _without_domain_ids(session: Session) -> Any:
    document = exported(session, secrets=False)
    for domain in document["domains"]:
        domain.pop("id", None)
    document["domains"].sort(key=lambda domain: domain["name"])
    return document


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(old=_documents(), new=_documents(), secrets=st.booleans())
def test_any_database_stays_as_its_export_says_and_becomes_as_any_document_says(
    session: Session, old: dict[str, Any], new: dict[str, Any], secrets: bool
) -> None:
    purge(session)
    session.commit()
    applied(session, old, origin="a")
    before = everything(session)
    assert not applied(session, exported(session, secrets=secrets))
    assert not applied(session, exported(session), origin="a", prune=True)
    assert everything(session) == before
    refusal = ""
    try:
        applied(session, new, origin="a", prune=True)
    except ConflictError as error:
        refusal = str(error)
    session.rollback()
    if refusal:  # two domains take each other's name
        assert refusal.startswith("The database holds the domain ")
        assert everything(session) == before
        return
    found = _without_domain_ids(session)
    session.rollback()
    purge(session)
    session.commit()
    applied(session, new, origin="a")
    assert _without_domain_ids(session) == found
