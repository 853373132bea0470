"""Look-ups in directories, against real slapd instances and sockets that behave as broken ones."""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from automx.address import EmailAddress
from automx.config import DirectorySettings
from automx.directory import lookups
from automx.directory.connection import Host, TlsMode
from automx.directory.hoststate import RETRY_SECONDS
from automx.directory.ldap import credentials, hosts
from automx.directory.lookups import ALL_LOOKUPS, LOOKUPS
from automx.directory.person import DirectoryError, Person
from automx.directory.pool import Directories
from automx.directory.row import LdapServer
from automx.errors import SettingsError
from automx.rows import BadRowError, ldap_server
from tests.directory import (
    ACTIVE_DIRECTORY,
    FREEIPA,
    OPENLDAP,
    PASSWORD,
    PEOPLE,
    Directory,
    MakeDirectory,
    dripping_socket,
    ldapserver_columns,
    silent_socket,
    slow_wire,
)
from tests.directory import Directories as DirectoryMaker
from tests.processes import free_port, wait_until
from tests.tls import Authority

ALICE = EmailAddress("alice", "example.com")
ALICES_PERSON = Person("alice", "Alice Example")
QUICK = 0.5  # seconds that a look-up may take in tests where it has to fail
GRACE = 10  # seconds over the limit that a busy machine may need; the silence of hosts is longer


class Clock:
    """A clock that a test sets forward."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class Finder:
    """Look-ups by rows of the table, with one set of options."""

    def __init__(self, now: Callable[[], float] = time.monotonic, **options: object) -> None:
        values: dict[str, Any] = {"cache_seconds": 0, "starttls": "try"}
        self.options = DirectorySettings(**(values | options))
        self.directories = Directories(self.options, now=now)

    def server(self, directory: Directory, **columns: Any) -> LdapServer:
        return ldap_server(ldapserver_columns(directory, **columns))

    def find(
        self, directory: Directory, address: EmailAddress | str = ALICE, **columns: Any
    ) -> Person | None:
        if isinstance(address, str):
            address = EmailAddress.parse(address)
        return self.directories.find(self.server(directory, **columns), address)


MakeFinder = Callable[..., Finder]


@pytest.fixture
def make_finder() -> Iterator[MakeFinder]:
    """Look-ups; keyword arguments are options."""
    made: list[Finder] = []

    def make(now: Callable[[], float] = time.monotonic, **options: Any) -> Finder:
        made.append(Finder(now, **options))
        return made[-1]

    yield make
    for finder in made:
        finder.directories.close()


@pytest.fixture
def finder(make_finder: MakeFinder) -> Finder:
    """Look-ups without memory and without encryption."""
    return make_finder(starttls="no")


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Keep everything that is logged; no test may bring a password into the log."""
    caplog.set_level(logging.DEBUG, "automx")
    yield caplog
    assert PASSWORD not in caplog.text
    assert "stairs" not in caplog.text


def fails(look_up: Callable[[], object], within: float) -> None:
    """Check that a look-up raises DirectoryError, and that it takes no longer than it may."""
    assert timed(look_up) < within + GRACE


def timed(look_up: Callable[[], object]) -> float:
    """Check that a look-up raises DirectoryError, and return how many seconds it takes."""
    start = time.monotonic()
    with pytest.raises(DirectoryError) as failure:
        look_up()
    seconds = time.monotonic() - start
    assert failure.value.status == 503
    assert str(failure.value) == DirectoryError.public
    return seconds


# Rows


@pytest.mark.parametrize(
    ("name", "port", "use_ssl", "expected"),
    [
        ("ldap.example.com", 389, False, [("ldap.example.com", 389, TlsMode.STARTTLS)]),
        ("ldap.example.com", 636, True, [("ldap.example.com", 636, TlsMode.LDAPS)]),
        ("ldap.example.com", 3890, False, [("ldap.example.com", 3890, TlsMode.STARTTLS)]),
        ("localhost", 389, False, [("localhost", 389, TlsMode.NONE)]),
        ("127.0.0.2", 389, False, [("127.0.0.2", 389, TlsMode.NONE)]),
        ("[::1]", 389, False, [("::1", 389, TlsMode.NONE)]),
        ("::1", 389, False, [("::1", 389, TlsMode.NONE)]),
        ("[2001:db8::1]:3890", 389, False, [("2001:db8::1", 3890, TlsMode.STARTTLS)]),
        ("ldaps://ldap.example.com", 389, False, [("ldap.example.com", 636, TlsMode.LDAPS)]),
        ("ldap://ldap.example.com", 636, True, [("ldap.example.com", 389, TlsMode.STARTTLS)]),
        ("ldaps://ldap.example.com:6360/", 389, False, [("ldap.example.com", 6360, TlsMode.LDAPS)]),
        (
            "one.example.com two.example.com:3890,ldaps://three.example.com ,  localhost",
            389,
            False,
            [
                ("one.example.com", 389, TlsMode.STARTTLS),
                ("two.example.com", 3890, TlsMode.STARTTLS),
                ("three.example.com", 636, TlsMode.LDAPS),
                ("localhost", 389, TlsMode.NONE),
            ],
        ),
    ],
)
def test_a_row_names_one_host_or_several(
    name: str, port: int, use_ssl: bool, expected: list[tuple[str, int, TlsMode]]
) -> None:
    server = ldap_server(COLUMNS | {"name": name, "port": port, "use_ssl": use_ssl})
    assert hosts(server, DirectorySettings()) == [Host(*host) for host in expected]


COLUMNS: dict[str, Any] = {
    "id": 7,
    "name": "ldap.example.com",
    "port": 389,
    "use_ssl": False,
    "search_base": "dc=example,dc=com",
    "search_filter": "(mail={0})",
    "attr_uid": "uid",
    "attr_cn": "cn",
    "bind_user": "cn=automx,dc=example,dc=com",
    "bind_password": PASSWORD,
    "login_name": None,
}


