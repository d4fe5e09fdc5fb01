"""What came of a simulation: counts, percentiles, objectives, cost, decisions."""

from array import array
from collections import Counter
from collections.abc import Sequence

from msgspec import Struct, field

from pilothouse.domain.prices import Prices
from pilothouse.simulate.scenario import Scenario, seconds
from pilothouse.simulate.traffic import Request

KEPT_DECISIONS = 1000
OK = "ok"


class Decision(Struct, frozen=True):
    at_s: float
    kind: str
    """`scale`, `eject`, `readmit`, `crash`"""
    what: str


class Spread(Struct, frozen=True, kw_only=True):
    """Of the nearest rank, in milliseconds."""

    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


class Group(Struct, frozen=True, kw_only=True):
    """One tenant, or all of them."""

    name: str
    requests: int
    ok: int
    codes: dict[str, int]
    success: float
    within_ttft: float
    """Of all requests, those whose first token came within the objective."""
    ttft: Spread | None
    latency: Spread | None
    tpot: Spread | None
    output_tokens: int


class Cost(Struct, frozen=True, kw_only=True):
    deployment: str
    replica_hours: float
    most_replicas: int
    micro_usd: int | None
    """None: no price was given for its hardware."""


class Outcome(Struct, frozen=True, kw_only=True):
    seed: int
    simulated_s: float
    total: Group
    tenants: list[Group]
    requests_per_s: float
    output_tokens_per_s: float
    met: dict[str, bool]
    """Each objective, and whether it was met."""
    deployments: list[Cost]
    micro_usd: int | None
    micro_usd_per_million_tokens: int | None
    decision_counts: dict[str, int]
    decisions: list[Decision]
    """The first ones; `decision_counts` counts all."""


class _Sums:
    """What is added up for one tenant while events happen."""

    __slots__ = ("codes", "latency", "tokens", "tpot", "ttft")

    def __init__(self) -> None:
        self.codes: Counter[str] = Counter()
        self.ttft = array("d")
        self.latency = array("d")
        self.tpot = array("d")
        self.tokens = 0


class Tally(Struct, kw_only=True):
    scenario: Scenario
    sums: dict[str, _Sums] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    decision_counts: Counter[str] = field(default_factory=Counter)
    last_s: float = 0.0

    def answered(self, request: Request, now: float) -> None:
        sums = self._of(request.team)
        sums.codes[OK] += 1
        sums.ttft.append(request.first_at - request.arrived)
        sums.latency.append(now - request.arrived)
        if request.output > 1:
            sums.tpot.append((now - request.first_at) / (request.output - 1))
        sums.tokens += request.output
        self.last_s = max(self.last_s, now)

    def refused(self, request: Request, code: str, now: float) -> None:
        self._of(request.team).codes[code] += 1
        self.last_s = max(self.last_s, now)

    def decided(self, now: float, kind: str, what: str) -> None:
        self.decision_counts[kind] += 1
        if len(self.decisions) < KEPT_DECISIONS:
            self.decisions.append(Decision(round(now, 3), kind, what))

    def outcome(self, replica_hours: dict[str, tuple[float, int]], *, prices: Prices | None) -> Outcome:
        """
        Args:
            replica_hours: By deployment: hours of all its replicas, and the most there were.
        """
        slo = self.scenario.slo
        bound = seconds(slo.ttft_p95, "slo.ttft_p95")
        total = _group("all", list(self.sums.values()), bound)
        costs = [self._cost(name, *hours, prices) for name, hours in replica_hours.items()]
        known = [cost.micro_usd for cost in costs if cost.micro_usd is not None]
        micro_usd = sum(known) if known and len(known) == len(costs) else None
        tokens = total.output_tokens
        return Outcome(
            seed=self.scenario.seed,
            simulated_s=round(self.last_s, 3),
            total=total,
            tenants=[_group(name, [sums], bound) for name, sums in self.sums.items()],
            requests_per_s=total.ok / self.last_s if self.last_s else 0.0,
            output_tokens_per_s=tokens / self.last_s if self.last_s else 0.0,
            met={
                f"ttft_p95 {slo.ttft_p95}": total.within_ttft >= 0.95,
                f"success {slo.success:.2%}": total.success >= slo.success,
            },
            deployments=costs,
            micro_usd=micro_usd,
            micro_usd_per_million_tokens=(
                round(micro_usd * 1_000_000 / tokens) if micro_usd is not None and tokens else None
            ),
            decision_counts=dict(self.decision_counts),
            decisions=self.decisions,
        )

    def _cost(self, name: str, hours: float, most: int, prices: Prices | None) -> Cost:
        hardware = self.scenario.deployments[name].hardware
        price = prices.micro_usd_per_hour(hardware) if prices and hardware else None
        return Cost(
            deployment=name,
            replica_hours=round(hours, 4),
            most_replicas=most,
            micro_usd=None if price is None else round(price * hours),
        )

    def _of(self, team: str) -> _Sums:
        found = self.sums.get(team)
        if found is None:
            found = self.sums[team] = _Sums()
        return found


def _group(name: str, parts: Sequence[_Sums], bound_s: float) -> Group:
    codes: Counter[str] = Counter()
    ttft, latency, tpot = array("d"), array("d"), array("d")
    for sums in parts:
        codes.update(sums.codes)
        ttft.extend(sums.ttft)
        latency.extend(sums.latency)
        tpot.extend(sums.tpot)
    requests = codes.total()
    return Group(
        name=name,
        requests=requests,
        ok=codes[OK],
        codes=dict(codes),
        success=codes[OK] / requests if requests else 0.0,
        within_ttft=sum(1 for value in ttft if value <= bound_s) / requests if requests else 0.0,
        ttft=_spread(ttft),
        latency=_spread(latency),
        tpot=_spread(tpot),
        output_tokens=sum(sums.tokens for sums in parts),
    )


def _spread(values: "array[float]") -> Spread | None:
    if not values:
        return None
    ordered = sorted(values)
    last = len(ordered) - 1
    p50, p95, p99 = (
        round(ordered[min(last, int(share * len(ordered)))] * 1000, 3) for share in (0.5, 0.95, 0.99)
    )
    return Spread(mean_ms=round(sum(ordered) / len(ordered) * 1000, 3), p50_ms=p50, p95_ms=p95, p99_ms=p99)
