"""Look-ups in directories: a private slapd with 3,000 people, on the same machine."""

import contextlib
import http.client
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from bench.load import AUTOCONFIG, CONNECTIONS, Document, compare, load
from bench.measurements import Bench
from bench.report import Table, number
from bench.rows import databases, seed_document
from bench.servers import Server, automx2_and_automx, environment_of_both, serve
from tests.commandline import automx
from tests.directory import PEOPLE, Directories, Directory, insert_ldapserver
from tests.tls import Authority

# Beside automx2 under gunicorn: automx under gunicorn, and automx serve.
TIMES_AUTOMX2 = {"LDAP": (8.0, 12.0), "LDAPS": (30.0, 40.0)}
SHARE_WITH_WARM_CACHE = 0.8
SLOWER_WITH_A_DEAD_HOST = 1.1
SHARE_DURING_OUTAGE = 0.9
TIMEOUT = 3  # the default of ldap_timeout, in seconds
GRACE = 0.5  # seconds beside it in which every answer comes
WARM_PEOPLE = 1000

WITH_DIRECTORY, WITHOUT_DIRECTORY = "example.com", "example.net"
USE_DIRECTORY = f"UPDATE domain SET ldapserver_id = 3 WHERE name = '{WITH_DIRECTORY}';"
KNOWN = Document("known", f"/mail/config-v1.1.xml?emailaddress=person0001@{WITH_DIRECTORY}")


@contextlib.contextmanager
def _directories() -> Iterator[Directories]:
    with tempfile.TemporaryDirectory(prefix="automx-") as folder:
        yield Directories(Path(folder), Authority(Path(folder)))


@contextlib.contextmanager
def _serving(bench: Bench, directory: Directory, name: str = "", **env: object) -> Iterator[Server]:
    """Run ``automx serve`` for a domain with a directory and one without."""
    with databases("sqlite", bench.folder, 1) as [db_uri]:
        settings = {"AUTOMX_CONF": "/dev/null", "AUTOMX_DB_URI": db_uri}
        settings |= {f"AUTOMX_{key.upper()}": str(value) for key, value in env.items()}
        document = seed_document(WITH_DIRECTORY, WITHOUT_DIRECTORY)
        automx("seed", "-", env=settings, stdin=document)
        columns: dict[str, Any] = {"name": name} if name else {}
        with contextlib.closing(sqlite3.connect(db_uri.removeprefix("sqlite:///"))) as connection:
            connection.executescript(insert_ldapserver(directory, **columns) + USE_DIRECTORY)
        with serve(settings, bench.folder / "automx.log") as server:
            yield server


def ldap_speed(bench: Bench) -> Table:
    """Compare the look-ups per second with automx2's: same slapd, rows and load."""
    table = Table(
        "Look-ups in a directory beside automx2, any of 3,000 people, nothing remembered",
        (
            *("encryption", "automx with", "automx2, requests/s", "automx, requests/s"),
            *("ratio", "required"),
        ),
    )
    with _directories() as directories, directories.running() as directory:
        for encryption, required in TIMES_AUTOMX2.items():
            is_ldaps = encryption == "LDAPS"
            port = directory.tls_port if is_ldaps else directory.port
            sql = insert_ldapserver(directory, port=port, use_ssl=is_ldaps) + USE_DIRECTORY
            settings = {"AUTOMX_LDAP_CACHE_SECONDS": "0"}
            settings["AUTOMX_LDAP_CA_FILE"] = str(directories.authority.root)
            with (
                automx2_and_automx(bench.folder, settings, sql) as (automx2, ours),
                serve(environment_of_both(bench.folder, settings), bench.folder / "log") as served,
            ):
                servers = {"gunicorn": ours, "automx serve": served}
                for server in (automx2, *servers.values()):
                    _check_login_name(server)
                for (name, server), least in zip(servers.items(), required, strict=True):
                    first, second = (
                        partial(load, each.url, AUTOCONFIG, people=(PEOPLE, WITH_DIRECTORY))
                        for each in (automx2, server)
                    )
                    found = compare(first, second, seconds=bench.seconds, required=least)
                    found.add_to(table, encryption, name, form=".1f")
    return table


def _check_login_name(server: Server) -> None:
    body, _ = KNOWN.fetch(server.url)
    if b"<username>person0001</username>" not in body:
        raise RuntimeError(f"no login name from the directory: {body.decode()}")


def ldap_cache(bench: Bench) -> Table:
    """Compare people whom the workers remember with those of a domain without a directory."""
    table = Table(
        f"People of a directory who are remembered ({WARM_PEOPLE:,})",
        ("server", "without directory, requests/s", "with, requests/s", "share", "required"),
    )
    with (
        _directories() as directories,
        directories.running() as directory,
        _serving(bench, directory, ldap_cache_seconds=3600) as server,
    ):
        _check_login_name(server)
        load(server.url, AUTOCONFIG, 5, people=(WARM_PEOPLE, WITH_DIRECTORY))
        found = compare(
            partial(load, server.url, AUTOCONFIG, people=(WARM_PEOPLE, WITHOUT_DIRECTORY)),
            partial(load, server.url, AUTOCONFIG, people=(WARM_PEOPLE, WITH_DIRECTORY)),
            seconds=bench.seconds,
            required=SHARE_WITH_WARM_CACHE,
        )
    found.add_to(table, "automx serve", form=".0%")
    return table


