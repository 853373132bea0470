"""``automx import-autoconfig`` and ``automx import-csv``: files become rows, all or none."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from automx.autoconfigfile import MAX_SIZE
from automx.cli import documents
from automx.database import open_session
from automx.models import metadata
from tests.commandline import attempt, automx
from tests.documents import DATA
from tests.test_autoconfigfile import SERVER, file_with

ISPDB = DATA / "imports" / "ispdb.xml"


@pytest.fixture
def env(database: Path, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a command that works on the test's database."""
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": f"sqlite:///{database}",
        "HOME": str(tmp_path),
    }


def ids(env: dict[str, str], kind: str, member: str = "name") -> list[Any]:
    """Return a member of all rows of a kind."""
    return [row[member] for row in json.loads(automx(kind, "list", "--json", env=env))]


def links(env: dict[str, str]) -> dict[str, Any]:
    """Return domain -> its provider and servers."""
    found = json.loads(automx("domain", "list", "--json", env=env))
    return {row["name"]: (row["provider"], row["servers"]) for row in found}


def rows(env: dict[str, str]) -> dict[str, list[Any]]:
    """Return all rows of all tables."""
    with open_session(env["AUTOMX_DB_URI"]) as session:
        return {
            name: [tuple(row) for row in session.execute(table.select())]
            for name, table in metadata.tables.items()
        }


# Autoconfig.


def test_a_file_becomes_rows_and_what_is_lost_is_listed(env: dict[str, str]) -> None:
    result = attempt("import-autoconfig", ISPDB, "--yes", env=env)
    assert result.returncode == 0
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == [
        "Added provider 1 (BlueMail Freemail)",
        "Added server 1 (imap.bluemail.example)",
        "Added server 2 (imap.bluemail.example)",
        "Added server 3 (pop.bluemail.example)",
        "Added server 4 (smtp.bluemail.example)",
        "Added server 5 (smtp.bluemail.example)",
        "Added domain bluemail.example",
        "Added domain blue.example",
        "Added domain ümlaut.example",
    ]
    lost = json.loads((DATA / "imports" / "ispdb.json").read_text())["lost"]
    assert result.stderr.splitlines() == [f"automx: {ISPDB}: {line}" for line in lost]
    assert links(env) == {
        name: (1, [1, 2, 3, 4, 5])
        for name in ("bluemail.example", "blue.example", "ümlaut.example")
    }


def test_a_dry_run_shows_the_same_and_changes_nothing(env: dict[str, str]) -> None:
    before = rows(env)
    shown = json.loads(automx("import-autoconfig", ISPDB, "--dry-run", "--json", env=env))
    assert rows(env) == before
    done = json.loads(automx("import-autoconfig", ISPDB, "--yes", "--json", env=env))
    assert done == {**shown, "dry_run": False}
    assert done["numbers"] == {"added": 9, "changed": 0, "removed": 0}
    lost = json.loads((DATA / "imports" / "ispdb.json").read_text())["lost"]
    assert done["files"] == [{"name": str(ISPDB), "added": 3, "skipped": 0, "lost": lost}]


def test_without_a_terminal_nothing_is_imported_unless_yes_is_said(env: dict[str, str]) -> None:
    before = rows(env)
    result = attempt("import-autoconfig", ISPDB, env=env)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == "automx: this would add 9 rows; say --yes to do it"
    assert rows(env) == before


def test_the_audit_names_the_person_and_each_new_row(env: dict[str, str]) -> None:
    automx("import-autoconfig", ISPDB, "--yes", env=env | {"SUDO_USER": "alice"})
    entries = rows(env)["audit"]
    assert {entry[2] for entry in entries} == {"user:alice"}
    assert [(entry[3], entry[4]) for entry in entries] == [
        *[("add", "provider")],
        *[("add", "server")] * 5,
        *[("add", "domain")] * 3,
    ]


def test_domains_that_exist_are_a_conflict_that_names_them(env: dict[str, str]) -> None:
    automx("import-autoconfig", ISPDB, "--yes", "--domain", "BLUE.example", env=env)
    before = rows(env)
    result = attempt("import-autoconfig", ISPDB, "--yes", env=env)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"automx: {ISPDB}: 1 of 3 domains exists already: blue.example\n"
    assert rows(env) == before


def test_domains_that_exist_are_passed_over_on_request(env: dict[str, str]) -> None:
    automx("import-autoconfig", ISPDB, "--yes", "--domain", "blue.example", env=env)
    printed = automx("import-autoconfig", ISPDB, "--yes", "--skip-existing", env=env)
    assert printed.splitlines()[-1] == "Passed over 1 that exists already."
    assert links(env) == {
        name: (1, [1, 2, 3, 4, 5])
        for name in ("blue.example", "bluemail.example", "ümlaut.example")
    }
    before = rows(env)
    result = attempt("import-autoconfig", ISPDB, "--skip-existing", env=env)
    assert (result.returncode, result.stdout, result.stderr) == (
        *(0, "Passed over 3 that exist already.\n"),
        "",
    )
    assert rows(env) == before


