"""Places: who holds one, who waits, and in which order."""

import asyncio
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from pilothouse.domain.errors import DeadlineExceeded, EngineUnavailable, Overloaded
from pilothouse.domain.snapshot import DeploymentEntry, ReplicaEntry
from pilothouse.gateway.permit import Places
from pilothouse.gateway.place import Place, ReplicaPlaces
from pilothouse.gateway.waiting import Terms
from watched_engine import WatchedEngine

READY = DeploymentEntry(name="d", phase="ready")


def replica(name: str = "r", *, slots: tuple[int, ...] = (), inflight: int = 0) -> ReplicaPlaces:
    entry = ReplicaEntry(
        name=name, deployment="d", engine="x", address="", slots=slots, max_inflight=inflight
    )
    return ReplicaPlaces(entry, WatchedEngine(slots=bool(slots)))


def places(*replicas: ReplicaPlaces) -> Places:
    made = Places("d")
    made.change(READY, {r.entry.name: r for r in replicas})
    return made


async def waiting(made: Places, team: str = "a", timeout_s: float = 5.0) -> "asyncio.Task[Place]":
    task = asyncio.create_task(made.take(team, timeout_s=timeout_s))
    await asyncio.sleep(0)
    return task


def test_the_least_loaded_replica_is_taken():
    made = places(replica("r1", inflight=4), replica("r2", inflight=4))

    taken = [made.try_take("a").replica.entry.name for _ in range(4)]

    assert sorted(taken) == ["r1", "r1", "r2", "r2"]
    assert taken[0] != taken[1]


def test_a_slots_prefix_is_reused_by_the_same_team_only():
    made = places(replica(slots=(0,)))

    reuse = []
    for team in ("a", "a", "b", "a"):
        place = made.try_take(team)
        reuse.append(place.placement.reuse_prefix)
        place.is_used = True
        made.release(place)

    assert reuse == [False, True, False, False]


def test_a_team_gets_its_own_slot_back_where_it_is_free():
    made = places(replica(slots=(0, 1, 2)))
    first = made.try_take("a")
    other = made.try_take("b")
    for place in (other, first):
        place.is_used = True
        made.release(place)

    again = made.try_take("a")

    assert again.placement.slot == first.placement.slot
    assert again.placement.reuse_prefix


def test_a_slot_that_was_taken_and_never_answered_is_not_the_teams():
    """The engine refused, or the client left first: it may still hold the prompt of the team before."""
    made = places(replica(slots=(0,)))
    for team, is_used in (("a", True), ("b", False)):
        place = made.try_take(team)
        place.is_used = is_used
        made.release(place)

    again = made.try_take("b")

    assert not again.placement.reuse_prefix


def test_a_slot_that_was_leased_away_is_strange_when_it_returns():
    r = replica(slots=(0, 1))
    made = places(r)
    place = made.try_take("a")
    place.is_used = True
    made.release(place)
    for slots in ((1,), (0, 1)):
        r.change(ReplicaEntry(name="r", deployment="d", engine="x", address="", slots=slots))
    for _ in range(2):
        again = made.try_take("a")
        assert not again.placement.reuse_prefix


def test_a_slot_in_use_that_is_leased_away_and_back_has_one_holder():
    r = replica(slots=(0, 1))
    made = places(r)
    held = made.try_take("a")
    for slots in ((1,), (0, 1)):
        made.change(READY, {"r": r})
        r.change(ReplicaEntry(name="r", deployment="d", engine="x", address="", slots=slots))

    others = [made.try_take("b"), made.try_take("c")]

    assert [place.placement.slot for place in others if place] == [1]
    made.release(held)
    assert made.try_take("d").placement.slot == 0
    assert made.try_take("e") is None


async def test_who_waits_is_served_in_order():
    made = places(replica(inflight=1))
    held = made.try_take("a")
    tasks = [await waiting(made) for _ in range(3)]
    served = []
    for _ in range(3):
        made.release(held)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        served.append([task.done() for task in tasks])
        held = tasks[len(served) - 1].result()

    assert served == [[True, False, False], [True, True, False], [True, True, True]]


async def test_nobody_overtakes_those_who_wait():
    made = places(replica(inflight=1))
    held = made.try_take("a")
    first = await waiting(made)
    held.replica.inflight -= 1  # a place comes free that nobody was told of yet

    assert made.try_take("b") is None
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_a_full_queue_says_so_and_when_to_come_back():
    made = places(replica(inflight=1))
    made.try_take("a")
    tasks = [await waiting(made) for _ in range(2)]

    with pytest.raises(Overloaded) as caught:
        await made.take("a", Terms(queue_size=2), timeout_s=1.0)

    assert caught.value.retry_after_s is not None
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert made.queued == 0


