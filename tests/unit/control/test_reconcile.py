import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from control_fakes import Fakes, StrictTarget, model
from pilothouse.control.fleet import Fleet
from pilothouse.control.lease import SlotLeases
from pilothouse.control.probe import Pace
from pilothouse.control.publish import Publishing
from pilothouse.control.reconcile import HURRIED_TICK_S, Reconciler
from pilothouse.control.totals import WorkerTotals
from pilothouse.domain.errors import NotFound, OperationFailed
from pilothouse.domain.plan import pull_subject, replica_name
from pilothouse.domain.snapshot import Snapshot, WorkerHello, WorkerReport
from pilothouse.domain.spec import (
    DeploymentSpec,
    EndpointSpec,
    ModelSpec,
    ReplicaRange,
    RouteSpec,
    Spec,
)
from pilothouse.domain.status import Health, Load
from pilothouse.ports.store import StoredSpec
from pilothouse.testing.memory_feed import MemoryPublisher

FAST = Pace(start_poll_s=0.001, look_s=0.001, idle_poll_s=0.001)
ENDPOINTS = {"e": EndpointSpec(routes=[RouteSpec(deployment="d")])}


def spec(*, slots: int = 4, count: int = 1) -> Spec:
    deployment = DeploymentSpec(
        model="m", engine_options={"slots": slots}, replicas=ReplicaRange(min=count, max=9)
    )
    return Spec(
        models={"m": ModelSpec(source="file:/m.gguf")}, deployments={"d": deployment}, endpoints=ENDPOINTS
    )


def name_of(declared: Spec, number: int = 0) -> str:
    return replica_name("d", declared.deployments["d"], "sha256:aa", number)


class Rig:
    """One life of a controller over a world that outlives it."""

    def __init__(self, fakes: Fakes) -> None:
        self.fakes = fakes
        self.publisher = MemoryPublisher()
        self.fleet = Fleet(WorkerTotals())
        leases = SlotLeases(1, fakes.clock)
        self.publishing = Publishing(
            self.publisher, leases, self.fleet, keys=dict, epoch="e", first_revision=1
        )
        self.loop = Reconciler(fakes.world, self.fleet, self.publishing, leases, pace=FAST)

    def declare(self, declared: Spec, revision: int = 1) -> None:
        self.loop.declare(StoredSpec(revision=revision, spec=declared, author="test", time=1.0))

    async def until(self, claim: Callable[[], Any]) -> None:
        async with asyncio.timeout(5):
            await self.loop.round()
            while not claim():
                await asyncio.sleep(0.001)
                await self.loop.round()

    def ready(self) -> set[str]:
        return {replica.name for replica in self.loop.status.replicas if replica.state == "ready"}

    async def until_ready(self, *names: str) -> None:
        await self.until(
            lambda: {r.name for r in self.loop.status.replicas if r.state == "ready"} == set(names)
        )

    def published(self) -> set[str]:
        view: Snapshot = self.publishing._view(WorkerHello(worker="w", pid=1))
        return {entry.name for entries in view.replicas.values() for entry in entries}

    def worker_follows(self) -> None:
        self.published()
        self.fleet.hear(WorkerReport(worker="w", pid=1, time=1.0, revision=self.publishing.revision))


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


@pytest.fixture
async def rigs(fakes: Fakes) -> AsyncIterator[Callable[[], Rig]]:
    made: list[Rig] = []

    def make() -> Rig:
        made.append(Rig(fakes))
        return made[-1]

    yield make
    for rig in made:
        await rig.loop.aclose()


async def test_from_nothing_to_a_published_replica(fakes, rigs):
    rig = rigs()
    rig.declare(spec())

    await rig.until_ready(name_of(spec()))

    assert fakes.shelf.pulled == ["file:/m.gguf"]
    assert rig.published() == {name_of(spec())}
    assert rig.loop.status.endpoints["e"].phase == "ready"


