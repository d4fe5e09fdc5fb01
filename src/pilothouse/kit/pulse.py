"""
The parent's ends of two pipes: a child's heartbeat (`kit.heartbeat` has the child's end) and its readiness.

Apart from it because a parent that supervises wants to be up at once, and the
child's end imports asyncio.
"""

import os

BEAT_S = 2.0
"""How often the parent beats: several beats fit into the silence, so that a slow moment is no death."""


class Heartbeat:
    """The parent's end. Hand `child_fd` to the child (`pass_fds`), then `close_child_end`."""

    def __init__(self, *, fd: int = -1) -> None:
        """`fd` is the parent's end of a heartbeat that beats already: handed over by a predecessor."""
        self.child_fd, self._fd = (-1, fd) if fd >= 0 else os.pipe()
        os.set_blocking(self._fd, False)

    @property
    def fd(self) -> int:
        """The parent's end, to hand over; -1 when it is closed."""
        return self._fd

    def beat(self) -> bool:
        """False: the child closed its end. A full pipe counts as beating: its bytes are still unread."""
        try:
            os.write(self._fd, b".")
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def close_child_end(self) -> None:
        if self.child_fd >= 0:
            os.close(self.child_fd)
            self.child_fd = -1

    def close(self) -> None:
        self.close_child_end()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Readiness:
    """
    How a child says how far it is, one byte a stage. It may never say anything.

    The parent's end: hand `child_fd` to the child (`pass_fds`), then `close_child_end`.
    """

    def __init__(self) -> None:
        self._fd, self.child_fd = os.pipe()
        os.set_blocking(self._fd, False)
        self._said = b""

    def said(self, stage: bytes) -> bool:
        """Whether the child has reached that stage."""
        if self._fd >= 0:
            try:
                self._said += os.read(self._fd, 64)
            except BlockingIOError:
                pass
        return stage in self._said

    def close_child_end(self) -> None:
        if self.child_fd >= 0:
            os.close(self.child_fd)
            self.child_fd = -1

    def close(self) -> None:
        self.close_child_end()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


WAITING = b"w"
"""The child has loaded all it needs, and waits for its predecessor to let go."""
READY = b"r"
"""The child does its work."""


def say(fd: int, stage: bytes) -> None:
    """The child's side of `Readiness`; nothing when nobody asked (`fd` is negative) or listens any more."""
    if fd < 0:
        return
    try:
        os.write(fd, stage)
    except OSError:  # the parent is gone or has its answer: neither is this child's trouble
        pass
