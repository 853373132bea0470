"""``automx token``: an administrator makes tokens, looks at them, changes and withdraws them."""

import json
import os
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from automx.cli import COMMANDS, MAILADM, main
from tests.barcodes import decoded, drawn
from tests.commandline import attempt, automx
from tests.conftest import Execute
from tests.documents import golden
from tests.processes import AUTOMX, REPOSITORY
from tests.transcripts import replayed, steady

DAY = 86400


@pytest.fixture
def env(database: Path) -> dict[str, str]:
    """The settings of a service for Delta Chat, on the test's database."""
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "AUTOMX_WEB_ENDPOINT": "https://mail.example.com/new_email",
    }


def insert_tokens(execute: Execute, *rows: str) -> None:
    """Insert tokens; a row says what stands in the columns from name to is_revoked."""
    for number, row in enumerate(rows):
        execute(
            "INSERT INTO token (name, domain, prefix, address, expiry, maxuse, usecount,"
            " valid_until, is_revoked, token, token_digest, backend, spare_active, created_at)"
            f" VALUES ({row}, 'secret{number}', '{number}', '', 0, {days_from_now(0)})"
        )


def days_from_now(days: int) -> str:
    return f"'{datetime.now(UTC) + timedelta(days):%Y-%m-%d %H:%M:%S}.000000'"


def seconds_until(moment: str) -> float:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", moment)
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()


@pytest.mark.usefixtures("example")
def test_tokens_are_made_shown_changed_withdrawn_and_deleted(env: dict[str, str]) -> None:
    assert replayed("token.transcript", env) == golden("token.transcript")


@pytest.mark.usefixtures("example")
def test_what_cannot_be_done_is_told_and_changes_nothing(
    env: dict[str, str], execute: Execute
) -> None:
    insert_tokens(
        execute,
        "'oneday', 'example.com', 'tmp.', NULL, '1d', 50, 3, NULL, 0",
        "'bob', 'example.com', '', 'bob@example.com', 'never', 1, 0, NULL, 0",
    )
    assert replayed("token-errors.transcript", env) == golden("token-errors.transcript")


@pytest.mark.usefixtures("example")
def test_rows_that_cannot_be_read_are_named_and_hide_no_others(
    env: dict[str, str], execute: Execute, caplog: pytest.LogCaptureFixture
) -> None:
    insert_tokens(
        execute,
        "'good', 'example.com', '', NULL, '1d', 50, 3, NULL, 0",
        "'late', 'example.com', '', NULL, '1d', 50, 0, 'soon', 0",
        "'a' || char(27) || '[2Jb', 'example.com', '', NULL, '1d', 50, 0, NULL, 0",
    )
    moment = days_from_now(0)
    execute(
        f"INSERT INTO account VALUES (1, 'x@example.com', 1, 'm', 'none', 'active', {moment},"
        f" NULL, {moment}, NULL), (2, 'y' || char(7) || '@example.com', 1, 'm', 'none', 'active',"
        f" {moment}, NULL, {moment}, NULL)"
    )
    result = attempt("token", "list", env=env)
    assert (result.returncode, len(result.stdout.splitlines())) == (0, 2)
    assert caplog.messages == [
        (
            "table token, id 3: name: expected a text of 1 to 64 characters without blanks and"
            ' ? # / % \\, found "a\\u001b[2Jb"; this row is left out'
        ),
        (
            "table token, id 2: valid_until: expected a moment with its time zone, or null, found "
            '"soon"; this row is left out'
        ),
    ]
    caplog.clear()
    result = attempt("account", "list", env=env)
    assert (result.returncode, len(result.stdout.splitlines())) == (0, 2)
    assert caplog.text.endswith(
        'table account, id 2: address: expected a mail address such as "guest@example.com", with'
        ' letters, digits and . _ + - before the @, found "y\\u0007@example.com"; this row is left'
        " out\n"
    )
    result = attempt("check", env=env)
    assert result.returncode == 2
    for row in ("table token, id 2: valid_until", "table token, id 3: name", "table account, id 2"):
        assert f"error    -  {row}: " in result.stdout


@pytest.mark.usefixtures("example")
def test_errors_are_no_output(env: dict[str, str]) -> None:
    result = attempt("token", "show", "nobody", "--json", env=env)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "automx: There is no token nobody.\n"


