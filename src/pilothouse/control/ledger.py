"""
The controller's desk for leases: hears the workers, and what the drain put into the store.

The decisions are `domain.pools`; here they get the time, and the cost of each
budget so far from the store, once when it is first asked for.
"""

from collections.abc import Collection, Iterable

from msgspec.structs import replace

from pilothouse.control.allotments import Allotments
from pilothouse.control.drain import Settled
from pilothouse.control.transact import Transact
from pilothouse.domain.errors import StoreUnavailable
from pilothouse.domain.leasing import AccountState, LedgerAnswer, LedgerAsk
from pilothouse.domain.limits import Period, budget_id, budget_scope, period_bounds, scopes_of
from pilothouse.domain.pools import Pools
from pilothouse.kit.clock import Clock

_PERIODS: tuple[Period, ...] = ("day", "week", "month")
_KEPT_S = 2 * 86_400.0
"""How long a budget's pool is kept after its period: for records that come late."""

SWEEP_S = 30.0
"""How often pools that nobody holds anything of are looked for."""


class LedgerDesk:
    """
    Args:
        epoch: Of this controller.
        allotments: Where limits are shared with other houses: what fills the pools.
    """

    def __init__(
        self,
        transact: Transact,
        clock: Clock,
        pools: Pools,
        *,
        epoch: str,
        allotments: Allotments | None = None,
    ) -> None:
        self._transact = transact
        self._clock = clock
        self._epoch = epoch
        self.allotments = allotments
        self.pools = pools
        self._swept_at = 0.0

    async def answer(self, ask: LedgerAsk) -> LedgerAnswer:
        """What a worker is told; a budget whose cost cannot be read now is granted nothing."""
        if ask.epoch == self._epoch:
            for state in self.pools.lacks_base(ask.states):
                await self._open(state)
        answer = self.pools.answer(ask, self._epoch, self._clock.monotonic())
        if self.allotments is None or not answer.grants:
            return answer
        return await self._filled(ask, answer, self.allotments)

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
        if now - self._swept_at > SWEEP_S:
            self._swept_at = now
            self.pools.forget_untouched(self._clock.monotonic())
        self.pools.forget_ended([name for name in self.pools.pools if not _is_over(name, now)])

    async def _filled(self, ask: LedgerAsk, answer: LedgerAnswer, allotments: Allotments) -> LedgerAnswer:
        """The answer, after more was asked for where the pools of this house did not suffice."""
        needs = {one.id: one.need for one in ask.states if one.need}
        known = {one.id: one.granted for one in ask.states}
        missing = {
            one.id: needs[one.id] + known[one.id] - one.granted
            for one in answer.grants
            if one.id in needs and one.granted - known[one.id] < needs[one.id]
        }
        if missing:
            await allotments.fill(missing)
            answer = self.pools.answer(ask, self._epoch, self._clock.monotonic())
        for name in needs:
            allotments.used(name)
        return replace(answer, is_closed=allotments.is_closed)

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
