"""Primary name servers that take signed updates: BIND, Knot and PowerDNS, on loopback.

How automx may write their zones is configured as docs/dns.md says. A second key may do everything:
it is that of other programs and people.
"""

import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.tsigkeyring
import dns.update
import pytest

from automx.config import ZoneSettings
from tests.commandline import automx
from tests.examples import DOCUMENT
from tests.nameserver import _free_port
from tests.processes import REPOSITORY, Running, program, running

HOST = "automx.example.net"  # the public host
KEY = "automx"
ADMIN, ADMIN_SECRET = "admin", "cm9sbG92ZXIgb2YgYSBkaWdlc3QsIHdyaXR0ZW4gYnkgRE5T"
PARENT = "parent.test"  # tests have domains of their own in this zone
ZONES = [PARENT, "apex.test"]
KINDS = ("bind", "knot", "powerdns")

ZONE = """\
$ORIGIN {zone}.
$TTL 300
@ IN SOA ns.{zone}. admin.{zone}. 1 3600 600 86400 60
@ IN NS ns.{zone}.
ns IN A 127.0.0.1
"""

# As BIND of Debian, it looks for other names elsewhere, where nothing answers.
NAMED = """\
options {{
    directory "{folder}"; managed-keys-directory "{folder}";
    pid-file "{folder}/named.pid"; session-keyfile "{folder}/session.key";
    listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
    dnssec-validation no; notify no; allow-transfer {{ none; }};
    forward only; forwarders {{ 127.0.0.1 port 9; }};
}};
controls {{ }};
key "{admin}" {{ algorithm hmac-sha256; secret "{admin_secret}"; }};
"""

KNOT = """\
server:
    rundir: "{folder}"
    listen: 127.0.0.1@{port}
    tcp-workers: 1
    udp-workers: 1
    background-workers: 1
database:
    storage: "{folder}"
"""
KNOT_KEY = """\
key:
  - id: {admin}
    algorithm: hmac-sha256
    secret: {admin_secret}
"""
KNOT_ACL = """\
  - id: {admin}
    key: {admin}
    action: update
"""

POWERDNS = """\
launch=gsqlite3
gsqlite3-database={folder}/zones.sqlite
config-dir={folder}
socket-dir={folder}
local-address=127.0.0.1
local-port={port}
setuid=
setgid=
expand-alias=no
receiver-threads=1
distributor-threads=1
cache-ttl=0
negquery-cache-ttl=0
query-cache-ttl=0
zone-cache-refresh-interval=0
"""
POWERDNS_SCHEMA = Path("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")


