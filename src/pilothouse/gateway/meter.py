"""
The data plane's metrics: each request counted once, from its record.

Label sets are closed: endpoints and deployments of the snapshot, codes of
`domain.errors`. What a caller invents is counted under the empty name.
"""

from collections.abc import Callable, Mapping
from typing import Final, get_args

from pilothouse.domain.record import FOUND, CacheResult
from pilothouse.gateway.call import Call
from pilothouse.gateway.permit import Places
from pilothouse.kit.metrics import (
    DURATION_BUCKETS_S,
    OVERHEAD_BUCKETS_S,
    TOKEN_BUCKETS_S,
    Family,
    Registry,
    Series,
)

_LABELS = ("endpoint", "deployment")
_FOUND: Final = FOUND


class _RouteMeter:
    """The series of one endpoint and deployment, looked up once."""

    __slots__ = ("cache", "cached", "duration", "input", "output", "overhead", "per_token", "ttft")

    def __init__(self, metrics: "Meters", labels: tuple[str, str]) -> None:
        self.duration = metrics.duration.labels(*labels)
        self.ttft = metrics.ttft.labels(*labels)
        self.per_token = metrics.per_token.labels(*labels)
        self.overhead = metrics.overhead.labels(*labels)
        self.input = metrics.tokens.labels(*labels, "input")
        self.output = metrics.tokens.labels(*labels, "output")
        self.cache = {result: metrics.cache.labels(*labels, result) for result in get_args(CacheResult)}
        self.cached = metrics.tokens.labels(*labels, "cached")


class Meters:
    """Owns the worker's registry."""

    def __init__(self, is_known_endpoint: Callable[[str], bool]) -> None:
        self.registry = registry = Registry()
        self._is_known = is_known_endpoint
        self.requests = registry.counter(
            "pilothouse_requests_total", "Requests by outcome.", (*_LABELS, "code")
        )
        self.duration = registry.histogram(
            "pilothouse_request_duration_seconds", "Time of a whole request.", _LABELS, DURATION_BUCKETS_S
        )
        self.ttft = registry.histogram(
            "pilothouse_time_to_first_token_seconds", "Time to the first token.", _LABELS, DURATION_BUCKETS_S
        )
        self.per_token = registry.histogram(
            "pilothouse_time_per_output_token_seconds",
            "Time per token after the first.",
            _LABELS,
            TOKEN_BUCKETS_S,
        )
        self.overhead = registry.histogram(
            "pilothouse_overhead_seconds", "Time spent in Pilothouse itself.", _LABELS, OVERHEAD_BUCKETS_S
        )
        self.tokens = registry.counter(
            "pilothouse_tokens_total", "Tokens as engines counted them.", (*_LABELS, "kind")
        )
        self._add_cache(registry)
        self.cost = registry.counter(
            "pilothouse_cost_usd_total", "Cost of requests in US dollars.", ("team",)
        )
        self.refused = registry.counter(
            "pilothouse_refused_total",
            "Requests that were refused before anyone was known to ask.",
            ("code",),
        )
        self.cut = registry.counter(
            "pilothouse_streams_cut_total", "Streams that ended in an error event.", _LABELS
        )
        self.retried = registry.counter(
            "pilothouse_retries_total", "Attempts that failed and were followed by another.", _LABELS
        )
        self.ejections = registry.counter(
            "pilothouse_ejections_total",
            "Replicas that failed too often and were left alone.",
            ("deployment",),
        )
        self.hedges = registry.counter(
            "pilothouse_hedges_total",
            "Second replicas that were asked because the first was late.",
            (*_LABELS, "outcome"),
        )
        self.shadows, self.shadows_dropped = _shadow_counters(registry)
        self._add_gauges(registry)
        self._routes: dict[tuple[str, str], _RouteMeter] = {}
        self._found: dict[tuple[str, str, str], tuple[Series, _RouteMeter]] = {}

    def _add_gauges(self, registry: Registry) -> None:
        self.ejected = registry.most(
            "pilothouse_ejected_replicas",
            "Replicas that are left alone now; of several workers, by the one that leaves most alone.",
            ("deployment",),
        )
        self.inflight = registry.gauge(
            "pilothouse_inflight_requests", "Requests that hold a place in an engine.", ("deployment",)
        )
        self.queued = registry.gauge(
            "pilothouse_queue_depth", "Requests that wait for a place in an engine.", ("deployment",)
        )

    def _add_cache(self, registry: Registry) -> None:
        self.cache = registry.counter(
            "pilothouse_cache_requests_total",
            "Requests by what the cache had for them.",
            (*_LABELS, "result"),
        )
        self.far_cache = registry.counter(
            "pilothouse_cache_far_failures_total",
            "What the shared cache did not do in time or right; each was taken for a miss.",
            ("operation",),
        )

    def count(self, call: Call, *, endpoint: str, team: str, ended_ns: int) -> None:
        """
        A call that ended.

        Args:
            endpoint: The name of it, or the one that was asked for.
            ended_ns: As the times of a call.
        """
        key = (endpoint, call.deployment, call.code)
        found = self._found.get(key)
        if found is None:
            found = self._find(key)
        code, route = found
        code.value += 1.0
        if call.cost_micro_usd:
            self.cost.labels(team).inc(call.cost_micro_usd / 1e6)
        received_ns = call.request.received_ns
        route.duration.observe((ended_ns - received_ns) / 1e9)
        route.overhead.observe(call.overhead_us / 1e6)
        route.cache[call.cache].value += 1.0
        if call.cache in _FOUND:  # no engine counted a token, nor was waited for
            return
        usage = call.usage
        input_tokens, output_tokens = usage.input, usage.output
        if call.first_token_ns:
            route.ttft.observe((call.first_token_ns - received_ns) / 1e9)
            if output_tokens > 1:
                route.per_token.observe((ended_ns - call.first_token_ns) / 1e9 / (output_tokens - 1))
        if input_tokens or output_tokens:
            route.input.value += input_tokens
            route.output.value += output_tokens
            route.cached.value += usage.cached

    def far_cache_failed(self, operation: str) -> None:
        """`operation` is "get", "put" or "open"."""
        self.far_cache.labels(operation).inc()

    def measure(self, deployments: Mapping[str, Places]) -> None:
        """Take down how full the deployments are now."""
        for name, places in deployments.items():
            self.inflight.labels(name).set(places.inflight)
            self.queued.labels(name).set(places.queued)
            self.ejected.labels(name).set(len(places.sick))

    def dump(self) -> bytes:
        """Everything that was counted so far, for the controller."""
        return self.registry.dump()

    def _find(self, key: tuple[str, str, str]) -> tuple[Series, _RouteMeter]:
        """The series of a record's labels, remembered where its endpoint is one that is known."""
        named, deployment, code = key
        is_known = self._is_known(named)
        labels = (named if is_known else "", deployment)
        route = self._routes.get(labels)
        if route is None:
            route = self._routes[labels] = _RouteMeter(self, labels)
        found = (self.requests.labels(*labels, code), route)
        if is_known:
            self._found[key] = found
        return found


def _shadow_counters(registry: Registry) -> tuple[Family, Family]:
    return (
        registry.counter(
            "pilothouse_shadow_requests_total",
            "Copies that a rollout's candidate answered unseen, by outcome.",
            (*_LABELS, "code"),
        ),
        registry.counter(
            "pilothouse_shadow_dropped_total",
            "Copies that were not sent or not finished, by reason.",
            (*_LABELS, "reason"),
        ),
    )
