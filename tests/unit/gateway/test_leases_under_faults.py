"""
Several workers, one controller, and everything that can go wrong between them.

The machine plays the whole protocol with the production code on both sides:
messages are lost and repeated, workers and controllers die at any step, the
drain comes late. What must hold at each step is that nothing is overspent.
"""

import asyncio
import math
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pilothouse.domain.leasing import Kind, LedgerAnswer, LedgerAsk
from pilothouse.domain.ledger import Account, Book, Plan, Reservation, Shortage
from pilothouse.domain.pools import Pools
from pilothouse.gateway.leases import Leases, Memory

RPM, TPM, SLOTS, MONEY = 10, 300, 3, 300
_LIMITS: dict[Kind, int] = {"rpm": RPM, "tpm": TPM, "parallel": SLOTS, "budget": MONEY}
_NAMES: dict[Kind, str] = {
    "rpm": "key:k|rpm",
    "tpm": "key:k|tpm",
    "parallel": "key:k|parallel",
    "budget": "key:k|budget|month|0",
}
FAULTS = st.sampled_from(["", "", "", "ask", "answer", "twice"])
SELDOM = st.integers(0, 3)
BUDGET = _NAMES["budget"]


class Wire:
    """A ledger whose messages a test loses, or delivers twice."""

    def __init__(self, deliver: Callable[[LedgerAsk], LedgerAnswer | None]) -> None:
        self._deliver = deliver
        self.loses_ask = self.loses_answer = self.repeats = False

    async def exchange(self, ask: LedgerAsk, *, timeout_s: float) -> LedgerAnswer | None:
        if self.loses_ask:
            return None
        answer = self._deliver(ask)
        if self.repeats:
            answer = self._deliver(ask)
        return None if self.loses_answer else answer

    async def aclose(self) -> None: ...


class Worker:
    """The production code of a worker's side, and its journal."""

    def __init__(
        self, name: str, deliver: Callable[[LedgerAsk], LedgerAnswer | None], now: Callable[[], float]
    ) -> None:
        self.name = name
        self.wire = Wire(deliver)
        self.book = Book()
        self.leases = Leases(
            self.wire,
            self.book,
            worker=name,
            workers=3,
            when_lost="closed",
            is_shared=False,
            memory=Memory(accounts=0, ticks=3),
            monotonic=now,
        )
        self.open: list[tuple[Reservation, int, int]] = []
        self.journal: list[tuple[int, int]] = []
        """Costs that were kept and not drained, with the lease's life."""
        self.is_alive = True

    def plan(self, kinds: tuple[Kind, ...]) -> Plan:
        return Plan([self.account(kind) for kind in kinds])

    def account(self, kind: Kind) -> Account:
        name, limit = _NAMES[kind], _LIMITS[kind]
        return self.leases.account(name, lambda: Account(name, kind, limit, "key:k"), limit)