@pytest.mark.usefixtures("example")
def test_json_of_a_token_has_mailadms_words_and_the_text_of_its_qr_code(
    env: dict[str, str],
) -> None:
    options = ["--valid-until", "30d", "--token-stdin", "--json"]
    document = json.loads(automx("token", "add", "oneday", *options, env=env, stdin="s3cret"))
    assert -60 <= seconds_until(document["valid_until"]) - 30 * DAY <= 0
    assert -60 <= seconds_until(document["created"]) <= 0
    assert document == {
        "name": "oneday",
        "token": "s3cret",
        "expiry": "1d",
        "prefix": "tmp.",
        "maxuse": 50,
        "usecount": 0,
        "domain": "example.com",
        "address": None,
        "valid_until": document["valid_until"],
        "revoked": False,
        "backend": None,
        "spare_active": False,
        "created": document["created"],
        "dcaccount": "DCACCOUNT:https://mail.example.com/new_email?t=s3cret&n=oneday",
    }
    for command in (["show", "oneday"], ["qr", "oneday"]):
        assert json.loads(automx("token", *command, "--json", env=env)) == document
    assert json.loads(automx("token", "list", "--json", env=env)) == [document]
    automx("account", "add", "--token=oneday", env=env)
    document["usecount"] = 1
    for arguments, changes in [
        (["mod", "oneday", "--expiry=never"], {"expiry": "never"}),
        (["mod", "oneday", "--spare-active", "--prefix="], {"spare_active": True, "prefix": ""}),
        (["mod", "oneday", "--valid-until=2999-12-31"], {"valid_until": "2999-12-31T23:59:59Z"}),
        (["mod", "oneday", "--maxuse=9", "--backend=mailcow"], {"maxuse": 9, "backend": "mailcow"}),
        (["mod", "oneday", "--valid-until=never"], {"valid_until": None}),
        (["mod", "oneday", "--backend=default"], {"backend": None}),
        (["revoke", "oneday"], {"revoked": True}),
    ]:
        document.update(changes)
        assert json.loads(automx("token", *arguments, "--json", env=env)) == document
    automx("account", "del", "--yes", *addresses(env), env=env)
    assert json.loads(automx("token", "del", "oneday", "--json", env=env)) == document
    assert json.loads(automx("token", "list", "--json", env=env)) == []


def addresses(env: dict[str, str]) -> list[str]:
    accounts = json.loads(automx("account", "list", "--json", env=env))
    return [account["address"] for account in accounts]


@pytest.mark.usefixtures("example")
def test_without_a_public_url_there_is_no_text_for_a_qr_code(env: dict[str, str]) -> None:
    env["AUTOMX_WEB_ENDPOINT"] = ""
    added = json.loads(automx("token", "add", "oneday", "--json", env=env))
    assert added["dcaccount"] is None
    assert automx("token", "show", "oneday", env=env).endswith(
        "QR text       none: the setting web_endpoint must be an https URL first\n"
    )


@pytest.mark.usefixtures("example")
def test_random_secrets_are_long_and_differ(env: dict[str, str]) -> None:
    secrets = {
        json.loads(automx("token", "add", name, "--json", env=env))["token"] for name in "abc"
    }
    assert len(secrets) == 3
    assert all(re.fullmatch("[2345789acdefghjkmnpqrstuvwxyz]{24}", secret) for secret in secrets)


