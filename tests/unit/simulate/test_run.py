"""The simulation takes production's decisions: when one is changed, so is what comes of it."""

from collections.abc import Sequence
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.domain import breaker, fairness, rollout, routing, scaling
from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.prices import Prices
from pilothouse.domain.spec import ReplicaRange
from pilothouse.simulate.run import simulate
from pilothouse.simulate.scenario import (
    Arrivals,
    DeploymentModel,
    EngineModel,
    Failure,
    Prefixes,
    RolloutModel,
    Scenario,
    TenantModel,
    Tokens,
)

FAST = EngineModel(slots=4, step_ms=5, prefill_ms=0.2, decode_ms=1, start="3s")


def tenant(rate: float, **changes: Any) -> TenantModel:
    return TenantModel(
        **{
            "arrivals": Arrivals(rate=rate),
            "prompt": Tokens(mean=100, spread=0.5),
            "output": Tokens(mean=50, spread=0.5),
            **changes,
        }
    )


def scenario(
    *, replicas: ReplicaRange | None = None, engine: EngineModel = FAST, hardware: str = "", **changes: Any
) -> Scenario:
    deployment = DeploymentModel(
        replicas=replicas or ReplicaRange(min=4, max=4), engine=engine, hardware=hardware
    )
    return Scenario(
        **{
            "duration": "60s",
            "deployments": {"main": deployment},
            "tenants": {"a": tenant(20.0)},
            **changes,
        }
    )


def test_a_seed_is_a_run() -> None:
    one, again, other = simulate(scenario(seed=7)), simulate(scenario(seed=7)), simulate(scenario(seed=8))

    assert one == again
    assert one.total != other.total


def test_traffic_that_fits_meets_its_objectives() -> None:
    outcome = simulate(scenario())

    assert all(outcome.met.values())
    assert outcome.total.ok == outcome.total.requests > 1000


def test_taking_the_most_loaded_replica_makes_answers_late(monkeypatch: pytest.MonkeyPatch) -> None:
    before = simulate(scenario())

    def most_load(replicas: Sequence[Any], draw: float) -> Any:
        return max((one for one in replicas if one.free > 0), key=lambda one: one.load, default=None)

    monkeypatch.setattr(routing, "least_load", most_load)
    after = simulate(scenario())

    assert before.total.latency is not None
    assert after.total.latency is not None
    assert after.total.latency.p95_ms > 1.1 * before.total.latency.p95_ms


def test_a_scaling_rule_that_never_grows_misses_the_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    growing = scenario(replicas=ReplicaRange(min=1, max=8), duration="180s", tenants={"a": tenant(40.0)})
    before = simulate(growing)

    monkeypatch.setattr(scaling, "scale", lambda rule, state, signals, now: state)
    after = simulate(growing)

    assert before.deployments[0].most_replicas > 1
    assert before.decision_counts["scale"] >= 1
    assert after.deployments[0].most_replicas == 1
    assert after.total.ok < before.total.ok


def test_without_turns_the_tenant_that_floods_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    flooded = scenario(
        replicas=ReplicaRange(min=1, max=1), tenants={"flood": tenant(60.0), "quiet": tenant(2.0)}
    )
    before = {group.name: group for group in simulate(flooded).tenants}

    class Line(fairness.FairQueue[Any]):
        """First come, first served: everybody is one tenant."""

        def push(self, tenant: str, item: Any, **terms: Any) -> None:
            super().push("all", item)

        def yield_to(self, tenant: str, priority: Any, **terms: Any) -> Any:
            return None

        def remove(self, tenant: str, item: Any) -> bool:
            return super().remove("all", item)

    monkeypatch.setattr(fairness, "FairQueue", Line)
    after = {group.name: group for group in simulate(flooded).tenants}

    assert before["quiet"].success > 0.95
    assert after["quiet"].success < 0.7


