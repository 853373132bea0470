"""Look-up: which row decides for a domain, what its servers become, how long that is remembered."""

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from automx import domainrows, lookup
from automx.cache import FoundConfig
from automx.clientconfig import (
    Authentication,
    ClientConfig,
    MailServer,
    ServerType,
    Service,
    ServiceType,
    SocketType,
)
from automx.config import load
from automx.database import (
    Session,
    Spares,
    Turns,
    create_engine,
    open_session,
    reading_options,
)
from automx.database.reading import Reading
from automx.errors import (
    BadRecordError,
    DatabaseError,
    DisabledDomainError,
    UnknownDomainError,
)
from automx.formats import autoconfig, autodiscover
from automx.lookup import find
from automx.migrations import upgrade
from automx.models import Domain, Provider, Server, metadata
from automx.rowmemory import RowMemory
from tests.databases import ENGINES, Instance

IMAP = (1, 10, "imap.example.com", 993, "imap", "SSL", "%EMAILADDRESS%", "plain")
SMTP = (2, 10, "smtp.example.com", 465, "smtp", "SSL", "%EMAILADDRESS%", "plain")

# Of MariaDB, some of which compare blanks at the end, or tell small letters from large ones.
COLLATIONS = (
    "utf8mb4_general_ci",
    "utf8mb4_general_nopad_ci",
    "utf8mb4_unicode_520_ci",
    "utf8mb4_uca1400_nopad_as_cs",
    "utf8mb4_nopad_bin",
    "latin1_german2_ci",
)


def client_config(session: Session, domain: str) -> ClientConfig:
    """Return the settings that a look-up of a domain finds."""
    return find(session, domain).config


@pytest.fixture(scope="module", params=ENGINES)
def engine(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    empty_database: Path,
) -> Iterator[sqlalchemy.Engine]:
    """Return an engine on a migrated database of each kind in turn."""
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("lookup") / "automx.sqlite"
        path.write_bytes(empty_database.read_bytes())
        uri = f"sqlite:///{path}"
    else:
        instance: Instance = request.getfixturevalue(f"{request.param}_instance")
        uri = instance.new_migrated_database()
    uri = load({"AUTOMX_CONF": "/dev/null", "HOME": "/", "AUTOMX_DB_URI": uri}).db_uri
    engine = create_engine(uri)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: sqlalchemy.Engine) -> Iterator[Session]:
    """Return a session whose rows are forgotten after the test."""
    with Session(engine) as session:
        yield session
        session.rollback()


@pytest.fixture
def sqlite_session(empty_database: object) -> Iterator[Session]:
    """Return a session on SQLite, which lets any value into any column; its rows are forgotten."""
    engine = create_engine(f"sqlite:///{empty_database}")
    with Session(engine) as session:
        yield session
        session.rollback()
    engine.dispose()


def insert(session: Session, table: str, *rows: tuple[object, ...]) -> None:
    """Insert rows by position."""
    columns = metadata.tables[table].columns.keys()
    for row in rows:
        statement = f"INSERT INTO {table} VALUES ({', '.join(f':{name}' for name in columns)})"
        session.execute(sqlalchemy.text(statement), dict(zip(columns, row, strict=True)))


def insert_domains(session: Session, *names: str) -> None:
    """Insert domains, each of a provider that bears its name, with servers for all."""
    insert(session, "server", IMAP, SMTP)
    for number, name in enumerate(names, 1):
        insert(session, "provider", (number, name, name[:32]))
        insert(session, "domain", (number, name, number, None))
        insert(session, "server_domain", (1, number), (2, number))


def insert_servers(session: Session, *servers: tuple[object, ...]) -> None:
    """Insert example.com with some servers."""
    insert(session, "provider", (1, "Example Inc.", "Example"))
    insert(session, "domain", (1, "example.com", 1, None))
    insert(session, "server", *servers)
    insert(session, "server_domain", *((server[0], 1) for server in servers))


def insert_dav_server(session: Session, *columns: object) -> None:
    """Insert example.com with usable mail servers and one of CalDAV and such, with id 7."""
    insert_servers(session, IMAP, SMTP)
    insert(session, "davserver", (7, *columns))
    insert(session, "davserver_domain", (7, 1))


def found(session: Session, domain: str) -> str | None:
    """Return the name of the row that decides for a domain; None if the domain is unknown."""
    try:
        config = client_config(session, domain)
    except UnknownDomainError:
        return None
    assert config.domain == domain
    return config.provider_name


@pytest.mark.parametrize("name", ["example.com", "Example.COM", "EXAMPLE.com"])
def test_a_row_is_found_in_any_case(session: Session, name: str) -> None:
    insert_domains(session, "other.com", name)
    assert found(session, "example.com") == name


@pytest.mark.parametrize(
    "name",
    ["müller.de", "MÜLLER.de", "Müller.DE", "xn--mller-kva.de", "XN--MLLER-KVA.DE"],
)
def test_a_row_is_found_in_both_forms_of_idna(session: Session, name: str) -> None:
    insert_domains(session, "other.com", name)
    assert found(session, "xn--mller-kva.de") == name
    assert found(session, "muller.de") is None


