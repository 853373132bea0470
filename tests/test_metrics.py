"""Metrics of ``automx serve``: of all its workers, for Prometheus alone."""

import contextlib
import json
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener
from pathlib import Path
from threading import Thread

import click
import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from automx.cli import metrics
from automx.cli.metrics import Collected
from automx.config import SourceSettings, load
from automx.config.monitoring import MetricsSettings
from automx.counts import METRICS, Counts
from automx.errors import DatabaseError, SettingsError, TryAgainError, UnavailableError
from automx.families import FAMILIES
from automx.statistics import Statistics
from automx.sync.state import Record
from automx.trace import WHERE, Trace
from automx.views.log import PROTOCOLS
from docs import reference
from tests.alerts import expressions, metrics_of
from tests.conftest import Execute
from tests.processes import Server, free_port, serving, wait_until, workers_of

MakeApp = Callable[..., Flask]
DOCUMENT = "/mail/config-v1.1.xml?emailaddress=alice@example.com"
TOKEN = "Bearer let-me-see"


def samples(text: str) -> dict[tuple[str, str], float]:
    """Return the samples of an exposition by name and labels, as ``a=b,c=d``."""
    return {
        (sample.name, ",".join(f"{key}={sample.labels[key]}" for key in sorted(sample.labels))): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(port: int, authorization: str = "", path: str = "/metrics") -> str:
    headers = {"Authorization": authorization} if authorization else {}
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with urllib.request.urlopen(asked, timeout=30) as answer:
        text: str = answer.read().decode()
        return text


def status_of(port: int, authorization: str = "", path: str = "/metrics") -> int:
    try:
        scraped(port, authorization, path)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


# The whole service


ROWS = """
INSERT INTO token (id, name, token, token_digest, domain, prefix, expiry, maxuse, usecount,
  is_revoked, backend, spare_active, created_at)
  VALUES (1, 'fair', 's', 'd1', 'example.com', '', '1d', 50, 8, 0, '', 0, '2026-11-01 00:00:00'),
  (2, 'old', 't', 'd2', 'example.com', '', '1d', 50, 8, 1, '', 0, '2026-11-01 00:00:00'),
  (3, 'free', 'u', 'd3', 'example.com', '', '1d', 0, 8, 0, '', 0, '2026-11-01 00:00:00');
INSERT INTO account (id, address, token_id, mark, backend, state, created_at, expires_at,
  changed_at)
  VALUES (1, 'a@example.com', 1, 'm', 'none', 'active', '2026-11-01 00:00:00',
    '2026-11-02 00:00:00', '2026-11-01 00:00:00'),
  (2, 'b@example.com', 1, 'm', 'none', 'disabled', '2026-11-01 00:00:00', NULL,
    '2026-11-01 00:00:00');
INSERT INTO lease VALUES ('prune', 'failed', '2026-11-29 00:00:00');
INSERT INTO source_sync VALUES ('mail', 3, '2026-11-30 00:00:00', '2026-11-29 12:00:00', 'empty', 'no domain',
    0, 0, 0, 0, 2),
  ('gone', 3, '2026-11-30 00:00:00', NULL, 'empty', 'no domain', 0, 0, 0, 0, 0);
"""  # noqa: E501 - rows are easier to compare when each stands on one line


@pytest.fixture
def metrics_port() -> int:
    return free_port()


@pytest.fixture
def server(
    database: Path, example: None, execute: Execute, tmp_path: Path, metrics_port: int
) -> Iterator[Server]:
    execute(ROWS)
    variables = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": f"sqlite:///{database}"}
    variables |= {
        "AUTOMX_METRICS_LISTEN": f"127.0.0.1:{metrics_port}",
        "AUTOMX_METRICS_TOKEN": "let-me-see",
        "AUTOMX_LOG_FORMAT": "json",
        "AUTOMX_LOGLEVEL": "INFO",
    }
    with serving(variables, tmp_path / "serve.log", "--workers", "2") as started:
        yield started


def test_metrics_are_those_of_all_workers_and_stay_when_one_is_killed(
    server: Server, metrics_port: int
) -> None:
    def now() -> Mapping[tuple[str, str], float]:
        return samples(scraped(metrics_port, TOKEN))

    def answered() -> float:
        found = now()
        return sum(
            value
            for (name, labels), value in found.items()
            if name == "automx_requests_total" and "protocol=autoconfig" in labels
        )

    def get(number: int) -> None:
        headers = {"User-Agent": "Thunderbird/140.0"}
        for _ in range(number):
            asked = urllib.request.Request(f"{server.url}{DOCUMENT}", headers=headers)
            urllib.request.urlopen(asked, timeout=30).close()

    get(30)
    wait_until(lambda: answered() == 30, "counting all requests")
    wait_until(lambda: now()["automx_workers", ""] == 2, "hearing of both workers")
    wait_until(lambda: ("automx_domains", "") in now(), "reading the database")
    named = {name for each in expressions() for name in metrics_of(each)}
    assert (
        named - {*re.findall(r"^# TYPE (\w+) ", scraped(metrics_port, TOKEN), re.MULTILINE)}
        == set()
    )
    found = now()
    labels = "family=thunderbird,protocol=autoconfig,status=200,where="
    places = {key[1].removeprefix(labels) for key in found if key[1].startswith(labels)}
    assert places == {"front", "database"}
    seconds = [
        value
        for (name, labels), value in found.items()
        if name == "automx_request_seconds_bucket"
        and "le=+Inf" in labels
        and "autoconfig" in labels
    ]
    assert sum(seconds) == 30
    assert found["automx_domains", ""] == 1
    assert found["automx_accounts", "state=active"] == found["automx_accounts_overdue", ""] == 1
    assert found["automx_accounts", "state=disabled"] == 1
    assert {key[1]: found[key] for key in found if key[0] == "automx_token_uses_left"} == {
        "token=fair": 42
    }
    assert found["automx_worker_memory_bytes", ""] > 2 * 20_000_000

    os.kill(workers_of(server.process)[0], signal.SIGKILL)
    wait_until(lambda: now().get(("automx_workers_ended_total", "")) == 1, "noticing the end")
    wait_until(lambda: now()["automx_workers", ""] == 2, "hearing of a new worker")
    assert answered() == 30
    get(5)
    wait_until(lambda: answered() == 35, "counting on")

    strangers_make_few_series(server, now)
    strangers_learn_nothing(server, metrics_port)
    assert server.stop() == 0
    lines = [line for line in server.output.splitlines() if not line.startswith("automx answers")]
    fields = [json.loads(line) for line in lines]
    assert [each["level"] for each in fields if each["logger"] == "granian"] == ["ERROR"]
    assert sum(each.get("domain") == "example.com" for each in fields) >= 35
    assert "alice" not in server.output


def strangers_make_few_series(
    server: Server, now: Callable[[], Mapping[tuple[str, str], float]]
) -> None:
    def requests() -> dict[str, float]:
        return {
            key[1]: number for key, number in now().items() if key[0].endswith("requests_total")
        }

    before = requests()
    for raw in HOSTILE:
        send(server.port, raw)
    expected = sum(before.values()) + len(HOSTILE) - 2  # granian refuses what is no HTTP
    wait_until(lambda: sum(requests().values()) >= expected, "counting strangers")
    assert len(requests().keys() - before.keys()) < 6
    for series in requests():
        each = dict(part.split("=") for part in series.split(","))
        assert each["protocol"] in PROTOCOLS
        assert each["family"] in FAMILIES
        assert each["where"] in WHERE
        assert re.fullmatch("[2-5][0-9][0-9]", each["status"])


def strangers_learn_nothing(server: Server, metrics_port: int) -> None:
    wrong = ("", "Bearer wrong", "Basic let-me-see", "let-me-see", "Bearer \u00e4")
    assert [status_of(metrics_port, each) for each in wrong] == [401] * len(wrong)
    assert status_of(metrics_port, TOKEN, "/") == 404
    assert status_of(server.port, TOKEN) == 404  # only at its own port
    with contextlib.ExitStack() as silent:
        for _ in range(30):
            silent.enter_context(socket.create_connection(("127.0.0.1", metrics_port), 10))
        wait_until(lambda: answers(metrics_port), "hanging up on silent clients")


# Requests of strangers: each with a method, a path and a User-Agent of its own, and odd bytes.
HOSTILE = [
    b"M%d /%d%s HTTP/1.1\r\nHost: %d.example\r\nUser-Agent: %d\r\nConnection: close\r\n\r\n"
    % (number, number, b"x" * number, number, number)
    for number in range(60)
] + [
    b'GET /"}\xff%00%0a%e2%80%a8%ed%a0%80 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n',
    b'GET / HTTP/1.1\r\nHost: "},{"\r\nUser-Agent: \xff\xf0\x9f\r\nConnection: close\r\n\r\n',
    b"GET /alice@example.com HTTP/1.1\r\nHost: alice@x.example\r\nConnection: close\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01",
]


def send(port: int, raw: bytes) -> None:
    """Send bytes, and wait for what comes back, if anything does."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(raw)
        with contextlib.suppress(OSError):
            while connection.recv(65536):
                pass


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        return status_of(port, TOKEN) == 200
    return False


def test_the_port_of_another_server_is_not_shared(metrics_port: int) -> None:
    settings = MetricsSettings(listen=f"127.0.0.1:{metrics_port}", token="")
    message = f"cannot listen on 127.0.0.1:{metrics_port}: Address already in use"
    collector = metrics.new_collector()
    with (
        socket.create_server(("127.0.0.1", metrics_port), reuse_port=True),
        pytest.raises(click.ClickException, match=message),
    ):
        metrics.serve(settings, collector, lambda _: pytest.fail("it reads"), lambda: None)


# Sums


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[tuple[Collected, Listener]]:
    """What adds up counts, and where it listens."""
    with Listener(str(tmp_path / "socket"), "AF_UNIX", authkey=b"key") as listener:
        collected = Collected()
        Thread(target=collected.receive, args=(listener,), daemon=True).start()
        yield collected, listener


def values_of(collected: Collected) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in collected.collect()
        for sample in family.samples
    }


def test_the_histogram_has_the_seconds_of_all_workers(
    collector: tuple[Collected, Listener],
) -> None:
    collected, listener = collector
    counts = Counts()
    for nanoseconds in (10_000, 2**16 - 1, 2**16, 10**9, 10**11):
        entry = counts.entry_of_front("pacc", "apple", 200)
        entry[0] += nanoseconds
        entry[nanoseconds.bit_length()] += 1
    with contextlib.ExitStack() as workers:
        for _ in range(2):
            worker = workers.enter_context(Client(listener.address, authkey=b"key"))
            worker.send_bytes(json.dumps(counts.document()).encode())
    ended = ("automx_workers_ended_total", ())
    wait_until(lambda: values_of(collected)[ended] == 2, "the end of both")
    found = values_of(collected)
    buckets = {
        labels[2]: value
        for (name, labels), value in found.items()
        if name == "automx_request_seconds_bucket"
    }
    assert buckets["6.5536e-05"] == 4
    assert buckets["0.000131072"] == buckets["0.536870912"] == 6
    assert buckets["1.073741824"] == buckets["34.359738368"] == 8
    assert buckets["+Inf"] == found["automx_request_seconds_count", ("pacc", "front")] == 10
    seconds = found["automx_request_seconds_sum", ("pacc", "front")]
    assert seconds == pytest.approx(202.000282144)
    kind = ("pacc", "apple", "200", "front")
    assert found["automx_requests_total", kind] == 10


def test_gauges_go_with_their_worker_and_counters_stay(
    collector: tuple[Collected, Listener],
) -> None:
    collected, listener = collector
    told = []
    for number in (1.0, 2.0):
        counts = Counts()
        counts.add("automx_limited_total", "client", number=number)
        counts.gauges.append(
            lambda number=number: [  # type: ignore[misc] # mypy knows no default there
                ("automx_cache_domains", (), number),
                ("automx_cache_lookups_total", ("hit",), 10 * number),
                ("automx_changes_read_seconds", (), number),
            ]
        )
        told.append(json.dumps(counts.document()).encode())
    with Client(listener.address, authkey=b"key") as first:
        with Client(listener.address, authkey=b"key") as second:
            first.send_bytes(told[0])
            second.send_bytes(told[1])
            second.send_bytes(told[1])  # all counts once more, not more counts
            wait_until(lambda: values_of(collected)["automx_workers", ()] == 2, "both")
            both = values_of(collected)
        wait_until(lambda: values_of(collected)["automx_workers", ()] == 1, "one")
        one = values_of(collected)
    names = {
        ("automx_limited_total", ("client",)): (3, 3),
        ("automx_cache_lookups_total", ("hit",)): (30, 30),
        ("automx_cache_domains", ()): (3, 1),
        ("automx_changes_read_seconds", ()): (2, 1),
        ("automx_workers_ended_total", ()): (0, 1),
    }
    assert {name: (both[name], one[name]) for name in names} == names


def test_statistics_are_read_again_soon_after_they_could_not() -> None:
    collected = Collected()
    moment = datetime(2026, 11, 30, tzinfo=UTC)
    answers = [DatabaseError(), ValueError(), DatabaseError(), None, DatabaseError(), None]
    pauses = []

    def read(_: datetime) -> Statistics:
        if (error := answers.pop(0)) is not None:
            raise error
        return Statistics(moment, 1, {}, 0, {}, 7, moment)

    def wait(seconds: float) -> None:
        pauses.append(seconds)
        assert (collected.statistics is not None) == (len(pauses) > 3)
        if not answers:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collected.look(read, lambda: moment, wait)
    assert pauses == [1, 2, 4, 60, 1, 60]
    assert collected.certificate_end == moment.timestamp()


def test_a_stranger_cannot_tell_counts(collector: tuple[Collected, Listener]) -> None:
    collected, listener = collector
    with pytest.raises((AuthenticationError, EOFError, OSError)):
        Client(listener.address, authkey=b"wrong")
    with Client(listener.address, authkey=b"key") as worker:
        worker.send_bytes(b"no JSON")
    with Client(listener.address, authkey=b"key") as worker:
        worker.send_bytes(json.dumps(Counts().document()).encode())
        wait_until(lambda: values_of(collected)["automx_workers", ()] == 1, "the worker")


def test_every_metric_is_there_with_the_labels_that_the_page_names() -> None:
    collected = Collected()
    moment = datetime(2026, 11, 30, tzinfo=UTC)
    source = Record("mail", 1, moment, moment, "done")
    collected.statistics = Statistics(
        moment, 1, {"active": 1}, 0, {"fair": 1}, 7, moment, (source,), (moment, "done"), 3
    )
    found = {family.name: family for family in collected.collect()}
    expected = {name.removesuffix("_total"): metric for name, metric in METRICS.items()}
    assert {name: family.type for name, family in found.items()} == {
        name: metric.kind for name, metric in expected.items()
    }
    for name, family in found.items():
        for sample in family.samples:
            assert set(sample.labels) == set(expected[name].labels)


def test_the_page_lists_every_metric() -> None:
    text = reference.MONITORING.read_text()
    assert reference.monitoring(text) == text
    for name, metric in METRICS.items():
        assert f"| `{name}` | {metric.kind} | " in text


def test_a_call_of_a_backend_is_counted_by_its_result() -> None:
    counts = Counts()
    for error in (None, TryAgainError("x"), UnavailableError(), ValueError("a bug")):
        with contextlib.suppress(Exception), counts.call("mailcow", "create"):
            if error:
                raise error
    found = {tuple(labels): value for _, labels, value in counts.document()["counters"]}
    assert {key[-1]: found[key] for key in found if len(key) == 3} == {"ok": 1, "failed": 3}


def test_a_request_is_counted_in_a_microsecond_or_two() -> None:
    """Generous: it shows only that nothing heavy is in the way of a request."""
    counts = Counts()
    trace = Trace("192.0.2.1", "id")
    began = time.thread_time()
    for _ in range(10_000):
        counts.answered(trace, 200)
    assert (time.thread_time() - began) / 10_000 < 20e-6
    [entry] = counts.document()["requests"]
    assert entry[:4] == ["", "", 200, "memory"]
    assert sum(entry[4][1:]) == 10_000


# Settings


def test_metrics_for_other_machines_need_a_token() -> None:
    environ = {
        "AUTOMX_CONF": "/dev/null",
        "HOME": "/nowhere",
        "AUTOMX_METRICS_LISTEN": "[::1]:9324",
    }
    assert load(environ).metrics.address == ("::1", 9324)
    environ["AUTOMX_METRICS_LISTEN"] = "[::]:9324"
    with pytest.raises(SettingsError, match="metrics_token is missing: strangers may reach"):
        load(environ)
    environ["AUTOMX_METRICS_TOKEN"] = "secret"
    assert load(environ).metrics.address == ("::", 9324)


# Details of readiness


def details(app: Flask, authorization: str = TOKEN) -> tuple[int, str]:
    headers = {"Authorization": authorization}
    answer = app.test_client().get("/readyz?details", headers=headers)
    return answer.status_code, answer.text


def test_details_tell_what_is_known_of_each_neighbour(
    make_app: MakeApp, example: None, execute: Execute, database: Path
) -> None:
    execute(ROWS)
    execute(
        "INSERT INTO audit (id, at, actor, action, kind, name, details)"
        " VALUES (1, '2026-11-01 12:00:00', 'cli:root', 'add', 'domain', 'example.com', '{}');"
        "INSERT INTO change_count VALUES (1, 7)"
    )
    mail = SourceSettings(name="mail", type="file", file="/nowhere")
    app = make_app(metrics_token="let-me-see", sources=(mail,))
    status, text = details(app)
    document = json.loads(text)
    assert document.pop("change_age_seconds") > 0
    revision = document.pop("schema_expected")
    assert (status, document) == (
        200,
        {
            "ready": True,
            "database": "ok",
            "schema": revision,
            "change": 7,
            "changed_at": "2026-11-01T12:00:00Z",
            "accounts_overdue": 1,
            "sources": {
                "mail": {
                    "began_at": "2026-11-30T00:00:00Z",
                    "succeeded_at": "2026-11-29T12:00:00Z",
                    "outcome": "empty",
                    "found": 0,
                    "problems": 2,
                }
            },
            "prune": {"ended_at": "2026-11-29T00:00:00Z", "outcome": "failed"},
            "directories": {},
            "rate_limit_storage": "memory",
            "backends": {},
            "certificate_days_left": None,
        },
    )
    execute("UPDATE automx_version SET version_num = '0001'")
    status, text = details(app)
    document = json.loads(text)
    assert (status, document["ready"], document["schema"]) == (503, False, "0001")
    database.unlink()
    status, text = details(app)
    document = json.loads(text)
    assert (status, document["ready"], document["database"]) == (503, False, "away")


@pytest.mark.parametrize("token", ["", "let-me-see"])
@pytest.mark.parametrize("sent", ["", "Bearer", "Bearer ", "Bearer wrong", "Basic let-me-see"])
def test_strangers_get_no_details(make_app: MakeApp, token: str, sent: str) -> None:
    app = make_app(metrics_token=token)
    assert details(app, sent) == (403, "This is not allowed.\n")
    assert app.test_client().get("/readyz").text == "ready\n"
