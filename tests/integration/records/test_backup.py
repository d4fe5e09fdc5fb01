"""A backup of a home in use, restored into an empty one: everything is there, and can be read."""

import shutil
import threading
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from pilothouse.adapters.keys.file import FileKeys
from pilothouse.adapters.stores.sqlite import SqliteStore
from pilothouse.app.backup import backup, keys_file_of, restore
from pilothouse.cli import backup as commands
from pilothouse.config import Settings, make_settings
from pilothouse.control.drain import Drain
from pilothouse.control.seals import Seals
from pilothouse.domain.errors import Conflict, NotFound, OperationFailed
from pilothouse.domain.record import Content, JournalEntry
from pilothouse.domain.spec import DEFAULT_SPEC
from pilothouse.domain.tenancy import Team
from pilothouse.kit.journal.reader import JournalReader
from pilothouse.kit.journal.writer import JournalWriter
from pilothouse.ports.store import RecordFilter
from pilothouse.testing.examples import make_key, make_model, make_record

MODEL = b"GGUF model" * 1000
DIGEST = "sha256:" + sha256(MODEL).hexdigest()


class House:
    """A home in use: its worker's journal is open, its controller's store too."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.keys = FileKeys(settings.keys_path)
        self.store = SqliteStore(settings.database_file, reserve_bytes=0)
        self.journal = JournalWriter(
            settings.journal_path,
            writer="w1",
            segment_bytes=1 << 20,
            wrap=lambda key: self.keys.wrap(key, context=b"journal"),
        )
        self.journal.open()
        reader = JournalReader(
            settings.journal_path, unwrap=lambda key: self.keys.unwrap(key, context=b"journal")
        )
        self.drain = Drain(reader, Seals(self.keys))

    def record(self, record_id: str) -> None:
        content = Content(f"question {record_id}".encode(), ["answer"])
        self.journal.append(
            msgspec.msgpack.encode(JournalEntry(make_record(record_id, subject_hash="ab"), content))
        )

    def drain_all(self) -> None:
        while self.drain.drain_once(self.store).records:
            pass

    def ids(self) -> set[str]:
        with self.store.unit() as unit:
            return {record.id for record in unit.records.page(RecordFilter(), limit=100_000).items}

    def content(self, record_id: str) -> Content:
        with self.store.unit() as unit:
            return Seals(self.keys).open(unit, unit.records.content(record_id))

    def close(self) -> None:
        self.journal.close()
        self.store.close()


@pytest.fixture
def house(tmp_path):
    house = House(make_settings(home=str(tmp_path / "home")))
    with house.store.unit() as unit:
        unit.teams.add(Team(name="red", created_at=1.0))
        unit.keys.add(make_key("k1"))
        unit.models.put(make_model("m", "1", digest=DIGEST))
        unit.models.put(make_model("away", "1", digest="sha256:" + "0" * 64))
        unit.specs.put(DEFAULT_SPEC, expected_revision=0, author="ada", now=1.0)
    blob = house.settings.models_path / "sha256" / DIGEST.removeprefix("sha256:")
    blob.parent.mkdir(parents=True)
    blob.write_bytes(MODEL)
    for n in range(5):
        house.record(f"drained{n}")
    house.drain_all()
    for n in range(5):
        house.record(f"waiting{n}")
    yield house
    house.close()


@pytest.fixture
def empty(tmp_path) -> Settings:
    return make_settings(home=str(tmp_path / "new" / "home"))


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_a_home_in_use_comes_back_whole_in_an_empty_one(house, empty, tmp_path):
    made = backup(house.settings, tmp_path / "b.tar", now=5.0)
    house.record("later")

    found = restore(empty, tmp_path / "b.tar")

    again = House(empty)
    again.drain_all()
    assert again.ids() == {f"{kind}{n}" for kind in ("drained", "waiting") for n in range(5)}
    assert again.content("drained3") == Content(b"question drained3", ["answer"])
    assert again.content("waiting3") == Content(b"question waiting3", ["answer"])
    assert again.keys.pepper() == house.keys.pepper()
    with again.store.unit() as unit:
        assert unit.specs.current().spec == DEFAULT_SPEC
        assert unit.keys.get("k1") == make_key("k1")
        assert sum(line.sums.requests for line in unit.usage.report("team", since=0, until=1e6)) == 10
    assert (made.created_at, found.created_at) == (5.0, 5.0)
    again.close()


def test_state_and_keys_are_apart_and_private(house, tmp_path):
    backup(house.settings, tmp_path / "b.tar", now=5.0)

    state, keys = (tmp_path / "b.tar").read_bytes(), keys_file_of(tmp_path / "b.tar").read_bytes()
    for path in house.settings.keys_path.iterdir():
        assert path.read_bytes() not in state
        assert path.read_bytes() in keys
    assert b"question" not in state
    assert {p.stat().st_mode & 0o777 for p in tmp_path.glob("b.tar*")} == {0o600}
    assert not list(tmp_path.glob(".*"))


def test_models_are_named_and_only_put_in_when_asked(house, empty, tmp_path):
    small = backup(house.settings, tmp_path / "small.tar", now=5.0)
    large = backup(house.settings, tmp_path / "large.tar", now=5.0, with_models=True)

    found = restore(empty, tmp_path / "large.tar")

    assert set(small.models) == set(large.models) == {DIGEST, "sha256:" + "0" * 64}
    assert set(small.missing_models) == set(small.models)
    assert large.missing_models == found.missing_models == ["sha256:" + "0" * 64]
    assert (empty.models_path / "sha256" / DIGEST.removeprefix("sha256:")).read_bytes() == MODEL


def test_backups_while_records_are_written_and_drained_lose_nothing_that_was_there(house, tmp_path):
    stop, written = threading.Event(), []

    def work():
        n = 0
        while not stop.is_set():
            if house.journal.has_room(1000):
                house.record(f"live{n}")
                written.append(f"live{n}")
                n += 1
            if n % 50 == 0:
                house.drain_all()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for turn in range(4):
            before = set(written)
            target = tmp_path / f"b{turn}.tar"
            backup(house.settings, target, now=5.0)
            settings = make_settings(home=str(tmp_path / f"new{turn}" / "home"))
            restore(settings, target)
            again = House(settings)
            again.drain_all()
            assert before - again.ids() == set()
            with again.store.unit() as unit:
                lines = unit.usage.report("team", since=0, until=1e6)
            assert sum(line.sums.requests for line in lines) == len(again.ids())
            again.close()
    finally:
        stop.set()
        worker.join(timeout=30)


@pytest.mark.parametrize("which", ["home", "keys"])
def test_a_restore_into_a_folder_that_holds_something_touches_nothing(house, empty, tmp_path, which):
    backup(house.settings, tmp_path / "b.tar", now=5.0)
    folder = {"home": empty.home_path, "keys": empty.keys_path}[which]
    folder.mkdir(parents=True)
    (folder / "precious").write_text("mine")

    with pytest.raises(Conflict, match=f"{folder} is not empty.*--{which}"):
        restore(empty, tmp_path / "b.tar")
    assert files(tmp_path / "new") == {str((folder / "precious").relative_to(tmp_path / "new"))}


def test_a_truncated_backup_is_refused_and_nothing_appears(house, empty, tmp_path):
    backup(house.settings, tmp_path / "b.tar", now=5.0)
    data = (tmp_path / "b.tar").read_bytes()
    whole = len(data.rstrip(b"\0"))
    for cut in (0, 1, 512, whole // 3, whole // 2, whole - 1):
        (tmp_path / "b.tar").write_bytes(data[:cut])
        with pytest.raises(OperationFailed, match="damaged"):
            restore(empty, tmp_path / "b.tar")
    assert files(tmp_path / "new") == set()
    assert not list((tmp_path / "new").iterdir())


def test_keys_of_another_home_are_refused_and_nothing_appears(house, empty, tmp_path):
    backup(house.settings, tmp_path / "b.tar", now=5.0)
    other = House(make_settings(home=str(tmp_path / "other")))
    other.close()
    backup(other.settings, tmp_path / "other.tar", now=5.0)

    with pytest.raises(OperationFailed, match="another home"):
        restore(empty, tmp_path / "b.tar", keys_file=keys_file_of(tmp_path / "other.tar"))
    with pytest.raises(OperationFailed, match="damaged"):
        restore(empty, tmp_path / "b.tar", keys_file=tmp_path / "b.tar")
    assert files(tmp_path / "new") == set()


def test_an_older_keys_file_serves_while_no_key_was_made_since(house, empty, tmp_path):
    backup(house.settings, tmp_path / "old.tar", now=5.0)
    backup(house.settings, tmp_path / "new.tar", now=6.0)
    restore(empty, tmp_path / "new.tar", keys_file=keys_file_of(tmp_path / "old.tar"))

    house.keys.retire(house.keys.current_id())
    backup(house.settings, tmp_path / "newest.tar", now=7.0)

    elsewhere = make_settings(home=str(tmp_path / "elsewhere"))
    with pytest.raises(OperationFailed, match="lacks kek-"):
        restore(elsewhere, tmp_path / "newest.tar", keys_file=keys_file_of(tmp_path / "old.tar"))
    restore(elsewhere, tmp_path / "newest.tar")


def test_a_missing_file_is_named(house, empty, tmp_path):
    with pytest.raises(NotFound, match=r"none\.tar"):
        restore(empty, tmp_path / "none.tar")
    with pytest.raises(NotFound, match="no database"):
        backup(empty, tmp_path / "b.tar", now=5.0)
    backup(house.settings, tmp_path / "b.tar", now=5.0)
    with pytest.raises(Conflict, match="exists already"):
        backup(house.settings, tmp_path / "b.tar", now=5.0)
    keys_file_of(tmp_path / "b.tar").unlink()
    with pytest.raises(NotFound, match="keys"):
        restore(empty, tmp_path / "b.tar")


def test_a_backup_that_fails_leaves_neither_file(house, tmp_path):
    shutil.rmtree(house.settings.keys_path)

    with pytest.raises(OperationFailed):
        backup(house.settings, tmp_path / "b.tar", now=5.0)
    assert not list(tmp_path.glob("*b.tar*"))


def test_a_backup_of_another_format_says_so(house, empty, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("pilothouse.app.backup.FORMAT", 2)
        backup(house.settings, tmp_path / "b.tar", now=5.0)

    with pytest.raises(OperationFailed, match="format 2"):
        restore(empty, tmp_path / "b.tar")


def test_the_commands_write_and_put_back(house, empty, tmp_path):
    target = str(tmp_path / "b.tar")

    made = CliRunner().invoke(commands.backup, [target, "--home", house.settings.home, "--json"])
    done = CliRunner().invoke(commands.restore, [target, "--home", empty.home])

    assert made.exit_code == done.exit_code == 0, made.output + done.output
    assert msgspec.json.decode(made.output)["keys_file"] == target + ".keys"
    assert f"pilothouse up --home {empty.home}" in done.output
    assert (empty.home_path / "pilothouse.db").exists()
