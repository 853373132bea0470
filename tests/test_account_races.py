"""Many at once, and programs that are killed: no account too many, no use and no mailbox lost."""

import contextlib
import json
import os
import random
import shlex
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from automx.accounts import accounts, prune, tokens
from automx.accounts.prune import Policy
from automx.database import TRIES, Session, commit, engine_options
from automx.errors import (
    AutomxError,
    ForbiddenError,
    SilentError,
    TakenError,
    TryAgainError,
    UncertainError,
)
from automx.models import Account as AccountRow
from automx.models import Token as TokenRow
from tests.commandline import automx
from tests.databases import engine_uri
from tests.mailboxes import LATER, NOW, Mailboxes, backends, dump, rows
from tests.mailprogram import MailProgram, mail_program
from tests.processes import (
    AUTOMX,
    REPOSITORY,
    Server,
    listening_sockets,
    program,
    running,
    serving,
    wait_until,
    workers_of,
)
from tests.tokens import EXHAUSTED, add, usecount

THREADS = 40


@pytest.fixture
def engine(accounts_database: str) -> Iterator[sa.Engine]:
    """Return an engine with a connection for each thread."""
    uri = engine_uri(accounts_database)
    engine = sa.create_engine(uri, **engine_options(uri) | {"pool_size": THREADS})
    yield engine
    engine.dispose()


@pytest.fixture
def crowd(engine: sa.Engine) -> Callable[[Callable[[Session, int], object]], list[object]]:
    """Let many threads do something at the same moment; return what came of it, or the errors."""

    def run(work: Callable[[Session, int], object]) -> list[object]:
        start = threading.Barrier(THREADS)

        def one(number: int) -> object:
            with Session(engine) as session:
                start.wait(30)
                try:
                    return work(session, number)
                except (AutomxError, sa.exc.OperationalError) as error:
                    return error

        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(one, range(THREADS)))

    return run


Crowd = Callable[[Callable[[Session, int], object]], list[object]]


@pytest.fixture
def mailboxes() -> Mailboxes:
    return Mailboxes()


def settle(session: Session, mailboxes: Mailboxes) -> None:
    """Prune so much later that all that was left is due, but no account has expired."""
    actions = prune.pending(session, now=LATER, policy=Policy())
    for done in prune.run(session, actions, backends(mailboxes), now=LATER, policy=Policy()):
        assert done.error is None


def assert_agreement(session: Session, mailboxes: Mailboxes) -> None:
    """Check that each row has a mailbox, each mailbox a row, and each use an account."""
    found = rows(session, "account")
    assert {row["state"] for row in found} <= {"active"}
    assert {row["address"]: row["mark"] for row in found} == {
        address: box.owner.mark for address, box in mailboxes.boxes.items()
    }
    uses = Counter(row["token_id"] for row in found)
    assert {row["id"]: row["usecount"] for row in rows(session, "token") if row["usecount"]} == uses


def test_a_crowd_gets_as_many_accounts_as_the_token_makes(
    session: Session, mailboxes: Mailboxes, crowd: Crowd
) -> None:
    token = add(session, maxuse=25)

    def make(session: Session, _: int) -> object:
        found = tokens.find(session, token.token)
        return accounts.create(session, found, backends(mailboxes), now=NOW).address

    results = crowd(make)

    refused = [str(result) for result in results if isinstance(result, ForbiddenError)]
    assert refused == [EXHAUSTED] * 15
    made = {result for result in results if isinstance(result, str)}
    assert made == mailboxes.boxes.keys()
    assert len(made) == 25
    assert_agreement(session, mailboxes)


def test_a_crowd_before_a_failing_mail_server_loses_nothing(
    session: Session, mailboxes: Mailboxes, crowd: Crowd
) -> None:
    seed = random.randrange(10**6)
    dice = random.Random(seed)
    token = add(session, maxuse=25)
    for _ in range(4 * THREADS):
        error = dice.choice([TakenError, TryAgainError, UncertainError, SilentError, None])
        if error is TakenError or error is TryAgainError:
            mailboxes.fail("create", error())
        elif error is not None:
            mailboxes.fail("create", error(), is_done=dice.random() < 0.5)

    def make(session: Session, _: int) -> object:
        found = tokens.find(session, token.token)
        return accounts.create(session, found, backends(mailboxes), now=NOW).address

    results = [*crowd(make), *crowd(make)]

    made = {result for result in results if isinstance(result, str)}
    assert made <= mailboxes.boxes.keys(), f"seed {seed}"
    found = {row["address"] for row in rows(session, "account") if row["state"] == "active"}
    assert found == made, f"seed {seed}"
    settle(session, mailboxes)
    assert_agreement(session, mailboxes)


