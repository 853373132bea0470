"""``make soak``: mixed requests for long, while each neighbour is restarted once.

The server has all its neighbours: PostgreSQL, a directory, Redis and mailcow. It fails if a worker
grows, or if an answer is wrong that no restart explains.
"""

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from bench.crowd import Answer, pace
from bench.frozen import RECOVERY
from bench.report import Table, number
from bench.rows import created, seed_document
from bench.servers import BIN, Server, resident, serve
from bench.traffic import EDITED, KNOWN, PEOPLES, TOKEN, Kind, kinds
from tests.apikeys import make_key
from tests.commandline import automx
from tests.databases import engine_uri, running_postgresql
from tests.directory import Directories, ldapserver_row
from tests.mailcow import FakeMailcow
from tests.processes import REPOSITORY, Running, free_port, running, workers_of
from tests.redisserver import running_redis
from tests.tls import Authority

FOLDER = REPOSITORY / "var" / "soak"
GROWTH = 0.05  # of the memory of a worker, after the warm-up
AWAY_SECONDS = 10.0  # of a neighbour that is restarted
WHILE_AWAY = frozenset({503, 504})

WARM_RATE = 100.0  # requests per second of the warm-up, in which each is sent twice

# Parts of the whole time: when the memory is measured, and when the neighbours are restarted.
WARM, END = (0.15, 0.2), (0.95, 1.0)
RESTARTS = (0.25, 0.4, 0.55, 0.7)


@dataclass
class Neighbour:
    """A program that is stopped and started again; ``away`` are moments of monotonic()."""

    name: str
    stop: Callable[[], object]
    start: Callable[[], object]
    away: tuple[float, float] = (0.0, 0.0)

    def restart(self) -> None:
        """Restart it, with some seconds between."""
        began = time.monotonic()
        self.stop()
        time.sleep(AWAY_SECONDS)
        self.start()
        self.away = began, time.monotonic()

    def explains(self, answer: Answer) -> bool:
        """Return whether an answer came while it was away, or soon afterwards."""
        began, ended = self.away
        return answer.ended >= began and answer.asked <= ended + RECOVERY


@dataclass
class Memory:
    """Resident memory of a worker in MB: moments as parts of the whole time, and values."""

    samples: list[tuple[float, float]] = field(default_factory=list)

    def within(self, part: tuple[float, float]) -> float:
        """Return the median of a part of the time; 0 if the worker did not live then."""
        found = [value for moment, value in self.samples if part[0] <= moment <= part[1]]
        return statistics.median(found) if found else 0.0


@click.command
@click.option("--minutes", default=20.0, show_default=True, type=click.FloatRange(0.5))
def main(minutes: float) -> None:
    """Ask a server for long, restart each of its neighbours once, and look what becomes of it.

    Before, it is asked for everything twice, which takes two minutes more.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    with _world() as (server, neighbours, key):
        asked, workers = kinds(key), workers_of(server.process)
        asyncio.run(_warm_up(server, asked))
        memory = asyncio.run(_soak(server, neighbours, asked, 60 * minutes))
        tables = [_answers(asked, neighbours, minutes), _neighbours(neighbours), _memory(memory)]
        tables.append(_server(server, workers))
    loads = f"Load of the machine at the start {load:.1f}, at the end {os.getloadavg()[0]:.1f}.\n"
    text = "\n".join([*(table.markdown() for table in tables), loads])
    print(text)
    (FOLDER / "results.md").write_text(text)
    series = {pid: each.samples for pid, each in memory.items()}
    (FOLDER / "memory.json").write_text(json.dumps(series))
    missed = [row for table in tables for row in table.missed]
    for row in missed:
        print(f"missed: {row}", file=sys.stderr)
    sys.exit(1 if missed else 0)


# The server and its neighbours


@contextlib.contextmanager
def _world() -> Iterator[tuple[Server, list[Neighbour], str]]:
    """Run everything; give the server, its neighbours, and a key of the API."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="automx-")))
        postgresql = stack.enter_context(running_postgresql())
        directory = stack.enter_context(Directories(folder, Authority(folder)).running())
        redis_port, mailcow_port = free_port(), free_port()
        redis = _program(stack, "Redis", lambda: running_redis(FOLDER, redis_port))
        mailcow = _program(stack, "mailcow", lambda: _mailcow(mailcow_port))
        db_uri = created(postgresql.new_database())
        env = {
            "AUTOMX_CONF": "/dev/null",
            "AUTOMX_DB_URI": db_uri,
            "AUTOMX_LDAP_STARTTLS": "no",
            "AUTOMX_ACCOUNT_RATE_LIMIT": "1000000 per minute",
            "AUTOMX_RATE_LIMIT_STORAGE": f"redis://127.0.0.1:{redis_port}",
            "AUTOMX_WEB_ENDPOINT": f"https://mail.{PEOPLES}/new_email",
            "AUTOMX_ACCOUNT_BACKEND": "mailcow",
            "AUTOMX_MAILCOW_ENDPOINT": f"http://127.0.0.1:{mailcow_port}/api/v1",
            "AUTOMX_MAILCOW_TOKEN": FakeMailcow().key,
        }
        document = json.loads(seed_document(PEOPLES, *KNOWN, *EDITED))
        document["ldapservers"] = [ldapserver_row(directory)]
        document["domains"][0]["ldapserver_id"] = document["ldapservers"][0]["id"]
        automx("seed", "-", env=env, stdin=json.dumps(document))
        options = ("--domain", PEOPLES, "--maxuse", "0", "--prefix", "soak-prefix.")
        automx("token", "add", "soak", *options, "--token-stdin", env=env, stdin=f"{TOKEN}\n")
        key = make_key(engine_uri(db_uri), "soak", "admin")
        server = stack.enter_context(serve(env, FOLDER / "automx.log"))
        neighbours = [
            Neighbour("PostgreSQL", lambda: postgresql.server.stop(signal.SIGINT), postgresql.run),
            Neighbour("directory", directory.stop, directory.start),
            redis,
            mailcow,
        ]
        yield server, neighbours, key


