"""
Who holds which slots: the controller's memory of the leases it gave out.

The arithmetic is `domain.lease`. After a restart this memory is empty while the
workers go on using what they have, so the slots of replicas that were found
running are first only confirmed to those who claim them, and granted anew when
all workers came back, or had time to.
"""

import math
from collections.abc import Collection, Iterable

from pilothouse.domain.lease import grant, share
from pilothouse.domain.snapshot import WorkerHello, WorkerReport
from pilothouse.kit.clock import Clock

PATIENCE_S = 2.0
"""For workers to come back: ten times their longest pause between attempts to connect."""


class SlotLeases:
    """
    Args:
        workers: How many workers this machine is to run: the share of each counts on all of them.
    """

    def __init__(self, workers: int, clock: Clock, *, patience_s: float = PATIENCE_S) -> None:
        self._expected = workers
        self._clock = clock
        self._patience_s = patience_s
        self._settled_at = math.inf
        self._adopted: frozenset[str] = frozenset()
        self._workers: set[str] = set()
        self._came: set[int] = set()
        self._leaving: set[str] = set()
        self._held: dict[str, dict[str, tuple[int, ...]]] = {}

    @property
    def is_settled(self) -> bool:
        """Whether slots of adopted replicas are granted anew by now."""
        return not self._adopted or self._clock.monotonic() >= self._settled_at

    def open(self) -> None:
        """From now on workers can come: those of an earlier controller have their time to do so."""
        self._settled_at = min(self._settled_at, self._clock.monotonic() + self._patience_s)

    def settle(self, alive: Collection[int]) -> bool:
        """`is_settled`, which needs no more patience when all worker processes that live have come back."""
        if self._came.issuperset(alive):
            self._settled_at = min(self._settled_at, self._clock.monotonic())
        return self.is_settled

    def adopt(self, replicas: Iterable[str]) -> None:
        """These ran before this controller did: somebody may hold their slots."""
        self._adopted = frozenset(replicas)

    def enter(self, hello: WorkerHello) -> None:
        """A worker that connects, with its claims."""
        self._came.add(hello.pid)
        if hello.worker in self._workers:
            return
        self._workers.add(hello.worker)
        for replica, claimed in hello.slots.items():
            held = self._held.setdefault(replica, {})
            total = max(claimed, default=-1) + 1  # the replica may not be known yet
            held[hello.worker] = grant(total, held, worker=hello.worker, claimed=claimed, size=0)

    def hear(self, report: WorkerReport) -> bool:
        """True when a worker that is leaving gave slots up: others may have them."""
        if not report.is_leaving or report.worker not in self._workers:
            return False
        changed = report.worker not in self._leaving
        self._leaving.add(report.worker)
        for replica, held in self._held.items():
            before = held.get(report.worker, ())
            kept = tuple(slot for slot in before if slot in report.slots.get(replica, ()))
            if kept != before:
                held[report.worker] = kept
                changed = True
        return changed

    def leave(self, worker: str) -> None:
        """A worker that is gone: its slots are free."""
        self._workers.discard(worker)
        self._leaving.discard(worker)
        for held in self._held.values():
            held.pop(worker, None)

    def keep_only(self, replicas: Iterable[str]) -> None:
        """Forget replicas that do not run any more."""
        kept = frozenset(replicas)
        self._held = {name: held for name, held in self._held.items() if name in kept}
        self._adopted &= kept

    def slots(self, worker: str, replica: str, total: int) -> tuple[int, ...]:
        """The slots of `replica` that `worker` has from now on."""
        held = self._held.setdefault(replica, {})
        size = self._share(worker, total)
        if replica in self._adopted and not self.is_settled:
            size = 0  # what was claimed is kept all the same
        granted = grant(total, held, worker=worker, size=size)
        held[worker] = granted
        return granted

    def part(self, worker: str, total: int) -> int:
        """
        How many of `total` requests at once are for `worker`, where the engine has no slots.

        Each gets one at least. One that is leaving keeps all, for those who wait in it.
        """
        return total if worker in self._leaving else max(1, self._share(worker, total))

    def _share(self, worker: str, total: int) -> int:
        if worker in self._leaving:
            return 0
        known = sorted({*self._workers, worker} - self._leaving)
        return share(total, max(self._expected, len(known)), known.index(worker))
