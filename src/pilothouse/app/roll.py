"""
Rolling replacement: one child after the other, the new one ready before the old one is told to go.

Starts and watches the newcomers; what the family is and when it ends, the
supervisor says. The one idea: until a newcomer works, nothing is taken away, so
a replacement that fails leaves the server as it was.

The controller comes first, for its successor cannot work beside it: it is told
to go when the other has loaded everything and waits for the lock. Then worker
after worker.
"""

import signal
from collections.abc import Callable
from random import Random

from pilothouse.app.processes import Child
from pilothouse.kit.pulse import READY, WAITING

READY_S = 60.0
"""So long may a newcomer take to be ready. A large model is not loaded for it: engines run on."""

RETIRE = signal.SIGHUP
"""To a worker: accept no more, end in peace. To the controller: end alone, the engines run on."""


class Roll:
    """
    Args:
        family: Who serves, the controller first; changed in place as newcomers take over.
        make: A newcomer for a place of the family.
        retire: Takes over a child that was told to go, until it has gone.
    """

    def __init__(
        self, family: list[Child], make: Callable[[int], Child], retire: Callable[[Child], None]
    ) -> None:
        self.failure = ""
        self.is_done = False
        self._family = family
        self._make = make
        self._retire = retire
        self._place = 0
        self._newcomer: Child | None = None
        """Started, and not yet of the family."""
        self._awaits_controller = False
        """The new controller is of the family, and not yet ready."""
        self._give_up_at = 0.0

    @property
    def newcomer(self) -> Child | None:
        """Whoever must end too when all ends."""
        return self._newcomer

    def step(self, now: float, random: Random) -> bool:
        """Go on as far as it goes without waiting; True when the family changed."""
        if self.is_done:
            return False
        if self._awaits_controller:
            return self._await_controller(now)
        newcomer = self._newcomer
        if newcomer is None:
            self._begin(now)
            return False
        death = newcomer.reap(now, random, stable_s=READY_S)
        if death is not None:
            self._newcomer = None
            self._fail(f"the new {newcomer.name} ended ({death.status}); the old one goes on")
        elif newcomer.has_said(WAITING if self._place == 0 else READY):
            self._take_over(newcomer, now)
            return True
        elif now > self._give_up_at:
            newcomer.signal(signal.SIGKILL)
            self._retire(newcomer)
            self._newcomer = None
            self._fail(f"the new {newcomer.name} was not ready within {READY_S:.0f} s; the old one goes on")
        return False

    def _begin(self, now: float) -> None:
        newcomer = self._make(self._place)
        try:
            newcomer.start(now)
        except OSError as exc:
            self._fail(f"the new {newcomer.name} cannot be started: {exc.strerror}")
            return
        self._newcomer = newcomer
        self._give_up_at = now + READY_S

    def _take_over(self, newcomer: Child, now: float) -> None:
        old = self._family[self._place]
        self._family[self._place] = newcomer
        self._newcomer = None
        old.signal(RETIRE)
        self._retire(old)
        if self._place == 0:
            self._awaits_controller = True
            self._give_up_at = now + READY_S
        else:
            self._next()

    def _await_controller(self, now: float) -> bool:
        """It has the lock soon. When it dies meanwhile, the supervisor starts it again, as ever."""
        controller = self._family[0]
        if controller.has_said(READY):
            self._awaits_controller = False
            self._next()
        elif now > self._give_up_at:
            self._fail(f"the new {controller.name} was not ready within {READY_S:.0f} s; the workers stay")
        return False

    def _next(self) -> None:
        self._place += 1
        self.is_done = self._place >= len(self._family)

    def _fail(self, reason: str) -> None:
        self.failure = (
            f"{reason}. fix: see pilothouse logs {self._family[self._place].name}, then restart again"
        )
        self.is_done = True
