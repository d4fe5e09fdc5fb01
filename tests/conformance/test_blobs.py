"""Every Blobs keeps the port's promises; the disk keeps more."""

import os
from pathlib import Path

import pytest

from pilothouse.adapters.blobs import disk
from pilothouse.adapters.blobs.disk import DiskBlobs
from pilothouse.domain.errors import OperationFailed
from pilothouse.ports.blobs import YOUNG_S, Blobs
from pilothouse.testing.conformance_blobs import BlobsConformance, SteppingClock
from pilothouse.testing.memory_blobs import MemoryBlobs


class TestMemoryBlobs(BlobsConformance):
    @pytest.fixture
    def blobs(self, clock: SteppingClock, tmp_path: Path) -> Blobs:
        return MemoryBlobs(tmp_path / "blobs", clock)


class TestDiskBlobs(BlobsConformance):
    @pytest.fixture
    def blobs(self, clock: SteppingClock, tmp_path: Path) -> Blobs:
        return DiskBlobs(tmp_path / "blobs", clock)

    def test_files_are_readable_by_their_owner_alone(self, blobs: Blobs, file: Path) -> None:
        path = blobs.path(blobs.adopt(file).digest)

        assert path.stat().st_mode & 0o777 == 0o400
        assert path.parent.stat().st_mode & 0o777 == 0o700

    def test_the_file_is_on_the_disk_before_its_name(
        self, blobs: Blobs, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[list[object]] = []
        fsync = os.fsync

        def watched(descriptor: int) -> None:
            seen.append(list(blobs.all()))
            fsync(descriptor)

        monkeypatch.setattr(disk.os, "fsync", watched)
        blob = blobs.adopt(file)

        assert seen == [[], [blob]]  # the file first, then the folder that names it

    def test_an_interrupted_adoption_leaves_nothing_visible(
        self, blobs: Blobs, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def interrupt(_descriptor: int) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(disk.os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            blobs.adopt(file)

        assert blobs.all() == []
        assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []

    def test_what_a_crash_left_in_staging_is_collected(
        self, blobs: Blobs, tmp_path: Path, clock: SteppingClock
    ) -> None:
        left = tmp_path / "blobs" / "staging" / "half"
        left.write_bytes(b"x")
        os.utime(left, (clock.time, clock.time))

        blobs.collect([])
        assert left.exists()

        clock.time += YOUNG_S
        blobs.collect([])
        assert not left.exists()

    def test_a_full_disk_is_said_plainly(
        self, blobs: Blobs, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(disk.os, "fsync", full)

        with pytest.raises(OperationFailed, match="No space left on device; free space there"):
            blobs.adopt(file)

    def test_a_file_from_another_file_system_is_copied(self, blobs: Blobs) -> None:
        elsewhere = Path("/dev/shm")
        if not elsewhere.is_dir() or elsewhere.stat().st_dev == blobs._root.stat().st_dev:  # type: ignore[attr-defined]
            pytest.skip("this machine has no second file system to copy from")
        file = elsewhere / f"pilothouse-test-{os.getpid()}"
        file.write_bytes(b"weights")

        blob = blobs.adopt(file)

        assert blobs.verify(blob.digest).read_bytes() == b"weights"
        assert not file.exists()
