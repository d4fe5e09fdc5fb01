"""
What the GPUs last said, read in a thread beside the loop.

A driver that hangs takes its thread along and nothing else: the last reading is
given up then, and no second thread is sent after the first.
"""

import threading
from collections.abc import Callable, Sequence

from pilothouse.kit.clock import Clock
from pilothouse.kit.nvml import Gpu, Nvml

STALE_S = 60.0
"""A reading older than that says nothing about now."""


class GpuReadings:
    """
    Args:
        open_library: Opens it, in the thread; None where there is no GPU, and then nothing is asked again.
    """

    def __init__(self, clock: Clock, *, open_library: Callable[[], Nvml | None] = Nvml.open) -> None:
        self._clock = clock
        self._open = open_library
        self._library: Nvml | None = None
        self._is_absent = False
        self._reading: threading.Thread | None = None
        self._last: tuple[Gpu, ...] = ()
        self._read_at = 0.0

    @property
    def last(self) -> Sequence[Gpu]:
        return self._last if self._clock.monotonic() - self._read_at < STALE_S else ()

    def look(self) -> threading.Thread | None:
        """Begin a reading, unless one is under way or there is no GPU; returns at once."""
        if self._is_absent or (self._reading is not None and self._reading.is_alive()):
            return None
        self._reading = threading.Thread(target=self._read, name="gpus", daemon=True)
        self._reading.start()
        return self._reading

    def _read(self) -> None:
        if self._library is None:
            self._library = self._open()
        if self._library is None:
            self._is_absent = True
            return
        self._last = self._library.read()
        self._read_at = self._clock.monotonic()