def ldap_failover(bench: Bench) -> Table:
    """Compare the median time of an answer before and after the first of two hosts dies."""
    table = Table(
        "The first of two hosts dies, nothing remembered",
        ("measured", "both up", "first dead", "ratio", "at most"),
    )
    with (
        _directories() as directories,
        directories.running() as first,
        directories.running(host="127.0.0.2") as second,
    ):
        name = f"{first.host}:{first.port} {second.host}:{second.port}"
        ratios, before, after = [], [], []
        with _serving(bench, first, name, ldap_cache_seconds=0) as server:
            for _ in range(5):  # each time it dies and comes back, so that noise strikes both alike
                _wait_for(server, first)
                before.append(_median(server, bench.seconds))
                first.stop()
                for _ in range(50):  # each worker has to find out
                    KNOWN.fetch(server.url)
                after.append(_median(server, bench.seconds))
                ratios.append(after[-1] / before[-1])
                first.start()
    ratio = statistics.median(ratios)
    times = (f"{statistics.median(values) * 1000:.2f} ms" for values in (before, after))
    limit = SLOWER_WITH_A_DEAD_HOST
    table.add("median", *times, f"{ratio:.2f}", f"{limit:.2f}", ok=ratio <= limit)
    return table


def _wait_for(server: Server, directory: Directory) -> None:
    """Ask until all workers use a host again."""
    end = time.monotonic() + 15
    while time.monotonic() < end:
        searches = directory.searches
        for _ in range(40):
            KNOWN.fetch(server.url)
        if directory.searches - searches == 40:
            return
    raise RuntimeError("the first host is not used again")


def _median(server: Server, seconds: int) -> float:
    """Return the median time of an answer, one request after the other, in seconds."""
    times = _times(server, KNOWN, until=time.monotonic() + seconds)
    return statistics.median(took for _, took in times)


def _times(
    server: Server, document: Document, until: float, pause: float = 0
) -> list[tuple[int, float]]:
    """Return status and seconds of each answer until a time is reached."""
    found = []
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    while time.monotonic() < until:
        started = time.monotonic()
        connection.request("GET", document.path)
        answer = connection.getresponse()
        answer.read()
        found.append((answer.status, time.monotonic() - started))
        time.sleep(pause)
    connection.close()
    return found


def ldap_outage(bench: Bench) -> Table:
    """Measure answers while all hosts are silent, and what other domains notice of it."""
    table = Table(
        "All hosts of a directory are silent",
        ("measured", "directory up", "directory silent", "ratio", "required"),
    )
    with (
        _directories() as directories,
        directories.running() as first,
        directories.running(host="127.0.0.2") as second,
    ):
        name = f"{first.host}:{first.port} {second.host}:{second.port}"
        settings = {"ldap_cache_seconds": 0, "ldap_timeout": TIMEOUT}
        with _serving(bench, first, name, **settings) as server:
            up = _beside(server, bench.seconds * 10)
            with first.frozen(), second.frozen():
                silent = _beside(server, bench.seconds * 10)
    (rate_up, times_up), (rate_silent, times_silent) = up, silent
    statuses = {status for status, _ in times_up}, {status for status, _ in times_silent}
    if statuses != ({200}, {503}):
        raise RuntimeError(f"answers with the directory up and silent: {statuses}")
    ratio = rate_silent / rate_up
    table.add(
        "another domain, requests/s",
        number(rate_up),
        number(rate_silent),
        f"{ratio:.0%}",
        f"{SHARE_DURING_OUTAGE:.0%}",
        ok=ratio >= SHARE_DURING_OUTAGE,
    )
    longest = [max(took for _, took in times) for times in (times_up, times_silent)]
    table.add(
        "longest answer about a person",
        *(f"{seconds:.2f} s" for seconds in longest),
        "",
        f"{TIMEOUT + GRACE:.2f} s",
        ok=longest[1] <= TIMEOUT + GRACE,
    )
    return table


def _beside(server: Server, seconds: int) -> tuple[float, Sequence[tuple[int, float]]]:
    """Load another domain while people ask; return its rate and the answers to them."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        until = time.monotonic() + seconds + 1
        asking = [pool.submit(_times, server, KNOWN, until, 0.2) for _ in range(CONNECTIONS)]
        time.sleep(0.5)
        rate = load(server.url, AUTOCONFIG, seconds, people=(PEOPLE, WITHOUT_DIRECTORY))
        return rate, [answer for result in asking for answer in result.result()]


MEASUREMENTS = {
    function.__name__: function for function in (ldap_speed, ldap_cache, ldap_failover, ldap_outage)
}
