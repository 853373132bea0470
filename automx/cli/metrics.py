"""Metrics of ``automx serve`` for Prometheus: the main process adds up the counts of its workers.

Each worker sends all its counts once a second; what a killed worker has counted since then is lost,
and nothing else: the counts of workers that have ended stay. No file is left behind, and workers
load no library for it.
"""

import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection, Listener
from multiprocessing.util import get_temp_dir
from operator import add
from typing import Any

import click
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder

from automx import __version__, edge
from automx.config.monitoring import MetricsSettings
from automx.counts import BITS, METRICS, Entry
from automx.statistics import Statistics
from automx.sync.state import Outcome

log = logging.getLogger(__name__)

STATISTICS_SECONDS = 60.0  # between two looks into the database
_RETRY_SECONDS = 1.0  # after a look that failed; twice as long each time
_CLIENT_SECONDS = 5.0  # that a client has for its request
_CLIENTS = 8  # at once
_WAITING_SECONDS = 0.1  # that another one waits: the thread of a client ends after its answer

Samples = dict[tuple[str, tuple[str, ...]], float]
Requests = dict[tuple[str, str, str, str], Entry]


class Collected:
    """The counts of all workers, of those that have ended as well. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: dict[int, dict[str, Any]] = {}  # by the number of the connection
        self._ended = 0
        self._counters: Samples = {}  # of workers that have ended
        self._requests: Requests = {}
        self.statistics: Statistics | None = None
        self.certificate_end: float | None = None

    def receive(self, listener: Listener) -> None:
        """Take the messages of all workers, in threads, as long as there is a listener."""
        number = 0
        while True:
            try:
                connection = listener.accept()
            except (OSError, EOFError, ValueError):  # a worker died as it connected
                time.sleep(0.05)
                continue
            except Exception:  # a stranger without the key
                log.warning("metrics: a worker was refused")
                continue
            number += 1
            arguments = (connection, number)
            threading.Thread(target=self._follow, args=arguments, daemon=True).start()

    def _follow(self, connection: Connection, number: int) -> None:
        with suppress(OSError, EOFError, ValueError):
            while True:
                told = json.loads(connection.recv_bytes())
                with self._lock:
                    self._told[number] = told
        with self._lock:
            if (told := self._told.pop(number, None)) is not None:
                self._ended += 1
                _add(told, self._counters, self._requests)

    def look(
        self,
        read: Callable[[datetime], Statistics],
        certificate_end: Callable[[], datetime | None],
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        """Read statistics and the certificate again and again."""
        pause = _RETRY_SECONDS
        while True:
            # An outage is logged by others; the time of the last statistics is a metric.
            with suppress(Exception):
                end = certificate_end()
                self.certificate_end = None if end is None else end.timestamp()
            try:
                self.statistics = read(datetime.now(UTC).replace(microsecond=0))
            except Exception:
                wait(pause)
                pause = min(2 * pause, STATISTICS_SECONDS)
            else:
                wait(STATISTICS_SECONDS)
                pause = _RETRY_SECONDS

    def collect(self) -> Iterable[Family]:
        """Return all metrics, as prometheus_client wants them."""
        samples, requests = self._sums()
        for (protocol, family, status, where), entry in requests.items():
            samples["automx_requests_total", (protocol, family, status, where)] = sum(entry[1:])
        self._add_statistics(samples)
        return [*_families(samples), _histogram(requests)]

    def _sums(self) -> tuple[Samples, Requests]:
        with self._lock:
            samples = dict(self._counters)
            requests = dict(self._requests)
            told = list(self._told.values())
            samples["automx_workers_ended_total", ()] = self._ended
        samples["automx_workers", ()] = len(told)
        for one in told:
            _add(one, samples, requests)
            for name, labels, value in one["gauges"]:
                key = name, tuple(labels)
                is_sum = METRICS[name].combine == "sum"
                old = samples.get(key, 0)
                samples[key] = old + value if is_sum else max(old, value)
        return samples, requests

    def _add_statistics(self, samples: Samples) -> None:
        python = ".".join(map(str, sys.version_info[:3]))
        samples["automx_build_info", (__version__, python)] = 1
        if self.certificate_end is not None:
            samples["automx_certificate_end_timestamp_seconds", ()] = self.certificate_end
        if (found := self.statistics) is None:
            return
        samples["automx_domains", ()] = found.domains
        samples["automx_accounts_overdue", ()] = found.overdue
        samples["automx_change_number", ()] = found.change
        if found.replica_lacks is not None:
            samples["automx_replica_changes_missing", ()] = found.replica_lacks
        samples["automx_statistics_timestamp_seconds", ()] = found.read_at.timestamp()
        if found.changed_at is not None:
            moment = found.changed_at.timestamp()
            samples["automx_last_change_timestamp_seconds", ()] = moment
        if found.pruned is not None:
            samples["automx_prune_timestamp_seconds", ()] = found.pruned[0].timestamp()
            samples["automx_prune_failed", ()] = found.pruned[1] == "failed"
        for source in found.sources:
            label = (source.name,)
            samples["automx_source_read_timestamp_seconds", label] = source.began_at.timestamp()
            if source.succeeded_at is not None:
                moment = source.succeeded_at.timestamp()
                samples["automx_source_success_timestamp_seconds", label] = moment
            samples["automx_source_domains", label] = source.found
            samples["automx_source_problems", label] = source.problems
            samples["automx_source_failed", label] = source.outcome != Outcome.DONE
        for state, number in found.accounts.items():
            samples["automx_accounts", (state,)] = number
        for token, left in found.uses_left.items():
            samples["automx_token_uses_left", (token,)] = left


def _add(told: dict[str, Any], counters: Samples, requests: Requests) -> None:
    for name, labels, value in told["counters"]:
        key = name, tuple(labels)
        counters[key] = counters.get(key, 0) + value
    for protocol, family, status, where, entry in told["requests"]:
        kind = protocol, family, str(status), where
        requests[kind] = [*map(add, kept, entry)] if (kept := requests.get(kind)) else entry


def _families(samples: Samples) -> Iterable[Family]:
    for name, metric in METRICS.items():
        if metric.kind == "histogram":
            continue
        kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        made = kind(name, metric.meaning.replace("`", ""), labels=metric.labels)
        for (sample, labels), value in samples.items():
            if sample == name:
                made.add_metric(labels, value)
        yield made


def _histogram(requests: Requests) -> Family:
    name = "automx_request_seconds"
    made = HistogramMetricFamily(name, METRICS[name].meaning, labels=METRICS[name].labels)
    sums: dict[tuple[str, str], Entry] = {}
    for (protocol, _, _, where), entry in requests.items():
        kept = sums.get((protocol, where))
        sums[protocol, where] = [*map(add, kept, entry)] if kept else entry
    for labels, entry in sums.items():
        buckets = [(str(2**bits / 1e9), sum(entry[1 : bits + 1])) for bits in BITS]
        buckets.append(("+Inf", sum(entry[1:])))
        made.add_metric(labels, buckets, sum_value=entry[0] / 1e9)
    return made


class _Server(ThreadingHTTPServer):
    """The web server of ``/metrics``."""

    daemon_threads = True
    request_queue_size = 64
    allow_reuse_port = False  # another server would get half of the requests

    def __init__(self, settings: MetricsSettings, collected: Collected) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(collected)
        self.token = settings.token
        self._places = threading.BoundedSemaphore(_CLIENTS)
        if ":" in settings.address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(settings.address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; hang up if too many clients are there, and none is about to go."""
        if self._places.acquire(timeout=_WAITING_SECONDS):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a client."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, *_: object) -> None:
        """Keep clients that hang up out of the log."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _CLIENT_SECONDS
    server: _Server
    server_version = "automx"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer /metrics; the token of the settings is wanted if there is one."""
        if self.path.partition("?")[0] != "/metrics":
            self._answer(404, "text/plain; charset=utf-8", b"There is nothing at this address.\n")
        elif not self._may_read():
            self._answer(401, "text/plain; charset=utf-8", b"The token is missing or wrong.\n")
        else:
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._answer(200, content_type, encode(self.server.registry))

    def _may_read(self) -> bool:
        authorization, expected = self.headers.get("Authorization", ""), self.server.token
        return not expected or edge.has_token(authorization, expected)

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log no request: Prometheus makes one every few seconds."""


def new_collector() -> tuple[str, bytes]:
    """Return address and key of what workers report() to, for serve()."""
    return f"{get_temp_dir()}/metrics", os.urandom(32)


def serve(
    settings: MetricsSettings,
    collector: tuple[str, bytes],
    read: Callable[[datetime], Statistics],
    certificate_end: Callable[[], datetime | None],
) -> None:
    """Serve metrics in threads, and collect what workers report() to a ``new_collector()``.

    ``read`` reads the statistics; it may raise anything, and then the old ones stay. Raises
    ClickException if the port is taken.
    """
    collected = Collected()
    try:
        server = _Server(settings, collected)
    except OSError as error:
        text = f"cannot listen on {settings.listen}: {error.strerror}"
        raise click.ClickException(text) from error
    address, key = collector
    listener = Listener(address, family="AF_UNIX", authkey=key, backlog=64)

    works = (
        server.serve_forever,
        lambda: collected.look(read, certificate_end),
        lambda: collected.receive(listener),
    )
    for work in works:
        threading.Thread(target=work, daemon=True, name="metrics").start()
