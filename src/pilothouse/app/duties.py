"""
What the controller does at intervals, beside its loops: hold its lease, drain, sweep, measure.

Each duty is one bounded step and the pause after it. What a step means is known
where it is implemented; here is only when.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable

from pilothouse.app.control_parts import Parts
from pilothouse.control.resources import MinuteResources
from pilothouse.domain.errors import Conflict, PilothouseError
from pilothouse.govern.retain import Swept, periods
from pilothouse.kit.tasks import Tasks
from pilothouse.ports.store import Lease, ResourceSample

LEASE = "controller"
LEASE_TTL_S = 30.0
LEASE_RENEW_S = 5.0
DRAIN_BUSY_S = 0.05
DRAIN_IDLE_S = 1.0
"""A record is in the store about that long after its answer; the journal holds it meanwhile."""
SAMPLE_S = 10.0
SWEEP_S = 3600.0
MORE_SWEEP_S = 5.0
"""When one sweep did not get to the end."""
FIRST_SWEEP_S = 60.0
"""Not at once: a start has better things to do."""


class Duties:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lease: Lease | None = None
        self._minutes = MinuteResources()
        self._told: dict[str, tuple[str, ...]] = {}

    async def take_lease(self) -> None:
        """
        Be the one controller, on all machines that share the store.

        The holder is this home on this machine: here the lock file already says
        who is the one, so a successor takes over at once.

        Raises:
            Conflict: A controller on another machine holds it.
        """
        holder = f"{socket.gethostname()}:{self._parts.settings.home}"
        now = self._parts.clock.now()
        self._lease = await self._parts.store(
            lambda unit: unit.leases.acquire(LEASE, holder, ttl_s=LEASE_TTL_S, now=now)
        )
        if self._lease is None:
            raise Conflict("a controller on another machine uses this store; stop it, or use another --store")

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
        tasks.keep("measure", lambda: _every(SAMPLE_S, self._measure))
        tasks.keep("sweep", self._sweep)

    async def finish(self, *, timeout_s: float) -> None:
        """The last step of each, as far as there is time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._drain_once()
                await self._put(self._minutes.flush())
                if self._lease is not None:
                    lease = self._lease
                    await self._parts.store(lambda unit: unit.leases.release(lease))
        except (PilothouseError, TimeoutError) as exc:  # the journal keeps what was not drained
            self._parts.log.failure("last_drain_failed", exc)

    async def _hold_lease(self, lost: Callable[[], None]) -> None:
        while self._lease is not None:
            await asyncio.sleep(LEASE_RENEW_S)
            lease, now = self._lease, self._parts.clock.now()
            renewed = await self._renewed(lease, now)
            if renewed is None:
                self._parts.log.event("lease_lost", "error")
                lost()
            self._lease = renewed

    async def _renewed(self, lease: Lease, now: float) -> Lease | None:
        return await self._parts.store(
            lambda unit: unit.leases.renew(lease, ttl_s=LEASE_TTL_S, now=now), urgent=True
        )

    async def _drain(self) -> None:
        """Often while there is something, seldom while there is not."""
        while True:
            found_some = await self._drain_once()
            await asyncio.sleep(DRAIN_BUSY_S if found_some else DRAIN_IDLE_S)

    async def _drain_once(self) -> bool:
        parts = self._parts
        result = await parts.store.call(parts.drain.drain_once)
        parts.lag.records = result.lag_records
        told = {"torn": result.torn, "corrupt": result.corrupt, "blocked": result.blocked}
        found = {kind: places for kind, places in told.items() if places}
        if found != self._told:  # what stays blocked is told once, not at each pass
            self._told = found
            parts.log.event("journal_faults", "error" if found else "info", **found)
        return result.records > 0

    async def _measure(self) -> None:
        parts = self._parts
        system, reports = parts.loop.reconciler.status, parts.loop.totals.live
        vitals = parts.vitals.read(system, reports)
        await self._put(self._minutes.follow(vitals.processes, parts.clock.now()))

    async def _put(self, samples: list[ResourceSample]) -> None:
        if samples:
            await self._parts.store(lambda unit: unit.resources.put_many(samples))

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
        await asyncio.sleep(pause_s)
