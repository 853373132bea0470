"""``automx account``: an administrator makes, looks at and deletes accounts."""

import json
import re
import subprocess
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.barcodes import decoded, drawn
from tests.commandline import attempt, automx
from tests.conftest import Execute
from tests.documents import golden
from tests.mailprogram import MailProgram, mail_program
from tests.processes import AUTOMX
from tests.terminals import answered_on_a_terminal
from tests.transcripts import replayed


@pytest.fixture
def server(tmp_path: Path) -> MailProgram:
    """A mail server of files."""
    return mail_program(tmp_path / "server")


@pytest.fixture
def env(database: Path, server: MailProgram, example: None, execute: Execute) -> dict[str, str]:
    """The settings of a service whose program makes mailboxes, with the token oneday."""
    env = {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "AUTOMX_ACCOUNT_BACKEND": "command",
        "AUTOMX_ACCOUNT_COMMAND": str(server.program),
    }
    execute(
        "INSERT INTO token VALUES (1, 'oneday', 's3cret', 'digest1', 'example.com', 'tmp.', NULL,"
        " '1d', 50, 0, NULL, 0, '', 0, '2026-01-01 00:00:00.000000')"
    )
    return env


def seconds_until(moment: str) -> float:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", moment)
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()


def test_accounts_are_made_shown_and_deleted(
    env: dict[str, str], server: MailProgram, execute: Execute
) -> None:
    execute(
        "INSERT INTO token VALUES (2, 'bob', 'secret2', 'digest2', 'example.com', '',"
        " 'bob@example.com', 'never', 1, 0, NULL, 0, 'none', 0, '2026-01-01 00:00:00.000000')"
    )
    server.add("tmp.taken@example.com", "somebody")
    server.fail_for("tmp.broken@example.com")
    transcript = replayed("account.transcript", env)
    assert transcript == golden("account.transcript")
    assert "tmp.taken@example.com" in server.addresses
    assert len(server.addresses) == 2


def test_json_of_a_new_account_has_its_password_and_the_others_do_not(
    env: dict[str, str], server: MailProgram
) -> None:
    arguments = ["account", "add", "--token=oneday", "--json"]
    made = json.loads(automx(*arguments, env=env))
    assert re.fullmatch(r"tmp\.[2345789acdefghjkmnpqrstuvwxyz]{5}@example\.com", made["address"])
    assert re.fullmatch(r"[2-9A-Za-z]{6}-[2-9A-Za-z]{6}-[2-9A-Za-z]{6}", made["password"])
    assert -60 <= seconds_until(made["created"]) <= 0
    assert -60 <= seconds_until(made["expires"]) - 86400 <= 0
    known = {
        "address": made["address"],
        "token": "oneday",
        "state": "active",
        "backend": "command",
        "created": made["created"],
        "expires": made["expires"],
        "changed": made["created"],
        "warned": None,
    }
    login = urlsplit(made["dclogin_url"])
    assert (login.scheme, login.netloc) == ("dclogin", made["address"])
    assert parse_qs(login.query) == {"p": [made["password"]], "v": ["1"]}
    login_url = made["dclogin_url"]
    assert made == known | {"password": made["password"], "dclogin_url": login_url}
    (request,) = server.requests()
    assert request == {
        "version": 1,
        "action": "create",
        "address": made["address"],
        "password": made["password"],
        "token": "oneday",
        "mark": request["mark"],
    }
    assert json.loads(automx("account", "show", made["address"], "--json", env=env)) == known
    assert json.loads(automx("account", "list", "--json", env=env)) == [known]
    result = attempt(
        "account", "del", made["address"].upper(), "x@example.com", "--yes", "--json", env=env
    )
    assert result.returncode == 1
    error = "There is no account x@example.com."
    assert result.stderr == f"automx: {error}\n"
    assert json.loads(result.stdout) == [
        {"address": made["address"], "deleted": True, "error": None},
        {"address": "x@example.com", "deleted": False, "error": error},
    ]
    assert json.loads(automx("account", "list", "--json", env=env)) == []


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("bob@example.com", "The token oneday makes addresses with tmp.… only."),
        ("tmp.@example.com", "has a dot at its beginning or end, or two in a row"),
        ("tmp..x@example.com", "has a dot at its beginning or end, or two in a row"),
        ("tmp.../x@example.com", "has a dot at its beginning or end, or two in a row"),
        ("tmp.%2fetc@example.com", "may have letters, digits and . _ + - only."),
        ("tmp.ü@example.com", "may have letters, digits and . _ + - only."),
        ("tmp.\u00b9@example.com", "has a character that is not allowed there"),
        ("tmp." + "x" * 61 + "@example.com", "the part before the @ is too long"),
    ],
)
def test_an_address_that_the_token_does_not_make_is_refused(
    env: dict[str, str], server: MailProgram, address: str, reason: str
) -> None:
    result = attempt("account", "add", "--token=oneday", address, env=env)
    assert result.returncode == (1 if reason.endswith(".") else 2)
    assert result.stderr.endswith(f"{reason}\n")
    assert server.requests() == []


