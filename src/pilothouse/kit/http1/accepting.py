"""
Accepting on a socket that several processes share, each about as many connections.

The kernel wakes all of them, and whoever is fastest takes the connection: mostly
the same one. So a process that has more connections than another looks away for
two milliseconds, in which the others can take what waits; then it accepts all
the same, for the others may be busy. Nothing is lost when one of them dies:
there is one queue, and it is the supervisor's.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

PAUSE_S = 0.002
NO_DESCRIPTOR_S = 0.05
"""When this process has no file descriptor left: until some connection has ended."""


class Shares(Protocol):
    """Who has how many: `kit.board.Board`."""

    def write(self, number: int) -> None: ...
    def least_of_others(self) -> int | None: ...


class FairAccept:
    """
    Args:
        count: Connections of this process.
        connect: Makes a connection of an accepted socket; what it raises is that socket's end.
    """

    def __init__(
        self,
        listening: socket.socket,
        shares: Shares,
        *,
        count: Callable[[], int],
        connect: Callable[[socket.socket], Awaitable[object]],
    ) -> None:
        self._listening = listening
        self._shares = shares
        self._count = count
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._has_waited = False
        self._timer: asyncio.TimerHandle | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        listening.setblocking(False)
        self._watch()

    def close(self) -> None:
        """Accept no more. Connections that are being made are made."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif self._listening.fileno() >= 0:
            self._loop.remove_reader(self._listening.fileno())
        self._listening.close()

    def _watch(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listening.fileno(), self._take)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listening.fileno())
        self._timer = self._loop.call_later(seconds, self._watch)

    def _take(self) -> None:
        mine = self._count() + len(self._connecting)
        if not self._has_waited and has_too_many(mine, self._shares.least_of_others()):
            self._has_waited = True
            self._pause(PAUSE_S)
            return
        self._has_waited = False
        try:
            accepted, _ = self._listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # another took it, or it is gone
            return
        except OSError:
            self._pause(NO_DESCRIPTOR_S)
            return
        accepted.setblocking(False)
        task = self._loop.create_task(self._made(accepted))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        self._shares.write(mine + 1)

    async def _made(self, accepted: socket.socket) -> None:
        try:
            await self._connect(accepted)
        except OSError:  # it hung up, or its TLS handshake failed (`ssl.SSLError` is an OSError)
            accepted.close()


def has_too_many(mine: int, least: int | None) -> bool:
    """
    Whether a process with `mine` connections leaves the next to one that has `least`.

    One more than a ninth more: an exact balance would make a burst wait at each turn.
    """
    return least is not None and mine > least + least // 8
