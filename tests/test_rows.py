"""What a row may hold, asked in four ways: they must agree on every value of every column."""

import base64
import json
import logging
import string
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from automx import lookup, rows
from automx.cache import FoundConfig
from automx.database import Session, create_engine
from automx.errors import AutomxError, SeedError
from automx.export import export
from automx.kinds import BadValueError
from automx.models import RECORDS, metadata
from automx.references import disabled_domains
from automx.seed import populate, purge
from automx.seeddocument import parse
from automx.words import SERVICE_TYPES
from tests.tables import COLUMNS, OTHERS, ROWS


@pytest.fixture(scope="module")
def session(empty_database: Path) -> Iterator[Session]:
    """Open a session on SQLite, which lets any value into any column."""
    engine = create_engine(f"sqlite:///{empty_database}")
    with Session(engine) as session:
        yield session
        session.rollback()
    engine.dispose()


def insert(session: Session, table: str, column: str, value: object) -> None:
    """Fill the tables with ROWS, one of them with another value in a column."""
    session.rollback()
    found: dict[str, dict[str, Any]] = {name: dict(row) for name, row in ROWS.items()}
    found[table][column] = value
    for name, row in found.items():
        add(session, name, row)
    for links in ("server_domain", "davserver_domain"):
        add(session, links, {links.replace("domain", "id"): 1, "domain_id": 1})
    add(session, "server", ROWS["server"] | OTHERS)
    add(session, "server_domain", {"server_id": 2, "domain_id": 1})


def add(session: Session, table: str, row: dict[str, Any]) -> None:
    names = ", ".join(f":{column}" for column in row)
    statement = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({names})"
    session.execute(sqlalchemy.text(statement), row)


def document(table: str, column: str, value: object) -> dict[str, Any]:
    """Return the seed document of ROWS, with another value of a column in one of them."""
    found: dict[str, dict[str, Any]] = {name: dict(row) for name, row in ROWS.items()}
    found[table][column] = value
    details: dict[str, Any] = {}
    for key, item in found["provider_detail"].items():
        group, _, name = key.partition("_")
        is_empty = item is None or (isinstance(item, str) and not item.strip())
        if is_empty or key == "provider_id":
            continue  # a document leaves out what is empty
        if group in {"logo", "oauth2"}:
            is_image = isinstance(item, bytes)
            text = base64.b64encode(item).decode() if is_image else item
            details.setdefault(group, {})[name or "data"] = text
        else:
            details[key] = item
    for group, needed in (("logo", "data"), ("oauth2", "issuer")):
        if needed not in details[group]:
            del details[group]
    # What stands there takes the place of the column.
    directory = {key: item for key, item in found["ldapserver_detail"].items() if item}
    directory.pop("ldapserver_id")
    page = found["documentation"]
    details["documentation"] = [{key: page[key] for key in ("url", "lang", "text")}]
    return {
        "version": 2,
        "providers": [found["provider"] | {"details": details}],
        "ldapservers": [found["ldapserver"] | directory],
        "servers": [found["server"], {**ROWS["server"], **OTHERS}, found["davserver"]],
        "domains": [{"id": 1, "name": "example.com", "ldapserver_id": 1, "servers": [1, 2]}],
    }


def all_rows(session: Session) -> dict[str, list[tuple[object, ...]]]:
    return {
        name: [
            tuple(row)
            for row in session.execute(sqlalchemy.select(table).order_by(*table.primary_key))
        ]
        for name, table in metadata.tables.items()
        if name not in RECORDS
    }


def seeds(session: Session, seed: object) -> bool:
    """Tell whether a seed is accepted by an empty database; its rows are there then."""
    session.rollback()
    try:
        populate(session, seed)
    except SeedError:
        return False
    return True


def looked_up(session: Session) -> FoundConfig | str:
    """Return what is served, or why nothing is."""
    try:
        return lookup.find(session, "example.com")
    except AutomxError as error:
        return str(error.cause)


def served_whole(found: FoundConfig | str) -> bool:
    """Tell whether each row is part of what is served."""
    if isinstance(found, str) or found.ldap_server is None:
        return False
    config, details = found.config, found.config.details
    return bool(
        len(config.mail_servers) == 2
        and len(config.services) == 1
        and config.domain not in {config.provider_name, config.provider_short_name}
        and len(details.documentation) == 1
    )


def exported(session: Session) -> object:
    return parse(
        "".join(export(session, with_secrets=True, warn=lambda _: None)).encode(), "export"
    )


