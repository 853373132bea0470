"""``automx quickstart``: a domain from nothing, on a small internet of real servers."""

import contextlib
import json
import os
import pty
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from automx import dns, lookup
from automx.changes import Changes
from automx.clientconfig import Authentication, MailServer, ServerType, SocketType
from automx.database import open_session
from automx.migrations import revisions, upgrade
from automx.moments import this_second
from automx.quickstart import rows
from tests.commandline import attempt, automx
from tests.internet import HOST, MAIL, Internet, common_records, internet, prepared
from tests.processes import AUTOMX, Server, serving

READY = "ready.test"
TABLES = ("provider", "server", "domain", "server_domain")
SERVERS = [
    MailServer(type_, MAIL, port, SocketType.SSL, "", (Authentication.PASSWORD_CLEARTEXT,))
    for type_, port in ((ServerType.IMAP, 993), (ServerType.SMTP, 465))
]
# A search for each; what DNS says of the domain, beside that it exists.
ZONES = {
    "srv": f"""
_imaps._tcp.srv.test. IN SRV 20 1 993 backup.srv.test.
_imaps._tcp.srv.test. IN SRV 10 1 993 {MAIL}.
_submission._tcp.srv.test. IN SRV 0 1 587 {MAIL}.
_pop3s._tcp.srv.test. IN SRV 0 1 995 {MAIL}.
mail.srv.test. IN A {{mail}}
""",
    "usual": "mail.usual.test. IN A {mail}\n",
    "parts": "imap.parts.test. IN A {mail}\nsmtp.parts.test. IN A {mail}\n",
    "mx": f"mx.test. IN MX 10 {MAIL}.\n",
    "denied": f"_imaps._tcp.denied.test. IN SRV 0 0 0 .\ndenied.test. IN MX 10 {MAIL}.\n",
    "misnamed": "mail.misnamed.test. IN A {mail}\n",
    "none": "www.none.test. IN A {mail}\n",
    "hang": "mail.hang.test. IN A {hang}\n",
    # Control characters of ISO 6429, in the names of hosts.
    "odd": """
_imaps._tcp.odd.test. IN SRV 0 1 993 \\027[2J\\155.odd.test.
odd.test. IN MX 10 \\027]0;x\\007.odd.test.
odd.test. IN MX 20 mail.odd.test.
mail.odd.test. IN A {mail}
""",
    # More than a person reads: 1,000 servers, one of which has 1,000 addresses.
    "many": "".join(
        f"_imaps._tcp.many.test. IN SRV {n} 1 993 h{n}.many.test.\n"
        f"_autodiscover._tcp.many.test. IN SRV {n} 1 443 h{n}.many.test.\n"
        f"many.test. IN MX {n} h{n}.many.test.\n"
        f"h0.many.test. IN A 127.99.{n // 250}.{n % 250 + 1}\n"
        for n in range(1_000)
    ),
    # Loops, an address in the place of a name, and hosts that are any machine.
    "astray": """
_imaps._tcp.astray.test. IN CNAME _imaps._tcp.astray.test.
_imap._tcp.astray.test. IN SRV 0 1 993 127.0.0.1.
_submissions._tcp.astray.test. IN SRV 0 1 465 any.astray.test.
astray.test. IN MX 0 a.astray.test.
a.astray.test. IN CNAME b.astray.test.
b.astray.test. IN CNAME a.astray.test.
any.astray.test. IN A 0.0.0.0
""",
    "loud": "_imap._tcp.loud.test. IN SRV 0 1 143 mail.loud.test.\nmail.loud.test. IN A {loud}\n",
    "named": "",
}
# What a mail server may say: control characters, and no end.
LOUD = b"\x1b]0;x\x07\x9b2J\xe2\x80\xae" * 4_096


