from contextlib import contextmanager

import pytest

from pilothouse.domain.errors import InvalidRequest, StoreUnavailable
from pilothouse.domain.spec import EndpointSpec, RecordsSpec, RouteSpec, Spec
from pilothouse.govern.retain import FACTS_S, RESOURCES_S, Periods, Retention, periods
from pilothouse.ports.store import RecordFilter, ResourceSample
from pilothouse.testing.examples import sealed
from pilothouse.testing.memory_store import MemoryStore

DAY_S = 86400.0
NOW = 1000 * DAY_S


def spec(**retain: str) -> Spec:
    routes = [RouteSpec(deployment="d")]
    return Spec(
        endpoints={n: EndpointSpec(routes=routes, records=RecordsSpec(retain=r)) for n, r in retain.items()}
    )


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.units = self.scrubs = 0
        self.is_busy = False

    @contextmanager
    def unit(self, *, urgent: bool = False):
        self.units += 1
        with super().unit(urgent=urgent) as unit:
            yield unit

    def scrub(self) -> None:
        if self.is_busy:
            raise StoreUnavailable("busy")
        self.scrubs += 1


def kept_contents(store) -> set[str]:
    with store.unit() as unit:
        ids = [record.id for record in unit.records.page(RecordFilter(), limit=10_000).items]
        return {i for i in ids if unit.records.content(i).content is not None}


def test_the_spec_says_how_long_and_what_it_does_not_name_has_the_default():
    assert periods(spec(a="12h", b="never")) == Periods(
        content_s={"a": 12 * 3600.0, "b": None}, otherwise_s=30 * DAY_S
    )


def test_a_period_that_is_none_names_its_endpoint():
    with pytest.raises(InvalidRequest, match=r"endpoints\.chat\.records\.retain"):
        periods(spec(chat="soon"))


def test_each_content_ends_with_its_endpoints_period():
    store = CountingStore()
    with store.unit() as unit:
        unit.records.insert_many(
            [
                sealed("a-old", endpoint="a", time=NOW - 2 * DAY_S),
                sealed("a-new", endpoint="a", time=NOW - 0.5 * DAY_S),
                sealed("b-old", endpoint="b", time=NOW - 900 * DAY_S),
                sealed("gone-old", endpoint="gone", time=NOW - 31 * DAY_S),
                sealed("gone-new", endpoint="gone", time=NOW - 29 * DAY_S),
            ]
        )

    swept = Retention().sweep(store, periods(spec(a="1d", b="never")), NOW)

    assert kept_contents(store) == {"a-new", "b-old", "gone-new"}
    assert (swept.contents, swept.records, swept.is_done) == (2, 0, True)


def test_facts_stay_thirteen_months_and_as_long_as_their_content():
    store = CountingStore()
    old = NOW - FACTS_S - 1
    with store.unit() as unit:
        unit.records.insert_many(
            [
                sealed("held", endpoint="b", time=old),
                sealed("due", endpoint="a", time=old),
                sealed("young", endpoint="a", time=NOW - FACTS_S + 1),
            ]
        )

    swept = Retention().sweep(store, periods(spec(a="1d", b="never")), NOW)

    with store.unit() as unit:
        assert {r.id for r in unit.records.page(RecordFilter()).items} == {"held", "young"}
    assert (swept.contents, swept.records) == (2, 1)


def test_figures_end_after_their_time():
    store = CountingStore()
    samples = [ResourceSample(minute=int(NOW - RESOURCES_S + d), role="worker", name="w") for d in (-60, 60)]
    with store.unit() as unit:
        unit.records.insert_many([sealed("r", content=None, time=NOW - FACTS_S - 120)])
        unit.resources.put_many(samples)

    swept = Retention().sweep(store, periods(spec()), NOW)

    assert (swept.minutes, swept.samples) == (1, 1)
    with store.unit() as unit:
        assert unit.usage.report("team", since=0, until=NOW) == []


def test_a_sweep_is_bounded_and_the_next_one_goes_on():
    store = CountingStore()
    with store.unit() as unit:
        unit.records.insert_many([sealed(f"r{n}", time=NOW - 40 * DAY_S) for n in range(95)])
    retention = Retention(batch=10, batches=4)

    sweeps = [retention.sweep(store, periods(spec()), NOW) for _ in range(3)]

    assert [s.contents for s in sweeps] == [40, 40, 15]
    assert [s.is_done for s in sweeps] == [False, False, True]


def test_bytes_are_scrubbed_after_erasing_and_owed_until_it_worked():
    store = CountingStore()
    retention = Retention()
    retention.sweep(store, periods(spec()), NOW)
    retention.sweep(store, periods(spec()), NOW)
    assert store.scrubs == 1

    with store.unit() as unit:
        unit.records.insert_many([sealed("r", time=NOW - 40 * DAY_S)])
    store.is_busy = True
    with pytest.raises(StoreUnavailable):
        retention.sweep(store, periods(spec()), NOW)
    store.is_busy = False
    retention.sweep(store, periods(spec()), NOW)

    assert store.scrubs == 2