@pytest.mark.parametrize("name", ["*.müller.de", "*.MÜLLER.de", "*.xn--mller-kva.de"])
def test_a_wildcard_row_is_found_in_both_forms_of_idna(session: Session, name: str) -> None:
    insert_domains(session, name)
    assert found(session, "mail.xn--mller-kva.de") == name
    assert found(session, "mail.muller.de") is None


def test_a_row_without_the_umlaut_is_another_domain(session: Session) -> None:
    insert_domains(session, "muller.de", "*.muller.de")
    assert found(session, "xn--mller-kva.de") is None
    assert found(session, "mail.xn--mller-kva.de") is None
    assert found(session, "muller.de") == "muller.de"


def test_the_a_label_is_preferred_if_both_forms_have_a_row(session: Session) -> None:
    insert_domains(session, "müller.de", "xn--mller-kva.de")
    assert found(session, "xn--mller-kva.de") == "xn--mller-kva.de"


def test_the_exact_row_decides_then_the_nearest_wildcard_then_the_star(session: Session) -> None:
    insert_domains(session, "*", "*.Example.com", "*.b.example.com", "a.b.example.com")
    assert {
        domain: found(session, domain)
        for domain in (
            "a.b.example.com",
            "x.b.example.com",
            "y.x.b.example.com",
            "b.example.com",
            "example.com",
            "example.org",
            "com",
        )
    } == {
        "a.b.example.com": "a.b.example.com",
        "x.b.example.com": "*.b.example.com",
        "y.x.b.example.com": "*.b.example.com",
        "b.example.com": "*.Example.com",
        "example.com": "*",
        "example.org": "*",
        "com": "*",
    }


@pytest.mark.parametrize(
    "name",
    [" example.com", "example.com ", "  Example.com  ", "\texample.com", "example.com\r\n"],
)
def test_a_row_is_found_in_spite_of_blanks_around_its_name(session: Session, name: str) -> None:
    insert_domains(session, name, " *.example.net ", "*.com")
    assert found(session, "example.com") == name.strip()
    assert found(session, "a.example.net") == "*.example.net"
    assert found(session, "other.com") == "*.com"


@pytest.mark.parametrize("name", ["Example.com", "*.example.com", "*", "MÜLLER.de"])
def test_one_query_finds_a_row_whatever_blanks_are_around_its_name(
    session: Session, name: str
) -> None:
    assert_found_by_one_query(session, name)


def test_one_query_finds_a_row_with_blanks_by_each_collation_of_mariadb(
    migrated_mariadb: str,
) -> None:
    uri = load({"AUTOMX_CONF": "/dev/null", "HOME": "/", "AUTOMX_DB_URI": migrated_mariadb}).db_uri
    with open_session(uri) as session:
        for collation in COLLATIONS:
            column = f"name VARCHAR(128) COLLATE {collation} NOT NULL"
            session.execute(sqlalchemy.text(f"ALTER TABLE domain MODIFY {column}"))
            assert_found_by_one_query(session, "example.com")
            session.execute(Domain.delete())
            session.execute(Provider.delete())


@pytest.mark.parametrize("locale", ["en", "en-u-ka-shifted"])  # the latter passes over blanks
def test_one_query_finds_a_row_with_blanks_by_each_collation_of_postgresql(
    postgresql_instance: Instance, locale: str
) -> None:
    options = f"LOCALE_PROVIDER icu ICU_LOCALE '{locale}' TEMPLATE template0"
    uri = postgresql_instance.new_database(options)
    uri = load({"AUTOMX_CONF": "/dev/null", "HOME": "/", "AUTOMX_DB_URI": uri}).db_uri
    upgrade(uri)
    with open_session(uri) as session:
        for name in ("example.com", "*.exam-ple.com", "*"):
            assert_found_by_one_query(session, name)
            session.execute(Domain.delete())
            session.execute(Provider.delete())


def assert_found_by_one_query(session: Session, name: str) -> None:
    """Check that each form of a name with blanks is found, alone in the table."""
    domain = {"*": "org", "MÜLLER.de": "xn--mller-kva.de"}.get(name)
    domain = domain or name.replace("*", "a").lower()
    insert(session, "provider", (1, "Example Inc.", "Example"))
    for padded in domainrows.padded([name]):
        session.execute(Domain.delete())
        insert(session, "domain", (1, padded, 1, None))
        with statements(session) as asked:
            row = lookup.domain_row(session, domain)
        assert row is not None, repr(padded)
        assert (row.name.strip(), len(asked)) == (name, 1)


def test_a_row_without_blanks_is_preferred(session: Session) -> None:
    insert_domains(session, " example.com", "example.com")
    assert found(session, "example.com") == "example.com"