@pytest.mark.parametrize(
    ("starttls", "name", "mode"),
    [
        ("yes", "ldap.example.com", TlsMode.STARTTLS),
        ("no", "ldap.example.com", TlsMode.NONE),
        ("try", "ldap.example.com", TlsMode.TRY_STARTTLS),
        ("yes", "localhost", TlsMode.NONE),
        ("no", "ldaps://ldap.example.com", TlsMode.LDAPS),
    ],
)
def test_the_settings_say_whether_to_encrypt_by_starttls(
    starttls: str, name: str, mode: TlsMode
) -> None:
    server = ldap_server(COLUMNS | {"name": name})
    assert [host.tls for host in hosts(server, DirectorySettings(starttls=starttls))] == [mode]


def test_a_row_with_a_client_certificate_never_goes_on_without_encryption() -> None:
    server = ldap_server(COLUMNS | {"name": "ldap.example.com"})
    settings = DirectorySettings(starttls="try", client_certificates={server.id: "/c.pem"})
    assert [host.tls for host in hosts(server, settings)] == [TlsMode.STARTTLS]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("name", ""),
        ("name", None),
        ("name", "http://ldap.example.com"),
        ("name", "ldap.example.com/dc=example"),
        ("name", "ldap.example.com:70000"),
        ("name", "ldap.example.com:0"),
        ("name", "good.example.com,,bad host:port"),
        ("port", 70000),
        ("port", -1),
        ("port", None),
        ("search_filter", ""),
        ("search_filter", None),
        ("search_filter", "(mail=alice@example.com)"),
        ("search_filter", "(mail={domain})"),
        ("search_filter", "(mail={0}"),
        ("search_filter", "(&(mail={0})(uid=*)"),
        ("search_filter", "mail={0})"),
        ("search_filter", "(mail={0})(uid=*)"),
        ("search_filter", "(&)(mail={0})"),
        ("search_filter", "({0})"),
        ("search_filter", "(mail={0}\\zz)"),
        ("search_filter", "(=mail={0})"),
        ("search_filter", "(mail={0})\x00"),
        ("search_filter", "(mail={address})"),
        ("attr_uid", ""),
        ("attr_uid", None),
    ],
)
def test_a_bad_row_names_the_column(column: str, value: object) -> None:
    with pytest.raises(BadRowError) as failure:
        ldap_server(COLUMNS | {column: value})
    assert str(failure.value).startswith(f"{column}: expected ")
    assert PASSWORD not in str(failure.value)


@pytest.mark.parametrize(
    ("search_filter", "expected"),
    [
        ("(mail={0})", r"(mail=al\2ai\29\28\5c\00@example.com)"),
        ("(&(uid={local})(o={domain}))", r"(&(uid=al\2ai\29\28\5c\00)(o=example.com))"),
        ("(|(mail={0})(proxyAddresses=smtp:{0}))", None),
        ("  (mail={0})  ", r"(mail=al\2ai\29\28\5c\00@example.com)"),
    ],
)
def test_the_parts_of_an_address_are_escaped_in_the_filter(
    search_filter: str, expected: str | None
) -> None:
    server = ldap_server(COLUMNS | {"search_filter": search_filter})
    escaped = r"al\2ai\29\28\5c\00@example.com"
    expected = expected or f"(|(mail={escaped})(proxyAddresses=smtp:{escaped}))"
    assert server.filter_for(EmailAddress("al*i)(\\\0", "example.com")) == expected


def test_an_address_that_looks_like_a_placeholder_is_not_expanded_again() -> None:
    server = ldap_server(COLUMNS | {"search_filter": "(&(uid={local})(mail={0}))"})
    found = server.filter_for(EmailAddress("{0}{local}{domain}", "example.com"))
    local_part = r"\7b0\7d\7blocal\7d\7bdomain\7d"
    assert found == f"(&(uid={local_part})(mail={local_part}@example.com))"


def test_a_password_from_the_settings_takes_the_place_of_the_row_s() -> None:
    options = DirectorySettings(bind_passwords={7: "from a file"})
    assert credentials(ldap_server(COLUMNS), options).password == "from a file"
    assert credentials(ldap_server(COLUMNS | {"id": 8}), options).password == PASSWORD


def test_a_server_and_the_options_do_not_show_their_passwords() -> None:
    options = DirectorySettings(bind_passwords={7: PASSWORD})
    server = ldap_server(COLUMNS)
    for thing in (options, server, credentials(server, DirectorySettings())):
        assert "stairs" not in f"{thing!r} {thing}"


# People


def test_a_person_is_found_with_login_name_and_display_name(
    finder: Finder, shared_directory: Directory
) -> None:
    assert finder.find(shared_directory, "alice@example.com") == ALICES_PERSON
    assert finder.find(shared_directory, "alice.example@example.com") == ALICES_PERSON
    assert finder.find(shared_directory, "ALICE@Example.COM") == ALICES_PERSON
    person = finder.find(shared_directory, f"person{PEOPLE - 1}@example.com")
    assert person == Person(f"person{PEOPLE - 1}", f"Person {PEOPLE - 1}")


def test_nobody_is_found_for_an_address_that_the_directory_does_not_have(
    finder: Finder, shared_directory: Directory
) -> None:
    assert finder.find(shared_directory, "nobody@example.com") is None


def test_a_filter_may_use_the_parts_of_the_address(
    finder: Finder, shared_directory: Directory
) -> None:
    by_parts = "(&(uid={local})(mail=*@{domain}))"
    assert finder.find(shared_directory, search_filter=by_parts) == ALICES_PERSON
    assert finder.find(shared_directory, "alice@example.net", search_filter=by_parts) is None
    assert shared_directory.filters()[-1] == "(&(uid=alice)(mail=*@example.net))"