def test_a_crowd_gets_one_fixed_address_once(
    session: Session, mailboxes: Mailboxes, crowd: Crowd
) -> None:
    names = ["one", "other"]
    made = [add(session, name, address="alice@example.com") for name in names]

    def make(session: Session, number: int) -> object:
        found = tokens.find(session, made[number % 2].token)
        return accounts.create(session, found, backends(mailboxes), now=NOW).address

    results = crowd(make)

    assert results.count("alice@example.com") == 1
    assert {type(result) for result in results} <= {str, ForbiddenError, TakenError, TryAgainError}
    assert_agreement(session, mailboxes)


def test_a_crowd_of_programs_deletes_each_account_once(
    session: Session, mailboxes: Mailboxes, crowd: Crowd
) -> None:
    token = add(session)
    for _ in range(20):
        accounts.create(session, token, backends(mailboxes), now=NOW)
    states = ["creating", "undoing", "deleting", "disabled", "active"]
    for index, row in enumerate(rows(session, "account")):
        change = sa.text("UPDATE account SET state = :state WHERE id = :id")
        session.execute(change, {"state": states[index % 5], "id": row["id"]})
    session.commit()
    mailboxes.calls.clear()
    now = NOW + timedelta(days=1)
    actions = prune.pending(session, now=now, policy=Policy())

    def work(session: Session, number: int) -> object:
        mine = random.Random(number).sample(actions, len(actions))
        done = prune.run(session, mine, backends(mailboxes), now=now, policy=Policy())
        return [(item.account.address, item.error) for item in done]

    results = crowd(work)

    told = [item for result in results for item in result]  # type: ignore[attr-defined] # a list each
    assert sorted(told) == sorted((item.account.address, None) for item in actions)
    assert Counter(action for action, _ in mailboxes.calls) == {"find": 20, "delete": 20}
    assert (mailboxes.boxes, rows(session, "account")) == ({}, [])
    assert dump(session)["token"][0]["usecount"] == 16


def test_a_crowd_that_makes_and_deletes_does_not_block_itself(
    session: Session, mailboxes: Mailboxes, crowd: Crowd
) -> None:
    token = add(session, maxuse=0)

    def work(session: Session, number: int) -> object:
        for step in range(2):
            found = tokens.find(session, token.token)
            made = accounts.create(session, found, backends(mailboxes), now=NOW)
            if (number + step) % 2:
                account = accounts.get(session, made.address)
                accounts.remove(session, account, backends(mailboxes), now=NOW)
        return "done"

    assert crowd(work) == ["done"] * THREADS

    assert tokens.get(session, "party").usecount == 2 * THREADS
    session.rollback()
    assert {row["address"] for row in rows(session, "account")} == mailboxes.boxes.keys()
    assert len(mailboxes.boxes) == THREADS


# Transactions that get in each other's way


@pytest.mark.parametrize("accounts_database", ["sqlite"], indirect=True)
def test_a_sqlite_database_that_is_locked_is_tried_again_a_bounded_number_of_times(
    accounts_database: str, session: Session
) -> None:
    token = add(session)
    engine = sa.create_engine(accounts_database, connect_args={"timeout": 0.01})
    locked = []
    with (
        contextlib.closing(sqlite3.connect(str(engine.url.database))) as other,
        Session(engine) as waiting,
    ):

        @sa.event.listens_for(engine, "handle_error")
        def give_up_the_lock(context: sa.ExceptionContext) -> None:
            locked.append(str(context.original_exception))
            if len(locked) == 2:
                other.rollback()

        other.execute("BEGIN IMMEDIATE")
        make = backends(Mailboxes())
        assert accounts.create(waiting, token, make, now=NOW).address
        assert locked == ["database is locked"] * 2

        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sa.exc.OperationalError, match="database is locked"):
            accounts.create(waiting, token, make, now=NOW)
        assert len(locked) == 2 + TRIES
    engine.dispose()
    assert [row["usecount"] for row in rows(session, "token")] == [1]


