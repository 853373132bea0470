"""The rollover of a PACC document: whatever others remember, a client never sees a mismatch."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automx.formats import pacc
from automx.zones.rollover import NOTHING, Seen, State, Step, Waits, advance, begin, end
from tests.paccclients import Clients, accepts

START = datetime(2026, 11, 30, 8, tzinfo=UTC)
WAITS = Waits(ttl=3600, spread=timedelta(minutes=10), caches=timedelta(seconds=3620))
ONE, TWO, THREE = b'{"document":1}', b'{"document":2}', b'{"document":3}'


def digests(*documents: bytes) -> frozenset[str]:
    return frozenset(map(pacc.digest_record, documents))


@dataclass
class World:
    """A domain: its rows, its state, its zone, and what clients may have got of them.

    Every change is seen by clients at once, and by others as late as it may be.
    """

    rows: bytes = ONE
    state: State | None = None
    zone: frozenset[str] = frozenset()
    ttl: int = WAITS.ttl
    now: datetime = START
    clients: Clients = field(default_factory=Clients)

    @property
    def served(self) -> bytes:
        return self.rows if self.state is None else self.state.document

    def look(self) -> None:
        ours = self.zone - digests(b"{}")
        assert len(ours) <= 2
        ttl = self.ttl + int(WAITS.spread.total_seconds())
        seconds = int(WAITS.caches.total_seconds())
        self.clients.look(self.zone, ttl, self.served or None, seconds, self.now)

    def run(self, killed_after: int = 9, *, sees_zone: bool = True) -> None:
        """Do what ``automx dns-apply`` does, which is killed after some of its four steps."""
        seen = Seen(self.zone, self.ttl if self.zone else 0)
        before = self.state
        if before is None:
            after = begin("example.com", self.rows, seen, self.now, WAITS)
        else:
            after = advance(before, self.rows, seen, self.now, WAITS)
        if killed_after > 0:
            self.state = after
            self.look()
        if killed_after > 1:
            self.zone = digests(*after.published)
            self.look()
        if killed_after > 2 and sees_zone:
            seen = Seen(self.zone, self.ttl)
            self.state = advance(after, self.rows, seen, self.now, WAITS)
            self.look()

    def wait(self, **time: float) -> None:
        self.now += timedelta(**time)
        self.look()

    def settle(self) -> Step:
        """Run until nothing follows; return the step."""
        for _ in range(150):
            self.run()
            assert self.state is not None
            if self.state.step is Step.STEADY:
                return self.state.step
            self.wait(minutes=20)
        pytest.fail(f"it does not end: {self.state}")


@pytest.fixture
def managed() -> World:
    """A domain whose zone has the digest of ONE."""
    world = World()
    world.settle()
    assert (world.zone, world.served) == (digests(ONE), ONE)
    return world


def test_the_client_of_these_tests_refuses_a_document_without_its_digest() -> None:
    assert accepts(ONE, digests(ONE, TWO))
    assert accepts(ONE, {"v=spf1 -all"})
    assert not accepts(ONE, digests(TWO))


def test_the_first_digest_is_written_when_no_cache_has_a_document_of_before() -> None:
    world = World(rows=TWO)
    world.look()
    world.rows = ONE
    world.run()
    assert (world.zone, world.served) == (frozenset(), ONE)
    world.wait(minutes=59)
    world.run()
    assert world.zone == frozenset()
    world.wait(minutes=2)
    world.run()
    assert world.zone == digests(ONE)


def test_a_digest_that_is_there_already_needs_no_wait() -> None:
    world = World(zone=digests(ONE))
    world.run()
    assert world.state is not None
    assert world.state.step is Step.STEADY


def test_a_document_is_announced_then_served_and_the_old_digest_goes_last(managed: World) -> None:
    managed.rows = TWO
    managed.run()
    announced_at = managed.now
    assert (managed.zone, managed.served) == (digests(ONE, TWO), ONE)
    assert managed.state is not None
    assert managed.state.due_at == announced_at + timedelta(seconds=3600 + 600 + 3)
    managed.wait(seconds=4202)
    managed.run()
    assert managed.served == ONE
    managed.wait(seconds=1)
    managed.run()
    assert (managed.zone, managed.served) == (digests(ONE, TWO), TWO)
    managed.wait(seconds=4203 + 3622)
    managed.run()
    assert managed.zone == digests(ONE, TWO)
    managed.wait(seconds=1)
    managed.run()
    assert (managed.zone, managed.served) == (digests(TWO), TWO)
    assert managed.state.due_at is None


def test_a_program_that_writes_the_zone_is_waited_for_until_the_zone_has_the_digest(
    managed: World,
) -> None:
    managed.rows = TWO
    managed.run(2)
    zone, managed.zone = managed.zone, digests(ONE)  # the hoster takes its time
    managed.wait(hours=5)
    managed.run(2)
    managed.zone = digests(ONE)
    managed.run(1)
    assert managed.served == ONE
    managed.zone = zone
    managed.run()
    managed.wait(minutes=69)
    managed.run()
    assert managed.served == ONE
    managed.wait(minutes=2)
    managed.run()
    assert managed.served == TWO


def test_the_newest_document_takes_the_place_of_one_that_is_only_announced(managed: World) -> None:
    managed.rows = TWO
    managed.run()
    managed.wait(minutes=60)
    managed.rows = THREE
    managed.run()
    assert (managed.zone, managed.served) == (digests(ONE, THREE), ONE)
    managed.wait(minutes=69)
    managed.run()
    assert managed.served == ONE
    managed.wait(minutes=2)
    managed.run()
    assert (managed.zone, managed.served) == (digests(ONE, THREE), THREE)


def test_a_document_that_is_served_is_finished_before_the_newest_one(managed: World) -> None:
    managed.rows = TWO
    managed.run()
    managed.wait(minutes=71)
    managed.run()
    managed.rows = THREE
    managed.run()
    assert (managed.zone, managed.served) == (digests(ONE, TWO), TWO)
    managed.wait(hours=3)
    managed.run()
    assert (managed.zone, managed.served) == (digests(TWO, THREE), TWO)
    managed.settle()
    assert (managed.zone, managed.served) == (digests(THREE), THREE)


def test_a_change_that_is_undone_needs_no_rollover(managed: World) -> None:
    managed.rows = TWO
    managed.run()
    managed.rows = ONE
    managed.run()
    assert (managed.zone, managed.served) == (digests(ONE), ONE)
    assert managed.state is not None
    assert managed.state.step is Step.STEADY


@pytest.mark.parametrize("first", [ONE, NOTHING])
def test_nothing_to_publish_is_a_document_like_others(first: bytes) -> None:
    world = World(rows=first)
    world.settle()
    for rows in (NOTHING, TWO, NOTHING, ONE):
        world.rows = rows
        world.settle()
        assert (world.zone, world.served) == (digests(*filter(None, [rows])), rows)


def test_a_digest_that_was_deleted_is_written_again_and_waited_for(managed: World) -> None:
    managed.rows = TWO
    managed.run()
    managed.wait(minutes=69)
    managed.zone = digests(ONE)
    managed.wait(minutes=5)
    managed.run()
    assert (managed.zone, managed.served) == (digests(ONE, TWO), ONE)
    managed.wait(minutes=69)
    managed.run()
    assert managed.served == ONE


def test_resolvers_may_remember_digests_for_a_ttl_that_was_longer(managed: World) -> None:
    managed.ttl = 86_400
    managed.run()
    managed.look()
    managed.ttl = 3600
    managed.rows = TWO
    managed.run()
    managed.wait(hours=23)
    managed.run()
    assert managed.served == ONE
    managed.wait(hours=2)
    managed.run()
    assert managed.served == TWO
    managed.settle()
    assert managed.state is not None
    assert managed.state.ttl == 3600


def test_a_domain_that_comes_back_is_served_when_its_deleted_digest_is_forgotten(
    managed: World,
) -> None:
    managed.state, managed.zone = end(managed.state, managed.now, WAITS), frozenset()
    managed.wait(minutes=1)
    managed.rows = TWO
    managed.run()
    assert (managed.zone, managed.served) == (frozenset(), NOTHING)
    managed.wait(hours=3)
    managed.run()
    assert (managed.zone, managed.served) == (digests(TWO), NOTHING)
    managed.settle()
    assert managed.served == TWO
    managed.state = end(managed.state, managed.now, WAITS)
    assert managed.state is not None
    assert end(managed.state, managed.now + timedelta(minutes=130), WAITS) == managed.state
    assert end(managed.state, managed.now + timedelta(minutes=131), WAITS) is None


EVENTS = st.one_of(
    st.tuples(st.just("rows"), st.sampled_from([ONE, TWO, THREE, NOTHING])),
    st.tuples(st.just("run"), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.sampled_from([1, 30, 600, 3600, 4203, 7826, 8000])),
)


@given(st.lists(EVENTS, max_size=40), st.booleans())
def test_no_client_ever_sees_a_mismatch(events: list[tuple[str, bytes | int]], aware: bool) -> None:
    """Rows change, programs are killed, time passes: in any order."""
    world = World()
    world.settle()
    actions: dict[str, Callable[[int], None]] = {
        "run": lambda steps: world.run(steps, sees_zone=aware),
        "wait": lambda seconds: world.wait(seconds=seconds),
    }
    for name, value in events:
        if isinstance(value, bytes):
            world.rows = value
        else:
            actions[name](value)
        world.look()
    world.settle()
    assert (world.zone, world.served) == (digests(*filter(None, [world.rows])), world.rows)


def test_a_wait_that_is_too_short_would_be_noticed(managed: World) -> None:
    managed.rows = TWO
    managed.run()
    managed.wait(minutes=30)
    assert managed.state is not None
    managed.state = replace(managed.state, due_at=managed.now)
    with pytest.raises(AssertionError, match="has none of the digests"):
        managed.run()
