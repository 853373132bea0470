"""Login names from directories, as mail clients and administrators meet them."""

import contextlib
import json
import logging
import plistlib
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from lxml import etree
from werkzeug.test import TestResponse

from tests import test_docs
from tests.commandline import attempt, automx
from tests.conftest import Execute
from tests.directory import (
    OPENLDAP,
    PASSWORD,
    Directories,
    Directory,
    MakeDirectory,
    insert_ldapserver,
    silent_socket,
)
from tests.documents import autodiscover_request, timeless
from tests.processes import REPOSITORY, Server, serving, wait_until

# A second domain with the same servers and without a directory.
PLAIN_DOMAIN = """
INSERT INTO domain VALUES (2, 'plain.example', 1, NULL);
INSERT INTO server_domain SELECT id, 2 FROM server;
INSERT INTO davserver_domain SELECT id, 2 FROM davserver;
"""

# A busy machine must not look like a silent directory.
SETTINGS: dict[str, Any] = {"ldap_starttls": "no", "ldap_cache_seconds": 0, "ldap_timeout": 30}


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Keep everything that is logged; no test may bring a password into the log."""
    caplog.set_level(logging.DEBUG)
    yield caplog
    assert "stairs" not in caplog.text


@pytest.fixture
def link(execute: Execute, example: None) -> Callable[..., None]:
    """Let the people of example.com be looked up in a directory, and add plain.example."""

    def insert(directory: Directory, **columns: Any) -> None:
        execute(insert_ldapserver(directory, **columns))
        execute("UPDATE domain SET ldapserver_id = 3;" + PLAIN_DOMAIN)

    return insert


def autoconfig(client: FlaskClient, address: str) -> TestResponse:
    return client.get("/mail/config-v1.1.xml", query_string={"emailaddress": address})


def autodiscover(client: FlaskClient, address: str) -> TestResponse:
    document = autodiscover_request(address)
    return client.post("/autodiscover/autodiscover.xml", data=document, content_type="text/xml")


def mobileconfig(client: FlaskClient, address: str, **more: str) -> TestResponse:
    return client.get("/mobileconfig", query_string={"emailaddress": address, **more})


PROTOCOLS = [autoconfig, autodiscover, mobileconfig]
Protocol = Callable[[FlaskClient, str], TestResponse]


def answer(response: TestResponse) -> tuple[int, list[tuple[str, str]], str]:
    """Return all that a stranger sees."""
    # Each answer has its own.
    own = {"Date", "X-Request-ID"}
    headers = [(name, value) for name, value in response.headers if name not in own]
    return response.status_code, headers, timeless(response.text)


def outages(logged: pytest.LogCaptureFixture) -> list[str]:
    """Return the levels and first words of what the log tells of outages."""
    records = [record for record in logged.records if record.levelno > logging.INFO]
    return [f"{record.levelname} {record.name}: {record.getMessage()}" for record in records]


# Answers


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_login_name_and_display_name_stand_in_every_format(
    make_app: Callable[..., Flask],
    link: Callable[..., None],
    execute: Execute,
    shared_directory: Directory,
    protocol: Protocol,
) -> None:
    """Compared with whole documents of rows that hold the person's login name."""
    link(shared_directory)
    client = make_app(**SETTINGS).test_client()
    found = protocol(client, "alice.example@example.com")
    execute(
        "UPDATE domain SET ldapserver_id = NULL;"
        "UPDATE server SET user_name = 'alice'; UPDATE davserver SET user_name = 'alice';"
    )
    expected = protocol(client, "alice.example@example.com").text
    for element in ("<DisplayName>{}</DisplayName>", "EmailAccountName</key>\n\t\t\t<string>{}<"):
        address, name = element.format("alice.example@example.com"), element.format("Alice Example")
        expected = expected.replace(address, name)
    assert found.status_code == 200
    assert found.text == expected
    assert "Alice Example" in found.text or protocol is autoconfig
    assert found.headers["Cache-Control"] == "no-store"
    assert "ETag" not in found.headers


