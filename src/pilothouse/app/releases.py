"""Rollouts, judges and feedback put together: what else the controller's parts need to know of them."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pilothouse.adapters.judges.rules import RuleJudge
from pilothouse.control.declarations import Declarations
from pilothouse.control.evidence import Evidence
from pilothouse.control.feedback import FeedbackInbox
from pilothouse.control.gauges import ReleaseFigures
from pilothouse.control.reconcile import Reconciler
from pilothouse.control.rollouts import Change, Rollouts, Surroundings
from pilothouse.control.seals import Seals
from pilothouse.control.store_thread import StoreThread
from pilothouse.control.totals import WorkerTotals
from pilothouse.domain.events import Occurrence
from pilothouse.domain.spec import Spec
from pilothouse.kit.clock import SystemClock
from pilothouse.kit.log import Log
from pilothouse.ports.store import StoredSpec

RETRIES = "pilothouse_retries_total"


@dataclass(kw_only=True)
class Releases:
    evidence: Evidence
    rollouts: Rollouts
    inbox: FeedbackInbox
    reconciler: Reconciler
    _judged: Spec = field(default_factory=Spec)
    """The spec whose judges score now."""

    async def tick(self) -> None:
        """One step of all of it; called again and again."""
        spec = self.reconciler.declared.spec
        if spec is not self._judged:
            self.evidence.declare(spec)
            self._judged = spec
        await self.rollouts.tick()

    def figures(self) -> ReleaseFigures:
        """For the metrics."""
        active = self.rollouts.active.values()
        return ReleaseFigures(
            weights={(one.endpoint, one.candidate): one.weight for one in active},
            scores=dict(self.evidence.scores),
            feedback=dict(self.inbox.counts),
        )


def retries_of(totals: WorkerTotals) -> dict[tuple[str, str], int]:
    """Attempts that failed before another answered, by endpoint and deployment."""
    family = totals.merged().families.get(RETRIES)
    if family is None:
        return {}
    return {(labels[0], labels[1]): int(series.value) for labels, series in family.series.items()}


def build_releases(
    store: StoreThread,
    reconciler: Reconciler,
    declarations: Declarations,
    seals: Seals,
    totals: WorkerTotals,
    *,
    subject_key: bytes,
    happened: Callable[[Occurrence], None],
    log: Log,
) -> Releases:
    """With the deployments of rollouts kept awake."""
    clock = SystemClock()
    evidence = Evidence(RuleJudge, clock=clock, log=log)

    async def edit(change: Change, author: str) -> StoredSpec:
        return await declarations.edit(change, expected_revision=None, author=author)

    rollouts = Rollouts(
        store,
        evidence,
        Surroundings(
            spec=lambda: reconciler.declared.spec,
            edit=edit,
            system=lambda: reconciler.status,
            changed=reconciler.wake,
            retried=lambda: retries_of(totals),
            happened=happened,
        ),
        clock=clock,
        log=log,
    )
    inbox = FeedbackInbox(
        store, seals, subject_key=subject_key, clock=clock, arrived=rollouts.expect_feedback
    )
    reconciler.autoscaler.kept_awake = lambda: rollouts.kept_awake
    return Releases(evidence=evidence, rollouts=rollouts, inbox=inbox, reconciler=reconciler)
