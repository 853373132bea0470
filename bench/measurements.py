"""What docs/performance.md promises: each function measures one promise and returns its table."""

import contextlib
import itertools
import json
import os
import sqlite3
import statistics
import subprocess
import time
import urllib.error
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from automx import changelog
from bench.load import (
    AUTOCONFIG,
    AUTODISCOVER,
    CONNECTIONS,
    DOCUMENTS,
    MOBILECONFIG,
    PROTOCOLS,
    Document,
    compare,
    load,
)
from bench.report import Table, number
from bench.rows import databases, fill, seed_document
from bench.servers import BIN, WORKERS, Server, automx2_and_automx, gunicorn, serve
from tests.commandline import automx

TIMES_AUTOMX2 = {AUTOCONFIG.name: 4.5, AUTODISCOVER.name: 4.0, MOBILECONFIG.name: 4.0}
SHARE_OF_BARE = 0.6
GROWTH = 1.2  # of time and size, from ten domains to MANY
MANY = 1_000_000
SEEDED = 100_000
SEED_SECONDS = 60
SEED_GROWTH = 200  # MB, from ten domains to SEEDED
CACHE_SECONDS = 10  # the default of domain_cache_seconds
ROUND_TRIP = 0.1  # seconds that a request may be under way
SERVE_MEMORY = 55  # MB: the share of a worker of automx serve, whose libraries all processes share
HELP_SECONDS, SERVE_HELP_SECONDS = 0.3, 0.15
READY_SECONDS = 1.0  # until automx serve answers

HEALTH = Document("health", "/healthz")
# A domain that small and large databases hold.
IN_BOTH = Document("Autoconfig", "/mail/config-v1.1.xml?emailaddress=alice@d1000000.example")


@dataclass(frozen=True)
class Bench:
    """Where and how to measure: a folder for files, the length of a run, a kind of database."""

    folder: Path
    seconds: int
    database: str


def speed(bench: Bench) -> Table:
    """Compare the requests per second with automx2's: same rows, same gunicorn, same load."""
    table = Table(
        "Speed beside automx2, both under gunicorn",
        ("document", "automx2, requests/s", "automx, requests/s", "ratio", "required"),
    )
    with automx2_and_automx(bench.folder) as (automx2, our_own):
        for document in DOCUMENTS:
            required = TIMES_AUTOMX2[document.name]
            found = compare(
                partial(load, automx2.url, document),
                partial(load, our_own.url, document),
                seconds=bench.seconds,
                required=required,
            )
            found.add_to(table, document.name, form=".2f")
    return table


def share(bench: Bench) -> Table:
    """Compare with a bare Flask view that returns the same bytes from the same server."""
    table = Table(
        "Share of a bare Flask view that returns the same bytes",
        ("document", "server", "bare, requests/s", "automx, requests/s", "share", "required"),
    )
    with databases("sqlite", bench.folder, 1) as [db_uri]:
        automx("seed", "-", env=env_of(db_uri), stdin=seed_document("example.com"))
        with serve(env_of(db_uri), bench.folder / "automx.log") as server:
            env = env_of(db_uri) | bare_answers(server, bench.folder / "bare")
        with (
            serve(env, bench.folder / "bare.log", bare=True) as first,
            serve(env, bench.folder / "automx.log") as second,
        ):
            _shares(table, "automx serve", first, second, bench.seconds, required=SHARE_OF_BARE)
        with (
            gunicorn("bench.bare:app", env, bench.folder / "bare.log") as first,
            gunicorn("automx.server:app", env, bench.folder / "automx.log") as second,
        ):
            _shares(table, "gunicorn", first, second, bench.seconds, required=None)
    return table


def bare_answers(server: Server, folder: Path) -> dict[str, str]:
    """Keep the documents of a server for bench.bare; return the variable that names them."""
    folder.mkdir(exist_ok=True)
    for document in DOCUMENTS:
        body, content_type = document.fetch(server.url)
        answer = {"path": document.path.partition("?")[0], "content_type": content_type}
        file = folder / f"{document.name}.json"
        file.write_text(json.dumps(answer | {"body": body.decode()}))
    return {"BENCH_BARE": str(folder)}


def _shares(
    table: Table, name: str, first: Server, second: Server, seconds: int, required: float | None
) -> None:
    for document in DOCUMENTS:
        found = compare(
            partial(load, first.url, document),
            partial(load, second.url, document),
            seconds=seconds,
            required=required,
        )
        found.add_to(table, document.name, name, form=".0%")


