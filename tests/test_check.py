"""The doctor: healthy domains, and each kind of damage once, on a small internet of real servers.

All damaged domains are looked at by one run, so that each test also shows that damage stays where
it is. What the run should print stands in ``tests/data/check.txt``, line by line.
"""

import contextlib
import datetime
import itertools
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from automx import check, dns, lookup
from automx.check import Target
from automx.check.finding import Finding, Level
from automx.check.http import ask
from automx.check.network import Network, NetworkError
from automx.check.settings import check_settings
from automx.check.web import WebChecks
from automx.clientconfig import Service, ServiceType
from automx.config import make
from automx.database import open_session
from automx.errors import BadRecordError
from automx.migrations import upgrade
from tests.commandline import attempt, automx
from tests.conftest import Execute
from tests.directory import (
    Directories,
    Directory,
    dripping_socket,
    insert_ldapserver,
    silent_socket,
)
from tests.documents import golden
from tests.examples import IMAP as IMAP_SERVER
from tests.examples import SMTP as SMTP_SERVER
from tests.examples import config
from tests.internet import HOST, MAIL, Internet, common_records, internet, prepared, without_tls
from tests.processes import AUTOMX, listens, program, running, serving, wait_until
from tests.terminals import answered_on_a_terminal, on_a_terminal
from tests.tls import Authority

# type, name, port, socket_type
Server = tuple[str, str, int, str]
IMAP = ("imap", MAIL, 993, "SSL")
SMTP = ("smtp", MAIL, 465, "SSL")
SERVERS = (
    IMAP,
    ("pop", MAIL, 995, "SSL"),
    SMTP,
    ("smtp", MAIL, 587, "STARTTLS"),
    ("managesieve", MAIL, 4190, "STARTTLS"),
)
CALENDARS = f"https://{HOST}/calendars/%EMAILADDRESS%/"
PROXY = "location / {{ proxy_pass {automx}; }}"


@dataclass(frozen=True)
class Case:
    """A domain and what is wrong with it: ``{D}`` stands for the domain in all texts.

    ``drop`` are names that its zone lacks, ``add`` are lines that it has instead. ``web`` are hosts
    for which nginx has other lines. ``calendars`` is the URL of a row of ``davserver``.
    """

    name: str
    drop: Sequence[str] = ()
    add: str = ""
    web: Mapping[str, str] = field(default_factory=dict)
    servers: Sequence[Server] = SERVERS
    calendars: str = ""
    user_name: str = "%EMAILADDRESS%"
    ldapserver: int | None = None

    @property
    def domain(self) -> str:
        return self.name if "." in self.name else f"{self.name}.test"


def page(path: str, answer: str) -> str:
    """Return lines of nginx that give another answer for a path."""
    return f"location = {path} {{{{ {answer} }}}} {PROXY}"


def certificate(name: str) -> str:
    """Return lines of nginx for another certificate."""
    return f"ssl_certificate {{{name}}}.pem; ssl_certificate_key {{{name}}}.key; {PROXY}"


def mail(type_: str, name: str, port: int, socket_type: str) -> Sequence[Server]:
    """Return the usual servers, and one that is damaged."""
    return (IMAP, SMTP, (type_, name, port, socket_type))


AUTOCONFIG = "/mail/config-v1.1.xml"
PACC = "/.well-known/user-agent-configuration.json"
AUTODISCOVER = "/autodiscover/autodiscover.xml"

