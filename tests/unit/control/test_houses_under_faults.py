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


@pytest.mark.xfail(strict=True, reason="not mended yet: found at random by the suite above, on 2026-11-29")
def test_a_budget_is_kept_when_the_treasury_is_lost_between_two_controllers_of_a_house() -> None:
    city = MemoryCity()
    city.start(kinds=("budget",))
    city.spend_all(which=2, ends=False)
    city.replace_controller(which=1, seldom=0)
    city.the_treasury_loses_everything(which=0, seldom=0)
    city.wait(seconds=5.0)
    city.known_fault.clear()

    city.replace_controller(which=1, seldom=0)

    city.teardown()
    assert sum(house.money for house in city.houses) <= MONEY