def growth(bench: Bench) -> Table:
    """Compare the time and the size of an answer among a million domains with one among ten.

    The domain cache must not hide anything, so it is off. With it, a million domains asked for at
    random miss it nearly always, ten hit it always; so that time, which includes keeping the
    cache, is shown beside the ten without it, for information.
    """
    table = Table(
        f"An answer among {MANY:,} domains of a provider ({bench.database})",
        ("measured", "among 10", f"among {MANY:,}", "ratio", "at most"),
    )
    with databases(bench.database, bench.folder, 2) as [small, large]:
        fill(small, 10)
        fill(large, MANY)
        logs = bench.folder / "few.log", bench.folder / "many.log"
        with serve(env_of(small, 0), logs[0]) as few, serve(env_of(large, 0), logs[1]) as many:
            _size_growth(table, few, many)
            _growth(table, "one domain, cache off", few, many, (1, 1), bench.seconds, GROWTH)
            _growth(table, "any domain, cache off", few, many, (10, MANY), bench.seconds, GROWTH)
        with serve(env_of(small, 0), logs[0]) as few, serve(env_of(large), logs[1]) as many:
            _growth(table, "any domain, cache on", few, many, (10, MANY), bench.seconds, None)
    return table


def _size_growth(table: Table, few: Server, many: Server) -> None:
    sizes = [len(IN_BOTH.fetch(server.url)[0]) for server in (few, many)]
    ratio = sizes[1] / sizes[0]
    cells = (*(f"{size} bytes" for size in sizes), f"{ratio:.2f}", f"{GROWTH:.2f}")
    table.add("size", *cells, ok=ratio <= GROWTH)


def _growth(
    table: Table,
    what: str,
    few: Server,
    many: Server,
    domains: tuple[int, int],
    seconds: int,
    limit: float | None,
) -> None:
    found = compare(
        partial(load, few.url, IN_BOTH, domains=domains[0]),
        partial(load, many.url, IN_BOTH, domains=domains[1]),
        seconds=seconds,
        required=1 / limit if limit else None,
    )
    growth = 1 / found.ratio
    times = (f"{CONNECTIONS / rate * 1000:.2f} ms" for rate in (found.first, found.second))
    cells = (*times, f"{growth:.2f}", f"{limit:.2f}" if limit else "")
    table.add(f"time, {what}", *cells, ok=growth <= limit if limit else None)


def seeding(bench: Bench) -> Table:
    """Measure the time and the peak memory of seeding and exporting many domains."""
    table = Table(
        f"Seeding and exporting {SEEDED:,} domains ({bench.database})",
        ("command", "seconds", "allowed", "more memory than for 10", "allowed memory"),
    )
    with databases(bench.database, bench.folder, 2) as [small, large]:
        few = _seed_and_export(bench, small, 10)
        many = _seed_and_export(bench, large, SEEDED)
    for command, (seconds, megabytes) in many.items():
        more = megabytes - few[command][1]
        table.add(
            f"automx {command}",
            number(seconds),
            number(SEED_SECONDS),
            f"{more:+.0f} MB",
            f"{SEED_GROWTH:+d} MB",
            ok=seconds <= SEED_SECONDS and more <= SEED_GROWTH,
        )
    return table


def _seed_and_export(bench: Bench, db_uri: str, count: int) -> dict[str, tuple[float, float]]:
    """Return the seconds and the peak memory in MB of ``automx seed`` and ``automx export``."""
    file = bench.folder / "seed.json"
    file.write_text(seed_document(*(f"d{number}.example" for number in range(count))))
    found = {
        "seed": resources(["seed", str(file)], db_uri),
        "export": resources(["export"], db_uri),
    }
    file.unlink()
    return found


def resources(
    arguments: list[str],
    db_uri: str,
    *,
    stdin: Path = Path(os.devnull),
    env: Mapping[str, str] | None = None,
) -> tuple[float, float]:
    """Run an automx command; return its seconds and the most memory it had, in MB."""
    started = time.monotonic()
    with stdin.open() as file:
        process = subprocess.Popen(
            [BIN / "automx", *arguments],
            env={**os.environ, **env_of(db_uri), **(env or {})},
            stdin=file,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"automx {arguments[0]} ended with status {process.returncode}")
    return time.monotonic() - started, usage.ru_maxrss / 1024


def freshness(bench: Bench) -> Table:
    """Measure how long a change is not seen: by SQL, with the cache on and off, and by automx."""
    table = Table(
        "A change of the database is seen",
        ("changed by", "domain_cache_seconds", "seconds after the change", "at most"),
    )

    def add(program: str, cache: int, seconds: float, limit: float) -> None:
        ok = seconds <= limit
        table.add(program, f"{cache}", f"{seconds:.2f}", f"{limit:.2f}", ok=ok)

    for cache in (CACHE_SECONDS, 0):
        with databases("sqlite", bench.folder, 1) as [db_uri]:
            automx("seed", "-", env=env_of(db_uri), stdin=seed_document("example.com"))
            with serve(env_of(db_uri, cache=cache), bench.folder / "automx.log") as server:
                load(server.url, AUTOCONFIG, 1)  # each worker knows the domain now
                database = Path(db_uri.removeprefix("sqlite:///"))
                add("SQL", cache, _seconds_until_seen(server, database, cache), cache + ROUND_TRIP)
    with databases(bench.database, bench.folder, 1) as [db_uri]:
        automx("seed", "-", env=env_of(db_uri), stdin=seed_document("example.com"))
        with serve(env_of(db_uri, cache=3600), bench.folder / "automx.log") as server:
            load(server.url, AUTOCONFIG, 1)
            seconds = _seconds_until_gone(server, db_uri)
            add("automx", 3600, seconds, changelog.SECONDS + ROUND_TRIP)
    return table


