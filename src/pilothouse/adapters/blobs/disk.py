"""
Blobs as files in one folder: `<root>/sha256/<64 hex digits>`, mode 0400.

The one idea: a file gets its name only when all of it is on the disk and hashed,
by one rename. So whatever a crash leaves behind is either whole or in `staging`,
which the next `collect` empties.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from pilothouse.domain.errors import ModelFileRefused, NotFound, OperationFailed
from pilothouse.kit.clock import Clock
from pilothouse.kit.digest import NotRegular, digest_of, is_digest, open_regular
from pilothouse.kit.folders import make_private
from pilothouse.kit.ids import new_id
from pilothouse.ports.blobs import YOUNG_S, Blob


class DiskBlobs:
    def __init__(self, root: Path, clock: Clock) -> None:
        self._root = make_private(root)
        self._files = make_private(root / "sha256")
        self._staging = make_private(root / "staging")
        self._clock = clock

    def adopt(self, path: Path) -> Blob:
        try:
            return self._adopt(path)
        except NotRegular as exc:
            raise ModelFileRefused(f"{exc}") from exc
        except OSError as exc:
            raise OperationFailed(f"{path.name} cannot be moved into {self._root}: {exc.strerror}") from exc

    def path(self, digest: str) -> Path:
        if not is_digest(digest):
            raise NotFound(f"{digest!r} is not a digest; it looks like sha256: and 64 hexadecimal digits")
        found = self._files / digest.removeprefix("sha256:")
        if not found.is_file():
            raise NotFound(f"no model file {digest} is on this machine; pull the model again")
        return found

    def verify(self, digest: str) -> Path:
        path = self.path(digest)
        try:
            with open_regular(path) as file:
                found = digest_of(file)
        except OSError as exc:
            raise ModelFileRefused(
                f"the model file {path} cannot be read: {exc}; pull the model again"
            ) from exc
        if found != digest:
            raise ModelFileRefused(
                f"the model file {path} was changed on the disk: its digest is {found}. "
                f"Delete it, find out who can write there, and pull the model again"
            )
        return path

    def all(self) -> list[Blob]:
        return [
            Blob(f"sha256:{entry.name}", entry.stat().st_size)
            for entry in sorted(self._files.iterdir())
            if is_digest(f"sha256:{entry.name}")
        ]

    def collect(self, keep: Iterable[str]) -> list[Blob]:
        kept = set(keep)
        deleted = []
        for blob in self.all():
            path = self._files / blob.digest.removeprefix("sha256:")
            if blob.digest not in kept and self._is_old(path):
                path.unlink(missing_ok=True)
                deleted.append(blob)
        for left in self._staging.iterdir():
            if self._is_old(left):
                left.unlink(missing_ok=True)
        return deleted

    def _adopt(self, path: Path) -> Blob:
        staged = self._staging / new_id()
        _move(path, staged)
        try:
            with open_regular(staged) as file:
                digest = digest_of(file)
                os.fchmod(file.fileno(), 0o400)
                # Young from now on: an old file that comes in again is not collected at once.
                now = self._clock.now()
                os.utime(file.fileno(), (now, now))
                os.fsync(file.fileno())
                size = os.fstat(file.fileno()).st_size
            staged.replace(self._files / digest.removeprefix("sha256:"))
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        _sync_folder(self._files)
        return Blob(digest, size)

    def _is_old(self, path: Path) -> bool:
        try:
            return self._clock.now() - path.lstat().st_mtime >= YOUNG_S
        except FileNotFoundError:
            return False


def _move(path: Path, target: Path) -> None:
    """Rename, or copy where the file lies on another file system."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_dev == target.parent.stat().st_dev:
            path.rename(target)
            return
        try:
            with target.open("xb") as copy:
                shutil.copyfileobj(file, copy, 1024 * 1024)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
    path.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
