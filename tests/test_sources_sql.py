"""Sources in databases: real schemas, read-only accounts, and databases that fail."""

import contextlib
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from automx.backends.keys import ProcessMemory
from automx.config import SourceSettings, make
from automx.errors import SettingsError
from automx.sources import presets, read
from automx.sources.found import Domains, FoundDomain, SourceError
from tests import postfixadmin
from tests.databases import Instance, engine_uri

SETTINGS = make(db_uri="sqlite:///unused")
TABLE = "see preset or query, and whether uri names the right database"


def found(uri: str, **settings: Any) -> Domains:
    source = SourceSettings(name="mail", type="sql", uri=engine_uri(uri), **settings)
    return read(source, SETTINGS, ProcessMemory())


def error(uri: str, **settings: Any) -> str:
    with pytest.raises(SourceError) as caught:
        found(uri, **settings)
    return str(caught.value.cause)


@dataclass
class Database:
    """A database of a mail server; ``uri`` is that of an account that may only read."""

    instance: Instance
    name: str
    uri: str = field(default="")

    @property
    def is_mariadb(self) -> bool:
        return self.instance.uri.startswith("mysql")

    def sql(self, statements: str) -> str:
        return self.instance.sql(statements, self.name)

    def grant(self, *tables: str) -> None:
        """Make the account as the documentation does."""
        reader = f"reader_{self.name}"
        if self.is_mariadb:
            grants = [f"GRANT SELECT ON {self.name}.{table} TO {reader}" for table in tables]
            self.sql(";".join([f"CREATE USER {reader} IDENTIFIED BY 'hidden'", *grants]))
        else:
            grants = [f"GRANT SELECT ON {', '.join(tables)} TO {reader}"]
            self.sql(";".join([f"CREATE ROLE {reader} LOGIN", *grants]))
        self.uri = self.instance.uri.format(self.name).replace("root@", f"{reader}:hidden@")
        self.uri = self.uri.replace("postgres@", f"{reader}@")


@pytest.fixture(params=["mariadb_instance", "postgresql_instance"])
def database(request: pytest.FixtureRequest) -> Database:
    instance: Instance = request.getfixturevalue(request.param)
    uri = instance.new_database()
    return Database(instance, str(sa.engine.make_url(uri).database))


def test_postfixadmins_domains_are_read_from_the_tables_that_it_makes(database: Database) -> None:
    engine = "mariadb" if database.is_mariadb else "postgresql"
    place = database.instance.socket
    user = "root" if database.is_mariadb else "postgres"
    printed = postfixadmin.make_tables(
        engine, database.name, place if database.is_mariadb else place.parent, user
    )
    yes, no = ("1", "0") if database.is_mariadb else ("true", "false")
    rows = (
        ("one.example", no, yes),
        ("off.example", no, no),
        ("backup.example", yes, yes),
        ("alias.example", no, yes),
        ("idle.example", no, yes),
        ("müller.example" if not database.is_mariadb else "xn--mller-kva.example", no, yes),
        ("bad name", no, yes),
    )
    columns = (
        "domain, description, aliases, mailboxes, maxquota, quota, transport, backupmx, active"
    )
    for name, is_backup, is_active in rows:
        database.sql(
            f"INSERT INTO domain ({columns}) VALUES"
            f" ('{name}', '', 0, 0, 0, 0, 'virtual', {is_backup}, {is_active})"
        )
    database.sql(
        "INSERT INTO alias_domain (alias_domain, target_domain, active) VALUES"
        f" ('alias.example', 'one.example', {yes}), ('idle.example', 'one.example', {no})"
    )
    database.grant("domain", "alias_domain")
    answer = found(database.uri, preset="postfixadmin")
    muller = "xn--mller-kva.example"
    assert answer.by_label == {
        "one.example": FoundDomain("one.example"),
        "off.example": FoundDomain("off.example", is_active=False),
        "alias.example": FoundDomain("alias.example", alias_of="one.example"),
        "idle.example": FoundDomain("idle.example"),
        muller: FoundDomain(muller),
    }, printed
    assert [str(problem) for problem in answer.problems] == ["bad name: it is no domain name"]