def _seconds_until_gone(server: Server, db_uri: str) -> float:
    """Delete all rows by automx; return when, in seconds after that, one was served last."""
    automx("purge", "--yes", env=env_of(db_uri))
    changed = last_old = time.monotonic()
    while time.monotonic() < changed + changelog.SECONDS + 2:
        asked = time.monotonic()
        with contextlib.suppress(urllib.error.HTTPError):
            AUTOCONFIG.fetch(server.url)
            last_old = asked
    return last_old - changed


def _seconds_until_seen(server: Server, database: Path, cache: int) -> float:
    """Change a host name; return when, in seconds after that, the old one was served last."""
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE server SET name = 'new.example.com' WHERE type = 'imap'")
    changed = time.monotonic()
    last_old = changed
    while time.monotonic() < changed + cache + 2:  # longer than allowed: each worker must answer
        asked = time.monotonic()
        body, _ = AUTOCONFIG.fetch(server.url)
        if b"new.example.com" not in body:
            last_old = asked
    return last_old - changed


_MEMORY_FIELDS = {"Rss": "resident", "Pss": "its share (PSS)"}


def memory(bench: Bench) -> Table:
    """Compare the resident memory of a worker after load with automx2's, under gunicorn."""
    table = Table(
        "Memory of a worker under gunicorn",
        ("measured", "automx2", "automx", "at most"),
    )
    with automx2_and_automx(bench.folder) as servers:
        for server, document in itertools.product(servers, DOCUMENTS):
            document.fetch(server.url)  # a worker has started, however slow the machine is
            load(server.url, document, 1)
        for field, name in _MEMORY_FIELDS.items():
            theirs, ours = (server.worker_memory(field) for server in servers)
            is_required = field == "Rss"
            table.add(
                name,
                number(theirs, "MB"),
                number(ours, "MB"),
                number(theirs, "MB") if is_required else "",
                ok=ours <= theirs if is_required else None,
            )
    return table


def serve_memory(bench: Bench) -> Table:
    """Measure a worker of ``automx serve`` before and after each protocol was asked once."""
    columns = ("measured", "workers", "idle", "asked", "at most")
    table = Table("Memory of a worker of automx serve", columns)
    with databases("sqlite", bench.folder, 1) as [db_uri]:
        automx("seed", "-", env=env_of(db_uri), stdin=seed_document("example.com"))
        for workers in (1, 2):
            log = bench.folder / "automx.log"
            with serve(env_of(db_uri), log, workers=workers) as server:
                HEALTH.fetch(server.url)
                idle = {field: server.worker_memory(field) for field in _MEMORY_FIELDS}
                for document in PROTOCOLS:
                    for _ in range(10 * (workers - 1) + 1):  # the kernel chooses the worker
                        document.fetch(server.url, "example.com")
                for field, name in _MEMORY_FIELDS.items():
                    asked = server.worker_memory(field)
                    is_required = field == "Pss"
                    table.add(
                        name,
                        str(workers),
                        number(idle[field], "MB"),
                        number(asked, "MB"),
                        number(SERVE_MEMORY, "MB") if is_required else "",
                        ok=asked <= SERVE_MEMORY if is_required else None,
                    )
    return table


def start(bench: Bench) -> Table:
    """Measure the time of ``automx --help``, and until ``automx serve`` answers."""
    table = Table("Start of the command line", ("command", "median of 10", "best", "at most"))
    env = env_of(f"sqlite:///{bench.folder / 'start.sqlite'}")
    automx("db", "upgrade", env=env)

    log = bench.folder / "start.log"
    for name, at_most, seconds in (
        ("automx --help", HELP_SECONDS, partial(_seconds_of, "--help")),
        ("automx serve --help", SERVE_HELP_SECONDS, partial(_seconds_of, "serve", "--help")),
        (f"automx serve, {WORKERS} workers", READY_SECONDS, partial(_seconds_to_serve, env, log)),
    ):
        times = [seconds() for _ in range(10)]
        median = statistics.median(times)
        cells = (f"{median:.2f} s", f"{min(times):.2f} s", f"{at_most:.2f} s")
        table.add(name, *cells, ok=median <= at_most)
    return table


def _seconds_of(*arguments: str) -> float:
    """Return how long a command takes."""
    started = time.monotonic()
    subprocess.run([BIN / "automx", *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - started


def _seconds_to_serve(env: Mapping[str, str], log: Path) -> float:
    """Return the time from the start of ``automx serve`` to its first answer."""
    started = time.monotonic()
    with serve(env, log) as server:
        HEALTH.fetch(server.url)
        return time.monotonic() - started


MEASUREMENTS: dict[str, Callable[[Bench], Table]] = {
    function.__name__: function
    for function in (speed, share, growth, seeding, freshness, memory, serve_memory, start)
}


def env_of(db_uri: str, cache: int = CACHE_SECONDS) -> dict[str, str]:
    """Return the environment of a program that uses a database."""
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": db_uri,
        "AUTOMX_DOMAIN_CACHE_SECONDS": str(cache),
    }
