"""Look-up: which row decides for a domain, what its servers become, how long that is remembered."""

import gc
import logging
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from automx.clientconfig import (
    Authentication,
    ClientConfig,
    Service,
    ServiceType,
    MailServer,
    ServerType,
    SocketType,
)
from automx.config import load
from automx.errors import BadRecordError, DatabaseError, UnknownDomainError
from automx.ldap import Options
from automx.lookup import ConfigCache, FoundConfig, find
from automx.migrations import upgrade
from automx.database import create_engine
from automx.models import Base
from tests.databases import ENGINES, Instance

IMAP = (1, 10, "imap.example.com", 993, "imap", "SSL", "%EMAILADDRESS%", "plain")
SMTP = (2, 10, "smtp.example.com", 465, "smtp", "SSL", "%EMAILADDRESS%", "plain")


def client_config(session: Session, domain: str) -> ClientConfig:
    """Return the settings that a look-up of a domain finds."""
    return find(session, domain, Options()).config


@pytest.fixture(scope="module", params=ENGINES)
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[sqlalchemy.Engine]:
    """Return an engine on a migrated database of each kind in turn."""
    if request.param == "sqlite":
        uri = f"sqlite:///{tmp_path_factory.mktemp('lookup')}/automx.sqlite"
    else:
        instance: Instance = request.getfixturevalue(f"{request.param}_instance")
        uri = instance.new_database()
    uri = load({"AUTOMX_CONF": "/dev/null", "HOME": "/", "AUTOMX_DB_URI": uri}).db_uri
    upgrade(uri)
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
    columns = Base.metadata.tables[table].columns.keys()
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
        (7, "plain", "authentication", (Authentication.PASSWORD_CLEARTEXT,)),
        (7, "secure", "authentication", (Authentication.PASSWORD_ENCRYPTED,)),
        (7, "oauth2", "authentication", (Authentication.OAUTH2,)),
        (7, "tls-client-cert", "authentication", (Authentication.TLS_CLIENT_CERT,)),
        (
            7,
            "OAuth2, plain password-cleartext",
            "authentication",
            (Authentication.OAUTH2, Authentication.PASSWORD_CLEARTEXT),
        ),
        (2, "IMAP.Example.COM.", "hostname", "imap.example.com"),
        (2, "mail.müller.de", "hostname", "mail.xn--mller-kva.de"),
        (2, "192.0.2.1", "hostname", "192.0.2.1"),
        (2, "mail.%EMAILDOMAIN%", "hostname", "mail.%EMAILDOMAIN%"),
        (3, 1, "port", 1),
        (3, 65535, "port", 65535),
        (6, "", "user_name", "%EMAILADDRESS%"),
        (6, " alice ", "user_name", "alice"),
        (6, "%EMAILLOCALPART%", "user_name", "%EMAILLOCALPART%"),
    ],
)
def test_a_column_is_read_generously(
    sqlite_session: Session, column: int, value: object, attribute: str, expected: object
) -> None:
    server = (*IMAP[:column], value, *IMAP[column + 1 :])
    insert_servers(sqlite_session, server, SMTP)
    first = client_config(sqlite_session, "example.com").mail_servers[0]
    assert getattr(first, attribute) == expected


