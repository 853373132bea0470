"""Addresses of strangers who would like to put a filter of their own into that of a directory."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from automx.address import EmailAddress
from automx.config import DirectorySettings
from automx.directory.person import Person
from automx.directory.pool import Directories
from automx.directory.row import LdapServer
from automx.rows import ldap_server
from tests.conftest import Execute
from tests.directory import (
    OPENLDAP,
    Directory,
    insert_ldapserver,
    ldapserver_columns,
)
from tests.documents import autodiscover_request, timeless

# Local parts of which each would find somebody, or break the filter, if it were not escaped.
FILTERS = [
    "*",
    "**",
    "a*",
    "*e",
    "al*ce",
    "person000*",
    "*)(uid=*",
    "*)(uid=*)",
    "*)(uid=*))(|(mail=x",
    "*)(uid=*))(|(mail=*",
    "*))(|(uid=*",
    "*)(|(uid=alice)(uid=*",
    "*)(&(objectClass=*",
    "*)(objectClass=*",
    "*)(userPassword=*",
    "*)(userPassword=w*",
    "alice)(userPassword=*",
    "alice)(userPassword=wonderland",
    "x)(|(uid=alice",
    "x)(|(uid=alice))",
    "x))(|(uid=alice)(uid=x",
    "x)(!(uid=x",
    "x)(!(&(uid=x",
    "x)(uid>=a",
    "x)(uid<=z",
    "x)(uid~=alice",
    "x)(uid:=alice",
    "x)(uid:caseExactMatch:=alice",
    "x)(uid:dn:=alice",
    "x)(:dn:2.5.13.2:=alice",
    "x)(cn:1.2.840.113556.1.4.803:=1",
    "alice)(&",
    "alice)(|",
    "alice)(!",
    "alice)",
    "(alice",
    "(alice)",
    "((alice))",
    ")(",
    "()",
    "(",
    ")",
    "))))))))))",
    "((((((((((",
    "(&",
    "(|",
    "(!",
    "&",
    "|",
    "!",
    "=",
    ">=",
    "<=",
    "~=",
    ":=",
    "=*",
    "x=*",
    "mail=alice",
    "(mail=alice",
    "uid=alice,ou=people,dc=example,dc=com",
    "alice,ou=people",
    "alice;binary",
    "alice#",
    '"alice"',
    "'alice'",
    "alice'--",
    "' OR 1=1 --",
    "alice+uid=alice",
    "<alice>",
    "alice;",
    "alice/",
    "\\",
    "\\\\",
    "\\2a",
    "\\2A",
    "\\28",
    "\\29",
    "\\5c",
    "\\5c2a",
    "\\00",
    "\\2",
    "\\zz",
    "\\*",
    "\\2a\\29\\28uid=\\2a",
    "\\61lice",
    "alice\\",
    "alice\\20",
    "%2a",
    "%00",
    "%28",
    "%5c2a",
    "%252a",
    "&#42;",
    "\\u002a",
    "{0}",
    "{local}",
    "{domain}",
    "{}",
    "{1}",
    "{0.__class__}",
    "{0!r}",
    "{local}{0}",
    "%s",
    "%(0)s",
    "%EMAILADDRESS%",
    "%EMAILLOCALPART%",
    "${jndi:ldap://127.0.0.1/x}",
    "$(id)",
    "`id`",
]
CONTROLS = [
    "\x00",
    "alice\x00",
    "\x00alice",
    "al\x00ice",
    "*\x00",
    "alice\x00)(uid=*",
    "alice\n",
    "\nalice",
    "alice\r\n",
    "alice\r\nuid: *",
    "alice\t",
    "\talice",
    "alice\x0b",
    "alice\x0c",
    "alice\x1b[2J",
    "alice\x1c",
    "alice\x1f",
    "alice\x7f",
    "alice\x85",
    "alice ",
    " alice",
    "al ice",
    "  ",
]
LETTERS = [
    "alicé",
    "älice",
    "аlice",  # noqa: RUF001 - a Cyrillic letter
    "ａｌｉｃｅ",  # noqa: RUF001 - full-width letters
    "＊",  # noqa: RUF001 - a full-width asterisk, which is one in some forms of normalization
    "（uid=＊）",  # noqa: RUF001 - full-width, too
    "﹡",
    "∗",  # noqa: RUF001 - an operator that looks like an asterisk
    "\u200balice",
    "alice\u200b",
    "al\u00adice",
    "\u202ealice",
    "alice\u0301",
    "alice\ufeff",
    "\u2028alice",
    "\u00a0",
    "alice\u00a0",
    "alice\u3000",
    "İ",
    "ß",
    "ﬁ",
    "Ⅷ",
    "猫",
    "🐈",
    "👩‍💻",
    "\ue000",
    "\ue001",
    "\ufffd",
    "\ufffe",
    "\U0010ffff",
    "\u0000\u0301",
    "т" * 100,
    "猫" * 80,
]
LONG = [
    "a" * 64,
    "a" * 65,
    "a" * 300,
    "a" * 5_000,
    "*" * 64,
    "*" * 300,
    "(" * 300,
    "\\" * 300,
    "(|" * 150,
    "*)(" * 100,
    "a" * 290 + ")(uid=*",
    "\x00" * 300,
    "🐈" * 75,
    "*" * 60_000,
]
# The parts from which a person would go on to make more.
PIECES = ["*", ")(uid=*", "\\", "\x00", "(|(uid=alice"]
MADE = [f"{a}{b}alice{c}" for a, b, c in product(PIECES, ["", "("], PIECES)]
LOCAL_PARTS = list(dict.fromkeys([*FILTERS, *CONTROLS, *LETTERS, *LONG, *MADE]))

# Octets that are not UTF-8, or that somebody decodes twice or too generously.
QUERIES = [
    b"\xc0\xaa@example.com",  # an overlong asterisk
    b"\xe0\x80\xaa@example.com",
    b"\xff\xfe@example.com",
    b"\x80@example.com",
    b"al\xffice@example.com",
    b"\xed\xa0\x80@example.com",  # half of a surrogate pair
    b"\xf4\x90\x80\x80@example.com",
    b"%2a@example.com",
    b"alice@example.com\x00",
    b"alice@example.com\x00)(uid=*",
    b"alice@example.com)(uid=*",
    b"alice@example.com)(|(uid=*",
    b"alice@example.com*",
    b"alice@*",
    b"*@*",
    b"*",
    b"*)(uid=*))(|(mail=x",
    b"alice@example.com@example.com",
    b"@example.com",
    b"@",
    b"alice@",
    b"alice@example.com\nfoo",
    b"alice@exa\x00mple.com",
    b"alice@[127.0.0.1]",
    b'"alice)(uid=*"@example.com',
    b"<alice@example.com>",
    b"mailto:alice@example.com",
    b"alice@example.com,bob@example.com",
    b"alice%00@example.com",
    b"a" * 100_000 + b"@example.com",
]


def test_there_are_enough_hostile_addresses() -> None:
    assert len(LOCAL_PARTS) + len(QUERIES) >= 200


# What arrives at the directory


@pytest.fixture
def people() -> Iterator[Directories]:
    """Look-ups without memory and without encryption."""
    made = Directories(DirectorySettings(starttls="no", cache_seconds=0))
    yield made
    made.close()


def server_with(search_filter: str, directory: Directory) -> LdapServer:
    return ldap_server(ldapserver_columns(directory, search_filter=search_filter))


# Values of this attribute are octets, so slapd logs them as they came.
OCTETS = {
    "(octetLogin={0})": "(octetLogin=<{0}>)",
    "(octetLogin={local})": "(octetLogin=<{local}>)",
    "(octetLogin={local}@{domain})": "(octetLogin=<{0}>)",
    "(&(ou={domain})(|(octetLogin={0})(octetLogin=smtp:{0})))": (
        "(&(ou=example.com)(|(octetLogin=<{0}>)(octetLogin=<smtp:{0}>)))"
    ),
}


def unescaped(logged: str) -> str:
    """Return a logged filter with each value as ``<value>``, if its structure is as expected."""
    values = re.compile(r"(?<=octetLogin=)((?:[^()*\\\x00]|\\[0-9A-F]{2})*)(?=\))")

    def plain(match: re.Match[str]) -> str:
        octets = match[1].encode()
        octets = re.sub(rb"\\(..)", lambda found: bytes([int(found[1], 16)]), octets)
        return f"<{octets.decode('utf-8', 'surrogatepass')}>"

    return values.sub(plain, logged)


@pytest.mark.parametrize("search_filter", OCTETS)
def test_a_directory_gets_every_address_literally(
    people: Directories, shared_directory: Directory, search_filter: str
) -> None:
    server = server_with(search_filter, shared_directory)
    for local_part in LOCAL_PARTS:
        if len(local_part) > 300:  # slapd cuts the lines of its log
            continue
        address = EmailAddress(local_part, "example.com")
        assert people.find(server, address) is None
        expected = OCTETS[search_filter].replace("{local}", "{}").replace("{0}", "{}")
        value = local_part if "{local}>" in OCTETS[search_filter] else str(address)
        assert unescaped(shared_directory.filters()[-1]) == expected.replace("{}", value)


@pytest.mark.parametrize(
    "search_filter",
    ["(mail={0})", "(&(objectClass=inetOrgPerson)(mail={0}))", "(|(mail={0})(uid={0}))"],
)
def test_no_address_finds_anybody_but_its_owner(
    people: Directories,
    shared_directory: Directory,
    search_filter: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = server_with(search_filter, shared_directory)
    found = {}
    for local_part in LOCAL_PARTS:
        person = people.find(server, EmailAddress(local_part, "example.com"))
        if person is not None:
            found[local_part] = person
    # Directories pass over blanks at both ends (RFC 4518, section 2.6.1).
    assert found == {" alice": Person("alice", "Alice Example")}
    assert not caplog.records  # neither an outage nor several people


def test_an_asterisk_is_a_character_like_any_other(
    people: Directories, directory: Directory
) -> None:
    entry = (
        "dn: uid=star,ou=people,dc=example,dc=com\nchangetype: add\nobjectClass: inetOrgPerson\n"
    )
    directory.change(OPENLDAP, f"{entry}cn: Star\nsn: Star\nmail: *@example.com\n")
    server = server_with("(mail={0})", directory)
    person = people.find(server, EmailAddress("*", "example.com"))
    assert person == Person("star", "Star")


# What arrives at the stranger


@dataclass(frozen=True)
class Question:
    """A request that asks for the settings of an address."""

    method: str
    path: str
    field: str = "emailaddress"

    def ask(self, client: FlaskClient, address: bytes) -> TestResponse:
        """Send the request with an address, which is not necessarily text."""
        if self.path.startswith("/autodiscover") and self.method == "POST":
            document = autodiscover_request("ADDRESS").encode()
            return client.post(
                self.path,
                data=document.replace(b"ADDRESS", escape(address)),
                content_type="text/xml",
            )
        value = f"emailaddress={quote_from_bytes(address)}"
        if self.method == "POST":
            form = "application/x-www-form-urlencoded"
            return client.post(self.path, data=value, content_type=form)
        return client.get(f"{self.path}?{value}")


def escape(octets: bytes) -> bytes:
    """Return octets as they stand in XML, as far as they can."""
    return octets.replace(b"&", b"&amp;").replace(b"<", b"&lt;").replace(b">", b"&gt;")


QUESTIONS = [
    Question("GET", "/mail/config-v1.1.xml"),
    Question("GET", "/.well-known/autoconfig/mail/config-v1.1.xml"),
    Question("GET", "/autodiscover/autodiscover.xml"),
    Question("POST", "/autodiscover/autodiscover.xml"),
    Question("GET", "/mobileconfig"),
    Question("POST", "/mobileconfig"),
]

Answer = tuple[int, list[tuple[str, str]], str]


def answer(response: TestResponse) -> Answer:
    """Return all that a stranger sees."""
    # Each answer has its own.
    own = {"Date", "X-Request-ID"}
    headers = [(name, value) for name, value in response.headers if name not in own]
    return response.status_code, headers, timeless(response.text)


@pytest.mark.parametrize("question", QUESTIONS, ids=str)
def test_hostile_addresses_get_what_an_unknown_one_gets(
    make_app: Callable[..., Flask],
    database: Path,
    execute: Execute,
    example: None,
    shared_directory: Directory,
    caplog: pytest.LogCaptureFixture,
    question: Question,
) -> None:
    """The measure is a domain of the same name without any directory."""
    settings = {"ldap_starttls": "no", "ldap_cache_seconds": 0}
    without = make_app(**settings).test_client()
    addresses = [f"{part}@example.com".encode("utf-8", "surrogatepass") for part in LOCAL_PARTS]
    addresses += QUERIES
    # White space around an address is nobody's attack.
    owner = "alice@example.com"
    addresses = [found for found in addresses if found.decode(errors="replace").strip() != owner]
    expected = [answer(question.ask(without, address)) for address in addresses]

    execute(insert_ldapserver(shared_directory) + "UPDATE domain SET ldapserver_id = 3;")
    client = make_app(**settings).test_client()
    before = shared_directory.searches
    unknown = answer(question.ask(client, b"nobody@example.com"))
    is_same_for_all = question == Question("GET", "/autodiscover/autodiscover.xml")
    wrong = []
    for address, plain in zip(addresses, expected, strict=True):
        found = answer(question.ask(client, address))
        if found != (unknown if is_same_for_all and plain[0] == 200 else plain):
            wrong.append((address, plain, found))
    assert wrong == []
    assert {status for status, _, _ in expected} <= {200, 400, 404, 413}
    assert not [record for record in caplog.records if record.name == "automx.directory.ldap"]
    is_personal = question != Question("GET", "/autodiscover/autodiscover.xml")
    assert (shared_directory.searches > before + 50) is is_personal


def test_the_measure_tells_a_known_address_from_an_unknown_one(
    make_app: Callable[..., Flask],
    execute: Execute,
    example: None,
    shared_directory: Directory,
) -> None:
    execute(insert_ldapserver(shared_directory) + "UPDATE domain SET ldapserver_id = 3;")
    client = make_app(ldap_starttls="no").test_client()
    for question in QUESTIONS:
        known = question.ask(client, b"alice.example@example.com").text
        assert (">alice<" in known) is (question != QUESTIONS[2])
