"""What ``automx quickstart`` decides: which answers are taken, what is left to do."""

import shlex
import socket
import subprocess
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from automx.check.finding import Finding, Level
from automx.check.greeting import greet
from automx.check.network import Network, NetworkError
from automx.cli.quickstarttext import command_lines
from automx.clientconfig import Authentication, MailServer, ServerType, SocketType
from automx.config import load, make
from automx.config.files import File
from automx.quickstart.search import (
    GIVEN,
    MX,
    NAME,
    SRV,
    Answer,
    Place,
    Search,
    chosen,
    missing,
    passed_over,
)
from automx.quickstart.steps import Situation, remaining
from automx.webserver import Site
from tests.fakenetwork import FakeNetwork

IMAP, POP3, SMTP = ServerType.IMAP, ServerType.POP3, ServerType.SMTP
SSL, STARTTLS = SocketType.SSL, SocketType.STARTTLS
PASSWORD = (Authentication.PASSWORD_CLEARTEXT,)


def answer(
    type_: ServerType,
    source: str,
    host: str = "mail.x.test",
    socket_type: SocketType = SSL,
    fault: str = "",
    rank: int = 0,
    is_secure: bool = True,
) -> Answer:
    server = MailServer(type_, host, 1, socket_type, "", PASSWORD)
    return Answer(server, source, (rank,), fault, is_secure=is_secure)


def search_of(*answers: Answer, **given: Any) -> Search:
    search = Search("x.test", Network(name_server="127.0.0.1"), given.pop("given", {}))
    search.answers = list(answers)
    search.denied = given.pop("denied", set())
    return search


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (answer(IMAP, SRV, "a", STARTTLS), answer(IMAP, NAME, "b")),
        (answer(IMAP, NAME, "a"), answer(IMAP, NAME, "b", STARTTLS)),
        (answer(IMAP, MX, "a"), answer(IMAP, NAME, "b", STARTTLS)),
        (answer(IMAP, NAME, "b"), answer(IMAP, MX, "a")),
        (answer(IMAP, NAME, "b", rank=0), answer(IMAP, NAME, "a", rank=1)),
        (answer(IMAP, SRV, "b", rank=10), answer(IMAP, SRV, "a", rank=20)),
        (answer(IMAP, SRV, "a"), answer(IMAP, SRV, "b", STARTTLS)),
        (answer(IMAP, NAME, "a"), answer(IMAP, SRV, "b", fault="the certificate has ended")),
    ],
)
def test_the_better_of_two_answers_is_taken(better: Answer, worse: Answer) -> None:
    for answers in ((better, worse), (worse, better)):
        assert chosen(search_of(*answers)) == [better]


def test_pop3_is_taken_where_it_is_named_or_there_is_no_imap() -> None:
    imap, smtp, pop = (answer(type_, NAME) for type_ in (IMAP, SMTP, POP3))
    named = answer(POP3, SRV)
    assert chosen(search_of(imap, smtp, pop)) == [imap, smtp]
    assert chosen(search_of(imap, smtp, named)) == [imap, named, smtp]
    assert chosen(search_of(smtp, pop)) == [pop, smtp]
    assert passed_over(search_of(imap, smtp, pop), [imap, smtp]) == ([pop], [])


def test_dns_may_say_that_there_is_no_such_service() -> None:
    guess = answer(IMAP, NAME)
    assert chosen(search_of(guess, denied={(IMAP, SSL)})) == []
    assert chosen(search_of(guess, denied={(IMAP, STARTTLS)})) == [guess]


def test_a_server_with_a_fault_is_taken_only_if_a_person_names_it() -> None:
    refused = answer(IMAP, GIVEN, fault="connection refused", is_secure=False)
    misnamed = answer(IMAP, GIVEN, socket_type=STARTTLS, fault="the certificate is not for it")
    given = {IMAP: Place("mail.x.test")}
    assert chosen(search_of(refused, misnamed, given=given)) == [misnamed]
    assert chosen(search_of(refused, given=given)) == [refused]
    assert chosen(search_of(answer(IMAP, MX, fault="the certificate has ended"))) == []


def test_guesses_that_do_not_answer_are_not_told() -> None:
    silent = answer(IMAP, NAME, fault="no answer in time", is_secure=False)
    misnamed = answer(IMAP, MX, fault="the certificate is not for mail.x.test")
    assert passed_over(search_of(silent), []) == ([], [])
    assert passed_over(search_of(misnamed, misnamed), []) == ([], [misnamed])