CASES = [
    Case("healthy", calendars=CALENDARS),
    # Names
    Case("no-autoconfig", drop=["autoconfig"]),
    Case("no-autodiscover", drop=["autodiscover"]),
    Case("no-pacc", drop=["ua-auto-config", "_ua-auto-config"]),
    Case("dangling", drop=["autoconfig"], add="autoconfig.{D}. IN CNAME gone.test.\n"),
    Case(
        "circle",
        drop=["autoconfig"],
        add="autoconfig.{D}. IN CNAME a.{D}.\na.{D}. IN CNAME autoconfig.{D}.\n",
    ),
    Case("other-zone", drop=["autoconfig"], add="autoconfig.{D}. IN CNAME www.other.\n"),
    Case("broken.invalid"),
    Case("absent", drop=["*"]),
    Case("elsewhere", drop=["autoconfig"], add="autoconfig.{D}. IN A {nothing}\n"),
    Case("dns-wildcard", drop=["autoconfig"], add="*.{D}. IN A {nothing}\n"),
    Case("right-wildcard", drop=["autoconfig"], add="*.{D}. IN A {front}\n"),
    Case(
        "half-dead",
        drop=["autoconfig"],
        add="autoconfig.{D}. IN A {front}\nautoconfig.{D}. IN A {nothing}\n",
    ),
    Case("modern", drop=["ua-auto-config"], add="ua-auto-config.{D}. IN AAAA ::ffff:{front}\n"),
    # Records
    Case("no-srv", drop=["_imaps._tcp"]),
    Case("wrong-srv", drop=["_imaps._tcp"], add="_imaps._tcp.{D}. IN SRV 0 1 143 mail.test.\n"),
    Case("denied-srv", drop=["_imaps._tcp"], add="_imaps._tcp.{D}. IN SRV 0 0 0 .\n"),
    Case("silent-srv", drop=["_imap._tcp"]),
    Case("stray-srv", drop=["_imap._tcp"], add="_imap._tcp.{D}. IN SRV 0 1 143 old.test.\n"),
    Case("no-autodiscover-srv", drop=["_autodiscover._tcp"]),
    Case(
        "wrong-autodiscover-srv",
        drop=["_autodiscover._tcp"],
        add="_autodiscover._tcp.{D}. IN SRV 0 0 443 mail.test.\n",
    ),
    Case("no-digest", drop=["_ua-auto-config"]),
    Case(
        "old-digest",
        drop=["_ua-auto-config"],
        add='_ua-auto-config.{D}. IN TXT "v=UAAC1; a=sha256; d=AAAA"\n',
    ),
    Case("rolling", add='_ua-auto-config.{D}. IN TXT "v=UAAC1; a=sha256; d=AAAA"\n'),
    Case(
        "stray-digest",
        servers=(("imap", MAIL, 143, "STARTTLS"), ("smtp", MAIL, 587, "STARTTLS")),
        add='_ua-auto-config.{D}. IN TXT "v=UAAC1; a=sha256; d=AAAA"\n',
    ),
    Case(
        "wrong-path",
        calendars=CALENDARS,
        drop=["_caldavs._tcp TXT"],
        add='_caldavs._tcp.{D}. IN TXT "path=/old/"\n',
    ),
    Case("mx", add="{D}. IN MX 20 mx.other.\n{D}. IN MX 10 mx1.MAIL.test.\n"),
    Case("mx-elsewhere", add="{D}. IN MX 20 b.other.\n{D}. IN MX 10 A.other.\n"),
    # Certificates of web servers
    Case("expired", web={"autoconfig.{D}": certificate("expired")}),
    Case("misnamed", web={"autodiscover.{D}": certificate("misnamed")}),
    Case("unknown", web={"ua-auto-config.{D}": certificate("unknown")}),
    Case("near-end", web={"{D}": certificate("near_end")}),
    Case(
        "no-tls",
        drop=["autoconfig"],
        add="autoconfig.{D}. IN A {plain}\n",
        web={"autoconfig.{D}": "listen {plain}:443; " + PROXY},
    ),
    # Documents
    Case("not-found", web={"autoconfig.{D}": page(AUTOCONFIG, "return 404;")}),
    Case(
        "old-document",
        web={"autoconfig.{D}": page(AUTOCONFIG, "proxy_pass {automx}/v1.1/no-srv.test;")},
    ),
    Case("old-page", web={"{D}": "return 200 '<!doctype html>';"}),
    Case(
        "wrong-type",
        web={
            "ua-auto-config.{D}": page(
                PACC,
                "proxy_pass {automx}; proxy_hide_header Content-Type; "
                "add_header Content-Type text/plain;",
            )
        },
    ),
    Case(
        "no-post",
        web={"autodiscover.{D}": f"if ($request_method = POST) {{{{ return 405; }}}} {PROXY}"},
    ),
    Case(
        "no-json",
        web={"autodiscover.{D}": page("/autodiscover/autodiscover.json", "return 404;")},
    ),
    Case(
        "lower-case",
        web={
            "autodiscover.{D}": f"location {AUTODISCOVER} {{{{ proxy_pass {{automx}}; }}}} "
            "location /autodiscover/autodiscover.json {{ proxy_pass {automx}; }}"
        },
    ),
    Case(
        "moved",
        web={"autoconfig.{D}": f"return 301 https://{{D}}/.well-known/autoconfig{AUTOCONFIG};"},
    ),
    Case("ring", web={"autoconfig.{D}": "return 302 https://autoconfig.{D}/again?$request_uri;"}),
    Case("roundabout", web={"autoconfig.{D}": "return 302 https://autoconfig.{D}/again;"}),
    Case("downgrade", web={"autoconfig.{D}": f"return 301 http://autoconfig.{{D}}{AUTOCONFIG};"}),
    Case(
        "astray", web={"autoconfig.{D}": f"return 301 https://autoconfig.expired.test{AUTOCONFIG};"}
    ),
    Case(
        "old-http",
        web={
            "autoconfig.{D}": page(
                AUTOCONFIG,
                "if ($scheme = http) {{ return 200 old; }} proxy_pass {automx};",
            )
        },
    ),
    Case(
        "secure-http",
        web={
            "autoconfig.{D}": "if ($scheme = http) {{ return 301 https://$host$request_uri; }} "
            + PROXY
        },
    ),
    Case("mute", web={"autoconfig.{D}": "location / {{ proxy_pass http://127.0.0.1:{silent}; }}"}),
    Case(
        "control",
        web={"autoconfig.{D}": page(AUTOCONFIG, "return 302 'http://a/\x1b[2J';")},
    ),
    Case(
        "no-redirect",
        calendars=CALENDARS,
        web={"{D}": page("/.well-known/caldav", "return 200;")},
    ),
    Case(
        "wrong-redirect",
        calendars=CALENDARS,
        web={"{D}": page("/.well-known/caldav", "return 301 /old/;")},
    ),
    Case("no-calendars", calendars="https://gone.test/calendars/"),
    # Mail servers
    Case("mail-expired", servers=mail("imap", "expired.mail.test", 143, "STARTTLS")),
    Case("mail-misnamed", servers=mail("pop", "misnamed.mail.test", 995, "SSL")),
    Case("mail-unknown", servers=mail("smtp", "unknown.mail.test", 587, "STARTTLS")),
    Case("mail-near-end", servers=mail("managesieve", "near-end.mail.test", 4190, "STARTTLS")),
    Case("imap-no-starttls", servers=mail("imap", "plain.mail.test", 143, "STARTTLS")),
    Case("pop-no-starttls", servers=mail("pop", "plain.mail.test", 110, "STARTTLS")),
    Case("smtp-no-starttls", servers=mail("smtp", "plain.mail.test", 587, "STARTTLS")),
    Case("sieve-no-starttls", servers=mail("managesieve", "plain.mail.test", 4190, "STARTTLS")),
    Case("not-ssl", servers=mail("imap", MAIL, 143, "SSL")),
    Case("not-starttls", servers=mail("imap", MAIL, 993, "STARTTLS")),
    Case("closed", servers=mail("imap", MAIL, 9, "SSL")),
    Case("no-address", servers=mail("imap", "gone.mail.test", 993, "SSL")),
    Case("other-protocol", servers=mail("imap", MAIL, 995, "SSL")),
    Case("ipv6-only", servers=mail("imap", "six.mail.test", 993, "SSL")),
    Case("half-dead-mail", servers=mail("imap", "half.mail.test", 993, "SSL")),
    Case("mail-mute", servers=mail("imap", "local.test", 1, "STARTTLS")),  # the port is put in
    Case("mail-drips", servers=mail("imap", "local.test", 2, "STARTTLS")),
    # Rows
    Case("plain", servers=mail("imap", "plain.mail.test", 143, "plain")),
    Case("port-25", servers=mail("smtp", "plain.mail.test", 25, "STARTTLS")),
    Case("only-imap", servers=[IMAP]),
    Case("misspelt", user_name="%EMAILADRESS%"),
    Case("empty", servers=[]),
    # Directories
    Case("directory", ldapserver=3),
    Case("wrong-password", ldapserver=4),
    Case("no-directory", ldapserver=5),
    Case("mute-directory", ldapserver=6),
    Case("lost-directory", ldapserver=99),
]
UNKNOWN = "stranger.test"