def test_the_name_that_a_person_gives_goes_before_that_of_the_directory(
    make_app: Callable[..., Flask], link: Callable[..., None], shared_directory: Directory
) -> None:
    link(shared_directory)
    client = make_app(**SETTINGS).test_client()
    profile = plistlib.loads(mobileconfig(client, "alice@example.com", name="Al").data)
    assert profile["PayloadContent"][0]["EmailAccountName"] == "Al"
    assert profile["PayloadContent"][0]["IncomingMailServerUsername"] == "alice"


def test_a_password_in_a_profile_goes_with_the_login_name(
    make_app: Callable[..., Flask], link: Callable[..., None], shared_directory: Directory
) -> None:
    link(shared_directory)
    client = make_app(permit_cleartext_passwords=True, **SETTINGS).test_client()
    form = {"emailaddress": "alice@example.com", "password": "wonderland"}
    profile = plistlib.loads(client.post("/mobileconfig", data=form).data)
    mail = profile["PayloadContent"][0]
    assert mail["IncomingMailServerUsername"] == mail["OutgoingMailServerUsername"] == "alice"
    assert mail["IncomingPassword"] == "wonderland"
    assert mail["EmailAccountName"] == "Alice Example"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("address", ["nobody@example.com", "twins@example.com"])
def test_an_unknown_person_gets_what_a_domain_without_directory_gives(
    make_app: Callable[..., Flask],
    link: Callable[..., None],
    execute: Execute,
    shared_directory: Directory,
    protocol: Protocol,
    address: str,
) -> None:
    link(shared_directory)
    client = make_app(**SETTINGS).test_client()
    found = protocol(client, address)
    known = protocol(client, "alice@example.com")
    assert dict(found.headers).keys() == dict(known.headers).keys()
    execute("UPDATE domain SET ldapserver_id = NULL;")
    assert found.status_code == 200
    assert found.text == protocol(client, address).text


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_but_the_names_tells_a_known_person_from_an_unknown_one(
    make_app: Callable[..., Flask],
    link: Callable[..., None],
    shared_directory: Directory,
    protocol: Protocol,
) -> None:
    """A person whose entry says nothing cannot be told from somebody who does not exist."""
    link(shared_directory, attr_cn="displayName")
    client = make_app(**SETTINGS).test_client()
    status, headers, text = answer(protocol(client, "nothing@example.com"))
    expected = answer(protocol(client, "missing@example.com"))
    if protocol is not mobileconfig:  # where the identifiers depend on the address
        assert (status, headers, text.replace("nothing", "missing")) == expected
    assert (status, [name for name, _ in headers]) == (200, [name for name, _ in expected[1]])


@pytest.mark.parametrize(
    "path",
    [
        "/mail/config-v1.1.xml",
        "/.well-known/autoconfig/mail/config-v1.1.xml",
        "/v1.1/example.com",
        "/autodiscover/autodiscover.xml",
    ],
)
def test_a_request_without_an_address_asks_no_directory(
    make_app: Callable[..., Flask],
    link: Callable[..., None],
    execute: Execute,
    directory: Directory,
    path: str,
) -> None:
    link(directory)
    directory.stop()
    client = make_app(**SETTINGS).test_client()
    found = answer(client.get(path, headers={"Host": "autoconfig.example.com"}))
    execute("UPDATE domain SET ldapserver_id = NULL;")
    assert found[0] == 200
    assert found == answer(client.get(path, headers={"Host": "autoconfig.example.com"}))


