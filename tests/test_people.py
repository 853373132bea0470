"""People in databases: what is found in real tables, and addresses that would like to be SQL."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from automx.address import EmailAddress
from automx.config.peoplequery import checked
from automx.directory.database import PeopleDatabase
from automx.directory.person import DirectoryError, Person
from automx.directory.queries import query
from automx.errors import AddressError
from tests.databases import ENGINES, Instance
from tests.people import (
    HIDDEN,
    MailDatabase,
    find,
    new_database,
    people_of,
    postfixadmin_tables,
    source,
)

MakePeople = Callable[..., PeopleDatabase]

OWN = "SELECT m.username AS login, m.name AS name FROM mailbox m WHERE m.username = :address"


@pytest.fixture(scope="module", params=ENGINES)
def mail(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MailDatabase:
    """PostfixAdmin's tables with people, on each engine."""
    database = new_database(request.param, request, tmp_path_factory.mktemp("mail"))
    postfixadmin_tables(database)
    return database


@pytest.fixture(params=ENGINES)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> MailDatabase:
    """An empty database of each engine."""
    return new_database(request.param, request, tmp_path)


@pytest.fixture
def make_people(caplog: pytest.LogCaptureFixture) -> Iterator[MakePeople]:
    """Make the people of a source; no test may bring a password into the log."""
    caplog.set_level(logging.DEBUG, "automx")
    with contextlib.ExitStack() as stack:

        def make(uri: str, **settings: Any) -> PeopleDatabase:
            return stack.enter_context(contextlib.closing(people_of(uri, **settings)))

        yield make
    assert HIDDEN not in caplog.text


ALICE, BOB = Person("alice@example.com", "Alice Example"), Person("bob@example.com", "")
FOUND = {
    "alice@example.com": ALICE,
    "ALICE@Example.COM": ALICE,
    "bob@example.com": BOB,
    "info@example.com": ALICE,
    "chain@example.com": ALICE,
    "both@example.com": None,
    "away@example.com": None,
    "idle@example.com": None,
    "off@example.com": None,
    "dead@example.com": None,
    "loop@example.com": None,
    "catchall@example.com": None,
    "jürgen@example.com": Person("jürgen@example.com", "Jürgen"),
    "o'brien@example.com": Person("o'brien@example.com", "O'Brien"),
    "alice@alias.example": ALICE,
    "info@alias.example": ALICE,
    "chain@alias.example": ALICE,
    "both@alias.example": None,
    "off@alias.example": None,
    "alice@elsewhere.example": None,
}


def test_postfixadmins_mailboxes_and_aliases_give_the_login_of_one_mailbox(
    mail: MailDatabase, make_people: MakePeople
) -> None:
    people = make_people(mail.uri, people="postfixadmin")
    assert {address: find(people, address) for address in FOUND} == FOUND


MAILCOW = """
CREATE TABLE mailbox (username VARCHAR(255) PRIMARY KEY, name VARCHAR(255), active TINYINT(1),
  local_part VARCHAR(255), domain VARCHAR(255), kind VARCHAR(100) NOT NULL DEFAULT '');
CREATE TABLE alias (id INT AUTO_INCREMENT PRIMARY KEY, address VARCHAR(255) UNIQUE, goto TEXT,
  domain VARCHAR(255), active TINYINT(1));
CREATE TABLE alias_domain (alias_domain VARCHAR(255) PRIMARY KEY, target_domain VARCHAR(255),
  active TINYINT(1));
INSERT INTO mailbox VALUES ('alice@example.com', 'Alice Example', 1, 'alice', 'example.com', ''),
  ('off@example.com', 'Off', 2, 'off', 'example.com', ''),
  ('room@example.com', 'Room', 1, 'room', 'example.com', 'location');
INSERT INTO alias VALUES (1, 'alice@example.com', 'alice@example.com', 'example.com', 1),
  (2, 'info@example.com', 'alice@example.com', 'example.com', 1),
  (3, 'spam@example.com', 'spam@localhost', 'example.com', 1);
INSERT INTO alias_domain VALUES ('alias.example', 'example.com', 1);
"""