WORDS = st.sampled_from(
    [
        *("imap", "POP3", "sieve", "managesieve", "smtp", "caldav", "JMAP", "imaps"),
        *("", " ", "ssl", "STARTTLS", "none", "plain", "tls", "NULL"),
        *("SSL/TLS", "TLS", "cleartext", "login CRAM-MD5", "external,", "xoauth2", ","),
        *("OAuth2 plain", "secure,PLAIN", "plain secure password-cleartext", "oauth2  gssapi"),
        "OAuth2 GSSAPI NTLM TLS-client-cert password-cleartext",
        *("%EMAILADDRESS%", "%emailaddress%", "%EMAILADRESS%", "%u", "%Lu", "${email}", "{0}"),
        *("%EMAILLOCALPART%@%EMAILDOMAIN%", "%EMAILDOMAIN", "100%", "a%b", "%REALNAME%", "%%"),
        *("mail.example.com", "MAIL.Example.COM.", "müller.de", "xn--mller-kva.de", "192.0.2.1"),
        *("imap.%EMAILDOMAIN%", "_imap.example.com", "a b", "-x", "2001:db8::1", "xn--zz99999"),
        *("[2001:DB8::1]", "fe80::1%eth0", "https://[2001:db8::1]:8443/a/", "[2001:db8::1]/a"),
        *("ldap://a.example.com:389 b", "ldaps://a", "a,b", "[::1]:389", "http://a"),
        *("https://a.example.com/", "http://a.example.com:0/", "a.example.com/dav", "ftp://a/"),
        *("https://a.example.com/%EMAILADDRESS%/%20x", "https://a/%zz/", "https://a/%d/", "//a"),
        *("https://[::1/", "https://a:99999/", "https://müller.de/ü", "https://a/\u00ad", "x:y"),
        *("(mail={0})", "(uid=x)", "(mail={1})", "(mail=%s)", "(&(mail={0})(o={domain}))", "("),
        *("#1a5fb4", "red", "image/png", "IMAGE/PNG", "image/tiff", "en", "pt-BR", "english!"),
        *("help@example.com", "help", "@", "yes", "true", "0", "maybe", "\ue000", "\x01", "a\nb"),
    ]
)
TEXTS = st.one_of(
    WORDS,
    st.tuples(WORDS, WORDS).map("".join),
    st.text(st.sampled_from(string.printable + "%{}üß\u00a0\ue000\ufffe\u200b"), max_size=12),
    st.tuples(WORDS, st.integers(0, 300)).map(lambda pair: (pair[0] or "a") * (pair[1] // 8)),
)
VALUES = st.one_of(
    TEXTS,
    st.integers(-3, 70_000),
    st.sampled_from([2**31 - 1, 2**31, -(2**31), 993, 465, 0.5, None, b"", b"png", b"x" * 65_536]),
)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(place=st.sampled_from(COLUMNS), value=VALUES)
@example(place=("ldapserver", "search_filter"), value="(uid=x)")
@example(place=("ldapserver", "search_filter"), value="(mail={1})")
@example(place=("ldapserver_detail", "search_filter"), value=f"(mail={{0}}{'x' * 504})")
@example(place=("ldapserver_detail", "search_filter"), value=f"(mail={{0}}{'x' * 505})")
@example(place=("ldapserver_detail", "search_base"), value="dc=a;")
@example(place=("ldapserver_detail", "search_base"), value="dc=a; dc=b")
@example(place=("ldapserver_detail", "login_name"), value="CORP")
@example(place=("server", "user_name"), value="\ue000")
@example(place=("server", "user_name"), value="%EMAILADRESS%")
@example(place=("server", "type"), value="sieve")
@example(place=("server", "socket_type"), value="")
@example(place=("server", "socket_type"), value="TLS")
@example(place=("server", "socket_type"), value="SSL/TLS")
@example(place=("server", "authentication"), value="")
@example(place=("server", "authentication"), value="CRAM-MD5 login")
@example(place=("server", "user_name"), value="")
@example(place=("server", "name"), value="[2001:DB8::1]")
@example(place=("davserver", "url"), value="https://[2001:db8::1]:8443/a/")
@example(place=("provider_detail", "logo"), value=b"x" * 65_536)
@example(place=("provider_detail", "oauth2_issuer"), value=" ")
def test_what_is_served_is_what_a_seed_takes_and_the_doctor_accepts(
    session: Session, caplog: pytest.LogCaptureFixture, place: tuple[str, str], value: object
) -> None:
    table, column = place
    if column == "logo" and not isinstance(value, bytes | None):
        return  # an image is bytes
    caplog.clear()
    caplog.set_level(logging.WARNING)
    try:
        insert(session, table, column, value)
    except (sqlalchemy.exc.IntegrityError, UnicodeEncodeError):
        return  # the database itself refuses it
    kept = session.scalar(sqlalchemy.text(f"SELECT {column} FROM {table}"))

    is_healthy = not list(lookup.bad_rows(session))
    found = looked_up(session)
    named = [r for r in caplog.records if not r.getMessage().startswith("table domain")]
    is_served = served_whole(found) and not named
    seed = exported(session)

    assert is_healthy == is_served, (kept, found, caplog.text)
    assert seeds(session, seed) == is_served, seed
    if not isinstance(kept, bytes | float) or column == "logo":
        assert seeds(session, document(table, column, kept)) == is_served, kept
    if is_served and not isinstance(found, str):
        assert seeds(session, seed)
        again = looked_up(session)
        assert not isinstance(again, str)
        assert (again.config, again.ldap_server) == (found.config, found.ldap_server)
        assert list(lookup.bad_rows(session)) == []


@pytest.mark.parametrize("type_", SERVICE_TYPES)
def test_xmpp_alone_has_a_url_of_websockets(session: Session, type_: str) -> None:
    url = "wss://xmpp.example.com/websocket"
    insert(session, "davserver", "type", type_)
    session.execute(sqlalchemy.text("UPDATE davserver SET port = 0, url = :url"), {"url": url})
    is_served = served_whole(looked_up(session))
    assert is_served == (not list(lookup.bad_rows(session)))
    seed = document("davserver", "type", type_)
    seed["servers"][2] |= {"port": 0, "url": url}
    assert is_served == seeds(session, seed) == (type_ == "xmpp")


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(place=st.sampled_from(COLUMNS), value=VALUES)
def test_an_export_of_what_was_seeded_gives_an_equal_database(
    session: Session, place: tuple[str, str], value: object
) -> None:
    table, column = place
    if (isinstance(value, bytes) and column != "logo") or isinstance(value, float):
        return  # JSON has none of these
    if not seeds(session, document(table, column, value)):
        return
    before = all_rows(session)
    assert list(lookup.bad_rows(session)) == []
    assert served_whole(looked_up(session))

    seed = exported(session)
    purge(session)
    populate(session, seed)

    assert all_rows(session) == before
    assert exported(session) == seed


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    off=st.sets(st.sampled_from([1, 3, 4, 7])),
    seconds=st.integers(0, 2**32),
)
def test_domains_that_are_off_are_exported_and_seeded_as_such(
    session: Session, off: set[int], seconds: int
) -> None:
    names = {1: "example.com", 3: "müller.de", 4: "*.example.com", 7: "*"}
    seed = document("server", "id", 1)
    seed["domains"] = [
        {"id": key, "name": name, "servers": [1, 2]} | ({"disabled": True} if key in off else {})
        for key, name in names.items()
    ]
    since = datetime.fromtimestamp(seconds, UTC)
    session.rollback()
    populate(session, seed, now=since)
    before = all_rows(session)
    kept = [(key, since) for key in sorted(off)]
    assert before["disabled_domain"] == kept
    assert list(lookup.bad_rows(session)) == []
    asked = {"example.com": 1, "xn--mller-kva.de": 3, "a.example.com": 4, "example.org": 7}
    assert {key for name, key in asked.items() if not lookup.knows(session, name)} == off
    assert {row.id for row in disabled_domains(session)} == off

    again = exported(session)
    purge(session)
    populate(session, again, now=since)

    assert all_rows(session) == before
    assert exported(session) == again


# Values that other programs or a slip of the hand write; beside them, what was meant.
PLACEHOLDERS = {
    "%EMAILADRESS%": "%EMAILADDRESS%",
    "%EMAILADDRESS": "%EMAILADDRESS%",
    "EMAILADDRESS%": "%EMAILADDRESS%",
    "%EMAIL%": "%EMAILADDRESS%",
    "%u": "%EMAILADDRESS%",
    "%s": "%EMAILADDRESS%",
    "%Lu": "%EMAILADDRESS%",
    "%{user}": "%EMAILLOCALPART%",
    "${email}": "%EMAILADDRESS%",
    "{email}": "%EMAILADDRESS%",
    "{{ address }}": "%EMAILADDRESS%",
    "%n": "%EMAILLOCALPART%",
    "%EMAIL_LOCALPART%": "%EMAILLOCALPART%",
    "%USERNAME%": "%EMAILLOCALPART%",
    "%d": "%EMAILDOMAIN%",
    "%EMAIL-DOMAIN%": "%EMAILDOMAIN%",
    "${domain}": "%EMAILDOMAIN%",
}


@pytest.mark.parametrize("written", PLACEHOLDERS)
@pytest.mark.parametrize("frame", ["{}", "x.{}", "{}@%EMAILDOMAIN%"])
def test_an_unknown_placeholder_is_refused_with_a_suggestion(written: str, frame: str) -> None:
    meant = PLACEHOLDERS[written]
    with pytest.raises(BadValueError) as caught:
        rows.SERVER["user_name"].read(frame.replace("{}", written))
    expected = f"{json.dumps(written)} is no placeholder; did you mean {meant}?"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    "text",
    [
        "alice",
        "alice%example.com",
        "100%",
        "50% off",
        "%EMAILLOCALPART%%%EMAILDOMAIN%",
        "a+b",
        "$a",
    ],
)
def test_a_percent_sign_that_begins_no_placeholder_stays(text: str) -> None:
    assert rows.SERVER["user_name"].read(text) == text


@pytest.mark.parametrize("column", ["name", "user_name"])
def test_placeholders_in_any_case_become_those_of_the_standard(column: str) -> None:
    read: Callable[[object], str] = rows.SERVER[column].read
    assert read("x.%EmailDomain%") == "x.%EMAILDOMAIN%"
    assert rows.DAVSERVER["url"].read("https://h/%emaillocalpart%") == "https://h/%EMAILLOCALPART%"
