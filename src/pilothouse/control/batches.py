"""
The batches of all teams: taken in, listed, cancelled, and run to their ends.

Those that have not ended are in memory, each with its `BatchRun`, and are taken
up again by the next controller. As many as `RUNNING` are run at once; the others
wait for their turn.
"""

import asyncio

from pilothouse.control.batch_run import BatchRun, Works, errors_id, output_id
from pilothouse.control.files import Files, key_filter, lifetime
from pilothouse.domain.batch import Batch, StoredFile, cancel
from pilothouse.domain.duration import parse_duration_s
from pilothouse.domain.errors import Conflict, InvalidRequest, NotFound, RateLimitExceeded
from pilothouse.domain.principal import Principal
from pilothouse.kit.ids import new_id
from pilothouse.kit.tasks import Tasks
from pilothouse.wire.openai.batches import PATHS, BatchWish

RUNNING = 8
ACTIVE_PER_TEAM = 20
LONGEST_WINDOW_S = 7 * 86400.0
FORGET_S = 90 * 86400.0
SWEEP_S = 60.0
_METADATA = (16, 64, 512)
"""Pairs, characters of a name, and of a value."""


class Batches:
    """
    Args:
        tasks: Where they run; a failed one is run again.
    """

    def __init__(self, works: Works, tasks: Tasks) -> None:
        self._works = works
        self._tasks = tasks
        self._runs: dict[str, BatchRun] = {}
        self._turns = asyncio.Semaphore(RUNNING)

    @property
    def files(self) -> Files:
        return self._works.files

    async def load(self) -> None:
        """Take up what an earlier controller left."""
        active = await self._works.transact(lambda unit: unit.batches.active())
        await self.files.clear([name for batch in active for name in (output_id(batch), errors_id(batch))])
        for batch in active:
            self._begin(BatchRun(batch, self._works))

    async def create(self, whose: Principal, wish: BatchWish) -> Batch:
        """
        Keep it and begin.

        Raises:
            InvalidRequest, NotFound: A field is not what it should be.
            RateLimitExceeded: The team has as many as may be.
        """
        window_s = _window_s(wish)
        _refuse_metadata(wish.metadata)
        if sum(run.batch.team == whose.team for run in self._runs.values()) >= ACTIVE_PER_TEAM:
            raise RateLimitExceeded(
                f"team {whose.team} has {ACTIVE_PER_TEAM} batches under way; wait for one, or cancel it",
                retry_after_s=60.0,
            )
        file = await self.files.get(whose, wish.input_file_id)
        if file.purpose != "batch":
            raise InvalidRequest(
                "input_file_id is what a batch wrote; name a file of requests", param="input_file_id"
            )
        now = self._works.clock.now()
        batch = Batch(
            id=new_id("batch_"),
            team=whose.team,
            key_id=whose.key_id,
            endpoint=wish.endpoint,
            input_file=file.id,
            completion_window=wish.completion_window,
            created_at=now,
            expires_at=now + window_s,
            metadata=wish.metadata,
            output_expires_s=lifetime(float(wish.output_expires_after.seconds))
            if wish.output_expires_after
            else 0.0,
        )
        run = BatchRun(batch, self._works)
        await run.save()
        self._begin(run)
        return batch

    async def get(self, whose: Principal, batch_id: str) -> Batch:
        """NotFound, also of another team, and of another key where this one is limited."""
        batch = await self._works.transact(lambda unit: unit.batches.get(batch_id, team=whose.team))
        if key_filter(whose) not in (None, batch.key_id):
            raise NotFound(f"no batch {batch_id[:64]!r}", param="batch_id")
        return self._present(batch)

    async def page(self, whose: Principal, *, after: str | None, limit: int) -> list[Batch]:
        """Newest first."""
        key_id = key_filter(whose)
        found = await self._works.transact(
            lambda unit: unit.batches.page(team=whose.team, key_id=key_id, after=after, limit=limit)
        )
        return [self._present(batch) for batch in found]

    async def cancel(self, whose: Principal, batch_id: str) -> Batch:
        """
        End it: what is in flight comes to its end, what was not asked is not.

        Raises:
            Conflict: It has ended.
        """
        batch = await self.get(whose, batch_id)
        run = self._runs.get(batch.id)
        if run is None:
            return cancel(batch, self._works.clock.now())
        run.batch = cancel(run.batch, self._works.clock.now())
        await run.save()
        return run.batch

    async def remove_file(self, file: StoredFile) -> None:
        """
        Raises:
            Conflict: A batch that has not ended reads it.
        """
        if file.id in self._inputs():
            raise Conflict(f"a batch reads {file.id}; cancel it first, or wait for its end")
        await self.files.remove(file)

    async def sweep(self) -> None:
        """Let go of what has been kept for long enough."""
        await self.files.sweep(self._inputs())
        before = self._works.clock.now() - FORGET_S
        await self._works.transact(lambda unit: unit.batches.forget(before, limit=100))

    def _inputs(self) -> set[str]:
        return {run.batch.input_file for run in self._runs.values()}

    def _present(self, batch: Batch) -> Batch:
        """As it is now; the store is told of counts only now and then."""
        run = self._runs.get(batch.id)
        return run.batch if run is not None else batch

    def _begin(self, run: BatchRun) -> None:
        self._runs[run.batch.id] = run
        self._tasks.keep(run.batch.id, lambda: self._run(run))

    async def _run(self, run: BatchRun) -> None:
        async with self._turns:
            await run.run()
        del self._runs[run.batch.id]


def _window_s(wish: BatchWish) -> float:
    if wish.endpoint not in PATHS:
        raise InvalidRequest(f"endpoint is one of {', '.join(PATHS)}", param="endpoint")
    window_s = parse_duration_s(wish.completion_window, param="completion_window")
    if window_s is None or window_s > LONGEST_WINDOW_S:
        raise InvalidRequest("completion_window is at most 7d, such as 24h", param="completion_window")
    return window_s


def _refuse_metadata(metadata: dict[str, str] | None) -> None:
    pairs, name_chars, value_chars = _METADATA
    if metadata and (
        len(metadata) > pairs
        or any(len(name) > name_chars or len(value) > value_chars for name, value in metadata.items())
    ):
        raise InvalidRequest(
            f"metadata has at most {pairs} pairs, names of {name_chars} and values of {value_chars} letters",
            param="metadata",
        )