async def test_a_model_that_the_store_knows_is_not_pulled_again(fakes, rigs):
    rig = rigs()
    rig.loop.have_models([model()])
    rig.declare(spec())

    await rig.until_ready(name_of(spec()))

    assert fakes.shelf.pulled == []


async def test_a_replica_without_a_token_is_not_published(fakes, rigs):
    fakes.driver.default = Health(ok=False, reason="loading")
    rig = rigs()
    rig.declare(spec())

    await rig.until(lambda: fakes.driver.engines and next(iter(fakes.driver.engines.values())).probes > 3)

    assert rig.published() == set()
    assert rig.loop.status.deployments["d"].message == "loading"


async def test_a_dead_replica_is_withdrawn_at_once_and_restarted_when_due(fakes, rigs):
    rig = rigs()
    rig.declare(spec())
    name = name_of(spec())
    await rig.until_ready(name)

    fakes.target.kill(name)
    await rig.loop.round()
    assert rig.published() == set()
    assert "killed by signal 9" in rig.loop.status.deployments["d"].message
    for _ in range(5):
        await rig.loop.round()
    assert fakes.target.starts == 1

    fakes.clock.time += 1
    await rig.until_ready(name)

    assert fakes.target.starts == 2


async def test_restarts_come_slower_and_slower_until_it_was_ready_for_a_minute(fakes, rigs):
    rig = rigs()
    rig.declare(spec())
    name = name_of(spec())
    delays = []
    for _ in range(4):
        await rig.until_ready(name)
        fakes.target.kill(name)
        await rig.loop.round()
        delays.append(rig.loop.observer._retries.all()[name].next_at - fakes.clock.time)
        fakes.clock.time += 60
    await rig.until_ready(name)
    fakes.clock.time += 61
    await rig.loop.round()

    assert delays == sorted(delays)
    assert delays[-1] > 4 * delays[0]
    assert name not in rig.loop.observer._retries.all()


async def test_a_start_that_is_refused_says_why_and_is_tried_again(fakes, rigs):
    fakes.driver.refusal = "needs 9 GB, 2 GB are free"
    rig = rigs()
    rig.declare(spec())

    await rig.until(lambda: "needs 9 GB" in rig.loop.status.deployments["d"].message)
    assert rig.loop.status.deployments["d"].phase == "failed"

    fakes.driver.refusal = ""
    fakes.clock.time += 60
    await rig.until_ready(name_of(spec()))


async def test_a_start_that_is_refused_again_and_again_is_tried_more_and_more_rarely(fakes, rigs):
    fakes.driver.refusal = "vllm is missing"
    rig = rigs()
    rig.declare(spec())
    name, delays = name_of(spec()), []

    for failures in range(1, 9):
        await rig.until(lambda n=failures: (r := retry_of(rig, name)) is not None and r.failures == n)
        delays.append(retry_of(rig, name).next_at - fakes.clock.time)
        fakes.clock.time += 60

    assert delays[-1] >= 20
    assert delays[-1] > 4 * delays[0]


def retry_of(rig, name):
    return rig.loop.observer._retries.all().get(name)


async def test_a_changed_spec_replaces_the_replica_without_a_gap(fakes, rigs):
    rig = rigs()
    rig.declare(spec())
    old, new = name_of(spec()), name_of(spec(slots=2))
    await rig.until_ready(old)
    fakes.driver.engines[f"unix:/{old}"].busy = Load(running=1)

    rig.declare(spec(slots=2), revision=2)
    await rig.until(lambda: rig.published() == {new})
    rig.worker_follows()
    for _ in range(20):
        await rig.loop.round()
        await asyncio.sleep(0.001)
    assert old in fakes.target.replicas, "a request was still running there"

    fakes.driver.engines[f"unix:/{old}"].busy = Load()
    await rig.until(lambda: fakes.target.stopped == [old])
    await rig.until_ready(new)


