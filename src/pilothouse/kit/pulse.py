"""
The parent's end of a heartbeat (`kit.heartbeat` has the child's).

Apart from it because a parent that supervises wants to be up at once, and the
child's end imports asyncio.
"""

import os

BEAT_S = 2.0
"""How often the parent beats: several beats fit into the silence, so that a slow moment is no death."""


class Heartbeat:
    """The parent's end. Hand `child_fd` to the child (`pass_fds`), then `close_child_end`."""

    def __init__(self) -> None:
        self.child_fd, self._fd = os.pipe()
        os.set_blocking(self._fd, False)

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
