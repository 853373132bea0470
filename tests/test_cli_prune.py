"""``automx prune``: what is done for accounts as time passes, and what is told of it."""

import json
import os
import pty
import re
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.commandline import attempt, automx
from tests.conftest import Execute
from tests.mailcow import MEBIBYTE, Domain, running_mailcow
from tests.mailprogram import MailProgram, mail_program
from tests.processes import AUTOMX

NOW = "--now=2026-12-10T12:00Z"
STAYS = "(its mailbox was not made for it, and stays, token week)"


@pytest.fixture
def server(tmp_path: Path) -> MailProgram:
    """A mail server of files."""
    return mail_program(tmp_path / "server")


@pytest.fixture
def hook(tmp_path: Path) -> MailProgram:
    """Who is told of accounts that will end: the same program, since it notes what it is told."""
    return mail_program(tmp_path / "hook")


@pytest.fixture
def env(
    database: Path, server: MailProgram, hook: MailProgram, execute: Execute, example: None
) -> dict[str, str]:
    """The settings of a service that warns two days before, and deletes a day after expiry."""
    execute(
        "INSERT INTO token VALUES (1, 'week', 's1', 'd1', 'example.com', 'tmp.', NULL,"
        " '1w', 50, 12, NULL, 0, '', 0, '2026-01-01 00:00:00.000000')"
    )
    execute(
        "INSERT INTO token VALUES (2, 'long', 's2', 'd2', 'example.com', 'tmp.', NULL,"
        " '4w', 50, 3, NULL, 0, '', 1, '2026-01-01 00:00:00.000000')"
    )
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "AUTOMX_ACCOUNT_BACKEND": "command",
        "AUTOMX_ACCOUNT_COMMAND": str(server.program),
        "AUTOMX_ACCOUNT_WARN_BEFORE": "2d",
        "AUTOMX_ACCOUNT_WARN_COMMAND": str(hook.program),
        "AUTOMX_ACCOUNT_GRACE": "1d",
    }


Add = Callable[..., str]


@pytest.fixture
def add(execute: Execute, server: MailProgram) -> Add:
    """Insert an account with its mailbox; times are of December 2026."""

    def add(
        name: str,
        state: str = "active",
        *,
        expires: str | None = "20 12:00",
        changed: str = "01 12:00",
        token: int = 1,
        last_login: str | None = None,
        has_mailbox: bool = True,
    ) -> str:
        address = f"{name}@example.com"
        expiry = f"'2026-12-{expires}:00.000000'" if expires else "NULL"
        execute(
            "INSERT INTO account (address, token_id, mark, backend, state, created_at, expires_at,"
            f" changed_at) VALUES ('{address}', {token}, 'mark-{name}', 'command', '{state}',"
            f" '2026-12-01 12:00:00.000000', {expiry}, '2026-12-{changed}:00.000000')"
        )
        login = last_login and datetime.fromisoformat(f"2026-12-{last_login}").replace(tzinfo=UTC)
        if has_mailbox:
            server.add(address, f"mark-{name}", int(login.timestamp()) if login else None)
        return address

    return add


@pytest.fixture
def accounts(database: Path) -> Callable[[], list[tuple[Any, ...]]]:
    """Return name, state and the times of expiry and warning of all accounts."""

    def read() -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(database)) as connection:
            query = (
                "SELECT substr(address, 1, instr(address, '@') - 1), state,"
                " substr(expires_at, 9, 8), substr(warned_at, 9, 8) FROM account ORDER BY id"
            )
            return connection.execute(query).fetchall()

    return read


Read = Callable[[], list[tuple[Any, ...]]]


