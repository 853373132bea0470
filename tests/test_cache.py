"""Tests of automx.cache: for how long, and of how many domains, look-ups are remembered."""

import contextlib
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest

from automx.cache import REFRESHES, SLOW_SECONDS, ConfigCache, FoundConfig
from automx.clientconfig import ClientConfig
from automx.errors import BadRecordError, DatabaseError, UnknownDomainError
from automx.rowmemory import RowKey


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


@pytest.mark.parametrize("domain", ["a", "unknown", "bad"])
def test_what_is_fresh_is_told_at_once_whatever_other_threads_do(domain: str) -> None:
    clock, look_up = Clock(), LookUp()
    cache = ConfigCache(10, now=clock)
    assert cache.fresh(domain) is None
    answer: object = None
    with suppress(UnknownDomainError, BadRecordError):
        answer = cache.get(domain, look_up)
    with cache._lock:  # it may be held for long: to forget changes, all domains are looked at
        fresh = cache.fresh(domain)
        assert fresh is answer if domain == "a" else isinstance(fresh, Exception)
        clock.time += 9.9
        assert cache.fresh(domain) is fresh
        clock.time += 0.1
        assert cache.fresh(domain) is None
    clock.time = 1000.0
    cache.clear()
    assert cache.fresh(domain) is None
    assert look_up.asked == [domain]


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


def test_a_domain_that_is_used_stays_longest_whatever_is_forgotten() -> None:
    look_up = LookUp()
    cache = ConfigCache(10, size=3)
    for domain in ("a", "b", "c", "a"):
        cache.get(domain, look_up)
    cache.forget([("domain", "another")])
    for domain in ("d", "a"):
        cache.get(domain, look_up)
    assert look_up.asked == ["a", "b", "c", "d"]


def invented(domain: str) -> FoundConfig:
    """Look up a domain without a row of its own, which a wildcard decides for."""
    return FoundConfig(config_of(domain), names=("*",))


def unknown(domain: str) -> FoundConfig:
    raise UnknownDomainError(cause=domain)


def unusable(domain: str) -> FoundConfig:
    raise BadRecordError(cause=domain)


@pytest.mark.parametrize("answer", [invented, unknown, unusable])
def test_names_that_strangers_invent_push_out_no_domain_with_a_row(
    answer: Callable[[str], FoundConfig],
) -> None:
    clock, database = Clock(), Database()
    cache = ConfigCache(10, stale_seconds=100, size=4, stale_size=4, now=clock)
    known = cache.get("a", database)
    for number in range(9):
        with contextlib.suppress(UnknownDomainError, BadRecordError):
            cache.get(f"{number}.example", answer)
    assert cache.size() == 1 + 4
    assert cache.fresh("a") is known
    clock.time += 10
    database.is_away = True
    assert cache.get("a", database).age == 10


def test_a_domain_that_gets_a_row_of_its_own_leaves_the_memory_of_the_others() -> None:
    clock, database = Clock(), Database()
    cache = ConfigCache(10, stale_seconds=100, now=clock)
    for answer in (unknown, invented, database, invented, unknown):
        with contextlib.suppress(UnknownDomainError):
            cache.get("a", answer)
        assert cache.size() == 1
        clock.time += 10
    database.is_away = True
    with pytest.raises(DatabaseError):
        cache.get("a", database)


@pytest.mark.parametrize("stale_seconds", [0, 100])
def test_what_is_forgotten_is_not_used_in_an_outage(stale_seconds: float) -> None:
    database = Database()
    cache = ConfigCache(10, stale_seconds=stale_seconds)
    before = {domain: cache.get(domain, database) for domain in ("a", "b")}
    cache.forget([("domain", "a")])
    database.is_away = True
    with pytest.raises(DatabaseError):
        cache.get("a", database)
    assert cache.get("b", database) is before["b"]


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


class Database:
    """A look-up in a database that can be away."""

    def __init__(self) -> None:
        self.domains = {"a": "Example Inc.", "b": "Example Inc."}
        self.is_away = False

    def __call__(self, domain: str) -> FoundConfig:
        if self.is_away:
            raise DatabaseError(cause="the database is gone")
        if domain == "bad":
            raise BadRecordError(cause="table server, id 1")
        if domain not in self.domains:
            raise UnknownDomainError
        return FoundConfig(replace(config_of(domain), provider_name=self.domains[domain]))


@pytest.mark.parametrize("seconds", [0, 10])
def test_while_the_database_is_away_settings_are_used_for_longer_and_tell_their_age(
    seconds: float,
) -> None:
    clock, database = Clock(), Database()
    cache = ConfigCache(seconds, stale_seconds=100, now=clock)
    assert cache.get("a", database).age is None
    database.is_away = True
    for later in (seconds + 0.5, seconds + 99.5):
        clock.time = 1000 + later
        found = cache.get("a", database)
        assert (found.config, found.age) == (config_of("a"), int(later))
    clock.time = 1000 + seconds + 100
    with pytest.raises(DatabaseError):
        cache.get("a", database)


