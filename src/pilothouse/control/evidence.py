"""
Evidence: what requests and opinions show about rollouts, taken in on the store's thread.

Each record is weighed in the transaction that brings it into the store, so after
a crash none counts twice and none is missed. Answers are judged there as well:
their text is at hand unsealed, and nobody waits for it. A defect of a judge costs
a score, never the record.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from pilothouse.domain.errors import NotFound
from pilothouse.domain.feedback import Feedback
from pilothouse.domain.record import FOUND, InferenceRecord, JournalEntry, Shadowed
from pilothouse.domain.rollout import ANSWERS, FAULTS, Arm, Observation, Rollout, advance, compare, observe
from pilothouse.domain.spec import JudgeSpec, Spec
from pilothouse.kit.clock import Clock
from pilothouse.kit.log import Log
from pilothouse.ports.judge import Judge
from pilothouse.ports.store import UnitOfWork

FEEDBACK_BATCH = 500
LOST_AFTER_S = 3600.0
"""A record that did not come within so long will not: its endpoint keeps none, or its disk was full."""
MOST_FAILURES = 1000
"""Of one deployment, taken in at once."""

MakeJudge = Callable[[str, JudgeSpec], Judge]


class Evidence:
    """
    Args:
        make_judge: From its name and rule.
    """

    def __init__(self, make_judge: MakeJudge, *, clock: Clock, log: Log) -> None:
        self.watched: frozenset[str] = frozenset()
        """Endpoints with a rollout that has not ended: others cost nothing here."""
        self.scores: Counter[tuple[str, str, str, str]] = Counter()
        """How often each judge was content and not, by endpoint and deployment."""
        self._make_judge = make_judge
        self._clock = clock
        self._log = log
        self._judges: dict[str, tuple[Judge, ...]] = {}

    def declare(self, spec: Spec) -> None:
        """These judges score from now on."""
        self._judges = {
            endpoint: tuple(self._make_judge(name, one) for name, one in declared.judges.items())
            for endpoint, declared in spec.endpoints.items()
            if declared.judges
        }

    def take(self, unit: UnitOfWork, entries: Sequence[JournalEntry]) -> None:
        """Records that have just come into the store, within the transaction that brought them."""
        watched, judges = self.watched, self._judges
        active: dict[str, Rollout] = {}
        if watched and any(entry.record.endpoint in watched for entry in entries):
            active = {one.endpoint: one for one in unit.rollouts.active()}
        before = dict(active)
        for entry in entries:
            endpoint = entry.record.endpoint
            asked = judges.get(endpoint, ())
            if entry.shadowed is not None:
                if endpoint in active:
                    active[endpoint] = self._compared(active[endpoint], entry, entry.shadowed, asked)
                continue
            scores = self._counted(entry, asked)
            if endpoint in active:
                active[endpoint] = self._weighed(active[endpoint], entry.record, scores)
        for endpoint, rollout in active.items():
            if rollout is not before[endpoint]:
                unit.rollouts.put(rollout)

    def advance(
        self,
        unit: UnitOfWork,
        states: Mapping[str, tuple[bool, str]],
        *,
        has_feedback: bool,
        retried: Mapping[tuple[str, str], int],
    ) -> tuple[list[Rollout], bool]:
        """
        Take in new feedback and failed attempts, then decide about each rollout.

        Args:
            states: By deployment: whether a replica is ready, and why none is.
            retried: Attempts since the last call that failed and that somebody else answered,
                by endpoint and deployment: their records do not show who failed.

        Returns:
            The rollouts that were active, as they are now; and whether feedback is left.
        """
        now = self._clock.now()
        rollouts = {one.endpoint: one for one in unit.rollouts.active()}
        before = dict(rollouts)
        left = self._take_feedback(unit, rollouts, now) if has_feedback else False
        for (endpoint, deployment), count in retried.items():
            if endpoint in rollouts:
                rollouts[endpoint] = _failed(rollouts[endpoint], deployment, count, now)
        for endpoint, rollout in rollouts.items():
            is_ready, failure = states.get(rollout.candidate, (False, "it is not declared any more"))
            rollouts[endpoint] = advance(rollout, now, is_ready=is_ready, failure=failure)
            if rollouts[endpoint] != before[endpoint]:
                unit.rollouts.put(rollouts[endpoint])
        return list(rollouts.values()), left

    def _weighed(self, rollout: Rollout, record: InferenceRecord, scores: dict[str, float]) -> Rollout:
        arm = _arm(rollout, record)
        if arm is None or record.cache in FOUND or not (record.code == "ok" or record.code in FAULTS):
            return rollout
        return observe(rollout, _observation(arm, record, scores), self._clock.now())

    def _compared(
        self, rollout: Rollout, entry: JournalEntry, shadowed: Shadowed, judges: Sequence[Judge]
    ) -> Rollout:
        """A shadow beside the request that it is the copy of, where the stable one was asked first."""
        record, ours = entry.record, shadowed.record
        if record.deployment != rollout.candidate or ours.time < rollout.started_at:
            return rollout
        if shadowed.is_retried:
            stable = Observation(arm="stable", scores={ANSWERS: 0.0})
        elif ours.deployment == rollout.stable:
            stable = _observation("stable", ours, self._scores(ours, shadowed.answers, judges))
        else:
            return rollout
        answers = entry.content.answers if entry.content else []
        candidate = _observation("candidate", record, self._scores(record, answers, judges))
        return compare(rollout, stable, candidate, self._clock.now())

    def _counted(self, entry: JournalEntry, judges: Sequence[Judge]) -> dict[str, float]:
        record = entry.record
        scores = self._scores(record, entry.content.answers if entry.content else [], judges)
        for name, score in scores.items():
            self.scores[record.endpoint, record.deployment, name, "good" if score >= 0.5 else "bad"] += 1
        return scores

    def _scores(
        self, record: InferenceRecord, answers: Sequence[str], judges: Sequence[Judge]
    ) -> dict[str, float]:
        if record.code != "ok" or not answers or record.cache == "hit":
            return {}
        found: dict[str, float] = {}
        for judge in judges:
            try:
                found[judge.name] = min(judge.score(answer).value for answer in answers)
            except Exception as exc:  # noqa: BLE001 - a judge's defect must not keep records out of the store
                self._log.failure("judge_defect", exc, judge=judge.name, record=record.id)
        return found

    def _take_feedback(self, unit: UnitOfWork, rollouts: dict[str, Rollout], now: float) -> bool:
        waiting = unit.feedback.new(limit=FEEDBACK_BATCH)
        counted, lost = [], []
        for one in waiting:
            try:
                record = unit.records.get(one.record_id)
            except NotFound:
                if now - one.time > LOST_AFTER_S:
                    lost.append(one.id)
                continue
            counted.append(one.id)
            rollout = rollouts.get(record.endpoint)
            if rollout is not None and record.team == one.team and _is_first(unit, one):
                rollouts[record.endpoint] = self._rated(rollout, record, one)
        if counted:
            unit.feedback.settle(counted, "counted")
        if lost:
            unit.feedback.settle(lost, "lost")
        return len(waiting) > len(lost)

    def _rated(self, rollout: Rollout, record: InferenceRecord, feedback: Feedback) -> Rollout:
        arm = _arm(rollout, record)
        if arm is None or feedback.value is None or record.cache in FOUND or record.shadow_of:
            return rollout
        seen = Observation(arm=arm, scores={f"feedback:{feedback.name}": feedback.value})
        return observe(rollout, seen, self._clock.now())


def _observation(arm: Arm, record: InferenceRecord, scores: dict[str, float]) -> Observation:
    ttft_ms = record.ttft_ms if record.streamed else None
    tpot_ms = None
    if ttft_ms is not None and record.output_tokens > 1:
        tpot_ms = (record.duration_ms - ttft_ms) / (record.output_tokens - 1)
    return Observation(
        arm=arm,
        scores={ANSWERS: float(record.code == "ok"), **scores},
        ttft_ms=ttft_ms,
        tpot_ms=tpot_ms,
    )


def _arm(rollout: Rollout, record: InferenceRecord) -> Arm | None:
    return None if record.time < rollout.started_at else _arm_of(rollout, record.deployment)


def _arm_of(rollout: Rollout, deployment: str) -> Arm | None:
    arms: dict[str, Arm] = {rollout.stable: "stable", rollout.candidate: "candidate"}
    return arms.get(deployment)


def _failed(rollout: Rollout, deployment: str, count: int, now: float) -> Rollout:
    arm = _arm_of(rollout, deployment)
    for _ in range(min(count, MOST_FAILURES) if arm else 0):
        rollout = observe(rollout, Observation(arm=arm or "stable", scores={ANSWERS: 0.0}), now)
    return rollout


def _is_first(unit: UnitOfWork, feedback: Feedback) -> bool:
    """One opinion of a kind for each answer: who says it a thousand times has said it once."""
    others = unit.feedback.page(record_id=feedback.record_id, limit=1000)
    return not any(
        one.name == feedback.name
        and one.id != feedback.id
        and (one.time, one.id) < (feedback.time, feedback.id)
        for one in others
    )
