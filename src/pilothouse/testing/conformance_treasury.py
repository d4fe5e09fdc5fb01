"""
What every treasury must do: `class TestMine(TreasuryConformance)` with a fixture `vault`.

Time is the test's. A vault is a treasury with a way to lose all that it knows.
"""

from typing import Protocol

from pilothouse.domain.allotment import Holding, Statement, TreasuryAnswer
from pilothouse.domain.leasing import Kind
from pilothouse.ports.treasury import Treasury

GRACE_S = 5.0
SILENT_S = 60.0
BUDGET = "key:k|budget|month|0"


class Vault(Protocol):
    """A treasury with `GRACE_S` and `SILENT_S`, and its clock."""

    treasury: Treasury
    time: float

    async def empty(self) -> None:
        """As if it were restarted without what it knew."""
        ...

    async def restart(self) -> None:
        """As if it were restarted with what it knew."""
        ...


class House:
    """What one controller says, with nothing of its own judgement."""

    def __init__(self, vault: Vault, name: str, *, life: str = "one") -> None:
        self._vault, self.name, self.life = vault, name, life
        self.number = 0
        self.epoch = ""

    async def say(
        self, *holdings: Holding, number: int | None = None, is_whole: bool = True
    ) -> TreasuryAnswer:
        if number is None:
            self.number += 1
            number = self.number
        answer = await self._vault.treasury.exchange(
            Statement(
                house=self.name,
                life=self.life,
                number=number,
                epoch=self.epoch,
                is_whole=is_whole,
                holdings=tuple(holdings),
            )
        )
        assert answer is not None
        self.epoch = answer.epoch
        return answer

    async def hold(
        self, held: int, need: int = 0, *, kind: Kind = "budget", returned: int = 0, limit: int = 100
    ) -> int:
        """What it holds after it said this."""
        name = BUDGET if kind == "budget" else f"key:k|{kind}"
        answer = await self.say(Holding(name, kind, limit, held, returned, need))
        return answer.allotments[0].held


async def met(vault: Vault, *names: str) -> list[House]:
    """Houses that introduced themselves to a treasury that is no longer new."""
    houses = [House(vault, name) for name in names]
    for house in houses:
        await house.say()
    for _ in range(2):
        vault.time += SILENT_S - 1
        for house in houses:
            await house.say()
    return houses