@dataclass(frozen=True)
class World:
    """Everything that runs, with one database for all domains."""

    internet: Internet
    env: Mapping[str, str]
    authority: Path

    def check(self, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        """Run ``automx check`` as an administrator does."""
        options = self.internet.options(self.authority)
        return attempt("check", *options, *arguments, env={**self.env, **env})


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory,
    directories: Directories,
    shared_directory: Directory,
) -> Iterator[World]:
    """All cases, with their servers."""
    folder = tmp_path_factory.mktemp("internet")
    addresses, authority = prepared(folder)
    names = [f"{wildcard}{case.domain}" for case in CASES for wildcard in ("", "*.")]
    web = authority.issue(HOST, "www.other", *names)
    (folder / "stranger").mkdir()
    certificates = {
        "expired": authority.issue("*.expired.test", "expired.mail.test", days=-1),
        "misnamed": authority.issue("other.test"),
        "unknown": Authority(folder / "stranger").issue("*.unknown.test", "unknown.mail.test"),
        "near_end": authority.issue("near-end.test", "near-end.mail.test", days=5),
    }
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{folder}/automx.sqlite"}
    upgrade(env["AUTOMX_DB_URI"])
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(silent_socket())
        drips = stack.enter_context(dripping_socket(b"* OK " + b"welcome " * 100))
        ports = {1: silent, 2: drips}
        fill(folder / "automx.sqlite", ports, directory_rows(shared_directory, silent))
        words: dict[str, object] = {
            "front": addresses.front,
            "mail": addresses.mail,
            "nothing": addresses.nothing,
            "plain": without_tls(addresses),
            "silent": silent,
        }
        words |= {name: found.certificate.with_suffix("") for name, found in certificates.items()}
        # A silent directory is given up before the doctor gives automx up.
        settings = {**env, "AUTOMX_LDAP_TIMEOUT": "1"}
        server = stack.enter_context(serving(settings, folder / "automx.log"))
        words["automx"] = server.url
        started = internet(
            folder,
            addresses,
            automx=server.url,
            web=web,
            mail=authority.issue(MAIL, *(f"{name}.mail.test" for name in ("six", "half"))),
            zones=zones(env["AUTOMX_DB_URI"], words, common_records(addresses)),
            web_servers={
                host.format(D=case.domain): lines.format(D=case.domain, **words)
                for case in CASES
                for host, lines in case.web.items()
            },
            mail_names={
                f"{name.replace('_', '-')}.mail.test": found for name, found in certificates.items()
            },
        )
        yield World(stack.enter_context(started), env, authority.root)


def directory_rows(directory: Directory, silent: int) -> list[str]:
    """Return SQL for directories: one that works, and each kind of one that does not."""
    return [
        insert_ldapserver(directory),
        insert_ldapserver(directory, id=4, bind_password="wrong"),
        insert_ldapserver(directory, id=5, port=9),
        insert_ldapserver(directory, id=6, port=silent),
    ]


