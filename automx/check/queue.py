"""The checks of domains, run side by side in threads; none can stop another one."""

from collections.abc import Iterator, Mapping
from itertools import count
from queue import Empty, PriorityQueue, SimpleQueue
from threading import Thread

from automx.check.finding import Check, Finding, Level
from automx.deadline import after, left
from automx.errors import AutomxError

THREADS = 32

# Rank, number, domain, and a check, None for the end of a thread. Low ranks run first, so that
# domains end one after another.
_Task = tuple[int, int, str, Check | None]
_END, _CHECK, _DOMAIN = range(3)
# Domain, number of the task, findings, number of further checks.
_Result = tuple[str, int, list[Finding], int]


def run(domains: Mapping[str, Check], seconds: float) -> Iterator[tuple[str, list[Finding]]]:
    """Yield each domain with its findings when its first check and all further ones have ended.

    After ``seconds``, yield the other domains with the findings so far, and an error.
    """
    tasks: PriorityQueue[_Task] = PriorityQueue()
    results: SimpleQueue[_Result] = SimpleQueue()
    numbers = count()
    found: dict[str, dict[int, list[Finding]]] = {domain: {} for domain in domains}
    missing = dict.fromkeys(found, 1)  # number of tasks
    deadline = after(seconds)
    for domain, check in domains.items():
        tasks.put((_DOMAIN, next(numbers), domain, check))
    for _ in range(THREADS):
        # The end of the program does not wait for daemon threads, which may hang.
        Thread(target=_work, args=(tasks, results, numbers), daemon=True).start()
    try:
        while missing:
            domain, number, findings, added = results.get(timeout=left(deadline))
            found[domain][number] = findings
            missing[domain] += added - 1
            if not missing[domain]:
                del missing[domain]
                yield domain, _in_order(found.pop(domain))
    except Empty:
        text = f"the checks of this domain did not end within {seconds:g} s"
        advice = "check fewer domains at once, or set a lower --timeout"
        for domain in missing:
            late = Finding(domain, Level.ERROR, "automx check", text, advice)
            yield domain, [*_in_order(found[domain]), late]
    finally:
        for _ in range(THREADS):
            tasks.put((_END, next(numbers), "", None))


def _work(
    tasks: PriorityQueue[_Task], results: SimpleQueue[_Result], numbers: Iterator[int]
) -> None:
    """Run checks until the end; their further checks become tasks."""
    while True:
        _, number, domain, check = tasks.get()
        if check is None:
            return
        try:
            found = list(check())
        except Exception as error:  # a bug here must not hide what other checks find
            text = f"this check itself failed: {type(error).__name__}: {error}"
            if isinstance(error, AutomxError):
                text = error.cause or str(error)
            advice = "please report this"
            found = [Finding(domain, Level.ERROR, "automx check", text, advice)]
        findings = [result for result in found if isinstance(result, Finding)]
        checks = [result for result in found if not isinstance(result, Finding)]
        # run() must know their number before one of them can end.
        results.put((domain, number, findings, len(checks)))
        for further in checks:
            tasks.put((_CHECK, next(numbers), domain, further))


def _in_order(found: dict[int, list[Finding]]) -> list[Finding]:
    return [finding for _, findings in sorted(found.items()) for finding in findings]
