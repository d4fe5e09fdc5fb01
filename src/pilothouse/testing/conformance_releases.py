"""What every store does with rollouts and feedback. Part of `conformance_store`."""

from msgspec.structs import replace

from pilothouse.domain.feedback import Feedback
from pilothouse.domain.rollout import Observation, Rollout, RolloutPolicy, advance, end, observe
from pilothouse.ports.store import Store


def make_rollout(rollout_id: str, *, endpoint: str = "chat", started_at: float = 1.0) -> Rollout:
    return Rollout(
        id=rollout_id,
        endpoint=endpoint,
        stable="old",
        candidate="new",
        policy=RolloutPolicy(),
        author="k1",
        started_at=started_at,
    )


def make_feedback(feedback_id: str, *, time: float = 1.0, **changes: object) -> Feedback:
    made = Feedback(
        id=feedback_id, team="red", record_id="req_1", name="thumbs", kind="bool", value=1.0, time=time
    )
    return replace(made, **changes)


class ReleasesConformance:
    def test_a_rollout_comes_back_as_it_was(self, store: Store) -> None:
        rollout = advance(make_rollout("r1"), 2.0, is_ready=True, failure="")
        for arm in ("stable", "candidate", "stable"):
            seen = Observation(arm=arm, scores={"answers": 0.25}, ttft_ms=5.0)
            rollout = observe(rollout, seen, 3.0)
        with store.unit() as unit:
            unit.rollouts.put(make_rollout("r1"))
            unit.rollouts.put(rollout)
        with store.unit() as unit:
            assert unit.rollouts.newest("chat") == rollout

    def test_only_what_has_not_ended_is_active(self, store: Store) -> None:
        with store.unit() as unit:
            unit.rollouts.put(end(make_rollout("r1"), "aborted", "by hand", 2.0))
            unit.rollouts.put(make_rollout("r2", endpoint="b", started_at=3.0))
            unit.rollouts.put(make_rollout("r3", endpoint="a", started_at=2.0))
        with store.unit() as unit:
            assert [one.id for one in unit.rollouts.active()] == ["r3", "r2"]
            assert [one.id for one in unit.rollouts.all()] == ["r2", "r3", "r1"]
            assert [one.id for one in unit.rollouts.all(limit=1)] == ["r2"]
            assert unit.rollouts.newest("none") is None

    def test_feedback_is_added_and_never_overwritten(self, store: Store) -> None:
        with store.unit() as unit:
            unit.feedback.add(make_feedback("f1"))
            unit.feedback.add(make_feedback("f2", value=0.0, time=2.0))
        with store.unit() as unit:
            assert [one.value for one in unit.feedback.page(limit=10)] == [0.0, 1.0]
            assert [one.id for one in unit.feedback.page(limit=1)] == ["f2"]

    def test_the_same_key_of_a_team_is_the_same_feedback(self, store: Store) -> None:
        first = make_feedback("f1", idempotency_key="k")
        with store.unit() as unit:
            assert unit.feedback.add(first) == first
            assert unit.feedback.add(make_feedback("f2", idempotency_key="k", value=0.0)) == first
            other = make_feedback("f3", idempotency_key="k", team="blue")
            assert unit.feedback.add(other) == other
        with store.unit() as unit:
            assert unit.feedback.page(team="red", limit=10) == [first]
            assert unit.feedback.page(team="blue", record_id="req_1", limit=10) == [other]
            assert unit.feedback.page(record_id="req_2", limit=10) == []

    def test_what_was_taken_into_account_is_not_new(self, store: Store) -> None:
        with store.unit() as unit:
            for number in range(3):
                unit.feedback.add(make_feedback(f"f{number}", time=float(number)))
            assert [one.id for one in unit.feedback.new(limit=2)] == ["f0", "f1"]
            unit.feedback.settle(["f0"], "counted")
            unit.feedback.settle(["f2"], "lost")
        with store.unit() as unit:
            assert [one.id for one in unit.feedback.new(limit=5)] == ["f1"]
            assert [one.state for one in unit.feedback.page(limit=5)] == ["lost", "new", "counted"]

    def test_old_feedback_is_forgotten_a_part_at_a_time(self, store: Store) -> None:
        with store.unit() as unit:
            for number in range(3):
                unit.feedback.add(make_feedback(f"f{number}", time=float(number), sealed=b"x"))
            assert unit.feedback.forget(2.0, limit=1) == 1
            assert unit.feedback.forget(2.0, limit=5) == 1
            assert [one.id for one in unit.feedback.page(limit=5)] == ["f2"]