@pytest.mark.parametrize(
    ("names", "off", "unknown", "known"),
    [
        (["example.com", "example.org"], [1], ["example.com"], ["example.org"]),
        (["Example.COM"], [1], ["example.com"], []),
        (["müller.de"], [1], ["xn--mller-kva.de"], []),
        (["MÜLLER.de"], [1], ["xn--mller-kva.de"], []),
        (["xn--mller-kva.de"], [1], ["xn--mller-kva.de"], []),
        ([" example.com\r\n"], [1], ["example.com"], []),
        # A row of its own that is off is not caught by a wildcard.
        (["example.com", "*.com", "*"], [1], ["example.com"], ["example.net", "a.example.com"]),
        ([" example.com", "*"], [1], ["example.com"], ["example.org"]),
        # A wildcard that is off hides what no other row names.
        (
            ["*.example.com", "*", "a.example.com", "*.b.example.com"],
            [1],
            ["x.example.com", "b.example.com"],
            ["a.example.com", "x.b.example.com", "example.com", "example.org"],
        ),
        (["*", "*.example.com"], [1], ["example.org", "com"], ["a.example.com"]),
        # Of two rows for one domain, the one that decides.
        (["müller.de", "xn--mller-kva.de"], [2], ["xn--mller-kva.de"], []),
        (["müller.de", "xn--mller-kva.de"], [1], [], ["xn--mller-kva.de"]),
        ([" example.com", "example.com"], [1], [], ["example.com"]),
    ],
)
def test_a_domain_whose_row_is_off_is_unknown(
    session: Session, names: list[str], off: list[int], unknown: list[str], known: list[str]
) -> None:
    insert_domains(session, *names)
    all_names = [*unknown, *known]
    assert None not in {found(session, domain) for domain in all_names}
    insert(session, "disabled_domain", *((row_id, "2026-11-30 10:00:00") for row_id in off))
    assert [domain for domain in all_names if found(session, domain)] == known
    assert [domain for domain in all_names if lookup.knows(session, domain)] == known
    assert not any(lookup.names(session, domain) for domain in unknown)
    rows = [lookup.domain_row(session, domain) for domain in unknown]
    assert {row.id for row in rows if row and row.off} == set(off if unknown else [])


@pytest.mark.parametrize(
    ("name", "domain", "cause"),
    [
        ("EXAMPLE.com", "example.com", "example.com has been off since 2026-11-30"),
        (
            "*.example.com",
            "a.example.com",
            "a.example.com has been off since 2026-11-30, by the row *.example.com",
        ),
        ("*.example.com", "*.example.com", "*.example.com has been off since 2026-11-30"),
        ("*", "com", "com has been off since 2026-11-30, by the row *"),
    ],
)
def test_the_administrator_is_told_since_when_a_domain_is_off(
    session: Session, name: str, domain: str, cause: str
) -> None:
    insert_domains(session, name)
    insert(session, "disabled_domain", (1, "2026-11-30 23:59:59"))
    with pytest.raises(DisabledDomainError) as caught:
        find(session, domain)
    assert (str(caught.value), caught.value.status) == (UnknownDomainError.public, 404)
    assert (caught.value.cause, caught.value.reason) == (cause, cause)
    assert copy(caught.value).reason == cause  # as a cache keeps it


def test_a_domain_is_off_whatever_sqlite_holds_as_its_time(sqlite_session: Session) -> None:
    insert_domains(sqlite_session, "example.com")
    insert(sqlite_session, "disabled_domain", (1, "some day"))
    with pytest.raises(DisabledDomainError) as caught:
        find(sqlite_session, "example.com")
    assert caught.value.cause == "example.com has been off since 'some day'"
    assert list(lookup.bad_rows(sqlite_session)) == [
        (
            "disabled_domain",
            1,
            'since: expected a moment with its time zone, found "some day"',
        )
    ]


def test_the_first_domains_are_those_that_are_not_off(session: Session) -> None:
    insert_domains(session, "c.example", "a.example", "*.example", "b.example")
    assert lookup.first_domains(session, 9) == ["a.example", "b.example", "c.example"]
    insert(session, "disabled_domain", (2, "2026-11-30 10:00:00"))
    assert lookup.first_domains(session, 9) == ["b.example", "c.example"]
    insert(session, "disabled_domain", *((i, "2026-11-30 10:00:00") for i in (1, 4)))
    assert lookup.first_domains(session, 2) == ["a.example", "b.example"]


@contextlib.contextmanager
def statements(session: Session) -> Iterator[list[str]]:
    """Yield the statements that the connection of a session runs."""
    asked: list[str] = []

    def note(*values: Any) -> None:
        asked.append(values[2])

    connection = session.connection()
    sqlalchemy.event.listen(connection, "before_cursor_execute", note)
    yield asked
    sqlalchemy.event.remove(connection, "before_cursor_execute", note)


def ports(found: FoundConfig) -> list[int]:
    return [server.port for server in found.config.mail_servers]


@pytest.mark.parametrize("domain", ["example.com", "a.b.example.com", "xn--mller-kva.de", "com"])
def test_an_unknown_domain_costs_one_query(session: Session, domain: str) -> None:
    insert_domains(session, "example.org", "*.example.net", " example.net")
    with statements(session) as asked, pytest.raises(UnknownDomainError):
        find(session, domain)
    assert len(asked) == 1


def test_a_cold_look_up_is_one_round_trip(any_migrated_uri: str, tmp_path: Path) -> None:
    uri = load({"AUTOMX_CONF": "/dev/null", "HOME": "/", "AUTOMX_DB_URI": any_migrated_uri}).db_uri
    with open_session(uri) as session:
        insert_domains(session, "first.example", "second.example", "*.third.example")
        session.execute(Domain.update().values(provider_id=1))
    engine = sqlalchemy.create_engine(uri, **reading_options(uri, 30))
    turns = Turns(engine, 30, looks_first=False)
    reading = Reading(partial(Session, engine, turns, Spares(engine)))
    memory = RowMemory(60, 100, lambda: 0.0)
    reading.read(partial(find, domain="first.example", memory=memory))
    with round_trips(reading, tmp_path / "trace") as trips:
        for domain in ("second.example", "a.third.example"):
            reading.read(partial(find, domain=domain, memory=memory))
        assert trips() == 2
        with pytest.raises(UnknownDomainError):
            reading.read(partial(find, domain="unknown.example", memory=memory))
        assert trips() == 3
        reading.read(partial(find, domain="first.example"))
        assert trips() == 7  # domain, provider, its details, mail servers
    turns.close()
    engine.dispose()


