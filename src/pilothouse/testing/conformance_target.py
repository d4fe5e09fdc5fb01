"""
What every Target does, wherever its replicas run.

Subclass `TargetConformance` in a test file and give it the fixture `lab`: a
`TargetLab` with a place for replicas and launches of the three behaviours.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Literal, Protocol, TypeVar

import pytest

from pilothouse.domain.errors import NotFound
from pilothouse.domain.status import Replica
from pilothouse.ports.engine import Launch
from pilothouse.ports.target import Target

PATIENCE_S = 10.0
GRACE_S = 5.0
SHORT_GRACE_S = 0.2
LOOK_S = 0.01
Behaviour = Literal["obedient", "stubborn", "crashing"]
T = TypeVar("T")


class TargetLab(Protocol):
    """
    A place for replicas.

    All of its processes print "hello" first. The obedient one ends at TERM, the
    stubborn one ignores it, the crashing one prints "out of luck" and ends with
    status 3.
    """

    def target(self) -> Target:
        """A new object over the same place, as after a restart of Pilothouse."""
        ...

    def launch(self, behaviour: Behaviour) -> Launch: ...

    def is_alive(self, replica: Replica) -> bool: ...

    def kill(self, replica: Replica) -> None:
        """End its process without asking, as `kill -9` does."""
        ...


async def start(target: Target, lab: TargetLab, behaviour: Behaviour, name: str = "m-1-0") -> Replica:
    return await target.start(
        name,
        lab.launch(behaviour),
        deployment="m",
        engine="llama.cpp",
        model_digest="sha256:aa",
        model_version="m:1",
    )


async def seen_as(target: Target, name: str, state: str) -> Replica:
    """Wait until the target sees it so."""

    async def look() -> Replica | None:
        found = [one for one in await target.observe() if one.name == name]
        return found[0] if found and found[0].state == state else None

    return await eventually(look)


async def eventually(look: Callable[[], Awaitable[T | None]]) -> T:
    deadline = time.monotonic() + PATIENCE_S
    while (found := await look()) is None:
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(LOOK_S)
    return found


class TargetConformance:
    async def test_at_first_there_is_nothing(self, lab: TargetLab) -> None:
        assert await lab.target().observe() == []

    async def test_what_was_started_is_seen_alive(self, lab: TargetLab) -> None:
        target = lab.target()

        started = await start(target, lab, "obedient")

        assert await target.observe() == [started]
        assert lab.is_alive(started)
        assert (started.name, started.deployment, started.engine) == ("m-1-0", "m", "llama.cpp")
        assert (started.model_digest, started.model_version) == ("sha256:aa", "m:1")
        assert (started.state, started.slots, started.context_tokens) == ("starting", 2, 512)
        assert started.pid > 0
        assert started.started_at > 0
        assert "{" not in started.address

    async def test_starting_twice_gives_one_process(self, lab: TargetLab) -> None:
        target = lab.target()

        first = await start(target, lab, "obedient")
        second = await start(target, lab, "obedient")

        assert second == first
        assert await target.observe() == [first]

    async def test_many_starts_at_once_give_one_process(self, lab: TargetLab) -> None:
        targets = [lab.target(), lab.target()]

        started = await asyncio.gather(*(start(targets[i % 2], lab, "obedient") for i in range(6)))

        assert len({replica.pid for replica in started}) == 1
        assert len(await targets[0].observe()) == 1

    async def test_names_are_apart(self, lab: TargetLab) -> None:
        target = lab.target()

        one = await start(target, lab, "obedient", "m-1-0")
        other = await start(target, lab, "obedient", "m-1-1")
        await target.stop("m-1-0", grace_s=GRACE_S)

        assert one.pid != other.pid
        assert one.address != other.address
        assert await target.observe() == [other]

    async def test_after_a_restart_everything_is_found(self, lab: TargetLab) -> None:
        started = await start(lab.target(), lab, "obedient")

        assert await lab.target().observe() == [started]

    async def test_after_a_restart_a_start_gives_the_living_process(self, lab: TargetLab) -> None:
        started = await start(lab.target(), lab, "obedient")

        assert await start(lab.target(), lab, "obedient") == started

    async def test_stop_leaves_neither_process_nor_trace(self, lab: TargetLab) -> None:
        target = lab.target()
        started = await start(target, lab, "obedient")

        await target.stop("m-1-0", grace_s=GRACE_S)

        assert not lab.is_alive(started)
        assert await target.observe() == []
        assert await lab.target().observe() == []

    async def test_stop_after_a_restart_ends_the_process(self, lab: TargetLab) -> None:
        started = await start(lab.target(), lab, "obedient")

        await lab.target().stop("m-1-0", grace_s=GRACE_S)

        assert not lab.is_alive(started)

    async def test_what_ignores_term_is_killed(self, lab: TargetLab) -> None:
        target = lab.target()
        started = await start(target, lab, "stubborn")
        await self._said_hello(target)

        await target.stop("m-1-0", grace_s=SHORT_GRACE_S)

        assert not lab.is_alive(started)
        assert await target.observe() == []

    async def test_stopping_what_is_not_there_does_nothing(self, lab: TargetLab) -> None:
        await lab.target().stop("m-9-9", grace_s=GRACE_S)

    async def test_stopping_twice_at_once_is_fine(self, lab: TargetLab) -> None:
        target = lab.target()
        started = await start(target, lab, "obedient")

        await asyncio.gather(*(target.stop("m-1-0", grace_s=GRACE_S) for _ in range(2)))

        assert not lab.is_alive(started)
        assert await target.observe() == []

    async def test_a_crash_is_seen_with_its_status_and_last_line(self, lab: TargetLab) -> None:
        target = lab.target()
        started = await start(target, lab, "crashing")

        failed = await seen_as(target, "m-1-0", "failed")

        assert "status 3" in failed.reason
        assert "out of luck" in failed.reason
        assert (failed.pid, failed.started_at) == (started.pid, started.started_at)

    async def test_a_seen_crash_is_remembered_over_a_restart(self, lab: TargetLab) -> None:
        target = lab.target()
        await start(target, lab, "crashing")
        failed = await seen_as(target, "m-1-0", "failed")

        assert await lab.target().observe() == [failed]

    async def test_a_killed_replica_is_seen_as_failed(self, lab: TargetLab) -> None:
        target = lab.target()
        started = await start(target, lab, "obedient")

        lab.kill(started)

        failed = await seen_as(target, "m-1-0", "failed")
        assert "SIGKILL" in failed.reason

    async def test_a_dead_replica_can_be_started_again(self, lab: TargetLab) -> None:
        target = lab.target()
        dead = await start(target, lab, "obedient")
        lab.kill(dead)
        await seen_as(target, "m-1-0", "failed")

        started = await start(target, lab, "obedient")

        assert started.pid != dead.pid
        assert lab.is_alive(started)
        assert await target.observe() == [started]

    async def test_stopping_the_dead_clears_it_away(self, lab: TargetLab) -> None:
        target = lab.target()
        await start(target, lab, "crashing")
        await seen_as(target, "m-1-0", "failed")

        await target.stop("m-1-0", grace_s=GRACE_S)

        assert await target.observe() == []

    async def test_logs_are_the_newest_lines_oldest_first(self, lab: TargetLab) -> None:
        target = lab.target()
        await start(target, lab, "crashing")
        await seen_as(target, "m-1-0", "failed")

        assert await target.logs("m-1-0", lines=10) == ["hello", "out of luck"]
        assert await target.logs("m-1-0", lines=1) == ["out of luck"]

    @pytest.mark.parametrize("name", ["m-9-9", "../m-1-0", ""])
    async def test_logs_of_an_unknown_replica_are_not_found(self, lab: TargetLab, name: str) -> None:
        with pytest.raises(NotFound):
            await lab.target().logs(name, lines=10)

    async def _said_hello(self, target: Target) -> None:
        async def look() -> bool | None:
            return "hello" in await target.logs("m-1-0", lines=5) or None

        await eventually(look)
