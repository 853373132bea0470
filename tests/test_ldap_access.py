"""How automx proves to directories who it is, where it searches, and what login names it makes."""

import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from automx.address import EmailAddress
from automx.config import DirectorySettings
from automx.directory.connection import Host, TlsMode
from automx.directory.ldap import hosts
from automx.directory.person import DirectoryError, Person
from automx.directory.pool import Directories
from automx.errors import SettingsError
from automx.rows import BadRowError, ldap_server
from tests.commandline import attempt
from tests.conftest import Execute
from tests.directory import (
    ACTIVE_DIRECTORY,
    OPENLDAP,
    Directory,
    MakeDirectory,
    insert_ldapserver,
    ldapserver_columns,
)
from tests.directory import Directories as DirectoryMaker
from tests.processes import program
from tests.tls import Certificate

ALICE = EmailAddress("alice", "example.com")
ALICES_PERSON = Person("alice", "Alice Example")
WITHOUT_PASSWORD: dict[str, Any] = {"bind_user": None, "bind_password": None}


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Keep everything that is logged."""
    caplog.set_level(logging.DEBUG, "automx")
    return caplog


MakeFind = Callable[..., Callable[..., Person | None]]


@pytest.fixture
def make_find(directories: DirectoryMaker) -> Iterator[MakeFind]:
    """Make a look-up; keyword arguments are settings."""
    made: list[Directories] = []

    def make(**options: Any) -> Callable[..., Person | None]:
        options = {"ca_file": str(directories.authority.root), "starttls": "no"} | options
        made.append(Directories(DirectorySettings(cache_seconds=0, **options)))

        def find(
            directory: Directory, address: EmailAddress = ALICE, **columns: Any
        ) -> Person | None:
            return made[-1].find(ldap_server(ldapserver_columns(directory, **columns)), address)

        return find

    yield make
    for one in made:
        one.close()


@pytest.fixture
def find(make_find: MakeFind) -> Callable[..., Person | None]:
    """Look up people without TLS."""
    return make_find()


# Sockets


def peer() -> str:
    """Return how slapd calls this process at its socket."""
    return f"gidNumber={os.getgid()}+uidNumber={os.getuid()},cn=peercred,cn=external,cn=auth"


@pytest.mark.parametrize("form", ["ldapi://{escaped}", "ldapi://{path}", "LDAPI://{escaped}/"])
def test_a_socket_knows_automx_by_its_user(
    find: Callable[..., Person | None], make_directory: MakeDirectory, form: str
) -> None:
    directory = make_directory(access=[f'access to * by dn.exact="{peer()}" read'])
    path = str(directory.socket)
    name = form.format(path=path, escaped=path.replace("/", "%2F"))
    assert find(directory, name=name, **WITHOUT_PASSWORD) == ALICES_PERSON
    assert 'BIND dn="" method=163' in directory.log  # SASL
    assert "mech=EXTERNAL" in directory.log
    with pytest.raises(DirectoryError):  # the rule is for this user, not for everybody
        find(directory, **WITHOUT_PASSWORD)


def test_a_socket_takes_a_name_and_a_password_too(
    find: Callable[..., Person | None], directory: Directory
) -> None:
    assert find(directory, name=f"ldapi://{directory.socket}") == ALICES_PERSON
    assert f'BIND dn="{OPENLDAP.reader}" method=128' in directory.log


def test_a_socket_needs_no_tls_and_can_stand_beside_hosts(
    make_find: MakeFind, make_directory: MakeDirectory, logged: pytest.LogCaptureFixture
) -> None:
    first, second = make_directory(), make_directory()
    name = f"ldapi://{first.socket} ldaps://localhost:{second.tls_port}"
    find = make_find(starttls="yes")
    assert find(first, name=name) == ALICES_PERSON
    first.stop()
    assert find(first, name=name) == ALICES_PERSON
    assert second.searches == 1
    assert f"ldapserver 3: ldapi://{first.socket} fails: " in logged.text


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("ldapi:///", "/var/run/slapd/ldapi"),
        ("ldapi://", "/var/run/slapd/ldapi"),
        ("ldapi://%2Frun%2Fmy%20ldapi", "/run/my ldapi"),
        ("ldapi://%2frun%2fa%2Cb/", "/run/a,b"),
        ("ldapi:///run/ldapi", "/run/ldapi"),
    ],
)
def test_a_socket_is_named_as_openldap_names_it(name: str, path: str) -> None:
    row = ROW | {"name": name}
    assert hosts(ldap_server(row), DirectorySettings()) == [Host(path, 0, TlsMode.SOCKET)]


ROW: dict[str, Any] = {
    "id": 3,
    "name": "ldap.example.com",
    "port": 389,
    "use_ssl": False,
    "search_base": "dc=example,dc=com",
    "search_filter": "(mail={0})",
    "attr_uid": "uid",
    "attr_cn": "cn",
    "bind_user": None,
    "bind_password": None,
    "login_name": None,
}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("name", "ldapi://run/ldapi"),
        ("name", "ldapi://%2Frun%2F%FFldapi"),
        ("name", "ldapi://%2Frun%0Aldapi"),
        ("name", f"ldapi://%2F{'x' * 107}"),
        ("search_base", "dc=a;"),
        ("search_base", ";dc=a"),
        ("search_base", "dc=a;;dc=b"),
        ("search_base", "x" * 1025),
        ("search_filter", f"(mail={{0}}{'x' * 505})"),
        ("login_name", "CORP"),
        ("login_name", "{cn}"),
        ("login_name", "{uid"),
        ("login_name", "{uid} {mail}"),
        ("login_name", "{uid}@%EMAILDOMAIN%"),
        ("login_name", "{uid}\x00"),
        ("login_name", "{uid}" + "x" * 124),
    ],
)
def test_a_bad_value_is_named(column: str, value: str) -> None:
    with pytest.raises(BadRowError, match=rf"\A{column}: expected "):
        ldap_server(ROW | {column: value})


# Client certificates


@pytest.fixture
def client(directories: DirectoryMaker) -> Certificate:
    """A certificate of automx."""
    return directories.authority.issue("automx.test", client="automx")


@pytest.fixture
def strict(make_directory: MakeDirectory, directories: DirectoryMaker) -> Directory:
    """A directory that talks to holders of a certificate only."""
    return make_directory(
        options=[f"TLSCACertificateFile {directories.authority.root}", "TLSVerifyClient demand"],
        access=['access to * by dn.exact="cn=automx" read'],
    )


@pytest.mark.parametrize("encryption", ["LDAPS", "StartTLS"])
@pytest.mark.parametrize("files", ["one", "two"])
def test_a_directory_knows_automx_by_its_certificate(
    make_find: MakeFind,
    strict: Directory,
    client: Certificate,
    tmp_path: Path,
    encryption: str,
    files: str,
) -> None:
    if files == "one":
        both = tmp_path / "both.pem"
        both.write_bytes(client.certificate.read_bytes() + client.key.read_bytes())
        options: dict[str, Any] = {"client_certificates": {3: str(both)}}
    else:
        options = {"client_certificates": {3: str(client.certificate)}}
        options["client_keys"] = {3: str(client.key)}
    is_ldaps = encryption == "LDAPS"
    host = f"ldaps://localhost:{strict.tls_port}" if is_ldaps else f"0.0.0.0:{strict.port}"
    find = make_find(starttls="yes", **options)
    assert find(strict, name=host, **WITHOUT_PASSWORD) == ALICES_PERSON
    assert 'BIND authcid="cn=automx"' in strict.log
    # It is the certificate of this row only.
    with pytest.raises(DirectoryError):
        find(strict, id=4, name=host, **WITHOUT_PASSWORD)


def test_a_certificate_and_a_password_may_both_be_wanted(
    make_find: MakeFind,
    make_directory: MakeDirectory,
    directories: DirectoryMaker,
    client: Certificate,
) -> None:
    demand = [f"TLSCACertificateFile {directories.authority.root}", "TLSVerifyClient demand"]
    directory = make_directory(options=demand)
    files = {3: str(client.certificate)}, {3: str(client.key)}
    find = make_find(client_certificates=files[0], client_keys=files[1])
    assert find(directory, name=f"ldaps://localhost:{directory.tls_port}") == ALICES_PERSON
    assert f'BIND dn="{OPENLDAP.reader}" method=128' in directory.log


def test_without_encryption_no_certificate_is_shown(
    make_find: MakeFind, make_directory: MakeDirectory, client: Certificate
) -> None:
    directory = make_directory(anonymous=True)
    files = {3: str(client.certificate)}, {3: str(client.key)}
    find = make_find(client_certificates=files[0], client_keys=files[1])
    assert find(directory, **WITHOUT_PASSWORD) == ALICES_PERSON
    assert "method=163" not in directory.log


@pytest.mark.parametrize("defect", ["no key", "key of another", "encrypted key", "empty"])
def test_a_certificate_that_cannot_be_used_is_told_at_the_start(
    directories: DirectoryMaker, client: Certificate, tmp_path: Path, defect: str
) -> None:
    certificate, key = client.certificate, client.key
    if defect == "no key":
        keys = {}
    elif defect == "key of another":
        keys = {3: str(directories.authority.issue("x.test", client="x").key)}
    elif defect == "encrypted key":
        locked = tmp_path / "locked.key"
        command: list[str | Path] = [program("openssl", "openssl"), "pkcs8", "-topk8", "-in", key]
        command += ["-out", locked, "-passout", "pass:hush"]
        subprocess.run(command, check=True, capture_output=True)
        keys = {3: str(locked)}
    else:
        certificate, keys = tmp_path / "empty.pem", {}
        certificate.touch()
    with pytest.raises(SettingsError, match=f"ldap_client_certificate_file: {certificate}"):
        Directories(DirectorySettings(client_certificates={3: str(certificate)}, client_keys=keys))


# Search bases and filters


def test_several_bases_are_searched_in_one_look_up(
    find: Callable[..., Person | None], directory: Directory
) -> None:
    bases = "ou=services,dc=example,dc=com; ou=people,dc=example,dc=com"
    assert find(directory, search_base=bases) == ALICES_PERSON
    assert directory.searches == 2
    assert directory.binds == 1
    nobody = EmailAddress("nobody", "example.com")
    assert find(directory, nobody, search_base=bases) is None


def test_an_entry_below_two_bases_is_one_entry_and_two_entries_are_not(
    find: Callable[..., Person | None], directory: Directory
) -> None:
    nested = "ou=people,dc=example,dc=com; dc=example,dc=com"
    assert find(directory, search_base=nested) == ALICES_PERSON
    other = OPENLDAP.entries[3][0]
    directory.change(OPENLDAP, f"dn: {other}\nchangetype: modify\nadd: seeAlso\nseeAlso: {other}\n")
    both = "(|(mail={0})(seeAlso=cn=automx,ou=services,dc=example,dc=com))"
    apart = "ou=services,dc=example,dc=com; ou=people,dc=example,dc=com"
    assert find(directory, search_base=apart, search_filter=both) is None


def test_a_base_that_does_not_exist_is_an_outage_beside_others_too(
    find: Callable[..., Person | None], directory: Directory, logged: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DirectoryError):
        find(directory, search_base="ou=people,dc=example,dc=com;ou=gone,dc=example,dc=com")
    assert "noSuchObject" in logged.text


@pytest.mark.parametrize(
    ("text", "bases"),
    [
        ("dc=example,dc=com", ("dc=example,dc=com",)),
        ("", ("",)),
        ("dc=a;dc=b", ("dc=a", "dc=b")),
        (r" o=A\; B ; o=C\\; o=D\ ", (r"o=A\; B", r"o=C\\", "o=D\\ ")),
    ],
)
def test_a_semicolon_in_a_value_is_escaped(text: str, bases: tuple[str, ...]) -> None:
    assert ldap_server(ROW | {"search_base": text}).search_bases == bases


# Login names


@pytest.mark.parametrize(
    ("template", "login_name"),
    [
        (r"CORP\{uid}", r"CORP\aexample"),
        ("{uid}@corp.example.net", "aexample@corp.example.net"),
        ("{uid}*{local}+{domain} {0}", "aexample*alice+example.net alice@example.net"),
        ("{uid}", "aexample"),
        (None, "aexample"),
    ],
)
def test_a_login_name_is_made_of_what_the_directory_holds(
    find: Callable[..., Person | None],
    shared_directory: Directory,
    template: str | None,
    login_name: str,
) -> None:
    columns: dict[str, Any] = {"tree": ACTIVE_DIRECTORY, "attr_uid": "sAMAccountName"}
    columns |= {"attr_cn": "displayName", "login_name": template}
    alice = EmailAddress("alice", "example.net")
    assert find(shared_directory, alice, **columns) == Person(login_name, "Alice Example")


def test_without_a_value_there_is_no_login_name(
    find: Callable[..., Person | None], shared_directory: Directory
) -> None:
    for name in ("nothing", "placeholder", "private"):
        address = EmailAddress(name, "example.com")
        found = find(shared_directory, address, login_name=r"CORP\{uid}", attr_cn=None)
        assert found == Person("", "")


def test_an_address_with_a_placeholder_makes_no_login_name_that_clients_expand(
    find: Callable[..., Person | None], directory: Directory
) -> None:
    odd = EmailAddress("%EMAILDOMAIN%", "example.com")
    template = "{uid}.{local}"
    found = find(directory, odd, search_filter="(|(uid=alice)(mail={0}))", login_name=template)
    assert found == Person("", "Alice Example")


# By the tables


LONG = "(|" + "".join(f"(proxyAddresses=smtp{i}:{{0}})" for i in range(12)) + "(mail={0}))"


def test_the_table_of_details_takes_the_place_of_automx2_s_columns(
    make_app: Callable[..., Flask], execute: Execute, example: None, directory: Directory
) -> None:
    assert 128 < len(LONG) <= 512
    gone = {"search_base": "dc=gone", "search_filter": "(cn={0})", "attr_uid": "sAMAccountName"}
    execute(insert_ldapserver(directory, tree=ACTIVE_DIRECTORY, **gone))
    execute("UPDATE domain SET ldapserver_id = 3")
    bases = "OU=Services,dc=corp,dc=example,dc=net; OU=Staff,dc=corp,dc=example,dc=net"
    execute(f"INSERT INTO ldapserver_detail VALUES (3, '{bases}', '{LONG}', 'CORP\\{{uid}}')")
    execute("UPDATE domain SET name = 'example.net'")
    client = make_app(ldap_starttls="no").test_client()
    query = {"emailaddress": "alice@example.net"}
    response = client.get("/mail/config-v1.1.xml", query_string=query)
    assert response.status_code == 200
    assert "<username>CORP\\aexample</username>" in response.text
    assert directory.searches == 2
    # Empty is as good as NULL.
    execute("UPDATE ldapserver_detail SET search_base = '', search_filter = '', login_name = ''")
    execute(
        "UPDATE ldapserver SET search_base = 'dc=corp,dc=example,dc=net',"
        " search_filter = '(mail={0})'"
    )
    response = (
        make_app(ldap_starttls="no").test_client().get("/mail/config-v1.1.xml", query_string=query)
    )
    assert "<username>aexample</username>" in response.text


# automx ldap test


def test_automx_ldap_test_says_how_it_logged_in(
    database: Path, execute: Execute, example: None, make_directory: MakeDirectory
) -> None:
    directory = make_directory(access=[f'access to * by dn.exact="{peer()}" read'])
    execute(insert_ldapserver(directory, name=f"ldapi://{directory.socket}", **WITHOUT_PASSWORD))
    execute("UPDATE domain SET ldapserver_id = 3")
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}
    tested = attempt("ldap", "test", "alice@example.com", env=env)
    assert tested.returncode == 0, tested.stdout
    for words in (
        f"Host ldapi://{directory.socket} socket of this machine",
        "Bind       ok, as SASL EXTERNAL",
        "login name alice",
    ):
        assert words in tested.stdout