def test_domains_of_the_command_take_the_place_of_those_of_the_file(env: dict[str, str]) -> None:
    static = DATA / "imports" / "static.xml"
    result = attempt("import-autoconfig", static, "--yes", env=env)
    assert result.returncode == 1
    assert result.stderr == (f"automx: {static} names no domain; say for which it is by --domain\n")
    wanted = ("--domain", "club.example", "--domain", "*.club.example")
    automx("import-autoconfig", static, "--yes", *wanted, env=env)
    assert [*links(env)] == ["club.example", "*.club.example"]


def test_several_files_are_imported_together_or_not_at_all(
    env: dict[str, str], tmp_path: Path
) -> None:
    other, broken = tmp_path / "other.xml", tmp_path / "broken.xml"
    other.write_bytes(file_with())
    broken.write_bytes(file_with().replace(b"<domain>example.com", b"<domain>blue.example"))
    before = rows(env)
    result = attempt("import-autoconfig", ISPDB, other, broken, "--yes", env=env)
    assert result.returncode == 1
    assert result.stderr == f"automx: {broken}: 1 of 1 domains exists already: blue.example\n"
    assert rows(env) == before
    automx("import-autoconfig", ISPDB, other, "--yes", env=env)
    assert links(env)["example.com"] == (2, [6, 7])


def test_equal_servers_of_the_provider_are_used_and_not_added_again(
    env: dict[str, str], tmp_path: Path
) -> None:
    first, second = tmp_path / "first.xml", tmp_path / "second.xml"
    dav = "<calendar type='caldav'><url>https://dav.example.com/</url></calendar>"
    first.write_bytes(file_with(beside=dav))
    other = "</incomingServer><incomingServer type='pop3'>" + SERVER.replace("993", "995")
    second.write_bytes(file_with(SERVER + other, beside=dav))
    automx("import-autoconfig", first, "--yes", env=env)
    printed = automx("import-autoconfig", second, "--yes", "--domain", "two.example", env=env)
    assert [line.split(":")[0] for line in printed.splitlines()] == [
        "Added server 3 (mail.example.com)",
        "Added domain two.example",
    ]
    assert links(env)["two.example"] == (1, [1, 2, 3])
    assert ids(env, "service", "url") == ["https://dav.example.com/"]
    assert json.loads(automx("domain", "show", "two.example", "--json", env=env))["davservers"] == [
        1
    ]


@pytest.mark.parametrize(
    ("prios", "expected"),
    [
        ((10, 20), [1, 2]),  # as an import makes them
        ((7, 8), [1, 2]),  # another distance, and the same order
        ((5, 5), [1, 2]),  # the order of ids
        ((20, 10), [4, 5]),  # the other order
        ((20, 30), [1, 2]),
    ],
)
def test_servers_are_used_again_in_the_order_of_the_file_only(
    env: dict[str, str], tmp_path: Path, prios: tuple[int, int], expected: list[int]
) -> None:
    options = ("--type", "imap", "--authentication", "plain")
    automx("provider", "add", "--name", "example.com", env=env)
    for host, prio in zip(("mail.example.com", "two.example.com"), prios, strict=True):
        automx("server", "add", "--name", host, "--prio", str(prio), *options, env=env)
    automx("server", "add", "--name", "mail.example.com", "--type", "smtp", env=env)
    servers = ("--server", "1", "--server", "2", "--server", "3")
    automx("domain", "add", "one.example", "--provider", "1", *servers, env=env)
    path = tmp_path / "two.xml"
    two = SERVER.replace("mail.", "two.")
    incoming = f"{SERVER}</incomingServer><incomingServer type='imap'>{two}"
    path.write_bytes(file_with(incoming, SERVER.replace("993", "465")))
    automx("import-autoconfig", path, "--yes", "--domain", "two.example", env=env)
    assert links(env)["two.example"] == (1, sorted([*expected, 3]))


def test_servers_of_another_provider_are_not_shared(env: dict[str, str], tmp_path: Path) -> None:
    first, second = tmp_path / "first.xml", tmp_path / "second.xml"
    first.write_bytes(file_with())
    second.write_bytes(file_with(more="<displayName>Other Inc.</displayName>"))
    automx("import-autoconfig", first, "--yes", env=env)
    automx("import-autoconfig", second, "--yes", "--domain", "two.example", env=env)
    assert links(env) == {"example.com": (1, [1, 2]), "two.example": (2, [3, 4])}


