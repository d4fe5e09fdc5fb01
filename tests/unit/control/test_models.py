"""The order of a pull and of a load, on a scripted source and remembered blobs."""

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pilothouse.control import models
from pilothouse.control.models import ABANDONED_S, Models
from pilothouse.domain.errors import (
    InvalidRequest,
    ModelFileRefused,
    NotFound,
    OperationFailed,
    PilothouseError,
)
from pilothouse.domain.gguf_model import read_model
from pilothouse.domain.model import ModelHeader, ModelVersion
from pilothouse.kit import gguf
from pilothouse.kit.lockfile import file_lock
from pilothouse.ports.blobs import YOUNG_S
from pilothouse.ports.source import Fetched, Identity, Progress
from pilothouse.testing.conformance_blobs import SteppingClock
from pilothouse.testing.gguf_files import make_gguf
from pilothouse.testing.memory_blobs import MemoryBlobs
from pilothouse.testing.scripted_source import ScriptedSource

TINY, OTHER = make_gguf(), make_gguf(seed=1)
DIGEST = f"sha256:{hashlib.sha256(TINY).hexdigest()}"


def inspect(path: Path) -> ModelHeader:
    return read_model(gguf.read(path))


class SafetensorsSource(ScriptedSource):
    """Delivers a folder that must be converted."""

    def fetch(self, reference: str, workdir: Path, *, progress: Progress, expect: str | None) -> Fetched:
        fetched = super().fetch(reference, workdir, progress=progress, expect=expect)
        path = fetched.path.rename(workdir / "model.safetensors")
        return Fetched(path=path, source_digest=fetched.source_digest, licence="MIT")


class Bench:
    def __init__(self, folder: Path) -> None:
        self.clock = SteppingClock(folder.stat().st_mtime)  # files carry the true time
        self.blobs = MemoryBlobs(folder / "blobs", self.clock)
        self.folder = folder / "pulls"
        self.source = ScriptedSource({"tiny": TINY})
        self.inspect: Callable[[Path], ModelHeader] = inspect
        self.converted: list[tuple[Path, str]] = []
        self.told: list[str] = []

    def models(self) -> Models:
        return Models(
            sources=[self.source],
            blobs=self.blobs,
            folder=self.folder,
            inspect=self.inspect,
            convert=self.convert,
            clock=self.clock,
        )

    def convert(self, folder: Path, target: Path, name: str) -> None:
        self.converted.append((folder, name))
        target.write_bytes(OTHER)

    def pull(
        self,
        source: str = "scripted:tiny",
        *,
        name: str | None = None,
        licence: str = "",
        known: ModelVersion | None = None,
    ) -> ModelVersion:
        def progress(what: str, _done: int, _total: int) -> None:
            self.told.append(what)

        return self.models().pull(source, name=name, licence=licence, progress=progress, known=known)

    def left(self) -> list[Path]:
        """What pulls left behind, but for locks and notes."""
        return [path for path in self.folder.iterdir() if path.suffix not in {".lock", ".json"}]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_pulled_model_is_described_by_its_file(bench: Bench) -> None:
    version = bench.pull()

    assert version == ModelVersion(
        name="tiny",
        version="1",
        digest=DIGEST,
        format="gguf",
        bytes=len(TINY),
        quantization="F32",
        context_tokens=128,
        licence="apache-2.0",
        source="scripted:tiny",
        source_digest=DIGEST,
        header=version.header,
        created_at=bench.clock.now(),
    )
    assert version.header.architecture == "llama"
    assert bench.left() == []


def test_the_licence_given_wins_over_that_of_the_source_and_of_the_file(bench: Bench) -> None:
    bench.source.licence = "MIT"

    assert bench.pull().licence == "MIT"
    assert bench.pull(licence="Proprietary").licence == "Proprietary"


def test_a_name_may_be_given(bench: Bench) -> None:
    assert bench.pull(name="mine").name == "mine"


