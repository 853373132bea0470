"""The audit: each command that changes something writes one entry, which names who, what and which.

What people do with their phones, and what programs do because of the time, is no entry.
"""

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from flask import Flask

from automx.cli import main
from automx.seeddocument import SAMPLE
from tests.commandline import attempt, automx
from tests.mailprogram import mail_program
from tests.test_mailadm import mailadm_database

FILES = {
    "seed.json": {
        "version": 2,
        "provider": "New Inc.",
        "servers": [{"type": "imap", "name": "imap.new.example"}],
        "domains": [{"name": "new.example"}],
    },
    "domains.csv": "name,provider\nnew.example,1\n",
    "config.xml": """<clientConfig version="1.1"><emailProvider id="new.example">
        <domain>new.example</domain><displayName>New</displayName>
        <incomingServer type="imap"><hostname>imap.new.example</hostname><port>993</port>
        <socketType>SSL</socketType><username>%EMAILADDRESS%</username>
        <authentication>password-cleartext</authentication></incomingServer>
        <outgoingServer type="smtp"><hostname>smtp.new.example</hostname><port>465</port>
        <socketType>SSL</socketType><username>%EMAILADDRESS%</username>
        <authentication>password-cleartext</authentication></outgoingServer>
        </emailProvider></clientConfig>""",
}
SETUP = (
    "seed --sample",
    "provider add --name Spare",
    "server add --type imap --name spare.example.com",
    "service add --type caldav --url https://spare.example.com/",
    "directory add --name ldap.example.com --search-base dc=example",
    "domain add spare.example --provider Spare",
    "domain disable spare.example",
    "token add party --domain example.com",
    "token add unused --domain example.com",
    "account add tmp.guest@example.com --token party",
    "apikey add robot --role read",
)
ADDRESS = "tmp.guest@example.com"
SECRET = "s3cret-abcdefgh"


class Case(NamedTuple):
    """A command, and action, kind and name of its entry."""

    command: str
    action: str
    kind: str
    name: str
    stdin: str = f"{SECRET}\n"


CASES = (
    Case(f"account add {ADDRESS.replace('guest', 'new')} --token party --password-stdin",
         "add", "account", ADDRESS.replace("guest", "new")),
    Case("account add --token party", "add", "account", "*"),
    Case(f"account set {ADDRESS} --expires never", "set", "account", ADDRESS),
    Case(f"account password {ADDRESS} --password-stdin", "password", "account", ADDRESS),
    Case(f"account del {ADDRESS} --yes", "delete", "account", ADDRESS),
    Case("apikey add portal --role accounts", "add", "key", "portal"),
    Case("apikey rotate robot", "rotate", "key", "robot"),
    Case("apikey rotate robot --end", "set", "key", "robot"),
    Case("apikey revoke robot", "revoke", "key", "robot"),
    Case("apply seed.json --yes", "bulk", "", ""),
    Case("check --repair --yes", "repair", "", ""),
    Case("directory add --name new.example --search-base dc=x --bind-password-stdin",
         "add", "directory", "new.example"),
    Case("directory set ldap.example.com --bind-password-stdin",
         "set", "directory", "ldap.example.com"),
    Case("directory del ldap.example.com", "delete", "directory", "ldap.example.com"),
    Case("domain add new.example --provider 1", "add", "domain", "new.example"),
    Case("domain add - --provider 1", "bulk", "", "",
         "".join(f"{number}.example\n" for number in range(101))),
    Case("domain set spare.example --provider 1", "set", "domain", "spare.example"),
    Case("domain link spare.example spare.example.com", "set", "domain", "spare.example"),
    Case("domain unlink example.com 1", "set", "domain", "example.com"),
    Case("domain enable spare.example", "set", "domain", "spare.example"),
    Case("domain disable example.com", "set", "domain", "example.com"),
    Case("domain del spare.example", "delete", "domain", "spare.example"),
    Case("import-csv domains.csv", "add", "domain", "new.example"),
    Case("import-mailadm mailadm.db", "bulk", "", ""),
    Case("provider add --name New", "add", "provider", "New"),
    Case("provider set Spare --color #000000 --yes", "set", "provider", "Spare"),
    Case("provider del 9", "delete", "provider", "Alone"),
    Case("purge --yes", "bulk", "", ""),
    Case("seed seed.json", "bulk", "", ""),
    Case("server add --type imap --name new.example", "add", "server", "new.example"),
    Case("server set spare.example.com --prio 1", "set", "server", "spare.example.com"),
    Case("server del spare.example.com", "delete", "server", "spare.example.com"),
    Case("service add --type caldav --url https://new.example/",
         "add", "service", "https://new.example/"),
    Case("service set https://spare.example.com/ --user-name x",
         "set", "service", "https://spare.example.com/"),
    Case("service del https://spare.example.com/",
         "delete", "service", "https://spare.example.com/"),
    Case("token add new --domain example.com --token-stdin", "add", "token", "new"),
    Case("token mod party --maxuse 7", "set", "token", "party"),
    Case("token revoke party", "set", "token", "party"),
    Case("token del unused", "delete", "token", "unused"),
)  # fmt: skip
# Several rows of several kinds, an entry each.
SEVERAL = {"import-autoconfig", "sync"}
# Those that read only, serve, change the schema, or act because of the time.
OTHERS = {
    *("account list", "account show", "apikey list", "audit list", "completion", "config"),
    *("db current", "db downgrade", "db schema", "db upgrade", "dclogin", "dns", "export"),
    *(f"{kind} list" for kind in ("provider", "server", "service", "directory", "domain")),
    *(f"{kind} show" for kind in ("provider", "server", "service", "directory", "domain")),
    *("ldap test", "mobileconfig-qr", "names", "prune", "publish", "serve", "show"),
    *("backup", "restore"),  # tests/test_backup.py looks at the entry of an empty database
    "dns-apply",  # tests/test_dns_apply.py looks at its entries, which need a name server
    *("token list", "token qr", "token show", "web-server"),
    "quickstart",  # tests/test_quickstart.py looks at its entries, which need mail servers
}


