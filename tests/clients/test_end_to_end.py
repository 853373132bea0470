"""A domain is added in PostfixAdmin, and Thunderbird finds its servers: all between is real.

MariaDB with PostfixAdmin's own tables, ``automx serve`` and the commands of its timers, BIND, and
Caddy with the file of contrib, which gets certificates from Pebble. Thunderbird has names from BIND
alone, and trusts the certificates of Pebble alone.
"""

import contextlib
import http.client
import re
import socket
import socketserver
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import dns.message
import pytest
import sqlalchemy as sa

from tests import postfixadmin
from tests.acme import Pebble, pebble
from tests.clients.deltachat import network
from tests.clients.front import Front
from tests.clients.thunderbird import Configuration, Server, Thunderbird, thunderbird
from tests.commandline import attempt, automx
from tests.databases import Instance
from tests.nameserver import NameServer
from tests.processes import REPOSITORY, free_port, serving, wait_until
from tests.processes import Server as Automx
from tests.test_certificates import asked, caddy, is_refused
from tests.test_sources_sql import Database
from tests.zoneservers import KEY, ZoneServer, zone_server

DOMAIN = "apex.test"  # a zone of its own
ADDRESS = f"alice@{DOMAIN}"
HOST = f"automx.{DOMAIN}"  # a primary server tells the target of a CNAME in its own zone only
FOUND = Configuration(
    source="xml-from-isp-https",
    id=DOMAIN,
    display_name="Example Inc.",
    domains=[DOMAIN],
    complete=True,
    incoming=[Server("imap", "imap.hoster.test", 993, "SSL", "passwordCleartext", ADDRESS, {})],
    outgoing=[
        Server("smtp", "smtp.hoster.test", 587, "alwaysSTARTTLS", "passwordCleartext", ADDRESS, {})
    ],
)
SETTINGS = """\
[automx]
db_uri = sqlite:///{database}
public_host = {host}
proxy_count = 1
sync_in_server = yes
zone_server = 127.0.0.1:{zones.port}
zone_key = {key}
zone_secret = {zones.secret}

[source.mail]
preset = postfixadmin
uri = {postfixadmin.uri}
servers = imap.hoster.test smtp.hoster.test
interval = 10s
"""


@pytest.fixture
def domains(mariadb_instance: Instance) -> Database:
    """PostfixAdmin's database, with one domain whose zone is not here."""
    name = str(sa.engine.make_url(mariadb_instance.new_database()).database)
    database = Database(mariadb_instance, name)
    postfixadmin.make_tables("mariadb", name, mariadb_instance.socket, "root")
    database.grant("domain", "alias_domain")
    insert(database, "elsewhere.test")
    return database


def insert(database: Database, domain: str) -> None:
    """Add a domain as PostfixAdmin does."""
    database.sql(
        "INSERT INTO domain (domain, description, aliases, mailboxes, maxquota, quota, transport,"
        f" backupmx, active) VALUES ('{domain}', '', 10, 10, 10, 2048, 'virtual', 0, 1)"
    )


class Relay(socketserver.ThreadingUDPServer):
    """Passes queries at port 53 of a loopback address to a port of 127.0.0.1.

    The resolver of a C library asks no other port, and BIND listens only at addresses that an
    interface has been given. ``asked`` are the names in the queries.
    """

    def __init__(self, address: str, port: int) -> None:
        super().__init__((address, 53), _Query)
        self.port = port
        self.asked: set[str] = set()