def test_postgresql_compiles_no_look_up_whatever_it_knows_of_the_tables(
    migrated_postgresql: str,
) -> None:
    uri = load({"AUTOMX_CONF": "/dev/null", "HOME": "/", "AUTOMX_DB_URI": migrated_postgresql})
    asked: list[tuple[str, Any]] = []
    with open_session(uri.db_uri) as session:
        insert_domains(session, "example.com", "example.org")
        session.execute(sqlalchemy.text("ANALYZE domain"))  # those beside it have too few rows
        connection = session.connection()

        def note(*values: Any) -> None:
            asked.append(values[2:4])

        sqlalchemy.event.listen(connection, "before_cursor_execute", note)
        assert find(session, "example.com").config.domain == "example.com"
        sqlalchemy.event.remove(connection, "before_cursor_execute", note)
        for statement, values in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN {statement}", values).scalars().all()
            assert "JIT:" not in plan, plan
    assert "lower(name)" in asked[0][0]


@contextlib.contextmanager
def round_trips(reading: Reading, trace: Path) -> Iterator[Callable[[], int]]:
    """Yield what tells how often the idle connection of look-ups has asked its server since."""
    with reading.session() as session:
        dialect = session.engine.dialect.name
        connection: Any = session.connection().connection.driver_connection
    if dialect == "sqlite":
        asked: list[str] = []
        connection.set_trace_callback(asked.append)
        yield lambda: len(asked)
    elif dialect == "postgresql":
        with trace.open("w") as file:
            connection.pgconn.trace(file.fileno())
            # Each ends a simple query, or one of a prepared statement.
            yield lambda: len(re.findall(r"\tF\t\d+\t(?:Query|Sync)", trace.read_text()))
            connection.pgconn.untrace()
    else:

        def questions() -> int:
            with contextlib.closing(connection.cursor()) as cursor:
                cursor.execute("SHOW SESSION STATUS LIKE 'Questions'")
                return int(cursor.fetchall()[0][1])

        numbers = [questions()]

        def asked_since() -> int:
            numbers.append(questions())
            return numbers[-1] - numbers[0] - len(numbers) + 1

        yield asked_since


def test_domains_share_the_rows_that_are_remembered(session: Session) -> None:
    insert_domains(session, "example.com", "example.org")
    session.execute(Domain.update().values(provider_id=1))
    memory = RowMemory(60, 100, lambda: 0.0)
    with statements(session) as asked:
        first = find(session, "example.com", memory)
        assert len(asked) == 4  # domain, provider, its details, mail servers
    with statements(session) as asked:
        second = find(session, "example.org", memory)
        assert len(asked) == 1
    assert second.config == replace(first.config, domain="example.org")
    assert first.config == find(session, "example.com").config


@pytest.mark.parametrize("host", ["imap.example.com", "imap.%EMAILDOMAIN%"])
@pytest.mark.parametrize(
    "user", ["%EMAILADDRESS%", "%EMAILLOCALPART%", "%EMAILLOCALPART%@%EMAILDOMAIN%"]
)
@pytest.mark.parametrize("name", ["Example & Sons", ""])
def test_documents_that_domains_share_are_those_of_each(
    session: Session, host: str, user: str, name: str
) -> None:
    domains = ("example.com", "example.org", "xn--mller-kva.example", "a.b-c.example")
    insert_domains(session, *domains)
    session.execute(Domain.update().values(provider_id=1))
    session.execute(Provider.update().values(name=name, short_name=name))
    session.execute(Server.update().where(Server.c.id == 1).values(name=host, user_name=user))
    memory = RowMemory(60, 100, lambda: 0.0)
    for domain in domains:
        found = find(session, domain, memory)
        assert found.config == find(session, domain).config
        assert found.value(autoconfig.is_personal) == autoconfig.is_personal(found.config)
        for render in (autoconfig.render, autodiscover.render):
            assert found.document(render) == render(found.config)


def test_each_domain_without_a_server_of_a_kind_is_named_by_its_error(session: Session) -> None:
    insert_domains(session, "example.com", "example.org")
    session.execute(Domain.update().values(provider_id=1))
    session.execute(Server.update().values(type="smtp"))
    memory = RowMemory(60, 100, lambda: 0.0)
    for domain in ("example.com", "example.org"):
        found = find(session, domain, memory)
        with pytest.raises(BadRecordError) as caught:
            found.document(autoconfig.render)
        assert caught.value.cause == f"domain {domain}: no usable incoming mail server"


def test_settings_are_as_old_as_their_oldest_row(session: Session) -> None:
    insert_domains(session, "example.com", "example.org")
    session.execute(Domain.update().values(provider_id=1))
    times = [0.0]
    memory = RowMemory(60, 100, lambda: times[-1])
    find(session, "example.com", memory)
    times.append(59.0)
    assert find(session, "example.org", memory).read_at == 0.0
    times.append(61.0)
    assert find(session, "example.com", memory).read_at == 61.0