@pytest.mark.usefixtures("example")
def test_the_list_says_in_words_what_each_token_makes_and_for_how_long(
    env: dict[str, str], execute: Execute
) -> None:
    insert_tokens(
        execute,
        "'oneday', 'example.com', 'tmp.', NULL, '1d', 50, 3, NULL, 0",
        "'fair', 'example.com', '', NULL, '12h', 0, 7, " + days_from_now(3) + ", 0",
        "'past', 'example.com', 'x-', NULL, '1y', 5, 1, " + days_from_now(-3) + ", 0",
        "'gone', 'example.com', 'tmp.', NULL, 'never', 5, 1, NULL, 1",
        "'full', 'example.net', 'tmp.', NULL, '1d', 5, 5, NULL, 0",
        "'alice', 'example.com', '', 'alice@example.com', 'never', 1, 1, NULL, 0",
    )
    printed = automx("token", "list", env=env)
    assert steady(printed) == (
        "Name    Addresses          Expiry  Uses              State\n"
        "alice   alice@example.com  never   1 of 1 used       used up\n"
        "fair    …@example.com      12h     7 used, no limit"
        "  usable until 2026-11-20 10:00 UTC (in 3 days)\n"
        "full    tmp.…@example.net  1d      5 of 5 used       used up\n"
        "gone    tmp.…@example.com  never   1 of 5 used       revoked\n"
        "oneday  tmp.…@example.com  1d      3 of 50 used      usable\n"
        "past    x-…@example.com    1y      1 of 5 used"
        "       valid until 2026-11-20 10:00 UTC (3 days ago)\n"
    )
    assert "secret" not in printed
    states = {
        "past": "valid until 2026-11-20 10:00 UTC (3 days ago)"
        " (automx token mod past --valid-until DATE prolongs it)",
        "gone": "revoked (automx token mod gone --unrevoke takes that back)",
        "full": "used up (automx token mod full --maxuse NUMBER allows more)",
        "alice": "used up (it makes one mailbox, once)",
    }
    for name, state in states.items():
        assert f"State         {state}\n" in steady(automx("token", "show", name, env=env))


def test_the_domain_must_be_named_unless_there_is_exactly_one(
    env: dict[str, str], execute: Execute
) -> None:
    def answer() -> str:
        result = attempt("token", "add", "x", env=env)
        assert result.stdout == ""
        return f"{result.stderr.splitlines()[-1]} [{result.returncode}]"

    none = (
        "automx: The database names no domain yet: add one first, so that Delta Chat finds its mail"
        " servers (automx domain add). [1]"
    )
    assert answer() == none
    execute("INSERT INTO provider VALUES (1, 'Example Inc.', 'Example')")
    execute("INSERT INTO domain VALUES (1, '*.example.com', 1, NULL), (2, '*', 1, NULL)")
    assert answer() == none
    execute("INSERT INTO domain VALUES (3, 'one.example', 1, NULL), (4, 'two.example', 1, NULL)")
    assert answer() == (
        "automx: Say which domain, as in --domain one.example: there are one.example, two.example."
        " [2]"
    )
    for number in range(5, 9):
        execute(f"INSERT INTO domain VALUES ({number}, '{number}.example', 1, NULL)")
    assert answer() == (
        "automx: Say which domain, as in --domain 5.example: there are 5.example, 6.example,"
        " 7.example, 8.example, one.example and more. [2]"
    )
    execute("DELETE FROM domain WHERE id > 3")
    added = json.loads(automx("token", "add", "x", "--json", env=env))
    assert added["domain"] == "one.example"


@pytest.mark.usefixtures("example")
def test_the_qr_code_of_a_token_is_printed_written_and_put_on_a_card(
    env: dict[str, str], tmp_path: Path
) -> None:
    text = "DCACCOUNT:https://mail.example.com/new_email?t=s3cret&n=oneday"
    options = ["--valid-until=2999-12-31", "--token-stdin"]
    automx("token", "add", "oneday", *options, env=env, stdin="s3cret")
    printed = automx("token", "qr", "oneday", env=env)
    assert printed.startswith(f"{text}\n\n█")
    assert len(printed.splitlines()) > 20
    png, svg = tmp_path / "oneday.png", tmp_path / "oneday.svg"
    assert automx("token", "qr", "oneday", "--output", png, env=env) == f"Wrote {png}.\n"
    assert decoded(png) == [text]
    assert automx("token", "qr", "oneday", "--card", "--output", svg, env=env) == f"Wrote {svg}.\n"
    assert decoded(drawn(svg)) == [text]
    card = " ".join(re.sub("<[^>]*>", " ", svg.read_text()).split())
    assert card.startswith("Example Inc.")
    assert card.endswith(
        "This code makes a mailbox of its own for each person, at example.com."
        " The mailbox and its mail end after 1 day."
        " The code can be used until 2999-12-31 23:59 UTC."
    )
    result = attempt("token", "qr", "oneday", "--card", env=env)
    assert result.returncode == 2
    assert result.stderr.endswith(
        "automx: --card needs the name of an .svg file: --output FILE.svg\n"
    )


