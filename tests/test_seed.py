"""Tests of automx.seed and its commands: from documents to rows and back to documents."""

import contextlib
import json
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Select, Table, event, insert, select, text

from automx import schema
from automx.database import Session, begin_snapshot, create_engine, open_session
from automx.errors import ConflictError, SeedError
from automx.export import export
from automx.models import RECORDS, Server, metadata
from automx.seed import Counts, count, is_empty, populate, purge
from automx.seeddocument import SAMPLE, parse
from tests.commandline import attempt, automx
from tests.databases import engine_uri
from tests.processes import REPOSITORY

# What a document can hold, with ids that no empty database would give.
EVERYTHING: dict[str, Any] = {
    "version": 2,
    "providers": [
        {"id": 3, "name": "Example Inc.", "short_name": "Ex"},
        {"id": 8, "name": "Muster GmbH & Söhne"},
    ],
    "ldapservers": [
        {
            "id": 2,
            "name": "ldap.example.com",
            "port": 636,
            "use_ssl": True,
            "search_base": "dc=example,dc=com",
            "search_filter": "(mail={0})",
            "attr_uid": "uid",
            "attr_cn": None,
            "bind_password": ' "secret" ',
            "bind_user": "cn=reader",
        },
        {
            "id": 4,
            "name": "ldapi://%2Frun%2Fldapi",
            "port": 0,
            "use_ssl": False,
            "search_base": f"ou=staff,dc=example; ou={'x' * 980},dc=example",
            "search_filter": f"(|(mail={{0}})(cn={'x' * 490}))",
            "attr_uid": "sAMAccountName",
            "attr_cn": None,
            "bind_password": None,
            "bind_user": None,
            "login_name": "CORP\\{uid}",
        },
    ],
    "servers": [
        {"id": 101, "type": "imap", "name": "imap.example.com", "port": 993},
        {"id": 103, "type": "pop", "name": "pop.example.com", "port": 110, "prio": 20},
        {
            "id": 104,
            "type": "smtp",
            "name": "smtp.%EMAILDOMAIN%",
            "port": 2525,
            "prio": 5,
            "socket_type": "plain",
            "user_name": "%EMAILLOCALPART%",
            "authentication": "OAuth2 plain",
        },
        {"id": 7, "type": "caldav", "url": "https://dav.example.com/%EMAILADDRESS%/"},
        {
            "id": 9,
            "type": "webdav",
            "url": "HTTP://files.example.com/",
            "port": 8080,
            "use_ssl": True,
            "domain_required": False,
        },
    ],
    "domains": [
        {"id": 50, "name": "example.com", "provider": 3},
        {"id": 51, "name": "müller.de", "provider": 8, "ldapserver_id": 2, "servers": [101, 104]},
        {"id": 55, "name": "off.example", "provider": 8, "disabled": True},
        {"id": 60, "name": "*.example.com", "provider": 3, "davservers": [9]},
        {"id": 61, "name": "*", "provider": 3, "servers": [], "davservers": []},
    ],
}


@pytest.fixture
def session(database: Path) -> Iterator[Session]:
    """Open a session on an empty SQLite database."""
    with open_session(f"sqlite:///{database}") as session:
        yield session


@pytest.fixture
def any_database(any_migrated_uri: str) -> str:
    """Return the engine's URI of an empty migrated database, of each engine in turn."""
    return engine_uri(any_migrated_uri)


def _all_but_time(table: Table) -> Select[Any]:
    """Return the query for the rows of a table: since when a domain is off is not exported."""
    columns = [column for column in table.columns if column.name != "since"]
    return select(*columns).order_by(*table.primary_key)


