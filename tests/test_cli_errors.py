"""Errors of commands: one prefix, the option with its reason, and what to do."""

import json
import os
import re
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from automx.check.finding import Finding, Level
from automx.check.report import Report
from automx.cli import check, main
from automx.cli.addresses import HTTP_URL, NAME_SERVER
from tests.commandline import attempt, automx
from tests.processes import AUTOMX, free_port, running, wait_until
from tests.terminals import on_a_terminal

NOWHERE = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": "sqlite:////nowhere/automx.sqlite"}
NO_SERVER = "postgresql://x@127.0.0.1:1/x"


@pytest.fixture
def env(database: Path) -> dict[str, str]:
    return {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("frobnicate", 2),  # no such command
        ("domain frobnicate", 2),
        ("domain list --frobnicate", 2),  # no such option
        ("show", 2),  # an argument is missing
        ("db schema", 2),  # an option is missing
        ("completion ksh", 2),
        ("seed", 2),  # said by the command itself
        ("server add --type imap --name mail.example.com --port 99999", 2),
        ("seed /nowhere/seed.json", 1),
        ("domain list", 1),
        ("db current", 1),
        ("db upgrade 9999", 1),
        ("account del nobody@example.com", 1),
        ("serve --host 192.0.2.1", 1),
        ("dclogin alice@example.com --password-stdin --qr /nowhere/code.png", 1),
        ("publish /proc/nowhere", 1),
    ],
)
def test_every_error_begins_alike(command: str, status: int) -> None:
    result = attempt(*command.split(), env=NOWHERE, stdin="a password")
    *usage, last = result.stderr.splitlines()
    assert (result.returncode, result.stdout) == (status, "")
    assert last.startswith("automx: ")
    if status == 2:
        assert usage[0].startswith("Usage: automx")
        assert re.fullmatch(r"Try 'automx[a-z -]* --help' for help\.", usage[1])
    else:
        assert usage == []


LONG = ".".join(["long"] * 26)

# Wrong values of options and arguments, by the name of their type.
WRONG = {
    "host": {
        "https://x.example": "this is a URL",
        "192.0.2.1": "this is an IP address",
        "[2001:db8::1]": "this is an IP address",
        "x.example:80": "this has a port",
        "x y": "this is no host name",
        "automx": "this is no name of the public DNS",
    },
    "mail domain": {
        "x y": "this is no mail domain",
        "localhost": "this is no mail domain",
        "192.0.2.1": "this is no mail domain",
        LONG: "this has more than 128 characters",
    },
    "mail host": {
        "x y": "this is no host name",
        "mail.x.example:993": "this has a port",
        LONG: "this has more than 128 characters",
    },
    "server": {
        "https://x.example": "this is no host name",
        ":993": "this is no host name",
        "mail.x.example:99999": "the port is not from 1 to 65535",
        f"{LONG}:993": "this has more than 128 characters",
    },
    "address": {
        "nobody": "a mail address has exactly one @",
        "x@": "a mail address has a name before the @",
        "x@-.example": "the domain name is not valid",
    },
    "domain": {"x y": "the domain name is not valid", "https://x.example": "the domain name is"},
    "name server": {
        "ns1.example": "this is no IP address",
        "192.0.2.1:0": "the port is not from 1 to 65535",
        "192.0.2.1:x": "the port is not from 1 to 65535",
        f"192.0.2.1:{'9' * 5000}": "the port is not from 1 to 65535",
    },
    "file": {"": "this is no name of a file"},
    "path": {"": "this is no name of a file"},
    "url": {
        "x.example": "this is no URL",
        "ftp://x.example": "this is no URL",
        "https://x.example/?y": "the URL has a query",
        "https://ü.example": "the URL has a character",
    },
}


def typed() -> Iterator[tuple[str, str, str]]:
    """Yield each command with an option or argument of these types: command, option, type."""
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        found = (
            {f"{name} {each}": sub for each, sub in command.commands.items()}
            if isinstance(command, click.Group)
            else {name: command}
        )
        for path, sub in found.items():
            for param in sub.params if sub else ():
                kind = "name server" if param.type is NAME_SERVER else param.type.name
                if type(param.type) is type(HTTP_URL):
                    yield path, param.opts[0] if isinstance(param, click.Option) else "", kind