async def test_nothing_is_stopped_before_all_workers_follow(fakes, rigs):
    rig = rigs()
    rig.declare(spec())
    old, new = name_of(spec()), name_of(spec(slots=2))
    await rig.until_ready(old)
    rig.worker_follows()

    rig.declare(spec(slots=2), revision=2)
    await rig.until(lambda: rig.published() == {new})
    for _ in range(20):
        await rig.loop.round()
        await asyncio.sleep(0.001)
    assert fakes.target.stopped == []

    rig.worker_follows()
    await rig.until(lambda: fakes.target.stopped == [old])


async def test_a_removed_deployment_is_drained_and_stopped(fakes, rigs):
    rig = rigs()
    rig.declare(spec())
    await rig.until_ready(name_of(spec()))

    rig.declare(Spec(), revision=2)
    await rig.until(lambda: not fakes.target.replicas)

    assert rig.published() == set()


async def test_a_slow_pull_holds_up_nothing_else(fakes, rigs):
    gate = asyncio.Event()
    pull = fakes.shelf.pull_declared

    async def slow(name: str, declared: ModelSpec, *, progress: Any) -> Any:
        await gate.wait()
        return await pull(name, declared, progress=progress)

    fakes.shelf.pull_declared = slow
    declared = spec()
    both = replace(
        declared,
        models={**declared.models, "other": ModelSpec(source="file:/other.gguf")},
        deployments={**declared.deployments, "x": DeploymentSpec(model="other")},
    )
    rig = rigs()
    rig.loop.have_models([model()])
    rig.declare(both)

    await rig.until_ready(name_of(spec()))
    await rig.until(lambda: rig.loop.status.deployments["x"].phase == "pulling")

    gate.set()
    await rig.until(lambda: rig.loop.status.deployments["x"].phase == "ready")


async def test_a_pull_that_only_a_correction_can_help_waits_long(fakes, rigs):
    fakes.shelf.error = NotFound("no such package")
    rig = rigs()
    rig.declare(spec())

    await rig.until(lambda: rig.loop.status.deployments["d"].phase == "failed")

    retry = rig.loop.observer._retries.all()[pull_subject("m", "file:/m.gguf")]
    assert retry.next_at - fakes.clock.time >= 300
    assert rig.loop.status.deployments["d"].message == "no such package"


async def test_a_model_whose_file_is_gone_is_pulled_again_and_starts_without_a_pause(fakes, rigs):
    fakes.shelf.lost.add(model().digest)
    rig = rigs()
    rig.loop.have_models([model()])
    rig.declare(spec())

    await rig.until_ready(name_of(spec()))

    assert fakes.shelf.pulled == ["file:/m.gguf"]
    assert name_of(spec()) not in rig.loop.observer._retries.all()


async def test_a_new_controller_adopts_what_runs(fakes, rigs):
    first = rigs()
    first.declare(spec())
    await first.until_ready(name_of(spec()))
    pid = fakes.target.replicas[name_of(spec())].replica.pid
    await first.loop.aclose()

    second = rigs()
    second.loop.have_models([model()])
    second.declare(spec())
    await second.loop.round()
    await second.loop.settle(timeout_s=5)

    assert [(r.state, r.pid) for r in second.loop.status.replicas] == [("ready", pid)]
    assert fakes.target.starts == 1


async def test_stopping_all_drains_and_keeps_the_endpoints_known(fakes, rigs):
    rig = rigs()
    rig.declare(spec(count=2))
    await rig.until_ready(name_of(spec()), name_of(spec(), 1))

    await rig.loop.stop_all(drain_s=5, timeout_s=5)

    assert fakes.target.replicas == {}
    assert set(rig.publishing._view(WorkerHello(worker="w", pid=1)).endpoints) == {"e"}