@pytest.mark.usefixtures("example")
def test_a_short_code_names_the_domain_only(env: dict[str, str], tmp_path: Path) -> None:
    automx("token", "add", "oneday", env=env)
    card = tmp_path / "card.svg"
    arguments = ["token", "qr", "oneday", "--short"]
    printed = json.loads(automx(*arguments, "--output", card, "--card", "--json", env=env))
    assert printed == {"name": "oneday", "dcaccount": "DCACCOUNT:example.com", "file": str(card)}
    assert decoded(drawn(card)) == ["DCACCOUNT:example.com"]
    assert "end after" not in card.read_text()
    env["AUTOMX_WEB_ENDPOINT"] = ""
    assert automx(*arguments, env=env).startswith("DCACCOUNT:example.com\n")


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("options", [["--backend", "mailcow"], ["--address", "bob@example.com"]])
def test_a_short_code_is_for_servers_that_make_each_mailbox_themselves(
    env: dict[str, str], options: list[str]
) -> None:
    automx("token", "add", "oneday", *options, env=env)
    result = attempt("token", "qr", "oneday", "--short", env=env)
    assert result.returncode == 2
    assert "--short is for tokens of the backend none, without --address" in result.stderr
    assert "Short text" not in automx("token", "show", "oneday", env=env)


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("name", ["a?b", "a#b", "a/b", "..\\x", "50%", "", "x" * 65])
def test_names_that_a_url_or_a_path_would_change_are_refused(
    env: dict[str, str], name: str
) -> None:
    result = attempt("token", "add", "--", name, env=env)
    assert result.returncode == 1
    assert result.stderr.startswith("automx: name: expected a text of 1 to 64 characters without")


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    "address",
    [".x", "x.", "x..y", "../x", "%2fetc", "x/y", "o'neil", "\u00b9", "jürgen", "x" * 65, "a b"],
)
def test_a_mailbox_that_no_server_has_is_refused(env: dict[str, str], address: str) -> None:
    result = attempt("token", "add", "x", "--address", f"{address}@example.com", env=env)
    assert result.returncode in {1, 2}
    assert automx("token", "list", env=env).startswith("There are no tokens yet")


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("mailcow", "it has a +"),
        ("command", "mail servers do not deliver to an address with a +"),
        ("none", None),
    ],
)
def test_the_mail_server_says_which_addresses_it_allows(
    env: dict[str, str], tmp_path: Path, backend: str, reason: str | None
) -> None:
    env |= {
        "AUTOMX_MAILCOW_ENDPOINT": "https://mailcow.example.com/api/v1",
        "AUTOMX_MAILCOW_TOKEN": "key",
        "AUTOMX_ACCOUNT_COMMAND": f"{REPOSITORY}/contrib/accounts-dovecot {tmp_path}/users",
    }
    (tmp_path / "users").touch()
    automx("token", "add", "plain", "--backend", backend, env=env)
    changes = (
        ["add", "x", "--prefix", "a+", "--backend", backend],
        ["add", "y", "--address", "a+b@example.com", "--backend", backend],
        ["mod", "plain", "--prefix", "a+"],
    )
    for change in changes:
        result = attempt("token", *change, env=env)
        assert result.returncode == (1 if reason else 0)
        assert (reason or "") in result.stderr
    tokens = json.loads(automx("token", "list", "--json", env=env))
    prefixes = sorted(token["prefix"] for token in tokens)
    assert prefixes == (["tmp."] if reason else ["", "a+", "a+"])


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    ("typed", "ours"),
    [
        ("add-token oneday --maxuse 5", "automx token add NAME"),
        ("gen-qr oneday", "automx token qr NAME"),
        ("add-user x@example.com --token oneday", "automx account add ADDRESS --token NAME"),
        ("list-users", "automx account list"),
        ("web", "automx serve"),
    ],
)
def test_commands_of_mailadm_are_answered_with_ours(
    env: dict[str, str], typed: str, ours: str
) -> None:
    result = attempt(*typed.split(), env=env)
    assert result.returncode == 2
    assert (
        f"{typed.split(maxsplit=1)[0]} is a command of mailadm. Here it is: {ours}" in result.stderr
    )


def test_each_command_of_mailadm_leads_to_one_of_ours() -> None:
    for text in MAILADM.values():
        for command in re.findall(r"automx ((?:[a-z-]+ ?)+)", text):
            words = command.split()
            assert words[0] in COMMANDS
            assert len(words) == 1 or attempt(*words, "--help", env={}).returncode == 0