def test_everything_is_done_and_told_step_by_step(
    env: dict[str, str], server: MailProgram, hook: MailProgram, add: Add, accounts: Read
) -> None:
    add("cut", "creating", changed="10 11:00")
    add("failed", "undoing", changed="10 11:00", has_mailbox=False)
    add("working", "creating", changed="10 11:50")
    add("ending", expires="11 18:30")
    add("expired", expires="10 12:00")
    add("loyal", token=2, expires="10 11:00", last_login="08 09:00:00")
    add("gone", token=2, expires="10 11:00", has_mailbox=False)
    add("unknown", token=2, expires="10 11:00")
    add("disabled", "disabled", expires="09 11:00", changed="09 12:00")
    add("waiting", "disabled", expires="09 13:00", changed="09 13:00")
    add("stuck", "deleting", expires="02 00:00", changed="10 11:00")
    add("later", expires="20 12:00")
    add("immortal", expires=None)
    before = accounts()

    dry = automx("prune", "--dry-run", NOW, env=env)
    assert accounts() == before
    assert {request["action"] for request in server.requests()} == {"find"}
    assert hook.requests() == []
    done = automx("prune", NOW, env=env)
    lines = [
        "clean up cut@example.com (its creation was interrupted, token week)",
        "clean up failed@example.com (its creation failed, token week)",
        "warn ending@example.com (expires 2026-12-11 18:30 UTC, token week)",
        (
            "disable expired@example.com (expired 2026-12-10 12:00 UTC; to be deleted"
            " 2026-12-11 12:00 UTC, token week)"
        ),
        "prolong loyal@example.com (may still be in use; until 2027-01-05 09:00 UTC, token long)",
        (
            "disable gone@example.com (expired 2026-12-10 11:00 UTC; to be deleted"
            " 2026-12-11 12:00 UTC, token long)"
        ),
        "prolong unknown@example.com (may still be in use; until 2027-01-07 12:00 UTC, token long)",
        "delete disabled@example.com (expired 2026-12-09 11:00 UTC, token week)",
        "delete stuck@example.com (its deletion was interrupted, token week)",
    ]
    assert dry.splitlines() == [
        *(f"would {line}" for line in lines),
        "Would warn 1, prolong 2, disable 2, delete 2, clean up 2.",
    ]
    past = {"clean": "cleaned", "warn": "warned", "disable": "disabled"}
    past |= {"prolong": "prolonged", "delete": "deleted"}
    verbs = (line.partition(" ") for line in lines)
    assert done.splitlines() == [
        *(f"{past[verb]} {rest}" for verb, _, rest in verbs),
        "1 warned, 2 prolonged, 2 disabled, 2 deleted, 2 cleaned up.",
    ]
    assert accounts() == [
        ("working", "creating", "20 12:00", None),
        ("ending", "active", "11 18:30", "10 12:00"),
        ("expired", "disabled", "10 12:00", None),
        ("loyal", "active", "05 09:00", None),
        ("gone", "disabled", "10 11:00", None),
        ("unknown", "active", "07 12:00", None),
        ("waiting", "disabled", "09 13:00", None),
        ("later", "active", "20 12:00", None),
        ("immortal", "active", None, None),
    ]
    gone = {"cut", "failed", "gone", "disabled", "stuck"}
    left = {account[0] for account in before} - gone
    assert {address.partition("@")[0] for address in server.addresses} == left
    assert hook.requests() == [
        {
            "version": 1,
            "action": "warn",
            "address": "ending@example.com",
            "token": "week",
            "expires_at": "2026-12-11T18:30:00Z",
            "seconds_left": 30.5 * 3600,
        }
    ]
    server.requests()
    assert automx("prune", NOW, env=env) == "Nothing to do.\n"
    assert automx("prune", "--dry-run", NOW, env=env) == "Nothing to do.\n"
    assert (server.requests(), hook.requests()) == ([], [])
    assert automx("prune", "--now=2026-12-10 14:00", env=env) == (
        "cleaned up working@example.com (its creation was interrupted, token week)\n"
        "deleted waiting@example.com (expired 2026-12-09 13:00 UTC, token week)\n"
        "1 deleted, 1 cleaned up.\n"
    )


