"""Targets: what neighbours answer: account backends, directories, name servers, other servers."""

import re
import socket
import ssl
import tempfile
from contextlib import closing, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dns.exception
import dns.message
import dns.nameserver
import dns.query
import httpx

from automx import deadline
from automx.address import PLACEHOLDER, EmailAddress
from automx.backends import Mailbox, Owner, command, mailadm_mark
from automx.backends.keys import KeyGate, ProcessMemory
from automx.backends.mailcow import Mailcow
from automx.check.http import ask, follow
from automx.check.http import target as target_of
from automx.check.mail import MailChecks
from automx.check.network import Network, NetworkError
from automx.check.records import RecordChecks
from automx.check.web import WebChecks
from automx.clientconfig import FORBIDDEN, ServerType
from automx.directory.connection import Connection, Credentials, Host, HostError, TlsMode
from automx.directory.ldap import person
from automx.directory.row import LdapServer, ldap3
from automx.errors import AutomxError
from automx.rows import BadRowError, ldap_server
from tests.fakenetwork import CONFIG, IMAP, FakeNetwork, findings
from tests.fuzz.promises import keep, one_line, refusing, target, text_of
from tests.tables import ROWS

_OWNER = Owner("summer", "c0ffee")
_PASSWORD = "hush-hush-hush"
_ADDRESS = "alice@example.com"
_URL = "https://autoconfig.example.com/mail/config-v1.1.xml"


def _call_all(backend: Any) -> None:
    """Call each method of a backend; check what it raises and returns."""
    with refusing(AutomxError):
        try:
            backend.create(_ADDRESS, _PASSWORD, _OWNER)
        except AutomxError as error:
            keep(_PASSWORD not in f"{error.cause}", "no password in the log")
            raise
    calls = (
        lambda: backend.check_address(_ADDRESS),
        lambda: backend.find(_ADDRESS, _OWNER),
        lambda: backend.disable(_ADDRESS, _OWNER),
        lambda: backend.delete(_ADDRESS, Owner("x", mailadm_mark("summer"))),
        lambda: list(backend.faults(["example.com"])),
    )
    for call in calls:
        try:
            found = call()
        except AutomxError as error:
            one_line(str(error))
            keep("\n" not in error.reason, f"one line for the log: {error.reason}")
        else:
            is_mailbox = isinstance(found, Mailbox) and isinstance(found.is_active, bool)
            keep(found is None or isinstance(found, list) or is_mailbox, "it is a mailbox")


@target
def command_answer(data: bytes) -> None:
    """Read what the program of the account backend prints."""
    with patch.object(command, "run", lambda *_, **__: data):
        _call_all(command.Command(["/bin/true"], timeout=1))


@cache
def _mailcow() -> Mailcow:
    return Mailcow("https://mailcow.invalid", "key", timeout=1, ca_file="", keys=ProcessMemory())


@target
def mailcow_answer(data: bytes) -> None:
    """Read answers of mailcow: in each, the status, the Content-Type and the body, by lines."""
    backend = _mailcow()
    answers = data.split(b"\n\n") or [b""]
    number = -1

    def exchange(*_: object) -> tuple[httpx.Response, bytes]:
        nonlocal number
        number += 1
        lines = answers[number % len(answers)].split(b"\n", 2)
        status, kind, body = [*lines, b"", b""][:3]
        code = int(status) if re.fullmatch(rb"[2-5]\d\d", status) else 200
        return httpx.Response(code, headers={b"Content-Type": kind.strip()}), body

    api = backend._api
    with patch.object(api, "_exchange", exchange), patch.object(api, "_gate", _gate()):
        _call_all(backend)


def _gate() -> KeyGate:
    return KeyGate(_Forgetting(), "digest", "mailcow_token")


class _Forgetting(ProcessMemory):
    """A memory in which no key is refused for long: each answer is read."""

    def read(self, digest: str) -> None:
        return None

    def replace(self, digest: str, before: object, after: object) -> bool:
        return True


_LDAP_ROW = ldap_server({**ROWS["ldapserver"], "login_name": "CORP\\{uid}", "id": 1})


@target
def ldap_entry(data: bytes) -> None:
    """Read an entry of a directory: the values of uid and cn, by lines."""
    uid, _, rest = data.partition(b"\n")
    attributes: dict[str, Any] = {"UID": [uid] if uid else [], "cn": rest.split(b"\n")}
    found = person(_LDAP_ROW, {"raw_attributes": attributes}, EmailAddress.parse(_ADDRESS))
    for text in (found.login_name, found.display_name):
        is_fit = not FORBIDDEN.search(text) and not PLACEHOLDER.search(text)
        keep(is_fit, f"documents can hold it: {text!r}")


