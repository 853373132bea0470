"""What the pages of mail servers say: rights, sections and queries, on tables with their names."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from automx.backends.keys import ProcessMemory
from automx.config import SourceSettings, load, make
from automx.directory import queries
from automx.sources import read
from automx.sources.found import FoundDomain
from tests.databases import Instance, engine_uri
from tests.people import find, people_of
from tests.processes import REPOSITORY
from tests.test_docs import blocks

FOLDER = REPOSITORY / "docs" / "mail-servers"
GENERAL = REPOSITORY / "docs" / "sources.md"
SETTINGS = make(db_uri="sqlite:///unused")
ALICE = "alice@example.com"

# Database -> tables and rows with the names of the program whose page names it, for any engine.
TABLES = {
    "froxlor": """
CREATE TABLE panel_domains (
    id INT, domain VARCHAR(255), isemaildomain INT, deactivated INT, aliasdomain INT);
INSERT INTO panel_domains VALUES (1, 'one.example', 1, 0, NULL), (2, 'off.example', 1, 1, NULL),
    (3, 'alias.example', 1, 0, 1), (4, 'web.example', 0, 0, NULL);
""",
    "dbispconfig": """
CREATE TABLE mail_domain (domain VARCHAR(255), active CHAR(1));
INSERT INTO mail_domain VALUES ('one.example', 'y'), ('off.example', 'n');
""",
    "mailu": """
CREATE TABLE domain (name VARCHAR(80));
CREATE TABLE alternative (name VARCHAR(80), domain_name VARCHAR(80));
INSERT INTO domain VALUES ('one.example');
INSERT INTO alternative VALUES ('alias.example', 'one.example');
""",
    "modoboa": """
CREATE TABLE admin_domain (id INT, name VARCHAR(80), type VARCHAR(80), enabled BOOLEAN);
CREATE TABLE admin_domainalias (name VARCHAR(80), target_id INT, enabled BOOLEAN);
CREATE TABLE admin_mailbox (id INT, address VARCHAR(80), domain_id INT, user_id INT);
CREATE TABLE admin_alias (id INT, address VARCHAR(80), enabled BOOLEAN);
CREATE TABLE modoboa_admin_aliasrecipient (alias_id INT, r_mailbox_id INT, r_alias_id INT);
CREATE TABLE core_user (id INT, email VARCHAR(80), first_name VARCHAR(80), last_name VARCHAR(80),
    is_active BOOLEAN, password VARCHAR(80));
""",
    "postfixadmin": """
CREATE TABLE domain (domain VARCHAR(80), backupmx BOOLEAN, active BOOLEAN);
CREATE TABLE alias_domain (alias_domain VARCHAR(80), target_domain VARCHAR(80), active BOOLEAN);
CREATE TABLE mailbox (username VARCHAR(80), name VARCHAR(80), active BOOLEAN, password VARCHAR(80));
CREATE TABLE alias (address VARCHAR(80), goto VARCHAR(80), active BOOLEAN);
""",
    "vmail": """
