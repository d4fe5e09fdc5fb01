"""What is simulated: the shapes of a scenario file. Unknown fields are refused; times are like `30s`."""

from typing import Literal

from msgspec import Struct, field

from pilothouse.domain.balance import Balance
from pilothouse.domain.duration import parse_duration_s
from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.fairness import Priority
from pilothouse.domain.spec import ReplicaRange

MOST_REQUESTS = 10_000_000


class EngineModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    How fast an engine is: one step computes a batch, a token of each answer and the rest of prompts.

    A step takes `step_ms + prefill_ms x prompt tokens + decode_ms x answers`. Measure
    the three on your engine: `bench/simulate.py` shows how.
    """

    slots: int = 4
    """Requests answered at once."""
    batch_tokens: int = 64
    """The most tokens of a step."""
    step_ms: float = 10.0
    """A step of no tokens: what is paid however few there are."""
    prefill_ms: float = 8.0
    """For each token of a prompt."""
    decode_ms: float = 8.0
    """For each answer that is being written."""
    reads: Literal["by_arrival", "by_slot"] = "by_arrival"
    """Whose prompt is read first of those that wait; llama.cpp goes by the number of their slot, and gives
    the slot that was unused for longest."""
    request_ms: float = 5.0
    """Before the first step and outside of all steps: HTTP, the template, the tokens."""
    start: str = "3s"
    """From the decision to the first token, for a new replica."""
    prefixes: int = 0
    """Shared prefixes that one replica keeps; 0 keeps none."""


class DeploymentModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    engine: EngineModel = EngineModel()
    replicas: ReplicaRange = ReplicaRange()
    """As in a spec file: the production rule scales between `min` and `max`."""
    weight: int = 100
    """Of its route."""
    hardware: str = ""
    """Its name in the prices file; empty costs nothing that is known."""


class Tokens(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number of tokens: lognormal about its mean."""

    mean: int
    spread: float = 0.0
    """Standard deviation over the mean; 0 is always the mean."""
    most: int = 32_768


