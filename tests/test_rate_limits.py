"""How often accounts may be asked for: by client, by token, in memory and in a real Redis."""

import contextlib
import http.client
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from limits import parse_many
from werkzeug.test import TestResponse

from automx.accounts import tokens
from automx.config import make
from automx.database import open_session
from automx.errors import SettingsError, TooManyRequestsError
from automx.views import limits, sharedwindows
from automx.views.limits import Limits, Windows
from automx.views.sharedwindows import SharedWindows
from tests.directory import dripping_socket
from tests.documents import golden
from tests.processes import AUTOMX, free_port, serving, wait_until
from tests.redisserver import redis_cli, running_redis
from tests.tokenpages import steady

REASON = "Too many accounts were asked for. Please wait a while and try again."

Make = Callable[..., Flask]


@pytest.fixture
def some_tokens(database: Path, example: None) -> None:
    """Add the tokens "one" and "two", which make any number of accounts."""
    with open_session(f"sqlite:///{database}") as session:
        for name in ("one", "two"):
            now = datetime.now(UTC)
            tokens.add(session, name, "example.com", now=now, token=name, maxuse=0)


pytestmark = pytest.mark.usefixtures("some_tokens")


def client_of(make_app: Make, limit: str, **settings: object) -> FlaskClient:
    """Return a client of an application with this limit."""
    endpoint = "https://mail.example.com/x/y"
    app = make_app(account_rate_limit=limit, web_endpoint=endpoint, **settings)
    return app.test_client()


def post(client: FlaskClient, address: str = "192.0.2.1", token: str = "one") -> TestResponse:
    """Ask for an account from an address."""
    return client.post(f"/?t={token}", environ_base={"REMOTE_ADDR": address})