@pytest.mark.parametrize(
    ("address", "columns", "person"),
    [
        ("several", {}, Person("first", "Several Names")),
        ("nothing", {}, Person("", "")),
        ("blank", {}, Person("", "")),
        ("octets", {"attr_uid": "octetLogin"}, Person("octets-login", "")),
        ("broken", {"attr_uid": "octetLogin"}, Person("", "")),
        ("unicode", {}, Person("jürgen", "Jürgen Müller-Ωmega 猫")),
        ("markup", {}, Person("<b>&\"']]>", "<i>&amp;</i>")),
        ("control", {}, Person("", "")),
        ("private", {}, Person("", "")),
        ("placeholder", {}, Person("", "")),
        ("o'brien+mail", {}, Person("obrien", "")),
        ("alice", {"attr_cn": ""}, Person("alice", "")),
        ("alice", {"attr_cn": None}, Person("alice", "")),
        ("alice", {"attr_uid": "UID", "attr_cn": "DISPLAYNAME"}, Person("alice", "Alice")),
        ("alice", {"attr_uid": "noSuchAttribute", "attr_cn": "cn"}, Person("", "Alice Example")),
        ("alice", {"attr_uid": "uid", "attr_cn": "uid"}, Person("alice", "alice")),
    ],
)
def test_attributes_are_taken_as_they_come(
    finder: Finder,
    shared_directory: Directory,
    address: str,
    columns: dict[str, Any],
    person: Person,
) -> None:
    columns = {"attr_cn": "displayName"} | columns
    found = finder.find(shared_directory, f"{address}@example.com", **columns)
    assert found == person


def test_a_second_value_is_told_at_level_debug(
    finder: Finder, shared_directory: Directory, logged: pytest.LogCaptureFixture
) -> None:
    finder.find(shared_directory, "several@example.com")
    record = next(record for record in logged.records if "several values" in record.getMessage())
    assert record.levelno == logging.DEBUG


def test_a_value_that_is_no_text_is_told_with_the_attribute(
    finder: Finder, shared_directory: Directory, logged: pytest.LogCaptureFixture
) -> None:
    finder.find(shared_directory, "broken@example.com", attr_uid="octetLogin")
    assert "ldapserver 3: octetLogin" in logged.text


def test_an_attribute_without_a_character_says_nothing(
    finder: Finder, directory: Directory
) -> None:
    entry = "employeeNumber=octets,ou=people,dc=example,dc=com"
    directory.change(
        OPENLDAP, f"dn: {entry}\nchangetype: modify\nreplace: octetLogin\noctetLogin:\n"
    )
    found = finder.find(directory, "octets@example.com", attr_uid="octetLogin", attr_cn="cn")
    assert found == Person("", "octets")


def test_a_login_name_of_any_length_that_a_directory_can_hold_is_found(
    finder: Finder, shared_directory: Directory
) -> None:
    found = finder.find(shared_directory, "long@example.com", attr_cn="displayName")
    assert found == Person("l" * 5000, "d" * 5000)


def test_several_fitting_entries_are_as_good_as_none_and_are_told(
    finder: Finder, shared_directory: Directory, logged: pytest.LogCaptureFixture
) -> None:
    assert finder.find(shared_directory, "twins@example.com") is None
    messages = [
        record.getMessage()
        for record in logged.records
        if record.name.startswith("automx.directory")
    ]
    assert len(messages) == 1
    assert "ldapserver 3" in messages[0]
    assert "several entries" in messages[0]


def test_a_size_limit_of_the_directory_changes_nothing(
    finder: Finder, make_directory: MakeDirectory
) -> None:
    directory = make_directory(options=["sizelimit 1"])
    assert finder.find(directory) == ALICES_PERSON
    assert finder.find(directory, "nobody@example.com") is None
    assert finder.find(directory, "twins@example.com") is None
    assert finder.find(directory) == ALICES_PERSON


def test_a_directory_that_refuses_to_search_is_an_outage(
    make_finder: MakeFinder, make_directory: MakeDirectory, logged: pytest.LogCaptureFixture
) -> None:
    directory = make_directory(tree_options=["limits * size.unchecked=10"])
    unindexed = "(&(objectClass=inetOrgPerson)(displayName={local}))"
    finder = make_finder(starttls="no")
    fails(lambda: finder.find(directory, search_filter=unindexed), within=3)
    assert "adminLimitExceeded" in logged.text


def test_a_search_base_that_does_not_exist_is_an_outage(
    finder: Finder, shared_directory: Directory, logged: pytest.LogCaptureFixture
) -> None:
    fails(lambda: finder.find(shared_directory, search_base="ou=gone,dc=example,dc=com"), within=3)
    assert "noSuchObject" in logged.text


def test_referrals_of_active_directory_are_passed_over(
    finder: Finder, shared_directory: Directory
) -> None:
    columns: dict[str, Any] = {"tree": ACTIVE_DIRECTORY, "attr_uid": "sAMAccountName"}
    columns["attr_cn"] = "displayName"
    person = finder.find(shared_directory, "alice@example.net", **columns)
    assert person == Person("aexample", "Alice Example")
    assert finder.find(shared_directory, "nobody@example.net", **columns) is None


def test_a_referral_to_another_directory_is_not_followed(
    finder: Finder, make_directory: MakeDirectory, directory: Directory
) -> None:
    elsewhere = make_directory(options=[f"referral {directory.uri}"])
    fails(lambda: finder.find(elsewhere, search_base="dc=other,dc=test"), within=3)
    assert directory.binds == 0


# Binding


