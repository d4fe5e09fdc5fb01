"""
What every Blobs does, wherever it keeps them.

Subclass `BlobsConformance` in a test file and give it the fixture `blobs`, made
with the clock of the fixture `clock`.
"""

import hashlib
from pathlib import Path

import pytest

from pilothouse.domain.errors import ModelFileRefused, NotFound
from pilothouse.ports.blobs import YOUNG_S, Blob, Blobs

ABSENT = "sha256:" + "0" * 64


class SteppingClock:
    """Time that moves when the test says so."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class BlobsConformance:
    @pytest.fixture
    def clock(self) -> SteppingClock:
        return SteppingClock()

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "weights.gguf"
        path.write_bytes(b"weights")
        return path

    def test_an_adopted_file_is_found_by_its_digest(self, blobs: Blobs, file: Path) -> None:
        blob = blobs.adopt(file)

        assert blob == Blob("sha256:" + hashlib.sha256(b"weights").hexdigest(), 7)
        assert blobs.path(blob.digest).read_bytes() == b"weights"
        assert blobs.verify(blob.digest) == blobs.path(blob.digest)
        assert blobs.all() == [blob]

    def test_adopting_moves_the_file(self, blobs: Blobs, file: Path) -> None:
        blobs.adopt(file)

        assert not file.exists()

    def test_adopting_the_same_again_changes_nothing(self, blobs: Blobs, file: Path) -> None:
        first = blobs.adopt(file)
        file.write_bytes(b"weights")

        assert blobs.adopt(file) == first
        assert blobs.all() == [first]

    def test_adopting_again_repairs_a_damaged_file(self, blobs: Blobs, file: Path) -> None:
        digest = blobs.adopt(file).digest
        self.damage(blobs.path(digest))
        file.write_bytes(b"weights")

        blobs.adopt(file)

        assert blobs.verify(digest).read_bytes() == b"weights"

    def test_a_changed_file_is_refused(self, blobs: Blobs, file: Path) -> None:
        digest = blobs.adopt(file).digest
        self.damage(blobs.path(digest))

        with pytest.raises(ModelFileRefused, match="changed"):
            blobs.verify(digest)

    def test_a_link_is_not_adopted(self, blobs: Blobs, file: Path) -> None:
        link = file.with_name("link.gguf")
        link.symlink_to(file)

        with pytest.raises(ModelFileRefused):
            blobs.adopt(link)

        assert blobs.all() == []
        assert file.exists()

    @pytest.mark.parametrize("digest", [ABSENT, "sha256:../../etc/passwd", "", "x"])
    def test_what_is_not_there_is_not_found(self, blobs: Blobs, digest: str) -> None:
        with pytest.raises(NotFound):
            blobs.path(digest)
        with pytest.raises(NotFound):
            blobs.verify(digest)

    def test_collecting_keeps_what_is_listed(self, blobs: Blobs, file: Path, clock: SteppingClock) -> None:
        blob = blobs.adopt(file)
        clock.time += YOUNG_S + 1

        assert blobs.collect([blob.digest, ABSENT]) == []
        assert blobs.all() == [blob]

    def test_collecting_keeps_what_is_young(self, blobs: Blobs, file: Path, clock: SteppingClock) -> None:
        blob = blobs.adopt(file)
        clock.time += YOUNG_S - 1

        assert blobs.collect([]) == []
        assert blobs.all() == [blob]

    def test_collecting_deletes_the_rest(self, blobs: Blobs, file: Path, clock: SteppingClock) -> None:
        blob = blobs.adopt(file)
        clock.time += YOUNG_S + 1

        assert blobs.collect([]) == [blob]
        assert blobs.all() == []
        with pytest.raises(NotFound):
            blobs.path(blob.digest)

    @staticmethod
    def damage(path: Path) -> None:
        path.chmod(0o600)
        path.write_bytes(b"weighty")
