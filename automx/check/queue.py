"""The checks of all domains that are still to run, and the threads that run them."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from queue import Empty, PriorityQueue, SimpleQueue
from threading import Thread

from automx.check.finding import Check, Finding, Level
from automx.deadline import after, left
from automx.errors import AutomxError

THREADS = 32

_Result = tuple[list[Finding], Sequence[Check]]
# Rank, number, domain, and a check or the beginning of a domain, which adds checks. Low ranks run
# first, so that domains end one after another.
_Task = tuple[int, int, str, Callable[[], _Result] | None]
_END, _CHECK, _DOMAIN = range(3)


class Queue:
    """Runs the checks of domains side by side; none can stop another one."""

    def __init__(self) -> None:
        self._tasks: PriorityQueue[_Task] = PriorityQueue()
        self._numbers = count()
        # domain, number of the task, findings, number of added checks
        self._done: SimpleQueue[tuple[str, int, list[Finding], int]] = SimpleQueue()
        self._domains: list[str] = []

    def add(self, domain: str, begin: Callable[[], Sequence[Check]]) -> None:
        """Add a domain; ``begin`` returns its checks, and runs in a thread as they do."""
        self._domains.append(domain)
        self._put(_DOMAIN, domain, lambda: ([], begin()))

    def run(self, seconds: float) -> Iterator[tuple[str, list[Finding], bool]]:
        """Yield each domain when its checks have ended, with its findings and True.

        After ``seconds``, yield the other domains with the findings so far, and False.
        """
        found: dict[str, dict[int, list[Finding]]] = {domain: {} for domain in self._domains}
        missing = dict.fromkeys(found, 1)  # number of tasks
        deadline = after(seconds)
        for _ in range(THREADS):
            # The end of the program does not wait for daemon threads, which may hang.
            Thread(target=self._work, daemon=True).start()
        try:
            while missing:
                done = self._done.get(timeout=left(deadline))
                domain, number, findings, added = done
                found[domain][number] = findings
                missing[domain] += added - 1
                if not missing[domain]:
                    del missing[domain]
                    yield domain, _in_order(found.pop(domain)), True
        except Empty:
            for domain in missing:
                yield domain, _in_order(found[domain]), False
        finally:
            for _ in range(THREADS):
                self._put(_END)

    def _put(self, rank: int, domain: str = "", run: Callable[[], _Result] | None = None) -> None:
        self._tasks.put((rank, next(self._numbers), domain, run))

    def _work(self) -> None:
        while True:
            _, number, domain, run = self._tasks.get()
            if run is None:
                return
            try:
                findings, checks = run()
            except Exception as error:  # a bug here must not hide what other checks find
                text = f"this check itself failed: {type(error).__name__}: {error}"
                if isinstance(error, AutomxError):
                    text = error.cause or str(error)
                advice = "please report this"
                finding = Finding(domain, Level.ERROR, "automx check", text, advice)
                findings, checks = [finding], ()
            # run() must know their number before one of them can end.
            self._done.put((domain, number, findings, len(checks)))
            for check in checks:
                self._put(_CHECK, domain, partial(_run, check))


def _run(check: Check) -> _Result:
    return list(check()), ()


def _in_order(found: dict[int, list[Finding]]) -> list[Finding]:
    return [finding for _, findings in sorted(found.items()) for finding in findings]
