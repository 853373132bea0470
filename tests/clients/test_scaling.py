"""Two machines with one database, as docs/scaling.md builds them: what holds across both."""

import itertools
import json
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from automx.accounts import tokens
from automx.database import open_session
from automx.seeddocument import SAMPLE
from tests.clients.machines import Answer, Machines, ask, two_machines
from tests.databases import engine_uri, running_postgresql
from tests.documents import autodiscover_request
from tests.faults.neighbours import fill
from tests.processes import AUTOMX, wait_until

LIMIT = 12  # requests for accounts of a client, and of a token
MAXUSE = 5
SEED = {**SAMPLE, "domains": [{"name": "new.example"}]}
DOCUMENT = "/mail/config-v1.1.xml?emailaddress=a@{}"
SOURCE = """\
[source.list]
type = command
command = {program}
provider = 1
like = own.example
"""

_numbers = itertools.count(1)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """Both machines, with the sample and three tokens."""
    with running_postgresql() as primary:
        uri = engine_uri(primary.new_database())
        fill(uri)
        with open_session(uri) as session:
            for name, maxuse in (("limited", 0), ("few", MAXUSE), ("many", 0)):
                now = datetime.now(UTC)
                tokens.add(session, name, "own.example", now=now, token=name, maxuse=maxuse)
        settings = {
            "AUTOMX_ACCOUNT_RATE_LIMIT": f"{LIMIT} per hour",
            "AUTOMX_DOMAIN_CACHE_SECONDS": "3600",
            "AUTOMX_INITDB_TOKEN": "secret",
            "AUTOMX_LOGLEVEL": "INFO",
        }
        database = str(make_url(uri).database)
        with two_machines(tmp_path, primary, database, settings) as started:
            yield started


def test_two_machines_with_one_database_are_one_service(machines: Machines, tmp_path: Path) -> None:
    """One function, since to start everything takes most of the time."""
    for url in machines.own:
        wait_until(lambda url=url: ask(f"{url}/readyz").text == "ready\n", "the replica")  # type: ignore[misc]
    changes_are_seen_by_the_other_machine(machines)
    limits_hold_for_both(machines)
    a_token_makes_no_account_too_many(machines)
    prune_ends_each_account_once(machines)
    one_machine_at_a_time_reads_a_source(machines, tmp_path)
    a_pooler_that_is_restarted_costs_no_account(machines)
    a_replica_that_stops_costs_no_answer(machines)
    proxies_tell_the_client_and_pass_nothing_on_that_it_claims(machines)
    a_machine_that_is_killed_costs_no_answer(machines)


def post(url: str, token: str) -> Answer:
    """Ask for an account, from an address of its own."""
    address = f"198.51.100.{next(_numbers)}"
    return ask(f"{url}/?t={token}", "POST", headers={"X-Forwarded-For": address})


def changes_are_seen_by_the_other_machine(machines: Machines) -> None:
    one, other = machines.own
    unknown = DOCUMENT.format("new.example")
    assert [ask(url + unknown).status for url in machines.own] == [404, 404]
    headers = {"Authorization": "Bearer secret", "Content-Type": "application/json"}
    body = json.dumps(SEED).encode()
    assert ask(f"{one}/initdb/", "POST", headers=headers, body=body).status == 200
    wait_until(lambda: ask(other + unknown).status == 200, "the change")


def limits_hold_for_both(machines: Machines) -> None:
    urls = itertools.cycle(machines.own)
    statuses = [post(next(urls), "limited").status for _ in range(LIMIT + 2)]
    assert statuses == [200] * LIMIT + [429, 429]