@pytest.mark.parametrize(("command", "option", "kind"), [*typed()])
def test_a_wrong_address_host_or_url_is_told_with_its_option_and_the_reason(
    command: str, option: str, kind: str
) -> None:
    words = {"--url": ["a@x.example"]}.get(option, [])
    if command == "web-server" and not option:
        words = ["nginx"]
    for value, reason in WRONG[kind].items():
        given = [option, value] if option else [value]
        result = attempt(*command.split(), *words, *given, env=NOWHERE)
        last = result.stderr.splitlines()[-1]
        named = option or r"[A-Z.\[\]|-]+"
        begin = f"automx: Invalid value for '{named}': "
        assert result.returncode == 2
        assert re.match(begin + re.escape(f"{value!r}: {reason}"[:1_500]), last), last
        assert reason in last  # the middle of a long value is left out


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("apikey add x --role read", "--from", "192.0.2.1/99"),
        ("provider add --name x", "--webmail-url", "x y"),
        ("provider add --name x", "--documentation", "x.example de"),
        ("provider add --name x", "--support-address", "x"),
        ("provider add --name x", "--oauth2-auth-url", "x"),
        ("server add --type imap", "--name", "https://x.example"),
        ("service add --type caldav", "--url", "https://x y"),
        ("domain set x.example", "--name", "https://x.example"),
        ("import-autoconfig /dev/null", "--domain", "x y"),
    ],
)
def test_a_wrong_value_of_a_row_is_told_with_its_option_and_itself(
    command: str, option: str, value: str
) -> None:
    result = attempt(*command.split(), option, value, env=NOWHERE)
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 2
    assert last.startswith(f"automx: Invalid value for '{option}': expected ")
    assert f'found "{value.partition(" ")[0]}' in last


@pytest.mark.parametrize("command", ["check", "names --all", "quickstart x.example --yes"])
def test_what_is_no_number_is_no_timeout(command: str) -> None:
    result = attempt(*command.split(), "--timeout", "nan", env=NOWHERE)
    told = "automx: Invalid value for '--timeout': 'nan' is no number."
    assert (result.returncode, result.stderr.splitlines()[-1]) == (2, told)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["account", "del", "", "--yes"], "'': A mail address has exactly one @."),
        (["domain", "add", "", "--provider", "1"], "'': expected a domain name"),
        (["token", "show", "x" * 200_000], f"There is no token {'x' * 1_000}"),
        (["show", "x" * 200_000], f"Invalid value for 'ADDRESS': '{'x' * 1_000}"),
    ],
)
def test_an_empty_or_endless_value_is_one_short_line(
    env: dict[str, str], command: list[str], told: str
) -> None:
    last = attempt(*command, env=env).stderr.splitlines()[-1]
    assert last.startswith(f"automx: {told}")
    assert len(last) < 5_000


@pytest.mark.parametrize("name", ["9" * 5_000, "-" + "9" * 5_000, "2147483648", "\u0663"])
@pytest.mark.parametrize("kind", ["provider", "server", "service", "directory", "domain"])
def test_a_number_that_no_id_has_is_a_name(env: dict[str, str], kind: str, name: str) -> None:
    names = [name, f"mail.example.com:{name}"] if kind == "server" else [name]
    for each in names:
        result = attempt(kind, "show", "--", each, env=env)
        assert result.returncode == 1
        assert result.stderr.startswith("automx: There is no ")


@pytest.mark.parametrize("option", [["--host", "nowhere.invalid"], ["--host", "https://x.example"]])
def test_serve_names_the_options_of_its_address(option: list[str], env: dict[str, str]) -> None:
    result = attempt("serve", *option, "--port", "4999", env=env)
    begin = f"automx: cannot listen on {' '.join(option)} --port 4999: "
    assert (result.returncode, result.stderr.startswith(begin)) == (1, True)


