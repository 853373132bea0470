"""Shells complete commands, options, words and names of the database."""

import json
import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from automx.cli import names
from tests.commandline import automx
from tests.conftest import Execute
from tests.processes import AUTOMX, PATIENCE, program, wait_until

BASH = """
{completion}
COMP_WORDS=({words})
COMP_CWORD={last}
_automx_completion automx
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
# zsh and fish complete at a terminal only: what they would ask automx is asked here.
ZSH = """
eval "$(automx completion zsh)"
[[ ${{_comps[automx]:-_automx_completion}} == _automx_completion ]] && whence _automx_completion
env COMP_WORDS={quoted} COMP_CWORD={last} _AUTOMX_COMPLETE=zsh_complete automx
"""
FISH = """
automx completion fish | source
complete --do-complete {line}
"""


@pytest.fixture
def env(database: Path, example: None, execute: Execute) -> dict[str, str]:
    """The environment of a shell with automx, and a database with names."""
    execute(
        "INSERT INTO domain VALUES (2, 'example.net', 1, NULL), (3, 'mail.test', 1, NULL);"
        "INSERT INTO token VALUES (1, 'oneday', 's3cret', 'digest1', 'example.com', 'tmp.', NULL,"
        " '1d', 50, 0, NULL, 0, '', 0, '2026-01-01 00:00:00.000000');"
        "INSERT INTO account VALUES (1, 'guest@example.com', 1, 'f00d', 'none', 'active',"
        " '2026-01-01 00:00:00.000000', NULL, '2026-01-01 00:00:00.000000', NULL);"
        "INSERT INTO api_key VALUES (1, 'portal', 'digest1', NULL, 'read', NULL, '', '', NULL, 0,"
        " '2026-01-01 00:00:00.000000', NULL)"
    )
    return {
        "PATH": f"{AUTOMX.parent}:{os.environ['PATH']}",
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "HOME": str(database.parent),
    }


def shell(command: list[str], script: str, env: dict[str, str]) -> list[str]:
    """Run a script; return the lines that it prints. It must be silent on standard error."""
    result = subprocess.run(
        command, input=script, env=env, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.split()


def in_bash(words: str, env: dict[str, str]) -> list[str]:
    typed = words.split(" ")
    quoted = " ".join(f"'{word}'" for word in typed)
    completion = automx("completion", "bash", env=env)
    script = BASH.format(completion=completion, words=quoted, last=len(typed) - 1)
    return shell([program("bash", "bash"), "--norc"], script, env)


def completes(find: Callable[[], bool]) -> None:
    """Press Tab until all is offered: a busy machine takes longer for names than a person waits."""
    wait_until(find, "the completion")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("automx do", ["domain"]),
        ("automx domain show ex", ["example.com", "example.net"]),
        ("automx server set 1 --socket-type s", ["SSL", "STARTTLS"]),
        ("automx domain show nothing", []),
    ],
)
def test_bash_completes_commands_words_and_names(
    env: dict[str, str], words: str, expected: list[str]
) -> None:
    completes(lambda: in_bash(words, env) == expected)


@pytest.fixture
def _patience(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Wait for names as long as they take; others may log afterwards, which a completion stops."""
    monkeypatch.setattr(names, "_SECONDS", PATIENCE)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("_patience")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("automx domain l", ["link", "list"]),
        ("automx domain add new.example --like m", ["mail.test"]),
        ("automx domain link mail.test im", ["imap.example.com"]),
        ("automx server show S", ["smtp.example.com"]),
        ("automx server add --type i", ["imap"]),
        ("automx server set 1 --unset po", ["port"]),
        ("automx provider show E", ["Example"]),
        ("automx domain list --provider e", ["Example"]),
        ("automx token show on", ["oneday"]),
        ("automx account list --token o", ["oneday"]),
        ("automx account show gu", ["guest@example.com"]),
        ("automx account del guest@example.com g", ["guest@example.com"]),
        ("automx apikey revoke p", ["portal"]),
        ("automx apikey add shop --provider e", ["Example"]),
        ("automx check mail", ["mail.test"]),
    ],
)
def test_what_bash_asks_is_answered(env: dict[str, str], words: str, expected: list[str]) -> None:
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    printed = automx(env=env | asked | {"_AUTOMX_COMPLETE": "bash_complete"})
    assert printed.splitlines() == [f"plain,{word}" for word in expected]


def test_names_that_a_shell_would_run_or_an_option_are_not_completed(
    env: dict[str, str], execute: Execute
) -> None:
    run = ["$(reboot)", "`reboot`", "x;reboot", "x&reboot", "x|reboot", "x'", 'x"', "x\ny", "x y"]
    for number, name in enumerate([*run, "--json", "plain"], 10):
        doubled = name.replace("'", "''")
        execute(f"INSERT INTO provider VALUES ({number}, '{doubled}', '{doubled}')")
    completes(lambda: in_bash("automx provider show ", env) == ["Example", "plain"])


@pytest.mark.parametrize(
    "uri", ["sqlite:////nonexistent/automx.sqlite", "postgresql://127.0.0.1:1/x", "foo:", ""]
)
def test_a_database_that_does_not_answer_disturbs_nobody(env: dict[str, str], uri: str) -> None:
    assert in_bash("automx domain show ex", env | {"AUTOMX_DB_URI": uri}) == []


def test_zsh_reads_the_script_and_gets_names(env: dict[str, str]) -> None:
    script = ZSH.format(quoted="'automx domain show ex'", last=3)
    script = f"autoload -Uz compinit; compinit -u\n{script}"

    def find() -> bool:
        found = shell([program("zsh", "zsh"), "-f"], script, env)
        assert found[0] == "_automx_completion"
        return {"example.com", "example.net"} <= set(found)

    completes(find)


def test_fish_completes_names(env: dict[str, str]) -> None:
    script = FISH.format(line="'automx domain show ex'")
    fish = [program("fish", "fish"), "--no-config"]
    completes(lambda: shell(fish, script, env) == ["example.com", "example.net"])


def test_at_most_some_hundred_names_are_offered(env: dict[str, str], execute: Execute) -> None:
    rows = ", ".join(f"({number}, 'd{number}.test', 1, NULL)" for number in range(10, 1_000))
    execute(f"INSERT INTO domain VALUES {rows}")
    completes(lambda: len(in_bash("automx domain show d", env)) == 200)
    assert len(json.loads(automx("domain", "list", "d*", "--json", env=env))) == 990
