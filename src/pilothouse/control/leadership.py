"""
Which controller is the active one, of all that share a store.

The lease is a row. Whose clock is right does not matter: a lease is free when it
was given back, and taken for abandoned only after it was seen to stand still for
longer than its holder would have left it so. A holder that was merely asleep
that long loses nothing but its office: the fence refuses what it still writes.
"""

import asyncio
from collections.abc import Awaitable, Callable

from pilothouse.control.fence import Fence
from pilothouse.control.transact import Transact
from pilothouse.domain.errors import Conflict
from pilothouse.kit.clock import Clock
from pilothouse.ports.store import Lease, UnitOfWork

NAME = "controller"
TTL_S = 30.0
RENEW_S = 5.0
LONG_PAST_S = 600.0
"""So far apart no two clocks are: a lease that ended earlier was abandoned."""
LOOK_S = 1.0


class Leadership:
    """
    Args:
        fence: Told of the lease, so that the store looks at it.
        holder: This home on this machine. Its lock file says which of its own
            processes is the one, so a successor of the same holder takes over at once.
    """

    def __init__(
        self,
        transact: Transact,
        fence: Fence,
        *,
        holder: str,
        clock: Clock,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._transact = transact
        self._fence = fence
        self._holder = holder
        self._clock = clock
        self._pause = pause

    async def take(self) -> None:
        """
        Become the active controller; waits while an abandoned lease is watched.

        Raises:
            Conflict: Another one is alive.
        """
        first = await self._transact(lambda unit: unit.leases.get(NAME))
        abandoned_at = first.expires_at if first is not None and await self._is_abandoned(first) else 0.0
        now = max(self._clock.now(), abandoned_at)
        lease = await self._transact(lambda unit: _take(unit, self._holder, first=first, now=now))
        if lease is None:
            raise Conflict(
                "another controller uses this store and is alive; it is the one of "
                f"{first.holder if first else 'another home'}. "
                "fix: stop it (pilothouse down), or use another --store"
            )
        self._fence.lease = lease

    async def renew(self) -> bool:
        """
        Prolong the lease; False when another controller took it.

        Raises:
            StoreUnavailable: It cannot be said now.
        """
        lease = self._fence.lease
        if lease is None:
            return False
        now = self._clock.now()
        try:
            renewed = await self._transact(
                lambda unit: unit.leases.renew(lease, ttl_s=TTL_S, now=now), urgent=True
            )
        except Conflict:  # the fence's answer
            return False
        if renewed is not None:
            self._fence.lease = renewed
        return renewed is not None

    async def release(self) -> None:
        """Let the next one begin at once."""
        lease = self._fence.lease
        if lease is not None:
            await self._transact(lambda unit: unit.leases.release(lease))

    async def _is_abandoned(self, first: Lease) -> bool:
        """Whether the lease of somebody else stands still. Ours, and a free one, need no watching."""
        if first.holder in ("", self._holder):
            return False
        if first.expires_at + LONG_PAST_S < self._clock.now():
            return True
        ends = self._clock.monotonic() + TTL_S + RENEW_S
        while self._clock.monotonic() < ends:
            await self._pause(LOOK_S)
            if await self._transact(lambda unit: unit.leases.get(NAME)) != first:
                return False
        return True


def _take(unit: UnitOfWork, holder: str, *, first: Lease | None, now: float) -> Lease | None:
    there = unit.leases.get(NAME)
    is_others = there is not None and there.holder not in ("", holder)
    if is_others and there != first:  # it was renewed, or somebody else was faster
        return None
    return unit.leases.acquire(NAME, holder, ttl_s=TTL_S, now=now)