class House(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.time = 1000.0
        self.loop = asyncio.new_event_loop()
        self.store = 0
        """Cost in the store: it survives every controller."""
        self.workers: list[Worker] = []
        self.made = 0
        self.admitted: list[tuple[float, int]] = []
        """When, and how many tokens in the end."""
        self.epoch = 0
        self.pools: Pools | None = None
        self.kinds: tuple[Kind, ...] = tuple(_LIMITS)

    @initialize(kinds=st.sampled_from([*[(kind,) for kind in _LIMITS], tuple(_LIMITS)]))
    def start(self, kinds: tuple[Kind, ...] = tuple(_LIMITS)) -> None:
        self.kinds = kinds
        self.pools = Pools(workers=3, starts_full=True, now=self.time)
        for which in range(2):
            self.add_worker()
            self.exchange(which)
        self.drain(whole=True)

    def deliver(self, ask: LedgerAsk) -> LedgerAnswer | None:
        if self.pools is None:
            return None
        epoch = f"e{self.epoch}"
        if ask.epoch == epoch:
            for state in self.pools.lacks_base(ask.states):
                self.pools.open_budget(state.id, state.limit, self.store, self.time)
        return self.pools.answer(ask, epoch, self.time)

    def alive(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.is_alive]

    def pick(self, number: int) -> Worker | None:
        alive = self.alive()
        return alive[number % len(alive)] if alive else None

    # what happens

    @precondition(lambda self: len(self.alive()) < 3)
    @rule()
    def add_worker(self) -> None:
        self.made += 1
        self.workers.append(Worker(f"w{self.made}", self.deliver, lambda: self.time))

    @rule(
        which=st.integers(0, 5),
        tokens=st.integers(1, 200),
        cost=st.integers(20, 200),
        share=st.sampled_from([0.0, 0.5, 1.0, 1.0]),
        fault=FAULTS,
        ends=st.booleans(),
    )
    def ask(
        self, which: int, tokens: int, cost: int, share: float, *, fault: str = "", ends: bool = False
    ) -> None:
        """A request: it waits for the pools once when it lacks something, as the gateway has it."""
        worker = self.pick(which)
        if worker is None:
            return
        made = self.reserved(worker, tokens, cost)
        if not isinstance(made, Reservation):
            worker.book.want(made)
            self.exchange(which, fault)
            made = self.reserved(worker, tokens, cost)
        if isinstance(made, Reservation):
            worker.open.append((made, int(tokens * share), int(cost * share)))
            self.admitted.append((self.time, tokens))
            if ends:
                self.end(which, len(worker.open) - 1)

    def reserved(self, worker: Worker, tokens: int, cost: int) -> Reservation | Shortage:
        plan = worker.plan(self.kinds)
        return worker.book.reserve(plan, tokens, cost, now=self.time, expires=math.inf)

    @rule(which=st.integers(0, 5), number=st.integers(0, 5))
    def end(self, which: int, number: int) -> None:
        worker = self.pick(which)
        if worker is None or not worker.open:
            return
        reservation, tokens, cost = worker.open.pop(number % len(worker.open))
        assert worker.book.settle(reservation, tokens, cost)
        assert not worker.book.settle(reservation, tokens, cost)
        worker.journal.append((worker.leases.life, cost))

    @rule(which=st.integers(0, 5), fault=FAULTS)
    def exchange(self, which: int, fault: str = "") -> None:
        worker = self.pick(which)
        if worker is None:
            return
        wire = worker.wire
        wire.loses_ask, wire.loses_answer, wire.repeats = fault == "ask", fault == "answer", fault == "twice"
        self.loop.run_until_complete(worker.leases.exchange())

    @rule(seconds=st.sampled_from([0.1, 0.6, 5.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.time += seconds

    @rule(which=st.integers(0, 5), seldom=SELDOM)
    def kill_worker(self, which: int, seldom: int = 0) -> None:
        """What was reserved and not kept is never paid: nobody got an end of it."""
        worker = self.pick(which)
        if worker is not None and not seldom:
            worker.is_alive = False
            if self.pools is not None:
                self.pools.leave(worker.name)

    @rule(which=st.integers(0, 5))
    def cut_connection(self, which: int) -> None:
        worker = self.pick(which)
        if worker is not None and self.pools is not None:
            self.pools.leave(worker.name)

    @rule(seldom=SELDOM, is_away=st.booleans())
    def replace_controller(self, seldom: int, *, is_away: bool) -> None:
        if seldom:
            return
        self.epoch += 1
        self.pools = None if is_away else Pools(workers=3, starts_full=False, now=self.time)

    @precondition(lambda self: self.pools is None)
    @rule()
    def start_controller(self) -> None:
        self.pools = Pools(workers=3, starts_full=False, now=self.time)

    @precondition(lambda self: self.pools is not None)
    @rule(whole=st.sampled_from([True, True, False]), most=st.integers(1, 3))
    def drain(self, *, whole: bool, most: int = 1) -> None:
        assert self.pools is not None
        for worker in self.workers:
            count = len(worker.journal) if whole else min(most, len(worker.journal))
            for life, cost in worker.journal[:count]:
                self.store += cost
                self.pools.settle(worker.name, life, {BUDGET: cost})
            del worker.journal[:count]
        self.workers = [worker for worker in self.workers if worker.is_alive or worker.journal]
        self.pools.passed([worker.name for worker in self.workers], is_whole=whole)

    @precondition(lambda self: self.pools is not None)
    @rule()
    def forget_untouched(self) -> None:
        assert self.pools is not None
        self.pools.forget_untouched(self.time)

    # what must hold

    @invariant()
    def the_budget_is_never_overspent(self) -> None:
        kept = sum(cost for worker in self.workers for _, cost in worker.journal)
        reserved = sum(r.cost for worker in self.alive() for r, _, _ in worker.open)
        assert "budget" not in self.kinds or self.store + kept + reserved <= MONEY

    @invariant()
    def no_more_run_at_once_than_the_limit_says(self) -> None:
        assert "parallel" not in self.kinds or sum(len(worker.open) for worker in self.alive()) <= SLOTS

    @invariant()
    def in_any_span_no_more_begin_than_the_limit_and_what_came_back(self) -> None:
        if "rpm" not in self.kinds:
            return
        times = [time for time, _ in self.admitted[-3 * RPM :]]
        for at, first in enumerate(times):
            assert len(times) - at <= RPM * (1 + (self.time - first) / 60) + 1e-6

    @invariant()
    def no_account_is_in_debt(self) -> None:
        for worker in self.alive():
            assert all(account.available >= 0 for account in worker.leases.accounts.values())

    def teardown(self) -> None:
        self.loop.close()


def test_a_worker_claims_when_it_is_introduced_though_it_has_nothing_to_tell() -> None:
    """One with a long stream and nothing else was waited for until that ended, and others got no budget."""
    house = House()
    house.start(("budget",))
    house.ask(0, 1, 300, 1.0)
    for _ in range(4):  # all that is idle went back
        house.wait(1.0)
        house.exchange(0, "")
    house.replace_controller(0, is_away=False)
    house.exchange(0, "")
    assert house.pools is not None
    assert house.pools.lives == {}

    house.alive()[0].leases.introduce()
    house.exchange(0, "")

    assert house.pools.lives == {"w1": 2}
    assert house.pools.pools[BUDGET].outstanding == 300
    house.teardown()


House.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestHouse = House.TestCase


@pytest.mark.parametrize("deaths", [0, 1])
def test_nothing_leaks_when_all_is_settled_and_drained(deaths: int) -> None:
    """After everything came to rest, all that was not spent can be had again."""
    house = House()
    house.start()
    for _ in range(6):
        for which in (0, 1):
            house.exchange(which, "")
            house.ask(which, 10, 50, 0.5)
            house.exchange(which, "")
            house.end(which, 0)
    for _ in range(deaths):
        house.kill_worker(0)
    for _ in range(4):
        house.drain(whole=True)
        house.wait(30.0)
        for which in (0, 1):
            house.exchange(which, "")
    assert house.pools is not None

    for kind, name in _NAMES.items():
        pool = house.pools.pools[name]
        pool.refill(house.time)
        spent = house.store if kind == "budget" else 0
        assert pool.room() + pool.outstanding == _LIMITS[kind] - spent
    house.teardown()