def fill(database: Path, ports: Mapping[int, int], statements: Sequence[str]) -> None:
    """Write the rows of all cases."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for statement in statements:
            connection.execute(statement)
        connection.execute("INSERT INTO provider VALUES (1, 'Example Inc.', 'Example')")
        known: dict[tuple[object, ...], int] = {}
        for number, case in enumerate(CASES, 1):
            connection.execute(
                "INSERT INTO domain VALUES (?, ?, 1, ?)", (number, case.domain, case.ldapserver)
            )
            for type_, name, port, socket_type in case.servers:
                row = (10, name, ports.get(port, port), type_, socket_type, case.user_name, "plain")
                if row not in known:
                    known[row] = len(known) + 1
                    connection.execute(
                        "INSERT INTO server VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (known[row], *row)
                    )
                connection.execute("INSERT INTO server_domain VALUES (?, ?)", (known[row], number))
            if case.calendars:
                connection.execute(
                    "INSERT INTO davserver VALUES (?, ?, 0, 'caldav', 1, 1, '%EMAILADDRESS%')",
                    (number, case.calendars),
                )
                connection.execute("INSERT INTO davserver_domain VALUES (?, ?)", (number, number))


def zones(db_uri: str, words: Mapping[str, object], common: str) -> dict[str, str | None]:
    """Return the zones: what ``automx dns`` prints for each domain, damaged as the case says."""
    test = common
    for name in ("expired", "misnamed", "unknown", "near-end"):
        test += f"{name}.mail.test. IN CNAME {MAIL}.\n"
    # An IPv6 address that needs no IPv6 on this machine.
    test += """plain.mail.test. IN A {plain}