@dataclass(frozen=True)
class World:
    """What runs: DNS, mail servers, a web server, and automx with a database of its own."""

    internet: Internet
    authority: Path
    server: Server
    env: Mapping[str, str]

    @property
    def options(self) -> list[str]:
        return ["--dns", self.internet.names.option, "--ca-file", str(self.authority)]

    def run(
        self, *arguments: str, env: Mapping[str, str], timeout: str = "20"
    ) -> "subprocess.CompletedProcess[str]":
        """Run the command as a script does."""
        command = ["quickstart", *arguments, "--yes", "--timeout", timeout, *self.options]
        return attempt(*command, env=env)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everything that runs."""
    folder = tmp_path_factory.mktemp("quickstart")
    addresses, authority = prepared(folder)
    names = ["mail.srv.test", "mail.usual.test", "imap.parts.test", "smtp.parts.test"]
    loud = f"{addresses.nothing.rpartition('.')[0]}.5"
    words = {"mail": addresses.mail, "hang": addresses.nothing, "loud": loud}
    zone = common_records(addresses) + ready_records(folder, addresses.front)
    zone += "".join(lines.format(**words) for lines in ZONES.values())
    env = environment(folder / "automx.sqlite") | {
        "AUTOMX_PUBLIC_HOST": HOST,
        "AUTOMX_PROXY_COUNT": "1",
    }
    upgrade(env["AUTOMX_DB_URI"])
    with contextlib.ExitStack() as stack:
        for port in (993, 143, 995, 110, 465, 587):
            # They accept, and say nothing.
            stack.enter_context(socket.create_server((addresses.nothing, port)))
            talk(stack.enter_context(socket.create_server((loud, port))))
        server = stack.enter_context(
            serving({"AUTOMX_DB_URI": env["AUTOMX_DB_URI"]}, folder / "log", "--workers", "1")
        )
        started = internet(
            folder,
            addresses,
            automx=server.url,
            web=authority.issue(HOST, READY, f"*.{READY}"),
            mail=authority.issue(MAIL, *names),
            zones={"test": zone},
        )
        yield World(stack.enter_context(started), authority.root, server, env)


def talk(listener: socket.socket) -> None:
    """Say LOUD to whoever connects, for ever."""

    def say(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while True:
                connection.sendall(LOUD)

    def accept() -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                threading.Thread(target=say, args=listener.accept()[:1], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def environment(database: Path) -> dict[str, str]:
    return {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}


def ready_records(folder: Path, front: str) -> str:
    """Return all records of a domain for which nothing is left to do."""
    db_uri = f"sqlite:///{folder}/records.sqlite"
    upgrade(db_uri)
    with open_session(db_uri) as session:
        changes = Changes(session, "test", now=this_second())
        rows.add(changes, READY, SERVERS)
        changes.finish()
        session.commit()
        found = dns.records(lookup.find(session, READY).config, HOST)
    lines = [f"{record.name}. IN {record.type} {record.data}\n" for record in found]
    return "".join([*lines, f"{READY}. IN A {front}\n"])


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Settings for a database that does not exist yet."""
    return environment(tmp_path / "automx.sqlite")


def database_of(env: Mapping[str, str]) -> Path:
    return Path(env["AUTOMX_DB_URI"].removeprefix("sqlite:///"))


def content(env: Mapping[str, str]) -> dict[str, list[Any]]:
    with contextlib.closing(sqlite3.connect(database_of(env))) as connection:
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in TABLES}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (
            "srv",
            [
                ("imap", MAIL, 993, "SSL", "SRV record"),
                ("pop3", MAIL, 995, "SSL", "SRV record"),
                ("smtp", MAIL, 587, "STARTTLS", "SRV record"),
            ],
        ),
        (
            "usual",
            [
                ("imap", "mail.usual.test", 993, "SSL", "usual name"),
                ("smtp", "mail.usual.test", 465, "SSL", "usual name"),
            ],
        ),
        (
            "parts",
            [
                ("imap", "imap.parts.test", 993, "SSL", "usual name"),
                ("smtp", "smtp.parts.test", 465, "SSL", "usual name"),
            ],
        ),
        ("mx", [("imap", MAIL, 993, "SSL", "MX record"), ("smtp", MAIL, 465, "SSL", "MX record")]),
        (
            "denied",
            [("imap", MAIL, 143, "STARTTLS", "MX record"), ("smtp", MAIL, 465, "SSL", "MX record")],
        ),
    ],
)
def test_mail_servers_are_found(
    world: World, env: dict[str, str], name: str, found: list[tuple[object, ...]]
) -> None:
    result = world.run(f"{name}.test", "--json", env=env)
    assert (result.returncode, result.stderr) == (3, "")
    document = json.loads(result.stdout)
    members = ("type", "name", "port", "socket_type", "source")
    assert [tuple(each[member] for member in members) for each in document["found"]] == found
    stored = json.loads(automx("server", "list", "--json", env=env))
    types = {"pop": "pop3"}
    assert [
        (types.get(row["type"], row["type"]), row["name"], row["port"], row["socket_type"])
        for row in stored
    ] == [each[:4] for each in found]
    assert {row["authentication"] for row in stored} == {"plain"}
    [domain] = json.loads(automx("domain", "list", "--json", env=env))
    assert (domain["name"], domain["servers"]) == (f"{name}.test", [row["id"] for row in stored])


