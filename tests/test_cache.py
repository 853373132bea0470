"""Tests of automx.cache: for how long, and of how many domains, look-ups are remembered."""

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from automx.cache import ConfigCache, FoundConfig
from automx.clientconfig import ClientConfig
from automx.errors import BadRecordError, DatabaseError, UnknownDomainError


def config_of(domain: str) -> ClientConfig:
    return ClientConfig(domain, "Example Inc.", "Example", (), ())


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class LookUp:
    """A look-up that notes what it was asked, and fails if the domain says so."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, domain: str) -> FoundConfig:
        self.asked.append(domain)
        if domain == "unknown":
            raise UnknownDomainError
        if domain == "bad":
            raise BadRecordError(cause="table server, id 1")
        if domain == "down":
            raise DatabaseError(cause="the database is gone")
        return FoundConfig(config_of(domain))


def test_an_answer_is_remembered_for_the_time_of_the_settings() -> None:
    clock, look_up = Clock(), LookUp()
    cache = ConfigCache(10, now=clock)
    for _ in range(3):
        assert cache.get("a", look_up).config == config_of("a")
        clock.time += 4.9
    assert look_up.asked == ["a"]
    assert cache.get("a", look_up).config == config_of("a")
    assert look_up.asked == ["a", "a"]


@pytest.mark.parametrize(
    ("domain", "error"), [("unknown", UnknownDomainError), ("bad", BadRecordError)]
)
def test_a_refusal_is_remembered_as_well(domain: str, error: type[Exception]) -> None:
    clock, look_up = Clock(), LookUp()
    cache = ConfigCache(10, now=clock)
    errors = []
    for _ in range(3):
        with pytest.raises(error) as caught:
            cache.get(domain, look_up)
        errors.append(vars(caught.value) | {"text": str(caught.value)})
    assert errors[0] == errors[1] == errors[2]
    assert look_up.asked == [domain]
    clock.time += 10
    with pytest.raises(error):
        cache.get(domain, look_up)
    assert look_up.asked == [domain, domain]


def test_an_outage_is_not_remembered() -> None:
    look_up = LookUp()
    cache = ConfigCache(10)
    for _ in range(2):
        with pytest.raises(DatabaseError):
            cache.get("down", look_up)
    assert look_up.asked == ["down", "down"]


def test_no_time_means_no_memory() -> None:
    look_up = LookUp()
    cache = ConfigCache(0)
    assert cache.get("a", look_up).config == cache.get("a", look_up).config == config_of("a")
    assert look_up.asked == ["a", "a"]
    cache.clear()


def test_the_number_of_remembered_domains_is_bounded() -> None:
    look_up = LookUp()
    cache = ConfigCache(10, size=3)
    for domain in ("a", "b", "c", "d"):
        cache.get(domain, look_up)
    for domain in ("d", "c", "b"):
        cache.get(domain, look_up)
    assert look_up.asked == ["a", "b", "c", "d"]
    cache.get("a", look_up)
    assert look_up.asked == ["a", "b", "c", "d", "a"]


def test_a_cleared_cache_asks_again() -> None:
    look_up = LookUp()
    cache = ConfigCache(10)
    cache.get("a", look_up)
    cache.clear()
    cache.get("a", look_up)
    assert look_up.asked == ["a", "a"]


def test_a_remembered_refusal_keeps_nothing_of_the_request_alive() -> None:
    class Body:
        """What a client sent."""

    cache = ConfigCache(10)

    def request() -> "weakref.ref[Body]":
        body = Body()
        with pytest.raises(UnknownDomainError):
            cache.get("unknown", LookUp())
        return weakref.ref(body)

    bodies = [request(), request()]
    gc.collect()
    assert [body() for body in bodies] == [None, None]


def test_threads_may_share_a_cache() -> None:
    cache = ConfigCache(10, size=50)
    barrier = threading.Barrier(8)

    def work(number: int) -> int:
        look_up = LookUp()
        barrier.wait(10)
        for turn in range(500):
            domain = f"{(turn * 7 + number) % 80}.example"
            assert cache.get(domain, look_up).config == config_of(domain)
            with pytest.raises(UnknownDomainError):
                cache.get("unknown", look_up)
            if turn % 100 == 99:
                cache.clear()
        return len(look_up.asked)

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(work, range(8))) < 8 * 1000