def test_the_code_of_a_new_account_has_all_servers_where_a_client_guesses_others(
    env: dict[str, str], execute: Execute, tmp_path: Path
) -> None:
    card = tmp_path / "card.svg"
    arguments = ["account", "add", "--token=oneday", "--json"]
    made = json.loads(automx(*arguments, env=env))
    assert parse_qs(urlsplit(made["dclogin_url"]).query).keys() == {"p", "v"}
    execute("UPDATE server SET port = 10993 WHERE type = 'imap'")
    made = json.loads(automx(*arguments, "--qr", card, "--card", env=env))
    login = parse_qs(urlsplit(made["dclogin_url"]).query)
    assert login | {"p": ["…"]} == {
        "p": ["…"],
        "v": ["1"],
        "ih": ["imap.example.com"],
        "ip": ["10993"],
        "iu": [made["address"]],
        "is": ["ssl"],
        "sh": ["smtp.example.com"],
        "sp": ["587"],
        "su": [made["address"]],
        "ss": ["starttls"],
    }
    assert made["file"] == str(card)
    assert decoded(drawn(card)) == [made["dclogin_url"]]
    assert f"For {made['address']}." in card.read_text()
    assert card.stat().st_mode & 0o777 == 0o600


def test_a_domain_whose_servers_are_missing_still_makes_accounts(
    env: dict[str, str], execute: Execute, tmp_path: Path
) -> None:
    execute("DELETE FROM server_domain; DELETE FROM davserver_domain")
    card = tmp_path / "card.svg"
    made = json.loads(
        automx("account", "add", "--token=oneday", "--json", "--qr", card, "--card", env=env)
    )
    assert parse_qs(urlsplit(made["dclogin_url"]).query).keys() == {"p", "v"}
    assert "example.com" in card.read_text()


def test_no_account_is_made_if_its_code_cannot_be_written(
    env: dict[str, str], server: MailProgram, tmp_path: Path
) -> None:
    code = tmp_path / "missing" / "code.png"
    result = attempt("account", "add", "--token=oneday", "--qr", code, env=env)
    assert result.returncode == 1
    assert result.stderr == f"automx: {code} cannot be written: No such file or directory\n"
    assert server.requests() == []


def test_a_program_is_told_of_each_new_account(
    env: dict[str, str], server: MailProgram, tmp_path: Path
) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ncat >>{tmp_path}/told\n")
    hook.chmod(0o755)
    env["AUTOMX_ACCOUNT_CREATED_COMMAND"] = str(hook)
    made = json.loads(automx("account", "add", "--token=oneday", "--json", env=env))
    assert json.loads((tmp_path / "told").read_text()) == {
        "version": 1,
        "action": "created",
        "address": made["address"],
        "token": "oneday",
        "expires_at": made["expires"],
    }
    server.add("tmp.taken@example.com", "somebody")
    assert attempt("account", "add", "--token=oneday", "tmp.taken@example.com", env=env).returncode
    assert (tmp_path / "told").read_text().count("\n") == 1


def test_a_program_is_told_of_an_account_that_cannot_be_printed(
    env: dict[str, str], tmp_path: Path
) -> None:
    env["AUTOMX_ACCOUNT_CREATED_COMMAND"] = f"/bin/sh -c 'cat >{tmp_path}/told'"
    command = [str(AUTOMX), "account", "add", "--token=oneday", "tmp.x@example.com"]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=env, check=False)
    assert result.returncode != 0
    assert json.loads((tmp_path / "told").read_text())["address"] == "tmp.x@example.com"