def test_without_a_bind_user_the_directory_is_asked_anonymously(
    finder: Finder, make_directory: MakeDirectory
) -> None:
    directory = make_directory(anonymous=True)
    assert finder.find(directory, bind_user="", bind_password="") == ALICES_PERSON
    assert finder.find(directory, bind_user=None, bind_password=None) == ALICES_PERSON
    assert 'BIND dn="cn=automx' not in directory.log


def test_a_directory_that_wants_a_bind_user_is_an_outage_without_one(
    finder: Finder, make_directory: MakeDirectory, logged: pytest.LogCaptureFixture
) -> None:
    directory = make_directory(options=["disallow bind_anon"])
    fails(lambda: finder.find(directory, bind_user="", bind_password=""), within=3)
    assert "inappropriateAuthentication" in logged.text


@pytest.mark.parametrize(
    "columns",
    [
        {"bind_password": "wrong *stairs*"},
        {"bind_user": "cn=nobody,dc=example,dc=com"},
        {"bind_user": "no distinguished name"},
    ],
)
def test_a_refused_bind_is_an_outage(
    finder: Finder,
    shared_directory: Directory,
    logged: pytest.LogCaptureFixture,
    columns: dict[str, Any],
) -> None:
    fails(lambda: finder.find(shared_directory, **columns), within=3)
    host = f"127.0.0.1:{shared_directory.port}"
    assert f"ldapserver 3: {host} fails: the bind was refused: " in logged.text


def test_a_bind_user_without_password_is_never_taken_for_anonymous(
    finder: Finder, make_directory: MakeDirectory
) -> None:
    # RFC 4513, section 5.1.2: slapd, if it permits it, answers such a bind with success.
    directory = make_directory(anonymous=True, options=["allow bind_anon_dn"])
    fails(lambda: finder.find(directory, bind_password=""), within=3)


# TLS


@pytest.fixture
def secure(make_finder: MakeFinder, directories: DirectoryMaker) -> Finder:
    """Look-ups that trust the tests' authority."""
    return make_finder(ca_file=str(directories.authority.root), starttls="try")


def ldaps(directory: Directory, host: str = "127.0.0.1") -> dict[str, Any]:
    return {"name": f"{host}:{directory.tls_port}", "use_ssl": True}


def starttls(directory: Directory) -> dict[str, Any]:
    """Return columns for an address that is no loopback address, though it leads there."""
    return {"name": f"0.0.0.0:{directory.port}"}


def test_ldaps_checks_the_certificate(secure: Finder, shared_directory: Directory) -> None:
    before = shared_directory.count("TLS established")
    assert secure.find(shared_directory, **ldaps(shared_directory)) == ALICES_PERSON
    assert secure.find(shared_directory, **ldaps(shared_directory, "localhost")) == ALICES_PERSON
    assert shared_directory.count("TLS established") == before + 2


def test_starttls_is_used_by_default_for_every_host_but_loopback(
    make_finder: MakeFinder, directories: DirectoryMaker, directory: Directory
) -> None:
    finder = make_finder(ca_file=str(directories.authority.root), starttls="yes")
    assert finder.find(directory) == ALICES_PERSON
    assert directory.count("STARTTLS") == 0
    assert finder.find(directory, **starttls(directory)) == ALICES_PERSON
    assert directory.count("TLS established") == 1
    # Before the password is sent.
    assert directory.log.index("TLS established") < directory.log.rindex("BIND dn=")


def test_a_directory_without_tls_is_an_outage_where_starttls_is_demanded(
    make_finder: MakeFinder, make_directory: MakeDirectory, logged: pytest.LogCaptureFixture
) -> None:
    directory = make_directory(tls=False)
    fails(lambda: make_finder(starttls="yes").find(directory, **starttls(directory)), within=3)
    assert "BIND" not in directory.log
    assert "StartTLS" in logged.text or "startTLS" in logged.text


def test_starttls_is_tried_where_the_settings_say_so(
    secure: Finder, directory: Directory, make_directory: MakeDirectory
) -> None:
    assert secure.find(directory) == ALICES_PERSON
    assert directory.count("TLS established") == 1
    plain = make_directory(tls=False)
    assert secure.find(plain) == ALICES_PERSON
    assert plain.count("EXT oid=1.3.6.1.4.1.1466.20037") == 1


def test_a_bad_certificate_is_an_outage_even_where_starttls_is_only_tried(
    make_finder: MakeFinder,
    directory: Directory,
) -> None:
    fails(lambda: make_finder(starttls="try").find(directory), within=3)
    assert "BIND" not in directory.log


@pytest.mark.parametrize("encryption", [ldaps, starttls])
@pytest.mark.parametrize(
    ("defect", "word"),
    [("expired", "expired"), ("name", "match"), ("authority", "unable to get local issuer")],
)
def test_a_certificate_that_does_not_fit_is_an_outage(
    make_finder: MakeFinder,
    directories: DirectoryMaker,
    make_directory: MakeDirectory,
    tmp_path_factory: pytest.TempPathFactory,
    logged: pytest.LogCaptureFixture,
    encryption: Callable[[Directory], dict[str, Any]],
    defect: str,
    word: str,
) -> None:
    authority = directories.authority
    names = ["127.0.0.1", "0.0.0.0"]
    if defect == "expired":
        certificate = authority.issue(*names, days=-1)
    elif defect == "name":
        certificate = authority.issue("ldap.example.net")
    else:
        certificate = Authority(tmp_path_factory.mktemp("authority")).issue(*names)
    directory = make_directory(certificate=certificate)
    finder = make_finder(ca_file=str(authority.root), starttls="yes")
    fails(lambda: finder.find(directory, **encryption(directory)), within=3)
    assert "BIND" not in directory.log
    failure = next(record.getMessage() for record in logged.records if record.levelno >= 40)
    assert word in failure.lower()
    unchecked = make_finder(verify=False, starttls="yes")
    assert unchecked.find(directory, **encryption(directory)) == ALICES_PERSON