@pytest.mark.parametrize("preset", ["mailcow", "postfixadmin"])
def test_mailcows_tables_are_read_by_their_preset_and_by_postfixadmins(
    request: pytest.FixtureRequest, tmp_path: Path, make_people: MakePeople, preset: str
) -> None:
    database = new_database("mariadb", request, tmp_path)
    database.sql(MAILCOW)
    database.grant("mailbox", "alias", "alias_domain")
    people = make_people(database.uri, people=preset)
    room = None if preset == "mailcow" else Person("room@example.com", "Room")
    expected = {
        "alice@example.com": ALICE,
        "info@example.com": ALICE,
        "info@alias.example": ALICE,
        "off@example.com": None,
        "spam@example.com": None,
        "room@example.com": room,
    }
    assert {address: find(people, address) for address in expected} == expected


MODOBOA = """
CREATE TABLE core_user (id INTEGER, username VARCHAR(254), first_name VARCHAR(30),
  last_name VARCHAR(150), email VARCHAR(254), is_active BOOLEAN);
CREATE TABLE admin_domain (id INTEGER, name VARCHAR(100), type VARCHAR(20), enabled BOOLEAN);
CREATE TABLE admin_domainalias (id INTEGER, name VARCHAR(254), target_id INTEGER, enabled BOOLEAN);
CREATE TABLE admin_mailbox (id INTEGER, address VARCHAR(252), domain_id INTEGER, user_id INTEGER);
CREATE TABLE admin_alias (id INTEGER, address VARCHAR(254), domain_id INTEGER, enabled BOOLEAN,
  internal BOOLEAN);
CREATE TABLE modoboa_admin_aliasrecipient (id INTEGER, address VARCHAR(254), alias_id INTEGER,
  r_mailbox_id INTEGER, r_alias_id INTEGER);
INSERT INTO core_user VALUES
  (1, 'alice@example.com', 'Alice', 'Example', 'alice@example.com', true),
  (2, 'off@example.com', 'Off', '', 'off@example.com', false);
INSERT INTO admin_domain VALUES (1, 'example.com', 'domain', true);
INSERT INTO admin_domainalias VALUES (1, 'alias.example', 1, true);
INSERT INTO admin_mailbox VALUES (1, 'alice', 1, 1), (2, 'off', 1, 2);
INSERT INTO admin_alias VALUES (1, 'alice@example.com', 1, true, true),
  (2, 'info@example.com', 1, true, false), (3, 'both@example.com', 1, true, false),
  (4, 'chain@example.com', 1, true, false), (5, 'idle@example.com', 1, false, false);
INSERT INTO modoboa_admin_aliasrecipient VALUES (1, 'alice@example.com', 1, 1, NULL),
  (2, 'alice@example.com', 2, 1, NULL), (3, 'alice@example.com', 3, 1, NULL),
  (4, 'x@elsewhere.example', 3, NULL, NULL), (5, 'info@example.com', 4, NULL, 2),
  (6, 'alice@example.com', 5, 1, NULL);
"""


def test_modoboas_tables_are_read_by_its_preset(
    empty: MailDatabase, make_people: MakePeople
) -> None:
    empty.sql(MODOBOA)
    people = make_people(empty.uri, people="modoboa")
    expected = {
        "alice@example.com": ALICE,
        "info@example.com": ALICE,
        "chain@example.com": ALICE,
        "alice@alias.example": ALICE,
        "info@alias.example": ALICE,
        "off@example.com": None,
        "both@example.com": None,
        "idle@example.com": None,
        "nobody@example.com": None,
    }
    assert {address: find(people, address) for address in expected} == expected


# Strangers


INJECTIONS = [
    "'or'1'='1",
    "'or'1'='1'#",
    "x'or/**/username/**/like'%",
    "'/**/union/**/select/**/username/**/from/**/mailbox#",
    "%",
    "%%",
    "_____",
    "a%",
    "alic_",
    "`",
    "$$",
    "{alice}",
    "*",
    "%s",
    "?",
    "'",
    "''",
    "'''",
    "/*",
    "*/",
    "*/or/**/1=1/*",
    "''+''",
    "alice'--",
    "alice'#",
    "😀",
    "аlice",  # noqa: RUF001 - a Cyrillic letter
    "äöü" * 10,
    "x" * 64,
    "\u02bc",  # apostrophes of other scripts
    "\u055aor\u055a1",
]


