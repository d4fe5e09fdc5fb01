"""
The signals that tell a supervisor to end or to restart, and a sleep that they cut short.

A handler only counts; what follows is decided in the loop. A child's death is a
signal too, so that nobody waits for the next look at it.

HUP says two things. A terminal that closes sends it, and the server of that
terminal ends with it; an operator or a service manager sends it, and means
"restart". They are told apart by looking whether the terminal is still there.
"""

import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], None] | signal.Handlers

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class StopSignals:
    """Counts TERM and INT, and HUP as said above, while it handles them. For the main thread."""

    def __init__(self, *, ignore_hangup: bool = False) -> None:
        """`ignore_hangup`: nothing ends with a terminal, for there is none; HUP always means "restart"."""
        self.count = 0
        self.restarts = 0
        """How often a restart was asked for."""
        self._ends_with_terminal = not ignore_hangup and _has_terminal()
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
            signal.SIGHUP: self._hang_up,
            signal.SIGCHLD: lambda number, frame: None,  # noqa: ARG005 - it only cuts the sleep short
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        old_fd = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        hold_signals(held=False)  # those that came during an exec arrive now
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

    def _hang_up(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's shape
        if self._ends_with_terminal and not _has_terminal():
            self.count += 1
        else:
            self.restarts += 1


def hold_signals(*, held: bool) -> None:
    """Keep the handled signals waiting: one that was just exec'ed, or is at its end, has no handlers."""
    signal.pthread_sigmask(signal.SIG_BLOCK if held else signal.SIG_UNBLOCK, HANDLED)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