six.mail.test. IN AAAA ::ffff:{mail}
half.mail.test. IN CNAME both.mail.test.
both.mail.test. IN A {nothing}
both.mail.test. IN AAAA ::ffff:{mail}
local.test. IN A 127.0.0.1
""".format(**words)
    with open_session(db_uri) as session:
        for case in CASES:
            if "*" in case.drop or "." in case.name:
                continue
            try:
                config = lookup.find(session, case.domain).config
            except BadRecordError:
                continue
            test += f"{case.domain}. IN A {words['front']}\n"
            for record in dns.records(config, HOST):
                short = record.name.removesuffix(f".{case.domain}")
                if not {short, f"{short} {record.type}"} & set(case.drop):
                    test += f"{record.name}. IN {record.type} {record.data}\n"
            test += case.add.format(D=case.domain, **words)
    other = f"www IN CNAME {HOST}.\n"
    return {"test": test, "other": other, "broken.invalid": None}


@pytest.fixture(scope="module")
def printed(world: World) -> list[str]:
    """The lines that are printed for all cases, without what differs from run to run."""
    domains = [case.domain for case in CASES]
    result = world.check(*domains, UNKNOWN, "no domain", "*.example.com", "--timeout", "3")
    assert (result.returncode, result.stderr) == (2, "")
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=5)
    text = result.stdout.replace(f"{end:%Y-%m-%d}", "DATE")
    text = re.sub(r"127\.88\.\d+\.", "127.88.0.", text)
    text = re.sub(r"d=[A-Za-z0-9+/]{43}=", "d=DIGEST", text)
    text = re.sub(r"(local\.test|127\.0\.0\.1)( port |:)\d{4,5}", r"\1\2PORT", text)
    return text.splitlines()


EXPECTED = golden("check.txt").splitlines()


def of_domain(lines: Sequence[str], domain: str) -> list[str]:
    return [line for line in lines if line.split(maxsplit=2)[1:2] == [domain]]


@pytest.mark.parametrize(
    "domain", [*(case.domain for case in CASES), UNKNOWN, "-", "*.example.com"]
)
def test_each_damage_is_told_and_nothing_else(printed: list[str], domain: str) -> None:
    assert of_domain(printed, domain) == of_domain(EXPECTED, domain)


def test_the_whole_output(printed: list[str]) -> None:
    assert printed == EXPECTED


def test_a_healthy_domain(world: World) -> None:
    result = world.check("Healthy.Test.", "rolling.test", "healthy.test")
    lines = [line for line in result.stdout.splitlines() if line.split()[1] != "-"]
    assert lines == [
        "ok       healthy.test  everything is in order",
        "ok       rolling.test  everything is in order",
        "2 domains, 7 errors, 0 warnings",  # those of the tables, which hold the other cases
    ]


def test_json(world: World) -> None:
    result = world.check("expired.test", "healthy.test", "--json")
    printed = json.loads(result.stdout)
    printed["findings"] = [found for found in printed["findings"] if found["domain"]]
    assert (result.returncode, printed) == (
        2,
        {
            "version": "1.0.0",
            "status": 2,
            "complete": True,
            "domains": ["expired.test", "healthy.test"],
            "findings": [
                {
                    "domain": "expired.test",
                    "level": "error",
                    "subject": "https://autoconfig.expired.test",
                    "text": "the certificate has ended",
                    "advice": "renew it, and let the server load the new one",
                    "domains": ["expired.test"],
                }
            ],
        },
    )


def test_all_domains_of_the_database(world: World) -> None:
    result = world.check("--all", "--json", "--timeout", "3")
    assert json.loads(result.stdout)["domains"] == [case.domain for case in CASES]


@pytest.mark.parametrize("is_setting", [False, True])
def test_the_host_of_the_service_itself(world: World, is_setting: bool) -> None:
    host = "autoconfig.expired.test"
    option, setting = ("", host) if is_setting else (host, "h.test")
    result = world.check("rolling.test", "--host", option, AUTOMX_PUBLIC_HOST=setting)
    assert of_domain(result.stdout.splitlines(), "-")[-1:] == [
        (
            "error    -             https://autoconfig.expired.test: the certificate has ended "
            "-> renew it, and let the server load the new one"
        )
    ]


def test_a_terminal_gets_colours_a_bar_and_lines_of_its_width(world: World) -> None:
    shown = seen(world, "no-srv.test", TERM="xterm", COLUMNS="60")
    assert "Checking" in shown
    assert shown.splitlines()[-5:] == [
        "\x1b[33mwarning\x1b[0m  no-srv.test  _imaps._tcp.no-srv.test: there is no",
        "               SRV record",
        "               -> add to the zone: _imaps._tcp.no-srv.test.",
        "               IN SRV 0 1 993 mail.test.",
        "1 domain, 7 errors, 1 warning",
    ]


def test_a_terminal_without_colours(world: World) -> None:
    shown = seen(world, "no-srv.test", TERM="xterm", COLUMNS="60", NO_COLOR="1")
    assert "warning  no-srv.test" in shown
    assert "\x1b[33m" not in shown


def seen(world: World, *arguments: str, **env: str) -> str:
    """Return what a person sees."""
    command: list[str | Path] = [
        AUTOMX,
        "check",
        *world.internet.options(world.authority),
        *arguments,
    ]
    return on_a_terminal(command, {**world.env, **env}).replace("\r\n", "\n")


def test_ctrl_c_prints_what_is_known(world: World) -> None:
    with silent_socket() as port, socket.socket(type=socket.SOCK_DGRAM) as questions:
        questions.bind(("127.0.0.1", port))
        # Nothing but the name server's silence keeps the doctor busy.
        command: list[str | Path] = [AUTOMX, "check", "healthy.test", "--dns", f"127.0.0.1:{port}"]
        process = subprocess.Popen(
            [*command, "--timeout", "60"],
            env={**os.environ, **world.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        tasks = Path(f"/proc/{process.pid}/task")
        wait_until(lambda: len(list(tasks.iterdir())) > 10, "the start of the threads")
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate()
    assert (process.returncode, errors) == (130, "")
    assert printed.splitlines()[-1] == "Interrupted: 0 of 1 domains were looked at."


def run(env: Mapping[str, str], *arguments: str) -> "tuple[int, str, str]":
    """Run ``automx check`` without a network."""
    result = attempt("check", *arguments, env={"AUTOMX_CONF": "/dev/null", **env})
    return result.returncode, result.stdout, result.stderr


@pytest.fixture
def env(database: Path) -> dict[str, str]:
    return {"AUTOMX_DB_URI": f"sqlite:///{database}"}


def test_without_domains_the_network_is_not_asked(env: dict[str, str]) -> None:
    fine = "ok       -  settings and database are in order\n0 domains, 0 errors, 0 warnings\n"
    hint = "No domain was looked at. Name domains, or give --all.\n"
    assert run(env) == (0, fine + hint, "")
    hint = "No domain was looked at. The database names no domain.\n"
    assert run(env, "--all") == (0, fine + hint, "")
    assert run(env, "--quiet") == (0, "", "")


def test_suspicious_rows(env: dict[str, str], execute: Execute) -> None:
    execute(
        """
        INSERT INTO provider VALUES (1, 'Example', 'Example'), (2, 'Old', 'Old');
        INSERT INTO ldapserver (id, name, port, use_ssl, search_base, search_filter, attr_uid)
            VALUES (1, 'ldap.example.com', 389, 0, '', '(mail=x)', 'uid');
        INSERT INTO server VALUES
            (1, 10, 'mail.example.com', 993, 'imap', 'SSL', '', 'plain'),
            (2, 10, 'mail.example.com', 465, 'smtp', 'TLS9', '', 'plain'),
            (3, 10, 'mail.example.com', 465, 'smpt', 'SSL', '', 'plain'),
            (4, 10, 'mail.example.com', 993, 'imap', 'SSL', '', 'passwort'),
            (5, 10, 'mail example com', 993, 'imap', 'SSL', '', 'plain'),
            (6, 10, 'mail.example.com', 0, 'imap', 'SSL', '', 'plain');
        INSERT INTO davserver VALUES (1, 'ftp://example.com/', 0, 'caldav', 1, 0, '');
        INSERT INTO provider_detail (provider_id, color, logo_type, logo)
            VALUES (1, 'red', 'image/png', NULL), (2, '#aabbcc', 'image/gif', x'00');
        INSERT INTO documentation VALUES (1, 1, 'https://example.com/', '?', 'Help');
        INSERT INTO domain VALUES
            (1, 'example.com', 1, NULL),
            (2, 'Example.com', 1, NULL),
            (3, 'xn--mller-kva.example', 1, NULL),
            (4, 'MÜLLER.example', 1, NULL),
            (5, 'exa mple.com', 1, NULL),
            (6, 'example.org.', 1, NULL),
            (7, 'müller.example.net', 1, NULL),
            (8, '*.Example.net', 1, NULL),
            (9, '*', 7, 8),
            (10, 'Upper.example', 1, NULL);
        INSERT INTO server_domain SELECT server.id, domain.id FROM server, domain
            WHERE server.id BETWEEN 2 AND 6 AND domain.id <> 10;
        INSERT INTO server_domain VALUES (99, 10);
        """
    )
    status, printed, _ = run(env)
    assert (status, printed.splitlines()) == (2, golden("check-rows.txt").splitlines())


DAMAGE = """
    INSERT INTO provider VALUES (1, 'Example', 'Example');
    INSERT INTO server VALUES (1, 10, 'mail.a.test', 993, 'imap', 'SSL', '', 'plain');
    INSERT INTO domain VALUES (1, 'a.test', 1, NULL), (2, 'b.test', 8, NULL), (3, 'c.test', 1, 9);
    INSERT INTO server_domain VALUES (1, 1), (1, 2), (1, 3), (7, 1), (1, 17);
    INSERT INTO provider_detail (provider_id) VALUES (47);
    INSERT INTO token VALUES
        (1, 'old', 'secret1', 'digest1', 'old.test', '', NULL, '1d', 0, 0, NULL, 0, '', 0,
         '2026-11-21 10:00:00.000000'),
        (2, 'used', 'secret2', 'digest2', 'old.test', '', NULL, '1d', 0, 1, NULL, 0, '', 0,
         '2026-11-21 10:00:00.000000'),
        (3, 'good', 'secret3', 'digest3', 'a.test', '', NULL, '1d', 0, 0, NULL, 0, '', 0,
         '2026-11-21 10:00:00.000000'),
        (4, 'b', 'secret4', 'digest4', 'b.test', '', NULL, '1d', 0, 0, NULL, 0, '', 0,
         '2026-11-21 10:00:00.000000');
    INSERT INTO account VALUES
        (1, 'x@old.test', 2, 'm', 'none', 'active', '2026-11-21 10:00:00.000000', NULL,
         '2026-11-21 10:00:00.000000', NULL),
        (2, 'y@a.test', 67, 'm', 'none', 'active', '2026-11-21 10:00:00.000000', NULL,
         '2026-11-21 10:00:00.000000', NULL);
