"""
The signals that tell a supervisor to end, and a sleep that they cut short.

A handler only counts; what follows is decided in the loop. A child's death is a
signal too, so that nobody waits for the next look at it.
"""

import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], None] | signal.Handlers


class StopSignals:
    """Counts TERM, INT and (unless ignored) HUP while it handles them. For the main thread."""

    def __init__(self, *, ignore_hangup: bool = False) -> None:
        self.count = 0
        self._ignore_hangup = ignore_hangup
        self._wakeup: socket.socket | None = None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle signals within the block; afterwards all is as before."""
        reading, writing = socket.socketpair()
        reading.setblocking(False)
        writing.setblocking(False)
        self._wakeup = reading
        handlers: dict[int, Handler] = {
            signal.SIGTERM: self._stop,
            signal.SIGINT: self._stop,
            signal.SIGHUP: signal.SIG_IGN if self._ignore_hangup else self._stop,
            signal.SIGCHLD: lambda number, frame: None,  # noqa: ARG005 - it only cuts the sleep short
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        old_fd = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._wakeup = None
            reading.close()
            writing.close()

    def wait(self, seconds: float) -> None:
        """Sleep at most so long: any signal, also one that came a moment ago, ends it."""
        if self._wakeup is None:
            return
        ready, _, _ = select.select([self._wakeup], [], [], max(0.0, seconds))
        if ready:
            self._wakeup.recv(4096)

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's shape
        self.count += 1