@pytest.mark.parametrize(
    ("types", "lacking"),
    [
        ((), [IMAP, SMTP]),
        ((POP3,), [SMTP]),
        ((IMAP,), [SMTP]),
        ((SMTP,), [IMAP]),
        ((POP3, SMTP), []),
    ],
)
def test_clients_need_incoming_and_outgoing_servers(
    types: Sequence[ServerType], lacking: list[ServerType]
) -> None:
    assert missing(answer(type_, NAME) for type_ in types) == lacking


class TalkingNetwork(FakeNetwork):
    """A server that says its greeting, then an answer for each line that it reads."""

    def __init__(self, greeting: bytes, *answers: bytes) -> None:
        super().__init__(greeting)
        self.timeout = 60
        self._replies = answers

    def connect(self, name: str, port: int, deadline: float) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.open.append(theirs)
        threading.Thread(target=self._talk, args=(theirs,), daemon=True).start()
        return ours

    def _talk(self, sock: socket.socket) -> None:
        with suppress(OSError):  # the other end knows enough, and is closed
            sock.sendall(self.answer)
            for reply in self._replies:
                sock.recv(1024)
                sock.sendall(reply)
            sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    ("type_", "talk", "method"),
    [
        (IMAP, (b"* OK hi\r\n", b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\na OK\r\n"), *PASSWORD),
        (IMAP, (b"* OK hi\r\n", b"* CAPABILITY IMAP4rev1\r\na OK\r\n"), *PASSWORD),
        (
            IMAP,
            (b"* OK hi\r\n", b"* CAPABILITY LOGINDISABLED AUTH=XOAUTH2\r\na OK\r\n"),
            Authentication.OAUTH2,
        ),
        (IMAP, (b"* OK hi\r\n", b"* CAPABILITY LOGINDISABLED\r\na OK\r\n"), None),
        (IMAP, (b"* OK hi\r\n", b"a BAD no\r\n"), None),
        (POP3, (b"+OK hi\r\n", b"+OK\r\nTOP\r\nUSER\r\n.\r\n"), *PASSWORD),
        (
            POP3,
            (b"+OK hi\r\n", b"+OK\r\nSASL SCRAM-SHA-256\r\n.\r\n"),
            Authentication.PASSWORD_ENCRYPTED,
        ),
        (POP3, (b"+OK hi\r\n", b"-ERR what?\r\n"), *PASSWORD),
        (POP3, (b"+OK hi\r\n", b"+OK\r\nSTLS\r\n.\r\n"), None),
        (SMTP, (b"220 hi\r\n", b"250-x\r\n250 AUTH LOGIN PLAIN\r\n"), *PASSWORD),
        (SMTP, (b"220 hi\r\n", b"250-x\r\n250-AUTH GSSAPI\r\n250 y\r\n"), Authentication.GSSAPI),
        (SMTP, (b"220 hi\r\n", b"250-x\r\n250 SIZE 1\r\n"), None),
        (SMTP, (b"220 hi\r\n", b"250 \xff\x1b[2J\r\n"), None),
    ],
)
def test_the_method_to_log_in_is_what_the_server_offers(
    type_: ServerType, talk: tuple[bytes, ...], method: Authentication | None
) -> None:
    server = MailServer(type_, "mail.x.test", 1, SSL, "", PASSWORD)
    with closing(TalkingNetwork(*talk)) as network:
        assert greet(network, server, server.hostname, asks_methods=True).method is method


@pytest.mark.parametrize("type_", [IMAP, POP3, SMTP])
def test_a_server_that_talks_without_an_end_is_left(type_: ServerType) -> None:
    greeting = {IMAP: b"* OK\r\n", POP3: b"+OK\r\n", SMTP: b"220 x\r\n"}[type_]
    endless = {IMAP: b"* X\r\n", POP3: b"+OK\r\n", SMTP: b"250-x\r\n"}[type_] * 1000
    server = MailServer(type_, "mail.x.test", 1, SSL, "", PASSWORD)
    with (
        closing(TalkingNetwork(greeting, endless)) as network,
        pytest.raises(NetworkError) as error,
    ):
        greet(network, server, server.hostname, asks_methods=True)
    assert str(error.value).isprintable()


def situation(*errors: str, **more: Any) -> Situation:
    findings = [Finding("x.test", Level.ERROR, subject, "wrong") for subject in errors]
    values: dict[str, Any] = {
        "web_server": "nginx",
        "settings": make(db_uri="sqlite://", public_host="automx.x.test", proxy_count=1),
        "is_served": True,
        "has_address": True,
    }
    site = Site("automx.x.test", ["x.test"], ["automx.x.test", "autoconfig.x.test"])
    return Situation("x.test", site, findings=findings, **(values | more))


def first_words(case: Situation) -> list[str]:
    return [step.text.split(",")[0].split(":")[0].partition(" ")[0] for step in remaining(case)]


@pytest.mark.parametrize(
    ("case", "steps"),
    [
        (situation(), []),
        (situation("autoconfig.x.test"), ["Add", "When", "Configure", "Look"]),
        (situation("https://autoconfig.x.test"), ["Get", "Configure", "Look"]),
        (situation("https://autoconfig.x.test", web_server="caddy"), ["Configure", "Look"]),
        (situation("https://autoconfig.x.test", web_server=""), ["Put", "Look"]),
        (situation("https://autoconfig.x.test", is_large=True), ["Let", "Configure", "Look"]),
        (situation("imap mail.x.test:993 SSL"), ["Repair", "Look"]),
        (situation("db_uri"), ["Look"]),
        (situation(is_served=None), ["Start"]),
        (situation(is_served=False), ["What"]),
        (situation(settings=make(db_uri="sqlite://")), ["Set"]),
        (situation(has_address=False), ["Give", "Add", "When", "Configure"]),
    ],
    ids=lambda value: "",
)
def test_steps_follow_from_what_was_found(case: Situation, steps: list[str]) -> None:
    assert first_words(case) == steps


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "loglevel = INFO",
        "#public_host =",
        "# public_host = automx.example.org",
        "#public_host = a.test\n#public_host = b.test",
        "public_host = a.test\n#public_host = b.test",
        "#public_host = a.test\npublic_host = b.test",
        "public_host: a.test",
        "Public_Host=a.test",
        "public_host\t= a.test\n[source.x]\ntype = file\nfile = /x\nprovider = 1",
    ],
)
def test_the_command_for_a_file_sets_a_key_once(tmp_path: Path, lines: str) -> None:
    file, link = tmp_path / "it's -a.conf", tmp_path / "link"
    file.write_text(f"[automx]\n{lines}\n")
    link.symlink_to(file)
    case = situation(settings=make(db_uri="sqlite://", proxy_count=1), file=File(link, "automx"))
    [command] = remaining(case)[0].commands
    for _ in range(2):
        subprocess.run(["sh", "-c", "\n".join(command_lines(command))], check=True)
    assert link.is_symlink()
    assert load({"AUTOMX_CONF": str(file)}).public_host == "automx.x.test"


