"""A neighbour is frozen, and 100 clients ask for what needs it: what all others notice.

One worker is measured: more of them share the clients.
"""

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial

from bench import neighbours
from bench.crowd import Answer, Line, crowd, each, get, pace
from bench.load import AUTOCONFIG, load
from bench.measurements import Bench
from bench.neighbours import OTHERS, Neighbour, document
from bench.report import Table, number
from bench.servers import Server, serve

RATE = 500.0  # paced requests per second, or half of what the worker answers if that is less
SHARE, WITHIN = 0.99, 1.0  # of the paced answers, in seconds
GRACE = 0.5  # seconds beside a deadline in which every answer comes
RECOVERY = 5.0  # seconds
MEMORY = 1.1  # of a worker, compared with that before

HEALTHY_SECONDS = 3  # before and afterwards, with clients of the same kind
HEALTHY = 0.5  # part of their answers that is right at least: a busy machine makes few accounts
PROBE_SECONDS = 0.1  # between two requests that look whether the neighbour is back
PATIENCE = 40.0  # seconds until they give up


@dataclass
class Outcome:
    """What was measured; ``rate`` is that of the paced requests, ``memory`` in MB."""

    rate: float
    paced: list[Answer] = field(default_factory=list)
    asked: list[Answer] = field(default_factory=list)
    recovery: float = 0.0
    memory_before: float = 0.0
    memory_after: float = 0.0

    @property
    def share(self) -> float:
        """Which part of the paced requests was answered rightly and in time."""
        good = [one for one in self.paced if one.status == 200 and one.seconds <= WITHIN]
        return len(good) / len(self.paced)


def _measure(kind: neighbours.Kind, bench: Bench) -> Table:
    with kind(bench.folder) as neighbour:
        settings = {"AUTOMX_CONF": "/dev/null", **neighbour.env}
        with serve(settings, bench.folder / "automx.log", workers=1) as server:
            people = 1, OTHERS[0]
            rate = min(RATE, load(server.url, AUTOCONFIG, 1, people=people) / 2)
            outcome = asyncio.run(_beside(server, neighbour, Outcome(rate)))
            if "Traceback" in server.output:
                raise RuntimeError(server.output[-4000:])
    return _table(neighbour, outcome)


async def _beside(server: Server, neighbour: Neighbour, outcome: Outcome) -> Outcome:
    """Run clients and pace before, while and after a neighbour is frozen."""
    numbers = itertools.count()
    usual = each(neighbour.request, numbers)
    # Half of them are for /healthz.
    paced = [request for name in OTHERS for request in (get("/healthz"), get(document(name)))]

    async def healthy() -> float:
        async with _running(partial(pace, server.port, paced, outcome.rate)):
            async with _running(partial(crowd, server.port, neighbour.clients, usual)) as answers:
                await asyncio.sleep(HEALTHY_SECONDS)
            _check(answers, neighbour, least=HEALTHY)
        return server.worker_memory("Rss")

    outcome.memory_before = await healthy()
    with contextlib.ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, neighbour.freeze())
        async with _running(partial(pace, server.port, paced, outcome.rate)) as outcome.paced:
            asking = partial(crowd, server.port, neighbour.clients, neighbour.ask or usual)
            async with _running(asking) as outcome.asked:
                await asyncio.sleep(neighbour.seconds)
                await asyncio.to_thread(stack.close)
                outcome.recovery = await _recovery(server, neighbour, numbers, outcome.asked)
    _check(outcome.asked, neighbour)
    outcome.memory_after = await healthy()
    return outcome


@contextlib.asynccontextmanager
async def _running(
    load: Callable[[asyncio.Event, list[Answer]], Coroutine[None, None, None]],
) -> AsyncIterator[list[Answer]]:
    """Run a load until the block ends, and wait for its answers, which are in the list then."""
    ended = asyncio.Event()
    found: list[Answer] = []
    task = asyncio.create_task(load(ended, found))
    try:
        yield found
    finally:
        ended.set()
        await task


def _check(answers: list[Answer], neighbour: Neighbour, least: float = 0) -> None:
    """Check that all answers are of the expected kinds, and that so many are right."""
    statuses = Counter(answer.status for answer in answers)
    is_strange = statuses.keys() - {neighbour.right, *neighbour.while_frozen}
    if is_strange or statuses[neighbour.right] < least * len(answers):
        raise RuntimeError(f"{neighbour.title}: answers by status: {dict(statuses)}")


async def _recovery(
    server: Server, neighbour: Neighbour, numbers: Iterator[int], asked: list[Answer]
) -> float:
    """Return after how many seconds the first right answer comes, to the clients or to a probe."""
    began, seen = time.monotonic(), len(asked)
    right: list[float] = []  # when such answers came

    async def probe() -> None:
        number, line = next(numbers), Line(server.port)
        status = await line.ask(neighbour.request(number))
        ended = time.monotonic()
        line.close()
        if status == neighbour.right and (neighbour.is_back is None or neighbour.is_back(number)):
            right.append(ended)

    probes = []
    while not right and time.monotonic() < began + PATIENCE:
        probes.append(asyncio.create_task(probe()))
        await asyncio.sleep(PROBE_SECONDS)
        if neighbour.is_back is None:
            right += [one.ended for one in asked[seen:] if one.status == neighbour.right]
    await asyncio.gather(*probes)
    return min(right, default=time.monotonic()) - began


def _table(neighbour: Neighbour, outcome: Outcome) -> Table:
    table = Table(
        f"{neighbour.title}, {neighbour.clients} clients, each 1 s after its last answer",
        ("what", "promise", "measured"),
    )
    table.add(
        f"{outcome.rate:.0f} requests/s for others, within {WITHIN:.0f} s",
        f"at least {SHARE:.0%}",
        f"{outcome.share:.2%} of {len(outcome.paced):,}",
        ok=outcome.share >= SHARE,
    )
    paced = max(answer.seconds for answer in outcome.paced)
    table.add("the longest of them", "", f"{paced:.2f} s", ok=None)
    longest = max(answer.seconds for answer in outcome.asked)
    limit = neighbour.deadline + GRACE
    table.add(
        "longest answer that needs it",
        f"{limit:.1f} s",
        f"{longest:.2f} s of {len(outcome.asked):,}",
        ok=longest <= limit,
    )
    table.add(
        "first right answer after its return",
        f"{RECOVERY:.0f} s",
        f"{outcome.recovery:.2f} s",
        ok=outcome.recovery <= RECOVERY,
    )
    before, after = outcome.memory_before, outcome.memory_after
    table.add(
        f"memory of the worker, {number(before, 'MB')} before",
        number(before * MEMORY, "MB"),
        number(after, "MB"),
        ok=after <= before * MEMORY,
    )
    return table


MEASUREMENTS: dict[str, Callable[[Bench], Table]] = {
    f"frozen_{name}": partial(_measure, kind) for name, kind in neighbours.KINDS.items()
}
