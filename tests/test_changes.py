"""Tests of automx.changes: what a change does to the rows, and what it leaves behind."""

import base64
import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import select, text

from automx import audit, lookup
from automx.accounts import tokens
from automx.changes import Change, Changes, selection, stored
from automx.changes.bulk import NewDomain, add_domains
from automx.database import Session, create_engine, open_session
from automx.errors import ConflictError, SeedError, UnknownRowError
from automx.members import TABLES
from automx.models import RECORDS, metadata
from automx.references import dangling_references
from automx.seed import populate
from automx.seeddocument import SAMPLE
from tests.databases import engine_uri

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)

# An object of each kind, and a change of each of its members.
NEW: dict[str, dict[str, Any]] = {
    "provider": {"name": "New Mail Inc."},
    "directory": {"name": "ldap.example.com", "search_base": "dc=example"},
    "server": {"type": "imap", "name": "new.example.com"},
    "service": {"type": "caldav", "url": "https://new.example.com/"},
    "domain": {"name": "new.example.com", "provider": 1},
}
IMAGE = base64.b64encode(b"image").decode()
PATCHES: dict[str, dict[str, Any]] = {
    "provider": {
        "name": "Old Mail Inc.",
        "short_name": "Old",
        "details": {
            "webmail_url": "https://mail.example.com/",
            "color": "#1a5fb4",
            "logo": {"type": "image/png", "width": 1, "height": 2, "data": IMAGE},
            "oauth2": {"issuer": "login.example.com"},
            "documentation": [{"url": "https://help.example.com/", "lang": "en"}],
        },
    },
    "directory": {
        "name": "ldap.example.org",
        "port": 636,
        "use_ssl": True,
        "search_base": "dc=example; dc=org",
        "search_filter": f"(|{'(mail={0})' * 20})",
        "attr_uid": "sAMAccountName",
        "attr_cn": None,
        "bind_password": "secret",
        "bind_user": "cn=reader",
        "login_name": "CORP\\{uid}",
    },
    "server": {
        "type": "pop",
        "name": "old.example.com",
        "port": 110,
        "prio": 20,
        "socket_type": "STARTTLS",
        "user_name": "%EMAILLOCALPART%",
        "authentication": "secure OAuth2",
    },
    "service": {
        "type": "carddav",
        "url": "http://old.example.com/",
        "port": 8080,
        "use_ssl": False,
        "domain_required": False,
        "user_name": "%EMAILLOCALPART%",
    },
    "domain": {
        "name": "old.example.com",
        "provider": 2,
        "ldapserver_id": 1,
        "servers": [1, 3],
        "davservers": [2],
        "disabled": True,
    },
}


def fill(uri: str) -> None:
    """Put the sample, a second provider and a directory into a database."""
    with open_session(uri) as session:
        populate(session, SAMPLE)
        changes = Changes(session, "user:root", now=NOW)
        changes.add("provider", {"name": "Second"})
        changes.add("directory", NEW["directory"])
        changes.finish()


@pytest.fixture
def any_database(any_migrated_uri: str) -> str:
    """Return the URI of a filled database, of each engine in turn."""
    uri = engine_uri(any_migrated_uri)
    fill(uri)
    return uri


@contextlib.contextmanager
def opened(uri: str) -> Iterator[Session]:
    engine = create_engine(uri)
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.fixture
def any_session(any_database: str) -> Iterator[Session]:
    """A session of a filled database, of each engine in turn."""
    with opened(any_database) as session:
        yield session