@pytest.mark.parametrize("accounts_database", ["mariadb"], indirect=True)
def test_a_transaction_that_mariadb_broke_off_for_another_one_is_run_again(
    session: Session, engine: sa.Engine
) -> None:
    token = add(session)
    made = accounts.create(session, token, backends(Mailboxes()), now=NOW)
    account = accounts.get(session, made.address)
    session.rollback()
    broken_off = []
    with engine.connect() as other, ThreadPoolExecutor(1) as pool:
        # MariaDB breaks off the transaction that has changed less.
        other.execute(sa.text("UPDATE provider SET short_name = 'x'"))
        other.execute(
            sa.text("UPDATE domain SET provider_id = 1, ldapserver_id = NULL, id = id + 9")
        )
        other.execute(sa.text("UPDATE account SET warned_at = NULL, backend = 'mailcow'"))

        def finish_the_other() -> None:
            other.execute(sa.text("UPDATE token SET expiry = '1w'"))
            other.commit()

        @sa.event.listens_for(engine, "handle_error")
        def note(context: sa.ExceptionContext) -> None:
            broken_off.append(str(context.original_exception))

        use = sa.update(TokenRow).values(usecount=TokenRow.c.usecount + 1)
        disable = sa.update(AccountRow).where(*accounts.unchanged(account)).values(state="disabled")
        start = threading.Event()

        @sa.event.listens_for(engine, "after_cursor_execute")
        def begin(_: object, __: object, statement: str, *___: object) -> None:
            if "usecount" in statement and not start.is_set():
                start.set()
                pool.submit(finish_the_other)

        assert len(commit(session, use, disable)) == 2

    assert ["Deadlock found" in text for text in broken_off] == [True]
    assert [(row["usecount"], row["expiry"]) for row in rows(session, "token")] == [(2, "1w")]
    assert [row["state"] for row in rows(session, "account")] == ["disabled"]


@pytest.mark.parametrize("accounts_database", ["postgresql", "mariadb"], indirect=True)
def test_the_strictest_isolation_may_cost_tries_and_costs_no_use(
    session: Session, engine: sa.Engine, mailboxes: Mailboxes, crowd: Crowd
) -> None:
    token = add(session, maxuse=25)
    strict = engine.execution_options(isolation_level="SERIALIZABLE")

    def make(_: Session, __: int) -> object:
        with Session(strict) as mine:
            found = tokens.find(mine, token.token)
            return accounts.create(mine, found, backends(mailboxes), now=NOW).address

    made = {result for result in crowd(make) if isinstance(result, str)}

    assert 0 < len(made) <= 25
    assert made <= mailboxes.boxes.keys()
    settle(session, mailboxes)
    assert_agreement(session, mailboxes)


# The web server


ACCOUNTS_DOVECOT = REPOSITORY / "contrib" / "accounts-dovecot"


@dataclass
class PasswdFile:
    """The passwd-file of a Dovecot, kept by contrib/accounts-dovecot."""

    path: Path

    @property
    def command(self) -> str:
        """What stands in the setting account_command; a quick hash leaves time to the races."""
        doveadm = program("doveadm", "dovecot-core")
        words = [sys.executable, ACCOUNTS_DOVECOT, self.path, "--doveadm", doveadm]
        return shlex.join(map(str, [*words, "--scheme", "SSHA256"]))

    def marks(self) -> dict[str, str]:
        """Return address -> mark of all mailboxes; each must have one line."""
        lines = [line.split(":") for line in self.path.read_text().splitlines()]
        found = {line[0]: line[4].split()[-1] for line in lines}
        assert len(found) == len(lines)
        return found


@pytest.fixture
def passwd_file(tmp_path: Path) -> PasswdFile:
    path = tmp_path / "users"
    path.touch()
    return PasswdFile(path)


@pytest.fixture
def environment(accounts_database: str, passwd_file: PasswdFile) -> dict[str, str]:
    """Return the settings of a server without rate limits, which makes mailboxes by a program."""
    return {
        "AUTOMX_CONF": "/dev/null",
        "AUTOMX_DB_URI": accounts_database,
        "AUTOMX_ACCOUNT_BACKEND": "command",
        "AUTOMX_ACCOUNT_COMMAND": passwd_file.command,
        "AUTOMX_ACCOUNT_RATE_LIMIT": "",
    }


def post(port: int, token: str) -> tuple[int, dict[str, Any]]:
    """Ask for an account as Delta Chat does; return status and document."""
    with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        connection.request("POST", f"/new_email?t={token}")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_two_hundred_people_scan_a_token_for_twenty_five(
    session: Session, environment: dict[str, str], passwd_file: PasswdFile, tmp_path: Path
) -> None:
    token = add(session, maxuse=25)
    start = threading.Barrier(200)

    def scan(_: int) -> tuple[int, dict[str, Any]]:
        start.wait(60)
        return post(server.port, token.token)

    log = tmp_path / "serve.log"
    with serving(environment, log, "--workers", "2") as server, ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(scan, range(200)))

    refusal = {"type": "error", "status_code": 403, "reason": EXHAUSTED}
    refused = [document for status, document in answers if status != 200]
    assert refused == [refusal] * 175, log.read_text()
    made = [document["email"] for status, document in answers if status == 200]
    assert sorted(made) == sorted(passwd_file.marks())
    found = rows(session, "account")
    assert {row["address"]: row["mark"] for row in found} == passwd_file.marks()
    assert {row["state"] for row in found} == {"active"}
    assert usecount(session) == 25


