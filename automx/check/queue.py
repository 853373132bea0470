"""The checks of all domains that are still to run, and the threads that run them."""

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


class Queue:
    """Runs the checks of domains side by side; none can stop another one."""

    def __init__(self) -> None:
        self._tasks: PriorityQueue[_Task] = PriorityQueue()
        self._numbers = count()
        # domain, number of the task, findings, number of further checks
        self._done: SimpleQueue[tuple[str, int, list[Finding], int]] = SimpleQueue()

    def run(
        self, domains: Mapping[str, Check], seconds: float
    ) -> Iterator[tuple[str, list[Finding]]]:
        """Yield each domain with its findings when its first check and all further ones have ended.

        After ``seconds``, yield the other domains with the findings so far, and an error.
        """
        found: dict[str, dict[int, list[Finding]]] = {domain: {} for domain in domains}
        missing = dict.fromkeys(found, 1)  # number of tasks
        deadline = after(seconds)
        for domain, check in domains.items():
            self._put(_DOMAIN, domain, check)
        for _ in range(THREADS):
            # The end of the program does not wait for daemon threads, which may hang.
            Thread(target=self._work, daemon=True).start()
        try:
            while missing:
                domain, number, findings, added = self._done.get(timeout=left(deadline))
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
                self._put(_END)

    def _put(self, rank: int, domain: str = "", check: Check | None = None) -> None:
        self._tasks.put((rank, next(self._numbers), domain, check))

    def _work(self) -> None:
        while True:
            _, number, domain, check = self._tasks.get()
            if check is None:
                return
            try:
                results = list(check())
            except Exception as error:  # a bug here must not hide what other checks find
                text = f"this check itself failed: {type(error).__name__}: {error}"
                if isinstance(error, AutomxError):
                    text = error.cause or str(error)
                advice = "please report this"
                results = [Finding(domain, Level.ERROR, "automx check", text, advice)]
            findings = [result for result in results if isinstance(result, Finding)]
            checks = [result for result in results if not isinstance(result, Finding)]
            # run() must know their number before one of them can end.
            self._done.put((domain, number, findings, len(checks)))
            for further in checks:
                self._put(_CHECK, domain, further)


def _in_order(found: dict[int, list[Finding]]) -> list[Finding]:
    return [finding for _, findings in sorted(found.items()) for finding in findings]