def login_names(response: TestResponse) -> set[str | None]:
    """Return the login names in a document of any format, as a client reads them."""
    if response.mimetype == "application/x-apple-aspen-config":
        payloads = plistlib.loads(response.data)["PayloadContent"]
        return {
            value for item in payloads for key, value in item.items() if key.endswith("Username")
        }
    root = etree.fromstring(response.data)
    return {leaf.text for leaf in root.iter("{*}username", "{*}LoginName")}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("local_part", "login_name"),
    [
        ("several", "first"),
        ("unicode", "jürgen"),
        ("markup", "<b>&\"']]>"),
        ("long", "l" * 5000),
        ("percent", "50%s %(name)s %%"),
    ],
)
def test_login_names_are_written_so_that_clients_read_them(
    make_app: Callable[..., Flask],
    link: Callable[..., None],
    directory: Directory,
    protocol: Protocol,
    local_part: str,
    login_name: str,
) -> None:
    entry = "dn: uid=50%s %(name)s %%,ou=people,dc=example,dc=com\nchangetype: add\n"
    entry += "objectClass: inetOrgPerson\ncn: x\nsn: x\nmail: percent@example.com\n"
    directory.change(OPENLDAP, entry)
    link(directory, attr_cn="displayName")
    response = protocol(make_app(**SETTINGS).test_client(), f"{local_part}@example.com")
    assert login_names(response) == {login_name}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "local_part", ["nothing", "blank", "control", "private", "placeholder", "broken"]
)
def test_a_value_that_is_no_text_is_as_good_as_none(
    make_app: Callable[..., Flask],
    link: Callable[..., None],
    execute: Execute,
    shared_directory: Directory,
    protocol: Protocol,
    local_part: str,
) -> None:
    attr_uid = "octetLogin" if local_part == "broken" else "uid"
    link(shared_directory, attr_uid=attr_uid, attr_cn="displayName")
    client = make_app(**SETTINGS).test_client()
    found = protocol(client, f"{local_part}@example.com").text
    execute("UPDATE domain SET ldapserver_id = NULL;")
    assert found == protocol(client, f"{local_part}@example.com").text


@pytest.mark.parametrize("format_", ["autoconfig", "autodiscover", "mobileconfig"])
@pytest.mark.parametrize("local_part", ["alice", "nobody", "markup", "unicode", "placeholder"])
def test_show_prints_what_the_client_of_a_person_gets(
    make_app: Callable[..., Flask],
    link: Callable[..., None],
    database: Path,
    shared_directory: Directory,
    format_: str,
    local_part: str,
) -> None:
    link(shared_directory, attr_cn="displayName")
    address = f"{local_part}@example.com"
    protocol: Protocol = globals()[format_]
    answered = protocol(make_app(**SETTINGS).test_client(), address).text
    env = environment(database)
    assert automx("show", address, "--format", format_, env=env) == answered


def test_answers_are_remembered_between_requests(
    make_app: Callable[..., Flask], link: Callable[..., None], directory: Directory
) -> None:
    link(directory)
    client = make_app(**SETTINGS | {"ldap_cache_seconds": 60}).test_client()
    for _ in range(3):
        for protocol in PROTOCOLS:
            for address in ("alice@example.com", "ALICE@example.com", "nobody@example.com"):
                assert protocol(client, address).status_code == 200
    assert directory.searches == 3  # spellings are kept apart: a login name may hold them


# Outages


def test_an_outage_is_503_for_the_personal_answers_of_its_domain_only(
    make_app: Callable[..., Flask],
    link: Callable[..., None],
    directory: Directory,
    logged: pytest.LogCaptureFixture,
) -> None:
    link(directory)
    client = make_app(**SETTINGS).test_client()
    directory.stop()
    for _ in range(5):
        for protocol in PROTOCOLS:
            for address in ("alice@example.com", "nobody@example.com"):
                response = protocol(client, address)
                assert response.status_code == 503
                assert int(response.headers["Retry-After"]) > 0
                assert response.headers["Cache-Control"] == "no-store"
                for secret in ("ldap", "LDAP", "127.0.0.1", "refused", "automx", "directory"):
                    assert secret not in response.text.replace("autodiscover", "")
            assert protocol(client, "alice@plain.example").status_code == 200
        assert client.get("/mail/config-v1.1.xml?emailaddress=").status_code == 404
        without = client.get("/mail/config-v1.1.xml", headers={"Host": "autoconfig.example.com"})
        assert without.status_code == 200
    host = f"127.0.0.1:{directory.port}"
    told = [line for line in outages(logged) if "ldap" in line]
    assert told == [
        f"ERROR automx.directory.hoststate: ldapserver 3: {host} fails: "
        + told[0].split("fails: ")[1]
    ]
    assert "refused" in told[0]