TYPES = "imap, pop, pop3, smtp"
SOCKET_TYPES = "ssl, starttls, plain, none"
AUTHENTICATIONS = (
    "password-cleartext, password-encrypted, oauth2, gssapi, ntlm, tls-client-cert, "
    "client-ip-address, none, plain, secure"
)


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        (2, "", "name is '', it must be a host name"),
        (2, "mail example com", "name is 'mail example com', it must be a host name"),
        (2, "https://mail.example.com", "name is 'https://mail.example.com', it must be a host"),
        (2, "mail.example.com:993", "name is 'mail.example.com:993', it must be a host name"),
        (2, "<b>.example.com", "name is '<b>.example.com', it must be a host name"),
        (2, "xn--zzzzzzzz99999.com", "name is 'xn--zzzzzzzz99999.com', it must be a host name"),
        (3, 0, "port is 0, it must be from 1 to 65535"),
        (3, -1, "port is -1, it must be from 1 to 65535"),
        (3, 70000, "port is 70000, it must be from 1 to 65535"),
        (4, "nntp", f"type is 'nntp', it must be one of {TYPES}"),
        (4, "", f"type is '', it must be one of {TYPES}"),
        (5, "TLS1.4", f"socket_type is 'TLS1.4', it must be one of {SOCKET_TYPES}"),
        (6, "alice\nbob", "user_name holds control characters"),
        (6, "alice\uffff", "user_name holds control characters"),
        (7, "guess", f"authentication is 'guess', it must be one of {AUTHENTICATIONS}"),
        (7, "", f"authentication is '', it must be one of {AUTHENTICATIONS}"),
        (7, "a;b", f"authentication is 'a;b', it must be one of {AUTHENTICATIONS}"),
        (7, "x\ny", f"authentication is 'x', it must be one of {AUTHENTICATIONS}"),
    ],
)  # fmt: skip
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
    assert record.getMessage().startswith(f"table server, id 77: {complaint}")
    assert record.getMessage().endswith("; this row is left out")


@pytest.mark.parametrize("port", ["abc", 993.5, b"993"])
def test_a_port_that_sqlite_lets_in_and_is_no_number_is_left_out(
    sqlite_session: Session, caplog: pytest.LogCaptureFixture, port: object
) -> None:
    insert_servers(sqlite_session, (77, 10, "a.example.com", port, *IMAP[4:]), IMAP, SMTP)
    config = client_config(sqlite_session, "example.com")
    assert [server.hostname for server in config.mail_servers] == [IMAP[2], SMTP[2]]
    assert f"table server, id 77: port is {port!r}" in caplog.text


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
        ("ftp://dav.example.com/", 0, "caldav", "", "url is 'ftp://dav.example.com/', it must be"),
        ("javascript://dav.example.com/", 0, "caldav", "", "url is 'javascript:"),
        ("https:///cal", 0, "caldav", "", "url is 'https:///cal', it must be a URL"),
        ("https://dav.example.com:x/", 0, "caldav", "", "url is"),
        ("https://dav.example.com:99999/", 0, "caldav", "", "url is"),
        ("https://[::1/", 0, "caldav", "", "url is"),
        ("https://dav.example.com/a b", 0, "caldav", "", "url is"),
        ("https://dav.example.com/<a>", 0, "caldav", "", "url is"),
        ("https://dav.example.com/\uffff", 0, "caldav", "", "url is"),
        ("https://dav.example.com/\x01", 0, "caldav", "", "url is"),
        ("", 0, "caldav", "", "url is '', it must be a URL"),
        ("https://dav.example.com/", -1, "caldav", "", "port is -1, it must be from 0 to 65535"),
        ("https://dav.example.com/", 70000, "caldav", "", "port is 70000, it must be from 0"),
        ("https://dav.example.com/", 0, "gopher", "", "type is 'gopher', it must be one of caldav"),
        ("https://dav.example.com/", 0, "caldav", "a\x07", "user_name holds control characters"),
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
    assert "table server, id 1: port is 0" in caplog.text
    assert "table server, id 2: type is 'uucp'" in caplog.text


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
    engine = create_engine(uri)
    with Session(engine) as session, pytest.raises(DatabaseError) as caught:
        client_config(session, "example.com")
    engine.dispose()
    assert "domain" in str(caught.value.cause)
    assert "domain" not in str(caught.value)
    assert "SELECT" not in str(caught.value.cause)
    assert "\n" not in str(caught.value.cause)


# The cache.


