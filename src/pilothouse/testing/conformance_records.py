"""What every store does with records, usage and resources: part of `conformance_store`."""

from typing import Any

import pytest

from pilothouse.domain.errors import NotFound
from pilothouse.domain.limits import BudgetScope
from pilothouse.domain.usage import Sums
from pilothouse.ports.store import RecordFilter, ResourceSample, SealedRecord, Store
from pilothouse.testing.examples import make_record, pages_of, sealed


class RecordsConformance:
    def test_a_record_and_its_content_come_back_as_they_were(self, store: Store) -> None:
        record = make_record(
            "r1",
            ttft_ms=1.25,
            duration_ms=2.5,
            streamed=True,
            cache="hit",
            subject_hash="s",
            cost_micro_usd=1 << 40,
        )
        row = SealedRecord(record=record, content=b"\x00\xff", sealing_key="s1")
        with store.unit() as unit:
            assert unit.records.insert_many([row]) == 1
        with store.unit() as unit:
            assert unit.records.get("r1") == record
            assert unit.records.content("r1") == row

    def test_a_record_without_content_says_so(self, store: Store) -> None:
        with store.unit() as unit:
            unit.records.insert_many([sealed("r1", content=None)])
            assert unit.records.content("r1").content is None
            for ask in (unit.records.get, unit.records.content):
                with pytest.raises(NotFound):
                    ask("r2")

    def test_the_content_of_one_record_is_erased_and_its_facts_stay(self, store: Store) -> None:
        with store.unit() as unit:
            unit.records.insert_many([sealed("r1"), sealed("r2")])
            assert unit.records.forget_content_of("r1")
        with store.unit() as unit:
            assert unit.records.content("r1").content is None
            assert unit.records.content("r2").content is not None
            assert not unit.records.forget_content_of("r1")
            assert not unit.records.forget_content_of("never")

    def test_a_record_is_kept_and_counted_once_however_often_it_comes(self, store: Store) -> None:
        with store.unit() as unit:
            assert unit.records.insert_many([sealed("r1"), sealed("r2"), sealed("r1", code="internal")]) == 2
        with store.unit() as unit:
            assert unit.records.insert_many([sealed("r2"), sealed("r3")]) == 1
            assert unit.records.insert_many([]) == 0
            assert unit.records.get("r1").code == "ok"
            (line,) = unit.usage.report("team", since=0, until=120)
            assert line.sums.requests == 3

    def test_a_shadow_is_kept_and_is_nobodys_use(self, store: Store) -> None:
        with store.unit() as unit:
            assert unit.records.insert_many([sealed("r2", shadow_of="r1", subject_hash="s")]) == 1
            assert unit.usage.report("team", since=0, until=120) == []
            assert unit.records.insert_many([sealed("r1", subject_hash="s")]) == 1
        with store.unit() as unit:
            assert unit.records.get("r2").shadow_of == "r1"
            for by in ("team", "subject"):
                (line,) = unit.usage.report(by, since=0, until=120)
                assert line.sums.requests == 1

    def test_records_are_paged_newest_first(self, store: Store) -> None:
        with store.unit() as unit:
            unit.records.insert_many([sealed(f"r{n}", time=float(n // 2)) for n in range(5)])
            pages = pages_of(lambda cursor: unit.records.page(RecordFilter(), cursor=cursor, limit=2))
        assert [[record.id for record in page] for page in pages] == [["r4", "r3"], ["r2", "r1"], ["r0"]]

    @pytest.mark.parametrize(
        "where",
        [
            {"team": "blue"},
            {"endpoint": "other"},
            {"deployment": "d2"},
            {"key_id": "k2"},
            {"subject_hash": "ab"},
            {"code": "internal"},
            {"since": 100.0},
            {"until": 50.0},
        ],
    )
    def test_each_filter_finds_its_record_alone(self, store: Store, where: dict[str, object]) -> None:
        changes: dict[str, Any] = {
            ("time" if name in ("since", "until") else name): value for name, value in where.items()
        }
        if "until" in where:
            changes["time"] = 49.0
        with store.unit() as unit:
            unit.records.insert_many([sealed("r1"), sealed("r2", **changes)])
            found = unit.records.page(RecordFilter(**where)).items  # type: ignore[arg-type]
        assert [record.id for record in found] == ["r2"]

    def test_content_ends_at_its_endpoints_cutoff_and_facts_stay(self, store: Store) -> None:
        rows = [
            sealed("short-old", endpoint="short", time=10.0),
            sealed("short-new", endpoint="short", time=90.0),
            sealed("long-old", endpoint="long", time=10.0),
            sealed("gone-old", endpoint="gone", time=10.0),
            sealed("none", endpoint="short", time=10.0, content=None),
        ]
        with store.unit() as unit:
            unit.records.insert_many(rows)
            erased = unit.records.forget_content({"short": 50.0, "long": 5.0}, otherwise=20.0, limit=100)
            kept = {r.record.id for r in rows if unit.records.content(r.record.id).content is not None}
            assert erased == 2
            assert kept == {"short-new", "long-old"}
            assert unit.records.get("short-old").id == "short-old"

    def test_erasing_goes_in_batches(self, store: Store) -> None:
        with store.unit() as unit:
            unit.records.insert_many([sealed(f"r{n}", endpoint=f"e{n % 3}") for n in range(10)])
            cutoffs = {"e0": 100.0}
            erased = [unit.records.forget_content(cutoffs, otherwise=100.0, limit=4) for _ in range(4)]
            gone = [unit.records.forget(100.0, limit=4) for _ in range(4)]
        assert erased == [4, 4, 2, 0]
        assert gone == [4, 4, 2, 0]

    def test_a_record_is_forgotten_when_old_and_without_content_and_its_usage_stays(
        self, store: Store
    ) -> None:
        rows = [sealed("old", time=10.0, content=None), sealed("held", time=10.0), sealed("new", time=70.0)]
        with store.unit() as unit:
            unit.records.insert_many(rows)
            assert unit.records.forget(60.0, limit=10) == 1
            for ask in (unit.records.get, unit.records.content):
                with pytest.raises(NotFound):
                    ask("old")
            assert unit.records.content("held").content == b"sealed"
            assert [x.sums.requests for x in unit.usage.report("team", since=0, until=120)] == [3]
            assert unit.usage.forget(60.0, limit=10) == 1
            assert [x.sums.requests for x in unit.usage.report("team", since=0, until=120)] == [1]


class UsageConformance:
    @pytest.fixture
    def day(self, store: Store) -> None:
        rows = [
            sealed(
                "r1",
                time=60.0,
                input_tokens=5,
                output_tokens=7,
                cached_tokens=1,
                cost_micro_usd=10,
                duration_ms=1.5,
            ),
            sealed("r2", time=119.9, input_tokens=1, key_id="k2", endpoint="other", code="internal"),
            sealed("r3", time=120.0, team="blue", key_id="k3", cost_micro_usd=50, subject_hash="ab"),
            sealed("r4", time=180.0, team="blue", key_id="k3", subject_hash="ab"),
        ]
        with store.unit() as unit:
            unit.records.insert_many(rows[:2])
            unit.records.insert_many(rows[2:])

    @pytest.mark.usefixtures("day")
    def test_a_report_adds_up_by_team_largest_cost_first(self, store: Store) -> None:
        with store.unit() as unit:
            blue, red = unit.usage.report("team", since=0, until=1000)
        assert (blue.group, blue.team, blue.sums) == ("blue", "blue", Sums(requests=2, cost_micro_usd=50))
        assert red.sums == Sums(
            requests=2,
            errors=1,
            input_tokens=6,
            output_tokens=7,
            cached_tokens=1,
            cost_micro_usd=10,
            duration_ms=1.5,
        )

    @pytest.mark.usefixtures("day")
    def test_a_report_covers_whole_minutes_from_since_to_before_until(self, store: Store) -> None:
        with store.unit() as unit:
            lines = unit.usage.report("team", since=60, until=180)
            assert {line.team: line.sums.requests for line in lines} == {"red": 2, "blue": 1}
            assert unit.usage.report("team", since=0, until=60) == []

    @pytest.mark.usefixtures("day")
    @pytest.mark.parametrize(
        ("by", "team", "expected"),
        [
            ("key", None, {("k1", "red"): 1, ("k2", "red"): 1, ("k3", "blue"): 2}),
            ("key", "red", {("k1", "red"): 1, ("k2", "red"): 1}),
            ("endpoint", None, {("chat", ""): 3, ("other", ""): 1}),
            ("endpoint", "red", {("chat", "red"): 1, ("other", "red"): 1}),
            ("subject", None, {("ab", "blue"): 2}),
            ("subject", "red", {}),
        ],
    )
    def test_a_report_groups_by_what_was_asked(
        self, store: Store, by: str, team: str | None, expected: dict[tuple[str, str], int]
    ) -> None:
        with store.unit() as unit:
            lines = unit.usage.report(by, since=0, until=1000, team=team)  # type: ignore[arg-type]
        assert {(line.group, line.team): line.sums.requests for line in lines} == expected

    @pytest.mark.usefixtures("day")
    def test_what_was_spent_is_known_of_each_scope_and_of_all_within_one(self, store: Store) -> None:
        with store.unit() as unit:
            unit.records.insert_many([sealed("r5", time=130.0, cost_micro_usd=5, subject_hash="ab")])
            usage = unit.usage
            assert usage.spent(BudgetScope(team="red", since=60, until=240)) == 15
            assert usage.spent(BudgetScope(endpoint="chat", subject_hash="ab", since=60, until=240)) == 55
            assert usage.spent(BudgetScope(key_id="k2", since=60, until=240)) == 0
            assert usage.spent_by("key", BudgetScope(since=60, until=240)) == {"k1": 15, "k3": 50}
            assert usage.spent_by("team", BudgetScope(since=60, until=120)) == {"red": 10}
            assert usage.spent_by("endpoint", BudgetScope(team="red", since=120, until=240)) == {"chat": 5}
            assert usage.spent_by("subject", BudgetScope(team="red", since=60, until=240)) == {"ab": 5}
            assert usage.spent_by("subject", BudgetScope(endpoint="chat", since=0, until=60)) == {}

    def test_resources_are_one_sample_a_minute_role_and_name(self, store: Store) -> None:
        def sample(minute: int, name: str, cpu: float) -> ResourceSample:
            return ResourceSample(minute=minute, role="worker", name=name, cpu_seconds=cpu, rss_bytes=1 << 40)

        with store.unit() as unit:
            unit.resources.put_many([])
            unit.resources.put_many([sample(60, "a", 1.0), sample(60, "b", 2.0), sample(120, "a", 3.0)])
            unit.resources.put_many([sample(60, "a", 9.0)])
            pages = pages_of(lambda cursor: unit.resources.page(since=60, until=999, cursor=cursor, limit=2))
            assert [[s.cpu_seconds for s in page] for page in pages] == [[9.0, 2.0], [3.0]]
            assert unit.resources.page(since=60, until=120, name="b").items == [sample(60, "b", 2.0)]
            assert unit.resources.forget(120.0, limit=10) == 2
            assert len(unit.resources.page(since=0, until=999).items) == 1
