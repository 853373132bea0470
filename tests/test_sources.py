"""Sources that are no databases: directories, programs, files, mailcow; and what fails there."""

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from automx.backends.keys import ProcessMemory
from automx.config import Settings, SourceSettings, make
from automx.sources import read
from automx.sources.found import Domains, FoundDomain, Problem, SourceError
from tests.directory import (
    DOMAINS,
    IREDMAIL,
    PASSWORD,
    Directories,
    Directory,
    MakeDirectory,
    dripping_socket,
    silent_socket,
)
from tests.mailcow import Domain, FakeMailcow, Key, Reply, running_mailcow

SETTINGS = make(db_uri="sqlite:///unused")


def found(settings: Settings = SETTINGS, **values: Any) -> Domains:
    return read(SourceSettings(name="mail", **values), settings, ProcessMemory())


def error(settings: Settings = SETTINGS, **values: Any) -> str:
    with pytest.raises(SourceError) as caught:
        found(settings, **values)
    return str(caught.value.cause)


# Directories.

# slapd gives 500 entries to an account that is not named by "limits".
UNLIMITED = [f'limits dn.exact="{IREDMAIL.reader}" size=unlimited']
BASE = f"o=domains,{IREDMAIL.suffix}"


@pytest.fixture(scope="module")
def mail_directory(directories: Directories) -> Iterator[Directory]:
    with directories.running(tree_options=UNLIMITED) as directory:
        yield directory


def ldap(uri: str, **values: Any) -> dict[str, Any]:
    return {
        "type": "ldap",
        "preset": "iredmail-ldap",
        "uri": uri,
        "search_base": BASE,
        "bind_user": IREDMAIL.reader,
        "bind_password": PASSWORD,
        **values,
    }


def test_domains_of_a_directory_are_read_in_pages(mail_directory: Directory) -> None:
    answer = found(**ldap(mail_directory.uri))
    many = {f"d{number:03}.example" for number in range(DOMAINS)}
    assert {name: one for name, one in answer.by_label.items() if name not in many} == {
        "one.example": FoundDomain("one.example"),
        "alias.example": FoundDomain("alias.example", alias_of="one.example"),
        "other.example": FoundDomain("other.example", alias_of="one.example"),
        "off.example": FoundDomain("off.example", is_active=False),
        "idle.example": FoundDomain("idle.example", is_active=False, alias_of="off.example"),
    }
    assert many < answer.by_label.keys()
    assert answer.problems == []


def test_an_own_search_has_own_attributes_and_several_bases(mail_directory: Directory) -> None:
    answer = found(
        **ldap(
            mail_directory.uri,
            preset="",
            search_base=f"domainName=one.example,{BASE}; domainName=off.example,{BASE}",
            search_filter="(objectClass=mailDomain)",
            attributes={"domain": "domainAliasName", "like": "domainName"},
        )
    )
    assert answer.by_label == {
        "alias.example": FoundDomain("alias.example", like="one.example"),
        "other.example": FoundDomain("other.example", like="one.example"),
        "idle.example": FoundDomain("idle.example", like="off.example"),
    }


def test_the_next_host_is_asked_if_one_does_not_answer(mail_directory: Directory) -> None:
    with silent_socket() as port:
        uri = f"ldap://127.0.0.1:{port} {mail_directory.uri}"
        assert found(**ldap(uri, timeout=4.0)).by_label


def test_a_directory_that_gives_only_a_part_is_an_error(shared_directory: Directory) -> None:
    text = error(**ldap(shared_directory.uri))
    assert text == (
        f"{shared_directory.host}:{shared_directory.port}: it gives no more than 500 entries to"
        f" {IREDMAIL.reader}: its limit must be raised"
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"bind_password": "wrong"}, "invalidCredentials; see bind_user and bind_password"),
        ({"bind_password": ""}, "bind; bind_password is missing"),
        ({"bind_user": ""}, "noSuchObject; see search_base, and what bind_user may read"),
        ({"search_base": "o=nowhere,dc=mail,dc=example,dc=org"}, "noSuchObject; see search_base"),
        ({"search_base": "nowhere"}, "invalidDNSyntax; see search_base: a name such as"),
        ({"search_filter": "(objectClass="}, "invalid filter; see search_filter: a filter such"),
    ],
)
def test_a_directory_that_refuses_is_named_without_the_password(
    mail_directory: Directory, values: dict[str, Any], expected: str
) -> None:
    text = error(**ldap(mail_directory.uri, **values))
    assert text.startswith(f"{mail_directory.host}:{mail_directory.port}: ")
    assert expected in text
    assert "wrong" not in text


