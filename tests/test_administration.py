"""An administrator's commands for rows: what they print, change, ask and refuse."""

import base64
import json
import os
import pty
import re
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from sqlalchemy import Table, insert
from sqlalchemy import select as query

from automx import audit, members
from automx.changes import stored
from automx.cli import main
from automx.database import Session, create_engine
from automx.models import ORIGINS, metadata
from automx.references import dangling_references
from tests.commandline import attempt, automx
from tests.databases import engine_uri
from tests.documents import golden
from tests.processes import AUTOMX, PATIENCE
from tests.transcripts import replayed

GROUPS = ("provider", "directory", "server", "service", "domain")
SETUP = (
    "provider add --name Example",
    "server add --type imap --name imap.example.org",
    "server add --type smtp --name smtp.example.org",
    "service add --type caldav --url https://dav.example.org/",
    "directory add --name ldap.example.org --search-base dc=example",
    "domain add example.org example.net --server 1 --server 2 --service 1 --directory 1",
)


def environment(db_uri: str) -> dict[str, str]:
    return {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": db_uri, "SUDO_USER": "alice"}


@pytest.fixture
def env(database: Path) -> dict[str, str]:
    """The settings of a service without rows, for the user alice."""
    return environment(f"sqlite:///{database}")


@pytest.fixture(scope="module")
def filled_database(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with one row of each kind, and a second server and domain, to be copied."""
    path = tmp_path_factory.mktemp("filled") / "automx.sqlite"
    path.write_bytes(empty_database.read_bytes())
    for command in SETUP:
        automx(*command.split(), env=environment(f"sqlite:///{path}"))
    return path


@pytest.fixture
def filled(filled_database: Path, tmp_path: Path) -> dict[str, str]:
    """The settings of a service with a copy of these rows."""
    path = tmp_path / "filled.sqlite"
    path.write_bytes(filled_database.read_bytes())
    return environment(f"sqlite:///{path}")


@pytest.fixture
def anywhere(any_migrated_uri: str) -> dict[str, str]:
    """The same as ``filled``, in a database of each engine."""
    env = environment(any_migrated_uri)
    for command in SETUP:
        automx(*command.split(), env=env)
    return env


@contextmanager
def opened(env: dict[str, str]) -> Iterator[Session]:
    engine = create_engine(engine_uri(env["AUTOMX_DB_URI"]))
    with Session(engine) as session:
        yield session
        session.commit()
    engine.dispose()


def everything(env: dict[str, str], *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    def rows(session: Session, table: Table) -> list[tuple[object, ...]]:
        found = session.execute(query(table).order_by(*table.primary_key))
        return [tuple(row) for row in found]

    with opened(env) as session:
        return {
            name: rows(session, table)
            for name, table in metadata.tables.items()
            if name not in without
        }


def entries(env: dict[str, str]) -> list[audit.Entry]:
    with opened(env) as session:
        return list(audit.entries(session))


def test_rows_are_added_shown_changed_linked_and_deleted(env: dict[str, str]) -> None:
    assert replayed("administration.transcript", env) == golden("administration.transcript")


def options(group: str, command: str) -> set[str]:
    found = main.get_command(click.Context(main), group)
    assert isinstance(found, click.Group)
    return {name for option in found.commands[command].params for name in option.opts}


@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize("command", ["add", "set"])
def test_each_member_has_an_option_of_its_name(kind: str, command: str) -> None:
    details = {*members.DETAILS, *(f"oauth2_{part}" for part in members.OAUTH2)} - {"oauth2"}
    names = {*members.MEMBERS[kind]} - {"details"} | (details if kind == "provider" else set())
    missing = {"--" + name.replace("_", "-") for name in names} - options(kind, command)
    # A name of a domain to add is an argument, a secret comes from standard input.
    expected = {
        ("domain", "add"): {"--name", "--id"},
        ("directory", "add"): {"--bind-password"},
        ("directory", "set"): {"--bind-password", "--id"},
    }
    assert missing == expected.get((kind, command), {"--id"} if command == "set" else set())


@pytest.mark.parametrize("kind", GROUPS)
def test_json_has_the_members_of_documents_and_the_origin(
    filled: dict[str, str], kind: str
) -> None:
    shown = json.loads(automx(kind, "show", "1", "--json", env=filled))
    listed = json.loads(automx(kind, "list", "--json", env=filled))
    with opened(filled) as session:
        item = stored.item(session, kind, 1)
    assert item is not None
    assert shown == {**json.loads(json.dumps(item)), "origin": None}
    assert listed[0] == shown


@pytest.mark.parametrize("kind", GROUPS)
def test_a_list_without_rows_is_a_list(env: dict[str, str], kind: str) -> None:
    assert json.loads(automx(kind, "list", "--json", env=env)) == []


def test_what_a_change_prints_for_programs(filled: dict[str, str]) -> None:
    arguments = ["server", "set", "1", "--port", "143", "--socket-type", "starttls", "--yes"]
    assert json.loads(automx(*arguments, "--json", env=filled)) == {
        "added": [],
        "changed": [
            {
                "kind": "server",
                "id": 1,
                "name": "imap.example.org",
                "before": {"port": 993, "socket_type": "SSL"},
                "after": {"port": 143, "socket_type": "STARTTLS"},
            }
        ],
        "removed": [],
        "numbers": {"added": 0, "changed": 1, "removed": 0},
        "skipped": 0,
        "dry_run": False,
    }


CHANGES = [
    "provider add --name New",
    "provider set 1 --name New --yes",
    "server set 1 --name new.example.org --yes",
    "server del 1 --unlink --yes",
    "service set 1 --port 8443 --yes",
    "directory set 1 --port 636 --use-ssl --yes",
    "directory del 1 --unlink --yes",
    "domain add new.example",
    "domain set example.org --name new.example",
    "domain set example.org --disabled",
    "domain unlink example.org 1",
    "domain disable example.org example.net --yes",
    "domain del example.org",
]


@pytest.mark.parametrize("command", CHANGES)
def test_a_dry_run_prints_the_difference_and_changes_nothing(
    filled: dict[str, str], command: str
) -> None:
    before = everything(filled)
    planned = json.loads(automx(*command.split(), "--dry-run", "--json", env=filled))
    assert everything(filled) == before
    done = json.loads(automx(*command.split(), "--json", env=filled))
    assert planned == done | {"dry_run": True}
    assert everything(filled) != before


@pytest.mark.parametrize("command", [command for command in CHANGES if "--yes" in command])
def test_without_a_terminal_what_others_depend_on_needs_a_yes(
    filled: dict[str, str], command: str
) -> None:
    before = everything(filled)
    result = attempt(*command.removesuffix(" --yes").split(), env=filled)
    assert result.returncode == 2
    assert result.stderr.startswith("automx: this would ")
    assert "2 domains" in result.stderr
    assert "example.org" in result.stderr
    assert everything(filled) == before


@pytest.mark.parametrize("kind", GROUPS)
def test_each_member_that_can_be_unset_gets_its_default(filled: dict[str, str], kind: str) -> None:
    found = main.get_command(click.Context(main), kind)
    assert isinstance(found, click.Group)
    [unset] = [option for option in found.commands["set"].params if option.name == "unset"]
    assert isinstance(unset.type, click.Choice)
    choices = [choice for choice in unset.type.choices if choice != "search_base"]
    arguments = [word for choice in choices for word in ("--unset", choice)]
    automx(kind, "set", "1", *arguments, "--yes", env=filled)
    automx(kind, "show", "1", env=filled)


def test_a_secret_is_read_from_standard_input_and_never_shown(filled: dict[str, str]) -> None:
    arguments = ["directory", "set", "1", "--bind-password-stdin", "--yes"]
    printed = [
        automx(*arguments, "--dry-run", env=filled, stdin="s3cret\n"),
        automx(*arguments, "--json", env=filled, stdin="s3cret\n"),
        automx(*arguments, env=filled, stdin="s3cret-too\n"),
        automx("directory", "show", "1", env=filled),
        automx("directory", "show", "1", "--json", env=filled),
        automx("directory", "list", "--json", env=filled),
        automx("audit", "list", "--json", env=filled),
    ]
    assert [text for text in printed if "s3cret" in text] == []
    assert printed[2] == "Changed directory 1 (ldap.example.org): bind_password (a secret).\n"
    with opened(filled) as session:
        item = stored.item(session, "directory", 1)
    assert item is not None
    assert item["bind_password"] == "s3cret-too"


@pytest.mark.parametrize("kind", GROUPS)
def test_a_change_by_hand_of_a_row_with_an_origin_is_warned_of(
    filled: dict[str, str], kind: str
) -> None:
    table = ORIGINS[members.TABLES[kind]]
    key, origin = table.columns
    with opened(filled) as session:
        session.execute(insert(table).values({key: 1, origin: "hosting.yaml"}))
    member = {"service": ["--port", "8443"], "domain": ["--disabled"]}.get(kind, ["--name", "new"])
    result = attempt(kind, "set", "1", *member, "--yes", env=filled)
    assert result.returncode == 0
    assert "comes from hosting.yaml, whose file or source may change it back" in result.stderr
    assert json.loads(automx(kind, "show", "1", "--json", env=filled))["origin"] == "hosting.yaml"


def test_the_user_of_the_system_is_the_actor_without_sudo(filled: dict[str, str]) -> None:
    me = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    automx("domain", "disable", "example.org", env={**filled, "SUDO_USER": ""})
    assert [entry.actor for entry in entries(filled)][-2:] == ["user:alice", f"user:{me}"]


def test_seeds_and_purges_have_the_user_as_actor(env: dict[str, str]) -> None:
    automx("seed", "--sample", env=env)
    automx("purge", "--yes", env=env)
    assert {entry.actor for entry in entries(env)} == {"user:alice"}


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAYAAACddGYaAAAAC0lEQVR42mNgQAcAABIAAbSnotkAAAAASUVORK5CYII="
)
JPEG = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffc000110800020003030122000211010311 01ffd9"
)
WEBP = b"RIFF\x1a\x00\x00\x00WEBP"
LOGOS = {
    "png": ("image/png", PNG),
    "jpeg": ("image/jpeg", JPEG),
    "webp VP8X": ("image/webp", WEBP + b"VP8X" + bytes(8) + b"\x02\0\0\x01\0\0"),
    "webp VP8L": ("image/webp", WEBP + b"VP8L" + bytes(4) + b"\x2f\x02\x40\0\0"),
    "webp VP8": ("image/webp", WEBP + b"VP8 " + bytes(4) + bytes(6) + b"\x03\0\x02\0"),
    "svg size": ("image/svg+xml", b'<?xml version="1.0"?><svg width="3px" height="2.2"/>'),
    "svg view": ("image/svg+xml", b"<svg viewBox='0 0 3 2' class='a'><path/></svg>"),
}


@pytest.mark.parametrize(("type_", "data"), LOGOS.values(), ids=LOGOS)
def test_type_and_size_of_a_logo_are_read_from_its_file(
    filled: dict[str, str], tmp_path: Path, type_: str, data: bytes
) -> None:
    file = tmp_path / "logo"
    file.write_bytes(data)
    automx("provider", "set", "1", "--logo", file, "--yes", env=filled)
    shown = json.loads(automx("provider", "show", "1", "--json", env=filled))
    logo = {"type": type_, "width": 3, "height": 2, "data": base64.b64encode(data).decode()}
    assert shown["details"] == {"logo": logo}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GIF89a", "is no image in PNG, JPEG, WebP or SVG"),
        (PNG[:20], "does not say its size in pixels"),
        (JPEG[:8], "does not say its size in pixels"),
        (WEBP + b"VP8L", "does not say its size in pixels"),
        (b'<svg width="100%"/>', "does not say its size in pixels"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_is_no_logo_is_refused(
    filled: dict[str, str], tmp_path: Path, data: bytes | None, reason: str
) -> None:
    file = tmp_path / "logo"
    if data is not None:
        file.write_bytes(data)
    result = attempt("provider", "set", "1", "--logo", file, "--yes", env=filled)
    assert result.returncode == 2
    assert reason in result.stderr


def test_many_domains_are_added_at_once_with_one_entry_in_the_audit(
    anywhere: dict[str, str],
) -> None:
    names = [f"d{number}.example" for number in range(2_500)]  # more than one part
    automx("domain", "add", "-", env=anywhere, stdin="\n".join(names))
    last = entries(anywhere)[-1]
    assert (last.action, last.details["numbers"]) == ("bulk", {"add": {"domain": 2_500}})
    assert re.fullmatch("[0-9a-f]{64}", last.details["digest"])
    assert automx("domain", "list", "d*", "--names", env=anywhere).split() == names
    shown = [
        json.loads(automx("domain", "show", name, "--json", env=anywhere))
        for name in (names[0], names[-1])
    ]
    assert [item["servers"] for item in shown] == [[1, 2], [1, 2]]
    assert [item["davservers"] for item in shown] == [[1], [1]]


def test_domains_that_exist_are_a_conflict_or_passed_over(anywhere: dict[str, str]) -> None:
    names = [f"d{number}.example" for number in range(2_100)]
    text = "\n".join([*names, "EXAMPLE.org", "d3.example"])
    before = everything(anywhere, without=frozenset({"change_count"}))
    refused = attempt("domain", "add", "-", env=anywhere, stdin=text)
    assert (refused.returncode, refused.stderr) == (
        1,
        "automx: 2 of 2102 domains exist already: example.org, d3.example\n",
    )
    assert everything(anywhere, without=frozenset({"change_count"})) == before
    printed = automx("domain", "add", "-", "--skip-existing", env=anywhere, stdin=text)
    assert printed == "Added 2100 domains.\nPassed over 2 that exist already.\n"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (b"good.example\nb\xe4d.example\n", "line 2 of standard input is not UTF-8"),
        (b"good.example\nbad..example\n", "line 2: expected a domain name"),
    ],
)
def test_a_bad_line_of_standard_input_is_named(
    filled: dict[str, str], given: bytes, reason: str
) -> None:
    result = attempt("domain", "add", "-", env=filled, stdin=given)
    assert result.returncode == 1
    assert reason in result.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin"), [(["new.example"], None), (["--csv"], "name\nnew.example\n")]
)
def test_a_domain_before_the_first_provider_is_told_how_to_add_one(
    env: dict[str, str], arguments: list[str], stdin: str | None
) -> None:
    result = attempt("domain", "add", *arguments, env=env, stdin=stdin)
    assert (result.returncode, result.stderr) == (
        1,
        "automx: There is no provider yet: automx provider add --name NAME adds one.\n",
    )


@pytest.mark.parametrize(
    ("since", "reason"),
    [
        (
            "7days",
            (
                "'7days' is no time such as 2026-12-31 or 2026-12-31T18:00Z."
                " A duration is written as 30d."
            ),
        ),
        ("7x", "A duration is a number and one of s, m, h, d, w, y, such as 12h or 2w."),
    ],
)
def test_what_is_no_time_and_no_duration_is_told_how_both_are_written(
    env: dict[str, str], since: str, reason: str
) -> None:
    result = attempt("audit", "list", "--since", since, env=env)
    last = result.stderr.splitlines()[-1]
    assert (result.returncode, last) == (2, f"automx: Invalid value for '--since': {reason}")


def test_a_provider_must_be_said_if_there_are_several(filled: dict[str, str]) -> None:
    automx("provider", "add", "--name", "Second", env=filled)
    result = attempt("domain", "add", "new.example", env=filled)
    assert (result.returncode, "Say which provider" in result.stderr) == (2, True)
    automx("domain", "add", "new.example", "--provider", "second", "--server", "1", env=filled)
    names = automx("domain", "list", "--provider", "Second", "--names", env=filled)
    assert names == "new.example\n"
    assert automx("server", "list", "--provider", "2", "--names", env=filled) == (
        "imap.example.org\n"
    )


def test_rows_of_the_same_name_are_told_apart_by_id_or_port(filled: dict[str, str]) -> None:
    automx(*["server", "add", "--type", "pop", "--name", "imap.example.org"], env=filled)
    result = attempt("server", "show", "IMAP.example.org", env=filled)
    assert (result.returncode, result.stderr) == (
        1,
        (
            "automx: 2 mail servers are called IMAP.example.org; say which by its id:"
            " 1 (imap, port 993), 3 (pop, port 995)\n"
        ),
    )
    shown = json.loads(automx("server", "show", "imap.example.org:995", "--json", env=filled))
    assert shown["id"] == 3


# A command, what the port is usual for, what the row is then, and options that may be meant.
UNFIT = (
    ("server set 1 --port 143", "imap with STARTTLS", "imap with SSL",
     "--socket-type STARTTLS or --port 993"),
    ("server set 1 --port 995", "pop3 with SSL", "imap with SSL", "--type pop3 or --port 993"),
    ("server set 2 --port 587", "smtp with STARTTLS", "smtp with SSL",
     "--socket-type STARTTLS or --port 465"),
    ("server set 1 --socket-type STARTTLS", "imap with SSL", "imap with STARTTLS",
     "--socket-type SSL or --port 143"),
    ("server set 1 --socket-type plain", "imap with SSL", "imap with plain", "--socket-type SSL"),
    ("server set 2 --type imap", "smtp with SSL", "imap with SSL", "--type smtp or --port 993"),
    (
        "server add --type smtp --name new.example --port 143 --socket-type SSL",
        "imap with STARTTLS",
        "smtp with SSL",
        "--type imap or --socket-type STARTTLS or --port 465",
    ),
    ("directory set 1 --port 636", "LDAPS", "LDAP", "--use-ssl"),
    ("directory set 1 --use-ssl", "LDAP", "LDAPS", "--no-use-ssl"),
)  # fmt: skip


@pytest.mark.parametrize(("command", "usual", "found", "meant"), UNFIT)
def test_a_port_that_is_usual_for_something_else_is_warned_of(
    filled: dict[str, str], command: str, usual: str, found: str, meant: str
) -> None:
    yes = [] if " add " in command else ["--yes"]
    result = attempt(*command.split(), *yes, env=filled)
    assert result.returncode == 0
    said = f"is usual for {usual}, and this is {found}: {meant} may be meant\n"
    assert result.stderr.partition(": port ")[2].partition(" ")[2] == said


@pytest.mark.parametrize(
    "command",
    [
        "server set 1 --port 143 --socket-type STARTTLS",
        "server set 1 --port 143 --socket-type plain",
        "server set 1 --port 1993",
        "server set 1 --type pop --port 995",
        "server set 2 --port 25 --socket-type STARTTLS",
        "server add --type managesieve --name new.example",
        "directory set 1 --port 636 --use-ssl",
        "directory set 1 --port 3269 --use-ssl",
        "directory set 1 --name ldaps://new.example:636 --port 636",
    ],
)
def test_a_port_that_fits_is_not_warned_of(filled: dict[str, str], command: str) -> None:
    yes = [] if " add " in command else ["--yes"]
    assert attempt(*command.split(), *yes, env=filled).stderr == ""
    # Nor is it when something else of such a row is changed.
    automx("server", "set", "1", "--port", "143", "--socket-type", "SSL", "--yes", env=filled)
    assert attempt("server", "set", "1", "--prio", "1", "--yes", env=filled).stderr == ""


class Terminal:
    """A command that asks a question on a terminal."""

    def __init__(self, env: dict[str, str], *arguments: str) -> None:
        self.ours, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [AUTOMX, *arguments],
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=terminal,
            env={**os.environ, **env, "TERM": "dumb"},
        )
        os.close(terminal)

    def read(self, until: bytes = b"") -> str:
        """Return what the terminal shows, to its end or to the first ``until``."""
        shown = b""
        while not (until and until in shown):
            assert select.select([self.ours], [], [], PATIENCE)[0], shown
            try:
                shown += os.read(self.ours, 65536)
            except OSError:  # the other end is closed
                break
        return shown.decode()

    def answer(self, text: str) -> tuple[int, str]:
        """Answer the question; return exit status and what is shown afterwards."""
        self.type(text)
        return self.end()

    def type(self, text: str) -> None:
        """Type a line."""
        os.write(self.ours, f"{text}\n".encode())

    def end(self) -> tuple[int, str]:
        """Wait for the end; return exit status and what is shown after the answer."""
        shown = self.read()
        output, _ = self.process.communicate(timeout=PATIENCE)
        os.close(self.ours)
        return self.process.returncode, shown.partition("\r\n")[2].replace(
            "\r", ""
        ) + output.decode()


def test_a_question_names_how_many_domains_are_concerned(filled: dict[str, str]) -> None:
    before = everything(filled)
    terminal = Terminal(filled, "server", "set", "1", "--port", "994")
    question = terminal.read(b"[y/N]: ")
    assert "which 2 domains (example.net, example.org) use?" in question
    assert terminal.answer("n") == (1, "automx: aborted\n")
    assert everything(filled) == before


def race(env: dict[str, str], *commands: str) -> str:
    """Run two commands that have both seen the same rows when they ask; return why one fails.

    The other one does all that it has to do.
    """
    before = len(entries(env))
    terminals = [Terminal(env, *command.split()) for command in commands]
    for terminal in terminals:
        terminal.read(b"[y/N]: ")
    for terminal in terminals:
        terminal.type("y")
    ends = [terminal.end() for terminal in terminals]
    assert sorted(status for status, _ in ends) == [0, 1], ends
    [refused] = [text for status, text in ends if status]
    assert len(entries(env)) > before
    with opened(env) as session:
        assert list(dangling_references(session)) == []
    return refused.rpartition("automx: ")[2].partition("\n")[0]


def test_of_two_administrators_the_second_gets_a_conflict(
    anywhere: dict[str, str], tmp_path: Path
) -> None:
    def document(name: str, kind: str, member: str, value: object) -> Path:
        """Write a document that changes a member of the first object of a kind."""
        found = json.loads(automx("export", env=anywhere))
        found[kind][0][member] = value
        (tmp_path / name).write_text(json.dumps(found))
        return tmp_path / name

    changed = "Meanwhile, server {} was changed: look at it again."
    replanned = "Meanwhile, the database was changed: look at the new plan."
    assert race(anywhere, "server set 1 --prio 1", "server set 1 --prio 2") == changed.format(
        "1 (imap.example.org)"
    )
    prio = entries(anywhere)[-1].details["after"]["prio"]
    assert json.loads(automx("server", "show", "1", "--json", env=anywhere))["prio"] == prio
    first = document("first.json", "domains", "disabled", True)
    second = document("second.json", "servers", "prio", 7)
    assert race(anywhere, f"apply {first}", f"apply {second}") == replanned
    assert race(anywhere, "server set 2 --prio 1", "server del 2 --unlink") in {
        changed.format("2 (smtp.example.org)"),
        "There is no server 2.",
    }
    gone = "There is no directory 1."
    assert race(anywhere, *["directory del 1 --unlink"] * 2) == gone