def test_a_slow_look_up_of_a_known_domain_keeps_one_thread_and_few_for_all_domains() -> None:
    clock, look_up, go_on = Clock(), LookUp(), threading.Event()
    begun = threading.Semaphore(0)

    def slow(domain: str) -> FoundConfig:
        begun.release()
        assert go_on.wait(60)
        return look_up(domain)

    cache = ConfigCache(10, stale_seconds=60, now=clock)
    names = [f"d{number}" for number in range(REFRESHES + 2)]
    for name in names:
        cache.get(name, look_up)
    clock.time += 12
    look_up.asked.clear()
    with ThreadPoolExecutor(REFRESHES) as threads:
        slow_ones = [threads.submit(cache.get, name, slow) for name in names[:REFRESHES]]
        for _ in slow_ones:
            assert begun.acquire(timeout=60)
        assert cache.get(names[-1], look_up).age is None  # it may be as quick as ever
        clock.time += SLOW_SECONDS
        ages = [cache.get(name, look_up).age for name in names]
        assert ages == [12] * (len(names) - 1) + [None]
        assert look_up.asked == [names[-1]]
        go_on.set()
        assert [one.result().age for one in slow_ones] == [None] * REFRESHES
    assert [cache.get(name, look_up).age for name in names] == [None] * len(names)
    assert sorted(look_up.asked) == sorted(names)


def test_two_requests_for_a_domain_that_is_due_get_its_new_settings() -> None:
    clock, look_up = Clock(), LookUp()
    both = threading.Barrier(2)

    def together(domain: str) -> FoundConfig:
        both.wait(60)
        return look_up(domain)

    cache = ConfigCache(10, stale_seconds=60, now=clock)
    cache.get("a", look_up)
    clock.time += 12
    with ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(cache.get, "a", together) for _ in range(2)]
        assert [answer.result().age for answer in answers] == [None, None]


def test_after_an_outage_settings_are_read_anew_at_once() -> None:
    database = Database()
    cache = ConfigCache(0, stale_seconds=100)
    cache.get("a", database)
    database.is_away = True
    assert cache.get("a", database).age is not None
    database.is_away, database.domains = False, {"a": "Another Inc."}
    found = cache.get("a", database)
    assert (found.config.provider_name, found.age) == ("Another Inc.", None)


def test_documents_that_were_made_before_an_outage_are_not_made_again() -> None:
    database, made = Database(), []

    def render(config: ClientConfig) -> bytes:
        made.append(config)
        return b"document"

    cache = ConfigCache(0, stale_seconds=100)
    cache.get("a", database).rendered(render)
    database.is_away = True
    for _ in range(3):
        assert cache.get("a", database).rendered(render) == b"document"
    assert len(made) == 1


@pytest.mark.parametrize("domain", ["unknown", "bad", "b"])
def test_only_settings_that_were_found_are_used_during_an_outage(domain: str) -> None:
    database = Database()
    cache = ConfigCache(0, stale_seconds=100)
    if domain != "b":  # which is never asked for while the database is there
        with pytest.raises((UnknownDomainError, BadRecordError)):
            cache.get(domain, database)
    database.is_away = True
    with pytest.raises(DatabaseError):
        cache.get(domain, database)


def test_a_domain_that_was_deleted_is_forgotten_for_outages_too() -> None:
    clock, database = Clock(), Database()
    cache = ConfigCache(10, stale_seconds=100, now=clock)
    cache.get("a", database)
    del database.domains["a"]
    clock.time += 10
    with pytest.raises(UnknownDomainError):
        cache.get("a", database)
    database.is_away = True
    clock.time += 10
    with pytest.raises(DatabaseError):
        cache.get("a", database)


def test_a_cleared_cache_holds_nothing_for_an_outage() -> None:
    database = Database()
    cache = ConfigCache(10, stale_seconds=100)
    cache.get("a", database)
    cache.clear()
    database.is_away = True
    with pytest.raises(DatabaseError):
        cache.get("a", database)


@pytest.mark.parametrize("change", [("*", "*"), ("domain", "another")])
def test_what_was_read_before_a_change_is_not_kept_after_it(change: RowKey) -> None:
    cache, database = ConfigCache(10, stale_seconds=100), Database()

    def change_meanwhile(domain: str) -> FoundConfig:
        found = database(domain)
        cache.forget([change])
        return found

    assert cache.get("a", change_meanwhile).config == config_of("a")
    database.is_away = True
    with pytest.raises(DatabaseError):
        cache.get("a", database)


def test_without_stale_seconds_an_outage_is_told() -> None:
    database = Database()
    cache = ConfigCache(0, stale_seconds=0)
    cache.get("a", database)
    database.is_away = True
    with pytest.raises(DatabaseError):
        cache.get("a", database)


def test_the_number_of_domains_that_are_kept_for_an_outage_is_bounded() -> None:
    database = Database()
    database.domains = {f"{i}": "Example Inc." for i in range(5)}
    cache = ConfigCache(0, stale_seconds=100, stale_size=3)
    for domain in database.domains:
        cache.get(domain, database)
    database.is_away = True
    for domain in ("2", "3", "4"):
        assert cache.get(domain, database).config.domain == domain
    for domain in ("0", "1"):
        with pytest.raises(DatabaseError):
            cache.get(domain, database)
