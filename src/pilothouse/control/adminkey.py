"""
The file with this machine's admin key, for its owner alone.

Written whole or not at all: into a new 0600 file beside it, synced, then moved
into place. Which key belongs into it is decided in `control.tenants`.
"""

import os
from contextlib import suppress
from pathlib import Path

from pilothouse.domain.errors import OperationFailed
from pilothouse.kit.secret import Secret

_LONGEST_BYTES = 512


class AdminKeyFile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Secret | None:
        """
        What the file holds; None when it is not there or plainly no key.

        A file that others can read is made private again on the way.
        """
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    os.fchmod(file.fileno(), 0o600)
                content = file.read(_LONGEST_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise OperationFailed(
                f"cannot read the admin key file {self.path}: {exc.strerror}; check its owner and its mode"
            ) from exc
        if len(content) > _LONGEST_BYTES or not content.isascii():
            return None
        return Secret(content.decode().strip())

    def write(self, key: Secret) -> None:
        """Put `key` there, in place of what was there."""
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.unlink(missing_ok=True)  # of an earlier, killed attempt with the same pid
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(key.reveal() + "\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
            _sync_folder(self.path.parent)
        except OSError as exc:
            with suppress(OSError):
                fresh.unlink()
            raise OperationFailed(
                f"cannot write the admin key file {self.path}: {exc.strerror}; "
                "make room or fix the folder's owner, then start again: a new key is made"
            ) from exc


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