@pytest.mark.parametrize("name", ["", "a/b", "../x", "é"])
def test_a_name_that_cannot_be_used_is_refused_before_the_fetch(bench: Bench, name: str) -> None:
    with pytest.raises(InvalidRequest):
        bench.pull(name=name)

    assert bench.source.fetches == 0


@pytest.mark.parametrize("source", ["", "tiny", "s3:tiny", ":tiny", "scripted", "scripted:../x"])
def test_what_is_no_source_is_refused(bench: Bench, source: str) -> None:
    with pytest.raises(InvalidRequest):
        bench.pull(source)


def test_a_source_without_versions_is_numbered_by_the_digest(bench: Bench) -> None:
    class Plain(ScriptedSource):
        def identify(self, reference: str) -> Identity:
            return Identity(name="tiny")

    bench.source = Plain({"tiny": TINY})

    assert bench.pull().version == DIGEST.removeprefix("sha256:")[:12]


def test_a_recorded_model_that_is_here_is_not_fetched_again(bench: Bench) -> None:
    known = bench.pull()

    assert bench.pull(known=known, name="again").name == "again"
    assert bench.source.fetches == 1


@pytest.mark.parametrize("loss", ["gone", "damaged"])
def test_a_recorded_model_that_is_lost_is_fetched_and_checked_again(bench: Bench, loss: str) -> None:
    known = bench.pull()
    path = bench.blobs.path(known.digest)
    path.unlink() if loss == "gone" else path.write_bytes(b"damaged")

    assert bench.pull(known=known) == known
    assert bench.blobs.verify(DIGEST).read_bytes() == TINY


def test_a_source_that_delivers_another_file_than_recorded_is_refused(bench: Bench) -> None:
    known = bench.pull()
    bench.blobs.path(known.digest).unlink()
    bench.source.files["tiny"] = OTHER

    with pytest.raises(ModelFileRefused, match="another file"):
        bench.pull(known=known)

    assert bench.left() == []


def test_what_is_recorded_for_another_source_says_nothing(bench: Bench) -> None:
    known = bench.pull()
    bench.source.files["other"] = OTHER

    assert bench.pull("scripted:other", known=known).digest != known.digest


def test_a_file_that_its_reader_refuses_is_not_kept(bench: Bench) -> None:
    bench.source.files["tiny"] = TINY[:-1]

    with pytest.raises(gguf.GgufError):
        bench.pull()

    def refuse(_path: Path) -> ModelHeader:
        raise ModelFileRefused("it lies")

    bench.inspect = refuse
    with pytest.raises(ModelFileRefused):
        bench.pull()
    assert bench.blobs.all() == []
    assert bench.left() == []


def test_a_pull_that_was_cut_keeps_what_it_has_for_the_next(bench: Bench) -> None:
    def cut() -> None:
        [folder] = bench.left()
        (folder / "file.part").write_bytes(b"half")
        raise OperationFailed("cut")

    bench.source = ScriptedSource({"tiny": TINY}, before=cut)
    with pytest.raises(OperationFailed):
        bench.pull()

    [folder] = bench.left()
    assert [path.name for path in folder.iterdir()] == ["file.part"]
    bench.source = ScriptedSource({"tiny": TINY})
    bench.pull()
    assert bench.left() == []


def test_a_sentence_transformer_is_converted_under_the_sources_name(bench: Bench) -> None:
    bench.source = SafetensorsSource({"tiny": TINY})

    version = bench.pull(name="mine")

    [(folder, name)] = bench.converted
    assert (folder.parent, name) == (bench.folder, "tiny")
    assert version.digest == f"sha256:{hashlib.sha256(OTHER).hexdigest()}"
    assert version.source_digest == DIGEST


