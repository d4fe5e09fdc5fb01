"""
Houses with their workers, one treasury, and everything that can go wrong between them.

What must hold at each step: all houses together never overspend.
"""

import asyncio

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from houses_rig import LIMITS, MONEY, RPM, SLOTS, House, Time, Worker
from pilothouse.domain.leasing import Kind
from pilothouse.ports.treasury import Treasury

FAULTS = st.sampled_from(["", "", "", "ask", "answer", "twice"])
LINE_FAULTS = st.sampled_from(["", "", "", "ask", "answer", "twice", "late"])
SELDOM = st.integers(0, 3)
WHICH = st.integers(0, 5)


class City(RuleBasedStateMachine):
    """Houses `closed` when the treasury is lost, so that nothing may be overspent at all."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.time = Time()
        self.begun: list[float] = []
        self.kinds: tuple[Kind, ...] = tuple(LIMITS)
        self.houses: list[House] = []

    def open_treasury(self) -> Treasury:
        raise NotImplementedError

    def empty_treasury(self) -> None:
        raise NotImplementedError

    def save_treasury(self) -> None:
        raise NotImplementedError

    def restart_treasury(self) -> None:
        """With what it saved last, or with nothing."""
        raise NotImplementedError

    @initialize(kinds=st.sampled_from([*[(kind,) for kind in LIMITS], tuple(LIMITS)]))
    def start(self, kinds: tuple[Kind, ...] = tuple(LIMITS)) -> None:
        self.kinds = kinds
        self.treasury = self.open_treasury()
        self.houses = [House(name, self.treasury, self.time) for name in ("a", "b")]
        for _ in range(2):
            for house in self.houses:
                house.drain()
                self.talk(house)
                for worker in house.workers:
                    self.loop.run_until_complete(worker.leases.exchange())
            self.time.at += 59.0

    def talk(self, house: House) -> None:
        self.loop.run_until_complete(house.allotments.exchange())

    def pick(self, which: int) -> tuple[House, Worker] | None:
        alive = self.living()
        return alive[which % len(alive)] if alive else None

    def living(self) -> list[tuple[House, Worker]]:
        return [(house, worker) for house in self.houses for worker in house.alive()]

    @rule(
        which=WHICH,
        tokens=st.integers(1, 200),
        cost=st.integers(20, 200),
        share=st.sampled_from([0.0, 0.5, 1.0, 1.0]),
        fault=FAULTS,
        line_fault=LINE_FAULTS,
        ends=st.booleans(),
    )
    def ask(
        self, which: int, tokens: int, cost: int, share: float, fault: str, line_fault: str, *, ends: bool
    ) -> None:
        picked = self.pick(which)
        if picked is None:
            return
        house, worker = picked
        worker.wire.fault, house.line.fault = fault, line_fault
        used = (int(tokens * share), int(cost * share))
        if self.loop.run_until_complete(house.ask(worker, self.kinds, tokens, cost, used)):
            self.begun.append(self.time.at)
            if ends:
                house.end(worker, len(worker.open) - 1)
        worker.wire.fault = house.line.fault = ""

    @rule(which=WHICH, ends=st.booleans())
    def spend_all(self, which: int, *, ends: bool) -> None:
        """Ask until there is no more, so that whatever was counted wrongly is spent."""
        picked = self.pick(which)
        if picked is None:
            return
        house, worker = picked
        self.talk(house)
        for _ in range(12):
            if not self.loop.run_until_complete(house.ask(worker, self.kinds, 1, 40, (1, 40))):
                break
            self.begun.append(self.time.at)
            if ends:
                house.end(worker, len(worker.open) - 1)

    def spend_all_elsewhere(self, house: House) -> None:
        for number, (other, _) in enumerate(self.living()):
            if other is not house:
                self.spend_all(number, ends=True)

    @rule(which=WHICH)
    def an_old_word_comes_late(self, which: int) -> None:
        """It says what a house held before it was given more."""
        picked = self.pick(which)
        if picked is None:
            return
        house, worker = picked
        house.line.fault = "late"
        if self.loop.run_until_complete(house.ask(worker, self.kinds, 1, 40, (1, 40))):
            self.begun.append(self.time.at)
        house.line.fault = ""
        self.spend_all(which, ends=False)
        self.loop.run_until_complete(house.line.arrive())
        self.spend_all_elsewhere(house)

    @rule(which=WHICH, number=WHICH)
    def end(self, which: int, number: int) -> None:
        picked = self.pick(which)
        if picked is not None and picked[1].open:
            picked[0].end(picked[1], number)

    @rule(which=WHICH)
    def worker_talks(self, which: int) -> None:
        picked = self.pick(which)
        if picked is not None:
            self.loop.run_until_complete(picked[1].leases.exchange())

    @rule(which=st.integers(0, 1), fault=LINE_FAULTS)
    def house_talks(self, which: int, fault: str) -> None:
        house = self.houses[which]
        if house.desk is not None:
            house.line.fault = fault
            self.talk(house)
            house.line.fault = ""

    @rule(which=st.integers(0, 1))
    def late_statements_arrive(self, which: int) -> None:
        self.loop.run_until_complete(self.houses[which].line.arrive())

    @rule(seconds=st.sampled_from([0.1, 0.6, 5.0, 19.0]))
    def wait(self, seconds: float) -> None:
        """Nobody who lives is silent for a minute; see the suite for those who are."""
        self.time.at += seconds
        for house in self.houses:
            if house.desk is not None:
                house.line.fault = ""
                self.talk(house)

    @rule(which=WHICH, seldom=SELDOM)
    def kill_worker(self, which: int, seldom: int) -> None:
        picked = self.pick(which)
        if picked is not None and not seldom:
            picked[0].kill(picked[1])
            picked[0].add_worker()

    @rule(which=st.integers(0, 1), seldom=SELDOM, are_greeted=st.booleans())
    def replace_controller(self, which: int, seldom: int, *, are_greeted: bool) -> None:
        """Its workers live on, and claim what they hold when they hear of it, or need something."""
        if seldom:
            return
        house = self.houses[which]
        house.start_controller()
        for _ in range(2):
            for worker in house.alive():
                if are_greeted:
                    worker.leases.introduce()
                self.loop.run_until_complete(worker.leases.exchange())
                self.talk(house)
                self.spend_all_elsewhere(house)
            house.drain()
        house.drain()
        self.talk(house)
        self.spend_all_elsewhere(house)

    @rule(which=st.integers(0, 1))
    def drain(self, which: int) -> None:
        self.houses[which].drain()

    @rule(which=st.integers(0, 1), seldom=SELDOM)
    def the_treasury_loses_everything(self, which: int, seldom: int) -> None:
        """One house is there at once and takes what it gets, the other within the five seconds of grace."""
        if not seldom:
            self.empty_treasury()
            self.meet_anew(which)

    @rule()
    def the_treasury_saves(self) -> None:
        self.save_treasury()

    @rule(which=st.integers(0, 1), seldom=SELDOM)
    def the_treasury_restarts(self, which: int, seldom: int) -> None:
        """What it granted since it saved is unknown to it."""
        if not seldom:
            self.restart_treasury()
            self.meet_anew(which)

    def meet_anew(self, which: int) -> None:
        self.spend_all_elsewhere(self.houses[which])
        for _ in range(2):
            for house in self.houses:
                self.talk(house)

    @rule(which=st.integers(0, 1), is_lost=st.booleans())
    def a_store_goes_or_comes(self, which: int, *, is_lost: bool) -> None:
        self.houses[which].is_store_lost = is_lost

    @invariant()
    def the_budget_is_never_overspent(self) -> None:
        assert "budget" not in self.kinds or sum(house.money for house in self.houses) <= MONEY

    @invariant()
    def no_more_run_at_once_than_the_limit_says(self) -> None:
        assert "parallel" not in self.kinds or sum(house.running for house in self.houses) <= SLOTS

    @invariant()
    def in_any_span_no_more_begin_than_the_limit_and_what_came_back(self) -> None:
        if "rpm" in self.kinds:
            times = self.begun[-3 * RPM :]
            for at, first in enumerate(times):
                assert len(times) - at <= RPM * (1 + (self.time.at - first) / 60) + 1e-6

    def teardown(self) -> None:
        self.loop.run_until_complete(self.treasury.aclose())
        self.loop.close()