def test_the_system_s_authorities_are_asked_if_the_settings_name_none(
    make_finder: MakeFinder,
    shared_directory: Directory,
) -> None:
    fails(lambda: make_finder().find(shared_directory, **ldaps(shared_directory)), within=3)


def test_a_directory_that_speaks_old_tls_only_is_an_outage(
    make_finder: MakeFinder, directories: DirectoryMaker, make_directory: MakeDirectory
) -> None:
    old = "TLSCipherSuite NORMAL:-VERS-ALL:+VERS-TLS1.1:+VERS-TLS1.0:%COMPAT"
    directory = make_directory(options=[old])
    for finder in (make_finder(ca_file=str(directories.authority.root)), make_finder(verify=False)):
        fails(partial(finder.find, directory, **ldaps(directory)), within=3)


@pytest.mark.parametrize("ca_file", ["/nonexistent/ca.pem", "/dev/null"])
def test_authorities_that_cannot_be_read_are_told_at_the_start(ca_file: str) -> None:
    with pytest.raises(SettingsError, match=f"ldap_ca_file {ca_file} cannot be used: "):
        Directories(DirectorySettings(ca_file=ca_file))


# Directories that are slow or silent


def test_a_refused_connection_is_an_outage_at_once(finder: Finder, directory: Directory) -> None:
    fails(lambda: finder.find(directory, name=f"127.0.0.1:{free_port()}"), within=0.1)


@pytest.mark.parametrize("use_ssl", [False, True])
@pytest.mark.parametrize("starttls", ["no", "try"])
def test_a_host_that_accepts_and_stays_silent_is_given_up_in_time(
    make_finder: MakeFinder, directory: Directory, use_ssl: bool, starttls: str
) -> None:
    finder = make_finder(timeout=QUICK, starttls=starttls)
    with silent_socket() as port:
        columns: dict[str, Any] = {"name": f"127.0.0.1:{port}", "use_ssl": use_ssl}
        fails(lambda: finder.find(directory, **columns), within=QUICK)


# An answer to a bind and a record of TLS, each announced to be long.
DRIPS = {
    False: b"\x30\x82\x40\x00\x02\x01\x01\x61" + bytes(200),
    True: b"\x16\x03\x03\x40\x00" * 40,
}


@pytest.mark.parametrize("use_ssl", [False, True])
def test_a_host_that_says_one_octet_at_a_time_is_given_up_in_time(
    make_finder: MakeFinder, directory: Directory, use_ssl: bool
) -> None:
    finder = make_finder(timeout=QUICK, starttls="no")
    with dripping_socket(DRIPS[use_ssl]) as port:
        columns: dict[str, Any] = {"name": f"127.0.0.1:{port}", "use_ssl": use_ssl}
        fails(lambda: finder.find(directory, **columns), within=QUICK)


@pytest.mark.parametrize("quick_octets", [0, 1, 14, 20, 40])
def test_a_directory_that_turns_slow_in_the_midst_of_an_answer_is_given_up_in_time(
    make_finder: MakeFinder, shared_directory: Directory, quick_octets: int
) -> None:
    finder = make_finder(timeout=QUICK, starttls="no")
    with slow_wire(shared_directory, quick_octets=quick_octets) as port:
        fails(lambda: finder.find(shared_directory, name=f"127.0.0.1:{port}"), within=QUICK)


def test_a_name_that_does_not_resolve_is_an_outage(
    make_finder: MakeFinder, directory: Directory, logged: pytest.LogCaptureFixture
) -> None:
    finder = make_finder(timeout=QUICK, starttls="no")
    fails(lambda: finder.find(directory, name="ldap.invalid"), within=QUICK)
    assert "ldap.invalid" in logged.text


@pytest.mark.alone
@pytest.mark.parametrize("threads", [20])
def test_many_threads_do_not_wait_for_a_dead_directory_one_after_the_other(
    make_finder: MakeFinder, directory: Directory, threads: int, logged: pytest.LogCaptureFixture
) -> None:
    finder = make_finder(timeout=QUICK, starttls="no")
    with silent_socket() as port, ThreadPoolExecutor(threads) as pool:
        name = f"127.0.0.1:{port}"
        start = time.monotonic()
        results = [pool.submit(finder.find, directory, name=name) for _ in range(5 * threads)]
        errors = [result.exception(30) for result in results]
        assert time.monotonic() - start < QUICK + GRACE
    assert {type(error) for error in errors} == {DirectoryError}
    assert outages(logged) == ["fails"]