def test_a_row_that_was_changed_is_read_again(session: Session) -> None:
    insert_domains(session, "example.com")
    memory = RowMemory(60, 100, lambda: 0.0)
    find(session, "example.com", memory)
    session.execute(Server.update().values(port=143, socket_type="STARTTLS"))
    assert ports(find(session, "example.com", memory)) == [993, 465]
    memory.forget({("server", "1")})
    assert ports(find(session, "example.com", memory)) == [143, 465]


def test_what_is_wrong_with_a_domain_is_never_told_from_memory(session: Session) -> None:
    insert_domains(session, "example.com")
    session.execute(Server.update().values(port=0))
    memory = RowMemory(60, 100, lambda: 0.0)
    with pytest.raises(BadRecordError):
        find(session, "example.com", memory)
    session.execute(Server.update().values(port=143))
    assert find(session, "example.com", memory).config.mail_servers


def test_a_domain_that_is_off_is_found_without_its_servers(session: Session) -> None:
    insert_domains(session, "example.com", "off.example")
    insert(session, "disabled_domain", (2, "2026-11-30 10:00:00"))
    with statements(session) as asked, pytest.raises(DisabledDomainError):
        find(session, "off.example")
    assert len(asked) == 2  # the domain, and since when it is off


def test_a_database_of_an_older_schema_is_not_available(any_database_uri: str) -> None:
    uri = load({"AUTOMX_CONF": "/dev/null", "HOME": "/", "AUTOMX_DB_URI": any_database_uri}).db_uri
    upgrade(uri, "0007")
    with pytest.raises(DatabaseError) as caught, open_session(uri) as session:
        client_config(session, "example.com")
    assert "managed_domain" in str(caught.value.cause)
    assert "disabled_domain" not in str(caught.value)


def test_a_wildcard_covers_no_domain_outside_of_it(session: Session) -> None:
    insert_domains(session, "*.example.com", "%.example.org", "_xample.net", "?.example.net")
    for domain in ("example.com", "anexample.com", "a.example.org", "example.net", "a.example.net"):
        assert found(session, domain) is None


def test_a_domain_with_a_hundred_labels_is_looked_up_like_any_other(session: Session) -> None:
    insert_domains(session, "*.example.com")
    assert found(session, "a." * 100 + "example.com") == "*.example.com"
    assert found(session, "xn--mller-kva." * 15 + "example.org") is None


def test_servers_come_by_prio_then_by_id(session: Session) -> None:
    insert_servers(
        session,
        (1, 20, "imap1.example.com", *IMAP[3:]),
        (2, 10, "smtp2.example.com", *SMTP[3:]),
        (3, 5, "smtp3.example.com", *SMTP[3:]),
        (4, 10, "imap4.example.com", *IMAP[3:]),
        (5, 10, "imap5.example.com", *IMAP[3:]),
    )
    config = client_config(session, "example.com")
    assert [server.hostname for server in config.mail_servers] == [
        "smtp3.example.com",
        "smtp2.example.com",
        "imap4.example.com",
        "imap5.example.com",
        "imap1.example.com",
    ]
    assert [server.hostname for server in config.incoming] == [
        "imap4.example.com",
        "imap5.example.com",
        "imap1.example.com",
    ]
    assert [server.hostname for server in config.outgoing] == [
        "smtp3.example.com",
        "smtp2.example.com",
    ]


def test_all_of_a_domain_becomes_one_configuration(session: Session) -> None:
    insert_dav_server(
        session, "https://dav.example.com/%EMAILADDRESS%", 8443, "caldav", True, False, None
    )
    insert(session, "server", (3, 10, "other.example.com", *IMAP[3:]))  # linked to no domain
    assert client_config(session, "example.com") == ClientConfig(
        domain="example.com",
        provider_name="Example Inc.",
        provider_short_name="Example",
        mail_servers=(
            MailServer(
                ServerType.IMAP,
                "imap.example.com",
                993,
                SocketType.SSL,
                "%EMAILADDRESS%",
                (Authentication.PASSWORD_CLEARTEXT,),
            ),
            MailServer(
                ServerType.SMTP,
                "smtp.example.com",
                465,
                SocketType.SSL,
                "%EMAILADDRESS%",
                (Authentication.PASSWORD_CLEARTEXT,),
            ),
        ),
        services=(
            Service(
                ServiceType.CALDAV,
                "https://dav.example.com:8443/%EMAILADDRESS%",
                "%EMAILADDRESS%",
                False,
            ),
        ),
    )


