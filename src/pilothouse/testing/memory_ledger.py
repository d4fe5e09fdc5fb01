"""The pools in one process: the fake of `ports.ledger.Ledger`, and all that a controller's answer is."""

import asyncio

from pilothouse.domain.leasing import LedgerAnswer, LedgerAsk
from pilothouse.domain.pools import Pools
from pilothouse.kit.clock import Clock


class MemoryLedger:
    """
    Several workers may share one; `is_lost` makes it unreachable, `delay_s` slow.

    Args:
        workers: How many share.
    """

    def __init__(self, clock: Clock, *, workers: int = 1, epoch: str = "one") -> None:
        self._clock = clock
        self._workers = workers
        self.epoch = epoch
        self.is_lost = False
        self.delay_s = 0.0
        self.pools = self._made(starts_full=True)

    def restart(self, epoch: str) -> None:
        """As if the process that grants were replaced: nothing is known but by claims."""
        self.epoch = epoch
        self.pools = self._made(starts_full=False)

    async def exchange(self, ask: LedgerAsk, *, timeout_s: float) -> LedgerAnswer | None:
        if self.delay_s:
            await asyncio.sleep(min(self.delay_s, timeout_s))
        if self.is_lost or self.delay_s > timeout_s:
            return None
        now = self._clock.monotonic()
        for state in self.pools.lacks_base(ask.states):
            self.pools.open_budget(state.id, state.limit, 0, now)
        return self.pools.answer(ask, self.epoch, now)

    async def aclose(self) -> None:
        """Nothing to close."""

    def _made(self, *, starts_full: bool) -> Pools:
        pools = Pools(workers=self._workers, starts_full=starts_full, now=self._clock.monotonic())
        pools.passed((), is_whole=True)
        return pools