def test_an_attribute_that_no_entry_shows_is_an_error(mail_directory: Directory) -> None:
    text = error(**ldap(mail_directory.uri, attributes={"domain": "domainNames"}))
    assert re.fullmatch(r"none of \d+ entries shows the attribute domainNames: see .*", text)


@pytest.mark.parametrize("uri", ["http://127.0.0.1", "127.0.0.1:99999", "ldap://a/b"])
def test_what_is_no_host_of_a_directory_is_told(uri: str) -> None:
    assert error(**ldap(uri)) == (
        f"uri: {uri} is no host of a directory, such as ldaps://ldap.example.com"
    )


def test_a_silent_directory_is_given_up_after_its_time() -> None:
    with silent_socket() as port:
        began = time.monotonic()
        text = error(**ldap(f"ldap://127.0.0.1:{port}", timeout=0.5))
        assert time.monotonic() - began < 20
    assert text == f"127.0.0.1:{port}: no answer in time"


# A message of RFC 4511: a bind that succeeded.
BOUND = bytes.fromhex("300c02010161070a010004000400")


@pytest.mark.parametrize(
    ("octets", "pause"),
    [
        pytest.param(b"\x30\x84\x7f\xff\xff\xff" + bytes(5_000), 0.005, id="a huge answer"),
        pytest.param(BOUND, 0.2, id="an octet now and then"),
    ],
)
def test_a_directory_that_never_ends_is_given_up_after_its_time(
    octets: bytes, pause: float
) -> None:
    with dripping_socket(octets, seconds=pause) as port:
        began = time.monotonic()
        text = error(**ldap(f"ldap://127.0.0.1:{port}", timeout=1.0))
        assert time.monotonic() - began < 20
    assert text == f"127.0.0.1:{port}: no answer in time"


def test_a_directory_that_is_killed_in_the_middle_is_an_error(
    make_directory: MakeDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from automx.directory import connection

    directory = make_directory(tree_options=UNLIMITED)
    pages: list[object] = []
    search = connection.Connection._limit

    def stop_at_the_third_page(self: connection.Connection, deadline: float) -> None:
        pages.append(self)
        if len(pages) == 4:  # after the bind and two pages
            directory.stop()
        search(self, deadline)

    monkeypatch.setattr(connection.Connection, "_limit", stop_at_the_third_page)
    monkeypatch.setattr(connection, "_PAGE", 100)
    assert error(**ldap(directory.uri)).startswith(f"{directory.host}:{directory.port}: ")
    assert len(pages) == 4


# Texts of files and programs.

EXPECTED = Domains(
    {
        "one.example": FoundDomain("one.example", provider="East"),
        "two.example": FoundDomain("two.example", is_active=False, like="one.example"),
        "xn--mller-kva.example": FoundDomain("xn--mller-kva.example", alias_of="one.example"),
    }
)
CSV = (
    "domain,active,provider,like,alias_of\r\none.example,yes,East,,\r\n"
    "two.example,0,,one.example,\r\nmüller.example,,,,one.example\r\n"
)
RECORDS = [
    {"domain": "one.example", "active": True, "provider": "East"},
    {"domain": "two.example", "active": False, "like": "One.example", "alias_of": None},
    {"domain": "müller.example", "alias_of": "one.example"},
]


@pytest.mark.parametrize(
    "content",
    [
        CSV.encode(),
        CSV.replace(",", ";").encode("utf-8-sig"),
        CSV.replace(",", "\t").encode("utf-16"),
        json.dumps(RECORDS).encode(),
        json.dumps(RECORDS, indent=2, ensure_ascii=False).encode("utf-8-sig"),
        "\n".join(map(json.dumps, RECORDS)).encode() + b"\n\n",
    ],
    ids=["csv", "semicolons", "utf-16", "json", "indented", "lines"],
)
def test_a_file_may_be_csv_or_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "domains"
    path.write_bytes(content)
    assert found(type="file", file=str(path)) == EXPECTED


def test_a_file_may_have_a_name_on_each_line(tmp_path: Path) -> None:
    path = tmp_path / "domains"
    path.write_text("# all of them\none.example\n\n  TWO.example # disabled soon\r\nmy domain\n")
    names = {name: FoundDomain(name) for name in ("one.example", "two.example")}
    problem = Problem("my domain", "it is no domain name")
    assert found(type="file", file=str(path)) == Domains(names, [problem])
    path.write_text('["one.example", "two.example"]')
    assert found(type="file", file=str(path)) == Domains(names)
    path.write_text("")
    assert found(type="file", file=str(path)) == Domains()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"domain,enabled\n", "line 1: expected a head with columns of domain, active, provider,"),
        (b"domain,active\na.example\n", "line 2: expected 2 cells, found 1 cell"),
        (
            b'[{"name": "a.example"}]',
            "expected a list of names, or of objects with a member domain",
        ),
        (b'[{"domain": "a.example", "x": 1}]', "the member x is not known; known are domain,"),
        (b"name,active\na.example,yes\n", "CSV needs a head with a column domain, a list has one"),
        (b"# all\na.example;yes\n", "CSV needs a head with a column domain, a list has one"),
        (b'["a.example", "b.exa', "line 1 is no JSON: "),
        (b'{"domain": "a.example"}\n{"domain"', "line 2 is no JSON: "),
        (b"[" * 100_000, "line 1 is no JSON: "),
        (b"\xff\xfe\xff.example", "is not UTF-8"),
    ],
)
def test_a_file_that_is_damaged_is_an_error(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "domains"
    path.write_bytes(content)
    text = error(type="file", file=str(path))
    assert text.startswith(str(path))
    assert expected in text


def test_what_is_no_file_is_an_error(tmp_path: Path) -> None:
    assert error(type="file", file=f"{tmp_path}/x").endswith(
        "cannot be read: No such file or directory"
    )
    assert error(type="file", file=str(tmp_path)) == f"{tmp_path} is no file"
    assert error(type="file", file="/dev/zero") == "/dev/zero is no file"
    os.mkfifo(tmp_path / "pipe")
    assert error(type="file", file=f"{tmp_path}/pipe") == f"{tmp_path}/pipe is no file"


def script(tmp_path: Path, text: str) -> tuple[str, ...]:
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return (str(path),)


def test_a_program_prints_the_domains(tmp_path: Path) -> None:
    (tmp_path / "csv").write_text(CSV)
    words = script(tmp_path, f'test -z "$(cat)" && test "$PWD" = / && cat {tmp_path}/csv')
    assert found(type="command", command=words) == EXPECTED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("echo one.example; echo 'no connection' >&2; exit 3", "exit status 3: no connection"),
        ("echo one.example; kill -9 $$", "killed by signal 9"),
        ("echo one.example; exec sleep 60", "was killed after 0.5 s"),
        ("exec cat /dev/zero", "wrote more than 67108864 bytes"),
        ("echo '['", "line 1 is no JSON"),
    ],
)
def test_a_program_that_fails_says_nothing(tmp_path: Path, text: str, expected: str) -> None:
    words = script(tmp_path, text)
    timeout = 0.5 if "sleep" in text else 30.0
    text = error(type="command", command=words, timeout=timeout)
    assert text.startswith(f"{words[0]}: {expected}")