"""
KEPT = [
    (
        "error    -  table domain, id 3: c.test names ldapserver 9, which does not exist -> "
        "correct ldapserver_id"
    ),
    (
        "warning  -  table account, id 2: there is no token 67 -> "
        "delete the mailbox on the mail server, then this row"
    ),
    (
        "warning  -  table token, id 2: the domain old.test of the token used is not in the "
        "database -> add the domain, or delete its 1 account and the token"
    ),
]
TO_DELETE = """\
domains whose provider does not exist: b.test
rows of server_domain that refer to rows that do not exist: 3
rows of provider_detail that refer to rows that do not exist: 1
tokens whose domain is not in the database: b, old
"""


def test_rows_that_refer_to_deleted_ones_are_named(env: dict[str, str], execute: Execute) -> None:
    execute(DAMAGE)
    status, printed, _ = run(env)
    does_it = "automx check --repair does it"
    assert (status, printed.splitlines()[:-2]) == (
        2,
        [
            (
                "error    -  table domain, id 2: b.test names provider 8, which does not exist -> "
                f"correct provider_id, or delete the domain: {does_it}"
            ),
            KEPT[0],
            *(
                f"warning  -  table {row} -> delete the row: {does_it}"
                for row in (
                    "server_domain, server_id 7, domain_id 1: there is no server 7",
                    "server_domain, server_id 1, domain_id 17: there is no domain 17",
                    "provider_detail, provider_id 47: there is no provider 47",
                )
            ),
            KEPT[1],
            (
                "warning  -  table token, id 1: the domain old.test of the token old is not in "
                f"the database -> add the domain, or delete the token: {does_it}"
            ),
            KEPT[2],
        ],
    )


def test_a_repair_deletes_what_refers_to_deleted_rows_and_then_checks(
    env: dict[str, str], execute: Execute
) -> None:
    execute(DAMAGE)
    status, printed, told = run(env, "--repair", "--yes")
    deleted = "".join(f"automx: deleted: {line}\n" for line in TO_DELETE.splitlines())
    assert (status, told) == (2, deleted)
    assert printed.splitlines()[:-2] == KEPT
    assert (
        automx("token", "list", env={"AUTOMX_CONF": "/dev/null", **env}).count("\n") == 3
    )  # with the heads of the columns
    assert run(env, "--repair", "--yes", "--quiet")[2] == "automx: there is nothing to repair\n"


def test_blanks_around_the_name_of_a_domain_are_named(
    env: dict[str, str], execute: Execute
) -> None:
    execute(
        """
        INSERT INTO provider VALUES (1, 'Example', 'Example');
        INSERT INTO server VALUES (1, 10, 'mail.a.test', 993, 'imap', 'SSL', '', 'plain');
        INSERT INTO domain VALUES (1, ' a.test', 1, NULL);
        INSERT INTO server_domain VALUES (1, 1);
        """
    )
    status, printed, _ = run(env)
    assert (status, printed.splitlines()[0]) == (
        1,
        (
            "warning  -  table domain, id 1: there are blanks around the name ' a.test' -> "
            "set name to a.test"
        ),
    )


def test_a_repair_without_a_terminal_needs_a_yes_and_deletes_nothing(
    env: dict[str, str], execute: Execute
) -> None:
    execute(DAMAGE)
    before = run(env)
    status, printed, told = run(env, "--repair")
    assert (status, printed) == (2, "")
    expected = "".join(f"automx: to be deleted: {line}\n" for line in TO_DELETE.splitlines())
    assert told == f"{expected}automx: this would delete these rows; say --yes to do it\n"
    assert run(env) == before


@pytest.mark.parametrize(("answer", "status", "left"), [("n", 1, 4), ("y", 2, 2)])
def test_a_repair_asks_on_a_terminal(
    env: dict[str, str], execute: Execute, answer: str, status: int, left: int
) -> None:
    execute(DAMAGE)
    environment = {"AUTOMX_CONF": "/dev/null", **env}
    result = answered_on_a_terminal(["check", "--repair"], environment, answer)
    assert (result.returncode, "Delete these rows? [y/N]" in result.stderr) == (status, True)
    assert automx("token", "list", env=environment).count("\n") == left + 1


@pytest.mark.parametrize("value", [b"\xff\x1b[2J", "\x1b[2J\nforged", -(2**63)])
@pytest.mark.parametrize("table", ["domain", "server", "server_domain", "api_key"])
def test_any_value_in_any_column_is_survived(
    env: dict[str, str], database: Path, table: str, value: object
) -> None:
    """SQLite lets anything into a column."""
    automx("seed", "--sample", env=env)
    automx("apikey", "add", "shop", "--role", "read", env=env)
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        for column in columns:
            with contextlib.suppress(sqlite3.IntegrityError):  # an id has to be a number
                connection.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", [value])
    for options in ([], ["--json"]):
        status, output, error = run(env, "--all", "--dns", "127.0.0.1:9", *options)
        assert status == 2
        assert error == ""
        lines = output.split("\n")
        assert [line for line in lines if not line.isprintable() or line[:1] == "f"] == []
        assert "this check itself failed" not in output


def test_many_findings_of_a_kind_are_cut_short(env: dict[str, str], execute: Execute) -> None:
    rows = ", ".join(f"({i}, 10, 'a.test', 993, 'imap', 'SSL', '', 'plain')" for i in range(25))
    execute(f"INSERT INTO server VALUES {rows};")
    status, printed, _ = run(env)
    assert (status, printed.splitlines()[19:]) == (
        1,
        [
            (
                "warning  -  table server, id 19: no domain uses this row -> "
                "link it to a domain in server_domain, or delete it"
            ),
            "warning  -  unused rows: 5 more are not shown -> correct the first ones",
            "0 domains, 0 errors, 21 warnings",
            "No domain was looked at. Name domains, or give --all.",
        ],
    )


def test_a_database_that_does_not_answer_is_a_finding(tmp_path: Path) -> None:
    env = {"AUTOMX_DB_URI": f"sqlite:///{tmp_path}/none.sqlite"}
    status, printed, errors = run(env, "example.com", "--json")
    assert (status, errors) == (2, "")
    assert json.loads(printed)["findings"] == [
        {
            "domain": "",
            "level": "error",
            "subject": "database",
            "text": 'unable to open database file; was "automx db upgrade" run?',
            "advice": "nothing else was looked at",
            "domains": [],
        }
    ]


def test_settings(env: dict[str, str], tmp_path: Path) -> None:
    ends = Authority(tmp_path).issue("example.com", days=5)
    settings = {
        "AUTOMX_LDAP_VERIFY": "no",
        "AUTOMX_SIGNING_CERTIFICATE": str(ends.certificate),
        "AUTOMX_SIGNING_KEY": str(ends.key),
    }
    status, printed, _ = run(env | settings)
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=5)
    assert (status, printed.splitlines()) == (
        1,
        [
            (
                "warning  -  ldap_verify: an attacker between automx and a directory can read and "
                "change the answers -> name the directory's authority by ldap_ca_file, and set "
                "this to yes"
            ),
            (
                f"warning  -  signing_certificate: the signing certificate ends on {end:%Y-%m-%d}: "
                "renew it -> put a renewed certificate into the file"
            ),
            "0 domains, 0 errors, 2 warnings",
            "No domain was looked at. Name domains, or give --all.",
        ],
    )


def test_a_database_that_each_user_can_read_is_a_warning() -> None:
    """Its mode is the administrator's: no command changes it."""
    with tempfile.TemporaryDirectory(prefix="automx-") as name:
        file = Path(name) / "automx.sqlite"
        file.touch()
        now = datetime.datetime.now(datetime.UTC)
        found = {}
        for folder_mode, mode in itertools.product((0o711, 0o750), (0o644, 0o640)):
            Path(name).chmod(folder_mode)
            file.chmod(mode)
            settings = make(db_uri=f"sqlite:///{file}")
            found[folder_mode, mode] = [each.text for each in check_settings(settings, now)]
        text = f"each user of this machine can read {file}, with its tokens and passwords"
        assert {key for key, texts in found.items() if texts == [text]} == {(0o711, 0o644)}
        assert [] in found.values()