def test_an_unknown_address_gets_the_same_error_as_a_known_one(
    make_app: Callable[..., Flask], link: Callable[..., None], directory: Directory
) -> None:
    link(directory)
    directory.stop()
    client = make_app(**SETTINGS).test_client()
    for protocol in PROTOCOLS:
        assert answer(protocol(client, "alice@example.com")) == answer(
            protocol(client, "nobody@example.com")
        )


@pytest.mark.parametrize(
    ("columns", "cause"),
    [
        ({"search_filter": "(mail=alice)"}, "search_filter: expected an LDAP filter"),
        ({"search_filter": "(mail={0}"}, "search_filter: expected an LDAP filter"),
        ({"name": "http://127.0.0.1"}, "name: expected a host name"),
        ({"attr_uid": ""}, "attr_uid: expected a text of 1 to 32 characters"),
    ],
)
def test_a_bad_row_is_told_with_its_id_and_harms_its_domain_only(
    make_app: Callable[..., Flask],
    link: Callable[..., None],
    shared_directory: Directory,
    logged: pytest.LogCaptureFixture,
    columns: dict[str, Any],
    cause: str,
) -> None:
    link(shared_directory, **columns)
    client = make_app(**SETTINGS).test_client()
    for protocol in PROTOCOLS:
        assert protocol(client, "alice@example.com").status_code == 500
        assert protocol(client, "alice@plain.example").status_code == 200
    assert f"table ldapserver, id 3: {cause}" in logged.text


def test_a_row_that_is_missing_is_told_with_the_domain_s_id(
    make_app: Callable[..., Flask],
    link: Callable[..., None],
    execute: Execute,
    shared_directory: Directory,
    logged: pytest.LogCaptureFixture,
) -> None:
    link(shared_directory)
    execute("DELETE FROM ldapserver;")
    assert autoconfig(make_app(**SETTINGS).test_client(), "alice@example.com").status_code == 500
    assert "table domain, id 1: " in logged.text


def test_unchecked_certificates_are_told_at_every_start(
    make_app: Callable[..., Flask], logged: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        logged.clear()
        make_app(ldap_verify=False)
        assert any("ldap_verify" in line for line in outages(logged))
    logged.clear()
    make_app()
    assert outages(logged) == []


# The program


def environment(database: Path, **more: str) -> dict[str, str]:
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "AUTOMX_LDAP_STARTTLS": "no",
        "AUTOMX_LDAP_CACHE_SECONDS": "0",
        "AUTOMX_LDAP_TIMEOUT": "1",
        **more,
    }


def ask(server: Server, address: str) -> tuple[int, str]:
    """Return status and body of Autoconfig's answer for an address."""
    url = f"{server.url}/mail/config-v1.1.xml?emailaddress={address}"
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.alone
def test_a_server_with_workers_gives_login_names_and_survives_restarts_of_the_directory(
    link: Callable[..., None], database: Path, directory: Directory, tmp_path: Path
) -> None:
    link(directory)
    ended = threading.Event()
    statuses: dict[int, int] = {}
    slowest = 0.0

    def load(server: Server) -> None:
        nonlocal slowest
        while not ended.is_set():
            start = time.monotonic()
            status, body = ask(server, "alice@example.com")
            slowest = max(slowest, time.monotonic() - start)
            assert status == 503 or "<username>alice</username>" in body
            statuses[status] = statuses.get(status, 0) + 1
            ended.wait(0.01)  # leaves the processor to the server

    def more(status: int) -> None:
        reached = statuses.get(status, 0) + 30
        wait_until(lambda: statuses.get(status, 0) >= reached, f"30 more answers {status}")

    log = tmp_path / "serve.log"
    with serving(environment(database), log, "--workers", "2") as server:
        with ThreadPoolExecutor(6) as pool:
            results = [pool.submit(load, server) for _ in range(6)]
            try:
                more(200)
                directory.restart()
                more(200)
                for sig in (signal.SIGTERM, signal.SIGKILL):
                    directory.stop(sig)
                    more(503)
                    assert ask(server, "alice@plain.example")[0] == 200
                    directory.start()
                    more(200)
            finally:
                ended.set()
            assert [result.result(30) for result in results] == [None] * 6
        assert server.stop() == 0
        output = server.output
    assert set(statuses) == {200, 503}
    assert slowest < 1 + 0.5 + 1  # the time limit, what is promised beside it, a busy machine
    assert "Traceback" not in output
    assert "stairs" not in output
    # Each worker tells each outage, and its end, once. The restart may be one more, and a worker
    # that nobody asks sleeps through it.
    for words in ("fails: ", "answers again"):
        assert 2 <= output.count(words) <= 2 * 3