async def test_a_storm_of_wakes_costs_one_round_in_a_while(fakes, rigs):
    rig = rigs()
    rounds = 0
    real = rig.loop.round

    async def counted() -> None:
        nonlocal rounds
        rounds += 1
        await real()

    rig.loop.round = counted
    loop = asyncio.get_running_loop()
    began = loop.time()
    running = asyncio.ensure_future(rig.loop.run())
    for _ in range(50):
        rig.loop.wake()
        await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.wait([running])

    assert rounds <= 2 + (loop.time() - began) / HURRIED_TICK_S


class Fragile(StrictTarget):
    """Fails by a seeded die: before the effect, after it, or with a process that dies at once."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.die = Random(seed)
        self.calm = False

    def _roll(self) -> int:
        return 9 if self.calm else self.die.randrange(6)

    async def start(self, name: str, *args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        roll = self._roll()
        if roll == 0:
            raise OperationFailed("crashed before the start")
        replica = await super().start(name, *args, **kwargs)
        if roll == 1:
            raise OperationFailed("crashed after the start")
        if roll == 2:
            self.kill(name)
        return replica

    async def stop(self, name: str, *, grace_s: float) -> None:
        await asyncio.sleep(0)
        roll = self._roll()
        if roll == 0:
            raise OperationFailed("crashed before the stop")
        await super().stop(name, grace_s=grace_s)
        if roll == 1:
            raise OperationFailed("crashed after the stop")


CHANGES: Iterable[str] = ["slots", "count", "none", "back", "crash", "kill", "time"]


async def test_replicas_that_are_started_at_once_must_fit_together(fakes, rigs):
    fakes.driver.memory_bytes = (1 << 33) // 2 + 1
    fakes.driver.default = Health(ok=False, reason="loading")
    rig = rigs()
    rig.declare(spec(count=2))

    await rig.until(lambda: "does not fit beside" in rig.loop.status.deployments["d"].message)
    assert len(fakes.target.replicas) == 1


async def test_a_deployment_sleeps_without_requests_and_wakes_for_those_that_wait(fakes, rigs):
    rig = rigs()
    declared = spec()
    replicas = ReplicaRange(scale_to_zero_after="10m")
    declared = replace(declared, deployments={"d": replace(declared.deployments["d"], replicas=replicas)})
    rig.declare(declared)
    await rig.until_ready(name_of(declared))

    fakes.clock.time += 601
    await rig.until(lambda: not rig.loop.status.replicas)

    entry = rig.publishing._view(WorkerHello(worker="w", pid=1)).deployments["d"]
    assert entry.may_hold
    assert "wakes it" in entry.reason
    rig.fleet.hear(WorkerReport(worker="w", pid=1, time=1.0, revision=1, queues={"d": 1}))
    await rig.until_ready(name_of(declared))
    assert rig.loop.status.deployments["d"].scaled_because == "woken"


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32), steps=st.lists(st.sampled_from(list(CHANGES)), max_size=10))
def test_any_interleaving_of_crashes_and_changes_converges(seed, steps):
    async def story() -> None:
        fakes = Fakes(Fragile(seed))
        target: Any = fakes.target
        declared, rig = spec(), Rig(fakes)
        rig.declare(declared)
        for step in steps:
            if step == "crash":
                await rig.loop.aclose()
                rig = Rig(fakes)
            elif step == "kill" and target.replicas:
                target.kill(sorted(target.replicas)[0])
            elif step == "time":
                fakes.clock.time += 100
            else:
                declared = {
                    "slots": spec(slots=2),
                    "count": spec(count=3),
                    "none": Spec(endpoints={}),
                }.get(step, declared)
            rig.declare(declared)
            for _ in range(3):
                await rig.loop.round()
                await asyncio.sleep(0)
        target.calm = True
        wanted = set()
        if declared.deployments:
            count = declared.deployments["d"].replicas.min
            wanted = {name_of(declared, number) for number in range(count)}
        async with asyncio.timeout(20):
            while not set(target.replicas) == rig.ready() == wanted:
                fakes.clock.time += 5
                await rig.loop.round()
                await asyncio.sleep(0.001)
        await rig.loop.aclose()

    asyncio.run(story())