async def test_waiting_ends_in_time():
    made = places(replica(inflight=1))
    made.try_take("a")

    with pytest.raises(DeadlineExceeded):
        await made.take("a", timeout_s=0.01)

    assert made.queued == 0


async def test_without_a_replica_nobody_waits():
    made = Places("d")
    made.change(DeploymentEntry(name="d", phase="starting", reason="it is loading", retry_after_s=7.0), {})

    with pytest.raises(EngineUnavailable, match="it is loading") as caught:
        await made.take("a", timeout_s=1.0)

    assert caught.value.retry_after_s == 7.0


async def test_those_who_wait_are_told_when_the_last_replica_goes():
    made = places(replica(inflight=1))
    made.try_take("a")
    tasks = [await waiting(made) for _ in range(2)]

    made.change(DeploymentEntry(name="d", phase="failed", reason="it died"), {})

    for task in tasks:
        with pytest.raises(EngineUnavailable, match="it died"):
            await task


async def test_a_new_replica_serves_those_who_wait():
    full = replica("r1", inflight=1)
    made = places(full)
    made.try_take("a")
    task = await waiting(made)

    made.change(READY, {"r1": full, "r2": replica("r2", inflight=1)})

    assert (await task).replica.entry.name == "r2"


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_a_place_given_to_one_who_left_in_that_moment_goes_to_the_next(how: str):
    made = places(replica(inflight=1))
    held = made.try_take("a")
    leaving = await waiting(made, timeout_s=0.01 if how == "timed out" else 5.0)
    staying = await waiting(made)

    if how == "cancelled":
        made.release(held)
        leaving.cancel()
    else:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)
        loop.call_later(0.01, made.release, held)
    await asyncio.gather(leaving, return_exceptions=True)

    if not leaving.cancelled() and leaving.exception() is None:
        made.release(leaving.result())
    assert (await asyncio.wait_for(staying, 1.0)).replica.inflight == 1


TEAMS = st.sampled_from(["a", "b", "c"])
LEASES = st.sets(st.integers(0, 3), max_size=4).map(lambda slots: tuple(sorted(slots)))


def test_a_worker_that_leaves_gives_up_free_slots_and_never_takes_them_back():
    one = replica(slots=(0, 1, 2))
    made = places(one)
    held = made.try_take("a")
    assert held is not None

    made.give_up_free()
    one.change(replace(one.entry, slots=(0, 1, 2)))  # a snapshot that was on its way

    assert one.entry.slots == (held.placement.slot,)
    assert made.try_take("b") is None
    made.release(held)
    made.give_up_free()
    assert one.entry.slots == ()


async def test_a_worker_that_leaves_serves_those_who_wait_in_it_first():
    one = replica(slots=(0,))
    made = places(one)
    held = made.try_take("a")
    assert held is not None
    waiter = await waiting(made)

    made.give_up_free()
    assert one.entry.slots == (0,)
    made.release(held)

    assert (await waiter).placement.slot == 0


