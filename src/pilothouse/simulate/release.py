"""
A rollout in the simulation: production's evidence and steps, over virtual answers.

What an answer is worth comes from the scenario: each deployment's chance to satisfy
a judge. Everything else is `domain.rollout`.
"""

from collections.abc import Callable

from pilothouse.domain import rollout as rollouts
from pilothouse.domain.rollout import Arm, Observation, Rollout, RolloutPolicy
from pilothouse.simulate.scenario import RolloutModel
from pilothouse.simulate.traffic import Request

JUDGE = "quality"


class Release:
    """
    Args:
        routes: Weights by deployment, as declared.
        draw: Gives numbers, 0..1 (1 excluded), even and seeded.
        decided: Told of each step, and of the end.
    """

    def __init__(
        self,
        model: RolloutModel,
        routes: dict[str, int],
        *,
        draw: Callable[[], float],
        decided: Callable[[str, str], None],
    ) -> None:
        self._model = model
        self._routes = routes
        self._draw = draw
        self._decided = decided
        self.rollout: Rollout | None = None

    @property
    def is_over(self) -> bool:
        return self.rollout is not None and not self.rollout.is_active

    def begin(self, now: float) -> None:
        model = self._model
        policy = RolloutPolicy(
            steps=model.steps,
            step_pairs=model.step_pairs,
            margin=model.margin,
            alpha=model.alpha,
            max_pairs=model.max_pairs,
            judges=(JUDGE,) if model.quality else (),
        )
        self.rollout = Rollout(
            id="simulated",
            endpoint="simulated",
            stable=model.stable,
            candidate=model.candidate,
            policy=policy,
            author="simulate",
            started_at=now,
        )

    def answered(self, deployment: str, request: Request, ended: float) -> None:
        arm = self._arm(deployment)
        if arm is None or self.rollout is None:
            return
        scores = {rollouts.ANSWERS: 1.0}
        if self._model.quality:
            scores[JUDGE] = float(self._draw() < self._model.quality.get(deployment, 1.0))
        tpot = (ended - request.first_at) * 1000 / (request.output - 1) if request.output > 1 else None
        seen = Observation(
            arm=arm, scores=scores, ttft_ms=(request.first_at - request.arrived) * 1000, tpot_ms=tpot
        )
        self.rollout = rollouts.observe(self.rollout, seen, ended)

    def failed(self, deployment: str, now: float) -> None:
        arm = self._arm(deployment)
        if arm is not None and self.rollout is not None:
            seen = Observation(arm=arm, scores={rollouts.ANSWERS: 0.0})
            self.rollout = rollouts.observe(self.rollout, seen, now)

    def advance(self, now: float, *, is_ready: bool) -> bool:
        """Decide; whether weights are others now."""
        before = self.rollout
        if before is None or not before.is_active:
            return False
        if before.phase == "promoting":  # in production the spec is edited between the two
            after = rollouts.end(before, "promoted", before.reason, now)
        else:
            after = rollouts.advance(before, now, is_ready=is_ready, failure="")
        self.rollout = after
        if (after.phase, after.step) == (before.phase, before.step):
            return False
        what = f"{after.candidate}: {after.phase}"
        if after.phase == "canary":
            what += f" at {after.weight} %"
        self._decided("rollout", f"{what}{', ' + after.reason if after.reason else ''}")
        return True

    def weights(self) -> dict[str, int]:
        """By deployment; the candidate has none before it begins."""
        model, rollout = self._model, self.rollout
        if rollout is None:
            return {**self._routes, model.candidate: 0}
        if rollout.phase == "promoted":
            return {**self._routes, model.candidate: self._routes[model.stable] or 1, model.stable: 0}
        return rollouts.weights(rollout, self._routes)

    def _arm(self, deployment: str) -> Arm | None:
        if deployment == self._model.candidate:
            return "candidate"
        return "stable" if deployment == self._model.stable else None