def rows(session: Session) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows of the tables that hold any, or are automx2's, sorted by their keys.

    What tells of former changes is left out.
    """
    found = {
        name: [tuple(row) for row in session.execute(_all_but_time(table))]
        for name, table in metadata.tables.items()
        if name not in RECORDS
    }
    ours = {"token", "account", "backend_key", "api_key", "api_request"}
    ours |= {"provider_detail", "documentation", "ldapserver_detail"}
    ours |= {"disabled_domain", "synced_domain"}
    ours |= {name for name in metadata.tables if name.endswith("_origin")}
    return {name: rows for name, rows in found.items() if rows or name not in ours}


def exported(session: Session, *, warnings: list[str] | None = None, secrets: bool = True) -> Any:
    """Return the exported document; without a list for its warnings there must be none."""
    seen: list[str] = []
    pieces = list(export(session, with_secrets=secrets, warn=seen.append))
    if warnings is None:
        assert seen == []
    else:
        warnings += seen
    document = parse("".join(pieces).encode(), "export")
    assert isinstance(document, dict)
    assert document.pop("$schema") == schema.ADDRESS
    return document


def assert_round_trip(session: Session) -> None:
    """Assert that an export seeds an equal database."""
    before = rows(session)
    document = exported(session)
    purge(session)
    assert all(table == [] for table in rows(session).values())
    populate(session, document)
    assert rows(session) == before


def test_the_sample_fills_the_tables(session: Session) -> None:
    assert is_empty(session)

    counts = populate(session, SAMPLE)

    assert counts == count(session) == Counts(1, 3, 4, 3, 0)
    assert str(counts) == "1 provider, 3 domains, 4 mail servers, 3 services, 0 LDAP servers"
    assert not is_empty(session)
    user = "%EMAILADDRESS%"
    dav = "https://dav.example.com"
    every = [(server, domain) for server in range(1, 5) for domain in range(1, 4)]
    assert rows(session) == {
        "provider": [(1, "Example Mail Services", "Example")],
        "server": [
            (1, 10, "imap.example.com", 993, "imap", "SSL", user, "plain"),
            (2, 20, "pop3.example.com", 995, "pop", "SSL", user, "plain"),
            (3, 10, "smtp.example.com", 465, "smtp", "SSL", user, "plain"),
            (4, 20, "smtp.example.com", 587, "smtp", "STARTTLS", user, "plain"),
        ],
        "davserver": [
            (1, f"{dav}/calendars/%EMAILADDRESS%/", 0, "caldav", True, True, user),
            (2, f"{dav}/contacts/%EMAILADDRESS%/", 0, "carddav", True, True, user),
            (3, f"{dav}/files/%EMAILADDRESS%/", 0, "webdav", True, True, user),
        ],
        "domain": [
            (1, "example.com", 1, None),
            (2, "example.net", 1, None),
            (3, "example.org", 1, None),
        ],
        "ldapserver": [],
        "server_domain": every,
        "davserver_domain": every[:9],
    }


def test_the_sample_is_exported_as_plain_version_2(session: Session) -> None:
    populate(session, SAMPLE)

    assert exported(session) == SAMPLE


def test_everything_is_exported_as_it_was_seeded(session: Session) -> None:
    populate(session, EVERYTHING)

    assert exported(session) == EVERYTHING


def test_an_export_is_readable_text_with_one_row_in_a_line(session: Session) -> None:
    populate(session, EVERYTHING | {"domains": [], "ldapservers": [], "servers": []})

    assert "".join(export(session)) == (
        "{\n"
        f'  "$schema": "{schema.ADDRESS}",\n'
        '  "version": 2,\n'
        '  "providers": [\n'
        '    {"id": 3, "name": "Example Inc.", "short_name": "Ex"},\n'
        '    {"id": 8, "name": "Muster GmbH & Söhne"}\n'
        "  ],\n"
        '  "servers": [],\n'
        '  "domains": []\n'
        "}\n"
    )


# People who insert by SQL begin to count where they like.
UNUSUAL_IDS: dict[str, Any] = {
    "version": 2,
    "providers": [{"id": 0, "name": "Example Inc."}],
    "ldapservers": [EVERYTHING["ldapservers"][0] | {"id": 0}],
    "servers": [
        {"id": 0, "type": "imap", "name": "imap.example.com"},
        {"id": -1, "type": "smtp", "name": "smtp.example.com"},
        {"id": 0, "type": "caldav", "url": "https://dav.example.com/"},
    ],
    "domains": [{"id": 0, "name": "example.com", "ldapserver_id": 0}],
}


@pytest.mark.parametrize(
    "document", [SAMPLE, EVERYTHING, UNUSUAL_IDS], ids=["sample", "everything", "unusual ids"]
)
def test_an_export_seeds_an_equal_database(any_database: str, document: object) -> None:
    with open_session(any_database) as session:
        populate(session, document)
    with open_session(any_database) as session:
        begin_snapshot(session)
        assert_round_trip(session)


# Each changes one thing of the sample that plain version 2 cannot hold.
CHANGES = [
    "UPDATE provider SET short_name = 'Mail'",
    "UPDATE provider SET name = 'Something else entirely'",
    "INSERT INTO provider VALUES (2, 'Other Inc.', 'Other')",
    "INSERT INTO provider VALUES (9, 'Other Inc.', 'Other'); UPDATE domain SET provider_id = 9",
    "DELETE FROM davserver_domain; DELETE FROM davserver",
    "DELETE FROM server_domain",
    "DELETE FROM server_domain; DELETE FROM server",
    "DELETE FROM server_domain WHERE domain_id = 2",
    "DELETE FROM davserver_domain WHERE davserver_id = 1",
    "DELETE FROM server_domain WHERE server_id = 1; DELETE FROM server WHERE id = 1",
    "DELETE FROM server_domain; DELETE FROM davserver_domain; DELETE FROM domain",
    "INSERT INTO domain VALUES (4, '*.example.com', 1, NULL)",
    "INSERT INTO domain VALUES (77, 'xn--mller-kva.de', 1, NULL)",
    "INSERT INTO disabled_domain VALUES (2, '2026-11-30 10:00:00')",
    "INSERT INTO disabled_domain SELECT id, '2026-11-30 10:00:00' FROM domain",
    "INSERT INTO ldapserver VALUES (5, 'localhost', 0, false, '', '(a={0})', 'u', NULL, '', NULL)",
    "UPDATE server SET prio = -1, port = 1, socket_type = 'plain', authentication = 'GSSAPI'",
    "UPDATE server SET type = 'managesieve', socket_type = 'STARTTLS' WHERE id = 2",
    "UPDATE davserver SET port = 443, use_ssl = false, domain_required = false, user_name = 'a'",
]


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_in_the_tables_survives_export_and_seed(session: Session, change: str) -> None:
    populate(session, SAMPLE)
    for statement in change.split("; "):
        session.execute(text(statement))

    assert_round_trip(session)


def test_an_empty_database_survives_export_and_seed(session: Session) -> None:
    assert exported(session) == {"version": 2, "providers": [], "servers": [], "domains": []}
    assert_round_trip(session)


def test_rows_can_be_inserted_without_id_and_by_position_after_seeding(any_database: str) -> None:
    with open_session(any_database) as session:
        populate(session, EVERYTHING)
    with open_session(any_database) as session:
        columns = {"name": "a.example.com", "port": 993, "type": "imap", "socket_type": "SSL"}
        columns |= {"user_name": "", "authentication": "plain"}
        session.execute(insert(Server).values(columns))
        newest = select(Server.c.id, Server.c.prio).order_by(Server.c.id.desc())
        assert session.execute(newest).first() == (105, 10)
        for statement in (
            "INSERT INTO provider (name, short_name) VALUES ('Other', 'Other')",
            "INSERT INTO domain (name, provider_id) VALUES ('other.example', 9)",
            (
                "INSERT INTO server VALUES (201, 10, 'mail.example.com', 587, 'smtp', 'STARTTLS',"
                " '%EMAILADDRESS%', 'plain')"
            ),
            "INSERT INTO server_domain VALUES (201, 62)",
        ):
            session.execute(text(statement))
    with open_session(any_database) as session:
        found = rows(session)
        assert found["provider"][-1] == (9, "Other", "Other")
        assert found["domain"][-1] == (62, "other.example", 9, None)
        assert found["server"][-1] == (
            *(201, 10, "mail.example.com", 587, "smtp", "STARTTLS", "%EMAILADDRESS%", "plain"),
        )
        assert (201, 62) in found["server_domain"]


def test_seeding_again_never_sets_a_sequence_back(any_database: str) -> None:
    with open_session(any_database) as session:
        populate(session, EVERYTHING)
        session.execute(text("DELETE FROM server_domain WHERE server_id > 101"))
        session.execute(text("DELETE FROM server WHERE id > 101"))
        populate(session, SAMPLE | {"domains": [{"name": "example.net"}]})
    with open_session(any_database) as session:
        insert = (
            "INSERT INTO server (name, port, type, socket_type, user_name, authentication)"
            " VALUES ('a.example.com', 993, 'imap', 'SSL', 'a', 'plain')"
        )
        session.execute(text(insert))
        assert [row[0] for row in rows(session)["server"]][:5] == [101, 102, 103, 104, 105]


def test_a_second_document_adds_to_the_first(session: Session) -> None:
    populate(session, EVERYTHING)
    document = {
        "version": 2,
        "providers": [],
        "servers": [],
        "domains": [{"name": "new.example", "provider": 8, "servers": [101], "ldapserver_id": 2}],
    }

    assert populate(session, document) == Counts(0, 1, 0, 0, 0)

    assert rows(session)["domain"][-1] == (62, "new.example", 8, 2)
    assert [row for row in rows(session)["server_domain"] if row[1] == 62] == [(101, 62)]
    assert [row for row in rows(session)["davserver_domain"] if row[1] == 62] == []


NAMED: dict[str, Any] = {
    "version": 2,
    "origin": "git",
    "providers": [{"name": "East"}, {"name": "West"}],
    "ldapservers": [{"name": "ldap.example.com", "search_base": "dc=example"}],
    "servers": [],
    "domains": [
        {"name": "a.example", "provider": "West"},
        {"name": "b.example", "provider": "East", "ldapserver_id": "ldap.example.com"},
    ],
}


def test_domains_refer_to_providers_and_directories_by_name(any_database: str) -> None:
    with open_session(any_database) as session:
        populate(session, NAMED)
        more = {"name": "c.example", "provider": "West", "ldapserver_id": "ldap.example.com"}
        populate(session, {"version": 2, "providers": [], "servers": [], "domains": [more]})

        assert rows(session)["domain"] == [
            (1, "a.example", 2, None),
            (2, "b.example", 1, 1),
            (3, "c.example", 2, 1),
        ]
        assert rows(session)["domain_origin"] == [(1, "git"), (2, "git")]


@pytest.mark.parametrize(
    ("providers", "error"),
    [
        (
            [{"name": "East"}],
            'expected the name of a provider in this document or in the database, found "West"',
        ),
        (
            [{"name": "West"}, {"name": "West", "id": 7}],
            "expected one of the ids 7, 8, found the name of all these",
        ),
    ],
)
def test_a_name_that_is_not_that_of_one_row_is_refused(
    session: Session, providers: list[dict[str, Any]], error: str
) -> None:
    with pytest.raises(SeedError) as caught:
        populate(session, NAMED | {"providers": providers})
    assert str(caught.value) == f"domains[0].provider: {error}"
    assert is_empty(session)


def test_servers_of_a_document_are_for_its_own_domains_only(session: Session) -> None:
    populate(session, SAMPLE)
    document = {
        "provider": "Other",
        "domains": ["other.example"],
        "servers": [{"type": "imap", "name": "imap.other.example"}],
    }

    populate(session, document)

    assert [row for row in rows(session)["server_domain"] if 5 in row or 4 in row] == [
        (4, 1),
        (4, 2),
        (4, 3),
        (5, 4),
    ]


@pytest.mark.parametrize(
    "name",
    ["example.com", "EXAMPLE.com", "Example.Com."],
)
def test_a_domain_of_the_database_is_a_conflict(any_database: str, name: str) -> None:
    with open_session(any_database) as session:
        populate(session, SAMPLE)
        before = rows(session)

        with pytest.raises(ConflictError, match=r"^The database holds the domain example\.com a"):
            populate(session, SAMPLE | {"domains": [{"name": "new.example"}, {"name": name}]})

        assert rows(session) == before


@pytest.mark.parametrize("stored", ["xn--mller-kva.de", "müller.de", "MÜLLER.DE", "Müller.de"])
@pytest.mark.parametrize("name", ["xn--mller-kva.de", "Müller.de"])
def test_a_conflict_is_found_across_both_forms_of_a_domain(
    any_database: str, stored: str, name: str
) -> None:
    with open_session(any_database) as session:
        populate(session, SAMPLE)
        session.execute(
            text("INSERT INTO domain (name, provider_id) VALUES (:name, 1)"), {"name": stored}
        )

        with pytest.raises(ConflictError, match=f"^The database holds the domain {stored} already"):
            populate(session, SAMPLE | {"domains": [{"name": name}]})


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (EVERYTHING, r"^providers\[0\]\.id: the table provider has a row with the id 3 already$"),
        (
            SAMPLE | {"servers": [{"id": 103, "type": "imap", "name": "imap.example.com"}]},
            r"^servers\[0\]\.id: the table server has a row with the id 103 already$",
        ),
    ],
)
def test_an_id_of_the_database_is_a_conflict(
    session: Session, document: object, error: str
) -> None:
    populate(session, EVERYTHING)

    with pytest.raises(ConflictError, match=error):
        populate(session, document)


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("servers", [1], "domains[0].servers: expected the id of a server"),
        ("davservers", [1], "domains[0].davservers: expected the id of a davserver"),
        ("provider", 1, "domains[0].provider: expected the id of a provider"),
        ("ldapserver_id", 1, "domains[0].ldapserver_id: expected the id of a ldapserver"),
    ],
)
def test_an_id_that_is_nowhere_is_refused(
    session: Session, key: str, value: object, error: str
) -> None:
    with pytest.raises(SeedError) as caught:
        populate(session, SAMPLE | {"domains": [{"name": "example.com", key: value}]})

    assert str(caught.value) == f"{error} in this document or in the database, found 1"
    assert is_empty(session)


def test_an_id_too_high_to_count_on_is_a_conflict(session: Session) -> None:
    highest = {"id": 2**31 - 1, "type": "imap", "name": "imap.example.com"}

    with pytest.raises(
        ConflictError,
        match="server has no free ids: the highest in use or referred to is 2147483647",
    ):
        populate(session, SAMPLE | {"servers": [highest, *SAMPLE["servers"]]})


# What a DELETE without foreign_keys leaves behind: the links of a customer whose domain or servers
# are gone, pages and details of a provider, a domain whose provider is gone.
LEFT_BEHIND = (
    "INSERT INTO server_domain VALUES (100, 1), (1, 200)",
    "INSERT INTO davserver_domain VALUES (300, 1), (1, 201)",
    "INSERT INTO provider_detail (provider_id, support_address) VALUES (400, 'a@old.test')",
    "INSERT INTO documentation VALUES (1, 401, 'https://old.test/', 'en', 'Old')",
    "INSERT INTO domain VALUES (5, 'old.test', 402, 500)",
)


@pytest.fixture
def damaged(session: Session) -> Session:
    """Return a session on a database in which rows refer to rows that are gone."""
    populate(session, SAMPLE)
    for statement in LEFT_BEHIND:
        session.execute(text(statement))
    return session


def test_new_rows_never_get_an_id_that_rows_refer_to(damaged: Session) -> None:
    populate(damaged, SAMPLE | {"domains": [{"name": "new.test"}]})

    def ids_of(table: str, least: int) -> list[int]:
        query = text(f"SELECT id FROM {table} WHERE id > {least} ORDER BY id")
        return list(damaged.scalars(query))

    assert ids_of("provider", 1) == [403]
    assert ids_of("domain", 5) == [202]
    assert ids_of("server", 4) == [101, 102, 103, 104]
    assert ids_of("davserver", 3) == [301, 302, 303]
    linked = text("SELECT server_id FROM server_domain WHERE domain_id = 202")
    assert sorted(damaged.scalars(linked)) == [101, 102, 103, 104]


@pytest.mark.parametrize(
    ("change", "path", "table"),
    [
        ({"servers": [{"id": 100, "type": "imap", "name": "new.test"}]}, "servers[0]", "server"),
        ({"domains": [{"id": 201, "name": "new.test"}]}, "domains[0]", "domain"),
        (
            {"servers": [{"id": 300, "type": "caldav", "url": "https://new.test/"}]},
            *("servers[0]", "davserver"),
        ),
        (
            {"ldapservers": [{"id": 500, "name": "new.test", "search_base": ""}]},
            *("ldapservers[0]", "ldapserver"),
        ),
        *(
            ({"provider": None, "providers": [{"id": row_id, "name": "New"}]}, path, "provider")
            for row_id, path in (
                (400, "providers[0]"),
                (401, "providers[0]"),
                (402, "providers[0]"),
            )
        ),
    ],
)
def test_an_id_that_rows_refer_to_is_a_conflict(
    damaged: Session, change: dict[str, Any], path: str, table: str
) -> None:
    document = SAMPLE | {"domains": [{"name": "new.test"}]} | change
    document = {key: value for key, value in document.items() if value is not None}
    [row_id] = [item["id"] for item in next(iter(reversed(change.values())))]
    error = f"{path}.id: rows refer to a deleted {table} {row_id}: automx check names them"

    with pytest.raises(ConflictError) as caught:
        populate(damaged, document)

    assert str(caught.value) == error


def test_of_two_equal_seeds_at_the_same_moment_the_second_is_a_conflict(any_database: str) -> None:
    both = threading.Barrier(2)

    def seed(_: int) -> str:
        with open_session(any_database) as session:
            both.wait(20)
            try:
                populate(session, SAMPLE)
            except ConflictError as error:
                return str(error)
        return ""

    with ThreadPoolExecutor(2) as threads:
        answers = sorted(threads.map(seed, range(2)))

    assert answers == ["", "The database holds the domain example.com already"]
    with open_session(any_database) as session:
        assert count(session) == Counts(1, 3, 4, 3, 0)


def test_a_row_of_another_program_at_the_same_moment_is_a_conflict(any_database: str) -> None:
    engine = create_engine(any_database)
    written: list[bool] = []

    @event.listens_for(engine, "before_cursor_execute")
    def write_first(*arguments: Any) -> None:
        if arguments[2].startswith("INSERT INTO domain ") and not written:
            written.append(True)
            insert = text("INSERT INTO domain (id, name, provider_id) VALUES (9, 'example.org', 1)")
            arguments[0].execute(insert)  # SQLite is locked for others

    error = r"^The database refused a row that it holds already"
    with Session(engine) as session, pytest.raises(ConflictError, match=error) as caught:
        populate(session, SAMPLE)
    engine.dispose()

    assert caught.value.cause
    with open_session(any_database) as session:
        assert count(session) == Counts(0, 0, 0, 0, 0)


def test_secrets_are_exported_only_when_asked_for(session: Session) -> None:
    populate(session, EVERYTHING)
    warnings: list[str] = []

    document = exported(session, warnings=warnings, secrets=False)

    assert "secret" not in json.dumps(document)
    assert document["ldapservers"] == [
        {key: value for key, value in server.items() if key != "bind_password"}
        for server in EVERYTHING["ldapservers"]
    ]
    assert warnings == [
        "the passwords of 1 LDAP server are left out; automx export --with-secrets includes them"
    ]


NORMAL_FORMS = {
    "provider.name": (" Example\x02 Mail ", "Example Mail"),
    "server.type": ("POP3", "pop"),
    "server.socket_type": ("", "plain"),
    "server.name": ("IMAP.Example.com.", "imap.example.com"),
    "server.user_name": (" %emailAddress% ", "%EMAILADDRESS%"),
    "server.authentication": ("oauth2,password-cleartext  PLAIN", "OAuth2 plain"),
    "davserver.url": (
        " https://dav.example.com/%emailDomain%/ ",
        "https://dav.example.com/%EMAILDOMAIN%/",
    ),
    "davserver.use_ssl": (2, True),
    "davserver.user_name": (None, "%EMAILADDRESS%"),
    "domain.name": ("Example.COM", "example.com"),
    "ldapserver.attr_cn": ("", None),
}


@pytest.mark.parametrize("column", NORMAL_FORMS)
def test_an_export_writes_the_normal_form_of_what_is_served(session: Session, column: str) -> None:
    populate(session, SAMPLE | {"ldapservers": EVERYTHING["ldapservers"]})
    written, normal = NORMAL_FORMS[column]
    table, _, name = column.partition(".")
    change = text(f"UPDATE {table} SET {name} = :written WHERE id = (SELECT min(id) FROM {table})")
    session.execute(change, {"written": written})
    document = exported(session)
    purge(session)
    populate(session, document)
    assert session.scalar(text(f"SELECT {name} FROM {table} ORDER BY id")) == normal


def test_rows_that_no_seed_would_take_are_exported_as_they_are_and_named(session: Session) -> None:
    populate(session, SAMPLE)
    for statement in (
        "UPDATE server SET type = 'imaps', port = 0 WHERE id = 1",
        "UPDATE server SET port = 'abc' WHERE id = 2",
        "UPDATE server SET user_name = '%u' WHERE id = 4",
        "UPDATE davserver SET use_ssl = 'yes' WHERE id = 1",
        "UPDATE davserver SET use_ssl = 'maybe' WHERE id = 2",
        "UPDATE domain SET name = 'Example.com' WHERE id = 1",
        "UPDATE domain SET name = 'not a domain' WHERE id = 2",
        "INSERT INTO domain VALUES (4, 'example.COM', 1, NULL)",
        "INSERT INTO domain VALUES (5, 'xn--mller-kva.de', 1, NULL)",
        "INSERT INTO domain VALUES (6, 'müller.de', 9, 9)",
        "INSERT INTO server_domain VALUES (99, 1), (1, 99)",
        "UPDATE provider SET name = ''",
    ):
        session.execute(text(statement))
    warnings: list[str] = []

    document = exported(session, warnings=warnings)

    assert document["servers"][0] == {"id": 1, "type": "imaps", "name": "imap.example.com"} | {
        "port": 0,
        "socket_type": "SSL",
    }
    assert document["servers"][1]["port"] == "abc"
    assert [domain["name"] for domain in document["domains"]] == [
        "example.com",
        "not a domain",
        "example.org",
        "example.com",
        "xn--mller-kva.de",
        "müller.de",
    ]
    assert warnings == [
        'provider 1 will not seed again: name: expected a text of 1 to 128 characters, found ""',
        (
            "server 1 will not seed again: type: expected one of imap, pop, pop3, smtp, "
            'managesieve, sieve, found "imaps"'
        ),
        "server 1 will not seed again: port: expected a whole number from 1 to 65535, found 0",
        'server 2 will not seed again: port: expected a whole number from 1 to 65535, found "abc"',
        (
            'server 4 will not seed again: user_name: "%u" is no placeholder; '
            "did you mean %EMAILADDRESS%?"
        ),
        'davserver 2 will not seed again: use_ssl: expected true or false, found "maybe"',
        (
            "domain 2 will not seed again: name: expected a domain name of at most 128 "
            'characters such as "example.com", "*.example.com" or "*", found "not a domain"'
        ),
        "domain 4 will not seed again: example.com has two rows",
        "domain 6 will not seed again: xn--mller-kva.de has two rows",
        "domain 6 will not seed again: there is no provider 9",
        "domain 6 will not seed again: there is no ldapserver 9",
        "server_domain has 2 rows without server or domain, left out",
    ]


def test_many_warnings_are_counted(session: Session) -> None:
    populate(session, SAMPLE | {"domains": [{"name": f"d{i}.example"} for i in range(30)]})
    session.execute(text("UPDATE domain SET name = name || '!'"))
    warnings: list[str] = []

    exported(session, warnings=warnings)

    assert len(warnings) == 21
    assert warnings[-1] == "there are 10 more rows of this kind"


@pytest.fixture
def env(database: Path) -> dict[str, str]:
    """Return the environment of commands on an empty database."""
    return {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}


def failing(*arguments: str | Path, env: dict[str, str], stdin: bytes = b"") -> tuple[int, str]:
    """Run a command that fails; return its exit status and what it says."""
    result = attempt(*arguments, env=env, stdin=stdin)
    assert result.stdout == ""
    return result.returncode, result.stderr


def test_commands_seed_export_and_purge(env: dict[str, str], tmp_path: Path) -> None:
    added = "Added 1 provider, 3 domains, 4 mail servers, 3 services, 0 LDAP servers.\n"
    assert automx("seed", "--sample", env=env) == added
    document = automx("export", env=env)
    assert json.loads(document) == {"$schema": schema.ADDRESS, **SAMPLE}
    assert automx("export", tmp_path / "seed.json", env=env) == ""
    assert (tmp_path / "seed.json").read_text() == document
    assert stat.S_IMODE((tmp_path / "seed.json").stat().st_mode) == 0o600
    assert automx("purge", "--yes", env=env) == added.replace("Added", "Deleted")
    assert automx("seed", tmp_path / "seed.json", env=env) == added
    automx("purge", "--yes", env=env)
    assert automx("seed", "-", env=env, stdin=document) == added
    assert automx("export", env=env) == document


def test_a_key_without_effect_is_told_when_a_document_is_seeded(env: dict[str, str]) -> None:
    servers = [
        *SAMPLE["servers"],
        {"type": "caldav", "name": "calendar", "url": "https://dav.example.com/"},
    ]
    result = attempt("seed", "-", env=env, stdin=json.dumps(SAMPLE | {"servers": servers}))
    assert result.returncode == 0
    assert result.stderr == "automx: servers[7].name has no effect: a service has a url\n"


def test_seed_if_empty_leaves_a_database_with_data_alone(env: dict[str, str]) -> None:
    automx("seed", "--sample", "--if-empty", env=env)

    assert automx("seed", "--sample", "--if-empty", env=env) == (
        "The database has a provider already; nothing was added.\n"
    )
    assert failing("seed", "--sample", env=env) == (
        1,
        "automx: The database holds the domain example.com already\n",
    )


def test_purge_without_yes_says_what_it_would_delete(env: dict[str, str]) -> None:
    automx("seed", "--sample", env=env)

    assert failing("purge", env=env) == (
        2,
        (
            "automx: this would delete 1 provider, 3 domains, 4 mail servers, 3 services, "
            "0 LDAP servers; say --yes to do it\n"
        ),
    )
    assert json.loads(automx("export", env=env)) == {"$schema": schema.ADDRESS, **SAMPLE}


def test_a_bad_document_changes_nothing_and_is_explained_in_one_line(
    env: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "seed.json"
    servers = [*SAMPLE["servers"], {"type": "imap", "name": "imap.example.com", "port": "abc"}]
    path.write_text(json.dumps(SAMPLE | {"servers": servers}))

    assert failing("seed", path, env=env) == (
        1,
        'automx: servers[7].port: expected a whole number from 1 to 65535, found "abc"\n',
    )
    assert failing("seed", "-", env=env, stdin=b"[1,\n2") == (
        1,
        "automx: standard input: line 2, column 2 is not valid JSON: expecting ',' delimiter\n",
    )
    assert failing("seed", tmp_path / "none.json", env=env) == (
        1,
        f"automx: {tmp_path}/none.json cannot be read: No such file or directory\n",
    )
    assert failing("seed", env=env)[0] == failing("seed", path, "--sample", env=env)[0] == 2
    assert json.loads(automx("export", env=env))["domains"] == []


def test_export_says_on_standard_error_that_secrets_are_left_out(
    env: dict[str, str], tmp_path: Path
) -> None:
    automx("seed", REPOSITORY / "contrib" / "seeds" / "ldap-and-dav.json", env=env)
    result = attempt("export", env=env)

    assert result.returncode == 0
    assert "change me" not in result.stdout
    assert result.stderr == (
        "automx: the passwords of 1 LDAP server are left out; "
        "automx export --with-secrets includes them\n"
        "automx: left out: 1 entry of the audit; automx backup keeps them\n"
    )
    assert "change me" in automx("export", "--with-secrets", env=env)


def test_a_failing_export_leaves_an_older_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "seed.json"
    path.write_text("old")
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{tmp_path}/none.sqlite"}

    status, _ = failing("export", path, env=env)

    assert status == 1
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() != 0, reason="makes links of other users")
@pytest.mark.parametrize(("owner", "is_followed"), [(1001, False), (1002, True), (0, True)])
def test_a_link_that_a_stranger_has_put_into_a_folder_for_all_is_not_followed(
    tmp_path: Path, database: Path, owner: int, is_followed: bool
) -> None:
    folder, victim = tmp_path / "folder", tmp_path / "victim"
    folder.mkdir()
    folder.chmod(0o1777)
    os.chown(folder, 1002, -1)
    victim.write_text("old")
    link = folder / "seed.json"
    link.symlink_to(victim)
    os.chown(link, owner, -1, follow_symlinks=False)
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}

    result = attempt("export", link, env=env)

    assert (result.returncode == 0) == is_followed
    assert (victim.read_text() != "old") == is_followed
    assert link.is_symlink()
    refused = f"automx: {link} is a link of another user, and is not followed\n"
    assert result.stderr == ("" if is_followed else refused)


# Runs a command and prints the most memory that it had, in kB. (The parent's memory, when it forks,
# counts for what wait4(2) tells about a child, but not for this.)
MEASURED = """
import pathlib, re, sys
from automx.cli import main
main(sys.argv[1:], standalone_mode=False)
print(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
"""


def peak_memory(*arguments: str | Path, env: dict[str, str]) -> int:
    """Run a command to its end and return the most memory it had, in bytes."""
    command = [sys.executable, "-c", MEASURED, *map(str, arguments)]
    result = subprocess.run(
        command,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(result.stdout.split()[-1]) * 1024


def test_30000_domains_are_seeded_and_exported_in_bounded_memory(
    env: dict[str, str], tmp_path: Path
) -> None:
    groups = 10
    document = {
        "version": 2,
        "providers": [{"id": i, "name": f"Provider {i}"} for i in (1, 2)],
        "servers": [
            {"id": 2 * i + j, "type": kind, "name": f"{kind}.{i}.example.com", "port": port}
            for i in range(groups)
            for j, (kind, port) in enumerate([("imap", 993), ("smtp", 465)], 1)
        ],
        "domains": [
            {
                "name": f"customer-{i}.example.com",
                "provider": i % 2 + 1,
                "servers": [2 * (i % groups) + 1, 2 * (i % groups) + 2],
            }
            for i in range(30_000)
        ],
    }
    few, many, result = tmp_path / "few.json", tmp_path / "many.json", tmp_path / "result.json"
    few.write_text(json.dumps(SAMPLE))
    many.write_text(json.dumps(document))

    seeding = peak_memory("seed", few, env=env)
    exporting = peak_memory("export", result, env=env)
    automx("purge", "--yes", env=env)
    seeding_many = peak_memory("seed", many, env=env)
    exporting_many = peak_memory("export", result, env=env)

    assert json.loads(result.read_text()) == {"$schema": schema.ADDRESS, **document}
    assert seeding_many - seeding < 60_000_000
    assert exporting_many - exporting < 10_000_000


def test_export_says_on_standard_error_what_it_leaves_out(
    env: dict[str, str], database: Path, tmp_path: Path
) -> None:
    assert attempt("export", env=env).stderr == ""

    automx("seed", "--sample", env=env)
    automx("token", "add", "one", "--domain", "example.com", env=env)
    automx("token", "add", "two", "--domain", "example.com", env=env)
    automx("apikey", "add", "robot", "--role", "read", env=env)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.executescript(
            "INSERT INTO domain_origin VALUES (1, 'a'); INSERT INTO server_origin VALUES (1, 'a');"
            "INSERT INTO synced_domain VALUES (1, NULL, NULL);"
            "INSERT INTO managed_domain VALUES"
            " ('example.com', 'a', NULL, NULL, 'steady', 1, '2026-11-30', NULL, 1);"
            "INSERT INTO account VALUES (1, 'a@example.com', 1, 'm', 'none', 'active',"
            " '2026-11-30', NULL, '2026-11-30', NULL)"
        )
    expected = (
        "automx: left out: 2 tokens, 1 account, 1 key of the API, 4 entries of the audit,"
        " 2 origins of rows, 1 state of a source, 1 state of a zone; automx backup keeps them\n"
    )
    assert attempt("export", env=env).stderr == expected
    assert attempt("export", tmp_path / "seed.json", env=env).stderr == expected
