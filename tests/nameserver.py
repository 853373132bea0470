"""A name server of one's own on loopback: NSD, which answers for the zones it is given."""

import contextlib
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.resolver

from tests.processes import free_port, program, running

# NSD 4.6, as in Debian 12. A zone whose file is missing is answered with SERVFAIL.
CONFIGURATION = """\
server:
    ip-address: 127.0.0.1@{port}
    server-count: 1
    username: ""
    database: ""
    pidfile: ""
    zonesdir: "{folder}"
    zonelistfile: "{folder}/zones.list"
    xfrdfile: "{folder}/xfrd.state"
    xfrdir: "{folder}"
remote-control:
    control-enable: no
"""
ZONE = """\
zone:
    name: "{name}"
    zonefile: "{file}"
"""
# What each zone begins with; records for mail clients come behind it.
BEGIN = """\
$TTL 60
@ IN SOA ns.{zone}. admin.{zone}. 1 3600 600 86400 60
@ IN NS ns.{zone}.
ns.{zone}. IN A 127.0.0.1
"""


@dataclass(frozen=True)
class NameServer:
    """A running NSD."""

    port: int

    @property
    def option(self) -> str:
        """What ``automx check --dns`` wants."""
        return f"127.0.0.1:{self.port}"

    def records(self, name: str, type_: str) -> list[str]:
        """Return the records of a name as it answers them."""
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], self.port
        return sorted(record.to_text() for record in resolver.resolve(f"{name}.", type_))


@contextlib.contextmanager
def name_server(folder: Path, zones: Mapping[str, str | None]) -> Iterator[NameServer]:
    """Run a name server for zones, given as lines of a zone file; one that is None is broken."""
    folder.mkdir()
    port = _free_port()
    configuration = CONFIGURATION.format(folder=folder, port=port)
    first = ""
    for zone, lines in zones.items():
        file = folder / f"{zone}.zone"
        if lines is not None:
            first = first or zone
            file.write_text(f"$ORIGIN {zone}.\n{BEGIN.format(zone=zone)}{lines}")
        configuration += ZONE.format(name=zone, file=file)
    (folder / "nsd.conf").write_text(configuration)
    server = NameServer(port)

    def answers() -> bool:
        with contextlib.suppress(dns.exception.DNSException):
            return bool(server.records(first, "SOA"))
        return False

    command: list[str | Path] = [program("nsd", "nsd"), "-d", "-c", folder / "nsd.conf"]
    with running(command, folder / "nsd.log", ready=answers):
        yield server


def _free_port() -> int:
    """Return a port that is free for TCP and for UDP."""
    while True:
        port = free_port()
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        ):
            sock.bind(("127.0.0.1", port))
            return port