def number_of_accounts(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        found: tuple[int] = connection.execute("SELECT count(*) FROM account").fetchone()
        return found[0]


def assert_refused(answer: TestResponse, seconds: int = 60) -> None:
    """Check that an answer tells the app to wait for at most so long."""
    assert answer.text == (
        f'{{\n  "type": "error",\n  "status_code": 429,\n  "reason": "{REASON}"\n}}\n'
    )
    assert answer.status_code == 429
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert 0 < int(answer.headers["Retry-After"]) <= seconds


# In memory.


def test_a_client_that_asks_too_often_has_to_wait(
    make_app: Make, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(make_app, "3 per minute")
    assert [post(client).status_code for _ in range(3)] == [200] * 3
    for _ in range(3):
        assert_refused(post(client))
    assert number_of_accounts(database) == 3
    assert caplog.text.count(f"POST / 429: {REASON}") == 3


def test_a_page_that_is_opened_too_often_says_so(make_app: Make) -> None:
    client = client_of(make_app, "1 per hour")
    assert client.get("/?t=one").status_code == 200
    answer = client.get("/new_email?t=one")
    document = golden("token-error.html").replace("{headline}", "A little too fast")
    assert steady(answer.text) == document.replace("{reason}", REASON)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 3600
    assert answer.headers["Cache-Control"] == "no-store"


def test_all_paths_and_methods_of_a_client_count_together(make_app: Make) -> None:
    client = client_of(make_app, "5 per minute")
    assert client.post("/?t=one").status_code == 200
    assert client.post("/new_email?t=one").status_code == 200
    assert client.post("/x/y?t=one").status_code == 200
    assert client.get("/?t=one").status_code == 200
    assert client.head("/new_email?t=one").status_code == 200
    for path in ("/", "/new_email", "/new_email/", "/x/y"):
        assert_refused(client.post(f"{path}?t=one"))
        assert client.get(f"{path}?t=one").status_code == 429


def test_requests_that_fail_count_as_well_so_that_nobody_guesses_tokens(make_app: Make) -> None:
    client = client_of(make_app, "6 per minute")
    for query in ("?t=guess-1", "?t=guess-2", "", "?t=a&t=b"):
        assert client.post(f"/{query}").status_code in {400, 403}
    assert client.get("/?t=guess-3").status_code == 403
    assert client.post("/?t=x", data=b"x" * 70_000).status_code == 413
    assert_refused(client.post("/?t=one"))
    assert_refused(client.post("/"))


def test_each_client_has_a_limit_of_its_own(make_app: Make) -> None:
    client = client_of(make_app, "1 per minute")
    assert post(client, "192.0.2.1").status_code == 200
    assert post(client, "192.0.2.2", "two").status_code == 200
    assert_refused(post(client, "192.0.2.1", "two"))
    assert_refused(post(client, "192.0.2.2", "two"))


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("192.0.2.1:5678", "192.0.2.1:5679", True),  # from the X-Forwarded-For of some proxies
        ("192.0.2.1:5678", "192.0.2.2:5678", False),
        ("[2001:db8:1:2::1]:5678", "2001:db8:1:2::2", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("", "", True),
        ("unix", "unix", True),
    ],
)
def test_an_ipv6_client_is_a_network_of_64_bits(
    make_app: Make, first: str, second: str, is_one: bool
) -> None:
    client = client_of(make_app, "1 per minute")
    assert post(client, first, "one").status_code == 200
    assert post(client, second, "two").status_code == (429 if is_one else 200)


def test_all_clients_of_a_token_count_together(make_app: Make, database: Path) -> None:
    client = client_of(make_app, "3 per minute")
    assert [post(client, f"192.0.2.{n}").status_code for n in range(3)] == [200] * 3
    assert_refused(post(client, "192.0.2.9"))
    assert post(client, "192.0.2.9", "two").status_code == 200
    assert number_of_accounts(database) == 4


def test_pages_do_not_count_for_the_token(make_app: Make) -> None:
    client = client_of(make_app, "1 per minute")
    for n in range(3):
        answer = client.get("/?t=one", environ_base={"REMOTE_ADDR": f"192.0.2.{n}"})
        assert answer.status_code == 200
    assert post(client, "192.0.2.9").status_code == 200


def test_a_refused_client_does_not_use_up_the_limit_of_a_token(make_app: Make) -> None:
    client = client_of(make_app, "2 per minute")
    assert post(client, "192.0.2.1", "two").status_code == 200
    assert post(client, "192.0.2.1", "two").status_code == 200
    for _ in range(5):
        assert_refused(post(client, "192.0.2.1", "one"))
    assert post(client, "192.0.2.2", "one").status_code == 200


def test_of_several_limits_each_one_holds(make_app: Make, database: Path) -> None:
    client = client_of(make_app, "1 per second; 3 per hour")
    for number in range(1, 4):
        wait_until(lambda: post(client).status_code == 200, "the end of a second")
        assert number_of_accounts(database) == number
    wait_until(lambda: int(post(client).headers["Retry-After"]) > 1, "the limit of an hour")
    assert_refused(post(client), 3600)
    assert number_of_accounts(database) == 3


def test_requests_beyond_a_limit_do_not_touch_the_database(make_app: Make, database: Path) -> None:
    client = client_of(make_app, "1 per minute")
    assert post(client, "192.0.2.1").status_code == 200
    database.unlink()
    assert_refused(post(client, "192.0.2.1", "two"))
    assert_refused(post(client, "192.0.2.2", "one"))
    assert client.get("/?t=one", environ_base={"REMOTE_ADDR": "192.0.2.1"}).status_code == 429
    assert post(client, "192.0.2.3", "two").status_code == 503


def test_other_protocols_have_no_limit(make_app: Make) -> None:
    client = client_of(make_app, "1 per minute")
    assert post(client).status_code == 200
    assert_refused(post(client))
    for _ in range(3):
        for path in (
            "/",
            "/mail/config-v1.1.xml?emailaddress=a@example.com",
            "/healthz",
            "/?style=x",
        ):
            answer = client.get(path, environ_base={"REMOTE_ADDR": "192.0.2.1"})
            assert answer.status_code == 200


def test_the_address_behind_a_proxy_is_the_clients(make_app: Make) -> None:
    client = client_of(make_app, "1 per minute", proxy_count=1)

    def ask(forwarded_for: str) -> int:
        headers = {"X-Forwarded-For": forwarded_for}
        return client.post("/?t=two", headers=headers).status_code

    assert client.post("/?t=one", headers={"X-Forwarded-For": "192.0.2.1"}).status_code == 200
    assert ask("192.0.2.2") == 200
    assert ask("192.0.2.1") == 429
    assert ask("203.0.113.1, 192.0.2.1") == 429


def test_without_a_proxy_nobody_can_claim_another_address(make_app: Make) -> None:
    client = client_of(make_app, "1 per minute")
    for number, status in ((1, 200), (2, 429), (3, 429)):
        headers = {"X-Forwarded-For": f"192.0.2.{number}", "Forwarded": f"for=192.0.2.{number}"}
        assert client.post("/?t=one", headers=headers).status_code == status


def test_without_a_limit_there_is_none(make_app: Make) -> None:
    client = client_of(make_app, "")
    assert [post(client).status_code for _ in range(50)] == [200] * 50


def test_a_window_begins_with_a_request_and_counts_all_of_them() -> None:
    """As in Redis: requests that are refused do not prolong it."""
    clock = [1000.0]
    windows = Windows(2, 60, most=10, now=lambda: clock[0])
    waits = []
    for moment in (0, 1, 2, 30, 59.5, 60, 61, 119, 120.5):
        clock[0] = 1000 + moment
        waits.append(windows.hit("192.0.2.1"))
    assert waits == [0, 0, 58, 30, 0.5, 0, 0, 1, 0]
    assert windows.hit("192.0.2.2") == 0


def test_nothing_is_allowed_by_a_limit_of_0() -> None:
    assert Windows(0, 60, most=10, now=lambda: 5.0).hit("192.0.2.1") == 60


@pytest.mark.parametrize("jump", [-86400, 86400])
def test_a_clock_that_is_set_changes_no_limit(
    make_app: Make, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    client = client_of(make_app, "1 per minute")
    assert post(client).status_code == 200
    before = time.time
    monkeypatch.setattr(time, "time", lambda: before() + jump)
    assert_refused(post(client))
    assert_refused(post(client))


def test_the_addresses_that_were_seen_first_are_forgotten_first() -> None:
    windows = Windows(1, 60, most=3, now=lambda: 5.0)
    assert [windows.hit(key) for key in ("a", "b", "c", "a", "d", "b", "a")] == [
        *(0, 0, 0, 60, 0),
        60,
        0,  # "d" took the place of "a"
    ]


def test_a_flood_of_addresses_takes_little_memory_and_leaves_tokens_alone() -> None:
    """So many windows as a worker keeps take less than 50 MB; more take no more."""
    limit = Limits(make(db_uri="sqlite://", account_rate_limit="1 per minute; 9 per day").limits)
    limit._count("token", "token")
    limit._count("first", "client")
    most = limits._WINDOWS // 4
    tracemalloc.start()
    try:
        for number in range(most + 10):
            limit._count(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "client")
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert {len(windows._windows) for windows in limit._windows.values()} == {1, most}
    assert taken * 2 < 50_000_000  # windows of clients, and as many of tokens
    with pytest.raises(TooManyRequestsError):
        limit._count("token", "token")
    limit._count("first", "client")


USED_MODULES = """
import json, sys
from automx.server import app
client = app.test_client()
loaded = []
for path in json.loads(sys.argv[1]):
    client.post(path) if "t=" in path else client.get(path)
    loaded.append("limits" in sys.modules or "redis" in sys.modules)
print(json.dumps(loaded))
"""


@pytest.mark.parametrize(("limit", "is_loaded"), [("1 per minute", True), ("", False)])
def test_what_counts_is_loaded_when_something_is_counted(
    database: Path, limit: str, is_loaded: bool
) -> None:
    env = {"AUTOMX_DB_URI": f"sqlite:///{database}", "AUTOMX_ACCOUNT_RATE_LIMIT": limit}
    paths = ["/", "/healthz", "/mail/config-v1.1.xml?emailaddress=a@example.com", "/?t=one"]
    result = subprocess.run(
        [sys.executable, "-c", USED_MODULES, json.dumps(paths)],
        env={**os.environ, "AUTOMX_CONF": "/dev/null", **env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(result.stdout) == [False, False, False, is_loaded]


# Over real HTTP.


def status_of(port: int, token: str = "one", address: str = "127.0.0.1") -> int:
    """Ask a server for an account from a loopback address; return the status of the answer."""
    source = (address, 0)
    connection = http.client.HTTPConnection("127.0.0.1", port, 30, source_address=source)
    with contextlib.closing(connection):
        connection.request("POST", f"/?t={token}")
        answer = connection.getresponse()
        text = answer.read()
        assert ("reason" in json.loads(text)) == (answer.status != 200)
        return answer.status


def statuses(ports: Sequence[int], number: int) -> Counter[int]:
    """Ask so many times at the same time, of several servers in turn."""
    with ThreadPoolExecutor(16) as threads:
        return Counter(threads.map(lambda n: status_of(ports[n % len(ports)]), range(number)))


def environment(database: Path, **settings: str) -> dict[str, str]:
    return {"AUTOMX_DB_URI": f"sqlite:///{database}", **settings}


def test_the_limit_holds_for_the_threads_of_a_worker(database: Path, tmp_path: Path) -> None:
    env = environment(database, AUTOMX_ACCOUNT_RATE_LIMIT="10 per hour")
    with serving(env, tmp_path / "log", "--workers", "1") as server:
        found = statuses([server.port], 100)
        assert found == {200: number_of_accounts(database), 429: 90}
        assert "Traceback" not in server.output


def test_a_redis_is_shared_by_workers_and_servers_and_does_not_learn_tokens(
    database: Path, tmp_path: Path
) -> None:
    port = free_port()
    env = environment(
        database,
        AUTOMX_ACCOUNT_RATE_LIMIT="25 per hour; 100 per day",
        AUTOMX_RATE_LIMIT_STORAGE=f"redis://127.0.0.1:{port}/1",
    )
    (tmp_path / "redis").mkdir()
    with (
        running_redis(tmp_path / "redis", port),
        serving(env, tmp_path / "first.log", "--workers", "2") as first,
        serving(env, tmp_path / "second.log", "--workers", "1") as second,
    ):
        assert statuses([first.port, second.port], 100) == {200: 25, 429: 75}
        assert number_of_accounts(database) == 25
        keys = redis_cli(port, "-n", "1", "keys", "*")
    token = blake2b(b"one", digest_size=16, person=b"automx limit").hexdigest()
    assert sorted(keys) == [
        "LIMITS:LIMITER/automx/127.0.0.1/client/100/1/day",
        "LIMITS:LIMITER/automx/127.0.0.1/client/25/1/hour",
        f"LIMITS:LIMITER/automx/{token}/token/100/1/day",
        f"LIMITS:LIMITER/automx/{token}/token/25/1/hour",
    ]


RECOVERY = "the recovery of Redis"


def test_while_redis_is_down_each_worker_counts_for_itself(database: Path, tmp_path: Path) -> None:
    port = free_port()
    env = environment(
        database,
        AUTOMX_ACCOUNT_RATE_LIMIT="10 per hour",
        AUTOMX_RATE_LIMIT_STORAGE=f"redis://:a-password@127.0.0.1:{port}",
    )
    warning = "WARNING automx.views.sharedwindows: 127.0.0.2 Rate limit storage unreachable"
    with serving(env, tmp_path / "log", "--workers", "1") as server:
        with running_redis(tmp_path, port) as redis:
            redis_cli(port, "config", "set", "requirepass", "a-password")
            assert [status_of(server.port) for _ in range(6)] == [200] * 6
            with ThreadPoolExecutor(8) as threads:
                asked = [
                    threads.submit(status_of, server.port, "two", "127.0.0.2") for _ in range(40)
                ]
                redis.stop(signal.SIGKILL)
                found = Counter(future.result() for future in asked)
        assert set(found) <= {200, 429}
        assert found[200] <= 20
        assert server.output.count(warning) == 1
        # The worker begins anew.
        assert [status_of(server.port) for _ in range(12)] == [200] * 10 + [429] * 2
        key = "LIMITS:LIMITER/automx/127.0.0.1/client/10/1/hour"
        with running_redis(tmp_path, port):
            wait_until(
                lambda: bool(status_of(server.port)) and redis_cli(port, "exists", key) == ["1"],
                RECOVERY,
            )
        assert "Traceback" not in server.output
        assert "a-password" not in server.output


LIMIT = tuple(parse_many("9 per hour; 1 per day"))


def hits(shared: SharedWindows, number: int) -> list[float | None]:
    """Count so many requests at the same time."""
    with ThreadPoolExecutor(number) as threads:
        return list(
            threads.map(lambda n: shared.hit(LIMIT, f"192.0.2.{n}", "client"), range(number))
        )


OCTETS = {"silent": b"", "dripping": b"+" + b"x" * 1000, "no Redis": b":1\r\n" * 1000}


@pytest.mark.parametrize("octets", OCTETS.values(), ids=OCTETS)
def test_half_of_the_threads_at_most_wait_for_a_redis_and_no_other_does(
    octets: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with dripping_socket(octets) as port:
        shared = SharedWindows(f"redis://127.0.0.1:{port}")
        began = time.monotonic()
        assert hits(shared, 32) == [None] * 32
        assert time.monotonic() - began < 10
        asked = len(shared._threads._threads)
        assert asked <= sharedwindows.PLACES
        assert hits(shared, 32) == [None] * 32
        assert len(shared._threads._threads) == asked
        shared.close()
    assert caplog.text.count("Rate limit storage unreachable") == 1


def test_a_redis_that_answers_and_does_not_count_is_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose disk is full, or which waits for its replicas."""
    monkeypatch.setattr(sharedwindows, "PAUSE_SECONDS", 0.02)
    port = free_port()
    with running_redis(tmp_path, port):
        shared = SharedWindows(f"redis://127.0.0.1:{port}")
        assert shared.hit(LIMIT, "192.0.2.1", "client") == 0
        redis_cli(port, "config", "set", "min-replicas-to-write", "1")
        assert shared.hit(LIMIT, "192.0.2.1", "client") is None
        wait_until(lambda: errors_of(port) > 5, "some probes")
        assert shared.hit(LIMIT, "192.0.2.1", "client") is None
        redis_cli(port, "config", "set", "min-replicas-to-write", "0")
        wait_until(lambda: shared.hit(LIMIT, "192.0.2.1", "client") is not None, RECOVERY)
        seconds = shared.hit(LIMIT, "192.0.2.1", "client")
        assert seconds is not None
        assert 86_000 < seconds <= 86_400
        shared.close()
    # Each once, however often it was looked.
    away, back = [record.message for record in caplog.records]
    assert away.startswith("Rate limit storage unreachable, this worker counts alone: NOREPLICAS ")
    assert back == "Rate limit storage answers again"


def errors_of(port: int) -> int:
    """Return how often a Redis has refused to count, because it has no replicas."""
    found = re.search(r"errorstat_NOREPLICAS:count=(\d+)", " ".join(redis_cli(port, "info", "all")))
    return int(found[1]) if found else 0


@pytest.mark.parametrize(
    "uri", ["redis://127.0.0.1:port", "redis://127.0.0.1:99999", "redis://[::1"]
)
def test_a_storage_that_cannot_be_one_stops_the_program(make_app: Make, uri: str) -> None:
    with pytest.raises(SettingsError, match="rate_limit_storage is not a URI of Redis"):
        client_of(make_app, "1 per minute", rate_limit_storage=uri)


def test_a_missing_driver_of_redis_stops_the_program(
    make_app: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    text = r"rate_limit_storage needs the Python module redis: pip install 'automx\[redis\]'"
    with pytest.raises(SettingsError, match=text):
        client_of(make_app, "1 per minute", rate_limit_storage="redis://127.0.0.1")
    client_of(make_app, "", rate_limit_storage="redis://127.0.0.1")


def test_the_web_server_names_a_storage_that_cannot_be_used(database: Path) -> None:
    env = environment(database, AUTOMX_RATE_LIMIT_STORAGE="redis://127.0.0.1:port")
    result = subprocess.run(
        [AUTOMX, "serve", "--port", str(free_port())],
        env={**os.environ, "AUTOMX_CONF": "/dev/null", **env},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert "automx: rate_limit_storage is not a URI of Redis" in result.stderr
    assert "Traceback" not in result.stderr