@target
def ldap_row(data: bytes) -> None:
    """Read hosts, search bases, filter and login name of a row; a filter must be sendable."""
    names = ("name", "search_base", "search_filter", "login_name")
    texts = dict(zip(names, text_of(data).split("\n"), strict=False))
    try:
        server = ldap_server({**ROWS["ldapserver"], "login_name": None, "id": 1, **texts})
    except BadRowError as error:
        one_line(str(error))
        return
    for local_part in ("alice", "a*)(uid=*", "%", "jürgen"):
        _check_filter(server, EmailAddress(local_part, "example.com"))
    keep(all(host.name and host.port < 65536 for host in server.hosts), "each host has a name")


def _check_filter(server: LdapServer, address: EmailAddress) -> None:
    ldap3()
    from ldap3.operation.search import search_operation

    search_filter = server.filter_for(address)
    for base in server.search_bases:
        search_operation(base, search_filter, "SUBTREE", "ALWAYS", ["uid"], 2, 0, False, None, None)


@cache
def _listener() -> tuple[socket.socket, str]:
    folder = tempfile.TemporaryDirectory(prefix="automx-fuzz-")
    path = str(Path(folder.name) / "ldapi")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    _KEPT.append(folder)
    return listener, path


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


@target
def ldap_answer(data: bytes) -> None:
    """Read what a directory sends after the connection: the answers to bind and search."""
    listener, path = _listener()
    host = Host(path, 0, TlsMode.SOCKET)
    credentials = Credentials(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), False, "", "")
    connection = Connection(host, credentials)
    end = deadline.after(10)
    try:
        connection.connect(end)
        theirs, _ = listener.accept()
        with theirs:
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)
            try:
                connection.bind(end)
                entries = connection.search(["dc=a"], "(uid=x)", ["uid", "cn"], end)
            except HostError as error:
                keep(str(error) != "", "an error has a reason")
                return
            keep(len(entries) <= 2, "at most two entries")
            for entry in entries:
                person(_LDAP_ROW, entry, EmailAddress.parse(_ADDRESS))
    finally:
        connection.close()


class _NameServer(dns.nameserver.Nameserver):
    """A name server that answers each question by the same bytes, with the right number."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __str__(self) -> str:
        return "192.0.2.53"

    def kind(self) -> str:
        return "Do53"

    def is_always_max_size(self) -> bool:
        return False

    def answer_nameserver(self) -> str:
        return "192.0.2.53"

    def answer_port(self) -> int:
        return 53

    def query(
        self, request: dns.message.QueryMessage, *_: object, **__: object
    ) -> dns.message.Message:
        """Answer as dns.query.udp() and tcp() do, without a socket."""
        wire = request.id.to_bytes(2, "big") + self._data
        response = dns.message.from_wire(wire)
        if not response.question:
            response.question = request.question
        if not request.is_response(response):
            raise dns.query.BadResponse
        return response


@cache
def _network() -> Network:
    return Network(name_server="192.0.2.53", timeout=0.05)


@target
def dns_answer(data: bytes) -> None:
    """Read a DNS message without its number (RFC 1035) for each question of the doctor."""
    network = _network()
    network._answers.clear()
    network._resolver.nameservers = [_NameServer(data)]
    records = RecordChecks("example.com", network, CONFIG, "automx.example.com")
    for check in records.checks():
        for finding in findings(check):
            keep(bool(finding.text and finding.subject), "a finding has a text")
    for type_ in ("A", "AAAA", "CNAME", "MX", "SRV", "TXT"):
        with suppress(NetworkError):
            keep(all(isinstance(text, str) for text in network.records("a.de", type_)), "texts")


@target
def http_answer(data: bytes) -> None:
    """Read what a web server answers to the doctor."""
    with closing(FakeNetwork(data[:50_000])) as network, suppress(NetworkError):
        answer = ask(network, _URL)
        keep(isinstance(answer.location, str) and 0 < answer.status < 1000, "an answer")
        _, answer = follow(network, _URL, b"<x/>")


@target
def web_checks(data: bytes) -> None:
    """Let the doctor check URLs that all give the same answer."""
    with closing(FakeNetwork(data[:50_000])) as network:
        checks = WebChecks("example.com", network, CONFIG, "automx.example.com")
        for check in checks.checks():
            for finding in findings(check):
                keep(bool(finding.text), "a finding has a text")


@target
def redirect(data: bytes) -> None:
    url = target_of(_URL, text_of(data))
    keep(not url or target_of(_URL, url) == url, f"a target leads to itself: {url}")


@target
def mail_greeting(data: bytes) -> None:
    """Read what a mail server says to the doctor; the first byte chooses its type."""
    type_ = list(ServerType)[data[0] % len(ServerType) if data else 0]
    config = replace(CONFIG, mail_servers=(replace(IMAP, type=type_),))
    with closing(FakeNetwork(data[1:50_000])) as network:
        for check in MailChecks("example.com", network, config).checks():
            for finding in findings(check):
                keep(bool(finding.text), "a finding has a text")
                one_line(finding.text)
