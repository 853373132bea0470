"""Tests of automx.memory: what is remembered, for how long, and how much."""

import pytest

from automx.memory import Memory


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def test_an_answer_is_remembered_for_its_time_and_no_longer() -> None:
    clock = Clock()
    memory: Memory[str, str | None] = Memory(10, 60, clock)
    assert memory.get("alice") is None
    memory.keep("alice", None, clock())
    clock.time += 59.9
    assert memory.get("alice") == (None, 1000.0)
    assert [*memory.answers()] == [("alice", None)]
    clock.time += 0.1
    assert memory.get("alice") is None
    assert memory.use("alice") is None
    assert [*memory.answers()] == []


def test_a_later_answer_takes_the_place_of_an_earlier_one_with_a_time_of_its_own() -> None:
    clock = Clock()
    memory: Memory[str, str] = Memory(10, 60, clock)
    memory.keep("alice", "old", clock())
    clock.time += 59
    memory.keep("alice", "new", clock())
    clock.time += 59
    assert memory.get("alice") == ("new", 1059.0)


@pytest.mark.parametrize(("size", "seconds"), [(0, 60), (10, 0)])
def test_no_size_and_no_time_mean_no_memory(size: int, seconds: float) -> None:
    memory: Memory[str, str] = Memory(size, seconds, Clock())
    memory.keep("alice", "x", 1000.0)
    assert memory.get("alice") is None
    assert len(memory) == 0


@pytest.mark.parametrize("size", [1, 2, 100])
def test_of_too_many_answers_those_that_were_used_long_ago_are_forgotten(size: int) -> None:
    memory: Memory[int, str] = Memory(size, 60, Clock())
    for number in range(3 * size):
        memory.keep(number, "x", 1000.0)
        assert len(memory) <= size
    latest = [*range(2 * size, 3 * size)]
    assert [number for number in range(3 * size) if memory.get(number)] == latest
    memory.use(latest[0])
    memory.keep(-1, "x", 1000.0)
    assert [key for key, _ in memory.answers()] == [*latest[1:], latest[0], -1][-size:]


def test_a_look_is_no_use() -> None:
    memory: Memory[str, str] = Memory(2, 60, Clock())
    memory.keep("alice", "a", 1000.0)
    memory.keep("bob", "b", 1000.0)
    assert memory.get("alice") == ("a", 1000.0)
    memory.keep("carol", "c", 1000.0)
    assert memory.get("alice") is None
