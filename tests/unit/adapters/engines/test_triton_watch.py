"""Who is told that a model's process has ended: those that wait, those that do not, and nobody else."""

import asyncio

import pytest

from pilothouse.adapters.engines._triton_watch import Call
from pilothouse.domain.errors import EngineUnavailable


async def waits(call: Call, event: asyncio.Event) -> None:
    with call:
        await event.wait()


async def test_a_call_that_waits_is_told_and_its_task_goes_on() -> None:
    call, went_on = Call(), False

    async def reader() -> None:
        nonlocal went_on
        with pytest.raises(EngineUnavailable):
            await waits(call, asyncio.Event())
        await asyncio.sleep(0)
        went_on = True

    task = asyncio.create_task(reader())
    await asyncio.sleep(0)
    call.cut()
    await task

    assert went_on


async def test_a_call_that_does_not_wait_is_hung_up_and_told_at_its_next_wait() -> None:
    call, hung_up = Call(), []
    call.hang_up = lambda: hung_up.append(True)

    call.cut()
    call.cut()

    assert hung_up == [True]
    with pytest.raises(EngineUnavailable):
        await waits(call, asyncio.Event())


async def test_who_was_cancelled_by_somebody_else_stays_cancelled() -> None:
    call = Call()
    task = asyncio.create_task(waits(call, asyncio.Event()))
    await asyncio.sleep(0)

    task.cancel()
    call.cut()

    with pytest.raises(asyncio.CancelledError):
        await task
