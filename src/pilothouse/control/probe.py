"""
Probing one replica: when it is ready, whether it still is, and when nobody uses it.

Ready means that a token was produced. Once ready, a replica is only asked for
its load; a full probe comes when that fails and no request is in flight. A busy
replica is never restarted for being slow: its requests have their own limits.
"""

import asyncio
from collections.abc import Callable
from random import Random

from msgspec import Struct

from pilothouse.domain.errors import PilothouseError
from pilothouse.domain.status import Health, Load, Replica
from pilothouse.kit.clock import Clock
from pilothouse.kit.retry import Backoff
from pilothouse.ports.engine import Engine

SUSPICIOUS_AFTER = 3
"""Looks that failed in a row; one may be a moment of too much to do."""
IDLE_LOOKS = 2
"""Looks without load before a replica counts as unused: a request may be on its way between two parts."""


class Pace(Struct, frozen=True, kw_only=True):
    """How often, and how long."""

    start_poll_s: float = 0.05
    """Small beside the start itself (0.5 to 1 s): the first token is noticed at once."""
    attached_poll: Backoff = Backoff(first_s=0.5, ceiling_s=30.0)
    """An engine elsewhere may cost money for each probe, and comes back in its own time."""
    probe_deadline_s: float = 15.0
    look_s: float = 5.0
    look_deadline_s: float = 3.0
    idle_poll_s: float = 0.25
    ready_timeout_s: float = 120.0
    """Until the first token, beside the time to read the model's file."""


PACE = Pace()


class Probe:
    """
    What is known of one process: identity, readiness, load.

    Args:
        connect: Makes the engine to speak to it.
        adopted: It ran before this controller did.
        attached: It runs elsewhere: it may come back by itself, and is never called dead.
        is_quiet: Whether no worker has a request in flight there.
        changed: Called when `state` or `is_unused` changed.
    """

    def __init__(
        self,
        replica: Replica,
        connect: Callable[[], Engine],
        *,
        clock: Clock,
        adopted: bool,
        attached: bool,
        is_quiet: Callable[[], bool],
        changed: Callable[[], None],
        pace: Pace = PACE,
    ) -> None:
        self.replica = replica
        self.load = Load()
        self.adopted = adopted
        self.ready_since: float | None = None
        self.failure = ""
        """Why it must be replaced although it lives; "" while it need not."""
        self.reason = ""
        """Why it is not ready yet."""
        self.is_unused = False
        self._connect = connect
        self._attached = attached
        self._clock = clock
        self._is_quiet = is_quiet
        self._changed = changed
        self._pace = pace
        self._ready_by = clock.monotonic() + pace.ready_timeout_s
        self._is_draining = False
        self._is_stale = False
        self._wake = asyncio.Event()
        self._random = Random()  # noqa: S311 - jitter, no secret

    @property
    def is_ready(self) -> bool:
        return self.ready_since is not None and not self.failure

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    @is_draining.setter
    def is_draining(self, claim: bool) -> None:
        if claim and not self._is_draining:
            self._wake.set()
        self._is_draining = claim

    @property
    def was_used(self) -> bool:
        """Whether a worker may have been told of it."""
        return self.adopted or self.ready_since is not None

    def reconnect(self) -> None:
        """Connect anew before the next look, which comes at once where it is not ready."""
        self._is_stale = True
        if self.ready_since is None:
            self._wake.set()

    async def run(self) -> None:
        """Until it failed or this is cancelled."""
        self._engine = await self._connected()
        try:
            while not self.failure:
                if self.is_draining:
                    await self._watch_drain()
                elif self.ready_since is None:
                    await self._become_ready()
                else:
                    await self._stay_ready()
        finally:
            await self._engine.aclose()

    async def _connected(self) -> Engine:
        """An engine elsewhere may have a bad address or secret: that can be mended while this waits."""
        attempt = 0
        while True:
            attempt += 1
            self._is_stale = False
            try:
                return self._connect()
            except PilothouseError as exc:
                self.reason = str(exc)
            await self._pause(self._pace.attached_poll.delay_s(attempt, self._random))

    async def _refresh(self) -> None:
        if self._is_stale:
            former, self._engine = self._engine, await self._connected()
            await former.aclose()

    async def _become_ready(self) -> None:
        attempt = 0
        while not self.is_draining:
            attempt += 1
            health = Health(ok=True) if await self._is_working() else await self._health()
            if health.ok:
                self.ready_since = self._clock.monotonic()
                self.reason = ""
                self._changed()
                return
            self.reason = health.reason
            if not self._attached and self._clock.monotonic() >= self._ready_by:
                self._fail(f"no token in time: {health.reason}")
                return
            await self._pause(
                self._pace.attached_poll.delay_s(attempt, self._random)
                if self._attached
                else self._pace.start_poll_s
            )

    async def _is_working(self) -> bool:
        """A replica found running may be too busy for a probe: answering requests proves as much."""
        return self.adopted and await self._look() and self.load.running > 0

    async def _stay_ready(self) -> None:
        misses = 0
        while not self.is_draining:
            await self._pause(self._pace.look_s)
            misses = 0 if await self._look() else misses + 1
            if misses >= SUSPICIOUS_AFTER and self._is_quiet():
                health = await self._health()
                if not health.ok and self._is_quiet():
                    self._lose(health.reason)
                    return
                misses = 0

    async def _watch_drain(self) -> None:
        idle = 0
        while self.is_draining:
            idle = idle + 1 if await self._look() and self._is_idle() else 0
            unused = idle >= IDLE_LOOKS or not self.was_used
            if unused != self.is_unused:
                self.is_unused = unused
                self._changed()
            await asyncio.sleep(self._pace.idle_poll_s)
        self.is_unused = False

    def _is_idle(self) -> bool:
        """An engine elsewhere may be others' too, and busy for ever."""
        if self._attached:
            return self._is_quiet()
        return not (self.load.running or self.load.waiting)

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not past the moment when draining begins or a secret may have mended it."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _look(self) -> bool:
        await self._refresh()
        try:
            async with asyncio.timeout(self._pace.look_deadline_s):
                self.load = await self._engine.load()
        except (PilothouseError, TimeoutError):
            return False
        return True

    async def _health(self) -> Health:
        await self._refresh()
        try:
            async with asyncio.timeout(self._pace.probe_deadline_s + 1):
                return await self._engine.health(deadline_s=self._pace.probe_deadline_s)
        except (PilothouseError, TimeoutError) as exc:
            return Health(ok=False, reason=str(exc) or "it did not answer in time")

    def _lose(self, reason: str) -> None:
        if not self._attached:
            self._fail(f"it answers no more: {reason}")
            return
        self.ready_since, self.reason = None, reason
        self._changed()

    def _fail(self, failure: str) -> None:
        self.failure = failure
        self._changed()