def test_nothing_is_left_for_a_domain_with_everything(world: World) -> None:
    """It is found, written, served and looked at; the second time, nothing is changed."""
    arguments = [READY, "--listens", world.server.url.removeprefix("http://")]
    result = world.run(*arguments, env=world.env)
    end = re.search(r"certificate until (\S+)", result.stdout)
    assert end
    assert (result.returncode, result.stderr) == (0, "")
    assert (
        result.stdout.replace(end[1], "DATE")
        == f"""\
Looking for the mail servers of {READY}.

IMAP  {MAIL}  port 993  SSL  certificate until DATE  (SRV record)
SMTP  {MAIL}  port 465  SSL  certificate until DATE  (SRV record)

Added provider 1 ({READY}).
Added server 1 ({MAIL}): imap, port 993, SSL.
Added server 2 ({MAIL}): smtp, port 465, SSL.
Added domain {READY}.


Mail clients find {READY}. Nothing is left to do.

iPhone and Mac need a profile, which people get at https://{HOST}/
"""
    )
    before = content(world.env), automx("audit", "list", "--json", env=world.env)
    again = world.run(*arguments, env=world.env)
    assert (
        again.stdout
        == f"""\
Nothing was changed: the database has {READY} already.


Mail clients find {READY}. Nothing is left to do.

iPhone and Mac need a profile, which people get at https://{HOST}/
"""
    )
    assert (again.returncode, again.stderr) == (0, "")
    assert (content(world.env), automx("audit", "list", "--json", env=world.env)) == before


def test_what_is_left_is_a_list_of_steps_with_commands(world: World, env: dict[str, str]) -> None:
    result = world.run("usual.test", "--web-server", "nginx", env=env)
    assert (result.returncode, result.stderr) == (3, "")
    steps = result.stdout.partition("What is left to do:\n")[2]
    assert (
        steps
        == """
1. Set public_host = automx.usual.test and proxy_count = 1, then start automx
   again.
     export AUTOMX_PUBLIC_HOST=automx.usual.test AUTOMX_PROXY_COUNT=1

2. Start automx: nothing answers at 127.0.0.1:4243. docs/install.md makes it a
   service.
     automx serve

3. Give automx.usual.test an address in DNS, that of the web server. This shows
   it:
     dig +short automx.usual.test A automx.usual.test AAAA

4. Add the records above to the zone of usual.test.
     automx dns usual.test --host automx.usual.test

5. When DNS has the names, get a certificate, if there is none yet.
     certbot certonly --keep-until-expiring --webroot -w /var/www/html \\
       --cert-name automx-1 -d automx.usual.test -d autoconfig.usual.test \\
       -d autodiscover.usual.test -d ua-auto-config.usual.test

6. Configure nginx; see first what /etc/nginx/conf.d/automx.conf holds, if it
   exists.
     automx web-server nginx usual.test --host automx.usual.test \\
       >/etc/nginx/conf.d/automx.conf
     nginx -t && systemctl reload nginx

7. Look again whether mail clients find everything.
     automx check usual.test --host automx.usual.test

Beside this, the 5 warnings above are worth a look: docs/check.md explains them.

iPhone and Mac need a profile, which people get at https://automx.usual.test/
"""
    )
    zone = automx("dns", "usual.test", "--host", "automx.usual.test", env=env)
    assert zone in result.stdout
    site = automx("web-server", "nginx", "usual.test", "--host", "automx.usual.test", env=env)
    assert site in result.stdout


def test_each_command_of_a_step_is_one_that_automx_knows(world: World, env: dict[str, str]) -> None:
    document = json.loads(
        world.run("usual.test", "--json", "--web-server", "caddy", env=env).stdout
    )
    commands = [command for step in document["left"] for command in step["commands"]]
    own = [command.partition(" >")[0].split() for command in commands if "automx " in command[:7]]
    for _, *words in own:
        assert attempt(*words, "--help", env=env).returncode == 0, words
    assert [words[1] for words in own] == ["serve", "dns", "web-server", "check"]
    assert not [command for command in commands if command.startswith("certbot")]


