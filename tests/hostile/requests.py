"""Sends mutations of real requests to a running server, and judges the answers.

``send()`` is the function; ``python -m tests.hostile.requests --number 100000 --seed 1`` is the
command, which starts a server of its own and watches its log and its memory as well.
"""

import argparse
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

from automx import front
from tests.hostile.corpus import CORPUS
from tests.hostile.mutations import mutated
from tests.hostile.target import Target, target
from tests.hostile.wire import Answer, Connection, WireError

# Follows each mutation on its connection: its answer shows that no byte was taken for another
# request, and that the server goes on.
NEXT = b"GET /healthz HTTP/1.1\r\nHost: example.com\r\n\r\n"

# What no answer may hold: how we are made, and where.
GIVEAWAYS = re.compile(
    rb"Traceback|File \"|SELECT |sqlite|sqlalchemy|werkzeug|/dev/shm/|/tmp/|\.py\b", re.IGNORECASE
)
SCRIPT = b"navigator.clipboard"  # stands in the answer to mutations.SMUGGLED

THREADS = 4
MOMENT = 0.1  # seconds after which an incomplete request is ended; it decides nothing but the speed
GROWTH = 1.10  # of memory, at most


@dataclass
class Report:
    """What became of many requests: how many had which status, and what was wrong.

    A fault is one text, with all that is needed to send its request again. A connection that was
    closed without an answer counts as status 0.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return the report for people."""
        counts = ", ".join(f"{status}: {self.statuses[status]}" for status in sorted(self.statuses))
        return "\n".join([f"answers: {counts}", *self.faults[:20]])


def send(base: str, number: int, seed: int) -> Report:
    """Send so many mutations to the server at a base URL, ``http://127.0.0.1:PORT``.

    The same seed gives the same requests. They name the domains and tokens of the server that
    ``tests.hostile.target.target()`` runs. The report says what was wrong with the answers; the log
    is not read here: ``Target.faults()`` does it, and ``send_and_watch()`` does all of it.
    """
    port = urlsplit(base).port or 80
    report = Report()
    with ThreadPoolExecutor(THREADS) as threads:
        turns = [threads.submit(_send, port, seed, range(start, number, THREADS))
                 for start in range(THREADS)]  # fmt: skip
        for part in (turn.result() for turn in turns):
            report.statuses += part.statuses
            report.faults += part.faults
    return report


def warm_up(port: int) -> None:
    """Send each real request from as many clients at once as a worker has threads.

    What is loaded on demand is loaded then, and each thread has the memory that it needs.
    """
    with ThreadPoolExecutor(front.THREADS) as threads:
        for done in [threads.submit(ask_as_it_is, port) for _ in range(front.THREADS)]:
            done.result()


def ask_as_it_is(port: int) -> dict[str, int]:
    """Send each real request as it is; return the statuses by the names of the requests."""
    line = Line(port)
    found = {
        name: line.exchange(request.message(), request.method)[0].status
        for name, request in CORPUS.items()
    }
    line.close()
    return found


class Line:
    """A connection that is opened again when the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: Connection | None = None

    def close(self) -> None:
        """Close it."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def exchange(self, message: bytes, method: bytes) -> list[Answer]:
        """Return the answer to a well-formed message, which must be one; none if it is closed.

        Raises WireError if the next request is not answered as it should be, TimeoutError.
        """
        self._connection = self._connection or Connection(self._port)
        self._connection.send(message + NEXT)
        first = self._connection.answer(method.decode("latin-1"))
        last = self._connection.answer() if first and not first.is_last else None
        if last is None:
            self.close()
        elif (last.status, last.body) != (200, b"ok\n"):
            raise WireError(f"another answer follows: {last}")
        if first and SCRIPT in first.body:
            raise WireError("a request in a body was answered")
        return [first] if first else []

    def exchange_raw(self, message: bytes) -> list[Answer]:
        """Return the answers to a message that is anything, on a connection of its own."""
        with Connection(self._port) as connection:
            connection.send(message + NEXT)
            if not connection.says_something(MOMENT):
                connection.close_sending()
            found: list[Answer] = []
            while (answer := connection.answer()) is not None:
                if (answer.status, answer.body) == (200, b"ok\n"):
                    break
                found.append(answer)
                if not answer.is_last and not connection.says_something(MOMENT):
                    connection.close_sending()
        return found


def _send(port: int, seed: int, numbers: range) -> Report:
    report, line = Report(), Line(port)
    for number in numbers:
        name, message, method = mutated(seed, number)
        where = f"seed {seed}, number {number}, {name}"
        try:
            answers = line.exchange(message, method) if method else line.exchange_raw(message)
        except (WireError, TimeoutError) as error:
            report.faults.append(f"{where}: {error!r}: {message[:3000]!r}")
            line.close()
        else:
            _judge(report, where, message, answers)
    line.close()
    return report


def _judge(report: Report, where: str, message: bytes, answers: list[Answer]) -> None:
    report.statuses.update(answer.status for answer in answers)
    if not answers:
        report.statuses[0] += 1
    for fault in chain.from_iterable(faults(answer) for answer in answers):
        report.faults.append(f"{where}: {fault}: {message[:3000]!r}")


def faults(answer: Answer) -> Iterator[str]:
    """Yield what is wrong with an answer, whatever was asked."""
    status = answer.status
    if status >= 500 and status not in {503, 504}:
        yield f"status {status}"
    if _tells_too_much(answer.body):
        yield f"an answer of {status} tells how we are made: {answer.body[:300]!r}"
    host = urlsplit(answer.headers.get("location", "")).hostname
    if host not in {None, "dav.example.com"}:
        yield f"a redirect to {host}"


@lru_cache(1_000)  # most answers are the same few
def _tells_too_much(body: bytes) -> bool:
    return GIVEAWAYS.search(body) is not None


def main() -> None:
    """Run a server, send mutations to it, and fail if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--base", help="URL of a server that runs; its log is not read then")
    options = parser.parse_args()
    if options.base:
        report = send(options.base, options.number, options.seed)
    else:
        with tempfile.TemporaryDirectory() as folder, target(Path(folder)) as started:
            report = send_and_watch(started, options.number, options.seed)
    sys.stdout.write(f"{report}\n")
    sys.exit(bool(report.faults))


def send_and_watch(started: Target, number: int, seed: int) -> Report:
    """Send mutations to a server whose log and memory are watched; what is found is a fault."""
    warm_up(started.port)
    before = started.memory()
    report = send(started.url, number, seed)
    after = started.memory()
    report.faults += started.faults()
    sys.stdout.write(f"memory: {before} kB, after {number} requests {after} kB\n")
    if after > before * GROWTH:
        report.faults.append(f"memory grew from {before} to {after} kB")
    return report


if __name__ == "__main__":
    main()