def _program(
    stack: contextlib.ExitStack,
    name: str,
    run: Callable[[], contextlib.AbstractContextManager[Running]],
) -> Neighbour:
    """Start a program, which ends with the stack at the latest."""
    started: list[Running] = []

    def start() -> None:
        started.append(stack.enter_context(run()))

    def stop() -> None:
        started[-1].stop()

    start()
    return Neighbour(name, stop, start)


def _mailcow(port: int) -> contextlib.AbstractContextManager[Running]:
    log = FOLDER / "mailcow.log"
    log.unlink(missing_ok=True)
    command: list[str | Path] = [BIN / "python", "-m", "bench.mailcow", f"{port}", PEOPLES]
    return running(command, log, ready=lambda: b"\n" in log.read_bytes(), cwd=REPOSITORY)


# The soak itself


async def _warm_up(server: Server, asked: list[Kind]) -> None:
    """Let the workers remember what they can, and load what they need."""
    ended = asyncio.Event()
    requests = [request for kind in asked for request in kind.requests]
    random.Random(1).shuffle(requests)
    pacing = asyncio.create_task(pace(server.port, requests, WARM_RATE, ended, []))
    await asyncio.sleep(2 * len(requests) / WARM_RATE)
    ended.set()
    await pacing


async def _soak(
    server: Server, neighbours: list[Neighbour], asked: list[Kind], seconds: float
) -> dict[int, Memory]:
    """Let clients ask, restart the neighbours, and return the memory of each worker by its pid."""
    ended = asyncio.Event()
    began = time.monotonic()
    memory: dict[int, Memory] = {}

    async def until(part: float) -> None:
        await asyncio.sleep(max(0, began + part * seconds - time.monotonic()))

    async def restart() -> None:
        for neighbour, part in zip(neighbours, RESTARTS, strict=True):
            await until(part)
            await asyncio.to_thread(neighbour.restart)

    async def measure() -> None:
        for step in itertools.count(1):
            await until(step / 200)
            if ended.is_set():
                return
            for pid in workers_of(server.process):
                value = resident(pid)
                memory.setdefault(pid, Memory()).samples.append((step / 200, value))

    loads = [pace(server.port, k.requests, k.rate, ended, k.answers) for k in asked]
    tasks = [asyncio.create_task(work) for work in (*loads, restart(), measure())]
    await until(1)
    ended.set()
    await asyncio.gather(*tasks)
    return memory


# What was found


def _answers(asked: list[Kind], neighbours: list[Neighbour], minutes: float) -> Table:
    table = Table(
        f"Answers of {minutes:g} minutes",
        ("asked", "answers", "503 or 504 during restarts", "wrong", "median", "longest"),
    )
    for kind in asked:
        bad = [each for each in kind.answers if each.status not in kind.right]
        excused = [
            each
            for each in bad
            if each.status in WHILE_AWAY and any(n.explains(each) for n in neighbours)
        ]
        wrong = Counter(each.status for each in bad) - Counter(each.status for each in excused)
        times = [each.seconds for each in kind.answers]
        table.add(
            kind.name,
            f"{len(kind.answers):,}",
            f"{len(excused):,}",
            ", ".join(f"{count} of {status}" for status, count in wrong.items()) or "0",
            f"{statistics.median(times) * 1000:.0f} ms",
            f"{max(times):.1f} s",
            ok=not wrong,
        )
    return table


def _neighbours(neighbours: list[Neighbour]) -> Table:
    table = Table("Restarts", ("neighbour", "away"))
    for neighbour in neighbours:
        began, ended = neighbour.away
        table.add(neighbour.name, f"{ended - began:.0f} s", ok=None)
    return table


def _memory(memory: dict[int, Memory]) -> Table:
    table = Table(
        "Memory of the workers", ("worker", "after the warm-up", "at the end", "growth", "at most")
    )
    for place, each in enumerate(memory.values(), 1):
        before, after = each.within(WARM), each.within(END)
        growth = after / before - 1 if before else 0.0
        table.add(
            f"{place}",
            number(before, "MB"),
            number(after, "MB"),
            f"{growth:+.1%}",
            f"{GROWTH:.0%}",
            ok=before > 0 and after > 0 and growth < GROWTH,
        )
    return table


def _server(server: Server, workers: list[int]) -> Table:
    """Return whether the workers are those of the beginning, and what the log has."""
    table = Table("The server", ("what", "found"))
    lives = workers_of(server.process) == workers
    table.add("workers that died", "none" if lives else "some", ok=lives)
    errors = server.output.count("Traceback")
    table.add("tracebacks in the log", f"{errors}", ok=not errors)
    return table


if __name__ == "__main__":
    main()
