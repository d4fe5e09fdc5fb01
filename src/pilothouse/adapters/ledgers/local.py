"""Leases granted by the controller of this machine, over the Feed. See `ports.ledger.Ledger`."""

from pilothouse.domain.leasing import LedgerAnswer, LedgerAsk
from pilothouse.ports.feed import Feed


class LocalLedger:
    """The feed stays its owner's: closing this closes nothing."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def exchange(self, ask: LedgerAsk, *, timeout_s: float) -> LedgerAnswer | None:
        return await self._feed.exchange(ask, timeout_s=timeout_s)

    async def aclose(self) -> None:
        """Nothing to close."""