@pytest.mark.parametrize("settings", [{"people": "postfixadmin"}, {"people_query": OWN}])
def test_an_address_is_a_value_and_never_a_part_of_the_query(
    mail: MailDatabase, make_people: MakePeople, settings: dict[str, str]
) -> None:
    people = make_people(mail.uri, **settings)
    for local_part in INJECTIONS:
        assert find(people, f"{local_part}@example.com") is None, local_part
    # What is no address stays outside; if it did not, it would be no outage.
    for local_part in ("a\0b", "' OR 1=1 -- ", "\ud800"):
        with pytest.raises(AddressError):
            EmailAddress.parse(f"{local_part}@example.com")
    with contextlib.suppress(DirectoryError):
        assert people.find(EmailAddress("a\0b", "example.com")) is None
    assert people.find(EmailAddress("' OR 1=1 -- ", "example.com")) is None
    for address in ("a_c@example.com", "100%@example.com"):  # they are themselves
        found = find(people, address)
        assert found is not None
        assert found.login_name == address
    assert find(people, "abc@example.com") is None
    assert find(people, "1000@example.com") is None


@pytest.fixture(params=["mariadb", "postgresql"])
def latin1(request: pytest.FixtureRequest) -> MailDatabase:
    """A database whose texts are ISO 8859-1."""
    instance: Instance = request.getfixturevalue(f"{request.param}_instance")
    options = {
        "mariadb": "CHARACTER SET latin1",
        "postgresql": "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0",
    }
    return MailDatabase(request.param, instance.new_database(options[request.param]), instance)


def test_a_letter_that_a_database_cannot_hold_is_in_no_address(
    latin1: MailDatabase, make_people: MakePeople, caplog: pytest.LogCaptureFixture
) -> None:
    """A stranger can ask for it at any time: it must not look like an outage."""
    latin1.sql("CREATE TABLE mailbox (username VARCHAR(90), name VARCHAR(90))")
    latin1.sql("INSERT INTO mailbox VALUES ('alice@example.com', 'Alice Example')")
    people = make_people(latin1.uri, people_query=OWN)
    for local_part in ("😀", "łukasz", "日本"):
        assert find(people, f"{local_part}@example.com") is None
        assert find(people, "alice@example.com") == ALICE
    assert [record.message for record in caplog.records if record.levelno > logging.INFO] == []


# Queries


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ("'x' AS login", Person("x", "")),
        ("'x' AS LOGIN, ' Al ' AS Name", Person("x", "Al")),
        ("NULL AS login, 'Al' AS name", Person("", "Al")),
        ("7 AS login", Person("7", "")),
        ("'' AS login", Person("", "")),
        ("'%EMAILADDRESS%' AS login, 'Al' AS name", Person("", "Al")),
        ("'50%' AS login, 'a:b :c' AS name", Person("50%", "a:b :c")),
    ],
)
def test_columns_of_a_row_are_login_and_name(
    empty: MailDatabase, make_people: MakePeople, select: str, expected: Person
) -> None:
    empty.sql("CREATE TABLE t (i INTEGER)")
    people = make_people(
        empty.uri, people_query=checked(f"SELECT {select} WHERE :address LIKE 'a%@%'")
    )
    assert find(people, "alice@example.com") == expected
    assert find(people, "bob@example.com") is None


def test_placeholders_are_the_address_and_its_parts_in_lower_case(
    empty: MailDatabase, make_people: MakePeople
) -> None:
    empty.sql("CREATE TABLE t (i INTEGER)")
    cast = "::text" if empty.engine == "postgresql" else ""
    text = (
        f"SELECT :local{cast} AS login, :domain AS name WHERE :address = 'al+ice@xn--mller-kva.de'"
    )
    people = make_people(empty.uri, people_query=checked(text))
    assert find(people, "Al+Ice@MÜLLER.de") == Person("al+ice", "xn--mller-kva.de")