def test_aliases_are_not_compared_with_each_domain(
    postgresql_instance: Instance,
) -> None:
    name = str(sa.engine.make_url(postgresql_instance.new_database()).database)
    postgresql_instance.sql(
        "CREATE TABLE domain (domain VARCHAR(255) PRIMARY KEY, active BOOLEAN, backupmx BOOLEAN);"
        " CREATE TABLE alias_domain (alias_domain VARCHAR(255), target_domain VARCHAR(255),"
        " active BOOLEAN); INSERT INTO domain SELECT n || '.example', true, false"
        " FROM generate_series(1, 20000) n; INSERT INTO alias_domain SELECT n || '.example',"
        " '1.example', true FROM generate_series(1, 20000) n",
        name,
    )
    query = presets.query(SourceSettings(name="mail", type="sql", preset="postfixadmin"))
    # Nothing is known of the tables yet, and then everything; in both cases, memory is short.
    for before in ("", "ANALYZE;"):
        plan = postgresql_instance.sql(f"{before} SET work_mem = '64kB'; EXPLAIN {query}", name)
        assert "SubPlan" not in plan
        assert "Nested Loop" not in plan


# Tables as the facts of other programs name them: columns, and the types that matter here.
IREDMAIL = """
CREATE TABLE domain (domain VARCHAR(255), backupmx SMALLINT, active SMALLINT);
CREATE TABLE alias_domain (alias_domain VARCHAR(255), target_domain VARCHAR(255), active SMALLINT);
INSERT INTO domain VALUES
    ('one.example', 0, 1), ('off.example', 0, 0), ('backup.example', 1, 1), ('ALL', 0, 1);
INSERT INTO alias_domain VALUES
    ('alias.example', 'one.example', 1), ('idle.example', 'one.example', 0);
"""
MODOBOA = """
CREATE TABLE admin_domain (id INTEGER, name VARCHAR(100), type VARCHAR(20), enabled BOOLEAN);
CREATE TABLE admin_domainalias (
    id INTEGER, name VARCHAR(254), target_id INTEGER, enabled BOOLEAN);
INSERT INTO admin_domain VALUES (1, 'one.example', 'domain', true),
    (2, 'off.example', 'domain', false), (3, 'relay.example', 'relaydomain', true);
INSERT INTO admin_domainalias VALUES (1, 'alias.example', 1, true),
    (2, 'idle.example', 1, false), (3, 'other.example', 3, true);
"""


@pytest.mark.parametrize(
    ("preset", "statements", "tables"),
    [
        ("postfixadmin", IREDMAIL, ("domain", "alias_domain")),
        ("modoboa", MODOBOA, ("admin_domain", "admin_domainalias")),
    ],
)
def test_a_preset_reads_the_tables_of_its_program(
    database: Database, preset: str, statements: str, tables: tuple[str, ...]
) -> None:
    database.sql(statements)
    database.grant(*tables)
    assert found(database.uri, preset=preset) == Domains(
        {
            "one.example": FoundDomain("one.example"),
            "off.example": FoundDomain("off.example", is_active=False),
            "alias.example": FoundDomain("alias.example", alias_of="one.example"),
            "idle.example": FoundDomain("idle.example", is_active=False, alias_of="one.example"),
        }
    )


QUERY = (
    "SELECT name AS DOMAIN, live AS active, owner AS provider,"
    " CASE WHEN model LIKE '%:%' THEN '' ELSE model END AS \"like\", target AS alias_of FROM d"
    " WHERE name NOT LIKE '%.local'"
)
ROWS = (
    "CREATE TABLE d (name VARCHAR(90), live CHAR(1), owner INTEGER, model VARCHAR(90),"
    " target VARCHAR(90));"
    "INSERT INTO d VALUES ('One.Example.', 'y', 7, '', NULL),"
    " ('two.example', 'N', NULL, 'ONE.example', ''), ('x.local', 'y', NULL, '', ''),"
    " ('three.example', 'Y', NULL, 'a:b', 'two.example')"
)


