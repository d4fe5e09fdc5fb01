"""
The controller's side of limits that several houses share: tell the treasury, take in, give back.

One exchange at a time, in the background. When the treasury is lost, what is
allotted is spent, and then the setting says: closed, or a bounded share.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

from pilothouse.domain.allotment import (
    IDLE_LOOKS,
    RESTATED_S,
    AllottedPool,
    AllottedPools,
    Holding,
    Statement,
    TreasuryAnswer,
)
from pilothouse.kit.clock import Clock
from pilothouse.kit.ids import new_id
from pilothouse.ports.treasury import Treasury

LOOK_S = 0.5
PAUSE_S = 0.002
"""Between two exchanges, so that what comes together goes together."""
AGAIN_S = 0.05
"""Between two exchanges that brought nothing."""
FILL_S = 0.08
"""How long a worker's ask is held up for more: less than its request waits."""
MOST_TOLD = 256
"""Limits in one exchange: it is one script, and nobody else is served meanwhile."""
UNHEARD_S = 10.0
"""Another controller spoke for this house. Were that the rightful one, this one would have ended by then."""

Lost = Literal["closed", "share"]


class Allotments:
    """
    Args:
        house: Name of this controller's store: the sums in it are what this house has spent.
        life: Of this controller.
        recall: Opens the pools of all budgets of which something was spent, for the treasury of that epoch;
            False when it cannot be read now.
        changed: Told when the treasury is lost (a reason) and when it is back ("").
    """

    def __init__(
        self,
        treasury: Treasury,
        pools: AllottedPools,
        clock: Clock,
        *,
        house: str,
        life: str,
        recall: Callable[[str], Awaitable[bool]],
        when_lost: Lost,
        changed: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.is_lost = True
        """Nothing was heard of it yet, or for a while."""
        self._treasury = treasury
        self._pools = pools
        self._clock = clock
        self._house = house
        self._life = life
        self._recall = recall
        self._has_recalled = False
        self._unheard_at: float | None = None
        self._when_lost = when_lost
        self._changed = changed
        self._number = 0
        self._epoch = ""
        self._is_new = False
        self._houses = 0
        self._work = asyncio.Event()
        self._waiters: list[asyncio.Future[None]] = []
        self._looked_at = -LOOK_S

    @property
    def is_closed(self) -> bool:
        """Nobody can get more than is here now, and not because a limit is used up."""
        return self._is_new or (self.is_lost and (self._when_lost == "closed" or not self._houses))

    async def fill(self, needs: dict[str, int]) -> None:
        """Ask for what these pools lack of what is needed, and wait for it, for a moment at the most."""
        for name, need in needs.items():
            pool = self._pools.pools.get(name)
            if isinstance(pool, AllottedPool):
                pool.wanted = max(pool.wanted, need - pool.room())
        if self.is_lost:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._work.set()
        await asyncio.wait([waiter], timeout=FILL_S)

    def used(self, name: str) -> None:
        pool = self._pools.pools.get(name)
        if isinstance(pool, AllottedPool):
            pool.used()
            if pool.wanted:
                self._work.set()

    async def run(self) -> None:
        """Exchange whenever there is a reason, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._work.wait()
            except TimeoutError:
                pass
            self._work.clear()
            brought = await self.exchange()
            await asyncio.sleep(PAUSE_S if brought else AGAIN_S)

    async def exchange(self) -> bool:
        """One round; whether it brought something."""
        waiters, self._waiters = self._waiters, []
        brought = False
        try:
            self._look()
            if not self._epoch:
                # Nothing else yet: were it late, it would put old holdings in the place of a successor's.
                await self._say([])
            self._has_recalled = self._pools.are_claimed and await self._recall(self._epoch)
            told = self._to_tell()
            for start in range(0, max(1, len(told)), MOST_TOLD):
                brought = await self._say(told[start : start + MOST_TOLD]) or brought
        finally:
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        return brought

    async def aclose(self) -> None:
        """Give back what nobody uses."""
        for _, pool in self._pools.allotted():
            pool.give_back()
        await self.exchange()
        await self._treasury.aclose()

    def _look(self) -> None:
        """Twice a second: what was not asked for lately goes back."""
        now = self._clock.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        if self.is_lost:
            return
        for _, pool in self._pools.allotted():
            pool.looks += 1
            if pool.looks > IDLE_LOOKS and not pool.wanted:
                pool.give_back()

    def _to_tell(self) -> list[tuple[AllottedPool, Holding]]:
        now = self._clock.monotonic()
        told = []
        for name, pool in self._pools.allotted():
            one = pool.holding(name)
            if one.need or one.held != pool.said or (one.held and now - pool.said_at > RESTATED_S):
                told.append((pool, one))
        return told

    async def _say(self, told: list[tuple[AllottedPool, Holding]]) -> bool:
        self._number += 1
        answer = await self._treasury.exchange(
            Statement(
                house=self._house,
                life=self._life,
                number=self._number,
                epoch=self._epoch,
                is_whole=self._is_whole({one.id for _, one in told}),
                holdings=tuple([one for _, one in told]),
            )
        )
        if answer is None:
            self._lose()
            return False
        self._hear(answer)
        now, brought = self._clock.monotonic(), False
        by_name = {one.id: (pool, one) for pool, one in told}
        for allotment in answer.allotments:
            pool, one = by_name[allotment.id]
            pool.take_in(one, allotment, now)
            brought = brought or allotment.held > one.held
        return brought

    def _is_whole(self, telling: set[str]) -> bool:
        """Whether the treasury knows all of this house when it has heard this."""
        is_known = self._has_recalled and self._pools.are_claimed
        return is_known and all(
            pool.said is not None or name in telling for name, pool in self._pools.every()
        )

    def _hear(self, answer: TreasuryAnswer) -> None:
        self._houses, self._is_new = answer.houses, answer.is_new
        if answer.epoch != self._epoch:
            self._epoch = answer.epoch
            self._has_recalled = False
            for _, pool in self._pools.every():
                pool.said = None  # it knows nothing of what we said to another
            self._work.set()
        self._follow_others(is_heard=answer.is_heard)
        if self.is_lost:
            self.is_lost = False
            for _, pool in self._pools.every():
                pool.stand_together()
            self._changed(False)

    def _follow_others(self, *, is_heard: bool) -> None:
        """Unheard for long and alive: it was a late word of a controller that is dead. Begin a life anew."""
        now = self._clock.monotonic()
        if is_heard:
            self._unheard_at = None
        elif self._unheard_at is None:
            self._unheard_at = now
        elif now - self._unheard_at >= UNHEARD_S:
            self._life, self._epoch, self._unheard_at = new_id(), "", None

    def _lose(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            self._changed(True)
        if self._when_lost == "closed" or not self._houses:
            return
        now = self._clock.monotonic()
        for _, pool in self._pools.allotted():
            pool.stand_alone(self._houses, now)
