"""What callers are told of a rate that several workers share: the whole of it, whichever worker answers."""

import math

import pytest

from pilothouse.domain.leasing import LedgerAnswer, LedgerAsk
from pilothouse.domain.ledger import Account, Book, Plan, Reservation
from pilothouse.domain.pools import Pools
from pilothouse.gateway.leases import TICK_S, Leases

LIMIT = 600
USED = 3
"""Tokens of an answer, of which 20 were reserved."""


class Workers:
    """Two of them, and the pools of their controller, at a time that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pools = Pools(workers=2, starts_full=True, now=self.now)
        self.pools.passed((), is_whole=True)
        made = [self._worker(name) for name in ("a", "b")]
        self.leases = [leases for leases, _, _ in made]
        self.books = [book for _, book, _ in made]
        self.accounts = [account for _, _, account in made]

    async def exchange(self, ask: LedgerAsk, *, timeout_s: float) -> LedgerAnswer | None:
        return self.pools.answer(ask, "e", self.now)

    async def aclose(self) -> None: ...

    async def serve(self, which: int) -> int:
        """One request of that worker; what its caller is told is left."""
        book, plan = self.books[which], Plan([self.accounts[which]])
        made = book.reserve(plan, 20, 0, now=self.now, expires=math.inf)
        if not isinstance(made, Reservation):
            book.want(made)
            await self.leases[which].exchange()
            made = book.reserve(plan, 20, 0, now=self.now, expires=math.inf)
        assert isinstance(made, Reservation)
        told = self.accounts[which].remaining(self.now)
        assert book.settle(made, USED, 0)
        return told + 20

    async def tick(self) -> None:
        self.now += TICK_S
        for leases in self.leases:
            await leases.exchange()

    def _worker(self, name: str) -> tuple[Leases, Book, Account]:
        book = Book()
        leases = Leases(
            self,
            book,
            worker=name,
            workers=2,
            when_lost="closed",
            is_shared=False,
            monotonic=lambda: self.now,
        )
        return leases, book, leases.account("k|tpm", lambda: Account("k|tpm", "tpm", LIMIT, "key:k"), LIMIT)


@pytest.mark.parametrize("each", [1, 4])
async def test_both_workers_tell_the_same_but_for_the_last_second(each: int) -> None:
    workers = Workers()
    truth = float(LIMIT)
    for _ in range(20):
        for which in [0, 1] * each:
            told = await workers.serve(which)
            assert abs(told - truth) <= 4 * each * USED + 2
            truth -= USED
        await workers.tick()
        await workers.tick()
        truth = min(LIMIT, truth + 2 * TICK_S * LIMIT / 60)
