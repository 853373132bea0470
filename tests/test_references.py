"""References between rows: what the doctor and the export report, and a seed refuses."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from automx.database import Session, open_session
from automx.migrations import upgrade
from automx.references import (
    NonNormalName,
    dangling_references,
    domains_without_servers,
    non_normal_names,
    number_of_links,
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


def test_rows_for_the_same_domain_are_the_same_in_every_database(any_database_uri: str) -> None:
    uri = engine_uri(any_database_uri)
    upgrade(uri)
    with open_session(uri) as session:
        session.execute(text(PROVIDER))
        # MariaDB's collation finds the first two by one name.
        add_domains(session, "muller.example", "xn--mller-kva.example", "müllerin.example")
        session.execute(text("UPDATE domain SET name = 'MÜLLERIN.example' WHERE id = 3"))
        asked = {"xn--mller-kva.example", "xn--mllerin-n2a.example"}
        assert sorted(same_domains(session, asked)) == [
            (2, "xn--mller-kva.example", "xn--mller-kva.example"),
            (3, "MÜLLERIN.example", "xn--mllerin-n2a.example"),
        ]
        assert list(non_normal_names(session)) == [
            NonNormalName(3, "MÜLLERIN.example", "xn--mllerin-n2a.example", None, is_found=True)
        ]


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


def test_dangling_and_unused_rows(session: Session) -> None:
    for statement in (
        "INSERT INTO provider VALUES (2, 'Unused', 'Unused')",
        "INSERT INTO ldapserver VALUES (1, 'ldap', 389, 0, '', '(a={0})', 'uid', NULL, '', NULL)",
        "INSERT INTO server VALUES (1, 10, 'a.test', 993, 'imap', 'SSL', '', 'plain')",
        "INSERT INTO server VALUES (2, 10, 'a.test', 465, 'smtp', 'SSL', '', 'plain')",
        "INSERT INTO davserver VALUES (1, 'https://a.test/', 0, 'caldav', 1, 1, '')",
        "INSERT INTO domain VALUES (1, 'a.test', 1, NULL), (2, 'b.test', 8, 9)",
        "INSERT INTO server_domain VALUES (1, 1), (7, 2), (1, 7)",
    ):
        session.execute(text(statement))
    assert list(unused_rows(session)) == [
        ("server", 2),
        ("davserver", 1),
        ("ldapserver", 1),
        ("provider", 2),
    ]
    assert list(domains_without_servers(session)) == [(2, "b.test")]
    assert list(dangling_references(session)) == [
        (2, "b.test", "provider", 8),
        (2, "b.test", "ldapserver", 9),
    ]
    assert number_of_links(session, "server") == 1
