"""
What the controller does at intervals, beside its loops: hold its lease, drain, sweep, measure.

Each duty is one bounded step and the pause after it. What a step means is known
where it is implemented; here is only when.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from pilothouse.app.control_parts import Parts
from pilothouse.app.home import write_private
from pilothouse.control.leadership import RENEW_S
from pilothouse.control.resources import MinuteResources
from pilothouse.control.rollouts import TICK_S
from pilothouse.domain.errors import PilothouseError, StoreUnavailable
from pilothouse.govern.retain import Swept, periods
from pilothouse.kit.beat import until_beat
from pilothouse.kit.tasks import Tasks
from pilothouse.ports.store import ResourceSample

DRAIN_BEHIND_S = 0.02
"""Between two passes while the journal holds more than a pass takes, or somebody waits for a record."""
DRAIN_S = 1.0
"""A record is in the store at most about that long after its answer; the journal holds it meanwhile.
A pass has its transactions, which cost as much as some hundred records: twenty passes in a second
took a sixth of a core for twenty requests in it."""
SAMPLE_S = 10.0
EVENTS_S = 0.5
SWEEP_S = 3600.0
MORE_SWEEP_S = 5.0
"""When one sweep did not get to the end."""
UNSAVED_LIMIT = 5_000
"""Resource samples that wait for a store that is away: some hours; beyond it the oldest are given up."""
FIRST_SWEEP_S = 60.0
"""Not at once: a start has better things to do."""


class Duties:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._minutes = MinuteResources()
        self._unsaved: deque[ResourceSample] = deque(maxlen=UNSAVED_LIMIT)
        self._told: dict[str, tuple[str, ...]] = {}

    def begin(self, tasks: Tasks, *, lost: Callable[[], None]) -> None:
        """
        Take up all duties.

        Args:
            lost: Called when another controller took the lease: this one must end.
        """

        async def hold_lease() -> None:
            await self._hold_lease(lost)

        tasks.keep("lease", hold_lease)
        tasks.keep("drain", self._drain)
        if (allotments := self._parts.ledger.allotments) is not None:
            tasks.keep("allotments", allotments.run)
        tasks.keep("measure", lambda: _every(SAMPLE_S, self._measure))
        tasks.keep("sweep", self._sweep)
        tasks.keep("events", lambda: _every(EVENTS_S, self._write_events))
        tasks.keep("batches", self._parts.batching.run)
        tasks.keep("rollouts", lambda: _every(TICK_S, self._parts.releases.tick))

    async def finish(self, *, timeout_s: float) -> None:
        """The last step of each, as far as there is time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._drain_once()
                if (allotments := self._parts.ledger.allotments) is not None:
                    await allotments.aclose()
                await self._keep_totals()
                await self._put(self._minutes.flush())
                await self._write_events()
                await self._parts.leadership.release()
        except (PilothouseError, TimeoutError) as exc:  # the journal keeps what was not drained
            self._parts.log.failure("last_drain_failed", exc)

    async def _hold_lease(self, lost: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            if not await self._is_still_ours():
                break
        self._parts.log.event("lease_lost", "error")
        lost()

    async def _is_still_ours(self) -> bool:
        try:
            return await self._parts.leadership.renew()
        except StoreUnavailable:  # told by the store's thread; who comes first when it is back is seen then
            return True

    async def _drain(self) -> None:
        """Once in a while, and at once while there is more or somebody waits for a record."""
        wanted = self._parts.backlog.wanted
        while True:
            wanted.clear()
            try:
                pause_s = await self._drain_once()
            except StoreUnavailable:  # told by the store's thread, and the journal holds what waits
                pause_s = until_beat(DRAIN_S)
            with suppress(TimeoutError):
                await asyncio.wait_for(wanted.wait(), pause_s)
                await asyncio.sleep(DRAIN_BEHIND_S)  # whoever waits asks again and again

    async def _drain_once(self) -> float:
        """One pass; the pause until the next."""
        parts = self._parts
        try:
            result = await parts.store.call(parts.drain.drain_once)
        finally:
            parts.ledger.drained(parts.drain.take_settled())
        parts.ledger.passed(result.writers, is_whole=result.is_whole)
        parts.backlog.records = result.lag_records
        told = {"torn": result.torn, "corrupt": result.corrupt, "blocked": result.blocked}
        found = {kind: places for kind, places in told.items() if places}
        if found != self._told:  # what stays blocked is told once, not at each pass
            self._told = found
            parts.log.event("journal_faults", "error" if found else "info", **found)
        is_behind = result.records and not result.is_whole
        return DRAIN_BEHIND_S if is_behind else until_beat(DRAIN_S)

    async def _measure(self) -> None:
        parts = self._parts
        parts.vitals.gpus.look()  # for the next time: it is not waited for
        processes = parts.overview.processes()
        await self._keep_totals()
        await self._put(self._minutes.follow(processes, parts.clock.now()))

    async def _write_events(self) -> None:
        await self._parts.loop.happenings.flush(self._parts.store)

    async def _keep_totals(self) -> None:
        """For the next controller, should this one be killed."""
        parts = self._parts
        try:
            await asyncio.to_thread(write_private, parts.settings.totals_file, parts.loop.totals.dump())
        except OSError as exc:  # a full disk: counters start anew after the next restart
            parts.log.failure("totals_not_kept", exc)

    async def _put(self, samples: list[ResourceSample]) -> None:
        self._unsaved.extend(samples)
        waiting = list(self._unsaved)
        if not waiting:
            return
        try:
            await self._parts.store(lambda unit: unit.resources.put_many(waiting))
        except StoreUnavailable:  # told by the store's thread; they wait for it
            return
        for _ in waiting:
            self._unsaved.popleft()

    async def _sweep(self) -> None:
        await asyncio.sleep(FIRST_SWEEP_S)
        while True:
            swept = await self._sweep_once()
            await asyncio.sleep(SWEEP_S if swept.is_done else MORE_SWEEP_S)

    async def _sweep_once(self) -> Swept:
        parts = self._parts
        kept = periods(parts.loop.reconciler.declared.spec)
        swept = await parts.store.call(lambda store: parts.retention.sweep(store, kept, parts.clock.now()))
        if swept.contents or swept.records:
            parts.log.event("records_swept", contents=swept.contents, records=swept.records)
        return swept


async def _every(pause_s: float, step: Callable[[], Awaitable[None]]) -> None:
    while True:
        await step()
        await asyncio.sleep(until_beat(pause_s))
