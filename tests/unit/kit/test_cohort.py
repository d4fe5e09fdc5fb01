"""Tasks that go on together: in stages, each to its end, and as asyncio expects of a task."""

import asyncio

import pytest

from pilothouse.kit.cohort import Cohort, Pause


class Ends:
    """Collects how tasks ended."""

    def __init__(self) -> None:
        self.errors: list[Exception | None] = []

    def __call__(self, error: Exception | None) -> None:
        self.errors.append(error)


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_ready_runs_stage_by_stage():
    cohort, log, pauses = Cohort(), [], [Pause(), Pause()]

    async def work(name: str, pause: Pause) -> None:
        log.append(f"{name} begins")
        cohort.at_close(lambda: log.append(f"{name} closes"))
        await pause
        log.append(f"{name} goes on")

    ends = Ends()
    for name, pause in zip("ab", pauses, strict=True):
        cohort.start(work(name, pause), ends)
    assert log == []
    await turns()
    for pause in pauses:
        pause.end()
    await turns()

    assert log == ["a begins", "b begins", "a closes", "b closes", "a goes on", "b goes on"]
    assert ends.errors == [None, None]


async def test_what_a_stage_sends_goes_out_together_at_its_end_before_the_turn_closes():
    cohort, log = Cohort(), []

    def closed(data: bytes) -> None:
        raise RuntimeError("the handler is closed")

    async def work(name: str) -> None:
        cohort.send(closed, b"lost")
        cohort.send(log.append, name.encode())
        cohort.at_close(lambda: log.append(f"{name} closes"))
        log.append(f"{name} ran")

    for name in "ab":
        cohort.start(work(name), Ends())
    await turns()

    assert log == ["a ran", "b ran", b"a", b"b", "a closes", "b closes"]


async def test_what_is_sent_outside_of_a_stage_goes_out_too():
    cohort, sent = Cohort(), []

    cohort.send(sent.append, b"alone")
    await turns()

    assert sent == [b"alone"]


@pytest.mark.parametrize("run", ["cohort", "asyncio"])
async def test_a_pause_lets_go_on_or_raises_and_serves_again(run):
    pause, heard, ends = Pause(), [], Ends()

    async def work() -> None:
        await pause
        heard.append("over")
        pause.begin()
        try:
            await pause
        except ValueError as exc:
            heard.append(str(exc))

    if run == "cohort":
        Cohort().start(work(), ends)
    else:
        asyncio.get_running_loop().create_task(work()).add_done_callback(lambda _: ends(None))
    await turns()
    pause.end()
    pause.end(KeyError("too late"))
    await turns()
    pause.end(ValueError("broken"))
    await turns()

    assert heard == ["over", "broken"]
    assert ends.errors == [None]


async def test_a_pause_that_was_over_before_is_not_waited_for():
    pause = Pause()
    pause.end()

    async with asyncio.timeout(1):
        await pause


@pytest.mark.parametrize("waits_for", ["pause", "future", "turn"])
async def test_a_cancelled_task_ends_where_it_waits(waits_for):
    pause, future, cleaned, ends = Pause(), asyncio.get_running_loop().create_future(), [], Ends()

    async def work() -> None:
        try:
            if waits_for == "pause":
                await pause
            elif waits_for == "future":
                await future
            else:
                while True:
                    await asyncio.sleep(0)
        finally:
            cleaned.append(True)

    task = Cohort().start(work(), ends)
    await turns()
    assert task.cancel()
    await turns()
    pause.end()
    await turns()

    assert (cleaned, ends.errors, task.is_done) == ([True], [None], True)
    assert not task.cancel()


async def test_a_task_that_is_cancelled_before_it_begins_does_nothing():
    begun, ends = [], Ends()

    async def work() -> None:
        begun.append(True)

    Cohort().start(work(), ends).cancel()
    await turns()

    assert (begun, ends.errors) == ([], [None])


async def test_a_task_may_refuse_to_be_cancelled():
    pause, ends = Pause(), Ends()

    async def work() -> None:
        with pytest.raises(asyncio.CancelledError):
            await pause
        await asyncio.sleep(0)

    task = Cohort().start(work(), ends)
    await turns()
    task.cancel()
    await turns()

    assert (ends.errors, task.is_done) == ([None], True)


async def test_a_defect_ends_one_task_alone_and_is_told():
    ends = Ends()
    cohort = Cohort()

    async def fails() -> None:
        raise KeyError("x")

    async def works() -> None:
        await asyncio.sleep(0)

    cohort.start(fails(), ends)
    cohort.start(works(), ends)
    await turns()

    assert [type(error) for error in ends.errors] == [KeyError, type(None)]


async def test_asyncios_timeouts_and_groups_work_inside():
    heard, ends = [], Ends()

    async def work() -> None:
        try:
            async with asyncio.timeout(0.001):
                await Pause()
        except TimeoutError:
            heard.append("timeout")
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        heard.append(await asyncio.wait_for(asyncio.sleep(0, "value"), 1))

    task = Cohort().start(work(), ends)
    while not task.is_done:
        await asyncio.sleep(0.001)

    assert (heard, ends.errors) == (["timeout", "value"], [None])


async def test_endless_work_lets_the_loop_have_its_turns():
    cohort, count = Cohort(), [0]

    def again() -> None:
        count[0] += 1
        if count[0] < 1000:
            cohort.at_close(again)

    cohort.at_close(again)
    await turns(4)

    assert 0 < count[0] < 1000