def test_a_key_that_a_variable_gives_is_set_by_a_variable(tmp_path: Path) -> None:
    file = tmp_path / "automx.conf"
    file.write_text("[automx]\nproxy_count = 0\n")
    environ = {"AUTOMX_CONF": str(file), "AUTOMX_PUBLIC_HOST": "other.test"}
    settings = load(environ)
    edit, export = remaining(situation(settings=settings, file=settings.file))[0].commands
    for _ in range(2):
        subprocess.run(["sh", "-c", edit], check=True)
    assert file.read_text() == "[automx]\nproxy_count = 1\n"
    assert export == "export AUTOMX_PUBLIC_HOST=automx.x.test"


def test_a_warning_is_no_step() -> None:
    case = situation()
    warned = [Finding("x.test", Level.WARNING, "_imaps._tcp.x.test", "there is no SRV record")]
    assert remaining(Situation(**{**as_dict(case), "findings": warned})) == []


def as_dict(case: Situation) -> dict[str, Any]:
    return {name: getattr(case, name) for name in case.__dataclass_fields__}


@pytest.mark.parametrize(
    "command",
    [
        "automx serve",
        "certbot certonly " + " ".join(f"-d a{n}.example.test" for n in range(20)),
        f"sed -i -e 's|^a *=.*|a = b|' '/etc/{'x' * 60}/a -b && >c.conf'",
    ],
)
def test_a_long_command_is_the_same_for_a_shell(command: str) -> None:
    lines = list(command_lines(command))
    assert all(len(line) <= 80 for line in lines if "'" not in line)
    joined = "\n".join(lines).replace("\\\n", " ")
    assert shlex.split(joined) == shlex.split(command)
