import pytest
from msgspec.structs import replace

from pilothouse.control.seals import Seals
from pilothouse.domain.errors import NotFound, OperationFailed
from pilothouse.domain.record import Content, JournalEntry
from pilothouse.ports.store import SealedRecord
from pilothouse.testing.examples import make_record
from pilothouse.testing.memory_keys import MemoryKeys
from pilothouse.testing.memory_store import MemoryStore

CONTENT = Content(b'{"messages":[]}', ["answer"])


@pytest.fixture
def keys():
    return MemoryKeys()


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def seals(keys):
    return Seals(keys)


def put(store, seals, record_id, content=CONTENT, **changes) -> SealedRecord:
    with store.unit() as unit:
        (row,) = seals.seal_all(unit, [JournalEntry(make_record(record_id, **changes), content)])
        unit.records.insert_many([row])
        return row


def read(store, seals, row) -> Content:
    with store.unit() as unit:
        return seals.open(unit, row)


@pytest.mark.parametrize("subject", ["", "ab12"])
def test_a_sealed_content_opens_again_in_another_process(store, seals, keys, subject):
    row = put(store, seals, "r1", subject_hash=subject)

    assert read(store, Seals(keys), row) == CONTENT
    assert b"answer" not in row.content


def test_each_person_and_each_team_has_one_key_of_their_own(store, seals):
    rows = [
        put(store, seals, f"r{n}", team=team, subject_hash=subject)
        for n, (team, subject) in enumerate(
            [("red", ""), ("red", "ab"), ("red", "ab"), ("red", "cd"), ("blue", ""), ("blue", "ab")]
        )
    ]

    assert len({row.sealing_key for row in rows}) == 5
    assert rows[1].sealing_key == rows[2].sealing_key


def test_a_content_does_not_open_in_another_row(store, seals):
    row, other = put(store, seals, "r1"), put(store, seals, "r2")

    with pytest.raises(OperationFailed, match="r2"):
        read(store, seals, replace(other, content=row.content))


@pytest.mark.parametrize("moved", [{"team": "blue"}, {"subject_hash": "cd"}, {"id": "r9"}])
def test_a_content_is_bound_to_its_team_person_and_record(store, seals, moved):
    row = put(store, seals, "r1", subject_hash="ab")

    with pytest.raises(OperationFailed):
        read(store, seals, replace(row, record=replace(row.record, **moved)))


def test_destroying_a_persons_key_erases_theirs_and_nobody_elses(store, seals, keys):
    gone = put(store, seals, "r1", subject_hash="ab")
    kept = put(store, seals, "r2", subject_hash="cd")

    with store.unit() as unit:
        unit.seals.destroy("red", "ab")

    for process in (seals, Seals(keys)):
        with pytest.raises(NotFound, match="sealing key"):
            read(store, process, gone)
        assert read(store, process, kept) == CONTENT


def test_after_an_erasure_the_same_person_gets_a_new_key(store, seals):
    gone = put(store, seals, "r1", subject_hash="ab")
    with store.unit() as unit:
        unit.seals.destroy("red", "ab")

    new = put(store, seals, "r2", subject_hash="ab")

    assert new.sealing_key != gone.sealing_key
    assert read(store, seals, new) == CONTENT


def test_without_the_teams_key_nothing_of_the_team_opens(store, seals, keys):
    row = put(store, seals, "r1", subject_hash="ab")
    with store.unit() as unit:
        unit.seals.destroy("red", "")

    with pytest.raises(NotFound, match="red"):
        read(store, Seals(keys), row)


def test_a_unit_that_fails_leaves_no_key_that_is_used_later(store, seals, keys):
    def failing():
        with store.unit() as unit:
            seals.seal_all(unit, [JournalEntry(make_record("r1", subject_hash="ab"), CONTENT)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()

    row = put(store, seals, "r1", subject_hash="ab")

    assert read(store, Seals(keys), row) == CONTENT


def test_rotating_the_wrapping_key_rewraps_keys_and_no_content(store, seals, keys):
    row = put(store, seals, "r1", subject_hash="ab")
    put(store, seals, "r2", team="blue")
    keys.retire(keys.current_id())

    with store.unit() as unit:
        assert seals.rewrap(unit) == 2
        assert unit.records.content("r1") == row
        new = [key.wrapped for key in unit.seals.of_teams()]

    assert all(keys.current_id().encode() in wrapped for wrapped in new)
    assert read(store, Seals(keys), row) == CONTENT


def test_keys_of_another_installation_open_nothing(store, seals):
    row = put(store, seals, "r1")

    with pytest.raises(OperationFailed):
        read(store, Seals(MemoryKeys()), row)


def test_a_record_without_content_says_so(store, seals):
    row = put(store, seals, "r1", content=None)

    assert row == SealedRecord(record=row.record)
    with pytest.raises(NotFound, match="no content"):
        read(store, seals, row)