class Crowd(RuleBasedStateMachine):
    """Requests come, wait, go and give up, while leases and replicas change under them."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.places = Places("d", draw=Random(1).random)
        self.held: list[Place] = []
        self.waiting: list[asyncio.Task[Place]] = []
        self.made = 0
        self.last: dict[tuple[int, int], str] = {}
        """Who used a slot last, by replica object and slot; absent where that may be anybody."""
        self.ever: list[ReplicaPlaces] = []

    def teardown(self) -> None:
        for task in self.waiting:
            task.cancel()
        self._turn()
        self.loop.close()

    def _turn(self) -> None:
        """Let tasks run, and take note of who was served, in which order, and with what."""

        async def turn() -> None:
            for _ in range(4):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turn())
        seen_waiting = set()
        for task in list(self.waiting):
            if not task.done():
                seen_waiting.add(task.get_name())
                continue
            self.waiting.remove(task)
            if task.cancelled() or task.exception() is not None:
                continue
            assert task.get_name() not in seen_waiting, (
                "one was served before a colleague who had asked earlier"
            )
            self._note(task.result(), task.get_name())

    def _note(self, place: Place, team: str) -> None:
        self.held.append(place)
        if place.placement.reuse_prefix:
            key = (id(place.replica), place.placement.slot)
            assert self.last.get(key) == team, "a prefix crossed teams"

    def _release(self, data: st.DataObject) -> None:
        place = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        place.is_used = data.draw(st.booleans())
        key = (id(place.replica), place.placement.slot)
        if place.is_used and place.placement.slot in place.replica.entry.slots:
            self.last[key] = place.team
        else:
            self.last.pop(key, None)
        self.places.release(place)

    def _add(self, made: ReplicaPlaces) -> None:
        self.ever.append(made)
        self.places.change(READY, {**self.places.replicas, made.entry.name: made})
        self._turn()

    def _fresh_name(self) -> str:
        self.made += 1
        return f"r{self.made}"

    @initialize(slots=LEASES)
    def begin(self, slots: tuple[int, ...]) -> None:
        self._add(replica(self._fresh_name(), slots=slots or (0, 1)))

    @precondition(lambda self: len(self.places.replicas) < 3)
    @rule(slots=LEASES)
    def a_replica_with_slots_comes(self, slots: tuple[int, ...]) -> None:
        self._add(replica(self._fresh_name(), slots=slots or (0,)))

    @precondition(lambda self: len(self.places.replicas) < 3)
    @rule(inflight=st.integers(1, 3))
    def a_replica_without_slots_comes(self, inflight: int) -> None:
        self._add(replica(self._fresh_name(), inflight=inflight))

    @precondition(lambda self: self.places.replicas)
    @rule(data=st.data())
    def a_replica_goes(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.places.replicas)))
        rest = {n: r for n, r in self.places.replicas.items() if n != name}
        self.places.change(READY, rest)
        self._turn()

    @precondition(lambda self: any(r.entry.slots for r in self.places.replicas.values()))
    @rule(data=st.data(), slots=LEASES)
    def a_lease_changes(self, data: st.DataObject, slots: tuple[int, ...]) -> None:
        with_slots = [n for n, r in self.places.replicas.items() if r.engine.info.slots]
        found = self.places.replicas[data.draw(st.sampled_from(sorted(with_slots)))]
        for slot in set(found.entry.slots) - set(slots):
            self.last.pop((id(found), slot), None)
        entry = ReplicaEntry(name=found.entry.name, deployment="d", engine="x", address="", slots=slots)
        found.change(entry)
        self.places.change(READY, dict(self.places.replicas))
        self._turn()

    @rule(team=TEAMS)
    def a_request_comes(self, team: str) -> None:
        task = self.loop.create_task(self.places.take(team, timeout_s=60.0), name=team)
        self.waiting.append(task)
        self._turn()

    @rule(team=TEAMS)
    def a_request_looks_for_another_place(self, team: str) -> None:
        place = self.places.try_take(team)
        if place is not None:
            assert not self.waiting, "somebody was overtaken"
            self._note(place, team)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def a_request_ends(self, data: st.DataObject) -> None:
        self._release(data)
        self._turn()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def one_who_waits_gives_up(self, data: st.DataObject) -> None:
        self.waiting[data.draw(st.integers(0, len(self.waiting) - 1))].cancel()
        self._turn()

    @precondition(lambda self: self.waiting and self.held)
    @rule(data=st.data())
    def one_gives_up_as_a_place_comes_free(self, data: st.DataObject) -> None:
        self._release(data)
        self.waiting[data.draw(st.integers(0, len(self.waiting) - 1))].cancel()
        self._turn()

    @invariant()
    def nobody_shares_a_slot(self) -> None:
        held = [(id(p.replica), p.placement.slot) for p in self.held if p.placement.slot is not None]
        assert len(held) == len(set(held))

    @invariant()
    def every_place_is_held_or_free_and_none_is_lost(self) -> None:
        for found in self.ever:
            mine = [place for place in self.held if place.replica is found]
            assert found.inflight == len(mine)
            if found.engine.info.slots:
                in_use = {place.placement.slot for place in mine}
                assert len(found.free_slots) == len(set(found.free_slots))
                assert set(found.free_slots) == set(found.entry.slots) - in_use
            else:
                assert found.inflight <= found.entry.max_inflight

    @invariant()
    def nobody_waits_while_a_place_is_free(self) -> None:
        assert self.places.queued == len(self.waiting)
        if self.waiting:
            assert all(found.free <= 0 for found in self.places.replicas.values())
            assert self.places.replicas, "somebody waits for nobody"


TestCrowd = Crowd.TestCase
TestCrowd.settings = settings(deadline=None, max_examples=40, stateful_step_count=25)