def test_an_existing_provider_is_used_as_it_is(env: dict[str, str]) -> None:
    automx("provider", "add", "--name", "Hoster Inc.", env=env)
    result = attempt("import-autoconfig", ISPDB, "--yes", "--provider", "hoster inc.", env=env)
    assert ids(env, "provider") == ["Hoster Inc."]
    assert {provider for provider, _ in links(env).values()} == {1}
    assert result.stderr.splitlines()[-1] == (
        f"automx: {ISPDB}: the file's name, short_name, oauth2, webmail_url, documentation of its"
        " provider is not kept: provider 1 (Hoster Inc.) stays as it is"
    )


def test_a_provider_of_the_same_name_with_other_details_is_a_conflict(
    env: dict[str, str], tmp_path: Path
) -> None:
    automx("import-autoconfig", ISPDB, "--yes", env=env)
    changed = tmp_path / "changed.xml"
    changed.write_text(ISPDB.read_text().replace("Set up IMAP", "New title"))
    one = ("--yes", "--domain", "new.example")
    result = attempt("import-autoconfig", changed, *one, env=env)
    assert result.returncode == 1
    assert result.stderr == (
        f"automx: {changed}: provider 1 has the name BlueMail Freemail, and another documentation;"
        " --provider 1 uses it as it is\n"
    )
    automx("provider", "set", "1", "--help-url", "https://help.example/", "--yes", env=env)
    automx("import-autoconfig", ISPDB, *one, env=env)  # the file says nothing of it
    assert links(env)["new.example"] == (1, [1, 2, 3, 4, 5])


def test_thousands_of_domains_of_one_file_are_one_entry_of_the_audit(
    env: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "many.xml"
    path.write_bytes(file_with(more="".join(f"<domain>d{n}.example</domain>" for n in range(3000))))
    printed = automx("import-autoconfig", path, "--yes", env=env)
    assert printed.splitlines()[-1] == "Added 3001 domains."
    assert len(rows(env)["audit"]) == 1
    assert len(rows(env)["server_domain"]) == 2 * 3001


def test_a_file_is_read_from_standard_input(env: dict[str, str]) -> None:
    result = attempt("import-autoconfig", "-", "--yes", env=env, stdin=file_with())
    assert (result.returncode, result.stderr) == (0, "")
    assert [*links(env)] == ["example.com"]
    result = attempt("import-autoconfig", "-", "--yes", env=env, stdin=b"<html>")
    assert result.stderr == "automx: standard input is not an XML document (line 1)\n"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("no-such.xml", "no-such.xml cannot be read: No such file or directory"),
        ("/", "/ cannot be read: Is a directory"),
        ("ftp://127.0.0.1/x", "ftp://127.0.0.1/x: expected a URL that begins with https or http"),
        ("file:///etc/passwd", "file:///etc/passwd: expected a URL that begins with https or http"),
        ("http://[", "http://[: this is no URL"),
        ("http://127.0.0.1:1/", "http://127.0.0.1:1/: 127.0.0.1 port 1: connection refused"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(
    env: dict[str, str], source: str, reason: str
) -> None:
    result = attempt("import-autoconfig", source, "--yes", env=env)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"automx: {reason}\n")


ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "/mail/config-v1.1.xml": (200, {}, file_with()),
    "/missing": (404, {}, b""),
    "/large": (200, {}, b" " * (MAX_SIZE + 1)),
    "/moved": (302, {"Location": "/mail/config-v1.1.xml"}, b""),
    "/lost": (302, {"Location": "file:///etc/passwd"}, b""),
}