@pytest.mark.alone
def test_a_silent_directory_takes_no_threads_from_other_domains(
    link: Callable[..., None], database: Path, directory: Directory, tmp_path: Path
) -> None:
    with silent_socket() as port:
        link(directory, name=f"127.0.0.1:{port}")
        log = tmp_path / "serve.log"
        with (
            serving(environment(database), log, "--workers", "1") as server,
            ThreadPoolExecutor(40) as pool,
        ):

            def timed(address: str) -> tuple[int, float]:
                start = time.monotonic()
                return ask(server, address)[0], time.monotonic() - start

            personal = [pool.submit(timed, "alice@example.com") for _ in range(30)]
            others = [timed("alice@plain.example") for _ in range(20)]
            answers = [result.result(30) for result in personal]
            assert {status for status, _ in others} == {200}
            assert {status for status, _ in answers} == {503}
            assert max(seconds for _, seconds in answers) < 1 + 0.5 + 1
            assert sorted(seconds for _, seconds in others)[10] < 0.5
            # The server ends although look-ups may hang.
            last = [pool.submit(timed, "bob@example.com") for _ in range(4)]
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(15)  # a look-up that hangs would keep it for ever
            for result in last:
                with contextlib.suppress(OSError):
                    result.result(30)


def test_no_process_shows_the_password(
    link: Callable[..., None], database: Path, directory: Directory, tmp_path: Path
) -> None:
    link(directory)
    env = environment(database, AUTOMX_LOGLEVEL="DEBUG")
    with serving(env, tmp_path / "serve.log", "--workers", "2") as server:
        assert "<username>alice<" in ask(server, "alice@example.com")[1]
        family = [server.process.pid]
        children = Path(f"/proc/{family[0]}/task/{family[0]}/children").read_text().split()
        for pid in [*family, *map(int, children)]:
            for name in ("cmdline", "environ"):
                assert b"stairs" not in Path(f"/proc/{pid}/{name}").read_bytes()
    assert "stairs" not in server.output


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    """A file with the password, as an administrator writes it."""
    path = tmp_path / "ldap3.secret"
    path.write_text(f"{PASSWORD}\n")
    return path


def test_a_password_may_come_from_a_file(
    link: Callable[..., None],
    database: Path,
    directory: Directory,
    secret_file: Path,
    tmp_path: Path,
) -> None:
    link(directory, bind_password=None)
    env = environment(database, AUTOMX_LDAP_BIND_PASSWORD_FILE=f"3:{secret_file}, 4:{secret_file}")
    with serving(env, tmp_path / "serve.log") as server:
        assert "<username>alice<" in ask(server, "alice@example.com")[1]
    shown = automx("config", env=env)
    assert "stairs" not in shown
    assert "ldap_bind_password_file" in shown


def test_an_export_holds_the_password_only_if_asked_to(
    link: Callable[..., None], database: Path, directory: Directory
) -> None:
    link(directory)
    env = environment(database)
    assert "stairs" not in automx("export", env=env)
    document = json.loads(automx("export", "--with-secrets", env=env))
    assert [row["bind_password"] for row in document["ldapservers"]] == [PASSWORD]


