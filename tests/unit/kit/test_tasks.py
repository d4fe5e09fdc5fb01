import asyncio

from pilothouse.kit.tasks import Tasks


class Errors(list[tuple[str, Exception]]):
    def note(self, name: str, error: Exception) -> None:
        self.append((name, error))


async def test_a_name_runs_once_at_a_time():
    tasks = Tasks(Errors().note)
    gate = asyncio.Event()
    runs: list[int] = []

    async def work() -> None:
        runs.append(1)
        await gate.wait()

    assert tasks.start("pull", work)
    assert not tasks.start("pull", work)
    gate.set()
    while tasks.names:
        await asyncio.sleep(0)
    assert tasks.start("pull", work)
    while tasks.names:
        await asyncio.sleep(0)

    assert runs == [1, 1]


async def test_a_failure_is_reported_and_leaves_the_neighbours_alone():
    errors = Errors()
    tasks = Tasks(errors.note)
    done = asyncio.Event()

    async def bad() -> None:
        raise ValueError("bad")

    async def good() -> None:
        done.set()

    tasks.start("bad", bad)
    tasks.start("good", good)
    await asyncio.wait_for(done.wait(), 1)
    while tasks.names:
        await asyncio.sleep(0)

    assert [(name, str(error)) for name, error in errors] == [("bad", "bad")]


async def test_work_that_takes_too_long_is_ended_and_reported():
    errors = Errors()
    tasks = Tasks(errors.note)

    tasks.start("slow", asyncio.Event().wait, timeout_s=0.001)  # type: ignore[arg-type]
    while tasks.names:
        await asyncio.sleep(0.001)

    assert isinstance(errors[0][1], TimeoutError)


async def test_a_kept_task_runs_again_after_a_failure_until_it_returns():
    errors = Errors()
    tasks = Tasks(errors.note)
    runs: list[int] = []

    async def work() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise ValueError(len(runs))

    tasks.keep("loop", work, pause_s=0)
    while tasks.names:
        await asyncio.sleep(0)

    assert len(runs) == 3
    assert len(errors) == 2


async def test_no_more_tasks_than_the_limit():
    tasks = Tasks(Errors().note, limit=1)
    gate = asyncio.Event()

    assert tasks.start("a", gate.wait)  # type: ignore[arg-type]
    assert not tasks.start("b", gate.wait)  # type: ignore[arg-type]

    await tasks.aclose(timeout_s=1)


async def test_closing_names_what_would_not_end():
    tasks = Tasks(Errors().note)
    let_go = asyncio.Event()

    async def stubborn() -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    tasks.start("stubborn", stubborn)
    await asyncio.sleep(0)

    assert await tasks.aclose(timeout_s=0.01) == {"stubborn"}

    let_go.set()
    while tasks.names:
        await asyncio.sleep(0)


async def test_the_end_of_a_task_is_told_when_its_name_is_free_again():
    ended: list[tuple[str, bool]] = []
    tasks = Tasks(Errors().note, on_end=lambda name: ended.append((name, name in tasks.names)))

    async def work() -> None:
        pass

    tasks.start("pull", work)
    while not ended:
        await asyncio.sleep(0)

    assert ended == [("pull", False)]
