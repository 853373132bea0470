"""Tests of automx apply: the plan that people read, the question, files."""

import hashlib
import json
import os
import pty
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from automx import audit
from automx.database import open_session
from tests.commandline import attempt, automx
from tests.processes import AUTOMX
from tests.test_apply import HOSTER, edited

PLAN = """\
+ server pop.example.com
~ provider East: color #1a5fb4 -> #000000; help_url none -> https://help.example.com/
~ directory ldap.example.com: bind_password none -> ***
~ server imap.example.com: port 143 -> 993; socket_type STARTTLS -> SSL
~ domain a.example: provider 1 (East) -> 2 (West); servers 1 (imap.example.com), 2 (smtp.example.com), 3 (smtp.example.com) -> none
~ domain müller.example: servers 1 (imap.example.com), 2 (smtp.example.com), 3 (smtp.example.com) -> 1 (imap.example.com), 2 (smtp.example.com), 3 (smtp.example.com), 4 (pop.example.com)
- domain b.example
Add 1 server; change 1 provider, 1 directory, 1 server, 2 domains; remove 1 domain.
"""  # noqa: E501 - as it is printed


@pytest.fixture
def env(database: Path) -> dict[str, str]:
    return {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}


def written(file: Path, document: object) -> Path:
    """Write a document as the name of its file says."""
    dump = json.dumps if file.suffix == ".json" else yaml.safe_dump
    file.write_text(dump(document))
    return file


