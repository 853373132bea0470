"""What a worker counts, in plain dictionaries: a request costs less than a microsecond.

``automx serve`` adds up the counts of all workers, see ``cli/metrics.py``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from time import perf_counter, perf_counter_ns
from typing import Any, NamedTuple, TypeVar

from automx.trace import DIRECTORY, FRONT, Trace, mark

# The nanoseconds of a kind of requests, and how many took so many that they have 1, 2, 3 … bits: of
# all ways to find a bucket, this takes the least time.
Entry = list[int]
_PLACES = 64
# The numbers of bits that are told, from 66 microseconds to 34 seconds.
BITS = range(16, 36)


class Metric(NamedTuple):
    """A metric: its type for Prometheus, the names of its labels, and what it means.

    ``combine`` says what becomes of the values of several workers: their sum, or the highest one.
    """

    kind: str
    labels: tuple[str, ...]
    meaning: str
    combine: str = "sum"


METRICS = {
    "automx_requests_total": Metric(
        "counter",
        ("protocol", "family", "status", "where"),
        "Requests that were answered; the labels are those of the log",
    ),
    "automx_request_seconds": Metric(
        "histogram",
        ("protocol", "where"),
        "Seconds from the moment at which a request was there, with its body, to its answer",
    ),
    "automx_cache_lookups_total": Metric(
        "counter",
        ("result",),
        "Domains that were looked for in the memory of workers: `hit`, `miss`, or `stale` (the"
        " database was away or slow)",
    ),
    "automx_cache_domains": Metric("gauge", (), "Domains in the memory of all workers"),
    "automx_database_turns": Metric("gauge", (), "Transactions that run, at most 16 in a worker"),
    "automx_database_away": Metric("gauge", (), "Workers for which the database is away"),
    "automx_replica_away": Metric("gauge", (), "Workers for which the read replica is away"),
    "automx_changes_read_seconds": Metric(
        "gauge", (), "Seconds since the log of changes was read, in the slowest worker", "max"
    ),
    "automx_directory_lookups_total": Metric(
        "counter",
        ("directory", "result"),
        "Look-ups of people, by the id of the row of a directory or by `source NAME`: `found`,"
        " `unknown`, `failed`",
    ),
    "automx_directory_seconds_total": Metric(
        "counter", ("directory",), "Seconds that look-ups have taken"
    ),
    "automx_backend_calls_total": Metric(
        "counter",
        ("backend", "call", "result"),
        "Calls of backends of accounts: `ok`, `refused` (4xx for the client), `failed` (5xx)",
    ),
    "automx_backend_seconds_total": Metric(
        "counter", ("backend", "call"), "Seconds that calls of backends have taken"
    ),
    "automx_limited_total": Metric(
        "counter",
        ("scope",),
        "Requests for accounts that a limit has refused, by `client` or by `token`",
    ),
    "automx_rate_limit_storage_away": Metric("gauge", (), "Workers for which Redis is away"),
    "automx_worker_memory_bytes": Metric("gauge", (), "Resident memory of all workers"),
    "automx_workers": Metric("gauge", (), "Workers that have told their counts"),
    "automx_workers_ended_total": Metric("counter", (), "Workers that have ended, or were killed"),
    "automx_build_info": Metric(
        "gauge", ("version", "python"), "1; the labels are the versions of automx and Python"
    ),
    "automx_domains": Metric("gauge", (), "Domains in the database"),
    "automx_accounts": Metric("gauge", ("state",), "Accounts, by their state"),
    "automx_accounts_overdue": Metric(
        "gauge", (), "Active accounts that have ended a day ago or earlier: prune does not run"
    ),
    "automx_token_uses_left": Metric(
        "gauge", ("token",), "Uses of a token that are left, of the 200 that have the fewest"
    ),
    "automx_prune_timestamp_seconds": Metric("gauge", (), "When `automx prune` has ended last"),
    "automx_prune_failed": Metric(
        "gauge", (), "1 if the last `automx prune` could not do all that was due, else 0"
    ),
    "automx_source_read_timestamp_seconds": Metric(
        "gauge", ("source",), "When the last synchronization of a source began"
    ),
    "automx_source_success_timestamp_seconds": Metric(
        "gauge", ("source",), "When the last one began after which the rows are as the source says"
    ),
    "automx_source_failed": Metric(
        "gauge", ("source",), "1 if the last synchronization of a source has failed, else 0"
    ),
    "automx_source_domains": Metric("gauge", ("source",), "Domains that were found in a source"),
    "automx_source_problems": Metric(
        "gauge", ("source",), "Domains of a source that were left as they are, see `automx sync`"
    ),
    "automx_change_number": Metric("gauge", (), "The number of the last change of rows"),
    "automx_replica_changes_missing": Metric(
        "gauge", (), "Changes of rows that the read replica did not have"
    ),
    "automx_last_change_timestamp_seconds": Metric("gauge", (), "When rows were changed by automx"),
    "automx_certificate_end_timestamp_seconds": Metric(
        "gauge", (), "When the certificate that signs Apple profiles ends"
    ),
    "automx_statistics_timestamp_seconds": Metric(
        "gauge",
        (),
        "When the database was last asked, once a minute: from `automx_domains` on",
    ),
}

_Found = TypeVar("_Found")

Sample = tuple[str, tuple[str, ...], float]


class Counts:
    """The counts of a process. Safe for threads.

    ``gauges`` are functions that return samples of the moment, of counters that others keep, too.
    """

    def __init__(self) -> None:
        self.gauges: list[Callable[[], list[Sample]]] = []
        self._lock = Lock()
        self._front: dict[tuple[str, str, int, str], Entry] = {}
        self._requests: dict[tuple[str, str, int, str], Entry] = {}
        self._counters: dict[tuple[str, tuple[str, ...]], float] = {}
        self._results: dict[str, str] = {}

    def answered(self, trace: Trace, status: int) -> None:
        """Count a request that was not answered by the front."""
        duration = perf_counter_ns() - trace.began
        key = (trace.protocol, trace.family, status, trace.where)
        with self._lock:
            entry = self._requests.setdefault(key, [0] * _PLACES)
            entry[0] += duration
            entry[duration.bit_length()] += 1

    def entry_of_front(self, protocol: str, family: str, status: int) -> Entry:
        """Return the entry of a kind of requests that the front answers.

        Its caller counts there, by operators alone: Python's lock is enough for them.
        """
        return self._front.setdefault((protocol, family, status, FRONT), [0] * _PLACES)

    def number_of_front(self) -> int:
        """Return how many requests the front has answered from memory."""
        return sum(sum(entry[1:]) for entry in list(self._front.values()))

    def add(self, name: str, *labels: str, number: float = 1) -> None:
        """Add to a counter of METRICS."""
        key = (name, labels)
        with self._lock:
            self._counters[key] = self._counters.get(key, 0) + number

    def look_up(self, directory: str, find: Callable[[], _Found | None]) -> _Found | None:
        """Return what a look-up in a directory finds; count it, and the seconds that it takes."""
        mark(DIRECTORY)
        began, result = perf_counter(), "failed"
        try:
            found = find()
            result = "unknown" if found is None else "found"
            return found
        finally:
            self.add("automx_directory_lookups_total", directory, result)
            seconds = perf_counter() - began
            self.add("automx_directory_seconds_total", directory, number=seconds)

    @contextmanager
    def call(self, backend: str, name: str) -> Iterator[None]:
        """Count a call of a backend, and the seconds that it takes."""
        began = perf_counter()
        result = "ok"
        try:
            yield
        except Exception as error:
            result = "refused" if getattr(error, "status", 500) < 500 else "failed"
            raise
        finally:
            self._results[backend] = result
            self.add("automx_backend_calls_total", backend, name, result)
            seconds = perf_counter() - began
            self.add("automx_backend_seconds_total", backend, name, number=seconds)

    def last_results(self) -> dict[str, str]:
        """Return the result of the last call of each backend that was called."""
        return dict(self._results)

    def document(self) -> dict[str, Any]:
        """Return all counts and the samples of the moment, as JSON has them."""
        with self._lock:
            # list() of a dictionary is one step for other threads.
            entries = list(self._front.items()) + list(self._requests.items())
            requests = [[*key, [*entry]] for key, entry in entries]
            counters = [(*key, value) for key, value in self._counters.items()]
        samples = [sample for read in self.gauges for sample in read()]
        counters += [sample for sample in samples if METRICS[sample[0]].kind == "counter"]
        gauges = [sample for sample in samples if METRICS[sample[0]].kind == "gauge"]
        return {"requests": requests, "counters": counters, "gauges": gauges}