@dataclass
class ZoneServer:
    """A running primary name server."""

    kind: str
    port: int
    secret: str = ""  # of KEY
    started: Running | None = None
    restart: Callable[[], None] = field(init=False)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The running program."""
        assert self.started is not None
        return self.started.process

    def new_domain(self) -> str:
        """Return a domain in the zone PARENT that nothing has used yet."""
        return f"d{next(self._numbers)}.{PARENT}"

    @property
    def settings(self) -> ZoneSettings:
        """The settings of its zones."""
        return ZoneSettings(server=f"127.0.0.1:{self.port}", key=KEY, secret=self.secret)

    @property
    def environ(self) -> dict[str, str]:
        """The same in the environment."""
        values = {"SERVER": f"127.0.0.1:{self.port}", "KEY": KEY, "SECRET": self.secret}
        return {f"AUTOMX_ZONE_{name}": value for name, value in values.items()}

    def add(self, name: str, type_: str, data: str, *, ttl: int = 300, zone: str = PARENT) -> None:
        """Add a record, as another program or a person does."""
        update = _update(zone)
        update.add(f"{name}.", ttl, type_, data)
        self._send(update)

    def delete(self, name: str, type_: str, *data: str, zone: str = PARENT) -> None:
        """Delete records, as another program or a person does; all of a type without ``data``."""
        update = _update(zone)
        update.delete(f"{name}.", type_, *data)
        self._send(update)

    def records(self, name: str, type_: str) -> list[str]:
        """Return the data of the records of a name as it answers them, in order."""
        return sorted(data for data, _ in self.answer(name, type_))

    def answer(self, name: str, type_: str) -> list[tuple[str, int]]:
        """Return data and TTL of the records of a name."""
        query = dns.message.make_query(f"{name}.", type_)
        found = dns.query.tcp(query, "127.0.0.1", timeout=30, port=self.port)
        return [
            (record.to_text(), rrset.ttl)
            for rrset in found.answer
            if dns.rdatatype.to_text(rrset.rdtype) == type_
            for record in rrset
        ]

    def _send(self, update: dns.update.UpdateMessage) -> None:
        answer = dns.query.tcp(update, "127.0.0.1", timeout=30, port=self.port)
        assert answer.rcode() == dns.rcode.NOERROR, answer


def _update(zone: str) -> dns.update.UpdateMessage:
    keyring = dns.tsigkeyring.from_text({ADMIN: ADMIN_SECRET})
    return dns.update.UpdateMessage(f"{zone}.", keyring=keyring, keyalgorithm="hmac-sha256")


def seeded(server: ZoneServer, database: Path, domain: str) -> dict[str, str]:
    """Return settings of a database that gets the domain; caches have no time."""
    env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}
    env |= server.environ | {"AUTOMX_PUBLIC_HOST": HOST}
    env |= {"AUTOMX_DOMAIN_CACHE_SECONDS": "0", "AUTOMX_STALE_SECONDS": "0"}
    automx("seed", "-", env=env, stdin=json.dumps(DOCUMENT | {"domains": [{"name": domain}]}))
    return env


@contextlib.contextmanager
def zone_server(kind: str, folder: Path) -> Iterator[ZoneServer]:
    """Run a primary name server with ZONES, which takes updates that are signed by KEY.

    One that was stopped runs again by restart().
    """
    folder.mkdir()
    server = ZoneServer(kind, _free_port())
    for zone in ZONES:
        (folder / f"{zone}.zone").write_text(ZONE.format(zone=zone))
    words = {"folder": str(folder), "port": str(server.port)}
    words |= {"admin": ADMIN, "admin_secret": ADMIN_SECRET}
    prepare = {"bind": _named, "knot": _knot, "powerdns": _powerdns}[kind]
    server.secret, command = prepare(folder, words)

    def answers() -> bool:
        with contextlib.suppress(dns.exception.DNSException, OSError, EOFError):
            return all(server.records(zone, "SOA") for zone in ZONES)
        return False

    with contextlib.ExitStack() as stack:

        def start() -> None:
            started = running(command, folder / "log", ready=answers)
            server.started = stack.enter_context(started)

        server.restart = start
        start()
        yield server


def recipe(info: str) -> str:
    """Return the fenced block of docs/dns.md with some words behind the fence."""
    text = (REPOSITORY / "docs" / "dns.md").read_text()
    (block,) = re.findall(rf"(?ms)^```{info}\n(.*?)^```$", text)
    return str(block)


def _named(folder: Path, words: Mapping[str, str]) -> tuple[str, list[str | Path]]:
    # AppArmor keeps /usr/sbin/named to its own folders; a copy has no such profile.
    named = folder / "named"
    shutil.copy2(program("named", "bind9"), named)
    key = folder / "automx.key"
    key.write_text(_run([program("tsig-keygen", "bind9"), "-a", "hmac-sha256", KEY]))
    (secret,) = re.findall('secret "(.*)"', key.read_text())
    include, zone = recipe("text bind").replace("/etc/bind", str(folder)).split("\n", 1)
    zone = zone.replace("/var/lib/bind", str(folder)).replace(
        "update-policy {", f"update-policy {{ grant {ADMIN} zonesub ANY;"
    )
    zones = "".join(zone.replace("example.com", name) for name in ZONES)
    (folder / "named.conf").write_text(f"{NAMED.format(**words)}{include}\n{zones}")
    return secret, [named, "-g", "-n", "1", "-c", folder / "named.conf"]


def _knot(folder: Path, words: Mapping[str, str]) -> tuple[str, list[str | Path]]:
    key = folder / "automx.key"
    key.write_text(_run([program("keymgr", "knot"), "-t", KEY, "hmac-sha256"]))
    (secret,) = re.findall("secret: (.*)", key.read_text())
    text = recipe("yaml knot").replace("/etc/knot", str(folder))
    include, rest = text.replace("/var/lib/knot", str(folder)).split("acl:\n")
    acl, zone = rest.split("zone:\n")
    parts = [KNOT, include, KNOT_KEY, "acl:\n", acl, KNOT_ACL]
    text = "".join(
        part.format(**words) if part in {KNOT, KNOT_KEY, KNOT_ACL} else part for part in parts
    )
    zone = zone.replace("acl: automx", f"acl: [automx, {ADMIN}]")
    text += "zone:\n" + "".join(zone.replace("example.com", name) for name in ZONES)
    (folder / "knot.conf").write_text(text)
    return secret, [program("knotd", "knot"), "-c", folder / "knot.conf"]


def _powerdns(folder: Path, words: Mapping[str, str]) -> tuple[str, list[str | Path]]:
    if not POWERDNS_SCHEMA.exists():
        pytest.fail("PowerDNS has no SQLite: install the Debian package pdns-backend-sqlite3")
    (folder / "pdns.conf").write_text(POWERDNS.format(**words) + recipe("text powerdns"))
    _run([program("sqlite3", "sqlite3"), str(folder / "zones.sqlite")], POWERDNS_SCHEMA.read_text())
    pdnsutil = [program("pdnsutil", "pdns-server"), f"--config-dir={folder}"]
    _run([*pdnsutil, "import-tsig-key", ADMIN, "hmac-sha256", ADMIN_SECRET])
    generate, allow, show = (line.split()[1:] for line in recipe("sh powerdns").splitlines())
    _run([*pdnsutil, *generate])
    for zone in ZONES:
        _run([*pdnsutil, "load-zone", zone, str(folder / f"{zone}.zone")])
        _run([*pdnsutil, *(word.replace("example.com", zone) for word in allow), ADMIN])
    (secret,) = re.findall(rf"(?m)^{KEY}\. hmac-sha256\. (.*)$", _run([*pdnsutil, *show]))
    command = program("pdns_server", "pdns-server")
    return secret, [command, f"--config-dir={folder}", "--daemon=no", "--guardian=no"]


def _run(command: list[str], text: str = "") -> str:
    environ = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command, input=text, env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout
