"""``automx show`` and ``automx config``: what an administrator reads on the command line."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient

from automx.cli import main
from tests.conftest import Execute
from tests.documents import autodiscover_request, golden
from tests.processes import AUTOMX


@pytest.fixture
def environment(database: Path, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a command that works on the test's database."""
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "HOME": str(tmp_path),
    }


def automx(environment: dict[str, str], *arguments: str) -> Result:
    """Run a command within the test."""
    return CliRunner(env=environment).invoke(main, arguments)


@pytest.mark.usefixtures("example")
def test_the_summary_for_people_is_as_expected(environment: dict[str, str]) -> None:
    result = automx(environment, "show", "alice@example.com")
    assert result.stdout == golden("example-alice.txt")
    assert result.stderr == ""
    assert result.exit_code == 0
    assert automx(environment, "show", "--format=text", "alice@EXAMPLE.com").stdout == result.stdout


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    "address",
    [
        "alice@example.com",
        "O'Neil+x@Example.COM",
        "jürgen&co@example.com",
        "%EMAILDOMAIN%@example.com",
    ],
)
def test_a_document_is_exactly_what_the_persons_client_gets(
    environment: dict[str, str], client: FlaskClient, address: str
) -> None:
    arguments = {"emailaddress": address}
    answers = {
        "autoconfig": client.get("/mail/config-v1.1.xml", query_string=arguments),
        "autodiscover": client.post(
            "/autodiscover/autodiscover.xml",
            data=autodiscover_request(address.replace("&", "&amp;")),
            content_type="text/xml",
        ),
        "mobileconfig": client.get("/mobileconfig", query_string=arguments),
    }
    for name, answer in answers.items():
        assert answer.status_code == 200
        result = automx(environment, "show", address, "--format", name)
        assert result.stdout_bytes == answer.data
        assert result.exit_code == 0


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    ("address", "line"),
    [
        (
            "alice@example.org",
            "automx: No configuration is known for this domain. (domain example.org)\n",
        ),
    ],
)
def test_what_cannot_be_shown_is_told_in_one_line(
    environment: dict[str, str], address: str, line: str
) -> None:
    result = automx(environment, "show", address)
    assert (result.stdout, result.stderr, result.exit_code) == ("", line, 1)


def test_an_unknown_format_is_told_with_those_that_there_are(environment: dict[str, str]) -> None:
    result = automx(environment, "show", "alice@example.com", "--format", "pdf")
    assert result.exit_code == 2
    assert "'text', 'autoconfig', 'autodiscover', 'mobileconfig'" in result.stderr


def test_bad_rows_are_told_besides_what_is_shown(
    environment: dict[str, str], example: None, execute: Execute
) -> None:
    execute("UPDATE server SET port = 0 WHERE id = 1")
    result = subprocess.run(
        [AUTOMX, "show", "alice@example.com"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = result.stderr.splitlines()
    assert "table server, id 1: port: expected a whole number from 1 to 65535, found 0;" in line
    assert "imap.example.com" not in result.stdout
    assert "pop.example.com" in result.stdout
    execute("DELETE FROM server_domain")
    failed = automx(environment, "show", "alice@example.com")
    assert failed.exit_code == 1
    assert failed.stderr == "automx: table domain, id 1: no usable mail server\n"


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, 'unable to open database file; was "automx db upgrade" run?'),
        (b"", 'no such table: domain; was "automx db upgrade" run?'),
        (b"This is not a database." * 100, "file is not a database"),
    ],
)
def test_a_database_that_cannot_be_used_is_told_in_one_line(
    environment: dict[str, str], database: Path, content: bytes | None, cause: str
) -> None:
    database.unlink()
    if content is not None:
        database.write_bytes(content)
    result = automx(environment, "show", "alice@example.com")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == f"automx: database: {cause}\n"
    assert database.exists() == (content is not None)  # nothing was created


def test_the_settings_are_listed_with_their_sources_and_without_secrets(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("hidden\n")
    (tmp_path / "automx.conf").write_text(
        "[automx]\n"
        "db_uri = postgresql://automx:hid:d%40en@db.example.com/automx\n"
        "proxy_count = 2\n"
        "domain_cache_seconds = 0.5\n"
        f"initdb_token_file = {tmp_path}/token\n"
    )
    del environment["AUTOMX_DB_URI"]
    environment |= {
        "AUTOMX_CONF": str(tmp_path / "automx.conf"),
        "AUTOMX_LOGLEVEL": "info",
        "PERMIT_CLEARTEXT_PASSWORDS": "I_understand_the_risks",
    }
    result = automx(environment, "config")
    assert result.stderr == ""
    assert result.stdout.replace(str(tmp_path), "/etc") == golden("config.txt")


def test_wrong_settings_stop_a_command_in_one_line(environment: dict[str, str]) -> None:
    for command in (["config"], ["show", "alice@example.com"], ["serve"]):
        result = automx(environment | {"AUTOMX_DB_ECHO": "maybe"}, *command)
        assert (result.stdout, result.exit_code) == ("", 1)
        assert result.stderr == (
            "automx: environment variable AUTOMX_DB_ECHO: db_echo must be yes or no\n"
        )


def test_a_driver_that_is_not_installed_is_named(environment: dict[str, str]) -> None:
    environment["AUTOMX_DB_URI"] = "mysql+oursql://localhost/automx"
    result = automx(environment, "show", "alice@example.com")
    assert result.exit_code == 1
    assert re.fullmatch(r"automx: db_uri [^\n]+\n", result.stderr)


def test_a_database_server_that_is_not_there_is_told_without_the_password(
    environment: dict[str, str],
) -> None:
    for scheme in ("postgresql", "mysql"):
        environment["AUTOMX_DB_URI"] = f"{scheme}://automx:hidden@127.0.0.1:9/automx"
        result = automx(environment, "show", "alice@example.com")
        assert result.exit_code == 1
        assert result.stderr.startswith("automx: database: ")
        assert result.stderr.count("\n") == 1
        assert "refused" in result.stderr
        assert "hidden" not in result.stderr