@pytest.fixture(scope="module")
def prepared(
    empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, str]]:
    """A folder with a database with rows of each kind, and the settings of its mail server."""
    folder = tmp_path_factory.mktemp("audit")
    path = folder / "automx.sqlite"
    path.write_bytes(empty_database.read_bytes())
    server = mail_program(folder / "server")
    env = environment(path) | {
        "AUTOMX_ACCOUNT_BACKEND": "command",
        "AUTOMX_ACCOUNT_COMMAND": str(server.program),
    }
    for command in SETUP:
        automx(*command.split(), env=env)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO provider VALUES (9, 'Alone', 'Alone')")
        connection.execute("INSERT INTO server_domain VALUES (99, 99)")
    return path, env


def environment(path: Path) -> dict[str, str]:
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{path}",
        "SUDO_USER": "alice",
    }


@pytest.fixture
def env(
    prepared: tuple[Path, dict[str, str]], database: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The settings of a service with a copy of these rows; files lie in the current folder."""
    path, env = prepared
    database.write_bytes(path.read_bytes())
    monkeypatch.chdir(database.parent)
    for name, content in FILES.items():
        Path(name).write_text(content if isinstance(content, str) else json.dumps(content))
    mailadm_database(Path("mailadm.db"))
    return env | environment(database)


def entries(env: dict[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(automx("audit", "list", "--json", env=env))
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.command)
def test_a_command_that_changes_something_writes_one_entry(env: dict[str, str], case: Case) -> None:
    before = entries(env)
    result = attempt(*case.command.split(), env=env, stdin=case.stdin)
    if not case.command.startswith("check"):  # its status tells what it finds
        assert result.returncode == 0, result.stderr
    [entry] = entries(env)[len(before) :]
    name = entry["name"] if case.name == "*" else case.name
    assert (entry["actor"], entry["action"], entry["kind"], entry["name"]) == (
        "user:alice",
        case.action,
        case.kind,
        name,
    )
    assert SECRET not in json.dumps(entry)
    if case.action == "set" and case.kind not in {"key", "directory"}:
        details = entry["details"]
        assert details["before"].keys() == details["after"].keys()
        assert details["before"] != details["after"]


def leaves(group: click.Group, *names: str) -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaves(command, *names, name)
        else:
            yield " ".join((*names, name))


def test_no_command_is_forgotten() -> None:
    tested = {name for name in leaves(main) if any(c.command.startswith(f"{name} ") for c in CASES)}
    assert tested | SEVERAL | OTHERS == {*leaves(main)}
    assert not tested & (SEVERAL | OTHERS)


def test_rows_of_a_file_of_autoconfig_have_an_entry_each(env: dict[str, str]) -> None:
    before = len(entries(env))
    automx("import-autoconfig", "config.xml", "--yes", env=env)
    found = [(e["actor"], e["action"], e["kind"]) for e in entries(env)[before:]]
    kinds = ["provider", "server", "server", "domain"]
    assert found == [("user:alice", "add", kind) for kind in kinds]


@pytest.mark.parametrize(
    "command",
    [
        "account del nobody@example.com --yes",
        "account add bob@example.com --token party",
        "token mod party --maxuse 50",
        "token del party",
        "token add party --domain example.com",
        "token mod party --prefix ..",
        "import-mailadm mailadm.db --dry-run",
        "prune",
        "domain enable example.com",
        "server del spare.example.com --dry-run",
    ],
)
def test_what_changes_nothing_or_is_refused_is_no_entry(env: dict[str, str], command: str) -> None:
    before = entries(env)
    attempt(*command.split(), env=env)
    assert entries(env) == before


def test_an_import_that_is_repeated_is_no_entry(env: dict[str, str]) -> None:
    automx("import-mailadm", "mailadm.db", env=env)
    once = entries(env)
    assert once[-1]["details"]["numbers"] == {"add": {"token": 1}}
    automx("import-mailadm", "mailadm.db", env=env)
    assert entries(env) == once


def test_the_audit_of_tokens_and_accounts_has_values_before_and_after(env: dict[str, str]) -> None:
    automx("token", "mod", "party", "--maxuse", "7", "--expiry", "2w", env=env)
    automx("account", "del", ADDRESS, "--yes", env=env)
    changed, deleted = (entry["details"] for entry in entries(env)[-2:])
    assert changed == {
        "before": {"expiry": "1d", "maxuse": 50},
        "after": {"expiry": "2w", "maxuse": 7},
    }
    assert deleted["before"].keys() == {"made_by", "expires"}
    assert deleted["before"]["made_by"] == "party"


def test_a_phone_and_the_end_of_an_account_are_no_entries(
    env: dict[str, str], make_app: Callable[..., Flask]
) -> None:
    shown = json.loads(automx("token", "show", "party", "--json", env=env))
    before = entries(env)
    phone = make_app(account_backend="none").test_client()
    made = phone.post(f"/new_email?t={shown['token']}")
    assert made.status_code == 200
    automx("prune", "--now", "2999-12-31", env=env)
    assert json.loads(automx("account", "list", "--json", env=env)) == []
    assert entries(env) == before


def test_changes_by_initdb_have_the_actor_initdb(
    database: Path, make_app: Callable[..., Flask]
) -> None:
    client = make_app(initdb_token="token").test_client()
    headers = {"Authorization": "Bearer token"}
    assert client.get("/initdb/", headers=headers).status_code == 200
    assert client.delete("/initdb/", headers=headers).status_code == 200
    assert client.post("/initdb/", json=SAMPLE, headers=headers).status_code == 200
    found = [(entry["actor"], entry["action"]) for entry in entries(environment(database))]
    assert found == [("initdb", "bulk")] * 3


@pytest.mark.parametrize("details", ["", "no JSON", "[1]", "7", "[" * 100_000, "\x1b[2J"])
def test_an_entry_that_is_no_object_is_shown_as_text(env: dict[str, str], details: str) -> None:
    path = env["AUTOMX_DB_URI"].removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE audit SET details = ?", [details])
    entries = json.loads(automx("audit", "list", "--json", env=env))
    assert {entry["details"]["text"] for entry in entries} == {details}
    assert automx("audit", "list", env=env).count("\n") == len(entries) + 1