@pytest.mark.parametrize(
    ("column", "value", "attribute", "expected"),
    [
        (4, "IMAP", "type", ServerType.IMAP),
        (4, "pop", "type", ServerType.POP3),
        (4, "pop3", "type", ServerType.POP3),
        (4, " smtp ", "type", ServerType.SMTP),
        (5, "ssl", "socket_type", SocketType.SSL),
        (5, "StartTLS", "socket_type", SocketType.STARTTLS),
        (5, "plain", "socket_type", SocketType.PLAIN),
        (5, "NONE", "socket_type", SocketType.PLAIN),
        (5, "", "socket_type", SocketType.PLAIN),
        (5, "Cleartext", "socket_type", SocketType.PLAIN),
        (5, "SSL/TLS", "socket_type", SocketType.SSL),
        (5, "tls/ssl", "socket_type", SocketType.SSL),
        (5, " tls ", "socket_type", SocketType.SSL),  # at port 993
        (7, "plain", "authentication", (Authentication.PASSWORD_CLEARTEXT,)),
        (7, "secure", "authentication", (Authentication.PASSWORD_ENCRYPTED,)),
        (7, "oauth2", "authentication", (Authentication.OAUTH2,)),
        (7, "tls-client-cert", "authentication", (Authentication.TLS_CLIENT_CERT,)),
        (7, "external", "authentication", (Authentication.TLS_CLIENT_CERT,)),
        (7, "", "authentication", (Authentication.PASSWORD_CLEARTEXT,)),
        (7, " ", "authentication", (Authentication.PASSWORD_CLEARTEXT,)),
        (7, "login", "authentication", (Authentication.PASSWORD_CLEARTEXT,)),
        (7, "LOGIN PLAIN", "authentication", (Authentication.PASSWORD_CLEARTEXT,)),
        (7, "CRAM-MD5", "authentication", (Authentication.PASSWORD_ENCRYPTED,)),
        (7, "digest-md5,scram-sha-256", "authentication", (Authentication.PASSWORD_ENCRYPTED,)),
        (7, "XOAUTH2", "authentication", (Authentication.OAUTH2,)),
        (
            7,
            "OAUTHBEARER, CRAM-MD5, LOGIN,",
            "authentication",
            (
                Authentication.OAUTH2,
                Authentication.PASSWORD_ENCRYPTED,
                Authentication.PASSWORD_CLEARTEXT,
            ),
        ),
        (
            7,
            "OAuth2, plain password-cleartext",
            "authentication",
            (Authentication.OAUTH2, Authentication.PASSWORD_CLEARTEXT),
        ),
        (2, "IMAP.Example.COM.", "hostname", "imap.example.com"),
        (2, "mail.müller.de", "hostname", "mail.xn--mller-kva.de"),
        (2, "192.0.2.1", "hostname", "192.0.2.1"),
        (2, "2001:DB8:0::1", "hostname", "2001:db8::1"),
        (2, " [2001:db8::1] ", "hostname", "2001:db8::1"),
        (2, "mail.%EMAILDOMAIN%", "hostname", "mail.%EMAILDOMAIN%"),
        (3, 1, "port", 1),
        (3, 65535, "port", 65535),
        (6, "", "user_name", "%EMAILADDRESS%"),
        (6, " alice ", "user_name", "alice"),
        (6, "%EMAILLOCALPART%", "user_name", "%EMAILLOCALPART%"),
        (6, "%EmailAddress%", "user_name", "%EMAILADDRESS%"),
        (6, "alice%example.com", "user_name", "alice%example.com"),
        (6, "100%", "user_name", "100%"),
        (2, "imap.%emaildomain%", "hostname", "imap.%EMAILDOMAIN%"),
    ],
)
def test_a_column_is_read_generously(
    sqlite_session: Session, column: int, value: object, attribute: str, expected: object
) -> None:
    server = (*IMAP[:column], value, *IMAP[column + 1 :])
    insert_servers(sqlite_session, server, SMTP)
    first = client_config(sqlite_session, "example.com").mail_servers[0]
    assert getattr(first, attribute) == expected


@pytest.mark.parametrize(
    ("port", "socket_type"),
    [
        *((port, SocketType.SSL) for port in (993, 995, 465)),
        *((port, SocketType.STARTTLS) for port in (143, 110, 587, 25, 4190)),
        (1993, None),  # TLS may mean both
    ],
)
def test_the_socket_type_tls_means_what_is_usual_at_the_port(
    sqlite_session: Session, port: int, socket_type: SocketType | None
) -> None:
    server = (*IMAP[:3], port, "imap", "TLS", *IMAP[6:])
    insert_servers(sqlite_session, server, SMTP)
    found = client_config(sqlite_session, "example.com").incoming
    assert [server.socket_type for server in found] == ([socket_type] if socket_type else [])


@pytest.mark.parametrize(
    ("type_", "authentication", "user_name"),
    [
        ("smtp", "none", ""),
        ("smtp", "client-IP-address none", ""),
        ("smtp", "none plain", "%EMAILADDRESS%"),
        ("smtp", "", "%EMAILADDRESS%"),
        ("imap", "none", "%EMAILADDRESS%"),
    ],
)
def test_outgoing_mail_without_login_needs_no_user_name(
    sqlite_session: Session, type_: str, authentication: str, user_name: str
) -> None:
    server = (1, 1, "mail.example.com", 587, type_, "STARTTLS", "", authentication)
    insert_servers(sqlite_session, server, (*SMTP[:1], 20, *SMTP[2:]))
    config = client_config(sqlite_session, "example.com")
    assert config.mail_servers[0].user_name == user_name
    named = "alice" if user_name else ""
    assert config.for_person("alice").mail_servers[0].user_name == named


