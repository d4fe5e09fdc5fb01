"""
Several houses that share limits, with the production code from the book of a worker up to the treasury.

Only the wires are the test's: what goes over them is lost, repeated or comes
late. Time is the test's too. Each house has its own store, journal and workers.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from pilothouse.control.allotments import Allotments, Lost
from pilothouse.control.drain import Settled
from pilothouse.control.ledger import LedgerDesk
from pilothouse.control.spending import Spending
from pilothouse.domain.allotment import AllottedPools, Statement, TreasuryAnswer
from pilothouse.domain.errors import StoreUnavailable
from pilothouse.domain.leasing import Kind, LedgerAnswer, LedgerAsk
from pilothouse.domain.ledger import Account, Book, Plan, Reservation, Shortage
from pilothouse.domain.limits import Limits
from pilothouse.domain.snapshot import KeyEntry, Snapshot
from pilothouse.gateway.leases import Leases, Memory
from pilothouse.ports.treasury import Treasury

RPM, TPM, SLOTS, MONEY = 10, 300, 4, 400
LIMITS: dict[Kind, int] = {"rpm": RPM, "tpm": TPM, "parallel": SLOTS, "budget": MONEY}
BUDGET = "key:k|budget|month|0"
SNAPSHOT = Snapshot(
    keys={"k": KeyEntry(id="k", team="t", role="user", mac=b"", limits=Limits(budget_micro_usd=MONEY))}
)


def name_of(kind: Kind) -> str:
    return BUDGET if kind == "budget" else f"key:k|{kind}"


class Time:
    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    monotonic = now


class Line:
    """The way to the treasury, on which statements are lost and come late."""

    def __init__(self, treasury: Treasury) -> None:
        self._treasury = treasury
        self.fault = ""
        self.is_cut = False
        self.late: list[Statement] = []

    async def exchange(self, statement: Statement) -> TreasuryAnswer | None:
        if self.is_cut or self.fault == "ask":
            return None
        if self.fault == "late":
            self.late.append(statement)
            return None
        answer = await self._treasury.exchange(statement)
        if self.fault == "twice":
            await self._treasury.exchange(statement)
        return None if self.fault == "answer" else answer

    async def arrive(self) -> None:
        """What was late comes after all."""
        late, self.late = self.late, []
        for statement in late:
            await self._treasury.exchange(statement)

    async def aclose(self) -> None: ...


class Wire:
    """The way to the controller."""

    def __init__(self, deliver: Callable[[LedgerAsk], Awaitable[LedgerAnswer | None]]) -> None:
        self._deliver = deliver
        self.fault = ""

    async def exchange(self, ask: LedgerAsk, *, timeout_s: float) -> LedgerAnswer | None:
        if self.fault == "ask":
            return None
        answer = await self._deliver(ask)
        if self.fault == "twice":
            answer = await self._deliver(ask)
        return None if self.fault == "answer" else answer

    async def aclose(self) -> None: ...


class Worker:
    def __init__(self, name: str, house: "House", when_lost: Lost) -> None:
        self.name = name
        self.wire = Wire(house.deliver)
        self.book = Book()
        self.leases = Leases(
            self.wire,
            self.book,
            worker=name,
            workers=2,
            when_lost=when_lost,
            is_shared=True,
            memory=Memory(accounts=0, ticks=3),
            monotonic=house.time.now,
        )
        self.open: list[tuple[Reservation, int, int]] = []
        self.journal: list[tuple[int, int]] = []
        self.is_alive = True

    def reserve(self, kinds: tuple[Kind, ...], tokens: int, cost: int, now: float) -> Reservation | Shortage:
        plan = Plan([self.account(kind) for kind in kinds])
        return self.book.reserve(plan, tokens, cost, now=now, expires=math.inf)

    def account(self, kind: Kind) -> Account:
        name, limit = name_of(kind), LIMITS[kind]
        return self.leases.account(name, lambda: Account(name, kind, limit, "key:k"), limit)


class House:
    """A controller, its store and its workers."""

    def __init__(self, name: str, treasury: Treasury, time: Time, *, when_lost: Lost = "closed") -> None:
        self.name, self.time, self.when_lost = name, time, when_lost
        self.line = Line(treasury)
        self.store = 0
        self.is_store_lost = False
        self.lives = 0
        self.workers: list[Worker] = []
        self.made = 0
        self.desk: LedgerDesk | None = None
        self.start_controller()
        for _ in range(2):
            self.add_worker()

    def start_controller(self) -> None:
        is_first = self.lives == 0
        self.lives += 1
        pools = AllottedPools(workers=2, starts_full=is_first, now=self.time.at)
        life = f"{self.name}{self.lives}"
        self.allotments = Allotments(
            self.line,
            pools,
            self.time,
            house=self.name,
            life=life,
            recall=Spending(self._read_store, pools, self.time, lambda: SNAPSHOT).recall,
            when_lost=self.when_lost,
        )
        self.desk = LedgerDesk(self._read_store, self.time, pools, epoch=life, allotments=self.allotments)
        self.pools = pools

    async def _read_store(self, work: Any, *, urgent: bool = False) -> Any:
        if self.is_store_lost:
            raise StoreUnavailable("it is lost")
        usage = SimpleNamespace(
            spent=lambda _: self.store, spent_by=lambda by, _: {"k": self.store} if by == "key" else {}
        )
        return work(SimpleNamespace(usage=usage))

    def add_worker(self) -> None:
        self.made += 1
        self.workers.append(Worker(f"{self.name}-w{self.made}", self, self.when_lost))

    def alive(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.is_alive]

    async def deliver(self, ask: LedgerAsk) -> LedgerAnswer | None:
        """As the controller has it: while an answer waits for the treasury, that is asked."""
        if self.desk is None:
            return None
        answering = asyncio.ensure_future(self.desk.answer(ask))
        while not answering.done():
            await asyncio.sleep(0)
            if not answering.done():
                await self.allotments.exchange()
                await asyncio.sleep(0)
        return answering.result()

    async def ask(
        self, worker: Worker, kinds: tuple[Kind, ...], tokens: int, cost: int, used: tuple[int, int]
    ) -> bool:
        """A request: it waits for the pools when it lacks something, once for each thing."""
        made = worker.reserve(kinds, tokens, cost, self.time.at)
        for _ in kinds:
            if isinstance(made, Reservation):
                break
            worker.book.want(made)
            await worker.leases.exchange()
            made = worker.reserve(kinds, tokens, cost, self.time.at)
        if isinstance(made, Shortage):
            return False
        worker.open.append((made, *used))
        return True

    def end(self, worker: Worker, number: int) -> None:
        reservation, tokens, cost = worker.open.pop(number % len(worker.open))
        assert worker.book.settle(reservation, tokens, cost)
        worker.journal.append((worker.leases.life, cost))

    def kill(self, worker: Worker) -> None:
        worker.is_alive = False
        if self.desk is not None:
            self.desk.leave(worker.name)

    def drain(self) -> None:
        if self.desk is None or self.is_store_lost:
            return
        for worker in self.workers:
            for life, cost in worker.journal:
                self.store += cost
                self.desk.drained([_settled(worker.name, life, cost)])
            worker.journal.clear()
        self.workers = [worker for worker in self.workers if worker.is_alive]
        self.pools.passed([worker.name for worker in self.workers], is_whole=True)
        self.pools.forget_untouched(self.time.at)

    @property
    def money(self) -> int:
        """Spent, or promised to a request that runs."""
        kept = sum(cost for worker in self.workers for _, cost in worker.journal)
        reserved = sum(r.cost for worker in self.alive() for r, _, _ in worker.open)
        return self.store + kept + reserved

    @property
    def running(self) -> int:
        return sum(len(worker.open) for worker in self.alive())


def _settled(writer: str, life: int, cost: int) -> Settled:
    record = SimpleNamespace(
        key_id="k", team="t", endpoint="e", subject_hash="", time=0.0, cost_micro_usd=cost
    )
    made: Any = SimpleNamespace(writer=writer, life=life, record=record)
    return made
