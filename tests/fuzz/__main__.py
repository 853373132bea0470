"""``make fuzz``: a long run of all targets, then of requests to a running server.

Each target runs in a process of its own, guided by coverage; a fast parser gets more inputs than a
slow one. What broke a parser is kept in ``var/fuzz/crashes``: a file that is copied into
``tests/data/fuzz/TARGET`` becomes a test. The result of a whole run goes into
``docs/reliability.md``.
"""

import argparse
import json
import logging
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.fuzz import CORPUS
from tests.hostile.requests import GROWTH, send, warm_up
from tests.hostile.target import target
from tests.processes import REPOSITORY

FOLDER = REPOSITORY / "var" / "fuzz"
PAGE = REPOSITORY / "docs" / "reliability.md"
HEADING = "## The last long run\n"
LEAST = 1_000  # inputs of a target


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a target, or of the requests: ``unit`` is what was counted."""

    name: str
    inputs: int
    crashes: int
    unit: str = "inputs"

    def __str__(self) -> str:
        return f"{self.name:<22} {self.inputs:>9,} {self.unit:<8} {self.crashes:>3} crashes"


def shares(number: int, speeds: Mapping[str, float]) -> dict[str, int]:
    """Return how many of so many inputs each target gets: the faster, the more, within limits."""
    least = min(LEAST, number // len(speeds))
    rest = number - least * len(speeds)
    most = 10 * statistics.median(speeds.values())  # a tiny parser needs no more
    weights = {name: min(speed, most) for name, speed in speeds.items()}
    total = sum(weights.values())
    return {name: least + int(rest * weight / total) for name, weight in weights.items()}


def fuzz_all(names: Sequence[str], number: int, jobs: int) -> list[Result]:
    """Run targets, so many at once; print a line for each when it ends."""
    from tests.fuzz import guided  # it takes some seconds

    logging.getLogger("automx").setLevel(logging.CRITICAL)
    for folder in ("crashes", "results", "logs", "speeds"):
        shutil.rmtree(FOLDER / folder, ignore_errors=True)
        (FOLDER / folder).mkdir(parents=True)

    def probe(name: str) -> None:
        (FOLDER / "speeds" / name).write_text(str(guided.speed(name)))

    list(in_forks(names, probe, jobs))
    speeds = {path.name: float(path.read_text()) for path in (FOLDER / "speeds").iterdir()}
    wanted = shares(number, speeds | {name: 1.0 for name in names if name not in speeds})
    results = []
    fastest_first = sorted(names, key=wanted.__getitem__, reverse=True)
    for name, status in in_forks(
        fastest_first, lambda name: guided.fuzz(name, wanted[name], FOLDER), jobs
    ):
        path = FOLDER / "results" / name
        found = json.loads(path.read_text()) if path.exists() else {"inputs": 0, "crashes": 0}
        is_broken = status != 0 and not found["crashes"]
        results.append(Result(name, found["inputs"], found["crashes"] + is_broken))
        print(results[-1], flush=True)
    return results


def in_forks(
    names: Iterable[str], work: Callable[[str], None], jobs: int
) -> Iterator[tuple[str, int]]:
    """Run a function for each name in a process of its own; yield name and status of each."""
    running: dict[int, str] = {}
    waiting = list(names)
    while waiting or running:
        while waiting and len(running) < jobs:
            name = waiting.pop(0)
            sys.stdout.flush()
            if pid := os.fork():
                running[pid] = name
                continue
            try:
                work(name)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        pid, status = os.wait()
        yield running.pop(pid), os.waitstatus_to_exitcode(status)


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of the requests, and the memory of the worker (kB) before and after them."""

    result: Result
    before: int
    after: int


def send_requests(number: int) -> Sent:
    """Send mutated requests to a server of this run."""
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="automx-fuzz-")))
        server = ends.enter_context(target(folder))
        warm_up(server.port)
        before = server.memory()
        report = send(server.url, number, seed=int(time.time()))
        after = server.memory()
        faults = [*report.faults, *server.faults()]
        if after > before * GROWTH:
            faults.append(f"memory grew from {before} to {after} kB")
    if faults:
        (FOLDER / "crashes" / "requests").write_text("\n".join(faults))
    return Sent(Result("requests", number, len(faults), "requests"), before, after)


def table(results: Iterable[Result], sent: Sent, found: datetime) -> str:
    """Return the section of the page that tells of a run."""
    results = list(results)
    inputs, crashes = sum(r.inputs for r in results), sum(r.crashes for r in results)
    return f"""{HEADING}
`make fuzz` gives random inputs to every parser, and sends changed requests to a running server.

| | |
|---|---|
| Date | {found:%Y-%m-%d} |
| Parsers | {len(results)} |
| Inputs | {inputs:,} |
| Requests | {sent.result.inputs:,} |
| Faults found | {crashes + sent.result.crashes} |
| Memory of the worker at the start | {sent.before / 1024:.0f} MiB |
| Memory of the worker at the end | {sent.after / 1024:.0f} MiB |
"""


def write(section: str) -> None:
    """Put a section into the page, in the place of the one of the last run."""
    page = PAGE.read_text("utf-8")
    pattern = re.compile(rf"{re.escape(HEADING)}.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    page = pattern.sub("", page).rstrip("\n")
    PAGE.write_text(f"{page}\n\n{section}", "utf-8")


def main() -> int:
    """Run everything; return the exit status, 1 if anything broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="by default, all")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    known = sorted(path.name for path in CORPUS.iterdir())
    names = options.targets or known
    if unknown := set(names).difference(known):
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    print(f"{options.inputs:,} inputs for {len(names)} targets; what breaks one: {FOLDER}/crashes")
    with tempfile.TemporaryDirectory(prefix="automx-fuzz-") as folder:
        tempfile.tempdir = folder  # forks that are ended leave their files there
        results = fuzz_all(names, options.inputs, options.jobs)
        tempfile.tempdir = None
    broken = sum(result.crashes for result in results)
    if options.requests:
        sent = send_requests(options.requests)
        print(sent.result)
        broken += sent.result.crashes
        if not options.targets:
            write(table(results, sent, datetime.now(UTC)))
    total = sum(result.inputs for result in results)
    print(f"{total:,} inputs, {broken} crashes" + (f": see {FOLDER}/crashes" if broken else ""))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
