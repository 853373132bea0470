"""What docs/sources.md says of other programs: rights, sections and queries, on their tables."""

import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from automx.backends.keys import ProcessMemory
from automx.config import SourceSettings, load, make
from automx.sources import read
from automx.sources.found import FoundDomain
from tests.databases import Instance
from tests.processes import REPOSITORY
from tests.test_docs import blocks

PAGE = REPOSITORY / "docs" / "sources.md"
SETTINGS = make(db_uri="sqlite:///unused")

FROXLOR = """
CREATE TABLE panel_domains (
    id INT, domain VARCHAR(255), isemaildomain TINYINT, deactivated TINYINT, aliasdomain INT);
INSERT INTO panel_domains VALUES (1, 'one.example', 1, 0, NULL), (2, 'off.example', 1, 1, NULL),
    (3, 'alias.example', 1, 0, 1), (4, 'web.example', 0, 0, NULL);
"""
ISPCONFIG = """
CREATE TABLE mail_domain (domain VARCHAR(255), active ENUM('n', 'y'));
INSERT INTO mail_domain VALUES ('one.example', 'y'), ('off.example', 'n');
"""
MAILU = """
CREATE TABLE domain (name VARCHAR(80));
CREATE TABLE alternative (name VARCHAR(80), domain_name VARCHAR(80));
INSERT INTO domain VALUES ('one.example');
INSERT INTO alternative VALUES ('alias.example', 'one.example');
"""
ON, OFF = FoundDomain("one.example"), FoundDomain("off.example", is_active=False)
ALIAS = FoundDomain("alias.example", alias_of="one.example")


def part(heading: str) -> str:
    """Return the part of the page that begins with a text, up to the end."""
    text = PAGE.read_text()
    assert text.count(heading) == 1
    return text[text.index(heading) :]


def source(text: str, tmp_path: Path) -> SourceSettings:
    """Return the source of the first section in a text."""
    found = re.search(r"```ini\n(.*?)```", text, re.DOTALL)
    assert found
    conf = tmp_path / "automx.conf"
    conf.write_text(found[1])
    [read_source] = load({"AUTOMX_CONF": str(conf)}).sources
    return read_source


def domains(source: SourceSettings) -> set[FoundDomain]:
    return set(read(source, SETTINGS, ProcessMemory()).by_label.values())


def test_each_section_on_the_page_can_be_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hidden\n")
    texts = [block.text for block in blocks(PAGE) if block.info == "ini"]
    assert len(texts) == 9
    for text in texts:
        changed = text.replace("/etc/automx/vmail", str(secret))
        [found] = [source(f"```ini\n{changed}```", tmp_path)]
        assert found.name == "mail"


@pytest.mark.parametrize(
    ("program", "database", "tables", "expected"),
    [
        ("Froxlor (", "froxlor", FROXLOR, {ON, OFF, ALIAS}),
        ("ISPConfig (", "dbispconfig", ISPCONFIG, {ON, OFF}),
        ("## Modoboa", "modoboa", "", set()),
        ("## PostfixAdmin", "postfixadmin", "", set()),
    ],
)
def test_the_rights_on_the_page_are_enough_on_mariadb(
    mariadb_instance: Instance,
    tmp_path: Path,
    program: str,
    database: str,
    tables: str,
    expected: set[FoundDomain],
) -> None:
    text = part(program)
    statements: Any = {
        "Froxlor (": [
            "CREATE USER automx_reader@localhost IDENTIFIED BY 'PASSWORD'",
            *re.findall(r"`(GRANT [^`]*);`", text)[:1],
        ],
        "ISPConfig (": [
            "CREATE USER automx_reader@localhost IDENTIFIED BY 'PASSWORD'",
            *re.findall(r"`(GRANT [^`]*);`", text)[:1],
        ],
    }.get(program) or re.findall(r"```sql\n(CREATE USER .*?)```", text, re.DOTALL)[:1]
    tables = (
        tables
        or {
            "modoboa": "CREATE TABLE admin_domain (id INT, name TEXT, type TEXT, enabled BOOLEAN);"
            "CREATE TABLE admin_domainalias (name TEXT, target_id INT, enabled BOOLEAN);",
            "postfixadmin": "CREATE TABLE domain (domain TEXT, backupmx BOOLEAN, active BOOLEAN);"
            "CREATE TABLE alias_domain (alias_domain TEXT, target_domain TEXT, active BOOLEAN);",
        }[database]
    )
    mariadb_instance.sql(f"CREATE DATABASE {database}; USE {database}; {tables}")
    try:
        mariadb_instance.sql(";\n".join(statements))
        found = source(text, tmp_path)
        uri = mariadb_instance.uri.format(database).replace("root@", "automx_reader:PASSWORD@")
        uri = uri.replace("mysql://", "mysql+pymysql://")
        assert found.uri.partition("://")[2].startswith("automx_reader:PASSWORD@localhost/")
        values = {name: getattr(found, name) for name in ("name", "type", "preset", "query")}
        assert domains(SourceSettings(uri=uri, **values)) == expected
    finally:
        mariadb_instance.sql(
            f"DROP DATABASE {database}; DROP USER IF EXISTS automx_reader@localhost"
        )


def test_mailus_query_reads_its_file(sqlite: str, tmp_path: Path) -> None:
    with sa.create_engine(sqlite).begin() as connection:
        for statement in MAILU.split(";"):
            connection.exec_driver_sql(statement)
    found = source(part("Mailu ("), tmp_path)
    assert domains(SourceSettings(name="mail", type="sql", uri=sqlite, query=found.query)) == {
        ON,
        ALIAS,
    }