# mailcow.


@pytest.fixture(scope="module")
def server() -> Iterator[FakeMailcow]:
    with running_mailcow() as mailcow:
        mailcow.keys["reader"] = Key("ro")
        yield mailcow


@pytest.fixture
def mailcow(server: FakeMailcow) -> FakeMailcow:
    server.domains = {
        "one.example": Domain(),
        "off.example": Domain(active=0),
        "backup.example": Domain(backupmx=1),
    }
    server.alias_domains = {"alias.example": "one.example", "idle.example": "one.example"}
    server.inactive_aliases = {"idle.example"}
    server.default = None
    server.requests.clear()
    return server


def cow(mailcow: FakeMailcow, **values: Any) -> dict[str, Any]:
    return {"type": "mailcow", "uri": mailcow.url, "token": "reader", **values}


def test_domains_and_aliases_of_mailcow_are_read_by_a_key_that_may_only_read(
    mailcow: FakeMailcow,
) -> None:
    assert found(**cow(mailcow)) == Domains(
        {
            "one.example": FoundDomain("one.example"),
            "off.example": FoundDomain("off.example", is_active=False),
            "alias.example": FoundDomain("alias.example", alias_of="one.example"),
            "idle.example": FoundDomain("idle.example", is_active=False, alias_of="one.example"),
        }
    )
    assert {request.method for request in mailcow.requests} == {"GET"}
    mailcow.domains, mailcow.alias_domains = {}, {}
    assert found(**cow(mailcow)) == Domains()


def test_a_mailcow_that_refuses_is_an_error_without_the_key(mailcow: FakeMailcow) -> None:
    text = error(**cow(mailcow, token="wrong-key"))
    assert "401" in text
    assert "wrong-key" not in text
    mailcow.default = Reply(200, b"")
    assert "an empty answer" in error(**cow(mailcow))
    mailcow.default = Reply(200, b'[{"name": "x"}]')
    assert error(**cow(mailcow)) == "mailcow: expected objects with a member domain_name"


def test_a_mailcow_without_an_answer_is_given_up_after_its_time() -> None:
    with silent_socket() as port:
        text = error(type="mailcow", uri=f"http://127.0.0.1:{port}/api/v1", token="k", timeout=0.5)
    assert "no answer within 0." in text  # of the time, some is spent before it is asked
