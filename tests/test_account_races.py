"""Many at once, and programs that are killed: no account too many, no use and no mailbox lost."""

import contextlib
import random
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from automx.accounts import accounts, prune, tokens
from automx.accounts.prune import Policy
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
from automx.models import engine_options
from tests.databases import engine_uri
from tests.mailboxes import LATER, NOW, Mailboxes, backends, dump, rows
from tests.test_tokens import EXHAUSTED, add

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
    dues = prune.due(session, now=LATER, policy=Policy())
    for done in prune.carry_out(session, dues, backends(mailboxes), now=LATER, policy=Policy()):
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
    dues = prune.due(session, now=now, policy=Policy())

    def work(session: Session, number: int) -> object:
        mine = random.Random(number).sample(dues, len(dues))
        done = prune.carry_out(session, mine, backends(mailboxes), now=now, policy=Policy())
        return [(item.account.address, item.error) for item in done]

    results = crowd(work)

    told = [item for result in results for item in result]  # type: ignore[attr-defined]
    assert sorted(told) == sorted((item.account.address, None) for item in dues)
    assert Counter(action for action, _ in mailboxes.calls) == {"delete": 20, "find": 8}
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
        assert len(locked) == 2 + accounts.TRIES
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
        other.execute(sa.text("UPDATE account SET warned_at = NULL, expires_at = NULL"))

        def finish_the_other() -> None:
            other.execute(sa.text("UPDATE token SET expiry = '1w'"))
            other.commit()

        @sa.event.listens_for(engine, "handle_error")
        def note(context: sa.ExceptionContext) -> None:
            broken_off.append(str(context.original_exception))

        use = sa.update(TokenRow).values(usecount=TokenRow.usecount + 1)
        disable = sa.update(AccountRow).where(*accounts.unchanged(account)).values(state="disabled")
        start = threading.Event()

        @sa.event.listens_for(engine, "after_cursor_execute")
        def begin(_: object, __: object, statement: str, *___: object) -> None:
            if "usecount" in statement and not start.is_set():
                start.set()
                pool.submit(finish_the_other)

        assert len(accounts.commit(session, use, disable)) == 2

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
