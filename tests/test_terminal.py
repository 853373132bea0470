"""What commands print: no text of the database moves the cursor of a terminal or forges a line."""

import contextlib
import json
import sqlite3
import subprocess
from pathlib import Path

import pytest

from automx.models import metadata
from tests.commandline import attempt
from tests.conftest import Execute
from tests.processes import AUTOMX

# Control characters of ISO 6429 (C0, C1), line ends of Unicode, and controls of bidirectional text.
ODD = "\x1b[2J\x07\x7f\x85\x9b2J\u2028\u2029\u202e\u2066\u200b\r\nforged"

TOKEN = (
    "INSERT INTO token (id, name, domain, prefix, address, expiry, maxuse, usecount, valid_until,"
    " is_revoked, token, token_digest, backend, spare_active, created_at)"
    " VALUES (1, 'weekly', 'example.com', 'dc-', NULL, '1w', 0, 0, NULL, 0, 'secret', 'digest',"
    " '', 0, '2026-01-01 00:00:00.000000')"
)
ACCOUNT = (
    "INSERT INTO account (id, address, token_id, mark, backend, state, created_at,"
    " changed_at, expires_at)"
    " VALUES (1, 'dc-abcde@example.com', 1, 'mark', 'none', 'active',"
    " '2026-01-01 00:00:00.000000', '2026-01-01 00:00:00.000000', '2026-01-02 00:00:00.000000')"
)

# Those of them that may stand in a name.
IN_NAMES = "\u2028\u202e\u2066\u200bforged"

OF_ACCOUNTS = [
    ["account", "list"],
    ["token", "list", "--json"],
    ["token", "show", "weekly"],
    ["prune", "--dry-run"],
]
OF_DOMAINS = [["show", "alice@example.com"], ["check"], ["export"]]
EVERY = [
    *OF_ACCOUNTS,
    *OF_DOMAINS,
    ["account", "list", "--json"],
    ["account", "show", "dc-abcde@example.com"],
    ["token", "list"],
    ["token", "mod", "weekly", "--maxuse", "3"],
    ["token", "add", "new"],
    ["prune", "--dry-run", "--json"],
    ["dns", "example.com", "--host", "automx.example.com"],
    ["check", "--json"],
    ["domain", "list"],
    ["domain", "list", "--json"],
    ["domain", "show", "example.com", "--json"],
    ["provider", "list"],
    ["provider", "show", "1"],
    ["server", "list"],
    ["server", "set", "1", "--prio", "3"],
    ["service", "show", "1"],
    ["audit", "list"],
    ["purge"],
    ["config"],
]

TEXTS: dict[str, list[str]] = {
    table.name: [column.name for column in table.columns if column.type.python_type is str]
    for table in metadata.sorted_tables
}
OF_TOKENS = [(table, [column]) for table in ("token", "account") for column in TEXTS[table]]
DAMAGES = [*OF_TOKENS, *((table, TEXTS[table]) for table in TEXTS if table not in dict(OF_TOKENS))]


def printed(database: Path, command: list[str]) -> str:
    """Run a command, and return what it prints, which must be printable."""
    env = {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "AUTOMX_WEB_ENDPOINT": "https://mail.example.com/new_email",
    }
    result = attempt(*command, env=env)
    if "--json" in command or command == ["export"]:
        json.loads(result.stdout)
    text = result.stdout + result.stderr
    lines = text.split("\n")
    assert [line for line in lines if not line.isprintable()] == [], command
    assert [line for line in lines if line.startswith("forged")] == [], command
    return text


@pytest.mark.usefixtures("example")
def test_no_command_prints_control_characters_of_the_database(
    database: Path, execute: Execute
) -> None:
    execute(f"{TOKEN};{ACCOUNT}")
    whole = database.read_bytes()
    shown = set()
    for table, columns in DAMAGES:
        database.write_bytes(whole)
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            for column in columns:
                connection.execute(f"UPDATE OR IGNORE {table} SET {column} = {column} || ?", [ODD])
        for command in OF_ACCOUNTS if table in {"token", "account"} else OF_DOMAINS:
            if "u009b" in printed(database, command):
                shown.add(table)
    assert shown >= {"token", "davserver"}


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_no_command_prints_marks_that_disguise_a_line(
    database: Path, execute: Execute, command: list[str]
) -> None:
    execute(f"{TOKEN};{ACCOUNT}")
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for column in ("provider.name", "provider.short_name", "server.user_name"):
            table, _, name = column.partition(".")
            connection.execute(f"UPDATE {table} SET {name} = {name} || ?", [IN_NAMES])
    text = printed(database, command)
    if command[0] in {"show", "export"}:
        assert "forged" in text


def test_no_error_repeats_control_characters_of_an_argument(database: Path) -> None:
    odd = ODD.replace("\r\n", "")
    for command in (["token", "show", odd], ["show", odd], ["check", odd], [odd], ["prune", odd]):
        printed(database, command)


@pytest.mark.usefixtures("example")
def test_no_warning_of_a_command_prints_marks_of_a_program(
    database: Path, execute: Execute, tmp_path: Path
) -> None:
    execute(TOKEN)
    complaint, program = tmp_path / "complaint", tmp_path / "program"
    complaint.write_text(f"a complaint{IN_NAMES}", "utf-8")
    program.write_text(f'#!/bin/sh\ncat {complaint} >&2\necho \'{{"status": "created"}}\'\n')
    program.chmod(0o700)
    env = {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "AUTOMX_ACCOUNT_BACKEND": "command",
        "AUTOMX_ACCOUNT_COMMAND": str(program),
        "PYTHONUTF8": "1",
    }
    command = [str(AUTOMX), "account", "add", "dc-alice@example.com", "--token", "weekly"]
    made = subprocess.run(command, env=env, capture_output=True, check=True, timeout=60)
    assert made.stderr.decode().splitlines() == [
        f"automx: account_command, {action}: a complaint ���forged"
        for action in ("check", "create")
    ]