def test_what_fails_is_told_and_tried_again(
    env: dict[str, str], server: MailProgram, hook: MailProgram, add: Add, accounts: Read
) -> None:
    add("ending", expires="11 18:30")
    first = add("first", "disabled", expires="09 11:00", changed="09 12:00")
    add("second", "disabled", expires="09 11:00", changed="09 12:00")
    server.fail_for(first)
    hook.fail_for("ending@example.com")
    result = attempt("prune", NOW, env=env)
    assert result.returncode == 1
    assert result.stdout == (
        "deleted second@example.com (expired 2026-12-09 11:00 UTC, token week)\n"
        "1 deleted, 2 failed.\n"
    )
    assert result.stderr == (
        f"automx: could not warn ending@example.com (token week): {hook.program}: exit status 3:"
        " the disk is full\n"
        f"automx: could not delete first@example.com (token week): account_command, find: exit"
        " status 3: the disk is full\n"
    )
    again = attempt("prune", NOW, env=env)
    assert (again.returncode, again.stdout, again.stderr) == (1, "2 failed.\n", result.stderr)
    assert accounts() == [
        ("ending", "active", "11 18:30", None),
        ("first", "disabled", "09 11:00", None),
    ]
    server.fail_for()
    hook.fail_for()
    assert automx("prune", NOW, env=env) == (
        "warned ending@example.com (expires 2026-12-11 18:30 UTC, token week)\n"
        "deleted first@example.com (expired 2026-12-09 11:00 UTC, token week)\n"
        "1 warned, 1 deleted.\n"
    )


def test_json_tells_each_step(env: dict[str, str], server: MailProgram, add: Add) -> None:
    add("ending", expires="11 18:30")
    add("loyal", token=2, expires="10 11:00", last_login="08 09:00:00")
    server.fail_for(add("broken", "deleting", expires=None, changed="10 11:00"))
    result = attempt("prune", NOW, "--json", env=env)
    assert result.returncode == 1
    error = "account_command, find: exit status 3: the disk is full"
    assert result.stderr == (f"automx: could not delete broken@example.com (token week): {error}\n")
    assert json.loads(result.stdout) == {
        "now": "2026-12-10T12:00:00Z",
        "dry_run": False,
        "failed": 1,
        "steps": [
            {
                "action": "warn",
                "address": "ending@example.com",
                "token": "week",
                "expires": "2026-12-11T18:30:00Z",
                "error": None,
            },
            {
                "action": "prolong",
                "address": "loyal@example.com",
                "token": "long",
                "expires": "2027-01-05T09:00:00Z",
                "error": None,
            },
            {
                "action": "delete",
                "address": "broken@example.com",
                "token": "week",
                "expires": None,
                "error": error,
            },
        ],
        "audit_entries": 0,
    }
    nothing = json.loads(automx("prune", "--now=2026-12-01", "--dry-run", "--json", env=env))
    assert nothing == {
        "now": "2026-12-01T00:00:00Z",
        "dry_run": True,
        "failed": 0,
        "steps": [],
        "audit_entries": 0,
    }


def test_old_entries_of_the_audit_are_deleted_by_the_real_time(
    env: dict[str, str], execute: Execute
) -> None:
    execute("DELETE FROM audit")
    now = datetime.now(UTC)
    for days in (1, 29, 31, 400):
        at = (now - timedelta(days=days)).strftime("%Y-%m-%d %H:%M:%S")
        execute(
            "INSERT INTO audit (at, actor, action, kind, name, details)"
            f" VALUES ('{at}', 'user:root', 'add', 'domain', 'd{days}.test', '{{}}')"
        )
    env = env | {"AUTOMX_AUDIT_DAYS": "30"}
    line = "2 entries of the audit that are older than 30 days\n"
    assert automx("prune", "--dry-run", env=env).startswith(f"would delete {line}")
    assert automx("prune", "--now=2099-01-01", env=env).startswith(f"deleted {line}")
    left = json.loads(automx("audit", "list", "--json", env=env))
    assert sorted(entry["name"] for entry in left) == ["d1.test", "d29.test"]
    assert "audit" not in automx("prune", env=env | {"AUTOMX_AUDIT_DAYS": "0"})


