"""
The worker's side of leasing: ask for more before an account runs dry, give back what lies idle.

One exchange at a time, off the request path. When the pools are lost, what is
held is spent, and then the setting says: closed, or a bounded share of its own.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from pilothouse.domain.leasing import LedgerAnswer, LedgerAsk
from pilothouse.domain.ledger import FORGET_TICKS, IDLE_TICKS, Account, Book
from pilothouse.kit.beat import beat_or
from pilothouse.ports.ledger import Ledger

TICK_S = 0.5
"""How often idle leases and expired reservations are looked for, and lost pools asked again."""
PAUSE_S = 0.005
"""Between two exchanges, so that a rate at its bound does not ask for each unit by itself."""
TIMEOUT_S = 2.0
LATE_S = 30.0
"""After its deadline a reservation that nobody settled is settled in full: a defect must not leak."""
MOST_TOLD = 1000
"""Accounts in one exchange that ask for nothing."""
BUDGET_SHARE = 20
"""While the pools are lost, all workers together may spend a twentieth of a budget, by setting."""

Lost = Literal["closed", "share"]


class Memory(Struct, frozen=True):
    """When accounts that nobody asks for are forgotten."""

    accounts: int = 10_000
    """As many are always kept."""
    ticks: int = FORGET_TICKS
    """Beyond them, those that were not asked for in so many looks go."""


class Leases:
    """
    Args:
        workers: How many share the limits on this machine.
        when_lost: What happens when the pools are lost and a lease is spent.
    """

    def __init__(
        self,
        ledger: Ledger,
        book: Book,
        *,
        worker: str,
        workers: int,
        when_lost: Lost,
        is_shared: bool,
        memory: Memory = Memory(),  # noqa: B008 - frozen
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`is_shared`: other machines have the same limits, so that one worker alone may not refill them."""
        self.accounts: dict[str, Account] = {}
        self.on_forgotten: Callable[[], None] = lambda: None
        """Told after accounts were forgotten: whoever still has them must look them up anew."""
        self.life = 0
        self.is_lost = False
        self.is_closed = False
        """The pools can be reached, and what grants to them cannot."""
        self._ledger = ledger
        self._book = book
        self._worker = worker
        self._workers = workers
        self._when_lost = when_lost
        self._is_shared = is_shared
        self._memory = memory
        self._monotonic = monotonic
        self._due: set[Account] = set()
        """Accounts that have something to tell, and ask for nothing."""
        self._epoch = ""
        self._stood_alone = False
        self._greets = False
        self._work = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._waiters: list[asyncio.Future[None]] = []
        self._last_tick = 0.0

    def account(self, account_id: str, make: Callable[[], Account], limit: int) -> Account:
        """The account of that name, with the limit that holds now."""
        found = self.accounts.get(account_id)
        if found is None:
            found = self.accounts[account_id] = make()
            if self.is_lost:
                self._stand_alone(found)
        found.limit = limit
        return found

    def nudge(self) -> None:
        """Accounts ask for more."""
        self._work.set()

    def introduce(self) -> None:
        """Somebody may control now who waits for a claim: talk, though there is nothing to tell."""
        self._greets = True
        self._work.set()

    async def answered(self, timeout_s: float) -> None:
        """Wait until an exchange that began after this call has ended, for so long at the most."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._work.set()
        await asyncio.wait([waiter], timeout=timeout_s)

    async def run(self) -> None:
        """Exchange whenever there is a reason, until cancelled."""
        while True:
            await beat_or(self._work, TICK_S, least_s=PAUSE_S)
            await self.exchange()

    async def hand_back(self) -> None:
        """At the end of this worker: give back whatever nobody uses."""
        for account in self.accounts.values():
            account.give_back()
        self._due.update(self.accounts.values())
        await self.exchange()

    async def exchange(self) -> None:
        """One round: what is due is told, what is granted is taken in, and who waits goes on."""
        async with self._one_at_a_time:
            await self._exchange()

    async def _exchange(self) -> None:
        self._tick()
        waiters, self._waiters = self._waiters, []
        dry, self._book.dry = self._book.dry, set()
        self._book.asks = False
        try:
            if self._must_talk(dry):
                await self._talk(dry)
        finally:
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _must_talk(self, dry: set[Account]) -> bool:
        return bool(dry or self._due) or self._greets or self.is_lost or not self._epoch

    async def _talk(self, dry: set[Account]) -> None:
        self._greets = False
        due = list(self._due)[:MOST_TOLD]
        told = [account for account in {*dry, *due} if self.accounts.get(account.id) is account]
        answer = await self._say([] if self._stood_alone else told)
        if answer is not None and (answer.epoch != self._epoch or self._stood_alone):
            answer = await self._say(told) if await self._claim(answer.epoch) else None
        if answer is None or answer.epoch != self._epoch:
            self._lose()
            return
        self.is_lost, self.is_closed = False, answer.is_closed
        self._due.difference_update(due)
        for account in told:
            account.is_asked = False
        now = self._monotonic()
        forgotten = False
        for grant in answer.grants:
            if (known := self.accounts.get(grant.id)) is None:
                continue
            if grant.is_forgotten and known.is_empty:
                del self.accounts[grant.id]
                forgotten = True
            elif not grant.is_forgotten:
                known.take_in(grant, now)
        if forgotten:
            self.on_forgotten()
        if self._due:
            self._work.set()

    async def _say(self, told: list[Account]) -> LedgerAnswer | None:
        states = tuple([account.state() for account in told])
        for account in told:
            account.said = account.gone
        ask = LedgerAsk(worker=self._worker, epoch=self._epoch, life=self.life, states=states)
        return await self._ledger.exchange(ask, timeout_s=TIMEOUT_S)

    async def _claim(self, epoch: str) -> bool:
        """Tell pools that do not know us all that we hold; whether they heard it."""
        self.life += 1
        self._epoch = epoch
        for account in self.accounts.values():
            account.rebase()
        ask = LedgerAsk(
            worker=self._worker,
            epoch=epoch,
            life=self.life,
            is_claim=True,
            stood_alone=self._stood_alone,
            states=tuple([a.state() for a in self.accounts.values() if a.granted]),
        )
        answer = await self._ledger.exchange(ask, timeout_s=TIMEOUT_S)
        if answer is None or answer.epoch != epoch:
            self._epoch = ""
            return False
        self._stood_alone = False
        return True

    def _lose(self) -> None:
        for account in self._book.dry | set(self.accounts.values()):
            account.is_asked = False
        if not self.is_lost:
            self.is_lost = True
            for account in self.accounts.values():
                self._stand_alone(account)

    def _stand_alone(self, account: Account) -> None:
        is_only = self._workers == 1 and not self._is_shared
        if account.kind == "budget":
            if self._when_lost == "share":
                self._stood_alone = True
                account.stand_alone(account.limit // (BUDGET_SHARE * self._workers), self._monotonic())
        elif is_only or self._when_lost == "share":
            self._stood_alone = True
            account.stand_alone(account.limit // self._workers, self._monotonic())

    def _tick(self) -> None:
        """Twice a second: what nobody used lately goes back, with the next exchange."""
        now = self._monotonic()
        if now - self._last_tick < TICK_S:
            return
        self._last_tick = now
        self._book.expire(now - LATE_S)
        if self.is_lost:
            return
        are_many = len(self.accounts) > self._memory.accounts
        is_lone = self._workers == 1 and not self._is_shared
        for account in self.accounts.values():
            account.idle += 1
            account.forgets = are_many and account.idle >= self._memory.ticks
            if account.forgets and account.idle % self._memory.ticks == 0:
                account.give_back()
                self._due.add(account)
            elif is_lone:
                continue
            elif account.idle < IDLE_TICKS:
                if account.is_rate and account.gone != account.said and len(self._due) < MOST_TOLD:
                    self._due.add(account)  # callers of the other workers are told what is left
            elif account.available >= 1 or account.gone != account.said:
                account.give_back()
                self._due.add(account)