class _Query(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        query, here = self.request
        name = dns.message.from_wire(query).question[0].name
        self.server.asked.add(name.to_text(omit_final_dot=True))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
            there.settimeout(60)
            there.sendto(query, ("127.0.0.1", self.server.port))
            here.sendto(there.recv(65535), self.client_address)


@pytest.fixture
def zones(tmp_path: Path) -> Iterator[ZoneServer]:
    """The primary name server of the domain, BIND, which knows the host of automx, too."""
    with zone_server("bind", tmp_path / "bind") as server:
        server.add(HOST, "A", "127.0.0.1", zone=DOMAIN)
        yield server


@pytest.fixture
def names(zones: ZoneServer) -> Iterator[Relay]:
    """The same at port 53 of an address."""
    with Relay(network().front, zones.port) as relay:
        thread = threading.Thread(target=relay.serve_forever)
        thread.start()
        yield relay
        relay.shutdown()
        thread.join()


@pytest.fixture
def env(domains: Database, zones: ZoneServer, database: Path, tmp_path: Path) -> dict[str, str]:
    """Settings of automx as an administrator has written them, who has added two servers."""
    conf = tmp_path / "automx.conf"
    conf.write_text(
        SETTINGS.format(database=database, host=HOST, key=KEY, zones=zones, postfixadmin=domains)
    )
    env = {"AUTOMX_CONF": str(conf)}
    automx("provider", "add", "--name", "Example Inc.", env=env)
    imap = ["--type", "imap", "--name", "imap.hoster.test"]
    smtp = ["--type", "smtp", "--name", "smtp.hoster.test", "--port", "587"]
    automx("server", "add", *imap, env=env)
    automx("server", "add", *smtp, env=env)
    return env


@pytest.fixture
def server(env: dict[str, str], tmp_path: Path) -> Iterator[Automx]:
    with serving(env, tmp_path / "automx.log", "--workers", "1") as started:
        yield started
        assert "Traceback" not in started.output


@pytest.fixture
def authority(zones: ZoneServer, tmp_path: Path) -> Iterator[Pebble]:
    asks = NameServer(zones.port)
    with pebble(tmp_path / "pebble", asks, free_port(), free_port()) as started:
        yield started


@pytest.fixture
def client(
    names: Relay, server: Automx, authority: Pebble, tmp_path: Path
) -> Iterator[Thunderbird]:
    """Thunderbird, with Caddy in front of automx."""
    folder = tmp_path / "thunderbird"
    folder.mkdir()
    web = Front("127.0.0.1", authority.http_port, authority.tls_port, tmp_path)
    address = str(names.server_address[0])
    with (
        caddy(authority, server, tmp_path),
        thunderbird(folder, web, authority.issued_by, name_server=address) as started,
    ):
        yield started


def rows(database: Path, statement: str) -> list[tuple[object, ...]]:
    """Return rows of automx's database."""
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
        return connection.execute(statement).fetchall()


def readings(database: Path) -> int:
    """Return how often the source was read."""
    return sum(int(str(number)) for (number,) in rows(database, "SELECT number FROM source_sync"))


def dns_apply(env: dict[str, str]) -> str:
    """Run what the timer runs, and return what it prints."""
    unit = (REPOSITORY / "contrib" / "automx-dns.service").read_text()
    (arguments,) = re.findall(r"(?m)^ExecStart=\S+/automx (.*)$", unit)
    result = attempt(*arguments.split(), env=env)
    assert result.returncode in {0, 3}, result.stderr  # 3: the digest of PACC follows later
    return result.stdout


def status(authority: Pebble, host: str) -> int:
    """Return the status of the Autoconfig document at a host that has a certificate."""
    raw = socket.create_connection(("127.0.0.1", authority.tls_port), 60)
    with contextlib.closing(http.client.HTTPConnection(host)) as connection:
        connection.sock = authority.client().wrap_socket(raw, server_hostname=host)
        connection.request("GET", f"/mail/config-v1.1.xml?emailaddress={ADDRESS}")
        return connection.getresponse().status


def test_a_domain_of_postfixadmin_is_found_by_thunderbird_until_it_is_switched_off(
    domains: Database,
    names: Relay,
    env: dict[str, str],
    database: Path,
    server: Automx,
    authority: Pebble,
    client: Thunderbird,
) -> None:
    host = f"autoconfig.{DOMAIN}"
    wait_until(lambda: readings(database) > 0, "the first synchronization")
    dns_apply(env)
    assert client.find(ADDRESS) is None
    assert host in names.asked
    assert is_refused(authority, host)
    assert authority.orders == 0

    before = readings(database)
    insert(domains, DOMAIN)
    known = "SELECT name FROM domain"
    wait_until(lambda: (DOMAIN,) in rows(database, known), "the synchronization")
    # One may have been reading when the domain was inserted.
    assert readings(database) - before <= 2
    wait_until(lambda: asked(server, host) == 200, "the change")
    assert f"+ {host}. CNAME {HOST}.\n" in dns_apply(env)
    client.forget_names()
    # Its first search makes Caddy get the certificates, for which it waits 5 seconds only.
    client.find(ADDRESS)
    wait_until(lambda: authority.orders > 0, "an order of a certificate")
    assert status(authority, host) == 200
    assert client.find(ADDRESS) == FOUND

    domains.sql(f"UPDATE domain SET active = 0 WHERE domain = '{DOMAIN}'")
    disabled = "SELECT domain_id FROM disabled_domain"
    wait_until(lambda: bool(rows(database, disabled)), "the synchronization")
    wait_until(lambda: asked(server, host) == 404, "the change")
    assert status(authority, host) == 404
    assert is_refused(authority, f"ua-auto-config.{DOMAIN}")
    # Its cache keeps the document for 10 seconds.
    wait_until(lambda: client.find(ADDRESS) is None, "an unsuccessful search")
