"""Threads of an event loop: calls that wait get further threads, and none is lost."""

import asyncio
import threading
from functools import partial

import pytest

from automx import places
from automx.errors import UnavailableError
from automx.places import Threads
from tests.processes import wait_until


def test_calls_that_wait_for_each_other_get_as_many_threads_as_there_may_be() -> None:
    together = threading.Barrier(8, timeout=60)  # which opens only if all eight run at once

    async def run() -> list[int]:
        threads = Threads(8)
        return await asyncio.gather(*(threads.run(together.wait) for _ in range(8)))

    assert sorted(asyncio.run(run())) == list(range(8))


def test_no_more_threads_run_than_there_may_be_and_the_others_follow() -> None:
    busy, most = 0, 0
    lock = threading.Lock()
    gate = threading.Event()

    def call() -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
            if busy == 3:
                gate.set()
        assert gate.wait(60)
        with lock:
            busy -= 1

    async def run() -> None:
        threads = Threads(3)
        await asyncio.gather(*(threads.run(call) for _ in range(20)))

    asyncio.run(run())
    assert most == 3


def test_calls_that_need_not_wait_long_share_few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Threads, "PATIENCE", 3_600)

    async def run() -> set[int]:
        threads = Threads(32)
        return {*await asyncio.gather(*(threads.run(threading.get_ident) for _ in range(200)))}

    assert len(asyncio.run(run())) <= Threads.AWAKE


def test_calls_one_after_the_other_are_made_by_few_of_many_threads() -> None:
    together = threading.Barrier(8, timeout=60)

    async def run() -> set[int]:
        threads = Threads(8)
        await asyncio.gather(*(threads.run(together.wait) for _ in range(8)))
        wait_until(lambda: len(threads._bells) == 8, "the sleep of all threads")
        threads.PATIENCE = 3_600  # on a busy machine, a call may wait for longer than usual
        return {await threads.run(threading.get_ident) for _ in range(100)}

    assert len(asyncio.run(run())) <= Threads.AWAKE


def test_many_threads_become_few_again_while_calls_wait() -> None:
    gate = threading.Event()
    together = threading.Barrier(8, timeout=60)

    def hold() -> None:
        together.wait()
        assert gate.wait(60)

    def call() -> int:
        threading.Event().wait(0.001)  # for as long, other threads may take calls
        return threading.get_ident()

    async def run() -> set[int]:
        threads = Threads(8)
        held = [threads.run(hold) for _ in range(8)]
        while together.n_waiting or threads._awake < 8:
            await asyncio.sleep(0.001)
        threads.PATIENCE = 3_600
        others = [threads.run(call) for _ in range(200)]
        threads._look(asyncio.get_running_loop())
        gate.set()
        await asyncio.gather(*held)
        return {*await asyncio.gather(*others)}

    assert len(asyncio.run(run())) <= Threads.AWAKE


@pytest.mark.parametrize("answers", [False, True])
def test_no_call_is_lost_whenever_it_comes(answers: bool) -> None:
    async def run() -> list[bool]:
        threads = Threads(4)

        async def ask(number: int) -> bool:
            await asyncio.sleep(number % 7 / 5_000)  # while threads fall asleep, and while they run
            return await threads.run(partial(bool, number % 3), answers=answers)

        return await asyncio.wait_for(asyncio.gather(*map(ask, range(3_000))), 120)

    assert asyncio.run(run()) == [number % 3 > 0 for number in range(3_000)]


def test_answers_are_known_to_each_event_loop_whatever_became_of_the_one_before() -> None:
    threads = Threads(2)

    async def run() -> bool:
        return await asyncio.wait_for(threads.run(lambda: True, answers=True), 120)

    assert [asyncio.run(run()) for _ in range(20)] == [True] * 20


def test_an_error_of_a_call_is_raised_where_its_result_is_awaited() -> None:
    async def run() -> None:
        await Threads(1).run(lambda: 1 // 0)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(run())


def test_what_is_abandoned_fails_and_its_thread_goes_on() -> None:
    gate = threading.Event()

    async def run() -> str:
        threads = Threads(1)
        waiting = asyncio.ensure_future(threads.run(lambda: gate.wait(60)))
        await asyncio.sleep(0)
        threads.abandon(UnavailableError)
        with pytest.raises(UnavailableError):
            await waiting
        gate.set()
        return await threads.run(lambda: "next")

    assert asyncio.run(run()) == "next"


def test_what_was_answered_is_not_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Threads, "PATIENCE", 3_600)

    async def run() -> bool:
        threads = Threads(1)
        answered = threads.run(lambda: True, answers=True)
        wait_until(lambda: bool(threads._ended), "the answer")
        threads.abandon(UnavailableError)
        return await answered

    assert asyncio.run(run())


def test_calls_wait_for_threads_that_the_system_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    class Limited(threading.Thread):
        left = 1

        def start(self) -> None:
            if not Limited.left:
                raise RuntimeError("can't start new thread")
            Limited.left -= 1
            super().start()

    monkeypatch.setattr(places, "Thread", Limited)

    async def run() -> list[int]:
        threads = Threads(8)
        return await asyncio.gather(*(threads.run(partial(int, number)) for number in range(50)))

    assert asyncio.run(run()) == list(range(50))
    with pytest.raises(RuntimeError, match="can't start new thread"):
        asyncio.run(run())
