"""Models that are folders live as long as their version, and are believed by their digest alone."""

from pathlib import Path

import pytest

from pilothouse.adapters.blobs.disk import DiskBlobs
from pilothouse.adapters.sources.file import FileSource
from pilothouse.app.inspect_folder import inspect
from pilothouse.control.models import Models
from pilothouse.domain.errors import ModelFileRefused, NotFound
from pilothouse.domain.model import ModelVersion
from pilothouse.ports.blobs import YOUNG_S
from pilothouse.testing.conformance_blobs import SteppingClock
from pilothouse.testing.model_folders import make_folder


class House:
    def __init__(self, home: Path) -> None:
        self.folder = make_folder(home / "mine")
        self.clock = SteppingClock(home.stat().st_mtime)
        self.blobs = DiskBlobs(home / "models", self.clock)
        self.models = Models(
            sources=[FileSource()],
            blobs=self.blobs,
            folder=home / "pulls",
            inspect=lambda path: inspect(path).header,
            convert=lambda *_: None,
            clock=self.clock,
        )

    def pull(self, known: ModelVersion | None = None) -> ModelVersion:
        source = f"file:{self.folder}"
        return self.models.pull(source, name="tiny", licence="", progress=lambda *_: None, known=known)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_folder_becomes_a_version_with_its_format_and_facts(house: House) -> None:
    version = house.pull()

    assert (version.format, version.context_tokens, version.quantization) == ("safetensors", 128, "F32")
    assert version.header.architecture == "llama"
    assert version.bytes == sum(file.stat().st_size for file in house.folder.iterdir())


def test_what_is_loaded_is_a_copy_that_nobody_writes(house: House) -> None:
    artifact = house.models.load(house.pull())

    path = Path(artifact.path)
    assert artifact.format == "safetensors"
    assert sorted(file.name for file in path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o400}


@pytest.mark.parametrize("change", ["write", "add", "remove", "link"])
def test_a_folder_that_was_changed_is_not_loaded(house: House, change: str) -> None:
    version = house.pull()
    path = Path(house.models.load(version).path)
    file = path / "config.json"
    file.chmod(0o600)
    if change == "write":
        file.write_text("{}")
    elif change == "add":
        (path / "more.json").write_text("{}")
    else:
        file.unlink()
        if change == "link":
            file.symlink_to(house.folder / "config.json")

    with pytest.raises(ModelFileRefused, match="was changed on the disk"):
        house.models.load(version)


def test_pulling_again_heals_it(house: House) -> None:
    version = house.pull()
    (Path(house.models.load(version).path) / "config.json").unlink()

    assert house.pull(version).digest == version.digest
    assert house.models.load(version)


def test_another_folder_at_the_same_place_is_refused(house: House) -> None:
    version = house.pull()
    (house.folder / "tokenizer.json").write_text("[]")

    with pytest.raises(ModelFileRefused, match="it is another file"):
        house.pull(version)


def test_a_folder_goes_with_its_version(house: House) -> None:
    version = house.pull()
    path = Path(house.models.load(version).path)
    house.clock.time += 2 * YOUNG_S

    house.models.collect([version.digest])
    assert path.is_dir()
    house.models.collect([])

    assert not path.exists()
    with pytest.raises(NotFound):
        house.models.load(version)