@pytest.mark.parametrize("uri", [NOWHERE["AUTOMX_DB_URI"], NO_SERVER])
@pytest.mark.parametrize(
    "command", ["check", "show a@x.example", "db current", "domain list", "sync", "prune"]
)
def test_a_database_that_is_away_is_named_once(command: str, uri: str) -> None:
    result = attempt(*command.split(), env=NOWHERE | {"AUTOMX_DB_URI": uri})
    text = result.stdout + result.stderr
    assert "database: database:" not in text
    assert "No domain was looked at" not in text
    assert text.count("database: ") <= 1


@pytest.mark.parametrize("is_yes", [False, True])
def test_accounts_that_do_not_exist_are_told_and_not_asked_for(
    env: dict[str, str], is_yes: bool
) -> None:
    words = ["account", "del", "a@x.example", "b@x.example", *["--yes"] * is_yes]
    result = attempt(*words, env=env)
    told = "".join(f"automx: There is no account {name}@x.example.\n" for name in "ab")
    assert (result.returncode, result.stdout, result.stderr) == (1, "", told)


def test_a_domain_before_the_first_provider_is_answered_with_what_comes_first(
    env: dict[str, str],
) -> None:
    result = attempt("domain", "add", "x.example", env=env)
    text = "automx: There is no provider yet: automx provider add --name NAME adds one.\n"
    assert (result.returncode, result.stderr) == (1, text)


@pytest.mark.parametrize("typed", ["domain x.example", "account a@x.example"])
def test_a_name_in_place_of_a_command_is_answered_with_show(typed: str) -> None:
    last = attempt(*typed.split(), env=NOWHERE).stderr.splitlines()[-1]
    name = typed.split()[1]
    assert last == f"automx: No such command '{name}'. Did you mean 'show {name}'?"


# The file of the database and its user.

NOBODY = 65534


@pytest.mark.parametrize(
    ("mode", "folder_mode", "words", "verb", "name"),
    [
        (0o600, 0o755, "domain list", "read", "automx.sqlite"),
        (0o644, 0o755, "provider add --name X", "write", "automx.sqlite"),
        (0o666, 0o755, "provider add --name X", "make SQLite's files in", ""),
        (0o666, 0o700, "domain list", "enter the folder", ""),
        (0o666, 0o700, "db current", "enter the folder", ""),
        (
            0o666,
            0o700,
            "quickstart x.example --yes --dns 127.0.0.1:9 --timeout 0.1",
            "enter the folder",
            "",
        ),
        (0o600, 0o755, "db upgrade", "read", "automx.sqlite"),
        (0o600, 0o755, "check", "read", "automx.sqlite"),
    ],
)
def test_a_file_of_another_user_is_named_with_its_owner(
    empty_database: Path, mode: int, folder_mode: int, words: str, verb: str, name: str
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        folder = Path(made)
        database = folder / "automx.sqlite"
        database.write_bytes(empty_database.read_bytes())
        env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}
        attempt(*words.split(), env=env)  # imports what another user cannot
        database.chmod(mode)
        folder.chmod(folder_mode)
        os.seteuid(NOBODY)
        try:
            result = attempt(*words.split(), env=env)
        finally:
            os.seteuid(0)
    path, shown = (database, mode) if name else (folder, folder_mode)
    told = f"the user nobody may not {verb} {path}, which belongs to root (mode {shown:03o}):"
    assert told in result.stdout + result.stderr
    assert 'was "automx db upgrade" run' not in result.stdout + result.stderr
    assert result.returncode == (2 if words == "check" else 1)


# QR codes.


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    "words", ["mobileconfig-qr alice@example.com", "dclogin alice@example.com --password-stdin"]
)
def test_qr_codes_for_a_pipe_have_no_escapes(env: dict[str, str], words: str) -> None:
    printed = automx(*words.split(), env=env, stdin="secret")
    assert "█" in printed
    assert "\x1b" not in printed


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("no_color", ["", "1"])
def test_qr_codes_on_a_terminal_have_colours_unless_they_are_unwanted(
    env: dict[str, str], no_color: str
) -> None:
    words = ("mobileconfig-qr", "alice@example.com")
    shown = on_a_terminal(
        [AUTOMX, *words], env | {"NO_COLOR": no_color, "TERM": "xterm"}, with_errors=False
    )
    assert ("\x1b" in shown) is (not no_color)


