"""Several servers on one folder of model files."""

from pathlib import Path

import pytest

from pilothouse.adapters.blobs.disk import DiskBlobs
from pilothouse.domain.errors import OperationFailed
from pilothouse.kit.clock import Clock
from pilothouse.ports.blobs import YOUNG_S, Blob, Blobs
from pilothouse.testing.conformance_blobs import BlobsConformance, SteppingClock


class TestSharedBlobs(BlobsConformance):
    @pytest.fixture
    def blobs(self, clock: SteppingClock, tmp_path: Path) -> Blobs:
        return DiskBlobs(tmp_path / "blobs", clock, owner="me")


class Moved:
    """A clock of some time later than the files."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def moved() -> Moved:
    return Moved()


def adopt(blobs: DiskBlobs, folder: Path, content: bytes) -> Blob:
    path = folder / "new"
    path.write_bytes(content)
    return blobs.adopt(path)


def shared(folder: Path, clock: Clock, owner: str) -> DiskBlobs:
    return DiskBlobs(folder / "shared", clock, owner=owner)


def test_what_another_server_needs_is_not_collected(tmp_path: Path, moved: Moved) -> None:
    one, two = shared(tmp_path, moved, "one"), shared(tmp_path, moved, "two")
    first, second = adopt(one, tmp_path, b"first"), adopt(two, tmp_path, b"second")
    moved.time += 2 * YOUNG_S

    assert one.collect([]) == [first]
    assert two.all() == [second]
    assert two.collect([]) == [second]


def test_a_file_that_both_brought_stays_as_long_as_one_needs_it(tmp_path: Path, moved: Moved) -> None:
    one, two = shared(tmp_path, moved, "one"), shared(tmp_path, moved, "two")
    blob = adopt(one, tmp_path, b"both")
    inode = one.path(blob.digest).stat().st_ino
    assert adopt(two, tmp_path, b"both") == blob
    moved.time += 2 * YOUNG_S

    assert two.path(blob.digest).stat().st_ino == inode, "the file under the other's engine stays"
    assert one.collect([]) == []
    assert two.collect([blob.digest]) == []
    assert two.collect([]) == [blob]


def test_a_damaged_file_is_replaced_by_a_sound_one(tmp_path: Path, moved: Moved) -> None:
    one, two = shared(tmp_path, moved, "one"), shared(tmp_path, moved, "two")
    path = one.path(adopt(one, tmp_path, b"sound").digest)
    path.chmod(0o600)
    path.write_bytes(b"spoil")

    blob = adopt(two, tmp_path, b"sound")

    assert one.verify(blob.digest).read_bytes() == b"sound"


def test_while_a_claim_cannot_be_read_nothing_is_collected(tmp_path: Path, moved: Moved) -> None:
    one = shared(tmp_path, moved, "one")
    adopt(one, tmp_path, b"mine")
    (tmp_path / "shared" / "claims" / "two.json").write_text("{")
    moved.time += 2 * YOUNG_S

    with pytest.raises(OperationFailed, match=r"two\.json says what a server needs"):
        one.collect([])
    assert len(one.all()) == 1
