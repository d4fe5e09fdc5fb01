from pilothouse.simulate.calibrate import Measured, distance, fit
from pilothouse.simulate.run import simulate
from pilothouse.simulate.scenario import Arrivals, DeploymentModel, EngineModel, Scenario, TenantModel, Tokens

REAL = EngineModel(step_ms=20, prefill_ms=3, decode_ms=4, request_ms=8)
GUESS = EngineModel(step_ms=10, prefill_ms=8, decode_ms=8, request_ms=5)


def scenario(engine: EngineModel, **changes: float) -> Scenario:
    tenant = TenantModel(
        arrivals=Arrivals(rate=changes.get("rate", 1.0)),
        prompt=Tokens(mean=int(changes.get("prompt", 80)), spread=0.5),
        output=Tokens(mean=30, spread=0.5),
    )
    return Scenario(duration="60s", deployments={"x": DeploymentModel(engine=engine)}, tenants={"t": tenant})


def test_a_fit_on_one_workload_tells_another() -> None:
    total = simulate(scenario(REAL)).total
    assert total.ttft
    assert total.tpot
    assert total.latency
    measured = Measured(ttft=total.ttft, tpot=total.tpot, latency=total.latency)

    fitted = fit(scenario(GUESS), "x", measured)

    assert distance(scenario(GUESS), "x", fitted, measured) < 0.01
    real, told = (simulate(scenario(one, rate=0.4, prompt=200)).total.ttft for one in (REAL, fitted))
    assert real
    assert told
    assert abs(told.p50_ms / real.p50_ms - 1) < 0.15
    assert abs(told.p95_ms / real.p95_ms - 1) < 0.15
