"""
Blobs as files in one folder: `<root>/sha256/<64 hex digits>`, mode 0400.

The one idea: a file gets its name only when all of it is on the disk and hashed,
by one rename. So whatever a crash leaves behind is either whole or in `staging`,
which the next `collect` empties.

Several servers may share the folder, on a network disk too: each writes down in
`claims` what it needs, and nothing that another claims is collected. Only renames
within the folder are relied on, no locks.
"""

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from pilothouse.domain.errors import ModelFileRefused, NotFound, OperationFailed
from pilothouse.kit.clock import Clock
from pilothouse.kit.digest import NotRegular, digest_of, is_digest, open_regular
from pilothouse.kit.folders import make_private
from pilothouse.kit.ids import new_id
from pilothouse.ports.blobs import YOUNG_S, Blob


class DiskBlobs:
    """
    Args:
        owner: Name of this server among those that share the folder; empty where it is its own.
    """

    def __init__(self, root: Path, clock: Clock, *, owner: str = "") -> None:
        self._owner = owner
        self._root = make_private(root)
        self._files = make_private(root / "sha256")
        self._staging = make_private(root / "staging")
        self._claims = make_private(root / "claims") if owner else root / "claims"
        self._clock = clock

    def adopt(self, path: Path) -> Blob:
        try:
            return self._adopt(path)
        except NotRegular as exc:
            raise ModelFileRefused(f"{exc}") from exc
        except OSError as exc:
            is_full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
            fix = "; free space there, or name another `models_folder`" if is_full else ""
            raise OperationFailed(
                f"{path.name} cannot be moved into {self._root}: {exc.strerror}{fix}"
            ) from exc

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
        if self._owner:
            self._write_claim(kept)
        kept |= self._claimed()
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
            if self._owner:
                self._write_claim({digest, *self._own_claim()})
            self._give_name(staged, digest)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        _sync_folder(self._files)
        return Blob(digest, size)

    def _give_name(self, staged: Path, digest: str) -> None:
        """In a shared folder a sound file stays: under another server's engine it must not be exchanged."""
        named = self._files / digest.removeprefix("sha256:")
        if self._owner and named.is_file():
            try:
                self.verify(digest)
            except (NotFound, ModelFileRefused):
                pass  # damaged: the new one takes its place
            else:
                now = self._clock.now()
                os.utime(named, (now, now))
                staged.unlink()
                return
        staged.replace(named)

    def _claimed(self) -> set[str]:
        """What any server needs that ever shared the folder; one that is gone for good is deleted by hand."""
        if not self._claims.is_dir():
            return set()
        return {digest for claim in self._claims.glob("*.json") for digest in _read_claim(claim)}

    def _own_claim(self) -> set[str]:
        return _read_claim(self._claims / f"{self._owner}.json")

    def _write_claim(self, digests: set[str]) -> None:
        staged = self._staging / new_id()
        staged.write_bytes(msgspec.json.encode(sorted(digests)))
        staged.replace(self._claims / f"{self._owner}.json")

    def _is_old(self, path: Path) -> bool:
        try:
            return self._clock.now() - path.lstat().st_mtime >= YOUNG_S
        except FileNotFoundError:
            return False


def _read_claim(path: Path) -> set[str]:
    try:
        return set(msgspec.json.decode(path.read_bytes(), type=list[str]))
    except FileNotFoundError:
        return set()
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise OperationFailed(
            f"{path} says what a server needs, and cannot be read: {exc}. Until it is corrected or deleted, "
            "nothing is removed from that folder"
        ) from exc


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
