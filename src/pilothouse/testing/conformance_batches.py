"""What every store does with files and batches. Part of `conformance_store`."""

import pytest
from msgspec.structs import replace

from pilothouse.domain.batch import Batch, BatchFault, StoredFile, move
from pilothouse.domain.errors import NotFound
from pilothouse.ports.store import Store


def make_file(file_id: str, *, team: str = "red", **changes: object) -> StoredFile:
    made = StoredFile(
        id=file_id,
        team=team,
        key_id="k1",
        filename="in.jsonl",
        purpose="batch",
        size_bytes=10,
        created_at=1.0,
        expires_at=9.0,
        sealing_key="seal_1",
        sealed_key=b"\x00sealed",
    )
    return replace(made, **changes)


def make_batch(batch_id: str, *, team: str = "red", **changes: object) -> Batch:
    made = Batch(
        id=batch_id,
        team=team,
        key_id="k1",
        endpoint="/v1/chat/completions",
        input_file="file-1",
        completion_window="24h",
        created_at=1.0,
        expires_at=9.0,
    )
    return replace(made, **changes)


class BatchesConformance:
    def test_files_are_seen_by_their_team_alone(self, store: Store) -> None:
        mine = make_file("f1")
        with store.unit() as unit:
            unit.files.add(mine)
            unit.files.add(make_file("f2", team="blue", size_bytes=5))
            unit.files.add(make_file("f3", key_id="k2", size_bytes=7))
        with store.unit() as unit:
            assert unit.files.get("f1", team="red") == mine
            with pytest.raises(NotFound):
                unit.files.get("f2", team="red")
            assert [one.id for one in unit.files.page(team="red", limit=5)] == ["f3", "f1"]
            assert [one.id for one in unit.files.page(team="red", after="f3", limit=5)] == ["f1"]
            assert [one.id for one in unit.files.page(team="red", key_id="k2", limit=5)] == ["f3"]
            assert unit.files.used("red") == (2, 17)
            assert unit.files.used("green") == (0, 0)
            assert sorted(unit.files.ids()) == ["f1", "f2", "f3"]

    def test_files_end(self, store: Store) -> None:
        with store.unit() as unit:
            unit.files.add(make_file("f1", expires_at=2.0))
            unit.files.add(make_file("f2", expires_at=3.0))
            assert [one.id for one in unit.files.expired(2.0, limit=5)] == ["f1"]
            unit.files.remove("f1")
            unit.files.remove("f1")
        with store.unit() as unit:
            assert unit.files.ids() == ["f2"]

    def test_a_batch_comes_back_as_it_was_last(self, store: Store) -> None:
        batch = make_batch("b1", metadata={"a": "b"}, faults=(BatchFault(code="x", message="y", line=3),))
        begun = move(batch, "in_progress", 2.0)
        with store.unit() as unit:
            unit.batches.put(batch)
            unit.batches.put(begun)
        with store.unit() as unit:
            assert unit.batches.get("b1", team="red") == begun
            with pytest.raises(NotFound):
                unit.batches.get("b1", team="blue")

    def test_only_batches_that_have_not_ended_are_active(self, store: Store) -> None:
        with store.unit() as unit:
            unit.batches.put(move(make_batch("b1"), "failed", 2.0))
            unit.batches.put(make_batch("b2", team="blue"))
            unit.batches.put(make_batch("b3", key_id="k2"))
        with store.unit() as unit:
            assert [one.id for one in unit.batches.active()] == ["b2", "b3"]
            assert [one.id for one in unit.batches.page(team="red", limit=5)] == ["b3", "b1"]
            assert [one.id for one in unit.batches.page(team="red", after="b3", limit=5)] == ["b1"]
            assert [one.id for one in unit.batches.page(team="red", key_id="k1", limit=5)] == ["b1"]
            assert unit.batches.forget(5.0, limit=5) == 1
        with store.unit() as unit:
            assert [one.id for one in unit.batches.page(team="red", limit=5)] == ["b3"]