# Killed


WORKERS = 3


@dataclass
class Load:
    """People who scan a token all the time; ``made`` are the addresses that they were told."""

    token: str
    port: int = 0
    made: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def has_made_more_than(self, number: int) -> bool:
        """Tell whether people were told of more accounts than so many."""
        return len(self.made) > number

    def scan(self) -> None:
        """Ask for one account after the other until the load ends."""
        while not self._stop.is_set():
            try:
                status, document = post(self.port, self.token)
            except (OSError, HTTPException):  # the worker, or the whole server, was killed
                self._stop.wait(0.01)
            else:
                assert status == 200, document
                self.made.append(document["email"])

    @contextlib.contextmanager
    def running(self, people: int) -> Iterator[None]:
        """Let people scan until the block ends."""
        self._stop.clear()
        with ThreadPoolExecutor(people) as pool:
            scans = [pool.submit(self.scan) for _ in range(people)]
            try:
                yield
            finally:
                self._stop.set()
            for scan in scans:
                scan.result()


def processes(word: str) -> list[int]:
    """Return the numbers of the processes that have a word in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if word.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def kill_one_by_one(server: Server, load: Load, dice: random.Random, number: int) -> None:
    """Kill workers, and at last the server with all that is left, at random moments."""
    for pid in [*dice.sample(workers_of(server.process), number - 1), None]:
        wait_until(partial(load.has_made_more_than, len(load.made)), "making one more account")
        time.sleep(dice.uniform(0, 0.1))
        if pid is None:
            os.killpg(server.process.pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
    server.process.wait(15)


@pytest.mark.parametrize(
    ("accounts_database", "kills"),
    [("sqlite", 6), ("postgresql", 3), ("mariadb", 3)],
    indirect=["accounts_database"],
)
def test_what_was_killed_is_brought_in_order(
    session: Session,
    environment: dict[str, str],
    tmp_path: Path,
    kills: int,
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - told if the test fails
    dice = random.Random(seed)
    mail = mail_program(tmp_path / "mail")
    environment["AUTOMX_ACCOUNT_COMMAND"] = str(mail.program)
    load = Load(add(session, maxuse=0, expiry="1w").token)
    log = tmp_path / "serve.log"

    while kills:
        number = min(kills, WORKERS)
        with serving(environment, log, "--workers", str(WORKERS)) as server:
            wait_until(lambda: listening_sockets(server.port) == WORKERS, "starting all workers")
            load.port = server.port
            with load.running(12):
                kill_one_by_one(server, load, dice, number)
        kills -= number
    programs_end(mail)

    assert Counter(row["state"] for row in rows(session, "account"))["creating"] > 0
    now = datetime.now(UTC)
    for _ in range(2):
        now += timedelta(minutes=20)
        kill_prune(session, environment, log, dice, now)
        programs_end(mail)
    automx("prune", "--now", iso(now + timedelta(minutes=20)), env=environment)

    found = rows(session, "account")
    assert {row["state"] for row in found} == {"active"}
    assert {row["address"]: row["mark"] for row in found} == mail.marks()
    assert usecount(session) == len(found)
    assert set(load.made) <= mail.addresses


def kill_prune(
    session: Session, environment: Mapping[str, str], log: Path, dice: random.Random, now: datetime
) -> None:
    """Run "automx prune", and kill it at a random moment in the middle of its work."""
    before = len(rows(session, "account"))
    command: list[str | Path] = [AUTOMX, "prune", "--now", iso(now)]
    with running(command, log, ready=lambda: True, env=environment) as pruning:
        wait_until(
            lambda: pruning.process.poll() is not None or len(rows(session, "account")) < before,
            "the first step",
        )
        time.sleep(dice.uniform(0, 0.1))
        pruning.stop(signal.SIGKILL)


def iso(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def programs_end(mail: MailProgram) -> None:
    """Wait for programs that outlive the process that had started them."""
    wait_until(lambda: not processes(str(mail.program)), "the end of the last program")
