"""Tests of automx.directory.memory: what of directories is remembered, for how long, how much."""

import pytest

from automx.directory.memory import Memory
from automx.directory.person import NotRememberedError, Person

ALICE = Person("aexample", "Alice Example")


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def is_kept(memory: Memory, key: str) -> bool:
    try:
        memory.get(key)
    except NotRememberedError:
        return False
    return True


@pytest.mark.parametrize("person", [ALICE, None])
def test_an_answer_is_remembered_for_its_time_and_no_longer(person: Person | None) -> None:
    clock = Clock()
    memory = Memory(10, 60, clock)
    assert not is_kept(memory, "alice")
    memory.keep("alice", person)
    clock.time += 59.9
    assert memory.get("alice") == person
    clock.time += 0.1
    assert not is_kept(memory, "alice")


def test_a_later_answer_takes_the_place_of_an_earlier_one_with_a_time_of_its_own() -> None:
    clock = Clock()
    memory = Memory(10, 60, clock)
    memory.keep("alice", None)
    clock.time += 59
    memory.keep("alice", ALICE)
    clock.time += 59
    assert memory.get("alice") == ALICE


@pytest.mark.parametrize(("size", "seconds"), [(0, 60), (10, 0)])
def test_no_size_and_no_time_mean_no_memory(size: int, seconds: float) -> None:
    memory = Memory(size, seconds, Clock())
    memory.keep("alice", ALICE)
    assert not is_kept(memory, "alice")
    assert len(memory) == 0


@pytest.mark.parametrize("size", [1, 2, 100])
def test_of_too_many_answers_the_oldest_are_forgotten(size: int) -> None:
    memory = Memory(size, 60, Clock())
    for number in range(3 * size):
        memory.keep(f"{number}", ALICE)
        assert len(memory) <= size
    assert [number for number in range(3 * size) if is_kept(memory, f"{number}")] == [
        *range(2 * size, 3 * size)
    ]


def test_what_is_over_is_forgotten_as_others_come() -> None:
    clock = Clock()
    memory = Memory(1_000, 60, clock)
    for number in range(100):
        memory.keep(f"old {number}", ALICE)
    clock.time += 60
    for number in range(100):
        memory.keep(f"{number}", ALICE)
    assert len(memory) == 100


def test_a_look_waits_for_no_thread_that_writes() -> None:
    memory = Memory(10, 60, Clock())
    memory.keep("alice", ALICE)
    with memory._lock:
        assert memory.get("alice") == ALICE
        assert not is_kept(memory, "bob")