def changed() -> dict[str, Any]:
    document = edited(
        "providers.0.details", {"color": "#000000", "help_url": "https://help.example.com/"}
    )
    document["ldapservers"][0]["bind_password_file"] = "secrets/ldap"
    document["servers"][0]["port"] = 993
    document["servers"].append({"type": "pop", "name": "pop.example.com"})
    document["domains"][0] |= {"provider": "West", "servers": []}
    del document["domains"][1]
    return document


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_plan_says_what_is_changed_and_no_secret(
    env: dict[str, str], tmp_path: Path, suffix: str
) -> None:
    automx("apply", written(tmp_path / f"a{suffix}", HOSTER), "--yes", env=env)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "ldap").write_text("s3cret \n")
    file = written(tmp_path / f"b{suffix}", changed())
    assert automx("apply", file, "--prune", "--dry-run", env=env) == PLAN
    assert automx("apply", file, "--prune", "--yes", env=env) == PLAN
    assert automx("apply", file, "--prune", env=env) == "Nothing to do.\n"
    [directory] = json.loads(automx("export", "--with-secrets", env=env))["ldapservers"]
    assert directory["bind_password"] == "s3cret "
    with open_session(env["AUTOMX_DB_URI"]) as session:
        entry = list(audit.entries(session))[-1]
    assert entry.actor.startswith("user:")
    assert entry.details["digest"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_plan_shows_a_change_in_the_words_of_the_command_that_makes_it(
    env: dict[str, str], tmp_path: Path
) -> None:
    automx("apply", written(tmp_path / "a.yaml", HOSTER), "--yes", env=env)
    options = [
        "--provider",
        "West",
        "--directory",
        "ldap.example.com",
        "--server",
        "1",
        "--disabled",
    ]
    printed = automx("domain", "set", "a.example", *options, "--dry-run", env=env)
    values = printed.removeprefix("Would change domain a.example: ").removesuffix(".\n")
    assert values == (
        "provider 1 (East) -> 2 (West), ldapserver_id none -> 1 (ldap.example.com), servers"
        " 1 (imap.example.com), 2 (smtp.example.com), 3 (smtp.example.com) -> 1 (imap.example.com),"
        " disabled no -> yes"
    )
    change = {"provider": "West", "ldapserver_id": 1, "servers": [1], "disabled": True}
    document = edited("servers.0.id", 1)
    document["ldapservers"][0]["id"] = 1
    document["domains"][0] |= change
    planned = automx("apply", written(tmp_path / "b.yaml", document), "--dry-run", env=env)
    line = planned.splitlines()[0].removeprefix("~ domain a.example: ")
    assert line.replace("; ", ", ") == values


def test_the_json_of_a_plan_has_three_lists(env: dict[str, str], tmp_path: Path) -> None:
    file = written(tmp_path / "a.yaml", HOSTER)
    plan = json.loads(automx("apply", file, "--json", "--yes", env=env))
    assert [each["name"] for each in plan["added"] if each["kind"] == "domain"] == [
        "a.example",
        "b.example",
        "müller.example",
    ]
    document = edited("servers.0.port", 993, edited("domains.0", ...))
    document["ldapservers"][0]["bind_password"] = "s3cret"
    printed = automx(
        "apply", "-", "--prune", "--json", "--yes", env=env, stdin=yaml.safe_dump(document)
    )
    assert "s3cret" not in printed
    plan = json.loads(printed)
    assert plan["added"] == []
    assert plan["changed"][1] == {
        "kind": "server",
        "id": 1,
        "name": "imap.example.com",
        "before": {"port": 143, "socket_type": "STARTTLS"},
        "after": {"port": 993, "socket_type": "SSL"},
    }
    assert [(each["kind"], each["id"], each["name"]) for each in plan["removed"]] == [
        ("domain", 1, "a.example")
    ]
    nothing: dict[str, list[object]] = {"added": [], "changed": [], "removed": []}
    assert (
        json.loads(automx("apply", "-", "--json", env=env, stdin=yaml.safe_dump(document)))
        == nothing
    )


def test_without_a_terminal_only_yes_is_a_yes(env: dict[str, str], tmp_path: Path) -> None:
    file = written(tmp_path / "a.yaml", HOSTER)
    result = attempt("apply", file, env=env)
    assert result.returncode == 2
    assert result.stdout.endswith(
        "Add 2 providers, 1 directory, 3 servers, 1 service, 3 domains.\n"
    )
    assert result.stderr == (
        "automx: this would add 2 providers, 1 directory, 3 servers, 1 service, 3 domains; "
        "say --yes to do it\n"
    )
    assert json.loads(automx("export", env=env))["domains"] == []


@pytest.mark.parametrize(("answer", "number"), [("y", 3), ("n", 0)])
def test_on_a_terminal_the_plan_is_shown_before_the_question(
    env: dict[str, str], tmp_path: Path, answer: str, number: int
) -> None:
    file = written(tmp_path / "a.yaml", HOSTER)
    terminal, other = pty.openpty()
    os.write(terminal, f"{answer}\n".encode())
    result = subprocess.run(
        [AUTOMX, "apply", file],
        stdin=other,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(terminal)
    os.close(other)
    assert "+ domain müller.example\n" in result.stdout
    assert result.stderr.startswith("Apply? [y/N]: ")
    assert result.returncode == (0 if number else 1)
    assert len(json.loads(automx("export", env=env))["domains"]) == number


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        ("a.yaml", "version: 2\nversion: 2\n", 'line 2, column 1: the key "version" stands twice'),
        ("a.json", "version: 2\n", "line 1, column 1 is not valid JSON: expecting value"),
        ("a.yml", "", "the document: expected an object"),
        ("a", "- 1", "the document: expected an object"),
        ("b.json/a", None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_of_error(
    env: dict[str, str], tmp_path: Path, name: str, data: str | None, error: str
) -> None:
    if data is not None:
        (tmp_path / name).write_text(data)
    result = attempt("apply", tmp_path / name, "--yes", env=env)
    assert (result.returncode, result.stdout) == (1, "")
    assert error in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("members", "error"),
    [
        (
            {"bind_password_file": "nowhere"},
            "{folder}/nowhere cannot be read: No such file or directory",
        ),
        ({"bind_password_file": "binary"}, "{folder}/binary cannot be read: not UTF-8"),
        ({"bind_password_file": 7}, "expected the name of a file, found 7"),
        (
            {"bind_password_file": "x", "bind_password": "y"},
            "expected beside no bind_password, found beside one",
        ),
    ],
)
def test_a_secret_that_cannot_be_read_is_named(
    env: dict[str, str], tmp_path: Path, members: dict[str, Any], error: str
) -> None:
    (tmp_path / "binary").write_bytes(b"\xff")
    document = edited("ldapservers.0", {"name": "a.example.com", "search_base": "", **members})
    result = attempt("apply", written(tmp_path / "a.yaml", document), env=env)
    where = "ldapservers[0].bind_password_file"
    assert result.stderr == f"automx: {where}: {error.format(folder=tmp_path)}\n"


def test_a_seed_may_be_yaml_with_an_origin(env: dict[str, str], tmp_path: Path) -> None:
    file = written(tmp_path / "a.yaml", HOSTER)
    automx("seed", file, env=env)
    assert automx("apply", file, "--prune", env=env) == "Nothing to do.\n"
    empty = edited("domains", [])
    assert automx("apply", written(file, empty), "--prune", "--dry-run", env=env).endswith(
        "Remove 3 domains.\n"
    )