# automx ldap test


@dataclass(frozen=True)
class Outcome:
    """What ``automx ldap test`` did."""

    status: int
    output: str


@pytest.fixture
def ldap_test(database: Path) -> Callable[..., Outcome]:
    """Run ``automx ldap test ADDRESS``; keyword arguments are environment variables."""

    def run(address: str, **env: str) -> Outcome:
        result = attempt("ldap", "test", address, env=environment(database, **env))
        output = result.stdout + result.stderr
        assert "Traceback" not in output
        assert "stairs" not in output
        return Outcome(result.returncode, output)

    return run


def test_the_test_walks_through_all_steps(
    link: Callable[..., None],
    directory: Directory,
    directories: Directories,
    ldap_test: Callable[..., Outcome],
) -> None:
    link(directory, name=f"ldaps://localhost:{directory.tls_port} 127.0.0.1:{directory.port}")
    tested = ldap_test("alice@example.com", AUTOMX_LDAP_CA_FILE=str(directories.authority.root))
    assert tested.status == 0
    expected = [
        "ldapserver 3",
        f"localhost:{directory.tls_port}",
        f"127.0.0.1:{directory.port}",
        "(mail=alice@example.com)",
        OPENLDAP.suffix,
        "localhost",  # of the certificate
        OPENLDAP.reader,
        "uid=alice,ou=people,dc=example,dc=com",
        "Alice Example",
    ]
    for words in expected:
        assert words in tested.output
    dates = re.findall(r"\w{3} [ \d]\d \d\d:\d\d:\d\d 20\d\d GMT", tested.output)
    assert len(dates) == 2


def test_the_test_tells_that_nobody_has_an_address(
    link: Callable[..., None], directory: Directory, ldap_test: Callable[..., Outcome]
) -> None:
    link(directory)
    tested = ldap_test("nobody@example.com")
    assert "(mail=nobody@example.com)" in tested.output
    assert "unknown" in tested.output
    tested = ldap_test("twins@example.com")
    assert "employeeNumber=twin1," in tested.output
    assert "employeeNumber=twin2," in tested.output
    assert "unknown" in tested.output


Change = Callable[[Directory], tuple[dict[str, Any], dict[str, str]]]

FAILURES: dict[str, tuple[Change, list[str]]] = {
    "host name": (lambda _: ({"name": "ldap.invalid"}, {}), ["ldap.invalid", "host name"]),
    "port": (lambda _: ({"name": "127.0.0.1:1"}, {}), ["127.0.0.1:1", "refused", "port"]),
    "certificate": (
        lambda directory: ({"name": f"ldaps://localhost:{directory.tls_port}"}, {}),
        ["certificate", "ldap_ca_file"],
    ),
    "starttls": (
        lambda directory: (
            {"name": f"localhost:{directory.port}"},
            {"AUTOMX_LDAP_STARTTLS": "try"},
        ),
        ["certificate", "ldap_ca_file"],
    ),
    "password": (
        lambda _: ({"bind_password": "wrong"}, {}),
        ["invalidCredentials", "bind_password"],
    ),
    "base": (lambda _: ({"search_base": "dc=gone"}, {}), ["noSuchObject", "search_base"]),
}


@pytest.mark.parametrize("what", FAILURES)
def test_the_test_names_the_first_failing_step_and_what_to_do(
    link: Callable[..., None],
    directory: Directory,
    ldap_test: Callable[..., Outcome],
    what: str,
) -> None:
    change, words = FAILURES[what]
    columns, env = change(directory)
    link(directory, **columns)
    tested = ldap_test("alice@example.com", **env)
    assert tested.status == 1
    for word in words:
        assert word in tested.output