HOST = 'expected a host name of at most 128 characters such as "mail.example.com"'
PORT = "expected a whole number from 1 to 65535"
TYPE = "expected one of imap, pop, pop3, smtp, managesieve, sieve"
SOCKET_TYPE = "expected one of SSL, STARTTLS, plain, none"
USER_NAME = "expected a text of 0 to 64 characters without control characters"
AUTHENTICATION = (
    "expected one of plain, password-cleartext, secure, password-encrypted, OAuth2, GSSAPI, NTLM, "
    "TLS-client-cert, client-IP-address, none, or several with blanks between"
)


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        (2, "", f'name: {HOST}, found ""'),
        (2, "mail example com", f'name: {HOST}, found "mail example com"'),
        (2, "https://mail.example.com", f'name: {HOST}, found "https://mail.example.com"'),
        (2, "mail.example.com:993", f'name: {HOST}, found "mail.example.com:993"'),
        (2, "<b>.example.com", f'name: {HOST}, found "<b>.example.com"'),
        (2, "xn--zzzzzzzz99999.com", f'name: {HOST}, found "xn--zzzzzzzz99999.com"'),
        (2, "2001:db8::g", f'name: {HOST}, found "2001:db8::g"'),
        (2, "[2001:db8::1]:993", f'name: {HOST}, found "[2001:db8::1]:993"'),
        (2, "fe80::1%eth0", f'name: {HOST}, found "fe80::1%eth0"'),
        (2, "[mail.example.com]", f'name: {HOST}, found "[mail.example.com]"'),
        (2, "%d.com", 'name: "%d" is no placeholder; did you mean %EMAILDOMAIN%?'),
        (3, 0, f"port: {PORT}, found 0"),
        (3, -1, f"port: {PORT}, found -1"),
        (3, 70000, f"port: {PORT}, found 70000"),
        (4, "nntp", f'type: {TYPE}, found "nntp"'),
        (4, "", f'type: {TYPE}, found ""'),
        (5, "TLS1.4", f'socket_type: {SOCKET_TYPE}, found "TLS1.4"'),
        (6, "alice\nbob", f'user_name: {USER_NAME}, found "alice\\nbob"'),
        (6, "alice\uffff", f'user_name: {USER_NAME}, found "alice\\uffff"'),
        (6, "\ue000", f'user_name: {USER_NAME}, found "\\ue000"'),
        (6, "%u", 'user_name: "%u" is no placeholder; did you mean %EMAILADDRESS%?'),
        (7, "guess", f'authentication: {AUTHENTICATION}, found "guess"'),
        (7, "krb5", f'authentication: {AUTHENTICATION}, found "krb5"'),
        (7, "a;b", f'authentication: {AUTHENTICATION}, found "a;b"'),
        (7, "plain\ny", f'authentication: {AUTHENTICATION}, found "plain\\ny"'),
    ],
)
def test_a_bad_row_is_left_out_and_named_in_the_log(
    session: Session,
    caplog: pytest.LogCaptureFixture,
    column: int,
    value: object,
    complaint: str,
) -> None:
    bad = (77, *IMAP[1:column], value, *IMAP[column + 1 :])
    insert_servers(session, bad, IMAP, SMTP)
    config = client_config(session, "example.com")
    assert [server.hostname for server in config.mail_servers] == [IMAP[2], SMTP[2]]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == f"table server, id 77: {complaint}; this row is left out"


@pytest.mark.parametrize("port", ["abc", 993.5, b"993"])
def test_a_port_that_sqlite_lets_in_and_is_no_number_is_left_out(
    sqlite_session: Session, caplog: pytest.LogCaptureFixture, port: str | float | bytes
) -> None:
    insert_servers(sqlite_session, (77, 10, "a.example.com", port, *IMAP[4:]), IMAP, SMTP)
    config = client_config(sqlite_session, "example.com")
    assert [server.hostname for server in config.mail_servers] == [IMAP[2], SMTP[2]]
    found = {"abc": '"abc"', 993.5: "993.5", b"993": "\"b'993'\""}[port]
    assert f"table server, id 77: port: {PORT}, found {found}; " in caplog.text


@pytest.mark.parametrize(
    ("url", "port", "use_ssl", "complete"),
    [
        ("https://dav.example.com/", 0, True, "https://dav.example.com/"),
        ("https://dav.example.com/", 443, True, "https://dav.example.com/"),
        ("https://dav.example.com/", 8443, True, "https://dav.example.com:8443/"),
        ("https://dav.example.com:1/", 8443, True, "https://dav.example.com:1/"),
        ("http://dav.example.com/", 80, False, "http://dav.example.com/"),
        ("http://dav.example.com", 443, False, "http://dav.example.com:443"),
        ("dav.example.com/cal", 443, True, "https://dav.example.com/cal"),
        ("dav.example.com/cal", 0, False, "http://dav.example.com/cal"),
        (" https://dav.example.com/ ", 0, True, "https://dav.example.com/"),
        ("https://%EMAILDOMAIN%/a", 8443, True, "https://%EMAILDOMAIN%:8443/a"),
        ("https://dav.example.com/%EMAILADDRESS%/?a=b&c#d", 0, True, None),
    ],
)
def test_a_dav_url_is_completed(
    sqlite_session: Session, url: str, port: int, use_ssl: bool, complete: str | None
) -> None:
    insert_dav_server(sqlite_session, url, port, "carddav", use_ssl, True, "")
    expected = Service(ServiceType.CARDDAV, complete or url, "%EMAILADDRESS%", True)
    assert client_config(sqlite_session, "example.com").services == (expected,)


