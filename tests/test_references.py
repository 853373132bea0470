"""References between rows: what the doctor and the export report, and a seed refuses."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from automx.database import Session, open_session
from automx.references import (
    DanglingReference,
    NonNormalName,
    dangling_references,
    delete_dangling,
    domains_without_servers,
    highest_id,
    non_normal_names,
    number_of_links,
    referred_ids,
    same_domains,
    unused_rows,
)
from tests.databases import engine_uri

PROVIDER = "INSERT INTO provider VALUES (1, 'Example', 'Example')"


@pytest.fixture
def session(database: Path) -> Iterator[Session]:
    """Open a session on an SQLite database with one provider."""
    with open_session(f"sqlite:///{database}") as session:
        session.execute(text(PROVIDER))
        yield session


def add_domains(session: Session, *names: str) -> None:
    """Add domains; their ids count from 1."""
    rows = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    session.execute(text("INSERT INTO domain VALUES (:id, :name, 1, NULL)"), rows)


def test_names_in_normal_form_are_not_reported(session: Session) -> None:
    add_domains(session, "example.com", "xn--mller-kva.example", "*.example.com", "*")
    assert list(non_normal_names(session)) == []


def test_of_several_rows_for_a_domain_the_one_in_normal_form_is_kept(session: Session) -> None:
    add_domains(session, "EXAMPLE.com", "Example.com", "example.com", "*.Example.com")
    assert list(non_normal_names(session)) == [
        NonNormalName(1, "EXAMPLE.com", "example.com", 3, is_found=True),
        NonNormalName(2, "Example.com", "example.com", 3, is_found=True),
        NonNormalName(4, "*.Example.com", "*.example.com", None, is_found=True),
    ]


def test_without_a_normal_form_the_first_row_that_is_found_is_kept(session: Session) -> None:
    add_domains(session, "example.com.", "EXAMPLE.com", "Example.com")
    assert list(non_normal_names(session)) == [
        NonNormalName(1, "example.com.", "example.com", 2, is_found=False),
        NonNormalName(2, "EXAMPLE.com", "example.com", None, is_found=True),
        NonNormalName(3, "Example.com", "example.com", 2, is_found=True),
    ]


def test_of_rows_that_look_ups_do_not_find_the_first_is_kept(session: Session) -> None:
    add_domains(session, "äÖ.example", "Äö.example", "ä ö.example")
    assert list(non_normal_names(session)) == [
        NonNormalName(1, "äÖ.example", "xn--4ca0b.example", None, is_found=False),
        NonNormalName(2, "Äö.example", "xn--4ca0b.example", 1, is_found=False),
        NonNormalName(3, "ä ö.example", "", None, is_found=False),
    ]


def test_blanks_around_a_name_are_reported_and_do_not_hide_it(session: Session) -> None:
    names = (" a.test", "b.test\r\n", "b.test", "   c.test", "*.D.test ")
    add_domains(session, *names)
    found = {row.name: row for row in non_normal_names(session)}
    assert list(found) == [" a.test", "b.test\r\n", "   c.test", "*.D.test "]
    assert [(row.a_label, row.is_found, row.is_padded) for row in found.values()] == [
        ("a.test", True, True),
        ("b.test", True, True),
        ("c.test", False, False),
        ("*.d.test", True, True),
    ]
    assert found["b.test\r\n"].duplicate_of == 3


@pytest.mark.parametrize("others", [0, 5_000], ids=["few-names", "many-names"])
def test_rows_for_the_same_domain_are_the_same_in_every_database(
    any_migrated_uri: str, others: int
) -> None:
    uri = engine_uri(any_migrated_uri)
    with open_session(uri) as session:
        session.execute(text(PROVIDER))
        # MariaDB's collation finds the first two by one name.
        add_domains(session, "muller.example", "xn--mller-kva.example", "müllerin.example")
        session.execute(text("UPDATE domain SET name = 'MÜLLERIN.example' WHERE id = 3"))
        asked = {"xn--mller-kva.example", "xn--mllerin-n2a.example"}
        asked |= {f"d{number}.example" for number in range(others)}
        assert sorted(same_domains(session, asked)) == [
            (2, "xn--mller-kva.example", "xn--mller-kva.example"),
            (3, "MÜLLERIN.example", "xn--mllerin-n2a.example"),
        ]
        assert list(non_normal_names(session)) == [
            NonNormalName(3, "MÜLLERIN.example", "xn--mllerin-n2a.example", None, is_found=True)
        ]


@pytest.mark.parametrize("others", [0, 5_000], ids=["few-names", "many-names"])
def test_a_name_that_look_ups_do_not_find_is_not_found_among_many(
    session: Session, others: int
) -> None:
    add_domains(session, "äÖ.example", "ÄÖ.example", " xn--4ca0b.example")
    session.execute(text("INSERT INTO domain VALUES (9, x'786e2d', 1, NULL)"))
    asked = {"xn--4ca0b.example", *(f"d{number}.example" for number in range(others))}
    found = [(2, "ÄÖ.example", "xn--4ca0b.example")]
    assert list(same_domains(session, asked)) == found


def test_duplicates_far_apart_are_found_in_memory_that_does_not_grow(session: Session) -> None:
    number = 10_000
    names = [
        f"D{i % number}.Example" if i < number else f"d{i % number}.example"
        for i in range(2 * number)
    ]
    add_domains(session, *names)
    kept = (found.duplicate_of for found in non_normal_names(session))
    assert next(kept) == number + 1
    tracemalloc.start()
    try:
        assert sum(row_id == i + number for i, row_id in enumerate(kept, 2)) == number - 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4_000_000


def test_a_domain_without_a_directory_has_no_dangling_reference(session: Session) -> None:
    add_domains(session, "example.com")
    assert list(dangling_references(session)) == []


DANGLING = (
    "INSERT INTO provider VALUES (2, 'Unused', 'Unused')",
    "INSERT INTO ldapserver VALUES (1, 'ldap', 389, 0, '', '(a={0})', 'uid', NULL, '', NULL)",
    "INSERT INTO server VALUES (1, 10, 'a.test', 993, 'imap', 'SSL', '', 'plain')",
    "INSERT INTO server VALUES (2, 10, 'a.test', 465, 'smtp', 'SSL', '', 'plain')",
    "INSERT INTO davserver VALUES (1, 'https://a.test/', 0, 'caldav', 1, 1, '')",
    "INSERT INTO domain VALUES (1, 'a.test', 1, 9), (2, 'b.test', 8, NULL)",
    "INSERT INTO server_domain VALUES (1, 1), (2, 2), (7, 1), (1, 17), ('x', 1)",
    "INSERT INTO davserver_domain VALUES (27, 37)",
    "INSERT INTO provider_detail (provider_id) VALUES (47)",
    "INSERT INTO documentation VALUES (3, 57, 'https://a.test/', 'en', '')",
    "INSERT INTO account VALUES (1, 'x@a.test', 67, '', 'none', 'active', '', NULL, '', NULL)",
)


@pytest.fixture
def damaged(session: Session) -> Session:
    """A database out of which somebody has deleted rows without foreign_keys."""
    for statement in DANGLING:
        session.execute(text(statement))
    return session


def test_dangling_and_unused_rows(damaged: Session) -> None:
    assert list(unused_rows(damaged)) == [("davserver", 1), ("ldapserver", 1), ("provider", 2)]
    assert list(domains_without_servers(damaged)) == []
    link, dav = "server_domain", "davserver_domain"
    assert list(dangling_references(damaged)) == [
        DanglingReference("domain", "id 2", "provider_id", "provider", 8, "b.test"),
        DanglingReference("domain", "id 1", "ldapserver_id", "ldapserver", 9, "a.test", False),
        DanglingReference(link, "server_id 7, domain_id 1", "server_id", "server", 7),
        DanglingReference(link, "server_id x, domain_id 1", "server_id", "server", "x"),
        DanglingReference(link, "server_id 1, domain_id 17", "domain_id", "domain", 17),
        DanglingReference(dav, "davserver_id 27, domain_id 37", "davserver_id", "davserver", 27),
        DanglingReference(dav, "davserver_id 27, domain_id 37", "domain_id", "domain", 37),
        DanglingReference("provider_detail", "provider_id 47", "provider_id", "provider", 47),
        DanglingReference("documentation", "id 3", "provider_id", "provider_detail", 57),
        DanglingReference("account", "id 1", "token_id", "token", 67, is_deleted=False),
    ]
    assert number_of_links(damaged, "server") == 2


def test_dangling_rows_are_deleted_and_no_others(damaged: Session) -> None:
    assert delete_dangling(damaged) == {
        "domain": 1,
        "server_domain": 4,  # the link of the domain, too
        "davserver_domain": 1,
        "provider_detail": 1,
        "documentation": 1,
    }
    left = [(found.table, found.column) for found in dangling_references(damaged)]
    assert left == [("domain", "ldapserver_id"), ("account", "token_id")]
    assert list(damaged.scalars(text("SELECT name FROM domain"))) == ["a.test"]
    assert number_of_links(damaged, "server") == 1
    assert delete_dangling(damaged) == {}


def test_an_id_that_is_referred_to_is_in_use(damaged: Session) -> None:
    highest = {
        table: highest_id(damaged, table)
        for table in ("provider", "domain", "server", "davserver", "ldapserver", "token")
    }
    assert highest == {
        "provider": 57,
        "domain": 37,
        "server": 7,
        "davserver": 27,
        "ldapserver": 9,
        "token": 67,
    }
    assert set(referred_ids(damaged, "provider", range(100))) == {1, 8, 47, 57}
    assert set(referred_ids(damaged, "server", [2, 7, 8])) == {2, 7}
