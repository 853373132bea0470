"""What docs/performance.md promises of Delta Chat accounts."""

import statistics
import time
import urllib.request
from collections.abc import Callable

from automx.backends import Owner
from automx.backends.command import Command
from bench.load import Document, load
from bench.measurements import Bench
from bench.report import Table, number
from bench.rows import databases, seed_document
from bench.servers import serve
from tests.commandline import automx

BEYOND_BACKEND = 15.0  # ms
CALLS = 200
# A backend that answers at once: what it takes is the start of a program.
AT_ONCE = ("/bin/sh", "-c", 'read -r request; echo \'{"status": "created"}\'')


def accounts(bench: Bench) -> Table:
    """Measure how many accounts are made in a second, and what a POST adds to its backend."""
    table = Table("Accounts of Delta Chat", ("measured", "value", "at most"))
    for database in ("sqlite", "postgresql"):
        with databases(database, bench.folder, 1) as [db_uri]:
            path = _prepare(db_uri)
            with serve(_env(db_uri), bench.folder / "automx.log") as server:
                document = Document("account", path, " ")
                load(server.url, document, 1)
                rate = statistics.median(
                    load(server.url, document, bench.seconds) for _ in range(5)
                )
            table.add(f"backend none, {database}", f"{number(rate)} accounts/s", "", ok=None)
    with databases("sqlite", bench.folder, 1) as [db_uri]:
        path = _prepare(db_uri)
        words = " ".join([*AT_ONCE[:2], f'"{_escaped(AT_ONCE[2])}"'])
        env = _env(db_uri) | {"AUTOMX_ACCOUNT_BACKEND": "command", "AUTOMX_ACCOUNT_COMMAND": words}
        backend = Command(AT_ONCE, timeout=10)
        owner = Owner("bench", "0")
        with serve(env, bench.folder / "automx.log") as server:
            posts, calls = [], []
            for _ in range(CALLS):  # in turn, so that what else the machine does strikes both
                posts.append(_milliseconds(lambda: _post(f"{server.url}{path}")))
                calls.append(
                    _milliseconds(lambda: backend.create("a@example.com", "secret", owner))
                )
        beyond = statistics.median(posts) - statistics.median(calls)
    table.add(
        "a POST beyond its backend, median",
        f"{beyond:.1f} ms ({statistics.median(posts):.1f} - {statistics.median(calls):.1f})",
        f"{BEYOND_BACKEND:.0f} ms",
        ok=beyond < BEYOND_BACKEND,
    )
    return table


MEASUREMENTS: dict[str, Callable[[Bench], Table]] = {"accounts": accounts}


def _prepare(db_uri: str) -> str:
    """Make a token without a limit, and return the path that its QR code leads to."""
    automx("seed", "-", env=_env(db_uri), stdin=seed_document("example.com"))
    secret = "bench-bench-bench"
    automx(
        *(
            "token",
            "add",
            "bench",
            "--domain",
            "example.com",
            "--maxuse",
            "0",
            "--prefix",
            "long-prefix.",
        ),
        "--token-stdin",
        env=_env(db_uri),
        stdin=f"{secret}\n",
    )
    return f"/new_email?t={secret}&n=bench"


def _env(db_uri: str) -> dict[str, str]:
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": db_uri,
        "AUTOMX_ACCOUNT_RATE_LIMIT": "",
    }


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def _post(url: str) -> None:
    with urllib.request.urlopen(url, data=b"", timeout=30) as answer:
        answer.read()
