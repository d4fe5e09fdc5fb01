"""
One holder at a time, across processes: a lock on a file.

The kernel releases it when its holder dies, however it dies, so there is nothing
to clean up; and the file itself stays, for removing it would let two hold "the" lock.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.05


class LockTimeout(TimeoutError):
    """Somebody else held it for too long."""


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
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            return False
        return True

    @property
    def fd(self) -> int:
        """The descriptor that holds the lock, -1 when it is not held: who inherits it, holds the lock."""
        return self._fd

    def adopt(self, fd: int) -> None:
        """Hold on to a lock that a predecessor in this process handed over."""
        self._fd = fd

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@contextmanager
def file_lock(
    path: Path,
    *,
    timeout_s: float,
    on_wait: Callable[[], None] = lambda: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[bool]:
    """
    Hold the lock within the block; the value says whether it had to be waited for. Blocks.

    Args:
        on_wait: Called at every look while another holds it; what it raises ends the wait.

    Raises:
        LockTimeout: After `timeout_s`.
    """
    lock = LockFile(path)
    waited = wait_for_lock(lock, timeout_s=timeout_s, on_wait=on_wait, sleep=sleep)
    try:
        yield waited
    finally:
        lock.release()


def wait_for_lock(
    lock: LockFile,
    *,
    timeout_s: float,
    on_wait: Callable[[], None] = lambda: None,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """As `file_lock`, for a lock that outlives a block."""
    waited_s = 0.0
    while not lock.try_acquire():
        if waited_s >= timeout_s:
            raise LockTimeout(f"held by another for {timeout_s:g} s")
        on_wait()
        sleep(POLL_S)
        waited_s += POLL_S
    return waited_s > 0