def test_what_is_left_in_mailcow_is_not_told_as_deleted(
    env: dict[str, str], add: Add, execute: Execute
) -> None:
    """One mailbox is deleted without its mail; another one is somebody else's by now."""
    add("left", "disabled", expires="09 11:00", changed="09 12:00")
    add("hers", "disabled", expires="09 11:00", changed="09 12:00")
    add("full", expires="09 11:00")
    execute("UPDATE account SET backend = 'mailcow'")
    with running_mailcow() as mailcow:
        env |= {"AUTOMX_MAILCOW_ENDPOINT": mailcow.url, "AUTOMX_MAILCOW_TOKEN": mailcow.key}
        mailcow.domains["example.com"] = Domain(maxquota=10)
        mailcow.add("left@example.com", tags=("automx-account:mark-left",))
        mailcow.add("hers@example.com", tags=("automx:week",))
        mailcow.add("full@example.com", tags=("automx-account:mark-full",), quota=50 * MEBIBYTE)
        mailcow.maildir_trouble = "command failed"

        assert automx("prune", "--dry-run", NOW, env=env).splitlines() == [
            "would delete left@example.com (expired 2026-12-09 11:00 UTC, token week)",
            f"would forget hers@example.com {STAYS}",
            (
                "would disable full@example.com (expired 2026-12-09 11:00 UTC; to be deleted"
                " 2026-12-11 12:00 UTC, token week)"
            ),
            "Would disable 1, delete 1, forget 1.",
        ]
        result = attempt("prune", NOW, env=env)

        assert (result.returncode, result.stdout.splitlines()) == (
            1,
            [
                f"forgotten hers@example.com {STAYS}",
                (
                    "disabled full@example.com (expired 2026-12-09 11:00 UTC; to be deleted"
                    " 2026-12-11 12:00 UTC, token week)"
                ),
                "1 disabled, 1 forgotten, 1 failed.",
            ],
        )
        assert (
            "automx: could not delete left@example.com (token week): the mailbox left@example.com"
            " is deleted, but its mail is still on the disk of mailcow: "
            '["Could not move maildir to garbage collector: command failed"]\n'
        ) in result.stderr
        assert sorted(mailcow.mailboxes) == ["full@example.com", "hers@example.com"]
        assert mailcow.mailboxes["hers@example.com"]["active"] == 1
        assert automx("prune", NOW, env=env) == "Nothing to do.\n"

        mailcow.maildir_trouble = None
        assert automx("prune", "--now=2026-12-11T12:00", env=env).endswith("1 deleted.\n")
        assert sorted(mailcow.mailboxes) == ["hers@example.com"]


def test_without_a_grace_period_expired_accounts_are_deleted_at_once(
    env: dict[str, str], server: MailProgram, add: Add
) -> None:
    add("expired", expires="10 12:00")
    env["AUTOMX_ACCOUNT_GRACE"] = "0s"
    assert automx("prune", NOW, env=env) == (
        "deleted expired@example.com (expired 2026-12-10 12:00 UTC, token week)\n1 deleted.\n"
    )
    assert server.addresses == set()


def test_the_time_is_the_real_one_unless_another_is_given(
    env: dict[str, str], add: Add, execute: Execute
) -> None:
    execute("UPDATE token SET expiry = 'never' WHERE id = 1")
    add("old", expires="01 00:00")
    add("new", expires="02 00:00")
    execute("UPDATE account SET expires_at = '2020-01-01 00:00:00.000000' WHERE id = 1")
    execute("UPDATE account SET expires_at = '2999-01-01 00:00:00.000000' WHERE id = 2")
    assert re.fullmatch(
        r"disabled old@example\.com \(expired 2020-01-01 00:00 UTC; to be deleted .{20}, token"
        r" week\)\n1 disabled\.\n",
        automx("prune", env=env),
    )
    for option, complaint in {
        "--now=soon": "'soon' is no time such as 2026-12-31 or 2026-12-31T18:00Z.",
        "--now=1999-12-31": "'1999-12-31' is not between 2000 and 2999.",
    }.items():
        result = attempt("prune", option, env=env)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.endswith(f"automx: Invalid value for '--now': {complaint}\n")