def test_an_own_query_says_all_that_a_preset_does(
    database: Database, sqlite: str, tmp_path: Path
) -> None:
    expected = Domains(
        {
            "one.example": FoundDomain("one.example", provider="7"),
            "two.example": FoundDomain("two.example", is_active=False, like="one.example"),
            "three.example": FoundDomain("three.example", alias_of="two.example"),
        }
    )
    database.sql(ROWS)
    database.grant("d")
    query = QUERY.replace('"', "`") if database.is_mariadb else QUERY
    assert found(database.uri, query=query) == expected
    with sa.create_engine(sqlite).begin() as connection:
        for statement in ROWS.split(";"):
            connection.exec_driver_sql(statement)
    (tmp_path / "automx.sqlite").chmod(0o400)
    assert found(sqlite, query=QUERY) == expected


def test_a_source_is_not_written_even_if_the_account_may(database: Database) -> None:
    database.sql("CREATE TABLE d (domain VARCHAR(90)); INSERT INTO d VALUES ('one.example')")
    if database.is_mariadb:
        database.sql(
            "DELIMITER //\nCREATE FUNCTION spoil() RETURNS VARCHAR(90) DETERMINISTIC"
            " MODIFIES SQL DATA BEGIN DELETE FROM d; RETURN 'two.example'; END//\nDELIMITER ;\n"
        )
    else:
        database.sql(
            "CREATE FUNCTION spoil() RETURNS VARCHAR LANGUAGE SQL"
            " AS $$ DELETE FROM d; SELECT 'two.example'::varchar $$"
        )
    uri = database.instance.uri.format(database.name)
    text = error(uri, query="SELECT spoil() AS domain")
    assert "read-only transaction" in text.lower().replace("read only", "read-only")
    assert database.sql("SELECT * FROM d").strip() == "one.example"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT 1 AS name", "the query has no column domain, but name"),
        (
            "SELECT 'a.example' AS domain, 1 AS enabled",
            "the query has a column enabled; known are domain, active, provider, like, alias_of",
        ),
        (
            "SELECT 'a.example' AS domain, 'perhaps' AS active",
            'the domain a.example: active: expected yes or no, 1 or 0, found "perhaps"',
        ),
        (
            "SELECT 'a.example' AS domain, NULL AS active",
            "the domain a.example: active: expected yes or no, 1 or 0, found null",
        ),
        (
            "SELECT domain FROM missing",
            f"database: no such table: missing; {TABLE}",
        ),
        ("SELECT domain FORM d", 'database: near "d": syntax error; see query'),
    ],
)
def test_a_query_that_says_no_domains_is_an_error(sqlite: str, query: str, expected: str) -> None:
    sa.create_engine(sqlite).connect().close()
    assert error(sqlite, query=query) == expected


@pytest.mark.parametrize("scheme", ["mysql+pymysql", "postgresql+psycopg"])
@pytest.mark.parametrize("user", ["u:a@b:SECRET", "u:a@[b:SECRET", "u:a@b:1:SECRET"])
def test_a_password_that_should_be_escaped_is_not_shown(scheme: str, user: str) -> None:
    with pytest.raises(SettingsError) as raised:
        error(f"{scheme}://{user}@host/mail", query="SELECT domain FROM d")
    assert str(raised.value).endswith("a URI in whose user name and password %40 stands for @")


def test_a_missing_file_is_not_made(sqlite: str, tmp_path: Path) -> None:
    assert error(sqlite, query="SELECT 1 AS domain").startswith("database: unable to open")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("scheme", ["mysql", "postgresql"])