# The server.


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("no tables", "the database holds no automx schema: run automx db upgrade"),
        ("no file", "there is no database"),
    ],
)
def test_serve_tells_at_its_start_why_look_ups_cannot_work_and_ctrl_c_is_130(
    tmp_path: Path, state: str, told: str
) -> None:
    database, port = tmp_path / "new.sqlite", free_port()
    if state == "no tables":
        database.touch()
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}
    command: list[str | Path] = [AUTOMX, "serve", "--port", str(port), "--workers", "1"]
    log = tmp_path / "log"
    ready = f"automx answers at http://127.0.0.1:{port}/"
    with running(command, log, ready=lambda: ready in log.read_text(), env=env) as started:
        text = f"settings cannot be looked up yet: {told}"
        wait_until(lambda: text in started.output, "the warning")
        assert started.stop(signal.SIGINT) == 130


# Seeds.

IMAP, SMTP = ({"type": type_, "name": f"{type_}.example.com"} for type_ in ("imap", "smtp"))


@pytest.mark.parametrize(
    ("servers", "domains", "said"),
    [
        ([], ["a.example"], "a.example has no mail server"),
        (
            [IMAP],
            ["a.example", "b.example"],
            "a.example, b.example have incoming mail servers only",
        ),
        ([SMTP], ["a.example"], "a.example has outgoing mail servers only"),
        (
            [],
            [f"d{number}.example" for number in range(7)],
            (
                "7 domains: d0.example, d1.example, d2.example, d3.example, d4.example, … have no"
                " mail server"
            ),
        ),
        ([IMAP, SMTP], ["a.example"], ""),
    ],
)
@pytest.mark.parametrize("command", [["seed"], ["apply", "--yes"]])
def test_documents_warn_of_domains_that_serve_no_client(
    env: dict[str, str], command: list[str], servers: list[object], domains: list[str], said: str
) -> None:
    document = {"version": 2, "provider": "A", "servers": servers}
    document["domains"] = [{"name": name} for name in domains]
    result = attempt(*command, "-", env=env, stdin=json.dumps(document))
    more = ": most clients need incoming and outgoing ones"
    assert (result.returncode, result.stderr) == (0, f"automx: {said}{more}\n" if said else "")


def test_a_domain_that_is_off_needs_no_servers(env: dict[str, str]) -> None:
    domains = [{"name": "a.example", "disabled": True}]
    document = {"version": 2, "provider": "A", "servers": [], "domains": domains}
    assert attempt("seed", "-", env=env, stdin=json.dumps(document)).stderr == ""


def test_seeds_warn_of_the_name_of_another_provider(env: dict[str, str]) -> None:
    document = {"version": 2, "provider": "Acme", "servers": [], "domains": []}
    assert attempt("seed", "-", env=env, stdin=json.dumps(document)).stderr == ""
    again = attempt("seed", "-", env=env, stdin=json.dumps(document))
    text = "automx: 2 providers have the name Acme: commands find them by their ids only\n"
    assert (again.returncode, again.stderr) == (0, text)
    del document["provider"]
    document["providers"] = [{"id": number, "name": "Twice"} for number in (8, 9)]
    both = attempt("seed", "-", env=env, stdin=json.dumps(document))
    text = "automx: 2 providers have the name Twice: commands find them by their ids only\n"
    assert (both.returncode, both.stderr) == (0, text)


def test_each_way_to_a_second_provider_of_a_name_warns_once(
    env: dict[str, str], tmp_path: Path
) -> None:
    """In any case of letters, as commands find them."""
    file = tmp_path / "a.xml"
    file.write_text(AUTOCONFIG.format(provider="aCME"))

    def said(*command: str, stdin: str | None = None) -> str:
        result = attempt(*command, env=env, stdin=stdin)
        assert result.returncode == 0, result.stderr
        return result.stderr

    def warning(number: int, name: str) -> str:
        only = "commands find them by their ids only"
        return f"automx: {number} providers have the name {name}: {only}\n"

    assert said("provider", "add", "--name", "Acme") == ""
    assert said("provider", "add", "--name", "Other") == ""
    assert said("provider", "add", "--name", "acme", "--dry-run") == warning(2, "acme")
    assert said("provider", "add", "--name", "acme") == warning(2, "acme")
    assert said("provider", "set", "Other", "--short-name", "Acme") == ""
    assert said("provider", "set", "Other", "--name", "ACME") == warning(3, "ACME")
    assert said("provider", "set", "3", "--name", "Elsewhere") == ""
    document = {"version": 2, "providers": [{"id": 9, "name": "Elsewhere"}], "domains": []}
    text = json.dumps(document | {"servers": []})
    assert said("apply", "-", "--yes", stdin=text) == warning(2, "Elsewhere")
    assert said("apply", "-", "--yes", stdin=text) == ""
    assert said("import-autoconfig", str(file), "--yes") == warning(3, "aCME")