def test_a_newer_converter_may_make_another_file_of_the_same_weights(bench: Bench) -> None:
    bench.source = SafetensorsSource({"tiny": TINY})
    known = bench.pull()
    bench.blobs.path(known.digest).unlink()

    def convert(_folder: Path, target: Path, _name: str) -> None:
        target.write_bytes(TINY)

    bench.convert = convert  # type: ignore[method-assign]

    assert bench.pull(known=known).digest == DIGEST


def test_a_load_verifies_the_file(bench: Bench) -> None:
    version = bench.pull()

    artifact = bench.models().load(version)

    assert (artifact.name, artifact.digest, artifact.bytes) == ("tiny", DIGEST, len(TINY))
    assert Path(artifact.path).read_bytes() == TINY
    Path(artifact.path).write_bytes(OTHER)
    with pytest.raises(ModelFileRefused):
        bench.models().load(version)


def test_two_pulls_of_one_source_fetch_it_once(bench: Bench) -> None:
    fetching, waiting = threading.Event(), threading.Event()

    def before() -> None:
        fetching.set()
        assert waiting.wait(timeout=10)

    bench.source = ScriptedSource({"tiny": TINY}, before=before)
    results: list[ModelVersion] = []

    def second() -> None:
        def told(what: str, _done: int, _total: int) -> None:
            if what.startswith("waiting"):
                waiting.set()

        results.append(
            bench.models().pull("scripted:tiny", name="two", licence="", progress=told, known=None)
        )

    first = threading.Thread(target=lambda: results.append(bench.pull(name="one")), daemon=True)
    first.start()
    assert fetching.wait(timeout=10)
    other = threading.Thread(target=second, daemon=True)
    other.start()
    first.join(timeout=10)
    other.join(timeout=10)

    assert sorted(version.name for version in results) == ["one", "two"]
    assert bench.source.fetches == 1


def test_a_pull_alone_does_not_trust_what_an_earlier_one_noted(bench: Bench) -> None:
    bench.pull()
    bench.source.files["tiny"] = OTHER

    assert bench.pull().digest != DIGEST


def test_a_source_that_is_pulled_for_ever_by_another_is_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "LOCK_TIMEOUT_S", 0.0)
    bench.pull()
    [lock] = bench.folder.glob("*.lock")

    with file_lock(lock, timeout_s=0), pytest.raises(OperationFailed, match="another pull"):
        bench.pull()


def test_a_disk_that_takes_nothing_is_an_error_in_words(bench: Bench) -> None:
    made = bench.models()
    bench.folder.rmdir()

    with pytest.raises(OperationFailed, match="cannot work in"):
        made.pull("scripted:tiny", name=None, licence="", progress=lambda *_: None, known=None)


def test_collecting_deletes_unused_blobs_and_abandoned_pulls(bench: Bench) -> None:
    version = bench.pull()
    abandoned = bench.folder / "abandoned"
    abandoned.mkdir()
    (abandoned / "file.part").write_bytes(b"half")

    bench.clock.time = abandoned.stat().st_mtime + ABANDONED_S - YOUNG_S
    assert bench.models().collect([version.digest]) == []
    assert abandoned.exists()

    bench.clock.time += 2 * YOUNG_S
    assert [blob.digest for blob in bench.models().collect([])] == [DIGEST]
    assert not abandoned.exists()


@pytest.mark.parametrize("error", [NotFound("no"), InvalidRequest("no"), ModelFileRefused("no")])
def test_what_is_not_worth_continuing_is_removed(bench: Bench, error: PilothouseError) -> None:
    def fail() -> None:
        raise error

    bench.source = ScriptedSource({"tiny": TINY}, before=fail)
    with pytest.raises(PilothouseError):
        bench.pull()

    assert bench.left() == []


def test_a_note_that_cannot_be_read_is_no_note(bench: Bench) -> None:
    bench.pull()
    [note] = bench.folder.glob("*.json")
    assert json.loads(note.read_bytes())["digest"] == DIGEST
    note.write_text("{")

    assert models._read_note(note) is None
