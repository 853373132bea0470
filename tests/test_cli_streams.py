"""Standard streams of commands: closed ones, endless ones, and other encodings than UTF-8."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.commandline import attempt, automx
from tests.processes import AUTOMX

NAME = "Müller 株"


@pytest.fixture
def env(example: None, database: Path) -> dict[str, str]:
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "AUTOMX_PUBLIC_HOST": "automx.example.com",
    }


def shell(line: str, env: dict[str, str]) -> tuple[int, bytes, str]:
    """Run a command by a shell; return its status, what it prints, and its errors."""
    result = subprocess.run(
        ["sh", "-c", f"exec {AUTOMX} {line}"],
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return result.returncode, result.stdout, result.stderr.decode()


@pytest.mark.parametrize("line", ["config --json", "domain list", "export -", "backup -", "--help"])
def test_a_standard_output_that_is_closed_is_one_line_and_status_1(
    env: dict[str, str], line: str
) -> None:
    told = "automx: the output cannot be written: Bad file descriptor\n"
    assert shell(f"{line} >&-", env) == (1, b"", told)


@pytest.mark.parametrize(
    ("line", "status", "told"),
    [
        ("restore -", 1, "standard input is no backup of automx"),
        ("seed -", 1, "the document: expected an object"),
        ("purge", 2, "this would delete"),
        ("provider del 1", 1, "provider"),
        ("dclogin alice@example.com", 2, "There is no terminal to ask for the password"),
        ("dclogin alice@example.com --password-stdin", 1, "the password is empty"),
        ("quickstart x.test", 2, "nobody can be asked here"),
        ("import-csv -", 1, "standard input"),
    ],
)
def test_a_standard_input_that_is_closed_is_empty(
    env: dict[str, str], line: str, status: int, told: str
) -> None:
    ended, printed, errors = shell(f"{line} <&-", env)
    last = errors.splitlines()[-1]
    assert (ended, printed) == (status, b"")
    assert last.startswith("automx: ")
    assert told in last


@pytest.mark.parametrize("line", ["domain list", "config --json", "export", "backup -", "--help"])
def test_a_full_disk_is_one_line_and_status_1(env: dict[str, str], line: str) -> None:
    told = "automx: the output cannot be written: No space left on device\n"
    assert shell(f"{line} >/dev/full", env) == (1, b"", told)
    assert shell("seed /nowhere 2>/dev/full", env) == (1, b"", "")


def test_without_any_stream_a_command_ends_by_its_status(env: dict[str, str]) -> None:
    assert shell("domain disable example.com <&- >&- 2>&-", env) == (1, b"", "")
    assert shell("domain show example.com 2>&-", env)[0] == 0
    assert shell("seed /nowhere <&- >&- 2>&-", env) == (1, b"", "")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("dclogin alice@example.com --password-stdin", "the password has more than 65536 bytes"),
        ("domain add - --provider 1", "line 1 of standard input has more than 65536 bytes"),
        ("domain disable - --yes", "line 1 of standard input has more than 65536 bytes"),
    ],
)
def test_an_input_without_an_end_is_left(env: dict[str, str], line: str, told: str) -> None:
    assert shell(f"{line} </dev/zero", env) == (1, b"", f"automx: {told}\n")


def test_a_logo_without_an_end_is_left(env: dict[str, str]) -> None:
    result = attempt("provider", "add", "--name", "X", "--logo", "/dev/zero", env=env)
    told = "automx: Invalid value for '--logo': /dev/zero has more than 65535 bytes."
    assert (result.returncode, result.stderr.splitlines()[-1]) == (2, told)


def test_json_is_utf_8_whatever_the_encoding_of_the_terminal_is(env: dict[str, str]) -> None:
    automx("provider", "add", "--name", NAME, "--id", "7", env=env)
    latin = env | {"PYTHONIOENCODING": "iso-8859-1"}
    for words in ("provider show 7", "provider list"):
        status, printed, errors = shell(f"{words} --json", latin)
        assert (status, errors) == (0, "")
        document = json.loads(printed.decode("utf-8"))
        [row] = [row for row in document if row["id"] == 7] if words[-4:] == "list" else [document]
        assert row["name"] == NAME
        status, printed, errors = shell(words, latin)
        assert (status, errors) == (0, "")
        assert "Müller ?".encode("iso-8859-1") in printed