@pytest.mark.parametrize("rows", [1, 10])
def test_silent_directories_take_few_threads_and_leave_others_alone(
    make_finder: MakeFinder, directory: Directory, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """Whatever number of clients asks, and of directories is silent."""
    monkeypatch.setattr("automx.directory.lookups.BRIEF_SECONDS", 0.0)
    finder = make_finder(timeout=GRACE, starttls="no")
    assert finder.find(directory) is not None
    with silent_socket() as port, ThreadPoolExecutor(100) as pool:
        name = f"127.0.0.1:{port}"
        columns: list[dict[str, Any]] = [{"name": name, "id": 100 + row} for row in range(rows)]
        asked = [pool.submit(finder.find, directory, **columns[n % rows]) for n in range(100)]
        wait_until(lambda: sum(each.done() for each in asked) >= 76, "the answers to most clients")
        busy = [len(each._lookups._running) for each in finder.directories._directories.values()]
        if rows == 1:
            assert finder.find(directory) is not None
        finder.directories.close()
        assert {type(each.exception(30)) for each in asked} == {DirectoryError}
    assert max(busy) <= LOOKUPS
    assert sum(busy) <= ALL_LOOKUPS


@pytest.mark.parametrize("threads", [32, 100])
def test_each_of_a_burst_at_a_healthy_directory_is_answered(
    finder: Finder, directory: Directory, threads: int
) -> None:
    finder.find(directory)
    barrier = threading.Barrier(threads)

    def find(number: int) -> Person | None:
        barrier.wait(60)
        return finder.find(directory, f"person{number:04}@example.com")

    with ThreadPoolExecutor(threads) as pool:
        people = list(pool.map(find, range(threads)))
    assert people == [Person(f"person{n:04}", f"Person {n}") for n in range(threads)]


def outages(logged: pytest.LogCaptureFixture) -> list[str]:
    """Return what the log tells of outages, in order."""
    words = ("fails", "answers again")
    messages = [
        record.getMessage()
        for record in logged.records
        if record.name.startswith("automx.directory")
    ]
    return [word for message in messages for word in words if f" {word}" in message]


NONSENSE = {
    "http": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "smtp": b"220 smtp.example.com ESMTP\r\n",
    "alert of TLS": b"\x15\x03\x01\x00\x02\x02\x28",
    "zeros": b"\x00" * 100,
    "ones": b"\xff" * 100,
    "empty message": b"\x30\x00",
    "length without end": b"\x30\x80\x00\x00",
    "length of 2 GB": b"\x30\x84\x7f\xff\xff\xff\x02\x01\x01",
    "length of 16 EB": b"\x30\x88\xff\xff\xff\xff\xff\xff\xff\xff\x02\x01\x01",
    "cut in a number": b"\x30\x02\x02\x01",
    "number only": b"\x30\x03\x02\x01\x01",
    "text beyond its end": b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x05",
    "answer to another request": b"\x30\x0c\x02\x01\x63\x61\x07\x0a\x01\x00\x04\x00\x04\x00",
    "end of a search": b"\x30\x0c\x02\x01\x01\x65\x07\x0a\x01\x00\x04\x00\x04\x00",
    "unknown result": b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x7f\x04\x00\x04\x00",
    "notice of disconnection": b"\x30\x0c\x02\x01\x00\x78\x07\x0a\x01\x34\x04\x00\x04\x00",
    "referral to nowhere": b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x0a\x04\x00\x04\x00",
}


@pytest.mark.parametrize("use_ssl", [False, True])
@pytest.mark.parametrize("what", NONSENSE)
def test_a_host_that_talks_nonsense_is_an_outage(
    make_finder: MakeFinder, directory: Directory, what: str, use_ssl: bool
) -> None:
    finder = make_finder(timeout=QUICK, starttls="no")
    with dripping_socket(NONSENSE[what], seconds=0) as port:
        columns: dict[str, Any] = {"name": f"127.0.0.1:{port}", "use_ssl": use_ssl}
        fails(lambda: finder.find(directory, **columns), within=QUICK)


# Connections


def test_connections_are_used_again(finder: Finder, directory: Directory) -> None:
    for number in range(100):
        assert finder.find(directory, f"person{number:04}@example.com") is not None
    assert directory.binds == 1


@pytest.mark.parametrize("encryption", ["none", "starttls", "ldaps"])
def test_threads_share_a_few_connections(
    make_finder: MakeFinder,
    secure: Finder,
    directory: Directory,
    encryption: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A busy machine is no silent directory.
    monkeypatch.setattr(lookups, "STALL_SECONDS", 60)
    columns = ldaps(directory) if encryption == "ldaps" else {}
    finder = make_finder(starttls="no") if encryption == "none" else secure

    def find(number: int) -> Person | None:
        return finder.find(directory, f"person{number:04}@example.com", **columns)

    with ThreadPoolExecutor(16) as pool:
        people = list(pool.map(find, range(400)))
    assert people == [Person(f"person{n:04}", f"Person {n}") for n in range(400)]
    assert directory.binds <= 4


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("encryption", ["none", "starttls", "ldaps"])
def test_a_restart_of_the_directory_is_not_noticed(
    make_finder: MakeFinder,
    secure: Finder,
    directory: Directory,
    encryption: str,
    sig: signal.Signals,
    logged: pytest.LogCaptureFixture,
) -> None:
    columns = ldaps(directory) if encryption == "ldaps" else {}
    finder = make_finder(starttls="no") if encryption == "none" else secure
    for _ in range(3):
        assert finder.find(directory, **columns) == ALICES_PERSON
        directory.restart(sig)
        assert finder.find(directory, **columns) == ALICES_PERSON
    assert outages(logged) == []


def test_a_connection_that_the_directory_closes_when_idle_is_replaced(
    finder: Finder, make_directory: MakeDirectory, logged: pytest.LogCaptureFixture
) -> None:
    directory = make_directory(options=["idletimeout 1"])
    assert finder.find(directory) == ALICES_PERSON
    wait_until(lambda: "closed (idletimeout)" in directory.log, "closing an idle connection")
    assert finder.find(directory) == ALICES_PERSON
    assert outages(logged) == []


def test_a_changed_row_takes_effect_and_gives_up_the_old_connections(
    finder: Finder, directory: Directory
) -> None:
    assert finder.find(directory) == ALICES_PERSON
    assert finder.find(directory, attr_uid="cn") == Person("Alice Example", "Alice Example")
    fails(lambda: finder.find(directory, bind_password="changed"), within=3)
    assert finder.find(directory) == ALICES_PERSON
    wait_until(lambda: directory.count("closed") >= 3, "closing the old connections")


@pytest.mark.alone
def test_stopping_and_starting_a_directory_under_load_harms_no_answer(
    make_finder: MakeFinder, directory: Directory, logged: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    finder = make_finder(clock, starttls="no", timeout=QUICK)
    ended = threading.Event()
    counts = {"found": 0, "failed": 0}
    slowest = 0.0

    def load() -> list[object]:
        nonlocal slowest
        wrong: list[object] = []
        while not ended.is_set():
            start = time.monotonic()
            try:
                person = finder.find(directory)
            except DirectoryError:
                counts["failed"] += 1
                ended.wait(0.01)
            else:
                counts["found"] += 1
                if person != ALICES_PERSON:
                    wrong.append(person)
            slowest = max(slowest, time.monotonic() - start)
        return wrong

    def more(word: str) -> None:
        reached = counts[word] + 50
        wait_until(lambda: counts[word] >= reached, f"50 more look-ups that are {word}")

    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(load) for _ in range(8)]
        try:
            more("found")
            for sig in (signal.SIGTERM, signal.SIGKILL):
                directory.stop(sig)
                more("failed")
                directory.start()
                clock.time += RETRY_SECONDS
                more("found")
        finally:
            ended.set()
        assert [result.result(30) for result in results] == [[]] * 8
    assert slowest < QUICK + GRACE
    assert outages(logged) == ["fails", "answers again"] * 2


# Several hosts


def test_a_dead_host_is_passed_over_and_tried_again_later(
    make_finder: MakeFinder, make_directory: MakeDirectory, logged: pytest.LogCaptureFixture
) -> None:
    first, second = make_directory(), make_directory(host="127.0.0.2")
    name = f"127.0.0.1:{first.port}, 127.0.0.2:{second.port}"
    clock = Clock()
    finder = make_finder(clock, starttls="no")
    assert finder.find(first, name=name) == ALICES_PERSON
    assert second.searches == 0
    first.stop(signal.SIGKILL)
    for _ in range(3):
        assert finder.find(first, name=name) == ALICES_PERSON
    assert second.searches == 3
    first.start()
    assert finder.find(first, name=name) == ALICES_PERSON
    assert second.searches == 4  # not yet
    clock.time += RETRY_SECONDS
    searches = first.searches

    def first_answers() -> bool:
        assert finder.find(first, name=name) == ALICES_PERSON
        return first.searches > searches

    wait_until(first_answers, "using the first host again")
    assert outages(logged) == ["fails", "answers again"]


@pytest.mark.alone
def test_a_host_that_is_silent_does_not_use_up_the_time_of_the_next(
    make_finder: MakeFinder, directory: Directory, logged: pytest.LogCaptureFixture
) -> None:
    finder = make_finder(timeout=2, starttls="no")
    with silent_socket() as port:
        name = f"127.0.0.1:{port} 127.0.0.1:{directory.port}"
        start = time.monotonic()
        assert finder.find(directory, name=name) == ALICES_PERSON
        waited = time.monotonic() - start
        assert waited < 2
        start = time.monotonic()
        assert finder.find(directory, name=name) == ALICES_PERSON
        assert time.monotonic() - start < waited / 2  # it is not waited for again
    assert outages(logged) == ["fails"]


@pytest.mark.parametrize("use_ssl", [False, True])
def test_a_host_that_drips_harms_one_look_up_at_most(
    make_finder: MakeFinder, directory: Directory, directories: DirectoryMaker, use_ssl: bool
) -> None:
    ca_file = str(directories.authority.root)
    finder = make_finder(timeout=QUICK, starttls="no", ca_file=ca_file)
    with dripping_socket(DRIPS[use_ssl]) as port:
        good = directory.tls_port if use_ssl else directory.port
        name = f"127.0.0.1:{port} 127.0.0.1:{good}"
        with contextlib.suppress(DirectoryError):
            finder.find(directory, name=name, use_ssl=use_ssl)
        for _ in range(10):
            assert finder.find(directory, name=name, use_ssl=use_ssl) == ALICES_PERSON


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_the_second_host_answers_when_the_first_dies_with_open_connections(
    make_finder: MakeFinder,
    make_directory: MakeDirectory,
    sig: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # On a busy machine, all that wait for their turn would give up.
    monkeypatch.setattr(lookups, "STALL_SECONDS", 60)
    monkeypatch.setattr(lookups, "BRIEF_SECONDS", 60)
    first, second = make_directory(), make_directory(host="127.0.0.2")
    name = f"127.0.0.1:{first.port} 127.0.0.2:{second.port}"
    finder = make_finder(starttls="no", timeout=30)

    def find(number: int) -> Person | None:
        return finder.find(first, f"person{number:04}@example.com", name=name)

    with ThreadPoolExecutor(8) as pool:
        assert None not in pool.map(find, range(200))
        first.stop(sig)
        assert None not in pool.map(find, range(200, 400))


def test_all_hosts_dead_is_an_outage_that_is_told_once_for_each_and_then_over(
    make_finder: MakeFinder, make_directory: MakeDirectory, logged: pytest.LogCaptureFixture
) -> None:
    first, second = make_directory(), make_directory(host="127.0.0.2")
    name = f"127.0.0.1:{first.port} 127.0.0.2:{second.port}"
    clock = Clock()
    finder = make_finder(clock, starttls="no", timeout=QUICK)
    first.stop()
    second.stop()
    for _ in range(20):
        fails(lambda: finder.find(first, name=name), within=QUICK)
        clock.time += RETRY_SECONDS / 3
    assert outages(logged) == ["fails", "fails"]
    second.start()
    clock.time += RETRY_SECONDS
    assert finder.find(first, name=name) == ALICES_PERSON
    first.start()
    clock.time += RETRY_SECONDS

    def is_over() -> bool:
        assert finder.find(first, name=name) == ALICES_PERSON
        return len(outages(logged)) == 4

    wait_until(is_over, "using both hosts again")
    assert outages(logged) == ["fails", "fails", "answers again", "answers again"]


def test_one_host_by_ldaps_and_one_without_can_stand_in_a_row(
    secure: Finder, make_directory: MakeDirectory
) -> None:
    first, second = make_directory(), make_directory()
    name = f"ldaps://localhost:{first.tls_port}, ldap://127.0.0.1:{second.port}"
    assert secure.find(first, name=name) == ALICES_PERSON
    first.stop()
    assert secure.find(first, name=name) == ALICES_PERSON
    assert second.count("TLS established") == 1


def test_a_wrong_password_at_one_host_leaves_the_other(
    finder: Finder, make_directory: MakeDirectory
) -> None:
    first, second = make_directory(), make_directory(host="127.0.0.2")
    reader = (
        f"dn: {OPENLDAP.reader}\nchangetype: modify\nreplace: userPassword\nuserPassword: new\n"
    )
    first.change(OPENLDAP, reader)
    name = f"127.0.0.1:{first.port} 127.0.0.2:{second.port}"
    assert finder.find(first, name=name) == ALICES_PERSON


def test_a_read_only_replica_answers_like_any_other_directory(
    finder: Finder, make_directory: MakeDirectory
) -> None:
    provider = make_directory()
    replica = make_directory(replica_of=provider)
    name = f"127.0.0.1:{replica.port} 127.0.0.1:{provider.port}"
    assert finder.find(replica, name=name) == ALICES_PERSON
    change = "changetype: modify\nreplace: cn\ncn: Alice Married\n"
    provider.change(OPENLDAP, f"dn: uid=alice,ou=people,dc=example,dc=com\n{change}")

    def is_replicated() -> bool:
        return finder.find(replica, name=name) == Person("alice", "Alice Married")

    wait_until(is_replicated, "replicating a change")
    provider.stop()
    assert finder.find(replica, name=name) == Person("alice", "Alice Married")


def test_a_database_that_refuses_changes_answers(
    finder: Finder, make_directory: MakeDirectory
) -> None:
    directory = make_directory(tree_options=["readonly on"])
    assert finder.find(directory) == ALICES_PERSON


# The memory


def test_answers_are_remembered_for_a_while_whether_found_or_not(
    make_finder: MakeFinder, directory: Directory
) -> None:
    clock = Clock()
    finder = make_finder(clock, starttls="no", cache_seconds=60)
    for _ in range(3):
        for address in ("alice@example.com", "alice@EXAMPLE.com", "alice@Example.Com"):
            assert finder.find(directory, address) == ALICES_PERSON
        assert finder.find(directory, "nobody@example.com") is None
        assert finder.find(directory, "twins@example.com") is None
    assert directory.searches == 3
    clock.time += 59
    finder.find(directory)
    assert directory.searches == 3
    clock.time += 2
    assert finder.find(directory) == ALICES_PERSON
    assert finder.find(directory, "nobody@example.com") is None
    assert directory.searches == 5


def test_the_spelling_of_a_stranger_is_not_in_the_login_name_that_others_get(
    make_finder: MakeFinder, shared_directory: Directory
) -> None:
    finder = make_finder(starttls="no", cache_seconds=60)
    found = {
        address: finder.find(shared_directory, address, login_name="{local}/{uid}")
        for address in ("ALICE@example.com", "alice@example.com")
    }
    assert found == {
        "ALICE@example.com": Person("ALICE/alice", "Alice Example"),
        "alice@example.com": Person("alice/alice", "Alice Example"),
    }


def test_the_memory_is_bounded(make_finder: MakeFinder, directory: Directory) -> None:
    finder = make_finder(starttls="no", cache_seconds=60, cache_size=10)
    for number in range(50):
        finder.find(directory, f"person{number:04}@example.com")
    assert directory.searches == 50
    for number in range(40, 50):
        finder.find(directory, f"person{number:04}@example.com")
    assert directory.searches == 50
    finder.find(directory, "person0000@example.com")
    assert directory.searches == 51


@pytest.mark.parametrize("options", [{"cache_seconds": 0}, {"cache_size": 0}])
def test_the_memory_can_be_switched_off(
    make_finder: MakeFinder, directory: Directory, options: dict[str, Any]
) -> None:
    finder = make_finder(**{"starttls": "no", "cache_seconds": 60} | options)
    for _ in range(3):
        finder.find(directory)
    assert directory.searches == 3


def test_each_row_has_answers_of_its_own(make_finder: MakeFinder, directory: Directory) -> None:
    finder = make_finder(starttls="no", cache_seconds=60)
    assert finder.find(directory, id=3) == ALICES_PERSON
    assert finder.find(directory, id=4, attr_uid="sn") == Person("Example", "Alice Example")
    assert finder.find(directory, id=3) == ALICES_PERSON
    assert finder.find(directory, id=3, attr_uid="employeeNumber") == Person("E1", "Alice Example")
    assert directory.searches == 3


def test_an_outage_is_not_remembered_as_an_answer(
    make_finder: MakeFinder, directory: Directory
) -> None:
    clock = Clock()
    finder = make_finder(clock, starttls="no", cache_seconds=60)
    assert finder.find(directory) == ALICES_PERSON
    directory.stop()
    fails(lambda: finder.find(directory, "person0001@example.com"), within=0.1)
    assert finder.find(directory) == ALICES_PERSON  # from memory, while that lasts
    directory.start()
    clock.time += RETRY_SECONDS
    assert finder.find(directory, "person0001@example.com") == Person("person0001", "Person 1")


def test_freeipa_s_entries_are_read(finder: Finder, shared_directory: Directory) -> None:
    person = finder.find(
        shared_directory, "alice@example.org", tree=FREEIPA, attr_uid="krbPrincipalName"
    )
    assert person == Person("alice@IPA.EXAMPLE.ORG", "Alice Example")