def test_a_breaker_that_never_ejects_lets_a_broken_replica_fail_on(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = scenario(failures=[Failure(at="5s", deployment="main", kind="errors", lasts="40s")], retries=0)
    before = simulate(broken)

    monkeypatch.setattr(breaker, "after_failure", lambda health, team, now: health)
    after = simulate(broken)

    assert before.decision_counts["eject"] >= 1
    assert after.total.codes["upstream_error"] > 5 * before.total.codes["upstream_error"]


def test_affinity_finds_prefixes_that_chance_does_not() -> None:
    keeps = EngineModel(slots=4, step_ms=5, prefill_ms=1, decode_ms=1, prefixes=4)
    shared = {
        "engine": keeps,
        "replicas": ReplicaRange(min=8, max=8),
        "tenants": {"a": tenant(8.0, prefix=Prefixes(count=24, tokens=400))},
    }

    by = {b: simulate(scenario(balance=b, **shared)).total.ttft for b in ("least_load", "prefix_affinity")}

    assert by["prefix_affinity"] is not None
    assert by["least_load"] is not None
    assert by["prefix_affinity"].mean_ms < 0.8 * by["least_load"].mean_ms


def test_a_crash_is_retried_elsewhere_and_repaired() -> None:
    outcome = simulate(scenario(failures=[Failure(at="10s", deployment="main", replicas=2)]))

    assert outcome.decision_counts["crash"] == 2
    assert outcome.total.success > 0.98
    assert outcome.deployments[0].most_replicas == 4


def test_what_sleeps_is_woken_and_those_who_waited_are_answered() -> None:
    sleeping = scenario(replicas=ReplicaRange(min=0, max=2), tenants={"a": tenant(1.0)}, queue_size=64)

    outcome = simulate(sleeping)

    assert outcome.total.success == 1.0
    assert outcome.decisions[0].kind == "scale"
    assert "woken" in outcome.decisions[0].what


def test_money_needs_a_price() -> None:
    prices = Prices(as_of=date(2026, 11, 1), usd_per_hour={"box": 3.6})

    free, unknown = simulate(scenario()), simulate(scenario(hardware="other"), prices=prices)
    priced = simulate(scenario(hardware="box"), prices=prices)

    assert free.micro_usd is None
    assert unknown.micro_usd is None
    hours = priced.deployments[0].replica_hours
    assert priced.micro_usd == pytest.approx(3_600_000 * hours, rel=0.01)
    assert hours == pytest.approx(4 * priced.simulated_s / 3600, rel=0.01)


def test_routes_share_by_weight() -> None:
    def share(weight: int) -> dict[str, float]:
        parts = {
            "one": DeploymentModel(weight=100, engine=FAST),
            "two": DeploymentModel(weight=weight, engine=FAST),
        }
        outcome = simulate(scenario(deployments=parts, tenants={"a": tenant(4.0)}))
        return {"most": outcome.total.success}

    assert share(0)["most"] == share(100)["most"] == 1.0


def released(quality: float, **changes: Any) -> Scenario:
    parts = {
        name: DeploymentModel(engine=FAST, replicas=ReplicaRange(min=2, max=2)) for name in ("old", "new")
    }
    model = RolloutModel(
        stable="old",
        candidate="new",
        quality={"old": 0.9, "new": quality},
        margin=0.1,
        step_pairs=20,
        **changes,
    )
    return scenario(deployments=parts, tenants={"a": tenant(15.0)}, duration="300s", rollout=model)


def ending(outcome: Any) -> str:
    return [decision.what for decision in outcome.decisions if decision.kind == "rollout"][-1]


def test_a_worse_version_is_rolled_back_and_an_equal_one_promoted() -> None:
    assert "rolled_back" in ending(simulate(released(0.4)))
    assert "promoted" in ending(simulate(released(0.9)))


def test_evidence_that_is_ignored_lets_a_worse_version_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "verdict", lambda *_, **__: "promote")

    assert "promoted" in ending(simulate(released(0.4)))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"tenants": {}}, "tenants"),
        ({"duration": "never"}, "duration"),
        ({"most_requests": 0}, "most_requests"),
        ({"engine": EngineModel(slots=0)}, r"deployments\.main\.engine"),
        ({"engine": EngineModel(step_ms=0, decode_ms=0)}, r"deployments\.main\.engine"),
        ({"replicas": ReplicaRange(min=3, max=2)}, r"deployments\.main\.replicas"),
        ({"tenants": {"a": tenant(0.0)}}, r"tenants\.a\.arrivals"),
        ({"tenants": {"a": tenant(1.0, output=Tokens(mean=0))}}, r"tenants\.a\.output"),
        ({"rollout": RolloutModel(stable="main", candidate="x")}, "rollout: 'x'"),
        ({"rollout": RolloutModel(stable="main", candidate="main")}, "two deployments"),
        ({"failures": [Failure(at="1s", deployment="nope")]}, r"failures\[0\]\.deployment"),
        ({"failures": [Failure(at="1s", deployment="main", ratio=2)]}, r"failures\[0\]"),
    ],
)
def test_a_scenario_that_is_not_sound_is_refused_by_field(changes: dict[str, Any], names: str) -> None:
    with pytest.raises(InvalidRequest, match=names):
        simulate(scenario(**changes))


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 1000),
    rate=st.floats(0.5, 60),
    replicas=st.integers(1, 4),
    queue=st.integers(0, 20),
    balance=st.sampled_from(["least_load", "round_robin", "prefix_affinity"]),
    kind=st.sampled_from(["crash", "errors", "slow"]),
)
def test_every_request_ends_exactly_once(
    seed: int, rate: float, replicas: int, queue: int, balance: Any, kind: Any
) -> None:
    outcome = simulate(
        scenario(
            seed=seed,
            duration="10s",
            timeout="5s",
            most_requests=300,
            queue_size=queue,
            balance=balance,
            replicas=ReplicaRange(min=replicas, max=4),
            tenants={
                "a": tenant(rate, prefix=Prefixes(count=3, tokens=20)),
                "b": tenant(1.0, priority="low"),
            },
            failures=[Failure(at="2s", deployment="main", kind=kind, lasts="3s", ratio=0.7)],
        )
    )

    again = simulate(scenario(seed=seed, duration="10s", timeout="5s", most_requests=300,
        queue_size=queue, balance=balance, replicas=ReplicaRange(min=4, max=4),
        tenants={"a": tenant(rate, prefix=Prefixes(count=3, tokens=20)), "b": tenant(1.0, priority="low")},
    ))  # fmt: skip
    # The traffic does not depend on what is done with it.
    assert outcome.total.requests == again.total.requests == sum(outcome.total.codes.values())
