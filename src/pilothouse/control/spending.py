"""
What the store says was spent of every budget in force, for a treasury that may know nothing of it.

Budgets are opened when a worker asks for them. A treasury that began anew must
hear of all others too: what this house spent of one that nobody asks for here any
more would otherwise be another house's to spend again.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from msgspec import Struct

from pilothouse.control.transact import Transact
from pilothouse.domain.errors import StoreUnavailable
from pilothouse.domain.limits import BudgetScope, Limits, Period, budget_id, period_bounds
from pilothouse.domain.pools import Pools
from pilothouse.domain.snapshot import Snapshot
from pilothouse.kit.clock import Clock
from pilothouse.ports.store import UnitOfWork

Owner = Literal["key", "team", "endpoint"]


class Budget(Struct, frozen=True):
    """A budget in force."""

    of: Owner
    name: str
    limit: int
    """Micro-USD."""
    period: Period
    is_each: bool = False
    """Each subject of this owner has so much."""


class Spending:
    """
    Args:
        snapshot: What holds now, with all keys, teams and endpoints.
    """

    def __init__(
        self, transact: Transact, pools: Pools, clock: Clock, snapshot: Callable[[], Snapshot]
    ) -> None:
        self._transact = transact
        self._pools = pools
        self._clock = clock
        self._snapshot = snapshot
        self._seen: Snapshot | None = None
        self._budgets: frozenset[Budget] = frozenset()
        self._told: tuple[str, frozenset[Budget]] | None = None

    async def recall(self, epoch: str) -> bool:
        """
        Open the pools of all budgets of which something was spent, once for each epoch of the treasury.

        Returns:
            False: The store cannot be read now.
        """
        snapshot = self._snapshot()
        if snapshot is not self._seen:
            self._seen, self._budgets = snapshot, frozenset(budgets_of(snapshot))
        told = epoch, self._budgets
        if told == self._told:
            return True
        now = self._clock.now()
        try:
            spent = await self._transact(lambda unit: list(_read(unit, told[1], now)))
        except StoreUnavailable:  # told by the store's thread; the next exchange tries again
            return False
        # Nothing may be awaited between the read and this: see `control.ledger`.
        for name, limit, cost in spent:
            self._pools.open_budget(name, limit, cost, self._clock.monotonic())
        self._told = told
        return True


def budgets_of(snapshot: Snapshot) -> Iterator[Budget]:
    for key in snapshot.keys.values():
        yield from _budget("key", key.id, key.limits)
    for name, team in snapshot.teams.items():
        yield from _budget("team", name, team.limits)
        yield from _budget("team", name, team.per_subject, is_each=True)
    for name, endpoint in snapshot.endpoints.items():
        yield from _budget("endpoint", name, endpoint.limits)
        yield from _budget("endpoint", name, endpoint.per_subject, is_each=True)


def _budget(of: Owner, name: str, limits: Limits, *, is_each: bool = False) -> Iterator[Budget]:
    if limits.budget_micro_usd:
        yield Budget(of, name, limits.budget_micro_usd, limits.budget_period, is_each)


def _read(unit: UnitOfWork, budgets: Iterable[Budget], now: float) -> Iterator[tuple[str, int, int]]:
    """Account, limit and cost of those of which something was spent in the period that `now` is in."""
    by_owner: dict[tuple[Owner, Period], dict[str, int]] = {}
    for one in budgets:
        since, until = period_bounds(now, one.period)
        scope = f"{one.of}:{one.name}"
        if one.is_each:
            whole = BudgetScope(
                team=one.name if one.of == "team" else None,
                endpoint=one.name if one.of == "endpoint" else None,
                since=since,
                until=until,
            )
            for subject, cost in unit.usage.spent_by("subject", whole).items():
                yield budget_id(f"{scope}/subject:{subject}", one.period, since), one.limit, cost
            continue
        costs = by_owner.get((one.of, one.period))
        if costs is None:
            costs = unit.usage.spent_by(one.of, BudgetScope(since=since, until=until))
            by_owner[one.of, one.period] = costs
        if spent := costs.get(one.name):
            yield budget_id(scope, one.period, since), one.limit, spent