def test_the_test_ends_in_time_where_a_host_is_silent(
    link: Callable[..., None], directory: Directory, ldap_test: Callable[..., Outcome]
) -> None:
    with silent_socket() as port:
        link(directory, name=f"127.0.0.1:{port}")
        start = time.monotonic()
        tested = ldap_test("alice@example.com")
        assert time.monotonic() - start < 1 + 10
    assert tested.status == 1
    assert "no answer in time" in tested.output


def test_the_test_tells_that_a_domain_has_no_directory(
    link: Callable[..., None], directory: Directory, ldap_test: Callable[..., Outcome]
) -> None:
    link(directory)
    tested = ldap_test("alice@plain.example")
    assert tested.status == 1
    assert "ldapserver" in tested.output
    assert ldap_test("alice@unknown.example").status == 1
    assert ldap_test("no address").status == 2


def test_the_test_names_a_bad_row(
    link: Callable[..., None], directory: Directory, ldap_test: Callable[..., Outcome]
) -> None:
    link(directory, search_filter="(mail={0}")
    tested = ldap_test("alice@example.com")
    assert tested.status == 1
    assert "table ldapserver, id 3: search_filter" in tested.output


# docs/ldap.md and docs/directories


DOCUMENTATION = REPOSITORY / "docs" / "ldap.md"
PAGES = REPOSITORY / "docs" / "directories"

# A page, the number of its commands that were typed, and who logs in how then.
EXAMPLES = [
    ("openldap", 1, [("alice@example.com", "alice", "Alice Example")]),
    (
        "active-directory",
        1,
        [
            ("alice@example.net", "aexample", "Alice Example"),
            ("a.example@example.net", "a.example@example.net", "a.example@example.net"),
            ("bob@example.net", "bleft", "Bob Left"),
        ],
    ),
    (
        "active-directory",
        2,
        [
            ("alice@example.net", "aexample@corp.example.net", "Alice Example"),
            ("a.example@example.net", "aexample@corp.example.net", "Alice Example"),
            ("bob@example.net", "bob@example.net", "bob@example.net"),  # switched off
        ],
    ),
    (
        "active-directory",
        3,
        [
            ("alice@example.net", r"CORP\aexample", "Alice Example"),
            ("a.example@example.net", r"CORP\aexample", "Alice Example"),
        ],
    ),
    ("freeipa", 1, [("alice@example.org", "alice", "Alice Example")]),
    ("freeipa", 2, [("alice@example.org", "alice@IPA.EXAMPLE.ORG", "Alice Example")]),
]
# Commands that need a socket of the machine.
OTHER_COMMANDS = {"openldap": 1, "active-directory": 0, "freeipa": 0}


def directory_commands(page: str) -> list[list[str]]:
    """Return the commands of a page that add or change a directory."""
    lines = test_docs.shell_lines(PAGES / f"{page}.md")
    found = [command for line in lines for command in test_docs.automx_commands(line)]
    return [command for command in found if command[0] == "directory"]


def texts(page: Path, heading: str, info: str) -> list[str]:
    """Return the blocks that are marked so below a heading, up to the next one."""
    [section] = re.findall(
        rf"(?ms)^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", page.read_text("utf-8")
    )
    return re.findall(rf"(?ms)^```{info}\n(.*?)^```$", section)


def test_every_command_of_the_pages_is_tried() -> None:
    tried = {page: max(n for other, n, _ in EXAMPLES if other == page) for page, _, _ in EXAMPLES}
    assert {page: len(directory_commands(page)) for page in OTHER_COMMANDS} == {
        page: number + OTHER_COMMANDS[page] for page, number in tried.items()
    }