@pytest.mark.parametrize(
    ("url", "port", "type_", "user_name", "complaint"),
    [
        ("ftp://dav.example.com/", 0, "caldav", "", "url: expected a URL"),
        ("javascript://dav.example.com/", 0, "caldav", "", "url: expected a URL"),
        ("https:///cal", 0, "caldav", "", "url: expected a URL"),
        ("https://dav.example.com:x/", 0, "caldav", "", "url: expected a URL"),
        ("https://dav.example.com:99999/", 0, "caldav", "", "url: expected a URL"),
        ("https://[::1/", 0, "caldav", "", "url: expected a URL"),
        ("https://dav.example.com/a b", 0, "caldav", "", "url: expected a URL"),
        ("https://dav.example.com/<a>", 0, "caldav", "", "url: expected a URL"),
        ("https://dav.example.com/\uffff", 0, "caldav", "", "url: expected a URL"),
        ("https://dav.example.com/\x01", 0, "caldav", "", "url: expected a URL"),
        ("https://dav.example.com/%EMAIL%/", 0, "caldav", "", 'url: "%EMAIL%" is no placeholder;'),
        ("https://dav.example.com/${user}/", 0, "caldav", "", 'url: "${user}" is no placeholder;'),
        ("", 0, "caldav", "", 'url: expected a URL of at most 128 characters such as "https://'),
        (
            "WSS://dav.example.com/",
            0,
            "caldav",
            "",
            "url: expected a URL that begins with http",
        ),
        ("https://dav.example.com/", -1, "caldav", "", "port: expected a whole number from 0 to"),
        ("https://dav.example.com/", 70000, "caldav", "", "port: expected a whole number from 0"),
        ("https://dav.example.com/", 0, "gopher", "", "type: expected one of caldav, carddav"),
        ("https://dav.example.com/", 0, "caldav", "a\x07", "user_name: expected a text of 0 to 64"),
    ],
)
def test_a_bad_dav_row_is_left_out_and_named_in_the_log(
    session: Session,
    caplog: pytest.LogCaptureFixture,
    url: str,
    port: int,
    type_: str,
    user_name: str,
    complaint: str,
) -> None:
    insert_dav_server(session, url, port, type_, True, True, user_name)
    config = client_config(session, "example.com")
    assert config.services == ()
    assert len(config.mail_servers) == 2
    (record,) = caplog.records
    assert record.getMessage().startswith(f"table davserver, id 7: {complaint}")


def test_what_a_stranger_to_xml_wrote_into_a_provider_is_cleaned(session: Session) -> None:
    insert_servers(session, IMAP, SMTP)
    insert(session, "provider", (2, " A\x01 & <B>\ufffe ", "\x02"))
    insert(session, "domain", (2, "example.org", 2, None))
    insert(session, "server_domain", (1, 2), (2, 2))
    config = client_config(session, "example.org")
    assert config.provider_name == "A & <B>"
    assert config.provider_short_name == "example.org"


def test_a_domain_without_servers_cannot_be_served(session: Session) -> None:
    insert_servers(session)
    with pytest.raises(BadRecordError) as caught:
        client_config(session, "example.com")
    assert caught.value.cause == "table domain, id 1: no usable mail server"
    assert "example" not in str(caught.value)


def test_a_domain_without_any_usable_server_cannot_be_served(
    session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    insert_servers(session, (1, 10, "a.example.com", 0, *IMAP[4:]), (*SMTP[:4], "uucp", *SMTP[5:]))
    with pytest.raises(BadRecordError) as caught:
        client_config(session, "example.com")
    assert caught.value.cause == "table domain, id 1: no usable mail server"
    assert "table server, id 1: port: " in caplog.text
    assert "table server, id 2: type: " in caplog.text


@pytest.mark.parametrize(("row", "missing"), [(IMAP, "outgoing"), (SMTP, "incoming")])
def test_a_domain_with_servers_in_one_direction_only_is_named_in_the_log(
    session: Session, caplog: pytest.LogCaptureFixture, row: tuple[object, ...], missing: str
) -> None:
    insert_servers(session, row)
    assert len(client_config(session, "example.com").mail_servers) == 1
    (record,) = caplog.records
    assert record.getMessage() == f"table domain, id 1: no usable {missing} mail server"


def test_a_domain_whose_provider_is_gone_cannot_be_served(sqlite_session: Session) -> None:
    insert_servers(sqlite_session, IMAP, SMTP)
    sqlite_session.execute(sqlalchemy.text("DELETE FROM provider"))
    with pytest.raises(BadRecordError) as caught:
        client_config(sqlite_session, "example.com")
    assert caught.value.cause == "table domain, id 1: there is no such provider"


def test_a_database_without_the_tables_is_not_available(any_database_uri: str) -> None:
    uri = load({"AUTOMX_CONF": "/dev/null", "HOME": "/", "AUTOMX_DB_URI": any_database_uri}).db_uri
    if uri.startswith("sqlite"):
        Path(uri.removeprefix("sqlite:///")).touch()
    with pytest.raises(DatabaseError) as caught, open_session(uri) as session:
        client_config(session, "example.com")
    assert "domain" in str(caught.value.cause)
    assert "domain" not in str(caught.value)
    assert "SELECT" not in str(caught.value.cause)
    assert "\n" not in str(caught.value.cause)
