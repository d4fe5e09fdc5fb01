"""A lock that lives exactly as long as its holder: released by the system when that dies, however it dies."""

import asyncio
import fcntl
import os
from pathlib import Path

_POLL_S = 0.05


class LockFile:
    """An exclusive `flock` on a file, which stays when the lock goes. Children do not inherit it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def try_acquire(self) -> bool:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        return True

    async def acquire(self, *, timeout_s: float) -> bool:
        """Wait for the present holder to go; False when it did not in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self.try_acquire():  # noqa: ASYNC110 - no event tells of another process
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            return False
        return True

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