def test_a_warning_that_nobody_can_send_is_noticed(env: dict[str, str], add: Add) -> None:
    add("ending", expires="11 18:30")
    del env["AUTOMX_ACCOUNT_WARN_COMMAND"]
    result = attempt("prune", NOW, env=env)
    assert (result.returncode, result.stdout) == (0, "Nothing to do.\n")
    assert result.stderr == (
        "automx: account_warn_before has no effect: account_warn_command is not set\n"
    )


def test_a_backend_without_settings_is_told(env: dict[str, str], add: Add) -> None:
    add("expired", expires="10 12:00")
    del env["AUTOMX_ACCOUNT_COMMAND"]
    result = attempt("prune", NOW, env=env)
    assert (result.returncode, result.stdout) == (1, "1 failed.\n")
    assert result.stderr == (
        "automx: could not disable expired@example.com (token week): account_command is empty:"
        " account_backend = command runs it\n"
    )


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_progress_is_shown_on_a_terminal_only(
    env: dict[str, str], add: Add, options: list[str]
) -> None:
    for name in "abc":
        add(name, expires="10 12:00")
    ours, terminal = pty.openpty()
    process = subprocess.Popen(
        [AUTOMX, "prune", NOW, *options],
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={**os.environ, **env, "TERM": "xterm", "COLUMNS": "80"},
        text=True,
    )
    os.close(terminal)
    output, _ = process.communicate()
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert process.returncode == 0
    assert re.findall(r"\d/3", shown) == ["0/3", "1/3", "2/3", "3/3"]
    assert "\x1b" not in output
    assert "/3" not in output


def test_accounts_end_on_each_database(any_migrated_uri: str, tmp_path: Path) -> None:
    server = mail_program(tmp_path / "server")
    env = {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": any_migrated_uri,
        "AUTOMX_ACCOUNT_BACKEND": "command",
        "AUTOMX_ACCOUNT_COMMAND": str(server.program),
        "AUTOMX_ACCOUNT_GRACE": "1w",
    }
    automx("seed", "--sample", env=env)
    automx("token", "add", "oneday", "--domain=example.org", env=env)
    made = json.loads(automx("account", "add", "--token=oneday", "--json", env=env))
    address, expires = made["address"], datetime.fromisoformat(made["expires"])
    text = f"{expires:%Y-%m-%d %H:%M} UTC"
    assert automx("prune", env=env) == "Nothing to do.\n"
    later = "--now=2999-01-01"
    assert automx("prune", later, env=env) == (
        f"disabled {address} (expired {text}; to be deleted 2999-01-08 00:00 UTC, token oneday)\n"
        "1 disabled.\n"
    )
    shown = automx("account", "show", address, env=env)
    assert "State    disabled (expired; login is blocked)\n" in shown
    assert automx("prune", later, env=env) == "Nothing to do.\n"
    assert automx("prune", "--now=2999-01-08", env=env) == (
        f"deleted {address} (expired {text}, token oneday)\n1 deleted.\n"
    )
    assert server.addresses == set()
    assert json.loads(automx("account", "list", "--json", env=env)) == []
    assert automx("token", "del", "oneday", env=env) == "Deleted the token oneday.\n"


def test_a_run_notes_when_and_how_it_has_ended(
    env: dict[str, str], database: Path, add: Add, execute: Execute
) -> None:
    def noted() -> list[tuple[str, str]]:
        with closing(sqlite3.connect(database)) as connection:
            query = "SELECT holder, until FROM lease WHERE name = 'prune'"
            return connection.execute(query).fetchall()

    automx("prune", "--dry-run", env=env)
    assert noted() == []
    automx("prune", "--now", "2099-12-31", env=env)
    [(outcome, first)] = noted()
    assert (outcome, first < "2099") == ("done", True)
    execute("UPDATE lease SET until = '2026-01-01 00:00:00'")
    add("expired", expires="10 12:00")
    assert attempt("prune", NOW, env=env | {"AUTOMX_ACCOUNT_COMMAND": "/bin/false"}).returncode == 1
    [(outcome, second)] = noted()
    assert (outcome, second >= first) == ("failed", True)