class Arrivals(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When requests come; a rate is per second."""

    kind: Literal["poisson", "bursty", "diurnal"] = "poisson"
    rate: float
    burst_rate: float = 0.0
    """`bursty`: the rate while a burst lasts."""
    burst: str = "10s"
    every: str = "60s"
    """`bursty`: from the beginning of one burst to that of the next."""
    swing: float = 0.8
    """`diurnal`: 0..1; the rate goes from 1 - swing to 1 + swing times `rate` and back."""
    period: str = "24h"


class Prefixes(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Beginnings that prompts share, such as system prompts; all equally often."""

    count: int = 1
    tokens: int = 0
    """Of the prompt, this many come first and are the same."""


class TenantModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    arrivals: Arrivals
    prompt: Tokens = Tokens(mean=200, spread=0.5)
    output: Tokens = Tokens(mean=100, spread=0.5)
    prefix: Prefixes = Prefixes()
    weight: float = 1.0
    """Its share when places are short."""
    priority: Priority = "normal"


class Failure(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong, with the replicas that are there at that moment."""

    at: str
    deployment: str
    kind: Literal["crash", "errors", "slow"] = "crash"
    replicas: int = 1
    """How many of them."""
    lasts: str = "30s"
    """`errors` and `slow`; a crashed replica starts anew by itself."""
    ratio: float = 1.0
    """`errors`: the share of requests that fail."""
    factor: float = 3.0
    """`slow`: so many times slower."""


class RolloutModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new version, let in by the production rule."""

    stable: str
    candidate: str
    starts: str = "10s"
    quality: dict[str, float] = field(default_factory=dict)
    """By deployment: 0..1, how often an answer satisfies the judge; empty has no judge."""
    steps: tuple[int, ...] = (5, 25, 50)
    step_pairs: int = 50
    margin: float = 0.02
    alpha: float = 0.01
    max_pairs: int = 10_000


class Objectives(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    ttft_p95: str = "2s"
    success: float = 0.995
    """Share of requests that must be answered."""


class Scenario(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Literal[1] = 1
    duration: str = "10m"
    """Of the traffic; what is under way then is answered."""
    seed: int = 1
    most_requests: int = 1_000_000
    """Then the traffic ends, whatever the duration."""
    balance: Balance = "least_load"
    queue_size: int = 64
    timeout: str = "60s"
    retries: int = 1
    """The most times one request is sent again elsewhere."""
    slo: Objectives = Objectives()
    deployments: dict[str, DeploymentModel]
    tenants: dict[str, TenantModel]
    failures: list[Failure] = field(default_factory=list)
    rollout: RolloutModel | None = None


def check(scenario: Scenario) -> None:
    """
    Raises:
        InvalidRequest: Names the field and its fault.
    """
    if not scenario.deployments or not scenario.tenants:
        raise InvalidRequest("a scenario needs at least one of deployments and one of tenants")
    if not 0 < scenario.most_requests <= MOST_REQUESTS:
        raise InvalidRequest(f"most_requests must be from 1 to {MOST_REQUESTS}")
    for name, text in (("duration", scenario.duration), ("timeout", scenario.timeout)):
        seconds(text, name)
    seconds(scenario.slo.ttft_p95, "slo.ttft_p95")
    for name, deployment in scenario.deployments.items():
        _check_deployment(f"deployments.{name}", deployment)
    for name, tenant in scenario.tenants.items():
        _check_tenant(f"tenants.{name}", tenant)
    for number, failure in enumerate(scenario.failures):
        where = f"failures[{number}]"
        if failure.deployment not in scenario.deployments:
            raise InvalidRequest(f"{where}.deployment {failure.deployment!r} is not one of deployments")
        seconds(failure.at, f"{where}.at")
        seconds(failure.lasts, f"{where}.lasts")
        if not 0 <= failure.ratio <= 1 or failure.factor <= 0 or failure.replicas < 1:
            raise InvalidRequest(f"{where}: ratio is 0..1, factor above 0, replicas 1 or more")

    if scenario.rollout is not None:
        _check_rollout(scenario.rollout, scenario)


def _check_rollout(rollout: RolloutModel, scenario: Scenario) -> None:
    seconds(rollout.starts, "rollout.starts")
    for name in (rollout.stable, rollout.candidate, *rollout.quality):
        if name not in scenario.deployments:
            raise InvalidRequest(f"rollout: {name!r} is not one of deployments")
    if rollout.stable == rollout.candidate:
        raise InvalidRequest("rollout: stable and candidate must be two deployments")
    if not all(0 <= share <= 1 for share in rollout.quality.values()):
        raise InvalidRequest("rollout.quality must be 0..1")
    if not rollout.steps or not all(0 < step <= 100 for step in rollout.steps):
        raise InvalidRequest("rollout.steps are per cents, above 0")
    if (
        not 0 < rollout.margin < 1
        or not 0 < rollout.alpha < 1
        or min(rollout.step_pairs, rollout.max_pairs) < 1
    ):
        raise InvalidRequest("rollout: margin and alpha are between 0 and 1, pairs 1 or more")


def _check_deployment(where: str, deployment: DeploymentModel) -> None:
    engine, replicas = deployment.engine, deployment.replicas
    seconds(engine.start, f"{where}.engine.start")
    if not 0 < engine.slots <= engine.batch_tokens:
        raise InvalidRequest(f"{where}.engine: slots must be from 1 to batch_tokens")
    if min(engine.step_ms, engine.prefill_ms, engine.decode_ms, engine.request_ms) < 0 or not (
        engine.step_ms > 0 or (engine.prefill_ms > 0 and engine.decode_ms > 0)
    ):
        raise InvalidRequest(f"{where}.engine: times must be 0 or more, and a step must take some")
    if not 0 <= replicas.min <= replicas.max <= 100_000 or not replicas.max:
        raise InvalidRequest(f"{where}.replicas: min must be from 0 to max, and max at most 100000")
    if deployment.weight < 0:
        raise InvalidRequest(f"{where}.weight must be 0 or more")


def _check_tenant(where: str, tenant: TenantModel) -> None:
    arrivals = tenant.arrivals
    seconds(arrivals.burst, f"{where}.arrivals.burst")
    seconds(arrivals.every, f"{where}.arrivals.every")
    seconds(arrivals.period, f"{where}.arrivals.period")
    if not 0 < arrivals.rate <= 1e6 or not 0 <= arrivals.burst_rate <= 1e6 or not 0 <= arrivals.swing <= 1:
        raise InvalidRequest(f"{where}.arrivals: rates are per second and above 0, swing is 0..1")
    for name, tokens in (("prompt", tenant.prompt), ("output", tenant.output)):
        if not 0 < tokens.mean <= tokens.most or not 0 <= tokens.spread <= 10:
            raise InvalidRequest(f"{where}.{name}: mean must be from 1 to most, spread 0..10")
    if tenant.weight <= 0 or tenant.prefix.count < 1 or tenant.prefix.tokens < 0:
        raise InvalidRequest(f"{where}: weight must be above 0, prefix.count 1 or more")


def seconds(text: str, param: str) -> float:
    """
    Raises:
        InvalidRequest: No duration, or `never`, which is none here.
    """
    found = parse_duration_s(text, param=param)
    if found is None:
        raise InvalidRequest(f"{param}: a scenario needs a time here, such as 30s", param=param)
    return found