def test_settings_in_a_file_are_changed_by_the_command_that_is_printed(
    world: World, env: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "automx.conf"
    secret = tmp_path / "db_uri"
    secret.write_text(env["AUTOMX_DB_URI"])
    file.write_text(f"[automx]\ndb_uri_file = {secret}\n#proxy_count = 0\n")
    at_file = {"AUTOMX_CONF": str(file)}
    document = json.loads(world.run("usual.test", "--json", env=at_file).stdout)
    [command] = document["left"][0]["commands"]
    subprocess.run(["sh", "-c", command], check=True)
    assert file.read_text().splitlines() == [
        "[automx]",
        "public_host = automx.usual.test",
        f"db_uri_file = {secret}",
        "proxy_count = 1",
    ]
    again = json.loads(world.run("usual.test", "--json", env=at_file).stdout)
    assert not again["left"][0]["text"].startswith("Set ")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("none.test", "No mail server of none.test was found."),
        ("misnamed.test", "IMAP mail.misnamed.test:993: the certificate is not for"),
        ("hang.test", "No mail server of hang.test was found."),
        ("absent.test", "No mail server of absent.test was found."),
    ],
)
def test_a_domain_without_mail_servers_is_not_written(
    world: World, env: dict[str, str], name: str, told: str
) -> None:
    result = world.run(name, env=env, timeout="1" if name == "hang.test" else "20")
    assert result.returncode == 1
    assert told in result.stdout
    assert "name it by --mail-host, or by --imap and --smtp" in result.stderr
    assert not database_of(env).exists()


def test_a_server_that_is_named_is_taken_as_it_is(world: World, env: dict[str, str]) -> None:
    arguments = ["named.test", "--imap", "mail.misnamed.test", "--smtp", f"{MAIL}:587", "--json"]
    document = json.loads(world.run(*arguments, env=env).stdout)
    assert [(each["name"], each["port"], each["fault"]) for each in document["found"]] == [
        ("mail.misnamed.test", 993, "the certificate is not for mail.misnamed.test"),
        (MAIL, 587, ""),
    ]


def test_names_of_strangers_are_not_printed_as_they_are(world: World, env: dict[str, str]) -> None:
    result = world.run("odd.test", "--mail-host", "mail.odd.test", env=env)
    assert result.returncode == 3
    search = world.run("odd.test", env=environment(database_of(env).with_name("other")))
    for text in (result.stdout, result.stderr, search.stdout, search.stderr):
        assert [line for line in text.split("\n") if not line.isprintable()] == []
        assert "[2J" not in text


@pytest.mark.parametrize("name", ["many", "astray", "loud"])
def test_strangers_do_not_flood_a_terminal(world: World, env: dict[str, str], name: str) -> None:
    """Neither the search nor the doctor says all that strangers say."""
    search = world.run(f"{name}.test", env=env)
    assert search.returncode == 1
    written = world.run(f"{name}.test", "--imap", f"h0.{name}.test", "--smtp", MAIL, env=env)
    assert written.returncode == 3
    for text in (search.stdout, search.stderr, written.stdout, written.stderr):
        lines = text.split("\n")
        assert [line for line in lines if not line.isprintable() or len(line) > 1_500] == []
        assert len(lines) < 300
    told = {
        "many": "IMAP h2.many.test:993: the name has no address",
        "astray": "DNS: a.astray.test: the CNAME records form a loop.",
        "loud": "IMAP mail.loud.test:143: another protocol is spoken there:",
    }[name]
    assert told in search.stdout
    assert "127.0.0.1:993" not in search.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        *(["", "alice@example.com", "https://example.com", "a b", "\x1b[2J.test", "localhost"]),
        *(["1.2.3.4", "*.example.com", "a" * 300, "example..com", "."]),
        *(["x.test --imap=a_b!", "x.test --imap=mail.x.test:99999", "x.test --imap=:993"]),
        *(["x.test --mail-host=mail.x.test:993", "x.test --public-host=1.2.3.4"]),
        *(["x.test --public-host=a;b", "x.test --listens=127.0.0.1", "x.test --listens=a;b:1"]),
        *(["x.test --web-server=iis", "x.test --dns=x", "x.test --timeout=0"]),
    ],
)
def test_nonsense_is_refused_before_anything_is_done(env: dict[str, str], arguments: str) -> None:
    words = [arguments] if " --" not in arguments else arguments.split(" ")
    result = attempt("quickstart", "--yes", *words, env=env)
    assert (result.returncode, result.stdout) == (2, "")
    assert [line for line in result.stderr.split("\n") if not line.isprintable()] == []
    assert not database_of(env).exists()


