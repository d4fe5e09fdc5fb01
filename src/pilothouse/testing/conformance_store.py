"""
What every `ports.store.Store` does, whatever it keeps things in.

Subclass `StoreConformance` in a test file and give it the fixture `store`: an
empty one.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace

from pilothouse.domain.errors import Conflict, InvalidRequest, NotFound
from pilothouse.domain.model import ModelHeader, ModelVersion
from pilothouse.domain.record import InferenceRecord
from pilothouse.domain.spec import DEFAULT_SPEC, Spec
from pilothouse.domain.tenancy import ApiKeyRow, Team
from pilothouse.domain.usage import Sums
from pilothouse.ports.store import (
    JournalPosition,
    Page,
    RecordFilter,
    ResourceSample,
    SealedRecord,
    SealingKey,
    Store,
)

T = TypeVar("T")
HEADER = ModelHeader(
    architecture="llama", context_tokens=2048, quantization="Q4_1", parameters=1, head_dim=64
)


def make_key(key_id: str, *, team: str = "red", created_at: float = 1.0, **changes: object) -> ApiKeyRow:
    row = ApiKeyRow(id=key_id, team=team, role="developer", mac=b"\x00mac", created_at=created_at)
    return replace(row, **changes)


def make_model(name: str, version: str, *, digest: str = "sha256:a", created_at: float = 1.0) -> ModelVersion:
    return ModelVersion(
        name=name,
        version=version,
        digest=digest,
        format="gguf",
        bytes=10,
        quantization="Q4_1",
        context_tokens=2048,
        licence="Apache-2.0",
        source="file:x",
        source_digest="sha256:b",
        header=HEADER,
        created_at=created_at,
    )


def make_record(record_id: str, *, time: float = 60.0, **changes: object) -> InferenceRecord:
    record = InferenceRecord(
        id=record_id, time=time, team="red", key_id="k1", endpoint="chat", deployment="d1"
    )
    return replace(record, **changes)


def sealed(record_id: str, *, content: bytes | None = b"sealed", **changes: object) -> SealedRecord:
    record = make_record(record_id, **changes)  # type: ignore[arg-type]
    return SealedRecord(record=record, content=content, sealing_key="s1" if content is not None else "")


class UnitConformance:
    def test_what_a_unit_wrote_is_there_after_it(self, store: Store) -> None:
        with store.unit() as unit:
            unit.teams.add(Team(name="red", created_at=1.5))
        with store.unit() as unit:
            assert unit.teams.get("red") == Team(name="red", created_at=1.5)

    def test_an_error_takes_all_of_a_unit_back(self, store: Store) -> None:
        def work() -> None:
            with store.unit() as unit:
                unit.teams.add(Team(name="red", created_at=1.0))
                unit.records.insert_many([sealed("r1")])
                unit.journals.advance([JournalPosition("w-1", 10)])
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            work()
        with store.unit() as unit:
            assert unit.teams.all() == []
            assert unit.records.page(RecordFilter()).items == []
            assert unit.journals.positions() == {}

    def test_a_unit_after_a_failed_one_works(self, store: Store) -> None:
        with pytest.raises(NotFound), store.unit() as unit:
            unit.teams.get("none")
        with store.unit(urgent=True) as unit:
            unit.teams.add(Team(name="red", created_at=1.0))

    def test_a_refused_statement_leaves_the_rest_of_its_unit_alone(self, store: Store) -> None:
        with store.unit() as unit:
            unit.teams.add(Team(name="red", created_at=1.0))
            with pytest.raises(Conflict):
                unit.teams.add(Team(name="red", created_at=2.0))
            unit.teams.add(Team(name="blue", created_at=3.0))
        with store.unit() as unit:
            assert [team.name for team in unit.teams.all()] == ["blue", "red"]

    def test_scrubbing_an_empty_store_is_nothing(self, store: Store) -> None:
        store.scrub()


class RegistryConformance:
    @pytest.fixture
    def teams(self, store: Store) -> None:
        with store.unit() as unit:
            unit.teams.add(Team(name="red", created_at=1.0))
            unit.teams.add(Team(name="blue", created_at=1.0))

    def test_an_unknown_team_is_not_found(self, store: Store) -> None:
        with store.unit() as unit, pytest.raises(NotFound, match="green"):
            unit.teams.get("green")

    @pytest.mark.usefixtures("teams")
    def test_a_key_comes_back_as_it_was(self, store: Store) -> None:
        rows = [
            make_key("k1", endpoints=frozenset({"a", "b"}), expires_at=9.5, name='it\'s "mine"'),
            make_key("k2", endpoints=frozenset()),
            make_key("k3", revoked_at=3.0),
        ]
        with store.unit() as unit:
            for row in rows:
                unit.keys.add(row)
        with store.unit() as unit:
            assert [unit.keys.get(row.id) for row in rows] == rows

    @pytest.mark.usefixtures("teams")
    def test_only_keys_that_open_something_are_active(self, store: Store) -> None:
        with store.unit() as unit:
            unit.keys.add(make_key("k1"))
            unit.keys.add(make_key("k2", expires_at=10.0))
            unit.keys.add(make_key("k3", expires_at=11.0))
            unit.keys.add(make_key("k4", revoked_at=1.0))
            assert [row.id for row in unit.keys.active(10.0)] == ["k1", "k3"]

    @pytest.mark.usefixtures("teams")
    def test_a_key_id_is_taken_once_and_its_team_must_exist(self, store: Store) -> None:
        with store.unit() as unit:
            unit.keys.add(make_key("k1"))
            with pytest.raises(Conflict):
                unit.keys.add(make_key("k1", team="blue"))
            with pytest.raises(NotFound, match="green"):
                unit.keys.add(make_key("k2", team="green"))

    @pytest.mark.usefixtures("teams")
    def test_revoking_twice_keeps_the_first_time(self, store: Store) -> None:
        with store.unit(urgent=True) as unit:
            unit.keys.add(make_key("k1"))
            assert unit.keys.revoke("k1", at=5.0).revoked_at == 5.0
            assert unit.keys.revoke("k1", at=6.0).revoked_at == 5.0
            with pytest.raises(NotFound):
                unit.keys.revoke("none", at=1.0)

    @pytest.mark.usefixtures("teams")
    def test_a_rotation_never_prolongs_a_key(self, store: Store) -> None:
        with store.unit() as unit:
            unit.keys.add(make_key("k1", expires_at=10.0))
            unit.keys.add(make_key("k2"))
            assert unit.keys.expire("k1", at=20.0).expires_at == 10.0
            assert unit.keys.expire("k1", at=5.0).expires_at == 5.0
            assert unit.keys.expire("k2", at=20.0).expires_at == 20.0

    @pytest.mark.usefixtures("teams")
    def test_keys_are_paged_newest_first_and_by_team(self, store: Store) -> None:
        with store.unit() as unit:
            for n in range(5):
                unit.keys.add(make_key(f"k{n}", created_at=float(n // 2)))
            unit.keys.add(make_key("other", team="blue"))
            pages = _pages(lambda cursor: unit.keys.page(team="red", cursor=cursor, limit=2))
        assert [[row.id for row in page] for page in pages] == [["k4", "k3"], ["k2", "k1"], ["k0"]]

    @pytest.mark.parametrize("cursor", ["?", "AAAA", "é", "bm9uZQ", "' OR 1=1 --"])
    def test_a_cursor_of_nowhere_is_refused(self, store: Store, cursor: str) -> None:
        with store.unit() as unit, pytest.raises(InvalidRequest, match="cursor"):
            unit.keys.page(cursor=cursor)

    def test_models_are_found_by_name_and_by_digest(self, store: Store) -> None:
        old = make_model("m", "1", digest="sha256:1", created_at=1.0)
        new = make_model("m", "2", digest="sha256:2", created_at=2.0)
        other = make_model("a", "1", digest="sha256:3", created_at=3.0)
        with store.unit() as unit:
            for model in (new, old, other):
                unit.models.put(model)
            assert unit.models.newest("m") == new
            assert unit.models.by_digest("sha256:1") == old
            assert unit.models.all() == [other, new, old]
            for look in (unit.models.newest, unit.models.by_digest):
                with pytest.raises(NotFound):
                    look("x")

    def test_a_version_never_changes_its_file(self, store: Store) -> None:
        model = make_model("m", "1")
        with store.unit() as unit:
            unit.models.put(model)
            unit.models.put(model)
            with pytest.raises(Conflict, match="sha256:a"):
                unit.models.put(replace(model, digest="sha256:z"))
            assert unit.models.all() == [model]

    def test_a_removed_version_is_gone_and_the_others_stay(self, store: Store) -> None:
        with store.unit() as unit:
            unit.models.put(make_model("m", "1"))
            unit.models.put(make_model("m", "2", digest="sha256:2"))
            unit.models.remove("m", "1")
            assert [model.version for model in unit.models.all()] == ["2"]
            with pytest.raises(NotFound):
                unit.models.remove("m", "1")

    def test_specs_are_revisions_from_one(self, store: Store) -> None:
        with store.unit() as unit:
            assert unit.specs.current() is None
            first = unit.specs.put(DEFAULT_SPEC, expected_revision=0, author="ada", now=1.0)
            second = unit.specs.put(Spec(), expected_revision=1, author="bob", now=2.0)
        with store.unit() as unit:
            assert unit.specs.current() == second
            pages = _pages(lambda cursor: unit.specs.history(cursor=cursor, limit=1))
        assert pages == [[second], [first]]
        assert (first.revision, first.spec, first.author, first.time) == (1, DEFAULT_SPEC, "ada", 1.0)

    @pytest.mark.parametrize("expected", [0, 2, -1])
    def test_of_two_editors_the_later_is_told(self, store: Store, expected: int) -> None:
        with store.unit() as unit:
            unit.specs.put(Spec(), expected_revision=0, author="ada", now=1.0)
            with pytest.raises(Conflict, match="revision 1"):
                unit.specs.put(DEFAULT_SPEC, expected_revision=expected, author="bob", now=2.0)


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

    def test_a_record_is_kept_and_counted_once_however_often_it_comes(self, store: Store) -> None:
        with store.unit() as unit:
            assert unit.records.insert_many([sealed("r1"), sealed("r2"), sealed("r1", code="internal")]) == 2
        with store.unit() as unit:
            assert unit.records.insert_many([sealed("r2"), sealed("r3")]) == 1
            assert unit.records.insert_many([]) == 0
            assert unit.records.get("r1").code == "ok"
            (line,) = unit.usage.report("team", since=0, until=120)
            assert line.sums.requests == 3

    def test_records_are_paged_newest_first(self, store: Store) -> None:
        with store.unit() as unit:
            unit.records.insert_many([sealed(f"r{n}", time=float(n // 2)) for n in range(5)])
            pages = _pages(lambda cursor: unit.records.page(RecordFilter(), cursor=cursor, limit=2))
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

    def test_resources_are_one_sample_a_minute_role_and_name(self, store: Store) -> None:
        def sample(minute: int, name: str, cpu: float) -> ResourceSample:
            return ResourceSample(minute=minute, role="worker", name=name, cpu_seconds=cpu, rss_bytes=1 << 40)

        with store.unit() as unit:
            unit.resources.put_many([])
            unit.resources.put_many([sample(60, "a", 1.0), sample(60, "b", 2.0), sample(120, "a", 3.0)])
            unit.resources.put_many([sample(60, "a", 9.0)])
            pages = _pages(lambda cursor: unit.resources.page(since=60, until=999, cursor=cursor, limit=2))
            assert [[s.cpu_seconds for s in page] for page in pages] == [[9.0, 2.0], [3.0]]
            assert unit.resources.page(since=60, until=120, name="b").items == [sample(60, "b", 2.0)]
            assert unit.resources.forget(120.0, limit=10) == 2
            assert len(unit.resources.page(since=0, until=999).items) == 1


class MachineryConformance:
    def test_a_sealing_key_is_found_until_it_is_destroyed(self, store: Store) -> None:
        key = SealingKey(id="s1", team="red", subject_hash="ab", wrapped=b"\x00w", created_at=1.0)
        with store.unit() as unit:
            assert unit.seals.find("red", "ab") is None
            unit.seals.add(key)
        with store.unit() as unit:
            assert unit.seals.find("red", "ab") == key == unit.seals.get("s1")
            assert unit.seals.find("blue", "ab") is None
            assert unit.seals.destroy("red", "ab") is True
            assert unit.seals.destroy("red", "ab") is False
            assert unit.seals.find("red", "ab") is None
            with pytest.raises(NotFound, match="s1"):
                unit.seals.get("s1")

    def test_a_subject_has_one_sealing_key_a_team(self, store: Store) -> None:
        key = SealingKey(id="s1", team="red", subject_hash="ab", wrapped=b"w", created_at=1.0)
        with store.unit() as unit:
            unit.seals.add(key)
            unit.seals.add(replace(key, id="s2", team="blue"))
            with pytest.raises(Conflict):
                unit.seals.add(replace(key, id="s3"))

    def test_the_teams_own_keys_are_listed_and_rewrapped(self, store: Store) -> None:
        key = SealingKey(id="s1", team="red", subject_hash="", wrapped=b"old", created_at=1.0)
        with store.unit() as unit:
            unit.seals.add(key)
            unit.seals.add(replace(key, id="s2", subject_hash="ab"))
            unit.seals.rewrap("s1", b"new")
            assert unit.seals.of_teams() == [replace(key, wrapped=b"new")]
            with pytest.raises(NotFound):
                unit.seals.rewrap("none", b"new")

    def test_journal_positions_advance_and_are_forgotten(self, store: Store) -> None:
        with store.unit() as unit:
            unit.journals.advance([])
            unit.journals.advance([JournalPosition("w-1", 10), JournalPosition("w-2", 1 << 40)])
            unit.journals.advance([JournalPosition("w-1", 20)])
            assert unit.journals.positions() == {"w-1": 20, "w-2": 1 << 40}
            unit.journals.forget(["w-1", "never"])
            assert unit.journals.positions() == {"w-2": 1 << 40}

    def test_a_lease_has_one_holder_until_it_ends(self, store: Store) -> None:
        with store.unit() as unit:
            first = unit.leases.acquire("controller", "a", ttl_s=10, now=0)
            assert first is not None
            assert unit.leases.acquire("controller", "b", ttl_s=10, now=9.9) is None
            assert unit.leases.acquire("other", "b", ttl_s=10, now=0) is not None
            second = unit.leases.acquire("controller", "b", ttl_s=10, now=10)
            assert second is not None
            assert second.token > first.token
            assert unit.leases.renew(first, ttl_s=10, now=11) is None

    def test_a_lease_is_prolonged_and_given_back(self, store: Store) -> None:
        with store.unit() as unit:
            lease = unit.leases.acquire("controller", "a", ttl_s=10, now=0)
            assert lease is not None
            renewed = unit.leases.renew(lease, ttl_s=10, now=5)
            assert renewed is not None
            assert renewed.expires_at == 15
            again = unit.leases.acquire("controller", "a", ttl_s=10, now=6)
            assert again is not None
            assert again.token == lease.token
            unit.leases.release(again)
            after = unit.leases.acquire("controller", "b", ttl_s=10, now=7)
            assert after is not None
            unit.leases.release(lease)
            assert unit.leases.acquire("controller", "c", ttl_s=10, now=8) is None


class StoreConformance(
    UnitConformance, RegistryConformance, RecordsConformance, UsageConformance, MachineryConformance
):
    """All of it."""


def _pages(fetch: Callable[[str | None], Page[T]]) -> list[list[T]]:
    """All pages' items; more than ten mean that a cursor never ends."""
    pages: list[list[T]] = []
    cursor: str | None = None
    for _ in range(10):
        page = fetch(cursor)
        pages.append(page.items)
        cursor = page.next
        if cursor is None:
            return pages
    raise AssertionError("the last page still has a cursor")
