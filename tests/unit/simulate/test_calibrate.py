from itertools import takewhile
from random import Random

from pilothouse.simulate.calibrate import Answered, distance, fit
from pilothouse.simulate.replica import VirtualReplica
from pilothouse.simulate.run import simulate
from pilothouse.simulate.scenario import Arrivals, DeploymentModel, EngineModel, Scenario, TenantModel, Tokens
from pilothouse.simulate.traffic import requests_of

REAL = EngineModel(slots=32, step_ms=20, prefill_ms=3, decode_ms=4, request_ms=8)
GUESS = EngineModel(slots=32, step_ms=10, prefill_ms=8, decode_ms=8, request_ms=5)


def tenant(rate: float = 1.0, prompt: int = 80) -> TenantModel:
    return TenantModel(
        arrivals=Arrivals(rate=rate),
        prompt=Tokens(mean=prompt, spread=0.5),
        output=Tokens(mean=30, spread=0.5),
    )


def answered_by(model: EngineModel, seed: int = 1) -> list[Answered]:
    """A minute on an engine that is as the model says, and that everybody reaches at once."""
    replica = VirtualReplica("real", 0, model, 0.0)
    asked = list(takewhile(lambda r: r.arrived < 60, requests_of("t", 0, tenant(), Random(seed))))
    ended = {}
    for request in [*asked, None]:
        while (at := replica.due()) <= (request.arrived if request else 1e9):
            ended.update(dict.fromkeys(replica.happened(at)[1], at + replica.request_s))
        if request:
            replica.begin(request, 0, request.arrived)
    return [
        Answered(began=r.arrived, prompt=r.prompt, output=r.output, first=r.first_at, ended=ended[r])
        for r in asked
    ]


def test_a_fit_on_one_workload_tells_another() -> None:
    plays = [answered_by(REAL)]

    fitted = fit(plays, GUESS)

    assert distance(plays, fitted) < 0.02
    scenarios = [
        Scenario(
            duration="60s",
            deployments={"x": DeploymentModel(engine=engine)},
            tenants={"t": tenant(rate=0.4, prompt=200)},
        )
        for engine in (REAL, fitted)
    ]
    real, told = (simulate(one).total.ttft for one in scenarios)
    assert real
    assert told
    assert abs(told.p50_ms / real.p50_ms - 1) < 0.05
    assert abs(told.p95_ms / real.p95_ms - 1) < 0.05


def test_a_fit_tells_a_token_of_a_prompt_from_one_of_an_answer() -> None:
    fitted = fit([answered_by(REAL)], GUESS)

    assert abs(fitted.prefill_ms / REAL.prefill_ms - 1) < 0.1
    alone, real = (one.step_ms + one.decode_ms for one in (fitted, REAL))
    assert abs(alone / real - 1) < 0.1


def test_a_play_that_was_disturbed_moves_little() -> None:
    slow = EngineModel(slots=32, step_ms=40, prefill_ms=6, decode_ms=8, request_ms=16)

    fitted = fit([answered_by(REAL), answered_by(slow, 2), answered_by(REAL, 3)], GUESS)

    assert abs(fitted.prefill_ms / REAL.prefill_ms - 1) < 0.1