def test_without_a_terminal_nobody_is_asked(env: dict[str, str]) -> None:
    result = attempt("quickstart", "usual.test", env=env, stdin="y\n" * 9)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "automx: nobody can be asked here; say --yes to take what is found\n"
    assert not database_of(env).exists()


def test_a_person_is_asked_for_what_is_not_found(world: World, env: dict[str, str]) -> None:
    answers = ["no host!", MAIL, "perhaps", "y", "", "iis", "caddy"]
    shown = on_a_terminal(world, "none.test", env=env, answers=answers)
    questions = [
        "Host name of the IMAP and SMTP server: ",
        "automx: 'no host!': ",
        "is no host name, such as mail.example.com",
        "Shall mail clients use these servers? [Y/n]: ",
        "automx: the answer is y or n\n",
        "Public host name of automx, where mail clients will ask it [automx.none.test]: ",
        "Web server in front of automx",
        "automx: 'iis' is not one of 'nginx', 'apache', 'caddy', 'none'.\n",
        "Added domain none.test.",
        "Configuration of caddy, for /etc/caddy/Caddyfile:",
        "What is left to do:",
    ]
    places = [shown.index(question) for question in questions]
    assert places == sorted(places)
    assert [row[1] for row in content(env)["domain"]] == ["none.test"]
    own = shown.partition("What is left")[2]
    assert [line for line in own.split("\n") if len(line) > 80] == []
    assert "\x1b[3" not in shown  # a colour
    assert "Error" not in shown  # as click tells errors


def test_a_person_who_does_not_agree_names_another_server(
    world: World, env: dict[str, str]
) -> None:
    answers = ["n", MAIL, "y", "automx.usual.test", "none"]
    on_a_terminal(world, "usual.test", env=env, answers=answers)
    assert {row[2] for row in content(env)["server"]} == {MAIL}


@pytest.mark.parametrize(
    "answers", [["\x03"], ["n", "\x03"], ["y", "\x03"], ["y", "automx.usual.test", "\x03"]]
)
def test_ctrl_c_at_a_question_writes_nothing(
    world: World, env: dict[str, str], answers: list[str]
) -> None:
    shown = on_a_terminal(world, "usual.test", env=env, answers=answers, status=130)
    assert shown.endswith("\nautomx: interrupted\n")
    assert "Traceback" not in shown
    assert not database_of(env).exists()


def on_a_terminal(
    world: World,
    *arguments: str,
    env: Mapping[str, str],
    answers: list[str],
    status: int = 3,
) -> str:
    """Return what a person sees who gives answers, each to one question."""
    near, far = pty.openpty()
    command = [str(AUTOMX), "quickstart", *arguments, *world.options, "--timeout", "20"]
    environment = {**os.environ, **env, "NO_COLOR": "1", "COLUMNS": "80"}
    process = subprocess.Popen(
        command, stdin=far, stdout=far, stderr=far, env=environment, start_new_session=True
    )
    os.close(far)
    shown = b""
    waiting = list(answers)
    with contextlib.suppress(OSError):  # the far end is closed
        while piece := os.read(near, 65536):
            shown += piece
            if waiting and shown.rstrip(b"\r\n").endswith(b": "):
                answer = waiting.pop(0)
                if answer == "\x03":
                    interrupt(process)
                else:
                    os.write(near, f"{answer}\n".encode())
    os.close(near)
    assert process.wait() == status
    text = shown.decode().replace("\r\n", "\n")
    assert not waiting, text
    return re.sub(r"\r[^\n]*?\x1b\[K|\x1b\[\?25[hl]|\r", "", text)


def interrupt(process: "subprocess.Popen[bytes]") -> None:
    """Press Ctrl-C until it is seen: just before a program waits for a key, it is not."""
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)