AUTOCONFIG = """\
<clientConfig version="1.1"><emailProvider id="x.example"><domain>x.example</domain>
<displayName>{provider}</displayName>
<incomingServer type="imap"><hostname>imap.x.example</hostname><port>993</port>
<socketType>SSL</socketType><username>%EMAILADDRESS%</username>
<authentication>password-cleartext</authentication></incomingServer>
<outgoingServer type="smtp"><hostname>smtp.x.example</hostname><port>465</port>
<socketType>SSL</socketType><username>%EMAILADDRESS%</username>
<authentication>password-cleartext</authentication></outgoingServer>
</emailProvider></clientConfig>
"""

# The report of the doctor.


def report_of(number: int) -> Report:
    """Return a report of domains with one provider, whose mail server has a fault."""
    report = Report([f"d{index}.example" for index in range(number)])
    fault, hint = "imap mail.example:993 SSL", "smtp mail.example:25"
    for domain in report.domains:
        advice = f"see which step fails: automx ldap test someone@{domain}"
        report.found[domain].append(Finding(domain, Level.WARNING, hint, "blocked"))
        report.found[domain].append(Finding(domain, Level.ERROR, fault, "refused", advice))
    report.found["d1.example"].append(Finding("d1.example", Level.ERROR, "www", "gone", "add it"))
    report.domains.append("right.example")
    report.found["right.example"] = []
    return report


def test_a_fault_of_a_mail_server_is_one_line_with_the_number_of_its_domains(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = report_of(5_000)
    check.print_report(report, quiet=False, all_domains=True)
    domains = "(5000 domains: d0.example, d1.example, d2.example and 4997 more)"
    advice = "-> see which step fails: automx ldap test someone@d0.example"
    assert capsys.readouterr().out.splitlines() == [
        "ok       -              settings and database are in order",
        f"error    -              imap mail.example:993 SSL: refused {domains} {advice}",
        f"warning  -              smtp mail.example:25: blocked {domains}",
        "error    d1.example     www: gone -> add it",
        "ok       right.example  everything is in order",
        "5001 domains, 2 errors, 1 warning",
    ]
    document = report.document()
    assert (report.status, document["status"]) == (2, 2)
    found = document["findings"]
    assert isinstance(found, list)
    assert [(each["domain"], each["subject"], len(each["domains"])) for each in found] == [
        ("", "imap mail.example:993 SSL", 5000),
        ("", "smtp mail.example:25", 5000),
        ("d1.example", "www", 1),
    ]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (1, "-> add one: automx domain add d0.example"),
        (3, "-> add them: automx domain add d0.example d1.example d2.example"),
        (5_000, "-> add them: automx domain add - reads their names from standard input"),
    ],
)
def test_the_advice_for_unknown_domains_is_for_all_of_them(
    env: dict[str, str], number: int, advice: str
) -> None:
    domains = [f"d{index}.example" for index in range(number)]
    result = attempt("check", *domains, "--dns", "127.0.0.1:9", env=env)
    lines = [line for line in result.stdout.splitlines() if "no row of the table" in line]
    assert [line[line.index("->") :] for line in lines] == [advice]


def test_a_fault_of_one_domain_stays_with_the_domain() -> None:
    [shared, other] = report_of(1).entries(), report_of(2).entries()
    assert [entry.finding.domain for entry in shared] == ["d0.example", "d0.example"]
    assert [entry.domains for entry in other][:2] == [("d0.example", "d1.example")] * 2