def test_a_silent_database_is_given_up_after_its_time(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # the kernel accepts, nobody answers
        uri = f"{scheme}://reader:hidden@127.0.0.1:{server.getsockname()[1]}/mail"
        began = time.monotonic()
        text = error(uri, query="SELECT 1 AS domain", timeout=0.5)
        assert time.monotonic() - began < 20
    assert text.startswith("database: ")
    assert "hidden" not in text


@pytest.mark.parametrize("scheme", ["mysql", "postgresql"])
def test_a_database_that_refuses_is_named_without_the_password(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    text = error(f"{scheme}://reader:hidden@127.0.0.1:{port}/mail", query="SELECT 1 AS domain")
    assert "refused" in text
    assert text.endswith("; see that the database runs, and host and port in uri")
    assert "hidden" not in text


@pytest.mark.parametrize(
    ("query", "advice"),
    [
        ("SELECT domain FROM secrets", "the account may not read this: it needs GRANT SELECT"),
        ("SELECT name AS domain FROM d", TABLE),
        ("SELECT domain FORM d", "see query"),
    ],
)
def test_what_a_database_refuses_is_told_in_one_line_with_what_to_do(
    database: Database, query: str, advice: str, capfd: pytest.CaptureFixture[str]
) -> None:
    database.sql("CREATE TABLE d (domain TEXT); CREATE TABLE secrets (domain TEXT)")
    database.grant("d")
    text = error(database.uri, query=query)
    assert f"; {advice}" in text
    assert not re.search(r"DECLARE|\^|\(\d+, ", text)
    assert capfd.readouterr().err == ""  # it is told once


@pytest.mark.parametrize(
    ("before", "after", "advice"),
    [
        ("/{name}", "/nowhere", "see the name of the database at the end of uri"),
        ("reader_", "writer_", "see user name and password in uri; special characters are"),
    ],
)
def test_what_is_wrong_in_a_uri_is_told_once_with_what_to_do(
    database: Database, before: str, after: str, advice: str
) -> None:
    database.sql("CREATE TABLE d (domain TEXT)")
    database.grant("d")
    wrong = database.uri.replace(before.format(name=database.name), after)
    assert wrong != database.uri
    text = error(wrong, query="SELECT domain FROM d")
    if after == "/nowhere" or database.is_mariadb:  # PostgreSQL of tests asks for no password
        assert f"; {advice}" in text
    assert "hidden" not in text
    assert "Multiple connection attempts" not in text


def test_a_source_that_ends_in_the_middle_is_an_error(database: Database) -> None:
    """The rows are sent slowly, and the server ends the connection after some of them."""
    if database.is_mariadb:
        rows = "SELECT CONCAT('d', seq, '.example') AS domain"
        query = f"{rows}, IF(seq > 150000, SLEEP(20), 1) + 1 > 0 AS active FROM seq_1_to_200000"
        ids = "SELECT id FROM information_schema.processlist WHERE info LIKE '%seq_1_to_200000%'"
        kill = f"{ids} AND id <> CONNECTION_ID()"
    else:
        query = (
            "SELECT 'd' || i || '.example' AS domain, CASE WHEN i > 150000 THEN"
            " pg_sleep(20) IS NOT NULL ELSE true END AS active FROM generate_series(1, 200000) i"
        )
        kill = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            " AND datname = current_database()"
        )
    caught: list[BaseException] = []

    def work() -> None:
        try:
            found(database.instance.uri.format(database.name), query=query, timeout=60)
        except BaseException as failure:
            caught.append(failure)

    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 50
    while thread.is_alive() and time.monotonic() < deadline:
        ended = database.sql(kill).split()
        if database.is_mariadb and ended:
            with contextlib.suppress(pytest.fail.Exception):
                database.sql(f"KILL {ended[0]}")
        thread.join(0.5)
    thread.join(20)
    assert [type(failure) for failure in caught] == [SourceError]