@contextmanager
def web_server() -> Iterator[str]:
    """Serve ANSWERS at a URL of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = ANSWERS[self.path]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_document_is_imported_from_a_url_and_others_are_refused(env: dict[str, str]) -> None:
    no_https = "which is not https"
    with web_server() as url:
        for path, reason in (
            ("/missing", "the server answers with status 404"),
            ("/large", f"the document is larger than {MAX_SIZE} bytes"),
            ("/moved", f"a redirect to /mail/config-v1.1.xml, {no_https}"),
            ("/lost", f"a redirect to file:///etc/passwd, {no_https}"),
        ):
            result = attempt("import-autoconfig", url + path, "--yes", env=env)
            assert result.stderr == f"automx: {url}{path}: {reason}\n"
        automx("import-autoconfig", f"{url}/mail/config-v1.1.xml", "--yes", env=env)
    assert [*links(env)] == ["example.com"]


@pytest.mark.parametrize("command", ["apply", "seed", "import-csv", "import-autoconfig"])
def test_a_file_without_end_is_refused(env: dict[str, str], command: str) -> None:
    size = MAX_SIZE if command == "import-autoconfig" else documents.MAX_SIZE
    result = attempt(command, "/dev/zero", env=env)
    assert (result.returncode, result.stderr) == (
        1,
        f"automx: /dev/zero is larger than {size} bytes\n",
    )


# CSV.


@pytest.fixture
def hoster(env: dict[str, str]) -> None:
    """Fill the database with two providers and their servers."""
    automx("import-autoconfig", ISPDB, "--yes", "--domain", "first.example", env=env)
    automx("provider", "add", "--name", "Other Inc.", env=env)
    automx("service", "add", "--type", "caldav", "--url", "https://dav.example/", env=env)
    directory = ("--name", "ldap.example", "--search-base", "dc=example")
    automx("directory", "add", *directory, env=env)


@pytest.mark.usefixtures("hoster")
def test_a_table_with_all_columns_becomes_domains(env: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "domains.csv"
    path.write_bytes(
        "sep=;\r\nName;Provider;Servers;Services;Directory;Disabled\r\n"
        "Müller.example;Other Inc.;pop.bluemail.example 5;https://dav.example/;ldap.example;yes\r\n"
        ";;;;;\r\n"
        '"two.example";"";"";"";"";""\r\n'.encode("cp1252")
    )
    one = ("--provider", "BlueMail")
    printed = automx("import-csv", path, *one, "--json", env=env)
    assert json.loads(printed)["numbers"] == {"added": 2, "changed": 0, "removed": 0}
    found = json.loads(automx("domain", "list", "--json", env=env))
    assert [{**row, "id": None} for row in found[1:]] == [
        {
            "id": None,
            "name": "müller.example",
            "provider": 2,
            "ldapserver_id": 1,
            "servers": [3, 5],
            "davservers": [1],
            "disabled": True,
            "origin": None,
        },
        {
            "id": None,
            "name": "two.example",
            "provider": 1,
            "ldapserver_id": None,
            "servers": [1, 2, 3, 4, 5],
            "davservers": [],
            "disabled": False,
            "origin": None,
        },
    ]


@pytest.mark.usefixtures("hoster")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name\nx y\n", 'line 2, column name: expected a domain name .*, found "x y"'),
        ("name,servers\na.example,nowhere\n", "line 2, column servers: There is no mail server .*"),
        ("name,servers\na.example,imap.bluemail.example\n", "line 2, column servers: 2 mail .*"),
        ("name,services\na.example,1 2\n", "line 2, column services: There is no service 2."),
        ("name,provider\n\na.example,x\n", "line 3, column provider: There is no provider x."),
        ("name,directory\na.example,x\n", "line 2, column directory: There is no directory x."),
        ("name,disabled\na.example,maybe\n", 'line 2, column disabled: expected .*, found "maybe"'),
    ],
)
def test_an_error_of_a_table_names_line_and_column(
    env: dict[str, str], text: str, reason: str
) -> None:
    before = rows(env)
    result = attempt("import-csv", "-", "--provider", "1", env=env, stdin=text)
    assert (result.returncode, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert re.fullmatch(f"automx: standard input: {reason}", line)
    assert rows(env) == before


@pytest.mark.usefixtures("hoster")
def test_domains_of_a_table_that_exist_are_a_conflict_or_passed_over(env: dict[str, str]) -> None:
    table = "name,provider\nnew.example,1\nFIRST.example,1\n"
    result = attempt("import-csv", "-", env=env, stdin=table)
    assert result.returncode == 1
    assert result.stderr == "automx: 1 of 2 domains exists already: first.example\n"
    assert [*links(env)] == ["first.example"]
    before = rows(env)
    automx("import-csv", "-", "--skip-existing", "--dry-run", env=env, stdin=table)
    assert rows(env) == before
    automx("import-csv", "-", "--skip-existing", env=env, stdin=table)
    assert [*links(env)] == ["first.example", "new.example"]


@pytest.mark.usefixtures("hoster")
def test_a_line_of_a_table_without_provider_is_named_if_there_are_several(
    env: dict[str, str],
) -> None:
    table = "name,provider\na.example,1\nb.example,\n"
    result = attempt("import-csv", "-", env=env, stdin=table)
    assert (result.returncode, result.stderr) == (
        1,
        "automx: standard input: line 3, column provider: there is not exactly one provider\n",
    )


# Databases.


def test_imports_are_the_same_in_each_database(any_migrated_uri: str, tmp_path: Path) -> None:
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": any_migrated_uri, "HOME": str(tmp_path)}
    automx("import-autoconfig", ISPDB, "--yes", env=env)
    automx("import-autoconfig", ISPDB, "--yes", "--domain", "new.example", env=env)
    automx("import-csv", "-", env=env, stdin="name,disabled\nlast.example,yes\n")
    names = ["bluemail.example", "blue.example", "ümlaut.example", "new.example", "last.example"]
    assert links(env) == {name: (1, [1, 2, 3, 4, 5]) for name in names}
    assert len(ids(env, "server")) == 5
