"""
One holder at a time, across processes: a lock on a file.

The kernel releases it when its holder dies, so there is nothing to clean up and
the file itself stays: removing it would let two hold "the" lock.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.1


class LockTimeout(TimeoutError):
    """Somebody else held it for too long."""


@contextmanager
def file_lock(
    path: Path,
    *,
    timeout_s: float,
    on_wait: Callable[[], None] = lambda: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[bool]:
    """
    Hold the lock within the block; the value says whether it had to be waited for.

    Args:
        on_wait: Called at every look while another holds it; what it raises ends the wait.

    Raises:
        LockTimeout: After `timeout_s`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield _acquire(descriptor, timeout_s, on_wait, sleep)
    finally:
        os.close(descriptor)


def _acquire(
    descriptor: int, timeout_s: float, on_wait: Callable[[], None], sleep: Callable[[float], None]
) -> bool:
    waited_s = 0.0
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return waited_s > 0
        except BlockingIOError as exc:
            if waited_s >= timeout_s:
                raise LockTimeout(f"held by another for {timeout_s:g} s") from exc
        on_wait()
        sleep(POLL_S)
        waited_s += POLL_S