def test_a_domain_that_is_there_keeps_its_servers(world: World, env: dict[str, str]) -> None:
    automx("db", "upgrade", env=env)
    for command in (
        "provider add --name Kept",
        f"server add --type imap --name {MAIL}",
        f"server add --type smtp --name {MAIL} --port 587",
        f"domain add named.test --server {MAIL}:993 --server {MAIL}:587",
    ):
        automx(*command.split(), env=env)
    before = content(env)
    result = world.run("NAMED.test", env=env)
    assert result.returncode == 3
    assert result.stdout.startswith("Nothing was changed: the database has named.test already.\n")
    assert world.run("named.test", "--mail-host", MAIL, env=env).returncode == 3
    other = world.run("named.test", "--imap", "mail.usual.test", env=env)
    assert (other.returncode, other.stdout) == (1, "")
    assert "without the IMAP server mail.usual.test" in other.stderr
    assert content(env) == before


def test_a_domain_without_a_server_is_told_how_to_get_one(
    world: World, env: dict[str, str]
) -> None:
    for command in ("db upgrade", "provider add --name Kept", "domain add mx.test"):
        automx(*command.split(), env=env)
    result = world.run("mx.test", env=env)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "automx: the database has mx.test already, without a mail server: automx server add and"
        " automx domain link give it some\n"
    )


def test_a_provider_and_servers_that_are_there_are_used(world: World, env: dict[str, str]) -> None:
    world.run("mx.test", env=env)
    world.run("named.test", "--mail-host", MAIL, env=env)
    world.run("usual.test", "--provider", "Other", env=env)
    found = content(env)
    assert [row[1] for row in found["provider"]] == ["mx.test", "Other"]
    assert [(row[1], row[2]) for row in found["domain"]] == [
        ("mx.test", 1),
        ("named.test", 1),
        ("usual.test", 2),
    ]
    assert len(found["server"]) == 4


def test_a_domain_that_is_switched_off_stays_off(world: World, env: dict[str, str]) -> None:
    world.run("mx.test", env=env)
    automx("domain", "disable", "mx.test", env=env)
    result = world.run("mx.test", env=env)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("automx: mx.test has been off since ")


def test_a_database_of_an_older_automx_is_brought_up_to_date(
    world: World, env: dict[str, str]
) -> None:
    *_, before, newest = revisions()
    automx("db", "upgrade", before, env=env)
    result = world.run("mx.test", env=env)
    assert result.returncode == 3
    assert result.stdout.startswith(f"Upgraded to {newest}: ")
    assert len(content(env)["domain"]) == 1


def test_a_database_in_memory_is_refused(env: dict[str, str]) -> None:
    result = attempt("quickstart", "x.test", "--yes", env=env | {"AUTOMX_DB_URI": "sqlite://"})
    assert (result.returncode, result.stdout) == (1, "")
    assert "memory" in result.stderr


def test_a_program_that_is_killed_leaves_no_row(world: World, env: dict[str, str]) -> None:
    code = (
        "import os\n"
        "from automx.changes import Changes\n"
        "Changes.finish = lambda changes: os.kill(os.getpid(), 9)\n"
        "from automx.cli import main\n"
        "main()"
    )
    command = [sys.executable, "-c", code, "quickstart", "mx.test", "--yes", *world.options]
    result = subprocess.run(command, env={**os.environ, **env}, check=False, capture_output=True)
    assert result.returncode == -9
    assert content(env) == {name: [] for name in TABLES}
    assert world.run("mx.test", env=env).returncode == 3
    assert [row[1] for row in content(env)["domain"]] == ["mx.test"]


def test_two_at_once_write_the_rows_once(world: World, any_database_uri: str) -> None:
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": any_database_uri}
    command = [str(AUTOMX), "quickstart", "mx.test", "--yes", "--json", *world.options]
    processes = [
        subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    documents = [json.loads(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [3, 3]
    assert sorted(len(document["changes"]) for document in documents) == [0, 4]
    for kind, number in (("provider", 1), ("server", 2), ("domain", 1)):
        found = json.loads(automx(kind, "list", "--json", env=env))
        assert len(found) == number
    assert len(found[0]["servers"]) == 2


def test_the_audit_names_who_did_it(world: World, env: dict[str, str]) -> None:
    world.run("mx.test", env=env | {"SUDO_USER": "alice"})
    entries = json.loads(automx("audit", "list", "--json", env=env))
    assert [(entry["actor"], entry["action"], entry["kind"]) for entry in entries] == [
        ("user:alice", "add", kind) for kind in ("provider", "server", "server", "domain")
    ]
