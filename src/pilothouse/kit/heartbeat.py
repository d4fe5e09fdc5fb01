"""
Heartbeat: how a child knows that its parent lives, over an inherited pipe.

The parent holds the write end and beats; the child holds the read end. A closed
pipe says at once that the parent is gone, silence that it hangs.
"""

import asyncio
import os
from typing import Literal

from pilothouse.kit.pulse import BEAT_S, Heartbeat

__all__ = ["BEAT_S", "SILENCE_S", "Heartbeat", "Loss", "wait_for_loss"]

SILENCE_S = 10.0

Loss = Literal["closed", "silent"]


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
