"""What all processes know of the keys of backends, on three engines."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from automx.accounts.keystates import KeyStates
from automx.backends.keys import KeyState, KeyStatus
from automx.database import Session
from tests.mailboxes import NOW

TRIED = KeyStatus(KeyState.TRIED, NOW)
REFUSED = KeyStatus(KeyState.REFUSED, NOW)
LATER = KeyStatus(KeyState.TRIED, NOW + timedelta(seconds=1))


@pytest.fixture
def states(engine: sa.Engine) -> KeyStates:
    return KeyStates(lambda: Session(engine))


def test_the_status_of_each_key_is_kept(states: KeyStates) -> None:
    assert states.read("one") is None
    assert states.replace("one", None, TRIED)
    assert states.replace("two", None, REFUSED)
    assert states.replace("one", TRIED, LATER)
    assert (states.read("one"), states.read("two")) == (LATER, REFUSED)
    assert states.replace("one", LATER, None)
    assert (states.read("one"), states.read("two")) == (None, REFUSED)


def test_a_status_that_has_changed_meanwhile_is_left_alone(states: KeyStates) -> None:
    states.replace("one", None, TRIED)
    for before in (None, REFUSED, LATER):
        for after in (None, REFUSED):
            assert not (before or after) or not states.replace("one", before, after)
    assert states.read("one") == TRIED


@pytest.mark.parametrize("before", [None, REFUSED], ids=["unknown", "refused"])
def test_of_many_at_once_one_changes_the_status(
    states: KeyStates, before: KeyStatus | None
) -> None:
    if before:
        states.replace("one", None, before)
    start = threading.Barrier(8)

    def claim(_: int) -> bool:
        start.wait(20)
        return states.replace("one", before, TRIED)

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(claim, range(8))) == 1
    assert states.read("one") == TRIED


@pytest.mark.parametrize("moment", ["2026-11-30 00:00:00", "2026-11-30 00:00:00.250000"])
def test_a_moment_that_was_written_by_hand_can_be_changed(
    engine: sa.Engine, states: KeyStates, moment: str
) -> None:
    states.replace("one", None, REFUSED)
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE backend_key SET changed_at = '{moment}'"))
    before = states.read("one")
    assert states.replace("one", before, TRIED)
    assert states.read("one") == TRIED