def test_a_signing_certificate_that_has_ended_is_an_error(tmp_path: Path) -> None:
    ended = Authority(tmp_path).issue("example.com", days=-1)
    settings = make(
        db_uri="sqlite://",
        signing_certificate=str(ended.certificate),
        signing_key=str(ended.key),
    )
    [found] = check_settings(settings, datetime.datetime.now(datetime.UTC))
    assert found.level is Level.ERROR


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["example.com", "--all"], "Name either domains or --all."),
        (["--dns", "ns.example.com"], "perhaps with a port, such as 192.0.2.1:53"),
        (["--dns", "127.0.0.1:0"], "the port is not from 1 to 65535"),
        (["--timeout", "0"], "0.0 is not in the range 0.1<=x<=120."),
        (["--ca-file", "/none"], "File '/none' does not exist."),
    ],
)
def test_wrong_arguments(env: dict[str, str], arguments: list[str], complaint: str) -> None:
    status, printed, errors = run(env, *arguments)
    assert (status, printed) == (2, "")
    assert errors.splitlines()[-1].endswith(complaint)


def test_a_file_without_authorities_is_told(env: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "empty.pem"
    file.touch()
    status, printed, _ = run(env, "--ca-file", str(file))
    assert (status, printed.splitlines()[0]) == (
        2,
        f"error    -  settings: {file} holds no authorities in PEM -> nothing else was looked at",
    )


@pytest.mark.parametrize("name_server", ["::1", "[::1]:5353", "192.0.2.1", "192.0.2.1:5353"])
def test_forms_of_a_name_server(env: dict[str, str], name_server: str) -> None:
    assert run(env, "--dns", name_server)[0] == 0


def test_a_bug_in_one_check_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Iterator[Finding]:
        raise KeyError("oops")

    monkeypatch.setattr(check.web, "check_service", broken)
    trouble = Finding("example.com", Level.WARNING, "subject", "text", "advice")
    network = Network(name_server="127.0.0.1", timeout=1)
    targets = [Target("example.com", trouble)]
    found = dict(check.check_domains(targets, network, make(db_uri="sqlite://"), host="h.test"))
    text = "this check itself failed: KeyError: 'oops'"
    bug = Finding("", Level.ERROR, "automx check", text, "please report this")
    assert found == {"example.com": [trouble], "": [bug]}


def test_whatever_hangs_the_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hanging(*_: object) -> Iterator[Finding]:
        released.wait()
        yield from ()

    monkeypatch.setattr(check.web, "check_service", hanging)
    trouble = Finding("example.com", Level.WARNING, "subject", "text", "advice")
    network = Network(name_server="127.0.0.1", timeout=0.1)
    targets = [Target("example.com", trouble)]
    found = dict(check.check_domains(targets, network, make(db_uri="sqlite://"), host="h.test"))
    released.set()
    text = "the checks of this domain did not end within 1.6 s"
    advice = "check fewer domains at once, or set a lower --timeout"
    late = Finding("", Level.ERROR, "automx check", text, advice)
    assert found == {"example.com": [trouble], "": [late]}


def test_what_is_asked_at_once_is_asked_once_and_fails_for_all() -> None:
    network = Network(name_server="127.0.0.1")
    begun, calls, failures = threading.Event(), [], []

    def work() -> None:
        calls.append(1)
        begun.wait()
        raise ValueError("a bug")

    def ask() -> None:
        try:
            network.once(("key",), work)
        except ValueError as error:
            failures.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    begun.set()
    for thread in threads:
        thread.join()
    assert (len(calls), failures) == (1, ["a bug"] * 5)


def test_an_http_answer_that_drips_is_given_up() -> None:
    network = Network(name_server="127.0.0.1", timeout=1)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    with dripping_socket(answer) as port, pytest.raises(NetworkError) as caught:
        ask(network, f"http://127.0.0.1:{port}/")
    assert str(caught.value) == "no answer in time"


def test_an_http_answer_that_arrives_in_parts_is_read_to_its_end() -> None:
    network = Network(name_server="127.0.0.1", timeout=10)
    body = b"x" * 100_000
    head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(head.encode() + body)

        server = threading.Thread(target=serve)
        server.start()
        answer = ask(network, f"http://127.0.0.1:{listener.getsockname()[1]}/")
        server.join()
    assert (answer.status, answer.body) == (200, body)


def test_an_address_without_an_answer_leaves_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Network(name_server="127.0.0.1", timeout=2)
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.2", 0))
        port = full.getsockname()[1]
        full.listen(0)
        stack.enter_context(socket.create_connection(("127.0.0.2", port)))  # nobody accepts it
        stack.enter_context(socket.create_server(("127.0.0.3", port)))
        monkeypatch.setattr(network, "addresses", lambda _: ["127.0.0.2", "127.0.0.3"])
        with network.connect("host.test", port, network.deadline()) as connection:
            assert connection.getpeername() == ("127.0.0.3", port)
        reason = f"127.0.0.2 port {port}: no answer in time"
        assert network.dead_addresses("host.test", port) == [reason]


def test_underscores_in_names_are_told() -> None:
    calendar = Service(ServiceType.CALDAV, "https://d_v.example.com/", "", domain_required=False)
    settings = replace(
        config(
            replace(IMAP_SERVER, hostname="im_ap.example.com"),
            replace(SMTP_SERVER, hostname="smtp.test"),
        ),
        domain="a_b.example.com",
        services=(calendar,),
    )
    found = list(check.rows.check_config(settings))
    assert {(finding.level, finding.domain) for finding in found} == {
        (Level.WARNING, "a_b.example.com")
    }
    assert [finding.subject for finding in found] == [
        "a_b.example.com",
        "im_ap.example.com",
        "d_v.example.com",
    ]


@pytest.mark.parametrize(("option", "is_new"), [("-no_tls1_3", False), ("-no_tls1_2", True)])
def test_the_host_of_pacc_has_to_offer_tls_1_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, is_new: bool
) -> None:
    authority, host, address = Authority(tmp_path), "ua-auto-config.example.com", "127.0.71.3"
    issued = authority.issue(host)
    command: list[str | Path] = [program("openssl", "openssl"), "s_server", "-quiet", option]
    command += ["-accept", f"{address}:443", "-cert", issued.certificate, "-key", issued.key]
    network = Network(name_server="127.0.0.1", timeout=10, ca_file=str(authority.root))
    monkeypatch.setattr(network, "addresses", lambda _: [address])
    checks = WebChecks("example.com", network, config(IMAP_SERVER), "")
    with running(command, tmp_path / "log", ready=lambda: listens(443, address)):
        found = list(checks._tls_version(f"https://{host}", host))
    text = "the web server offers TLSv1.2 at most, and PACC requires TLSv1.3"
    advice = "let the web server offer TLS 1.3 for this host"
    told = Finding("example.com", Level.WARNING, f"https://{host}", text, advice)
    assert found == ([] if is_new else [told])
