"""The server that is tried: ``automx serve`` with all that strangers can ask for, and secrets."""

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from automx.accounts import tokens
from automx.database import open_session
from automx.migrations import upgrade
from tests.conftest import EXAMPLE_ROWS
from tests.processes import Server, serving, wait_until

DOMAIN = "example.com"
SYNC_DOMAIN = "xn--mller-kva.example"  # has a server of ActiveSync
TOKEN = "zqtoken-2hxg7kpw4m9tdzr3cfq8vyna"
SEED_TOKEN = "zqseed-5dk2mzr8wq0c4ptx"
BACKEND_TOKEN = "ZQMAIL-7C1F00-D3B1A2-90AA17-55C3E9-11B0DE"
PASSWORD = "zqpassword-of-a-person"
# What no log may hold. The first two can be sent, where the log must not look.
SECRETS = (TOKEN, SEED_TOKEN, BACKEND_TOKEN, PASSWORD)

_ROWS = f"""{EXAMPLE_ROWS}
INSERT INTO domain VALUES (2, '{SYNC_DOMAIN}', 1, NULL);
INSERT INTO server_domain SELECT id, 2 FROM server;
INSERT INTO davserver VALUES (4, 'https://sync.example.com/', 0, 'activesync', 1, 0, '');
INSERT INTO davserver_domain VALUES (4, 2);
INSERT INTO provider_detail (provider_id, logo_type, logo_width, logo_height, logo)
  VALUES (1, 'image/svg+xml', 8, 8, CAST('<svg/>' AS BLOB));
"""
# A bug, or a line that was not written by the log of automx.
_TRACEBACK = re.compile(r"Traceback|panicked|: a bug|Exception|Task .* never", re.IGNORECASE)


@dataclass
class Target(Server):
    """A running ``automx serve`` of one worker."""

    def memory(self) -> int:
        """Return the kB of memory that its processes have filled.

        Pages of files are left out: how many there are depends on other programs, too.
        """
        return sum(_memory(pid) for pid in _family(self.process.pid))

    def faults(self, start: int = 0) -> list[str]:
        """Return the lines of its log, from a place on, that tell of a bug or hold a secret."""
        lines = self.output[start:].split("\n")
        return [
            line
            for line in lines
            if _TRACEBACK.search(line) or any(secret in line for secret in SECRETS)
        ]


@contextlib.contextmanager
def target(folder: Path, workers: int = 1) -> Iterator[Target]:
    """Run the server on a database of its own in a folder, behind one proxy that is trusted."""
    database = folder / "automx.sqlite"
    uri = f"sqlite:///{database}"
    upgrade(uri)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.executescript(_ROWS)
    with open_session(uri) as session:
        now = datetime.now(UTC)
        tokens.add(session, "summer", DOMAIN, now=now, token=TOKEN, maxuse=0)
    settings = {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": uri,
        "AUTOMX_LOGLEVEL": "INFO",
        "AUTOMX_PROXY_COUNT": "1",
        "AUTOMX_INITDB_TOKEN": SEED_TOKEN,
        "AUTOMX_MAILCOW_TOKEN": BACKEND_TOKEN,
        "AUTOMX_PERMIT_CLEARTEXT_PASSWORDS": "yes",
        "AUTOMX_ACCOUNT_RATE_LIMIT": "",
    }
    with serving(settings, folder / "serve.log", "--workers", str(workers)) as server:
        wait_until(lambda: "automx answers at" in server.output, "starting")
        yield Target(server.process, server.log, server.port)


def _family(pid: int) -> list[int]:
    """Return the ids of a process and of all that it has started."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found += _family(int(child))
    return found


def _memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1])
    raise ValueError(f"/proc/{pid}/smaps_rollup has no line Anonymous")