@pytest.mark.parametrize(
    ("page", "number", "people"), EXAMPLES, ids=[f"{page} {number}" for page, number, _ in EXAMPLES]
)
def test_the_commands_of_a_page_give_people_their_login_names(
    make_app: Callable[..., Flask],
    database: Path,
    shared_directory: Directory,
    directories: Directories,
    page: str,
    number: int,
    people: list[tuple[str, str, str]],
) -> None:
    """Nothing is changed but the hosts and their ports, which stay of their kind."""
    domain = people[0][0].partition("@")[2]
    servers = [{"type": kind, "name": f"{kind}.{domain}"} for kind in ("imap", "smtp")]
    document = {"version": 2, "provider": "P", "domains": [{"name": domain}], "servers": servers}
    env = environment(database)
    automx("seed", "-", env=env, stdin=json.dumps(document))
    for command in directory_commands(page)[:number]:
        if command[1] == "add":
            is_ldaps = "--use-ssl" in command
            port = shared_directory.tls_port if is_ldaps else shared_directory.port
            place = command.index("--name") + 1
            command[place] = " ".join(f"0.0.0.0:{port}" for _ in command[place].split())
        automx(*command, env=env, stdin=f"{PASSWORD}\n")
    automx("domain", "set", domain, "--directory", "1", env=env)
    client = make_app(ldap_ca_file=str(directories.authority.root)).test_client()
    established = shared_directory.count("TLS established")
    for address, login_name, display_name in people:
        response = autodiscover(client, address)
        assert login_names(response) == {login_name}
        assert etree.fromstring(response.data).findtext(".//{*}DisplayName") == display_name
    assert shared_directory.count("TLS established") == established + 1


def test_the_sql_of_the_documentation_works(
    make_app: Callable[..., Flask],
    execute: Execute,
    example: None,
    shared_directory: Directory,
    directories: Directories,
) -> None:
    (sql,) = texts(DOCUMENTATION, "By SQL", "sql")
    execute(
        sql.replace("ldap.example.com", "localhost")
        .replace("636", str(shared_directory.tls_port))
        .replace("change me", PASSWORD)
    )
    client = make_app(ldap_ca_file=str(directories.authority.root)).test_client()
    assert login_names(autoconfig(client, "alice@example.com")) == {"alice"}
    (more,) = texts(DOCUMENTATION, "Beyond automx2's columns", "sql")
    execute(more)
    client = make_app(ldap_ca_file=str(directories.authority.root)).test_client()
    assert login_names(autoconfig(client, "alice@example.com")) == {r"CORP\alice"}


def test_the_rules_of_the_documentation_let_automx_read_what_it_needs(
    make_app: Callable[..., Flask], link: Callable[..., None], make_directory: MakeDirectory
) -> None:
    rules = texts(PAGES / "openldap.md", "In OpenLDAP", "text")
    directory = make_directory(access=[*rules, "access to * by * none"])
    search = {
        "search_base": "ou=people,dc=example,dc=com",
        "search_filter": "(&(objectClass=inetOrgPerson)(mail={0}))",
    }
    link(directory, **search)
    client = make_app(**SETTINGS).test_client()
    assert login_names(autoconfig(client, "alice@example.com")) == {"alice"}
    assert autoconfig(client, "nobody@example.com").status_code == 200


def test_the_sample_output_of_the_documentation_is_real(
    link: Callable[..., None],
    make_directory: MakeDirectory,
    directories: Directories,
    ldap_test: Callable[..., Outcome],
) -> None:
    directory = make_directory(certificate=directories.authority.issue("localhost"))
    search = "(&(objectClass=inetOrgPerson)(mail={0}))"
    base = "ou=people,dc=example,dc=com"
    name = f"ldaps://localhost:{directory.tls_port}"
    link(directory, name=name, search_filter=search, search_base=base)
    tested = ldap_test("alice@example.com", AUTOMX_LDAP_CA_FILE=str(directories.authority.root))
    output = tested.output.replace(f"localhost:{directory.tls_port}", "ldap.example.com:636")
    output = output.replace("localhost", "ldap.example.com").replace("ldapserver 3", "ldapserver 1")
    output = output.replace("127.0.0.1", "192.0.2.7")
    date = re.compile(r"\w{3} [ \d]\d \d\d:\d\d:\d\d 20\d\d GMT")
    (sample,) = texts(DOCUMENTATION, "Try it", "text")
    assert date.sub("DATE", output) == date.sub("DATE", sample)
