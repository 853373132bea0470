"""automx names: the host names of domains, for certificates; and whether they lead here."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from automx import config, create_app
from tests.commandline import attempt, automx
from tests.conftest import Execute
from tests.databases import engine_uri
from tests.examples import DOCUMENT
from tests.nameserver import NameServer, name_server
from tests.test_tls import ROWS

HOST = "mail.example.org"
# Of the domains of ROWS, in the order of their rows.
ENABLED = ["example.com", "xn--mller-kva.example", "own.wild.example", "bad.example"]
ENABLED += ["blank.example"]
LABELS = ("autoconfig", "autodiscover", "ua-auto-config")

# What names of example.com may lead to.
ZONE = """\
autoconfig IN CNAME mail.example.org.
autodiscover IN A 192.0.2.1
autodiscover IN A 127.0.0.1
"""
HOST_ZONE = "mail IN A 127.0.0.1\nmail IN AAAA ::1\n"
OTHER_ZONE = """\
autoconfig IN AAAA ::1
autodiscover IN CNAME nowhere
ua-auto-config IN A 127.0.0.1
"""


@pytest.fixture
def env(database: Path, example: None, execute: Execute) -> dict[str, str]:
    """Settings of a database with domains of each kind."""
    execute(ROWS)
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "AUTOMX_PUBLIC_HOST": HOST,
    }


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NameServer]:
    zones = {"example.org": HOST_ZONE, "example.com": ZONE, "example.net": OTHER_ZONE}
    folder = tmp_path_factory.mktemp("names") / "dns"
    with name_server(folder, {**zones, "broken.example": None}) as server:
        yield server


def hosts(*domains: str) -> list[str]:
    return [f"{label}.{domain}" for domain in domains for label in LABELS]


def certbot(*names: str) -> str:
    return " ".join(f"-d {name}" for name in names)


def test_all_names_are_those_of_the_service_and_of_enabled_domains(env: dict[str, str]) -> None:
    assert automx("names", "--all", env=env).splitlines() == [HOST, *hosts(*ENABLED)]


def test_each_engine_gives_the_enabled_domains_in_the_order_of_their_rows(
    any_migrated_uri: str,
) -> None:
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": engine_uri(any_migrated_uri)}
    domains = [{"name": name} for name in ("müller.example", "off.example", "*", "a.example")]
    automx("seed", "-", env=env, stdin=json.dumps(DOCUMENT | {"domains": domains}))
    automx("domain", "disable", "off.example", env=env)
    printed = automx("names", "--all", env=env).splitlines()
    assert printed == hosts("xn--mller-kva.example", "a.example")


def test_what_is_printed_may_have_certificates_and_nothing_else_of_these_domains(
    env: dict[str, str], execute: Execute
) -> None:
    execute("UPDATE domain SET provider_id = 1")  # all rows can be served
    printed = automx("names", "--all", env=env).splitlines()
    app = create_app(config.make(db_uri=env["AUTOMX_DB_URI"], public_host=HOST))
    client = app.test_client()
    domains = [*ENABLED, "off.example", "a.wild.example", "wild.example", "a_b.example"]
    allowed = [
        name
        for name in [HOST, *hosts(*domains), *domains]
        if client.get("/tls/ask", query_string={"domain": name}).status_code == 200
    ]
    assert printed == allowed


def test_a_host_that_is_a_name_of_a_domain_is_printed_once(env: dict[str, str]) -> None:
    env |= {"AUTOMX_PUBLIC_HOST": "autodiscover.example.com"}
    printed = automx("names", "--all", env=env).splitlines()
    assert printed[:3] == [
        "autodiscover.example.com",
        "autoconfig.example.com",
        LABELS[2] + ".example.com",
    ]
    assert len(printed) == len(set(printed))


def test_without_a_public_host_there_are_the_domains_alone(env: dict[str, str]) -> None:
    del env["AUTOMX_PUBLIC_HOST"]
    assert automx("names", "--all", env=env).splitlines() == hosts(*ENABLED)


def test_an_empty_database_has_the_public_host_alone(env: dict[str, str], execute: Execute) -> None:
    execute("DELETE FROM domain")
    assert automx("names", "--all", env=env) == f"{HOST}\n"
    assert automx("names", "--all", "--format", "certbot", env=env) == (
        f"--cert-name automx-1 -d {HOST}\n"
    )


def test_domains_that_are_named_are_printed_once_and_without_the_public_host(
    env: dict[str, str],
) -> None:
    asked = ["MÜLLER.example", "example.com.", "xn--mller-kva.example"]
    expected = hosts("xn--mller-kva.example", "example.com")
    assert automx("names", *asked, env=env).splitlines() == expected
    printed = automx("names", *asked, "--format", "certbot", env=env)
    assert printed == f"{certbot(*expected)}\n"


@pytest.mark.parametrize(
    ("domain", "complaint"),
    [
        ("other.example", "No configuration is known for this domain. (domain other.example)"),
        ("off.example", "off.example has been off since 2026-11-21"),
        (
            "a.wild.example",
            (
                "No configuration is known for this domain."
                " (domain a.wild.example has no row of its own, only the row *.wild.example)"
            ),
        ),
    ],
)
def test_a_domain_without_names_is_told_and_nothing_is_printed(
    env: dict[str, str], domain: str, complaint: str
) -> None:
    result = attempt("names", "example.com", domain, env=env)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"automx: {complaint}\n")


def test_a_domain_that_no_authority_certifies_is_told(env: dict[str, str]) -> None:
    result = attempt("names", "a_b.example", env=env)
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == "automx: no authority certifies names of a_b.example\n"


@pytest.mark.parametrize("arguments", [[], ["--all", "example.com"]])
def test_either_domains_or_all_are_named(env: dict[str, str], arguments: list[str]) -> None:
    result = attempt("names", *arguments, env=env)
    assert result.returncode == 2
    assert "Name either domains or --all." in result.stderr


def test_a_certificate_has_at_most_100_names_and_keeps_its_name(
    env: dict[str, str], execute: Execute
) -> None:
    execute("DELETE FROM domain; DELETE FROM disabled_domain")
    ids = [*range(1, 68), 1_000]
    rows = ", ".join(f"({number}, 'd{number}.example', 1, NULL)" for number in ids)
    execute(f"INSERT INTO domain VALUES {rows}")
    lines = automx("names", "--all", "--format", "certbot", env=env).splitlines()
    assert lines == [
        f"--cert-name automx-{number} {certbot(*first, *hosts(*(f'd{i}.example' for i in some)))}"
        for number, first, some in (
            (1, [HOST], range(1, 34)),
            (2, [], range(34, 67)),
            (3, [], [67]),
            (31, [], [1_000]),
        )
    ]
    assert [line.count("-d ") for line in lines] == [100, 99, 3, 3]

    execute("DELETE FROM domain WHERE id IN (2, 67)")
    execute("INSERT INTO domain VALUES (1001, 'new.example', 1, NULL)")
    after = automx("names", "--all", "--format", "certbot", env=env).splitlines()
    assert after == [
        lines[0].replace(f" {certbot(*hosts('d2.example'))}", ""),
        lines[1],
        f"{lines[3]} {certbot(*hosts('new.example'))}",
    ]


def test_many_named_domains_are_several_certificates(env: dict[str, str], execute: Execute) -> None:
    rows = ", ".join(f"({number}, 'd{number}.example', 1, NULL)" for number in range(100, 150))
    execute(f"INSERT INTO domain VALUES {rows}")
    asked = [f"d{number}.example" for number in range(149, 99, -1)]
    lines = automx("names", *asked, "--format", "certbot", env=env).splitlines()
    assert lines == [certbot(*hosts(*asked[:33])), certbot(*hosts(*asked[33:]))]


# Names that lead here.


def test_only_names_that_lead_to_the_public_host_are_printed(
    env: dict[str, str], execute: Execute, names: NameServer
) -> None:
    execute("DELETE FROM domain; DELETE FROM disabled_domain")
    execute(
        "INSERT INTO domain VALUES (1, 'example.com', 1, NULL), (2, 'example.net', 1, NULL),"
        " (3, 'broken.example', 1, NULL)"
    )
    result = attempt("names", "--all", "--resolving", "--dns", names.option, env=env)
    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        HOST,
        "autoconfig.example.com",
        "autoconfig.example.net",
        "ua-auto-config.example.net",
    ]
    said = [line.removeprefix("automx: ") for line in result.stderr.splitlines()]
    assert said[:3] == [
        f"autodiscover.example.com is left out: it leads to 192.0.2.1, not to {HOST}",
        "ua-auto-config.example.com is left out: the name has no address",
        "autodiscover.example.net is left out: the name has no address",
    ]
    assert [line.partition(":")[0] for line in said[3:]] == [
        f"{name} is left out" for name in hosts("broken.example")
    ]
    printed = automx(
        *("names", "--all", "--resolving", "--dns", names.option, "--format", "certbot"), env=env
    )
    leading = [
        HOST,
        "autoconfig.example.com",
        "autoconfig.example.net",
        "ua-auto-config.example.net",
    ]
    assert printed == f"--cert-name automx-1 {certbot(*leading)}\n"


def test_names_of_one_domain_are_looked_up(env: dict[str, str], names: NameServer) -> None:
    arguments = ["names", "EXAMPLE.com", "--resolving", "--dns", names.option]
    assert automx(*arguments, env=env) == "autoconfig.example.com\n"
    assert automx(*arguments, "--host", "autodiscover.example.com", env=env).splitlines() == [
        "autodiscover.example.com"
    ]


@pytest.mark.parametrize(
    ("host", "complaint"),
    [
        ("nowhere.example.org", "nowhere.example.org, the public host of automx, has no address"),
        ("mail.broken.example", "mail.broken.example cannot be looked up: "),
        ("", "the public host name of automx is not known: give it by --host, or set public_host"),
    ],
)
def test_without_an_address_of_the_public_host_nothing_is_printed(
    env: dict[str, str], names: NameServer, host: str, complaint: str
) -> None:
    del env["AUTOMX_PUBLIC_HOST"]
    arguments = ["names", "--all", "--resolving", "--dns", names.option, "--host", host]
    result = attempt(*arguments, env=env)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"automx: {complaint}")


def test_a_silent_name_server_ends_in_time_and_nothing_is_printed(env: dict[str, str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        arguments = ["names", "--all", "--resolving", "--dns", address, "--timeout", "0.1"]
        result = attempt(*arguments, env=env)
    assert (result.returncode, result.stdout) == (1, "")
    assert "cannot be looked up" in result.stderr