class TreasuryConformance:
    async def test_what_one_house_holds_another_does_not_get(self, vault: Vault) -> None:
        a, b = await met(vault, "a", "b")

        assert await a.hold(0, 70) == 70
        assert await b.hold(0, 40) == 0
        assert await b.hold(0, 30) == 30

    async def test_a_house_alone_gets_all_and_of_two_each_gets_a_part(self, vault: Vault) -> None:
        (a,) = await met(vault, "a")
        assert await a.hold(0, 1) == 100

        assert await a.hold(0) == 0
        b = House(vault, "b")
        await b.say()
        await b.say()

        assert await a.hold(0, 1) == 25

    async def test_a_grant_whose_answer_was_lost_is_taken_back_by_the_next_statement(
        self, vault: Vault
    ) -> None:
        a, b = await met(vault, "a", "b")
        await a.hold(0, 70)

        await a.hold(0)

        assert await b.hold(0, 100) == 100

    async def test_a_statement_that_was_overtaken_changes_nothing(self, vault: Vault) -> None:
        a, b = await met(vault, "a", "b")
        await a.hold(60, 40)
        late = await a.say(Holding(BUDGET, "budget", 100, 0, 0, 0), number=a.number - 1)

        assert late.allotments == ()
        assert await b.hold(0, 1) == 0

    async def test_what_a_house_spent_before_it_was_asked_counts(self, vault: Vault) -> None:
        a, b = await met(vault, "a", "b")
        assert await a.hold(130) == 130

        assert await b.hold(0, 1) == 0

    async def test_slots_and_rates_of_a_silent_house_come_back_and_its_money_does_not(
        self, vault: Vault
    ) -> None:
        a, b = await met(vault, "a", "b")
        for kind in ("parallel", "rpm", "budget"):
            assert await a.hold(0, 100, kind=kind) == 100
        vault.time += SILENT_S + 1

        assert await b.hold(0, 100, kind="parallel") == 100
        assert await b.hold(0, 100, kind="rpm") == 100
        assert await b.hold(0, 1) == 0

    async def test_a_rate_comes_back_by_time_where_nobody_holds_it(self, vault: Vault) -> None:
        a, b = await met(vault, "a", "b")
        assert await a.hold(0, 100, kind="rpm") == 100
        vault.time += 30
        assert await b.hold(0, 1, kind="rpm") == 0

        assert await a.hold(0, kind="rpm") == 0  # all is spent
        vault.time += 30

        assert await b.hold(0, 51, kind="rpm") == 0
        assert await b.hold(0, 50, kind="rpm") == 50

    async def test_units_of_a_rate_that_are_given_back_can_be_had_at_once_and_once(
        self, vault: Vault
    ) -> None:
        a, b = await met(vault, "a", "b")
        await a.hold(0, 100, kind="rpm")
        await a.hold(60, kind="rpm", returned=40)
        await a.hold(60, kind="rpm", returned=40)

        assert await b.hold(0, 41, kind="rpm") == 0
        assert await b.hold(0, 40, kind="rpm") == 40

    async def test_a_treasury_that_lost_everything_first_hears_all_houses(self, vault: Vault) -> None:
        a, b = await met(vault, "a", "b")
        assert await a.hold(0, 90) == 90
        await vault.empty()

        before = b.epoch
        assert await b.hold(5, 10) == 5
        assert b.epoch != before
        assert await b.hold(5, 10) == 5
        assert (await b.say()).is_new
        for _ in range(2):
            assert await a.hold(90) == 90
        vault.time += GRACE_S

        assert await b.hold(5, 6) == 5
        assert await b.hold(5, 5) == 10
        assert not (await b.say()).is_new

    async def test_rates_begin_empty_when_everything_was_lost(self, vault: Vault) -> None:
        a, _ = await met(vault, "a", "b")
        assert await a.hold(0, 100, kind="rpm") == 100
        await vault.empty()

        assert await a.hold(40, kind="rpm") == 40
        vault.time += 6

        assert await a.hold(40, 11, kind="rpm") == 40
        assert await a.hold(40, 10, kind="rpm") == 50

    async def test_what_was_given_back_before_everything_was_lost_is_not_counted_again(
        self, vault: Vault
    ) -> None:
        a, b = await met(vault, "a", "b")
        await a.hold(0, 100, kind="rpm")
        await a.hold(50, kind="rpm", returned=50)
        await vault.empty()

        await a.hold(50, kind="rpm", returned=50)
        await a.hold(50, kind="rpm", returned=50)
        await b.say()

        assert await b.hold(0, 1, kind="rpm") == 0

    async def test_a_new_controller_of_a_house_takes_its_place(self, vault: Vault) -> None:
        a, b = await met(vault, "a", "b")
        assert await a.hold(0, 90, kind="rpm", returned=7) == 90
        assert await a.hold(0, 90) == 90
        successor = House(vault, "a", life="two")
        await successor.say()
        await successor.hold(30)
        await successor.hold(30, kind="rpm")

        assert await b.hold(0, 70) == 70
        assert await b.hold(0, 11, kind="rpm") == 0

    async def test_what_an_earlier_controller_of_a_house_says_late_does_not_count(self, vault: Vault) -> None:
        a, b = await met(vault, "a", "b")
        successor = House(vault, "a", life="two")
        await successor.say()
        assert await successor.hold(0, 90) == 90

        late = await a.say(Holding(BUDGET, "budget", 100, 0, 0, 90))

        assert not late.is_heard
        assert late.allotments == ()
        assert await b.hold(0, 11) == 0
        assert await successor.hold(90, 10) == 100

    async def test_a_new_treasury_waits_for_who_does_not_know_yet_what_it_holds(self, vault: Vault) -> None:
        a, b = await met(vault, "a", "b")
        await vault.empty()
        await b.say(is_whole=False)
        await a.say()
        vault.time += 5 * GRACE_S
        for kind in ("parallel", "rpm", "budget"):
            assert await a.hold(0, 1, kind=kind) == 0
        assert (await b.say(is_whole=False)).is_new

        assert await b.hold(90) == 90

        assert not (await a.say()).is_new
        assert await a.hold(0, 11) == 0
        assert await a.hold(0, 10) == 10

    async def test_a_new_treasury_waits_for_nobody_who_is_silent(self, vault: Vault) -> None:
        a, b = await met(vault, "a", "b")
        await vault.empty()
        await b.say(is_whole=False)
        await a.say()
        assert await a.hold(0) == 0
        vault.time += SILENT_S + 1

        assert await a.hold(0, 100) == 100

    async def test_once_a_house_has_said_all_nobody_waits_for_its_next_controller(self, vault: Vault) -> None:
        a, b = await met(vault, "a", "b")
        assert await b.hold(0, 90) == 90
        successor = House(vault, "b", life="two")
        for _ in range(2):
            assert not (await successor.say(is_whole=False)).is_new

        assert await a.hold(0, 11) == 0
        assert await a.hold(0, 10) == 10

    async def test_slots_stay_a_houses_for_as_long_as_it_does_not_know_what_it_holds(
        self, vault: Vault
    ) -> None:
        a, b = await met(vault, "a", "b")
        assert await a.hold(0, 90, kind="parallel") == 90
        successor = House(vault, "a", life="two")
        for _ in range(3):
            vault.time += SILENT_S - 1
            await successor.say(is_whole=False)
        assert await b.hold(0, 11, kind="parallel") == 0
        await successor.say()
        vault.time += SILENT_S + 1
        await successor.say()

        assert await b.hold(0, 100, kind="parallel") == 100

    async def test_a_treasury_that_restarts_knows_no_more_what_it_granted_last(self, vault: Vault) -> None:
        a, b = await met(vault, "a", "b")
        assert await a.hold(0, 60) == 60
        assert await b.hold(0, 100, kind="rpm") == 100
        before = a.epoch

        await vault.restart()
        assert await b.hold(30) == 30
        assert b.epoch != before
        assert await b.hold(30, 10) == 30
        assert await b.hold(0, kind="rpm") == 0
        vault.time += GRACE_S

        assert await b.hold(30, 11) == 30  # a says nothing, and its money stays its own
        assert await b.hold(30, 10) == 40
        assert await b.hold(0, 9, kind="rpm") == 0  # of a rate it begins with none
        assert await b.hold(0, 8, kind="rpm") == 8

    async def test_a_clock_that_goes_back_makes_it_begin_anew(self, vault: Vault) -> None:
        a, _ = await met(vault, "a", "b")
        vault.time -= 1000
        assert await a.hold(0, 1) == 0
        vault.time += GRACE_S

        assert await a.hold(0, 1) > 0

    async def test_a_limit_that_was_lowered_below_what_is_held_grants_nothing(self, vault: Vault) -> None:
        a, b = await met(vault, "a", "b")
        assert await a.hold(0, 80) == 80

        assert await a.hold(80, 1, limit=50) == 80
        assert await b.hold(0, 1, limit=50) == 0
