"""The doctor: healthy domains, and each kind of damage once, on a small internet of real servers.

All damaged domains are looked at by one run, so that each test also shows that damage stays where
it is. What the run should print stands in ``tests/data/check.txt``, line by line.
"""

import contextlib
import datetime
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from automx import check, dns, ldap, lookup
from automx.check import Finding, Level, Network, Target
from automx.check.network import NetworkError
from automx.check.web import _ask
from automx.config import Settings
from automx.migrations import upgrade
from automx.models import open_session
from tests.conftest import Execute
from tests.directory import (
    Directories,
    Directory,
    dripping_socket,
    insert_ldapserver,
    silent_socket,
)
from tests.documents import golden
from tests.internet import HOST, MAIL, Internet, common_records, internet, network, without_tls
from tests.processes import AUTOMX, serving
from tests.tls import Authority, Certificate

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
    Case(
        "half-dead",
        drop=["autoconfig"],
        add="autoconfig.{D}. IN A {front}\nautoconfig.{D}. IN A {nothing}\n",
    ),
    Case("modern", drop=["ua-auto-config"], add="ua-auto-config.{D}. IN AAAA ::1\n"),
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
        web={"autoconfig.{D}": page(AUTOCONFIG, "proxy_pass {automx}/v1.1/healthy.test;")},
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
    Case("no-post", web={"autodiscover.{D}": f"if ($request_method = POST) {{{{ return 405; }}}} {PROXY}"}),
    Case(
        "lower-case",
        web={
            "autodiscover.{D}": f"location {AUTODISCOVER} {{{{ proxy_pass {{automx}}; }}}} "
            "location /autodiscover/autodiscover.json {{ proxy_pass {automx}; }}"
        },
    ),
    Case("moved", web={"autoconfig.{D}": f"return 301 https://{{D}}/.well-known/autoconfig{AUTOCONFIG};"}),
    Case("ring", web={"autoconfig.{D}": "return 302 https://autoconfig.{D}/again?$request_uri;"}),
    Case("roundabout", web={"autoconfig.{D}": "return 302 https://autoconfig.{D}/again;"}),
    Case("downgrade", web={"autoconfig.{D}": f"return 301 http://autoconfig.{{D}}{AUTOCONFIG};"}),
    Case("astray", web={"autoconfig.{D}": f"return 301 https://autoconfig.expired.test{AUTOCONFIG};"}),
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
            "autoconfig.{D}": f"if ($scheme = http) {{{{ return 301 https://$host$request_uri; }}}} {PROXY}"
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
UNKNOWN = "unknown.test"


@dataclass(frozen=True)
class World:
    """Everything that runs, with one database for all domains."""

    internet: Internet
    env: Mapping[str, str]
    authority: Path

    def check(self, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        """Run ``automx check`` as an administrator does."""
        return subprocess.run(
            [AUTOMX, "check", *self.internet.options(self.authority), *arguments],
            env={**os.environ, **self.env, **env},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory,
    directories: Directories,
    shared_directory: Directory,
) -> Iterator[World]:
    """All cases, with their servers."""
    folder = tmp_path_factory.mktemp("internet")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)  # Dovecot's own users must be able to enter
    addresses = network()
    (folder / "authority").mkdir()
    authority = Authority(folder / "authority")
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
            "nothing": addresses.nothing,
            "plain": without_tls(addresses),
            "silent": silent,
        }
        words |= {name: found.certificate.with_suffix("") for name, found in certificates.items()}
        server = stack.enter_context(serving(env, folder / "automx.log"))
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
                f"{name.replace('_', '-')}.mail.test": found
                for name, found in certificates.items()
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
    test += "plain.mail.test. IN A {plain}\nsix.mail.test. IN AAAA ::1\n".format(**words)
    test += "half.mail.test. IN CNAME both.mail.test.\nlocal.test. IN A 127.0.0.1\n"
    test += f"both.mail.test. IN AAAA ::1\nboth.mail.test. IN A {words['nothing']}\n"
    with open_session(db_uri) as session:
        for case in CASES:
            if "*" in case.drop or "." in case.name:
                continue
            try:
                config = lookup.find(session, case.domain, ldap.Options()).config
            except lookup.BadRecordError:
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


@pytest.mark.parametrize("domain", [*(case.domain for case in CASES), UNKNOWN, "-", "*.example.com"])
def test_each_damage_is_told_and_nothing_else(printed: list[str], domain: str) -> None:
    assert of_domain(printed, domain) == of_domain(EXPECTED, domain)


def test_the_whole_output(printed: list[str]) -> None:
    assert printed == EXPECTED


def test_dump(printed):
    Path("/tmp/check.txt").write_text("\n".join(printed)+"\n")