def a_token_makes_no_account_too_many(machines: Machines) -> None:
    before = machines.count("account")
    with ThreadPoolExecutor(LIMIT) as threads:
        urls = machines.own * (LIMIT // 2)
        answers = threads.map(lambda url: post(url, "few"), urls)
        statuses = Counter(answer.status for answer in answers)
    assert statuses == {200: MAXUSE, 403: LIMIT - MAXUSE}
    assert machines.count("account") - before == MAXUSE


def at_once(machines: Machines, *command: str, **env: str) -> list[str]:
    """Run a command twice at the same moment, as timers of two machines do."""
    settings = {**os.environ, **machines.env, **env}
    runs = [
        subprocess.Popen([AUTOMX, *command], env=settings, stdout=subprocess.PIPE) for _ in range(2)
    ]
    printed = [run.communicate(timeout=60)[0].decode() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    return printed


def prune_ends_each_account_once(machines: Machines) -> None:
    accounts = machines.count("account")
    then = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%dT%H:%MZ}"
    printed = at_once(machines, "prune", "--json", f"--now={then}")
    steps = [step["address"] for text in printed for step in json.loads(text)["steps"]]
    assert len(steps) == len(set(steps)) == accounts
    assert machines.count("account") == 0


def one_machine_at_a_time_reads_a_source(machines: Machines, tmp_path: Path) -> None:
    program, reads = tmp_path / "source", tmp_path / "reads"
    program.write_text(f"#!/bin/sh\necho read >>{reads}\necho synced.example\n")
    program.chmod(0o755)
    conf = tmp_path / "automx.conf"
    conf.write_text(SOURCE.format(program=program))
    printed = at_once(machines, "sync", "--due", AUTOMX_CONF=str(conf))
    assert reads.read_text() == "read\n"
    assert sum("+ domain synced.example" in text for text in printed) == 1
    path = DOCUMENT.format("synced.example")
    for url in machines.own:
        wait_until(lambda url=url: ask(url + path).status == 200, "the change")  # type: ignore[misc]


def a_pooler_that_is_restarted_costs_no_account(machines: Machines) -> None:
    assert [post(url, "many").status for url in machines.own] == [200, 200]
    machines.restart_pgbouncer()
    assert [post(url, "many").status for url in machines.own] == [200, 200]
    assert machines.count("account") == 4


def a_replica_that_stops_costs_no_answer(machines: Machines) -> None:
    machines.replica.stop(signal.SIGINT)
    for url in machines.own:
        statuses = {ask(url + DOCUMENT.format(f"{n}.own.example")).status for n in range(5)}
        assert statuses == {200}
        answer = ask(f"{url}/readyz")
        expected = "ready; the read replica: it does not answer\n"
        assert (answer.status, answer.text) == (200, expected)


def proxies_tell_the_client_and_pass_nothing_on_that_it_claims(machines: Machines) -> None:
    claims = {
        "X-Forwarded-For": "203.0.113.66",
        "X-Forwarded-Host": "autoconfig.other.example",
        "X-Forwarded-Proto": "ftp",
        "X-Forwarded-Prefix": "/evil",
        "X-Request-ID": "claimed",
    }
    for number, url in enumerate((machines.nginx, machines.haproxy)):
        answer = ask(f"{url}/mail/config-v1.1.xml?claims={number}", headers=claims)
        assert answer.status == 200
        assert "<domain>own.example</domain>" in answer.text
        assert answer.request_id
        assert answer.request_id != "claimed"
    told = "".join(each.output for each in machines.serving)
    assert "203.0.113.66" not in told
    assert told.count("automx.access: 127.0.0.1 GET /mail/config-v1.1.xml 200") >= 2


def a_machine_that_is_killed_costs_no_answer(machines: Machines) -> None:
    """Clients of both proxies ask for domains that are not remembered.

    What is sent by POST is sent to no second machine: as many answers may be lost as were awaited.
    """
    answers: Counter[tuple[str, int]] = Counter()
    is_over = threading.Event()

    def load(thread: int, url: str, method: str) -> None:
        for number in itertools.count():
            if is_over.is_set():
                return
            domain = f"{thread}-{number}.own.example"
            path, body = DOCUMENT.format(domain), b""
            if method == "POST":
                path = "/autodiscover/autodiscover.xml"
                body = autodiscover_request(f"a@{domain}").encode()
            answers[method, ask(url + path, method, body=body or None).status] += 1

    def requests_later(number: int) -> None:
        after = answers.total() + number
        wait_until(lambda: answers.total() >= after, "the load")

    proxies = machines.nginx, machines.haproxy
    clients = [(url, method) for method in ("GET", "GET", "POST") for url in proxies]
    with ThreadPoolExecutor(len(clients)) as threads:
        loads = [threads.submit(load, thread, *client) for thread, client in enumerate(clients)]
        try:
            requests_later(150)
            os.killpg(machines.serving[0].process.pid, signal.SIGKILL)
            requests_later(300)
        finally:
            is_over.set()
        for each in loads:
            each.result()
    lost = answers.pop(("POST", 502), 0)
    assert set(answers) == {("GET", 200), ("POST", 200)}
    assert lost <= sum(method == "POST" for _, method in clients)