def test_a_program_that_cannot_be_told_does_not_undo_the_account(
    env: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    env["AUTOMX_ACCOUNT_CREATED_COMMAND"] = "/bin/sh -c 'echo the disk is full >&2; exit 3'"
    result = attempt("account", "add", "--token=oneday", "tmp.x@example.com", env=env)
    assert result.returncode == 0
    assert caplog.messages == [
        "account_created_command, tmp.x@example.com: /bin/sh: exit status 3: the disk is full"
    ]
    assert automx("account", "show", "tmp.x@example.com", env=env)


def test_a_password_of_ones_own_reaches_the_mail_server_as_it_is(
    env: dict[str, str], server: MailProgram
) -> None:
    password = " pä\\ss\"w'&=+ "
    arguments = ["account", "add", "--token=oneday", "--password-stdin", "--json"]
    made = json.loads(automx(*arguments, env=env, stdin=f"{password}\r\n"))
    assert made["password"] == password
    assert parse_qs(urlsplit(made["dclogin_url"]).query)["p"] == [password]
    assert server.requests()[0]["password"] == password


def test_deleting_without_a_terminal_needs_a_word(env: dict[str, str], server: MailProgram) -> None:
    numbers = "123456"
    for number in numbers:
        automx("account", "add", "--token=oneday", f"tmp.{number}@example.com", env=env)
    one = attempt("account", "del", "tmp.1@example.com", env=env, stdin="y\n")
    assert (one.returncode, one.stdout) == (2, "")
    assert one.stderr == (
        "automx: this would delete 1 account with all mail: tmp.1@example.com; say --yes to do it\n"
    )
    all_of_them = [f"tmp.{number}@example.com" for number in numbers]
    several = attempt("account", "del", *all_of_them, *all_of_them, env=env)
    assert several.returncode == 2
    assert several.stderr == (
        "automx: this would delete 6 accounts with all mail: tmp.1@example.com, tmp.2@example.com,"
        " tmp.3@example.com, tmp.4@example.com, tmp.5@example.com and more; say --yes to do it\n"
    )
    assert len(server.addresses) == 6


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", 1)])
def test_on_a_terminal_a_person_is_asked(
    env: dict[str, str], server: MailProgram, answer: str, status: int
) -> None:
    automx("account", "add", "--token=oneday", "tmp.1@example.com", env=env)
    result = answered_on_a_terminal(["account", "del", "tmp.1@example.com"], env, answer)
    assert result.returncode == status
    question = "Delete 1 account with all mail: tmp.1@example.com? [y/N]: "
    assert result.stderr.replace("\r", "").startswith(question)
    assert result.stdout == ("" if status else "Deleted tmp.1@example.com.\n")
    assert server.addresses == ({"tmp.1@example.com"} if status else set())


def test_progress_is_shown_on_a_terminal(env: dict[str, str]) -> None:
    for number in "12":
        automx("account", "add", "--token=oneday", f"tmp.{number}@example.com", env=env)
    addresses = ["tmp.1@example.com", "x@example.com", "tmp.2@example.com"]
    result = answered_on_a_terminal(["account", "del", "--yes", *addresses], env, "")
    assert result.stdout == "Deleted tmp.1@example.com.\nDeleted tmp.2@example.com.\n"
    assert result.returncode == 1
    lines = re.split(r"[\r\n]+(?:\x1b\[K)?", result.stderr)
    assert "automx: There is no account x@example.com." in lines
    bars = [line for line in lines if "[" in line and "]" in line]
    counts = [re.findall(r"\d/2", bar) for bar in bars]
    assert counts == [["0/2"], ["1/2"], ["2/2"]]


def test_a_failed_deletion_leaves_the_account_and_the_others_go(
    env: dict[str, str], server: MailProgram
) -> None:
    for number in "123":
        automx("account", "add", "--token=oneday", f"tmp.{number}@example.com", env=env)
    server.fail_for("tmp.2@example.com")
    arguments = [
        "account",
        "del",
        "--yes",
        "tmp.1@example.com",
        "tmp.2@example.com",
        "tmp.3@example.com",
    ]
    result = attempt(*arguments, env=env)
    assert result.returncode == 1
    assert result.stdout == "Deleted tmp.1@example.com.\nDeleted tmp.3@example.com.\n"
    assert result.stderr == (
        "automx: tmp.2@example.com could not be deleted: account_command, find: exit status 3:"
        " the disk is full\n"
    )
    (left,) = json.loads(automx("account", "list", "--json", env=env))
    assert (left["address"], left["state"]) == ("tmp.2@example.com", "active")
    server.fail_for()
    assert (
        automx("account", "del", "--yes", "tmp.2@example.com", env=env)
        == "Deleted tmp.2@example.com.\n"
    )


def test_a_database_that_is_missing_is_told_in_one_line(
    env: dict[str, str], tmp_path: Path
) -> None:
    env["AUTOMX_DB_URI"] = f"sqlite:///{tmp_path}/missing.sqlite"
    for arguments in (["list"], ["add", "--token=oneday"], ["del", "--yes", "a@example.com"]):
        result = attempt("account", *arguments, env=env)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == (
            'automx: database: unable to open database file; was "automx db upgrade" run?\n'
        )


def test_life_of_accounts_on_each_database(any_migrated_uri: str, tmp_path: Path) -> None:
    server = mail_program(tmp_path / "server")
    env = {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": any_migrated_uri,
        "AUTOMX_ACCOUNT_BACKEND": "command",
        "AUTOMX_ACCOUNT_COMMAND": str(server.program),
    }
    automx("seed", "--sample", env=env)
    automx("token", "add", "two", "--domain=example.org", "--maxuse=2", "--prefix=", env=env)
    made = [
        json.loads(automx("account", "add", "--token=two", "--json", *address, env=env))
        for address in ([], ["alice@example.org"])
    ]
    assert server.addresses == {account["address"] for account in made}
    used_up = attempt("account", "add", "--token=two", env=env)
    assert (used_up.returncode, used_up.stdout) == (1, "")
    assert used_up.stderr == (
        "automx: The token two makes no account: used up (automx token mod two --maxuse NUMBER"
        " allows more).\n"
    )
    automx("account", "del", "--yes", *server.addresses, env=env)
    assert json.loads(automx("account", "list", "--json", env=env)) == []
    assert server.addresses == set()


def audited(env: dict[str, str]) -> list[tuple[str, str, str, str, dict[str, object]]]:
    """Return the audit without times and ids, and without what made accounts."""
    entries = json.loads(automx("audit", "list", "--json", env=env))
    members = ("actor", "action", "kind", "name", "details")
    found = [entry for entry in entries if entry["action"] != "add"]
    return [tuple(entry[member] for member in members) for entry in found]


def made_account(env: dict[str, str]) -> str:
    made = json.loads(automx("account", "add", "--token=oneday", "--json", env=env))
    return str(made["address"])


def test_the_expiry_of_an_account_can_be_changed(env: dict[str, str], execute: Execute) -> None:
    env |= {"SUDO_USER": "alice"}
    address = made_account(env)
    before = json.loads(automx("account", "show", address, "--json", env=env))
    execute("UPDATE account SET warned_at = '2026-01-01 00:00:00.000000'")
    printed = automx("account", "set", address, "--expires", "2999-12-31", env=env)
    assert printed.startswith(f"{address} expires 2999-12-31 23:59 UTC")
    after = json.loads(automx("account", "show", address, "--json", env=env))
    assert after == before | {"expires": "2999-12-31T23:59:59Z"}
    assert automx("account", "set", address, "--expires=never", env=env) == (
        f"{address} expires never.\n"
    )
    ends = [before["expires"], "2999-12-31T23:59:59Z", None]
    assert audited(env) == [
        (
            *("user:alice", "set", "account", address),
            {"before": {"expires": old}, "after": {"expires": new}},
        )
        for old, new in pairwise(ends)
    ]


@pytest.mark.parametrize("moment", ["2020-01-01", "soon", "5x"])
def test_an_expiry_must_be_a_moment_to_come(env: dict[str, str], moment: str) -> None:
    address = made_account(env)
    result = attempt("account", "set", address, "--expires", moment, env=env)
    assert (result.returncode, "Invalid value for '--expires'" in result.stderr) == (2, True)


@pytest.mark.parametrize("state", ["creating", "disabling", "disabled", "deleting", "undoing"])
def test_only_an_active_account_is_changed(
    env: dict[str, str], server: MailProgram, execute: Execute, state: str
) -> None:
    address = made_account(env)
    execute(f"UPDATE account SET state = '{state}'")
    server.requests()
    for command in (["set", address, "--expires", "never"], ["password", address]):
        result = attempt("account", *command, env=env)
        assert (result.returncode, result.stderr) == (
            1,
            f"automx: {address} is {state}: only an active account can be changed.\n",
        )
    assert server.requests() == []
    assert audited(env) == []


def test_an_account_gets_another_password(env: dict[str, str], server: MailProgram) -> None:
    env |= {"SUDO_USER": "alice"}
    address = made_account(env)
    shown = json.loads(automx("account", "password", address, "--json", env=env))
    assert re.fullmatch(r"[2-9A-Za-z]{6}-[2-9A-Za-z]{6}-[2-9A-Za-z]{6}", shown["password"])
    assert (server.folder / "passwords" / address).read_text() == f"{shown['password']}\n"
    arguments = ["account", "password", address, "--password-stdin"]
    automx(*arguments, env=env, stdin="my own\n")
    assert (server.folder / "passwords" / address).read_text() == "my own\n"
    assert audited(env) == [("user:alice", "password", "account", address, {})] * 2


def test_no_password_is_set_where_the_mailbox_is_not_ours(
    env: dict[str, str], server: MailProgram, execute: Execute
) -> None:
    address = made_account(env)
    execute("UPDATE account SET mark = 'another'")
    result = attempt("account", "password", address, env=env)
    reason = f"automx: The mailbox of {address} was not made for this account.\n"
    assert (result.returncode, result.stderr) == (1, reason)
    execute("UPDATE account SET backend = 'none'")
    result = attempt("account", "password", address, env=env)
    assert (result.returncode, "sets no passwords" in result.stderr) == (1, True)
    assert list((server.folder / "passwords").iterdir()) == []
    assert audited(env) == []