@pytest.fixture(scope="module")
def filled(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled SQLite file, to be copied."""
    path = tmp_path_factory.mktemp("changes") / "filled.sqlite"
    path.write_bytes(empty_database.read_bytes())
    fill(f"sqlite:///{path}")
    return path


@pytest.fixture
def session(filled: Path, tmp_path: Path) -> Iterator[Session]:
    """A session of a filled SQLite file: most rules are the same on each engine."""
    path = tmp_path / "automx.sqlite"
    path.write_bytes(filled.read_bytes())
    with opened(f"sqlite:///{path}") as session:
        yield session


def everything(session: Session) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows but those that tell of changes."""
    return {
        name: [tuple(row) for row in session.execute(select(table).order_by(*table.primary_key))]
        for name, table in metadata.tables.items()
        if name not in RECORDS
    }


def one(session: Session, method: str, *arguments: Any, **options: Any) -> Change:
    """Make one change, commit it and return it."""
    session.rollback()
    changes = Changes(session, "user:root", now=NOW)
    change = getattr(changes, method)(*arguments, **options)
    changes.finish()
    session.commit()
    assert isinstance(change, Change)
    return change


def last_entry(session: Session) -> audit.Entry:
    return list(audit.entries(session))[-1]


@pytest.mark.parametrize("member", ["servers", "davservers", "ldapserver_id", "disabled"])
def test_null_is_the_default_of_a_member_of_a_domain(session: Session, member: str) -> None:
    row_id = one(session, "add", "domain", NEW["domain"]).id
    before = stored.item(session, "domain", row_id)
    one(session, "set", "domain", row_id, {member: PATCHES["domain"][member]})
    one(session, "set", "domain", row_id, {member: None})
    assert stored.item(session, "domain", row_id) == before


def test_a_domain_cannot_lose_its_provider(session: Session) -> None:
    row_id = one(session, "add", "domain", NEW["domain"]).id
    with pytest.raises(SeedError, match=r"^provider: expected the id of a provider$"):
        one(session, "set", "domain", row_id, {"provider": None})


@pytest.mark.parametrize("kind", NEW)
def test_a_row_that_was_added_is_the_item_that_was_reported(session: Session, kind: str) -> None:
    change = one(session, "add", kind, NEW[kind])
    assert change.before is None
    assert stored.item(session, kind, change.id) == change.after
    assert list(dangling_references(session)) == []


@pytest.mark.parametrize("kind", NEW)
def test_a_row_of_which_everything_is_said_can_be_added(session: Session, kind: str) -> None:
    domain = {"servers": [1, 3], "davservers": [2]} if kind == "domain" else {}
    change = one(session, "add", kind, NEW[kind] | PATCHES[kind] | domain)
    assert stored.item(session, kind, change.id) == change.after


def test_details_that_are_null_are_none(session: Session) -> None:
    nothing = dict.fromkeys(("webmail_url", "help_url", "support_address", "color"))
    change = one(session, "add", "provider", {"name": "New", "details": nothing})
    assert stored.item(session, "provider", change.id) == change.after
    session.rollback()
    changes = Changes(session, "user:root", now=NOW)
    assert changes.set("provider", change.id, {"details": nothing}) is None


@pytest.mark.parametrize(
    ("kind", "member"), [(kind, member) for kind in PATCHES for member in PATCHES[kind]]
)
def test_each_member_can_be_changed_and_changed_back(
    session: Session, kind: str, member: str
) -> None:
    row_id = one(session, "add", kind, NEW[kind]).id
    before = everything(session)
    item = stored.item(session, kind, row_id)
    assert item is not None

    change = one(session, "set", kind, row_id, {member: PATCHES[kind][member]})

    assert stored.item(session, kind, row_id) == change.after != item
    assert change.difference().keys() == {member}
    back = item[member]
    if member == "details":
        back = dict.fromkeys(PATCHES[kind][member])
    one(session, "set", kind, row_id, {member: list(back) if isinstance(back, tuple) else back})
    assert stored.item(session, kind, row_id) == item
    assert everything(session) == before


def test_adding_and_deleting_leaves_nothing_but_the_audit(any_session: Session) -> None:
    session, before = any_session, everything(any_session)
    for kind, value in NEW.items():
        row_id = one(session, "add", kind, value).id
        change = one(session, "set", kind, row_id, PATCHES[kind])
        assert stored.item(session, kind, row_id) == change.after
        one(session, "delete", kind, row_id)
        assert everything(session) == before
        assert [entry.action for entry in audit.entries(session)][-3:] == ["add", "set", "delete"]


@pytest.mark.parametrize("kind", NEW)
def test_a_dry_run_changes_nothing(session: Session, kind: str) -> None:
    before, entries = everything(session), len(list(audit.entries(session)))
    session.rollback()
    changes = Changes(session, "user:root", now=NOW, dry_run=True)
    row_id = changes.add(kind, NEW[kind]).id
    changes.set(kind, row_id, PATCHES[kind])
    changes.delete(kind, row_id)
    changes.finish()
    session.commit()
    assert [change.action for change in changes.made] == ["add", "set", "delete"]
    assert everything(session) == before
    assert len(list(audit.entries(session))) == entries


@pytest.mark.parametrize(
    ("kind", "row_id", "reason"),
    [
        (
            "provider",
            1,
            "provider 1 (Example Mail Services) is in use: {}",
        ),
        (
            "server",
            2,
            "server 2 (pop3.example.com) is in use: {}",
        ),
        (
            "service",
            1,
            "service 1 (https://dav.example.com/calendars/%EMAILADDRESS%/) is in use: {}",
        ),
        ("directory", 1, "directory 1 (ldap.example.com) is in use: 1 domain (example.com)"),
    ],
)
def test_a_row_that_others_need_is_not_deleted(
    session: Session, kind: str, row_id: int, reason: str
) -> None:
    one(session, "set", "domain", 1, {"ldapserver_id": 1})
    before = everything(session)
    with pytest.raises(ConflictError) as caught:
        one(session, "delete", kind, row_id)
    domains = "3 domains (example.com, example.net, example.org)"
    assert str(caught.value) == reason.format(domains)
    session.rollback()
    assert everything(session) == before
    if kind != "provider":
        one(session, "delete", kind, row_id, unlink=True)
        assert stored.item(session, kind, row_id) is None
        assert list(dangling_references(session)) == []


@pytest.mark.parametrize(
    ("kind", "patch", "reason"),
    [
        ("server", {"port": 0}, "port: expected a whole number from 1 to 65535, found 0"),
        ("server", {"colour": 1}, 'the document: the key "colour" is not known here'),
        ("server", {"id": 7}, "id: the id of a row cannot be changed"),
        ("server", {"type": "caldav"}, 'type: expected that of a mail server, found "caldav"'),
        ("domain", {"provider": 7}, "domain.provider: expected the id of a provider in this"),
        ("domain", {"servers": [1, 7]}, "domain.servers: expected the id of a server in this"),
        ("domain", {"name": "EXAMPLE.net"}, "The database holds the domain example.net already"),
        ("provider", {"details": {"color": "red"}}, "details.color: expected a colour such as"),
    ],
)
def test_a_change_that_no_client_could_use_is_refused(
    session: Session, kind: str, patch: dict[str, Any], reason: str
) -> None:
    before = everything(session)
    with pytest.raises((SeedError, ConflictError)) as caught:
        one(session, "set", kind, 1, patch)
    assert str(caught.value).startswith(reason)
    session.rollback()
    assert everything(session) == before


@pytest.mark.parametrize("kind", TABLES)
def test_a_row_that_does_not_exist_cannot_be_changed(session: Session, kind: str) -> None:
    arguments: tuple[tuple[str, list[object]], ...] = (("set", [{}]), ("delete", []))
    for method, options in arguments:
        with pytest.raises(UnknownRowError, match=f"^There is no {kind} 99.$"):
            one(session, method, kind, 99, *options)


def test_of_two_administrators_who_saw_the_same_row_one_gets_a_conflict(any_database: str) -> None:
    both = Barrier(2)

    def change(port: int) -> str:
        with open_session(any_database) as session:
            seen = stored.item(session, "server", 1)
            both.wait(20)
            session.rollback()
            try:
                changes = Changes(session, f"user:{port}", now=NOW)
                changes.set("server", 1, {"port": port}, expected=seen)
                changes.set("server", 2, {"port": port})
                changes.finish()
            except ConflictError as error:
                session.rollback()
                return str(error)
        return ""

    with ThreadPoolExecutor(2) as threads:
        answers = sorted(threads.map(change, (1, 2)))

    assert answers == [
        "",
        "Meanwhile, server 1 (imap.example.com) was changed: look at it again.",
    ]
    with open_session(any_database) as session:
        ports = [item["port"] for _, item in stored.items(session, "server", [1, 2])]
        assert ports in ([1, 1], [2, 2])
        assert [e.actor for e in audit.entries(session)][-2:] == [f"user:{ports[0]}"] * 2


@pytest.fixture
def twins(any_session: Session) -> Session:
    """A database in which two rows are the domain müller.example, as in one of automx2."""
    domain = metadata.tables["domain"]
    for row_id, name in ((21, "Müller.example"), (22, "xn--mller-kva.example")):
        any_session.execute(domain.insert().values(id=row_id, name=name, provider_id=1))
    token = tokens.add(any_session, "party", "xn--mller-kva.example", now=NOW)
    assert token.domain_row is not None
    any_session.commit()
    return any_session


def test_one_of_two_rows_for_a_domain_can_be_changed(twins: Session) -> None:
    patches: list[dict[str, Any]] = [
        {"disabled": True},
        {"provider": 2},
        {"servers": [1]},
        {"ldapserver_id": 1, "provider": 1},
    ]
    for row_id in (21, 22):
        other = stored.item(twins, "domain", 43 - row_id)
        for patch in patches:
            change = one(twins, "set", "domain", row_id, patch)
            assert change.difference().keys() == patch.keys()
            assert stored.item(twins, "domain", row_id) == change.after
        assert stored.item(twins, "domain", 43 - row_id) == other
    # The spelling stays.
    spelled = {21: "Müller.example", 22: "xn--mller-kva.example"}
    assert selection.names(twins, "domain", [21, 22]) == spelled
    one(twins, "set", "domain", 21, {"name": "mueller.example"})
    one(twins, "set", "domain", 22, {"name": "müller.example"})


def test_one_of_two_rows_for_a_domain_can_be_deleted_and_the_last_one_is_needed(
    twins: Session,
) -> None:
    in_use = r"is in use: 1 token \(party\)$"
    changes = Changes(twins, "user:root", now=NOW)
    with pytest.raises(ConflictError, match=in_use):
        changes.remove("domain", [item for _, item in stored.items(twins, "domain", [21, 22])])
    one(twins, "delete", "domain", 22)
    with pytest.raises(ConflictError, match=in_use):
        one(twins, "delete", "domain", 21)


def test_no_row_gets_the_name_of_another_one(twins: Session) -> None:
    for name in ("example.com", "Example.COM", "MÜLLER.example"):
        with pytest.raises(ConflictError, match=r"^The database holds the domain .* already$"):
            one(twins, "set", "domain", 2, {"name": name})
        twins.rollback()


def test_a_name_that_is_no_domain_name_can_be_corrected_or_deleted(session: Session) -> None:
    domain = metadata.tables["domain"]
    for row_id, name in ((21, "no domain"), (22, "..")):
        session.execute(domain.insert().values(id=row_id, name=name, provider_id=1))
    session.commit()
    one(session, "delete", "domain", 21)
    one(session, "set", "domain", 22, {"name": "good.example"})
    assert dict(stored.items(session, "domain", [21, 22]))[22]["name"] == "good.example"


def test_domains_swap_their_names(any_session: Session) -> None:
    for renames in (
        {1: "example.net", 2: "example.com"},
        {1: "new.example", 2: "example.net"},
        {1: "example.org", 2: "new.example", 3: "example.net"},
    ):
        any_session.rollback()
        changes = Changes(any_session, "user:root", now=NOW)
        items = [item for _, item in stored.items(any_session, "domain", renames)]
        changes.replace("domain", [(item, item | {"name": renames[item["id"]]}) for item in items])
        changes.finish()
        any_session.commit()
        assert selection.names(any_session, "domain", renames) == renames
        entries = list(audit.entries(any_session))[-len(renames) :]
        assert {entry.details["after"]["name"] for entry in entries} == {*renames.values()}


def test_a_name_that_is_kept_is_not_free(session: Session) -> None:
    session.rollback()
    changes = Changes(session, "user:root", now=NOW)
    items = [item for _, item in stored.items(session, "domain", [1, 2])]
    pairs = [(items[0], items[0] | {"name": "example.net"}), (items[1], items[1] | {"provider": 2})]
    with pytest.raises(ConflictError, match=r"^The database holds the domain example.net already$"):
        changes.replace("domain", pairs)


def test_a_row_of_another_origin_is_left_alone(session: Session) -> None:
    changes = Changes(session, "user:root", now=NOW, origin="git")
    row_id = changes.add("server", NEW["server"]).id
    changes.set("server", row_id, {"port": 143})
    changes.set("server", 1, {"port": 144})  # it has no origin
    changes.finish()
    session.commit()
    assert stored.origins(session, "server", [1, row_id]) == {row_id: "git"}
    other = Changes(session, "user:root", now=NOW, origin="sync")
    reason = f"The origin of server {row_id} (new.example.com) is git, not sync."
    with pytest.raises(ConflictError) as caught:
        other.set("server", row_id, {})
    assert str(caught.value) == reason
    with pytest.raises(ConflictError) as caught:
        other.delete("server", row_id)
    assert str(caught.value) == reason


def test_the_audit_tells_what_was_changed_and_no_secret(session: Session) -> None:
    row_id = one(session, "add", "directory", NEW["directory"] | {"bind_password": "s3cret"}).id
    assert last_entry(session).details["after"]["bind_password"] == "***"
    one(session, "set", "directory", row_id, {"bind_password": "s4cret", "port": 390})
    entry = last_entry(session)
    assert entry._replace(id=0) == audit.Entry(
        0,
        NOW,
        "user:root",
        "set",
        "directory",
        "ldap.example.com",
        {
            "kind": "directory",
            "id": row_id,
            "name": "ldap.example.com",
            "before": {"port": 389, "bind_password": "***"},
            "after": {"port": 390, "bind_password": "***"},
        },
    )


def test_bulk_work_is_one_entry_with_numbers_and_a_digest(session: Session) -> None:
    changes = Changes(session, "initdb", now=NOW)
    for number in range(101):
        changes.add("domain", {"name": f"d{number}.test", "provider": 1, "servers": [1]})
    changes.finish()
    entry = last_entry(session)
    assert (entry.action, entry.kind, entry.name) == ("bulk", "", "")
    assert entry.details["numbers"] == {"add": {"domain": 101}}
    assert len(entry.details["digest"]) == 64


def test_the_entries_of_a_domain_are_found_by_each_of_its_names(any_session: Session) -> None:
    session = any_session
    row_id = one(session, "add", "domain", {"name": "MÜLLER.example", "provider": 1}).id
    one(session, "set", "domain", row_id, {"disabled": True})
    found = list(audit.entries(session, domain="müller.example", since=NOW))
    assert [entry.action for entry in found] == ["add", "set"]
    assert found == list(audit.entries(session, domain="xn--mller-kva.example"))
    assert list(audit.entries(session, domain="example.com")) == []
    assert audit.delete_before(session, NOW.replace(year=2027)) > 2
    assert list(audit.entries(session)) == []


def test_what_is_added_is_found_by_look_ups(session: Session) -> None:
    one(session, "add", "domain", {"name": "new.test", "provider": 1, "servers": [1, 3]})
    config = lookup.find(session, "new.test").config
    assert [server.hostname for server in config.mail_servers] == [
        "imap.example.com",
        "smtp.example.com",
    ]


def test_rows_of_another_origin_are_changed_only_on_purpose(session: Session) -> None:
    made = Changes(session, "key:a", now=NOW, origin="key:a").add("server", NEW["server"])
    patch = {"port": 143}
    with pytest.raises(ConflictError, match="The origin of server"):
        Changes(session, "key:b", now=NOW, origin="key:b").set("server", made.id, patch)
    others = Changes(session, "key:b", now=NOW, origin="key:b", changes_others=True)
    assert others.set("server", made.id, patch)
    assert stored.origins(session, "server", [made.id]) == {made.id: "key:a"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("müller.example", "xn--mller-kva.example"),
        ("xn--mller-kva.example", "MÜLLER.example"),
        ("*.müller.example", "*.xn--mller-kva.example"),
    ],
)
def test_a_domain_is_added_once_in_any_spelling(session: Session, first: str, second: str) -> None:
    changes = Changes(session, "key:a", now=NOW)
    changes.add("domain", {"name": first, "provider": 1})
    with pytest.raises(ConflictError, match=r"holds the domain .+ already"):
        changes.add("domain", {"name": second, "provider": 1})


def test_a_domain_loses_its_servers_but_not_its_provider_by_null(session: Session) -> None:
    changes = Changes(session, "key:a", now=NOW)
    changed = changes.set("domain", 1, {"servers": None, "davservers": None})
    assert changed
    assert changed.after
    assert (changed.after["servers"], changed.after["davservers"]) == ((), ())
    with pytest.raises(SeedError, match="provider: expected the id of a provider"):
        changes.set("domain", 1, {"provider": None})


def test_postgresql_knows_that_domains_are_many_before_it_looks_for_more(
    migrated_postgresql: str,
) -> None:
    uri = engine_uri(migrated_postgresql)
    with open_session(uri) as session:
        changes = Changes(session, "user:alice", now=NOW)
        provider = changes.add("provider", NEW["provider"]).id
        new = [
            NewDomain({"name": f"d{n}.example", "provider": provider}, "x") for n in range(2_500)
        ]
        add_domains(changes, new, len(new))
        counted = text("SELECT reltuples FROM pg_class WHERE relname = 'domain'")
        assert session.scalar(counted) >= 2_000