def config_of(domain: str) -> ClientConfig:
    return ClientConfig(domain, "Example Inc.", "Example", (), ())


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class LookUp:
    """A look-up that notes what it was asked, and fails if the domain says so."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, domain: str) -> FoundConfig:
        self.asked.append(domain)
        if domain == "unknown":
            raise UnknownDomainError
        if domain == "bad":
            raise BadRecordError(cause="table server, id 1")
        if domain == "down":
            raise DatabaseError(cause="the database is gone")
        return FoundConfig(config_of(domain))


def test_an_answer_is_remembered_for_the_time_of_the_settings() -> None:
    clock, look_up = Clock(), LookUp()
    cache = ConfigCache(10, now=clock)
    for _ in range(3):
        assert cache.get("a", look_up).config == config_of("a")
        clock.time += 4.9
    assert look_up.asked == ["a"]
    assert cache.get("a", look_up).config == config_of("a")
    assert look_up.asked == ["a", "a"]


@pytest.mark.parametrize(
    ("domain", "error"), [("unknown", UnknownDomainError), ("bad", BadRecordError)]
)
def test_a_refusal_is_remembered_as_well(domain: str, error: type[Exception]) -> None:
    clock, look_up = Clock(), LookUp()
    cache = ConfigCache(10, now=clock)
    errors = []
    for _ in range(3):
        with pytest.raises(error) as caught:
            cache.get(domain, look_up)
        errors.append(vars(caught.value) | {"text": str(caught.value)})
    assert errors[0] == errors[1] == errors[2]
    assert look_up.asked == [domain]
    clock.time += 10
    with pytest.raises(error):
        cache.get(domain, look_up)
    assert look_up.asked == [domain, domain]


def test_an_outage_is_not_remembered() -> None:
    look_up = LookUp()
    cache = ConfigCache(10)
    for _ in range(2):
        with pytest.raises(DatabaseError):
            cache.get("down", look_up)
    assert look_up.asked == ["down", "down"]


def test_no_time_means_no_memory() -> None:
    look_up = LookUp()
    cache = ConfigCache(0)
    assert cache.get("a", look_up).config == cache.get("a", look_up).config == config_of("a")
    assert look_up.asked == ["a", "a"]
    cache.clear()


def test_the_number_of_remembered_domains_is_bounded() -> None:
    look_up = LookUp()
    cache = ConfigCache(10, size=3)
    for domain in ("a", "b", "c", "d"):
        cache.get(domain, look_up)
    for domain in ("d", "c", "b"):
        cache.get(domain, look_up)
    assert look_up.asked == ["a", "b", "c", "d"]
    cache.get("a", look_up)
    assert look_up.asked == ["a", "b", "c", "d", "a"]


def test_a_cleared_cache_asks_again() -> None:
    look_up = LookUp()
    cache = ConfigCache(10)
    cache.get("a", look_up)
    cache.clear()
    cache.get("a", look_up)
    assert look_up.asked == ["a", "a"]


def test_a_remembered_refusal_keeps_nothing_of_the_request_alive() -> None:
    class Body:
        """What a client sent."""

    cache = ConfigCache(10)

    def request() -> "weakref.ref[Body]":
        body = Body()
        with pytest.raises(UnknownDomainError):
            cache.get("unknown", LookUp())
        return weakref.ref(body)

    bodies = [request(), request()]
    gc.collect()
    assert [body() for body in bodies] == [None, None]


def test_threads_may_share_a_cache() -> None:
    cache = ConfigCache(10, size=50)
    barrier = threading.Barrier(8)

    def work(number: int) -> int:
        look_up = LookUp()
        barrier.wait(10)
        for turn in range(500):
            domain = f"{(turn * 7 + number) % 80}.example"
            assert cache.get(domain, look_up).config == config_of(domain)
            with pytest.raises(UnknownDomainError):
                cache.get("unknown", look_up)
            if turn % 100 == 99:
                cache.clear()
        return len(look_up.asked)

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(work, range(8))) < 8 * 1000