@pytest.mark.usefixtures("example")
def test_the_card_of_one_mailbox_names_it_as_people_do(
    env: dict[str, str], execute: Execute, tmp_path: Path
) -> None:
    execute("UPDATE domain SET name = 'müller.example'")
    arguments = ["--address=alice@müller.example", "--expiry=1y", "--spare-active"]
    automx("token", "add", "alice", *arguments, env=env)
    automx("token", "qr", "alice", "--card", "--output", tmp_path / "alice.svg", env=env)
    card = " ".join(re.sub("<[^>]*>", " ", (tmp_path / "alice.svg").read_text()).split())
    assert card.endswith(
        "This code makes one mailbox: alice@müller.example."
        " The mailbox and its mail end after 1 year without use."
    )


@pytest.mark.usefixtures("example")
def test_a_qr_code_that_leads_nowhere_is_not_printed(env: dict[str, str], execute: Execute) -> None:
    automx("token", "add", "oneday", env=env)

    def complaint(url: str) -> str:
        result = attempt("token", "qr", "oneday", env=env | {"AUTOMX_WEB_ENDPOINT": url})
        assert (result.returncode, result.stdout) == (1, "")
        return result.stderr

    assert complaint("") == (
        "automx: web_endpoint is not set, to which the QR code leads: set it to the public URL of"
        " this service, such as https://automx.example.com/new_email\n"
    )
    assert complaint("http://mail.example.com/new_email") == (
        "automx: environment variable AUTOMX_WEB_ENDPOINT: web_endpoint must be an https URL such"
        " as https://example.org/new_email, without query\n"
    )
    execute("DELETE FROM server_domain; DELETE FROM davserver_domain; DELETE FROM domain")
    assert complaint("https://mail.example.com/new_email") == (
        "automx: No configuration is known for this domain. (domain example.com)\n"
    )


@pytest.mark.usefixtures("example")
def test_a_qr_code_that_makes_no_account_is_printed_with_a_warning(
    env: dict[str, str], tmp_path: Path
) -> None:
    automx("token", "add", "oneday", env=env)
    automx("token", "revoke", "oneday", env=env)
    result = attempt("token", "qr", "oneday", "--output", tmp_path / "qr.png", env=env)
    assert (result.returncode, result.stdout) == (0, f"Wrote {tmp_path}/qr.png.\n")
    assert result.stderr == (
        "automx: the token oneday makes no account: revoked (automx token mod oneday --unrevoke"
        " takes that back)\n"
    )


def test_life_of_a_token_on_each_database(any_migrated_uri: str) -> None:
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": any_migrated_uri}
    automx("seed", "--sample", env=env)
    assert replayed("life.transcript", env) == golden("life.transcript")
    (address,) = addresses(env)
    assert re.fullmatch(r"tmp\.\w{5}@example\.org", address)
    automx("account", "del", "--yes", address, env=env)
    assert automx("token", "del", "oneday", env=env) == "Deleted the token oneday.\n"


def modules_of(*arguments: str, env: dict[str, str]) -> set[str]:
    """Return the modules that a command has imported, in a process of its own."""
    code = (
        "import sys; from automx.cli import main; main(sys.argv[1:], standalone_mode=False);"
        " print(*sys.modules, file=sys.stderr)"
    )
    result = subprocess.run(
        [AUTOMX.with_name("python"), "-c", code, *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return set(result.stderr.split())


HEAVY = {"alembic", "flask", "granian", "httpx", "ldap3", "lxml", "segno", "sqlalchemy"}


@pytest.mark.parametrize("command", [(), ("serve",)])
def test_help_comes_without_the_libraries_of_the_commands(
    env: dict[str, str], command: tuple[str, ...]
) -> None:
    assert modules_of(*command, "--help", env=env) & HEAVY == set()


def test_a_list_of_tokens_comes_without_the_libraries_of_other_commands(
    env: dict[str, str],
) -> None:
    found = modules_of("token", "list", env=env)
    assert found & HEAVY == {"sqlalchemy"}
    assert "sqlalchemy.orm" not in found


def test_the_list_of_commands_has_the_first_sentence_of_each() -> None:
    context = click.Context(main)
    for name, (_, text) in COMMANDS.items():
        command = main.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert text == " ".join((command.help or "").partition("\n\n")[0].split())