CREATE TABLE domain (domain VARCHAR(80), backupmx INT, active INT);
CREATE TABLE alias_domain (alias_domain VARCHAR(80), target_domain VARCHAR(80), active INT);
""",
}
ON, OFF = FoundDomain("one.example"), FoundDomain("off.example", is_active=False)
ALIAS = FoundDomain("alias.example", alias_of="one.example")
FOUND = {"froxlor": {ON, OFF, ALIAS}, "dbispconfig": {ON, OFF}, "mailu": {ON, ALIAS}}


def statements(page: str, beginning: str) -> str:
    """Return the statements of a page that begin so."""
    found = [block.text for block in blocks(FOLDER / f"{page}.md") if block.info == "sql"]
    [text] = [text for text in found if text.startswith(beginning)]
    return text


def sections(page: Path, tmp_path: Path, **changes: str) -> list[SourceSettings]:
    """Return the sources of all sections of a page; texts in them are changed."""
    secret = tmp_path / "secret"
    secret.write_text("hidden\n")
    changes["/etc/automx/vmail"] = str(secret)
    found: list[SourceSettings] = []
    conf = tmp_path / "automx.conf"
    for block in blocks(page):
        if block.info != "ini":
            continue
        text = block.text
        for old, new in changes.items():
            text = text.replace(old, new)
        conf.write_text(text)
        found += load({"AUTOMX_CONF": str(conf)}).sources
    return found


def source(page: str, tmp_path: Path, uri: str = "", kind: str = "sql") -> SourceSettings:
    """Return the first source of a page that is of a kind, with another ``uri`` if it is given."""
    one = next(s for s in sections(FOLDER / f"{page}.md", tmp_path) if s.type == kind)
    kept = ("name", "type", "preset", "query", "people", "people_query", "domains", "command")
    values = {name: getattr(one, name) for name in kept}
    return SourceSettings(uri=engine_uri(uri) if uri else one.uri, **values)


def domains(source: SourceSettings) -> set[FoundDomain]:
    return set(read(source, SETTINGS, ProcessMemory()).by_label.values())


@pytest.mark.parametrize("page", [*sorted(FOLDER.glob("*.md")), GENERAL], ids=lambda p: p.stem)
def test_each_section_on_a_page_can_be_read(page: Path, tmp_path: Path) -> None:
    texts = [block for block in blocks(page) if block.info == "ini"]
    assert len(sections(page, tmp_path)) == len(texts) > 0


@contextlib.contextmanager
def reader(instance: Instance, database: str, text: str) -> Iterator[str]:
    """Make tables and account in a new database, and yield the URI of the account."""
    is_mariadb = instance.uri.startswith("mysql")
    instance.sql(f"CREATE DATABASE {database};")
    try:
        instance.sql(TABLES[database], database)
        instance.sql(text, database)
        root = "root@" if is_mariadb else "postgres@"
        yield instance.uri.format(database).replace(root, "automx_reader:PASSWORD@")
    finally:
        instance.sql(f"DROP DATABASE {database};")
        instance.sql(
            "DROP USER IF EXISTS automx_reader@localhost;"
            if is_mariadb
            else "DROP ROLE IF EXISTS automx_reader;"
        )


def check_rights(page: str, database: str, uri: str, tmp_path: Path) -> None:
    """Read domains and people by an account as the section of a page says."""
    found = source(page, tmp_path, uri)
    assert domains(found) == FOUND.get(database, set())
    if found.people:
        people = people_of(uri, preset=found.preset, people=found.people)
        with contextlib.closing(people):
            assert find(people, ALICE) is None


@pytest.mark.parametrize(
    ("page", "database"),
    [
        ("froxlor", "froxlor"),
        ("ispconfig", "dbispconfig"),
        ("modoboa", "modoboa"),
        ("postfixadmin", "postfixadmin"),
        ("iredmail", "vmail"),
    ],
)
def test_the_rights_on_a_page_are_enough_on_mariadb(
    mariadb_instance: Instance, tmp_path: Path, page: str, database: str
) -> None:
    with reader(mariadb_instance, database, statements(page, "CREATE USER")) as uri:
        check_rights(page, database, uri, tmp_path)


@pytest.mark.parametrize(
    ("page", "database"),
    [
        ("mailu", "mailu"),
        ("modoboa", "modoboa"),
        ("postfixadmin", "postfixadmin"),
        ("iredmail", "vmail"),
    ],
)
def test_the_rights_on_a_page_are_enough_on_postgresql(
    postgresql_instance: Instance, tmp_path: Path, page: str, database: str
) -> None:
    with reader(postgresql_instance, database, statements(page, "CREATE ROLE")) as uri:
        check_rights(page, database, uri, tmp_path)


def fill(uri: str, text: str) -> None:
    with sa.create_engine(uri).begin() as connection:
        for statement in filter(str.strip, text.split(";")):
            connection.exec_driver_sql(statement)


def test_mailus_query_reads_its_file(sqlite: str, tmp_path: Path) -> None:
    fill(sqlite, TABLES["mailu"])
    assert domains(source("mailu", tmp_path, sqlite)) == {ON, ALIAS}


def test_the_query_for_people_of_iredmail_finds_the_mailbox_of_an_alias(
    sqlite: str, tmp_path: Path
) -> None:
    fill(
        sqlite,
        "CREATE TABLE forwardings (address TEXT, forwarding TEXT, active INT);"
        "CREATE TABLE mailbox (username TEXT, name TEXT, active INT);"
        f"INSERT INTO mailbox VALUES ('{ALICE}', 'Alice Example', 1);"
        f"INSERT INTO forwardings VALUES ('{ALICE}', '{ALICE}', 1),"
        f" ('info@example.com', '{ALICE}', 1), ('idle@example.com', '{ALICE}', 0)",
    )
    found = sections(FOLDER / "iredmail.md", tmp_path)
    [query] = [queries.query(one) for one in found if one.people_query]
    with contextlib.closing(people_of(sqlite, people_query=query)) as people:
        person = find(people, "info@example.com")
        assert person is not None
        assert (person.login_name, person.display_name) == (ALICE, "Alice Example")
        assert find(people, "idle@example.com") is None


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("file", "# ours\none.example\ntwo.example # a customer\n"),
        ("command", "# ours\n\none.example OK\n  two.example\tanything else\n"),
    ],
)
def test_the_domains_of_postfix_are_read_from_its_files(
    tmp_path: Path, kind: str, content: str
) -> None:
    file = tmp_path / "domains"
    file.write_text(content)
    page = FOLDER / "postfix-dovecot.md"
    found = sections(page, tmp_path, **{"/etc/postfix/domains": str(file)})
    [one] = [each for each in found if each.type == kind]
    assert {each.name for each in domains(one)} == {"one.example", "two.example"}


def test_the_query_for_domains_of_postfix_fits_its_table(sqlite: str, tmp_path: Path) -> None:
    fill(sqlite, "CREATE TABLE virtual_domains (name TEXT)")
    fill(sqlite, "INSERT INTO virtual_domains VALUES ('one.example')")
    assert domains(source("postfix-dovecot", tmp_path, sqlite)) == {ON}


@pytest.mark.parametrize("page", ["postfixadmin", "modoboa"])
@pytest.mark.parametrize("beginning", ["CREATE USER", "CREATE ROLE"])
def test_no_account_may_read_passwords(page: str, beginning: str) -> None:
    text = statements(page, beginning)
    table = {"postfixadmin": "mailbox", "modoboa": "core_user"}[page]
    [line] = [line for line in text.splitlines() if re.search(rf"\b{table} TO", line)]
    assert line.startswith("GRANT SELECT (")
    assert "password" not in text.replace("PASSWORD", "")
