"""The one active controller: each alone, and any number of them with wrong clocks, pauses and deaths."""

from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pilothouse.control.fence import Fence, FencedStore
from pilothouse.control.leadership import NAME, RENEW_S, TTL_S, Leadership
from pilothouse.domain.errors import Conflict
from pilothouse.domain.tenancy import Team
from pilothouse.ports.store import Store, UnitOfWork
from pilothouse.testing.memory_store import MemoryStore

T = TypeVar("T")


class World:
    """The time that all share, and the store."""

    def __init__(self) -> None:
        self.time = 1_000_000.0
        self.store: Store = MemoryStore()


class Member:
    """One controller; its wall clock is off by `skew_s`. While it waits, `meanwhile` happens each second."""

    def __init__(self, world: World, holder: str, *, skew_s: float = 0.0) -> None:
        self.world = world
        self.skew_s = skew_s
        self.fence = Fence()
        self.meanwhile: Callable[[], None] = lambda: None
        self._store = FencedStore(world.store, self.fence)
        self.leadership = Leadership(self, self.fence, holder=holder, clock=self, pause=self._pause)

    def now(self) -> float:
        return self.world.time + self.skew_s

    def monotonic(self) -> float:
        return self.world.time

    async def __call__(self, work: Callable[[UnitOfWork], T], /, *, urgent: bool = False) -> T:
        with self._store.unit(urgent=urgent) as unit:
            return work(unit)

    async def _pause(self, seconds: float) -> None:
        self.world.time += seconds
        self.meanwhile()

    def write(self, name: str) -> None:
        with self._store.unit() as unit:
            unit.teams.add(Team(name=name, created_at=0.0))


def run(coroutine):
    """What never truly waits needs no event loop."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


@pytest.fixture
def world() -> World:
    return World()


def test_a_successor_in_the_same_home_takes_over_at_once(world):
    run(Member(world, "a").leadership.take())
    began = world.time

    run(Member(world, "a").leadership.take())

    assert world.time == began


def test_a_lease_that_was_given_back_is_taken_at_once(world):
    first = Member(world, "a")
    run(first.leadership.take())
    run(first.leadership.release())
    began = world.time

    run(Member(world, "b").leadership.take())

    assert world.time == began


@pytest.mark.parametrize("skew_s", [-3600.0, 0.0, 300.0])
def test_a_live_holder_keeps_it_whatever_the_clock_of_the_other_says(world, skew_s):
    first, second = Member(world, "a"), Member(world, "b", skew_s=skew_s)
    run(first.leadership.take())
    renewed_at = world.time

    def renew():
        nonlocal renewed_at
        if world.time - renewed_at >= RENEW_S:
            assert run(first.leadership.renew())
            renewed_at = world.time

    second.meanwhile = renew
    with pytest.raises(Conflict, match="alive"):
        run(second.leadership.take())

    first.write("still")


@pytest.mark.parametrize("skew_s", [-3600.0, 0.0, 300.0])
def test_a_dead_holder_is_followed_when_its_lease_stood_still(world, skew_s):
    first, second = Member(world, "a"), Member(world, "b", skew_s=skew_s)
    run(first.leadership.take())
    began = world.time

    run(second.leadership.take())

    assert TTL_S < world.time - began <= TTL_S + RENEW_S + 1
    second.write("mine")


def test_one_that_slept_past_its_lease_writes_nothing_more_and_is_told(world):
    first, second = Member(world, "a"), Member(world, "b")
    run(first.leadership.take())
    run(second.leadership.take())

    with pytest.raises(Conflict, match="took over"):
        first.write("late")
    assert run(first.leadership.renew()) is False
    with world.store.unit() as unit:
        assert unit.teams.all() == []


def test_of_two_that_watch_the_same_abandoned_lease_one_gets_it(world):
    run(Member(world, "a").leadership.take())
    second, third = Member(world, "b"), Member(world, "c")
    second.meanwhile = lambda: None
    taken = False

    def third_is_faster():
        nonlocal taken
        if not taken:
            taken = True
            run(third.leadership.take())

    second.meanwhile = third_is_faster
    with pytest.raises(Conflict):
        run(second.leadership.take())
    third.write("mine")


NAMES = st.sampled_from(["a", "b", "c"])


class AnyHistory(RuleBasedStateMachine):
    """The model is one name: who took the lease last. Only it may write, whatever happened before."""

    def make_store(self) -> Store:
        return MemoryStore()

    @initialize(skews=st.lists(st.floats(-900, 900), min_size=3, max_size=3))
    def begin(self, skews):
        self.world = World()
        self.world.store = self.make_store()
        self.members = {
            name: Member(self.world, name, skew_s=skew) for name, skew in zip("abc", skews, strict=True)
        }
        self.leader: str | None = None
        self.written = 0
        self.tokens: list[int] = []

    @rule(name=NAMES)
    def take(self, name):
        member = Member(self.world, name, skew_s=self.members[name].skew_s)
        try:
            run(member.leadership.take())
        except Conflict:
            assert self.leader not in (None, name), "the lease was free, or its own"
            return
        self.members[name], self.leader = member, name
        assert member.fence.lease is not None
        self.tokens.append(member.fence.lease.token)

    @rule(name=NAMES)
    def renew(self, name):
        held = run(self.members[name].leadership.renew())

        assert held == (name == self.leader)

    @rule(name=NAMES)
    def release(self, name):
        if name == self.leader:
            run(self.members[name].leadership.release())
            self.leader = None

    @rule(seconds=st.floats(0, 2000))
    def sleep(self, seconds):
        self.world.time += seconds

    @rule(name=NAMES)
    def write(self, name):
        member = self.members[name]
        if member.fence.lease is None:  # it never led: such a one writes nothing
            return
        if name == self.leader:
            self.written += 1
            member.write(f"t{self.written}")
        else:
            with pytest.raises(Conflict):
                member.write("never")

    @invariant()
    def nothing_was_written_by_another(self):
        if hasattr(self, "world"):
            with self.world.store.unit() as unit:
                assert len(unit.teams.all()) == self.written

    @invariant()
    def tokens_never_go_back(self):
        if hasattr(self, "tokens"):
            assert self.tokens == sorted(self.tokens)

    def teardown(self):
        if hasattr(self, "world"):
            self.world.store.close()


AnyHistory.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAnyHistory = AnyHistory.TestCase


def test_the_name_of_the_lease_is_in_the_store_for_people(world):
    run(Member(world, "host:/home").leadership.take())

    with world.store.unit() as unit:
        lease = unit.leases.get(NAME)
    assert lease is not None
    assert lease.holder == "host:/home"
