"""
The Ledger: where a worker's leases of limits and budgets come from.

The controller grants them on its machine. Asked in the background,
before a lease runs dry; only a request that would otherwise be refused waits for
an answer, and only for a moment.
"""

from typing import Protocol

from pilothouse.domain.leasing import LedgerAnswer, LedgerAsk


class Ledger(Protocol):
    """One exchange at a time."""

    async def exchange(self, ask: LedgerAsk, *, timeout_s: float) -> LedgerAnswer | None:
        """
        Tell what was spent and given back, and get what is granted.

        The sums only grow, so that an exchange whose answer was lost may be
        repeated. An answer of another epoch than the ask's has no grants: the
        pools know nothing of this worker, who has to claim what it holds.

        Returns:
            None: the pools cannot be reached, or not in time.
        """
        ...

    async def aclose(self) -> None: ...
