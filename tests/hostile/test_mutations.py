"""What becomes of real requests if strangers change them, by chance and again and again."""

from tests.hostile.corpus import CORPUS
from tests.hostile.mutations import mutated
from tests.hostile.requests import GROWTH, ask_as_it_is, send, warm_up
from tests.hostile.target import Target

# A longer run: python -m tests.hostile.requests --number 100000 --seed 2
NUMBER, SEED = 1_000, 1

# What a stranger and a person without a proxy get; a second seed of the same rows is a conflict.
UNUSUAL = {
    "a calendar": 301,
    "an address book": 301,
    "a seed": 409,
    "a seed of a stranger": 403,
}


def test_mutations_of_real_requests_find_no_bug_no_secret_and_no_leak(server: Target) -> None:
    warm_up(server.port)
    assert ask_as_it_is(server.port) == {name: UNUSUAL.get(name, 200) for name in CORPUS}
    before = server.memory()
    report = send(server.url, NUMBER, SEED)
    assert not report.faults, f"{report}"
    assert {200, 301, 302, 400, 403, 404, 405, 409} <= set(report.statuses)
    assert server.memory() < before * GROWTH
    assert ask_as_it_is(server.port) == {name: UNUSUAL.get(name, 200) for name in CORPUS}
    assert not server.faults()


def test_the_same_seed_gives_the_same_requests() -> None:
    first = [mutated(SEED, number) for number in range(50)]
    assert first == [mutated(SEED, number) for number in range(50)]
    assert first != [mutated(SEED + 1, number) for number in range(50)]
