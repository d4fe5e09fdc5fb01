"""
The controller's desk for leases: hears the workers, and what the drain put into the store.

The decisions are `domain.pools`; here they get the time, and the cost of each
budget so far from the store, once when it is first asked for.
"""

from collections.abc import Collection, Iterable

from pilothouse.control.drain import Settled
from pilothouse.control.transact import Transact
from pilothouse.domain.errors import StoreUnavailable
from pilothouse.domain.ledger import AccountState, LedgerAnswer, LedgerAsk
from pilothouse.domain.limits import Period, budget_id, budget_scope, period_bounds, scopes_of
from pilothouse.domain.pools import Pools
from pilothouse.kit.clock import Clock

_PERIODS: tuple[Period, ...] = ("day", "week", "month")
_KEPT_S = 2 * 86_400.0
"""How long a budget's pool is kept after its period: for records that come late."""


class LedgerDesk:
    """
    Args:
        workers: How many gateway processes this machine is to run.
        starts_full: No controller of this run came before: nobody used anything yet.
        epoch: Of this controller.
    """

    def __init__(
        self, transact: Transact, clock: Clock, *, workers: int, starts_full: bool, epoch: str
    ) -> None:
        self._transact = transact
        self._clock = clock
        self._epoch = epoch
        self.pools = Pools(workers=workers, starts_full=starts_full, now=clock.monotonic())

    async def answer(self, ask: LedgerAsk) -> LedgerAnswer:
        """What a worker is told; a budget whose cost cannot be read now is granted nothing."""
        if ask.epoch == self._epoch:
            for state in self.pools.lacks_base(ask.states):
                await self._open(state)
        return self.pools.answer(ask, self._epoch, self._clock.monotonic())

    def leave(self, worker: str) -> None:
        self.pools.leave(worker)

    def drained(self, settled: Iterable[Settled]) -> None:
        """These records are in the store by now."""
        for one in settled:
            record = one.record
            scopes = scopes_of(
                key_id=record.key_id,
                team=record.team,
                endpoint=record.endpoint,
                subject_hash=record.subject_hash,
            )
            costs = {
                budget_id(scope, period, period_bounds(record.time, period)[0]): record.cost_micro_usd
                for period in _PERIODS
                for scope in scopes
            }
            self.pools.settle(one.writer, one.life, costs)

    def passed(self, writers: Collection[str], *, is_whole: bool) -> None:
        """A pass of the drain ended; `drained` has heard of all that it stored."""
        self.pools.passed(writers, is_whole=is_whole)
        now = self._clock.now()
        self.pools.forget_ended([name for name in self.pools.pools if not _is_over(name, now)])

    async def _open(self, state: AccountState) -> None:
        scope = budget_scope(state.id)
        if scope is None:
            return
        try:
            spent = await self._transact(lambda unit: unit.usage.spent(scope))
        except StoreUnavailable:  # told by the store's thread; the next ask tries again
            return
        # Nothing may be awaited between the read and this: what the drain stores after the
        # read is told after it, for both go through the one thread of the store.
        self.pools.open_budget(state.id, state.limit, spent, self._clock.monotonic())


def _is_over(name: str, now: float) -> bool:
    scope = budget_scope(name)
    return scope is not None and now > scope.until + _KEPT_S
