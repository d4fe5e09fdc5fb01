"""
Heartbeat: how a child knows that its parent lives, over an inherited pipe.

The parent holds the write end and beats; the child holds the read end. A closed
pipe says at once that the parent is gone, silence that it hangs.
"""

import asyncio
import os
from typing import Literal

BEAT_S = 2.0
"""How often the parent beats: several beats fit into the silence, so that a slow moment is no death."""
SILENCE_S = 10.0

Loss = Literal["closed", "silent"]


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


async def wait_for_loss(fd: int, *, silence_s: float = SILENCE_S) -> Loss:
    """Return when the parent is gone: its end is closed, or no byte came for `silence_s`."""
    os.set_blocking(fd, False)
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(fd, readable.set)
    try:
        while True:
            heard = True
            try:
                async with asyncio.timeout(silence_s):
                    await readable.wait()
            except TimeoutError:
                heard = False
            readable.clear()
            # Read even after a silence: it may be this process that stood still while bytes came in.
            match _read(fd):
                case b"":
                    return "closed"
                case None if not heard:
                    return "silent"
    finally:
        loop.remove_reader(fd)


def _read(fd: int) -> bytes | None:
    try:
        return os.read(fd, 4096)
    except BlockingIOError:
        return None
