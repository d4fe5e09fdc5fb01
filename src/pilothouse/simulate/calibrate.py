"""
Fits an engine's speed to one workload that was measured on the real engine.

The simulation itself is the model that is fitted: the four times of an
`EngineModel` are moved until its percentiles are the measured ones. Judge the
result on other workloads than the one it was fitted on.
"""

import math
from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from pilothouse.simulate.run import simulate
from pilothouse.simulate.scenario import EngineModel, Scenario
from pilothouse.simulate.tally import Spread

_TIMES = ("step_ms", "prefill_ms", "decode_ms", "request_ms")
_FIRST_STRIDE, _LAST_STRIDE = 1.0, 0.01
"""Of the logarithm of a time: from a factor of e to one of a hundredth."""
_MOST_ROUNDS = 60
_MOST_REQUEST_MS = 50.0
"""What is outside of steps is small, whatever a coincidence of percentiles says."""


class Measured(Struct, frozen=True, kw_only=True):
    """What the real engine did on the scenario's traffic."""

    ttft: Spread
    tpot: Spread
    latency: Spread


def fit(scenario: Scenario, deployment: str, measured: Measured) -> EngineModel:
    """
    The engine model under which the scenario comes out as it was measured.

    A pattern search: each time is tried larger and smaller, the best of all is taken,
    and the stride is halved when none is better. Deterministic.

    Source: Hooke and Jeeves, "Direct Search" (1961).
    """
    model = scenario.deployments[deployment].engine
    best = distance(scenario, deployment, model, measured)
    stride = _FIRST_STRIDE
    for _ in range(_MOST_ROUNDS):
        tried = [(distance(scenario, deployment, one, measured), one) for one in _around(model, stride)]
        off, nearest = min(tried, key=lambda pair: pair[0])
        if off < best:
            model, best = nearest, off
            continue
        stride /= 2
        if stride < _LAST_STRIDE:
            break
    return model


def distance(scenario: Scenario, deployment: str, model: EngineModel, measured: Measured) -> float:
    """Sum of the squared logarithms of simulated over measured percentiles."""
    deployments = dict(scenario.deployments)
    deployments[deployment] = replace(deployments[deployment], engine=model)
    total = simulate(replace(scenario, deployments=deployments)).total
    off = 0.0
    for found, real in (
        (total.ttft, measured.ttft),
        (total.tpot, measured.tpot),
        (total.latency, measured.latency),
    ):
        if found is None:
            return math.inf
        for name in ("mean_ms", "p50_ms", "p95_ms"):
            off += math.log(max(getattr(found, name), 1e-3) / max(getattr(real, name), 1e-3)) ** 2
    return off


def _around(model: EngineModel, stride: float) -> Iterator[EngineModel]:
    """Neighbours: each time alone, and those of a step together, for a machine that is slower in all."""
    for names in (*((name,) for name in _TIMES), _TIMES[:3]):
        for factor in (math.exp(stride), math.exp(-stride)):
            times = {name: max(getattr(model, name), 1e-3) * factor for name in names}
            if times.get("request_ms", 0.0) <= _MOST_REQUEST_MS:
                yield replace(model, **times)
