"""
What every `ports.store.Store` does, whatever it keeps things in.

Subclass `StoreConformance` in a test file and give it the fixture `store`: an
empty one.
"""

import pytest
from msgspec.structs import replace

from pilothouse.domain.errors import Conflict, InvalidRequest, NotFound
from pilothouse.domain.events import Event
from pilothouse.domain.spec import DEFAULT_SPEC, Spec
from pilothouse.domain.tenancy import Team
from pilothouse.ports.store import CachePurge, JournalPosition, RecordFilter, SealingKey, Store
from pilothouse.testing.conformance_batches import BatchesConformance
from pilothouse.testing.conformance_records import RecordsConformance, UsageConformance
from pilothouse.testing.conformance_releases import ReleasesConformance
from pilothouse.testing.conformance_secrets import SecretsConformance
from pilothouse.testing.examples import make_key, make_model, pages_of, sealed


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


def _event(number: int, **changes: object) -> Event:
    made = Event(
        id=f"ev_{number:03}",
        kind="deployment",
        name="d",
        reason="failed",
        message="why",
        is_warning=True,
        first_time=float(number),
        time=float(number),
    )
    return replace(made, **changes)


class EventsConformance:
    def test_events_are_paged_newest_first(self, store: Store) -> None:
        events = [_event(number) for number in range(5)]
        with store.unit() as unit:
            unit.events.put_many(events)
            unit.events.put_many([])
        with store.unit() as unit:
            first = unit.events.page(limit=3)
            rest = unit.events.page(limit=3, cursor=first.next)
        assert [*first.items, *rest.items] == events[::-1]
        assert rest.next is None

    def test_an_event_that_happens_again_keeps_its_beginning(self, store: Store) -> None:
        with store.unit() as unit:
            unit.events.put_many([_event(1), _event(2)])
            unit.events.put_many([_event(1, time=9.0, count=2, revision=3, first_time=9.0)])
        with store.unit() as unit:
            newest = unit.events.page(limit=1).items
        assert newest == [_event(1, time=9.0, count=2, revision=3)]

    def test_events_are_found_by_what_they_are_about(self, store: Store) -> None:
        with store.unit() as unit:
            unit.events.put_many([_event(1), _event(2, kind="replica"), _event(3, name="other")])
        with store.unit() as unit:
            assert [event.id for event in unit.events.page(kind="deployment", name="d").items] == ["ev_001"]

    def test_only_the_newest_events_are_kept(self, store: Store) -> None:
        with store.unit() as unit:
            unit.events.put_many([_event(number) for number in range(10)])
            assert unit.events.forget(keep=20) == 0
            assert unit.events.forget(keep=3) == 7
        with store.unit() as unit:
            assert [event.id for event in unit.events.page().items] == ["ev_009", "ev_008", "ev_007"]


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
            pages = pages_of(lambda cursor: unit.keys.page(team="red", cursor=cursor, limit=2))
        assert [[row.id for row in page] for page in pages] == [["k4", "k3"], ["k2", "k1"], ["k0"]]

    @pytest.mark.parametrize("cursor", ["?", "AAAA", "é", "bm9uZQ", "' OR 1=1 --"])
    def test_a_cursor_of_nowhere_is_refused(self, store: Store, cursor: str) -> None:
        with store.unit() as unit, pytest.raises(InvalidRequest, match="cursor"):
            unit.keys.page(cursor=cursor)

    def test_the_card_of_a_model_is_all_that_changes(self, store: Store) -> None:
        made = make_model("a", "1", digest="sha256:1")
        with store.unit() as unit:
            unit.models.put(made)
            assert unit.models.annotate("a", "1", card="# A") == replace(made, card="# A")
            with pytest.raises(NotFound):
                unit.models.annotate("a", "2", card="")
        with store.unit() as unit:
            assert unit.models.newest("a") == replace(made, card="# A")

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
            pages = pages_of(lambda cursor: unit.specs.history(cursor=cursor, limit=1))
        assert pages == [[second], [first]]
        assert (first.revision, first.spec, first.author, first.time) == (1, DEFAULT_SPEC, "ada", 1.0)

    @pytest.mark.parametrize("expected", [0, 2, -1])
    def test_of_two_editors_the_later_is_told(self, store: Store, expected: int) -> None:
        with store.unit() as unit:
            unit.specs.put(Spec(), expected_revision=0, author="ada", now=1.0)
            with pytest.raises(Conflict, match="revision 1"):
                unit.specs.put(DEFAULT_SPEC, expected_revision=expected, author="bob", now=2.0)


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

    def test_a_lease_is_held_until_another_takes_it(self, store: Store) -> None:
        with store.unit() as unit:
            assert unit.leases.get("controller") is None
            first = unit.leases.acquire("controller", "a", ttl_s=10, now=0)
            assert first is not None
            assert unit.leases.is_held(first)
            assert unit.leases.get("controller") == first
        with store.unit() as unit:
            second = unit.leases.acquire("controller", "b", ttl_s=10, now=10)
            assert second is not None
            assert not unit.leases.is_held(first)
            assert unit.leases.is_held(second)
            unit.leases.release(second)
            assert not unit.leases.is_held(second)

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


class PurgesConformance:
    def test_purges_are_counted_by_what_they_are_about(self, store: Store) -> None:
        with store.unit() as unit:
            assert unit.purges.all() == []
            unit.purges.add("red", "")
            unit.purges.add("", "chat")
            unit.purges.add("red", "")
        with store.unit() as unit:
            unit.purges.add("red", "chat")
            assert unit.purges.all() == [
                CachePurge("", "chat", 1),
                CachePurge("red", "", 2),
                CachePurge("red", "chat", 1),
            ]


class StoreConformance(
    UnitConformance,
    RegistryConformance,
    EventsConformance,
    RecordsConformance,
    UsageConformance,
    MachineryConformance,
    ReleasesConformance,
    BatchesConformance,
    PurgesConformance,
    SecretsConformance,
):
    """All of it."""