def test_of_several_rows_none_is_used_unless_they_are_the_same(
    mail: MailDatabase, make_people: MakePeople, caplog: pytest.LogCaptureFixture
) -> None:
    condition = "username = :address OR (:local = 'alice' AND active IS NOT NULL)"
    text = f"SELECT username AS login FROM mailbox WHERE {condition}"
    people = make_people(mail.uri, people_query=text)
    assert find(people, "alice@example.com") is None
    assert "source mail: several rows fit alice@example.com; none is used" in caplog.text
    assert find(people, "bob@example.com") == BOB
    twice = make_people(mail.uri, people_query=f"{OWN} UNION ALL {OWN}")
    assert find(twice, "alice@example.com") == ALICE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("SELECT 1 AS name WHERE 1 = :local", "people_query has no column login"),
        (
            "SELECT 'a' AS login, 1 AS uid WHERE :local = 'x'",
            "people_query has a column uid; known are login, name",
        ),
        ("SELECT login FROM nothing WHERE login = :local", "nothing"),
        ("SELECT login FROM (:local", "database: "),
    ],
)
def test_a_query_that_is_refused_is_told_once_and_no_outage(
    mail: MailDatabase,
    make_people: MakePeople,
    caplog: pytest.LogCaptureFixture,
    text: str,
    reason: str,
) -> None:
    people = make_people(mail.uri, people_query=text.replace("1 = :local", "'1' = :local"))
    for _ in range(3):
        with pytest.raises(DirectoryError):
            find(people, "alice@example.com")
    messages = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(messages) == 1
    assert messages[0].startswith("source mail: people cannot be looked up: ")
    assert reason in messages[0]


def test_nothing_is_written_even_if_the_account_may(
    empty: MailDatabase, make_people: MakePeople
) -> None:
    empty.sql("CREATE TABLE mailbox (username VARCHAR(90)); INSERT INTO mailbox VALUES ('a')")
    if empty.engine == "mariadb":
        empty.sql(
            "DELIMITER //\nCREATE FUNCTION spoil() RETURNS VARCHAR(90) DETERMINISTIC"
            " MODIFIES SQL DATA BEGIN DELETE FROM mailbox; RETURN 'b'; END//\nDELIMITER ;\n"
        )
    elif empty.engine == "postgresql":
        empty.sql(
            "CREATE FUNCTION spoil() RETURNS VARCHAR LANGUAGE SQL"
            " AS $$ DELETE FROM mailbox; SELECT 'b'::varchar $$"
        )
    people = make_people(empty.uri, people_query="SELECT spoil() AS login WHERE :local = 'a'")
    with pytest.raises(DirectoryError):
        find(people, "a@example.com")
    people = make_people(
        empty.uri, people_query="SELECT username AS login FROM mailbox WHERE :local <> ''"
    )
    assert find(people, "a@example.com") == Person("a", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT a FROM t WHERE x = ':address'", "stand without quotes"),
        ('SELECT a FROM t WHERE x = ":local" OR y = :address', "stand without quotes"),
        ("SELECT a FROM t WHERE x = `:local`", "stand without quotes"),
        ("SELECT $q$ :local $q$", "stand without quotes"),
        ("SELECT a /* :address */ FROM t WHERE x = :local", "stand without quotes"),
        ("SELECT a -- :address\n FROM t WHERE x = :local", "stand without quotes"),
        ("SELECT 'x\\' , :local, ' y'", "stand without quotes"),
        ("SELECT 1 # it's\n OR y = ':local'", "quotes and comments are closed"),
        ("SELECT 'a, :local", "quotes and comments are closed"),
        ("SELECT :local /* a", "quotes and comments are closed"),
        ("SELECT a FROM t WHERE x = :user", "not :user"),
        ("SELECT a FROM t WHERE x = :address AND y = :Local", "not :Local"),
        ("SELECT a FROM t", "with the placeholder :address or :local"),
        ("SELECT a FROM t WHERE d = :domain", "with the placeholder :address or :local"),
        ("DELETE FROM t WHERE x = :local", "begins with SELECT or WITH"),
    ],
)
def test_a_query_into_which_an_address_could_break_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        checked(text)


def test_the_queries_of_presets_would_be_accepted() -> None:
    for preset in ("postfixadmin", "mailcow", "modoboa"):
        for uri in ("mysql://localhost/mail", "postgresql:///mail", "sqlite:////mail"):
            text = query(source(uri, people=preset)).strip()
            assert checked(text) == text
