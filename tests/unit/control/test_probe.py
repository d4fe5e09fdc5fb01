import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from control_fakes import FakeEngine, TickingClock
from pilothouse.control.probe import Pace, Probe
from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.status import Health, Load, Replica
from pilothouse.kit.retry import Backoff

FAST = Pace(
    start_poll_s=0.001,
    attached_poll=Backoff(first_s=0.001, ceiling_s=0.001),
    look_s=0.001,
    idle_poll_s=0.001,
    ready_timeout_s=10.0,
)
REPLICA = Replica(
    name="d-1", deployment="d", model_digest="x", state="starting", engine="llama.cpp", address="unix:/s"
)


class Rig:
    def __init__(self, *, adopted: bool = False, attached: bool = False) -> None:
        self.engine = FakeEngine()
        self.clock = TickingClock()
        self.quiet = True
        self.refusal = ""
        self.changes = 0
        self.probe = Probe(
            REPLICA,
            self.connect,
            clock=self.clock,
            adopted=adopted,
            attached=attached,
            is_quiet=lambda: self.quiet,
            changed=self.note,
            pace=FAST,
        )
        self.task: asyncio.Task[None] | None = None

    def note(self) -> None:
        self.changes += 1

    def connect(self) -> FakeEngine:
        if self.refusal:
            raise OperationFailed(self.refusal)
        return self.engine

    def start(self) -> None:
        self.task = asyncio.ensure_future(self.probe.run())

    async def until(self, claim: Callable[[], Any]) -> None:
        if self.task is None:
            self.start()
        async with asyncio.timeout(5):
            while not claim():
                await asyncio.sleep(0.001)

    async def after_looks(self, count: int) -> None:
        target = self.engine.looks + count
        await self.until(lambda: self.engine.looks >= target)

    async def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])


@pytest.fixture
async def rigs() -> AsyncIterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(**how: bool) -> Rig:
        made.append(Rig(**how))
        return made[-1]

    yield make
    for rig in made:
        await rig.close()


async def test_ready_is_when_a_token_was_produced(rigs):
    rig = rigs()
    rig.engine.answer = Health(ok=False, reason="loading")
    await rig.until(lambda: rig.engine.probes > 3)
    assert not rig.probe.is_ready
    assert rig.probe.reason == "loading"

    rig.engine.answer = Health(ok=True)
    await rig.until(lambda: rig.probe.is_ready)

    assert rig.changes == 1
    assert rig.probe.reason == ""


async def test_no_token_in_time_is_a_failure(rigs):
    rig = rigs()
    rig.engine.answer = Health(ok=False, reason="loading")
    await rig.until(lambda: rig.engine.probes > 1)

    rig.clock.time += 11
    await rig.until(lambda: rig.probe.failure)

    assert rig.probe.failure == "no token in time: loading"
    await rig.until(lambda: rig.engine.is_closed)


async def test_a_replica_found_busy_is_ready_without_a_probe(rigs):
    rig = rigs(adopted=True)
    rig.engine.answer = Health(ok=False, reason="every slot is taken")
    rig.engine.busy = Load(running=4)

    await rig.until(lambda: rig.probe.is_ready)

    assert rig.engine.probes == 0


async def test_a_replica_found_idle_is_probed(rigs):
    rig = rigs(adopted=True)

    await rig.until(lambda: rig.probe.is_ready)

    assert rig.engine.probes == 1


async def test_a_ready_replica_is_only_asked_for_its_load(rigs):
    rig = rigs()
    await rig.until(lambda: rig.probe.is_ready)
    await rig.after_looks(20)

    assert rig.engine.probes == 1


async def test_a_busy_replica_is_never_replaced_for_being_slow(rigs):
    rig = rigs()
    await rig.until(lambda: rig.probe.is_ready)

    rig.quiet = False
    rig.engine.busy = None
    rig.engine.answer = Health(ok=False, reason="too slow")
    await rig.after_looks(20)

    assert rig.probe.is_ready
    assert rig.engine.probes == 1


async def test_one_that_answers_nothing_while_idle_fails_after_a_full_probe(rigs):
    rig = rigs()
    await rig.until(lambda: rig.probe.is_ready)

    rig.engine.busy = None
    rig.engine.answer = Health(ok=False, reason="hangs")
    await rig.until(lambda: rig.probe.failure)

    assert rig.probe.failure == "it answers no more: hangs"


async def test_one_that_still_produces_tokens_is_kept_whatever_its_load_says(rigs):
    rig = rigs()
    await rig.until(lambda: rig.probe.is_ready)

    rig.engine.busy = None
    await rig.until(lambda: rig.engine.probes > 3)

    assert rig.probe.is_ready


async def test_an_engine_elsewhere_is_lost_and_found_again_but_never_failed(rigs):
    rig = rigs(attached=True)
    await rig.until(lambda: rig.probe.is_ready)

    rig.engine.busy = None
    rig.engine.answer = Health(ok=False, reason="refused")
    await rig.until(lambda: not rig.probe.is_ready)
    rig.clock.time += 1000
    await rig.until(lambda: rig.probe.reason == "refused")
    assert rig.probe.failure == ""

    rig.engine.answer = Health(ok=True)
    rig.engine.busy = Load()
    await rig.until(lambda: rig.probe.is_ready)


async def test_a_draining_replica_is_unused_when_no_load_is_left(rigs):
    rig = rigs()
    await rig.until(lambda: rig.probe.is_ready)
    rig.engine.busy = Load(running=1)

    rig.probe.is_draining = True
    await rig.after_looks(5)
    assert not rig.probe.is_unused

    rig.engine.busy = Load()
    await rig.until(lambda: rig.probe.is_unused)


async def test_a_draining_server_of_others_is_unused_once_none_of_ours_asks_it(rigs):
    rig = rigs(attached=True)
    await rig.until(lambda: rig.probe.is_ready)
    rig.engine.busy, rig.quiet = Load(running=7), False

    rig.probe.is_draining = True
    await rig.after_looks(5)
    assert not rig.probe.is_unused

    rig.quiet = True
    await rig.until(lambda: rig.probe.is_unused)


async def test_a_draining_replica_that_does_not_answer_counts_as_used(rigs):
    rig = rigs()
    await rig.until(lambda: rig.probe.is_ready)
    rig.engine.busy = None

    rig.probe.is_draining = True
    await rig.after_looks(5)

    assert not rig.probe.is_unused


async def test_a_replica_that_serves_again_is_watched_again(rigs):
    rig = rigs()
    await rig.until(lambda: rig.probe.is_ready)
    rig.probe.is_draining = True
    await rig.until(lambda: rig.probe.is_unused)

    rig.probe.is_draining = False
    await rig.until(lambda: not rig.probe.is_unused)

    assert rig.probe.is_ready
    await rig.after_looks(3)


async def test_an_engine_that_cannot_be_spoken_to_says_why_until_that_is_mended(rigs):
    rig = rigs(attached=True)
    rig.refusal = "there is no secret 's'"
    await rig.until(lambda: rig.probe.reason == rig.refusal)

    rig.refusal = ""

    await rig.until(lambda: rig.probe.is_ready)
