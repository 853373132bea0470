"""Directories whose host name has several addresses, resolved by a real name server."""

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dns.resolver
import pytest

from automx.address import EmailAddress
from automx.check.directory import DirectoryChecks
from automx.check.finding import Check, Finding
from automx.check.network import Network
from automx.config import DirectorySettings
from automx.directory.hoststate import RETRY_SECONDS
from automx.directory.person import DirectoryError, Person
from automx.directory.pool import Directories
from automx.rows import ldap_server
from tests.commandline import attempt
from tests.conftest import Execute
from tests.directory import Directories as DirectoryMaker
from tests.directory import (
    Directory,
    MakeDirectory,
    insert_ldapserver,
    ldapserver_columns,
)
from tests.nameserver import name_server
from tests.processes import wait_until

ALICE = EmailAddress("alice", "example.com")
ALICES_PERSON = Person("alice", "Alice Example")
FIRST, SECOND, THIRD = "127.0.0.3", "127.0.0.2", "127.0.0.4"
NAME = "ldap.people.test"
TIMEOUT = 3.0


class Clock:
    """A clock that a test sets forward."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


Find = Callable[..., Person | None]
SetNames = Callable[..., None]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def set_names(tmp_path: Path) -> Iterator[SetNames]:
    """Give NAME some addresses: a name server of the test's own answers the system's questions.

    Without any, the name server does not answer at all.
    """
    resolver = dns.resolver.Resolver(configure=False)
    resolver.lifetime = 0.5  # the directory has the rest of TIMEOUT
    with contextlib.ExitStack() as stack:
        mute = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        mute.bind(("127.0.0.1", 0))
        number = 0

        def set_(*addresses: str) -> None:
            nonlocal number
            number += 1
            port = mute.getsockname()[1]
            if addresses:
                lines = "".join(f"ldap IN A {address}\n" for address in addresses)
                folder = tmp_path / f"names{number}"
                server = stack.enter_context(name_server(folder, {"people.test": lines}))
                port = server.port
            resolver.nameservers, resolver.port = ["127.0.0.1"], port

        dns.resolver.override_system_resolver(resolver)
        stack.callback(dns.resolver.restore_system_resolver)
        yield set_


@pytest.fixture
def find(clock: Clock, directories: DirectoryMaker) -> Iterator[Find]:
    """Look up Alice, by default at NAME; nothing is remembered but the state of the hosts."""
    settings = DirectorySettings(
        cache_seconds=0,
        timeout=TIMEOUT,
        starttls="no",
        ca_file=str(directories.authority.root),
    )
    found = Directories(settings, now=clock)

    def look_up(directory: Directory, **columns: Any) -> Person | None:
        row = ldapserver_columns(directory, **{"name": NAME} | columns)
        return found.find(ldap_server(row), ALICE)

    yield look_up
    found.close()


@contextlib.contextmanager
def silent(host: str, port: int) -> Iterator[Callable[[], int]]:
    """Listen and say nothing; give a function that counts the connections so far."""
    connections: list[socket.socket] = []
    with socket.create_server((host, port)) as listener:
        listener.setblocking(False)

        def count() -> int:
            with contextlib.suppress(BlockingIOError):
                while True:
                    connections.append(listener.accept()[0])
            return len(connections)

        try:
            yield count
        finally:
            for connection in connections:
                connection.close()


def outages(logged: pytest.LogCaptureFixture) -> list[str]:
    """Return level and text of what the log tells of outages, without the reason."""
    records = [record for record in logged.records if record.name.startswith("automx.directory")]
    lines = [f"{record.levelname} {record.getMessage()}" for record in records]
    return [line.partition(" fails: ")[0].removesuffix(" answers again") for line in lines]


def test_a_silent_address_leaves_time_for_the_next_and_is_remembered(
    find: Find, set_names: SetNames, make_directory: MakeDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    directory = make_directory(host=SECOND)
    set_names(FIRST, SECOND)
    with silent(FIRST, directory.port) as connections:
        assert find(directory) == ALICES_PERSON
        assert connections() == 1
        for _ in range(3):
            directory.restart()  # each look-up needs a new connection
            assert find(directory) == ALICES_PERSON
        assert connections() == 1
    assert outages(caplog) == [f"WARNING ldapserver 3: {NAME}:{directory.port} at {FIRST}"]


@pytest.mark.parametrize("number", [1, 2])
def test_two_silent_addresses_leave_time_for_the_third(
    find: Find, set_names: SetNames, make_directory: MakeDirectory, number: int
) -> None:
    """The addresses of one host share its part of the time with those of other hosts."""
    directory = make_directory(host=SECOND)
    set_names(FIRST, THIRD, *([SECOND] if number == 1 else []))
    name = NAME if number == 1 else f"{NAME} {SECOND}"
    with silent(FIRST, directory.port), silent(THIRD, directory.port):
        assert find(directory, name=name) == ALICES_PERSON


def test_an_address_that_answers_again_is_used_again(
    find: Find,
    set_names: SetNames,
    make_directory: MakeDirectory,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    second = make_directory(host=SECOND)
    first = make_directory(host=FIRST, port=second.port, start=False)
    set_names(FIRST, SECOND)
    assert find(second) == ALICES_PERSON
    first.start()
    assert find(second) == ALICES_PERSON
    assert first.binds == 0  # not yet
    clock.time += RETRY_SECONDS
    assert find(second) == ALICES_PERSON
    wait_until(lambda: len(outages(caplog)) == 2, "trying the first address again")
    searches = first.searches
    assert find(second) == ALICES_PERSON
    assert first.searches == searches + 1
    place = f"ldapserver 3: {NAME}:{second.port} at {FIRST}"
    assert outages(caplog) == [f"WARNING {place}"] * 2


def test_the_next_address_answers_when_the_one_in_use_freezes(
    find: Find, set_names: SetNames, make_directory: MakeDirectory
) -> None:
    second = make_directory(host=SECOND)
    first = make_directory(host=FIRST, port=second.port)
    set_names(FIRST, SECOND)
    assert find(first) == ALICES_PERSON
    assert second.searches == 0
    with first.frozen():
        for _ in range(3):
            assert find(first) == ALICES_PERSON
    assert second.searches == 3


def test_all_addresses_dead_is_an_outage_that_costs_no_time(
    find: Find,
    set_names: SetNames,
    make_directory: MakeDirectory,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    directory = make_directory(host=SECOND, start=False)
    set_names(FIRST, SECOND)
    with silent(FIRST, directory.port) as connections:
        for _ in range(5):
            with pytest.raises(DirectoryError):
                find(directory)
        assert connections() == 1
        place = f"ldapserver 3: {NAME}:{directory.port} at"
        assert outages(caplog) == [f"WARNING {place} {FIRST}", f"ERROR {place} {SECOND}"]
        directory.start()
        clock.time += RETRY_SECONDS
        assert find(directory) == ALICES_PERSON


def test_each_address_must_have_a_certificate_for_the_name(
    find: Find, set_names: SetNames, make_directory: MakeDirectory, directories: DirectoryMaker
) -> None:
    good, bad = directories.authority.issue(NAME), directories.authority.issue("other.test")
    second = make_directory(host=SECOND, certificate=good)
    first = make_directory(host=FIRST, tls_port=second.tls_port, certificate=bad)
    set_names(FIRST, SECOND)
    assert find(second, name=f"ldaps://{NAME}:{second.tls_port}") == ALICES_PERSON
    assert "BIND" not in first.log
    assert second.binds == 1


def test_addresses_are_known_from_before_while_the_resolver_is_silent(
    find: Find, set_names: SetNames, make_directory: MakeDirectory, clock: Clock
) -> None:
    directory = make_directory(host=SECOND)
    set_names(SECOND)
    assert find(directory) == ALICES_PERSON
    set_names()
    for _ in range(3):
        directory.restart()
        assert find(directory) == ALICES_PERSON
    set_names(SECOND)
    clock.time += RETRY_SECONDS
    assert find(directory) == ALICES_PERSON


def test_a_name_that_no_name_server_knows_yet_leaves_the_other_hosts(
    find: Find, set_names: SetNames, make_directory: MakeDirectory
) -> None:
    directory = make_directory(host=SECOND)
    set_names()
    name = f"{NAME} {SECOND}"
    with contextlib.suppress(DirectoryError):  # the resolver may take all the time once
        find(directory, name=name)
    start = time.monotonic()
    for _ in range(5):
        assert find(directory, name=name) == ALICES_PERSON
    assert time.monotonic() - start < 5 * TIMEOUT


def test_addresses_that_a_name_no_longer_has_are_given_up(
    find: Find, set_names: SetNames, make_directory: MakeDirectory
) -> None:
    first = make_directory(host=FIRST)
    second = make_directory(host=SECOND, port=first.port)
    set_names(FIRST)
    assert find(first) == ALICES_PERSON
    set_names(SECOND)
    first.stop()  # the connection in use ends, and the next one goes where the name leads
    assert find(first) == ALICES_PERSON
    first.start()
    for _ in range(3):
        second.restart()
        assert find(first) == ALICES_PERSON
    assert first.log.count("SRCH base=") == 1


# For administrators


def test_automx_ldap_test_tries_each_address(
    set_names: SetNames,
    make_directory: MakeDirectory,
    database: Path,
    execute: Execute,
    example: None,
) -> None:
    directory = make_directory(host=SECOND)
    execute(insert_ldapserver(directory, name=NAME))
    execute("UPDATE domain SET ldapserver_id = 3")
    set_names(FIRST, SECOND)
    env = {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "AUTOMX_LDAP_STARTTLS": "no",
    }
    tested = attempt("ldap", "test", "alice@example.com", env=env)
    assert tested.returncode == 1
    first, second = (f"Host {NAME}:{directory.port} at {one}" for one in (FIRST, SECOND))
    assert tested.stdout.index(first) < tested.stdout.index("refused") < tested.stdout.index(second)
    assert "uid        'alice'" in tested.stdout
    set_names(SECOND)
    assert attempt("ldap", "test", "alice@example.com", env=env).returncode == 0


def test_the_doctor_names_the_address_that_fails(
    set_names: SetNames, make_directory: MakeDirectory
) -> None:
    directory = make_directory(host=SECOND)
    set_names(FIRST, SECOND)
    server = ldap_server(ldapserver_columns(directory, name=NAME))
    network = Network(name_server="127.0.0.1")
    checks = DirectoryChecks("example.com", network, server, DirectorySettings(starttls="no"))

    def found() -> dict[str, str]:
        results: list[Finding | Check] = list(checks.checks())
        for result in results:  # it grows by the checks that checks give
            if not isinstance(result, Finding):
                results += result()
        return {one.subject: one.text for one in results if isinstance(one, Finding)}

    [(subject, text)] = found().items()
    assert subject == f"ldapserver 3, {NAME}:{directory.port} at {FIRST}"
    assert "refused" in text
    set_names()
    [(subject, text)] = found().items()
    assert subject == f"ldapserver 3, {NAME}:{directory.port}"
    assert text.startswith("the host name has no address")
    set_names(SECOND)
    assert found() == {}


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "automx")
