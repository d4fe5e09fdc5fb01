"""What a house tells a treasury that may know nothing of its spending."""

from control_fakes import TickingClock
from house_store import HouseStore
from pilothouse.control.spending import Spending
from pilothouse.domain.allotment import AllottedPools
from pilothouse.domain.limits import Limits
from pilothouse.domain.snapshot import EndpointEntry, KeyEntry, Snapshot, TeamEntry
from pilothouse.testing.examples import sealed

MONTH = Limits(budget_micro_usd=100)
DAY = Limits(budget_micro_usd=100, budget_period="day")


def snapshot(*, key: Limits = MONTH) -> Snapshot:
    return Snapshot(
        keys={"k1": KeyEntry(id="k1", team="red", role="user", mac=b"", limits=key)},
        teams={"red": TeamEntry(limits=DAY, per_subject=MONTH)},
        endpoints={"chat": EndpointEntry(name="chat", revision=1, routes=(), limits=MONTH, per_subject=DAY)},
    )


class Rig:
    def __init__(self, now: Snapshot) -> None:
        self.store, self.clock, self.now = HouseStore(), TickingClock(), now
        self.renew()

    def renew(self) -> None:
        self.pools = AllottedPools(workers=1, starts_full=True, now=0.0)
        self.spending = Spending(self.store, self.pools, self.clock, lambda: self.now)

    async def spend(self, record_id: str, cost: int, **changes: object) -> None:
        row = sealed(record_id, time=self.clock.now(), cost_micro_usd=cost, **changes)
        await self.store(lambda unit: unit.records.insert_many([row]))

    def known(self) -> dict[str, int]:
        return {name.rpartition("|")[0]: pool.settled for name, pool in self.pools.pools.items()}


async def test_every_budget_in_force_of_which_something_was_spent_is_opened() -> None:
    rig = Rig(snapshot())
    await rig.spend("r1", 7, subject_hash="ab")
    await rig.spend("r2", 3, key_id="k2", subject_hash="cd")
    await rig.spend("r3", 50, key_id="k3", team="blue", endpoint="other", subject_hash="ab")

    assert await rig.spending.recall("epoch")

    assert rig.known() == {
        "key:k1|budget|month": 7,
        "team:red|budget|day": 10,
        "team:red/subject:ab|budget|month": 7,
        "team:red/subject:cd|budget|month": 3,
        "endpoint:chat|budget|month": 10,
        "endpoint:chat/subject:ab|budget|day": 7,
        "endpoint:chat/subject:cd|budget|day": 3,
    }


async def test_the_store_is_asked_once_for_each_epoch_and_when_a_budget_is_added() -> None:
    rig = Rig(snapshot(key=Limits(rpm=1)))
    await rig.spend("r1", 7)
    await rig.spending.recall("one")
    rig.pools.pools.clear()

    await rig.spending.recall("one")
    assert rig.known() == {}

    await rig.spending.recall("two")
    assert rig.known().keys() == {"team:red|budget|day", "endpoint:chat|budget|month"}

    rig.now = snapshot()
    await rig.spending.recall("two")
    assert rig.known()["key:k1|budget|month"] == 7


async def test_a_store_that_is_away_is_asked_again() -> None:
    rig = Rig(snapshot())
    await rig.spend("r1", 7)
    rig.store.broken = True
    assert not await rig.spending.recall("epoch")
    assert rig.known() == {}

    rig.store.broken = False
    assert await rig.spending.recall("epoch")
    assert rig.known()["key:k1|budget|month"] == 7
