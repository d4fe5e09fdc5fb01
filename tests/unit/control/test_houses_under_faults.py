"""Houses that share limits, with the treasury of one process; with Redis see `tests/integration/app`."""

import pytest
from hypothesis import settings

from houses_city import City
from houses_rig import LIMITS, MONEY
from pilothouse.domain.ledger import Shortage
from pilothouse.ports.treasury import Treasury
from pilothouse.testing.memory_treasury import MemoryTreasury


class MemoryCity(City):
    def open_treasury(self) -> Treasury:
        self.vault = MemoryTreasury(self.time.now)
        return self.vault

    def empty_treasury(self) -> None:
        self.vault.empty()

    def save_treasury(self) -> None:
        self.vault.save()

    def restart_treasury(self) -> None:
        self.vault.restart()


MemoryCity.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestCity = MemoryCity.TestCase


@pytest.mark.parametrize("deaths", [0, 1])
def test_nothing_leaks_between_houses_when_all_came_to_rest(deaths: int) -> None:
    city = MemoryCity()
    city.start()
    a, b = city.houses
    for house in (a, b):
        for worker in house.workers:
            assert city.loop.run_until_complete(house.ask(worker, city.kinds, 10, 50, (5, 25)))
            house.end(worker, 0)
    for _ in range(deaths):
        a.kill(a.workers[0])
    for _ in range(8):
        city.time.at += 15.0
        for house in (a, b):
            house.drain()
            for worker in house.alive():
                city.loop.run_until_complete(worker.leases.exchange())
            city.talk(house)

    spent = a.store + b.store
    asked = {kind: LIMITS[kind] - (spent if kind == "budget" else 0) for kind in city.kinds}
    for kind, units in asked.items():
        worker = b.workers[0]
        account = worker.account(kind)
        worker.book.want(Shortage(account, units))
        city.loop.run_until_complete(worker.leases.exchange())
        assert account.available == units, kind
    city.teardown()


def city_where_b_spent_all(*, ends: bool) -> MemoryCity:
    city = MemoryCity()
    city.start(kinds=("budget",))
    city.spend_all(which=2, ends=ends)
    city.drain(1)
    return city


def test_a_budget_is_kept_when_the_treasury_is_lost_between_two_controllers_of_a_house() -> None:
    city = city_where_b_spent_all(ends=False)
    city.replace_controller(which=1, seldom=0, are_greeted=False)
    city.the_treasury_loses_everything(which=0, seldom=0)
    city.wait(seconds=5.0)

    city.replace_controller(which=1, seldom=0, are_greeted=False)

    city.teardown()
    assert sum(house.money for house in city.houses) <= MONEY


@pytest.mark.parametrize("are_greeted", [False, True])
def test_what_a_house_spent_counts_in_an_empty_treasury_though_nobody_there_holds_any_of_it(
    *, are_greeted: bool
) -> None:
    city = city_where_b_spent_all(ends=True)
    city.replace_controller(which=1, seldom=0, are_greeted=are_greeted)
    city.the_treasury_loses_everything(which=1, seldom=0)
    for _ in range(3):
        city.wait(seconds=5.0)
        city.drain(1)

    city.spend_all(which=0, ends=True)

    city.teardown()
    assert sum(house.money for house in city.houses) <= MONEY


def test_what_was_granted_since_the_treasury_saved_is_not_granted_again_when_it_restarts() -> None:
    city = MemoryCity()
    city.start(kinds=("budget",))
    city.the_treasury_saves()
    city.spend_all(which=2, ends=True)
    city.the_treasury_restarts(which=1, seldom=0)
    city.wait(seconds=5.0)

    city.spend_all(which=0, ends=True)

    city.teardown()
    assert sum(house.money for house in city.houses) <= MONEY


def test_the_last_word_of_a_controller_that_died_does_not_count_after_its_successors() -> None:
    city = MemoryCity()
    city.start(kinds=("budget",))
    b = city.houses[1]
    b.line.fault = "late"
    city.talk(b)
    b.line.fault = ""
    city.replace_controller(which=1, seldom=0, are_greeted=True)
    city.spend_all(which=2, ends=True)

    city.late_statements_arrive(which=1)
    city.spend_all(which=0, ends=True)

    city.teardown()
    assert sum(house.money for house in city.houses) <= MONEY


def test_others_get_their_part_again_once_a_new_controller_knows_what_its_house_holds() -> None:
    city = MemoryCity()
    city.start(kinds=("budget",))
    city.replace_controller(which=1, seldom=0, are_greeted=True)
    city.the_treasury_loses_everything(which=1, seldom=0)
    for _ in range(2):
        city.drain(1)
        city.wait(seconds=5.0)

    city.spend_all(which=0, ends=True)

    city.teardown()
    assert city.houses[0].money == MONEY
