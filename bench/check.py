"""How long the doctor takes for many healthy domains, whose servers are real ones on loopback."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from automx import dns, lookup
from automx.database import open_session
from bench.measurements import Bench
from bench.report import Table
from bench.rows import databases
from bench.servers import serve
from tests.clients.deltachat import network
from tests.commandline import automx
from tests.databases import engine_uri
from tests.internet import HOST, MAIL, Internet, common_records, internet
from tests.processes import AUTOMX
from tests.tls import Authority

DOMAINS = 100
SECONDS = 30

SEED = {
    "version": 2,
    "provider": "Example Inc.",
    "servers": [
        {"type": "imap", "name": MAIL, "port": 993},
        {"type": "smtp", "name": MAIL, "port": 465},
        {"type": "smtp", "name": MAIL, "port": 587},
        {"type": "caldav", "url": f"https://{HOST}/calendars/%EMAILADDRESS%/"},
    ],
}


def doctor(bench: Bench) -> Table:
    """Measure ``automx check --all`` with one domain and with many."""
    table = Table(
        "The doctor, with a name server, nginx, automx and Dovecot on the same machine",
        ("healthy domains", "seconds", "at most"),
    )
    for count, limit in ((1, None), (DOMAINS, SECONDS)):
        with tempfile.TemporaryDirectory(prefix="automx-") as name:
            folder = Path(name)
            folder.chmod(0o755)  # Dovecot's own users must be able to enter
            seconds = _measure(folder, [f"d{number}.test" for number in range(count)])
        cells = (str(count), f"{seconds:.1f}", str(limit or ""))
        table.add(*cells, ok=seconds <= limit if limit else None)
    return table


def _measure(folder: Path, domains: list[str]) -> float:
    authority = Authority(folder)
    addresses = network()
    names = [f"{wildcard}{domain}" for domain in domains for wildcard in ("", "*.")]
    web, mail = authority.issue(HOST, *names), authority.issue(MAIL)
    with databases("sqlite", folder, 1) as [db_uri]:
        env = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": db_uri}
        document = SEED | {"domains": [{"name": domain} for domain in domains]}
        automx("seed", "-", env=env, stdin=json.dumps(document))
        zone = common_records(addresses)
        with open_session(engine_uri(db_uri)) as session:
            for domain in domains:
                config = lookup.find(session, domain).config
                zone += f"{domain}. IN A {addresses.front}\n"
                zone += dns.zone(config, dns.records(config, HOST))
        with (
            serve(env, folder / "automx.log") as server,
            internet(
                folder,
                addresses,
                automx=server.url,
                web=web,
                mail=mail,
                zones={"test": zone},
            ) as started,
        ):
            return _run(started, authority.root, env)


def _run(started: Internet, authority: Path, env: dict[str, str]) -> float:
    command: list[str | Path] = [AUTOMX, "check", "--all", *started.options(authority)]
    began = time.monotonic()
    subprocess.run(command, env={**os.environ, **env}, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


MEASUREMENTS: dict[str, Callable[[Bench], Table]] = {"doctor": doctor}
