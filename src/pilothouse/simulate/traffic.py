"""Who asks when, and for how much: arrivals and sizes from a seeded generator, so that a seed is a run."""

import math
from collections.abc import Callable, Iterator
from random import Random

from pilothouse.simulate.scenario import Arrivals, TenantModel, Tokens, seconds


class Request:
    """One request on its way. Times are simulated seconds."""

    __slots__ = (
        "arrived", "deadline", "deployment", "first_at", "left", "output",
        "prefix", "prompt", "replica", "retries", "since", "slot", "team", "waits",
    )  # fmt: skip

    def __init__(self, team: str, arrived: float, prompt: int, output: int, prefix: int) -> None:
        self.team = team
        self.arrived = arrived
        self.prompt = prompt
        self.output = output
        self.prefix = prefix
        """Number of its shared beginning; 0 is none."""
        self.deadline = 0.0
        self.first_at = -1.0
        self.left = 0
        """Prompt tokens still to compute."""
        self.retries = 0
        self.waits = False
        self.since = -1.0
        """When it got its place after waiting; below 0 it did not wait."""
        self.deployment = 0
        self.slot = 0
        """Its place in the engine."""
        self.replica: object = None


def requests_of(name: str, number: int, tenant: TenantModel, random: Random) -> Iterator[Request]:
    """Without end, in the order of their arrival."""
    gap = gaps(tenant.arrivals, random)
    prompt, output = sizes(tenant.prompt, random), sizes(tenant.output, random)
    count, prefix_tokens = tenant.prefix.count, tenant.prefix.tokens
    first = (number << 20) + 1
    now = 0.0
    while True:
        now = gap(now)
        prefix = first + int(random.random() * count) if prefix_tokens else 0
        yield Request(name, now, max(prompt(), prefix_tokens + 1), output(), prefix)


def gaps(arrivals: Arrivals, random: Random) -> Callable[[float], float]:
    """
    The next arrival after a moment.

    A rate that changes is drawn at its highest and thinned: Lewis and Shedler (1979).
    """
    rate = arrivals.rate
    if arrivals.kind == "poisson":
        return lambda now: now + random.expovariate(rate)
    if arrivals.kind == "bursty":
        burst_s, every_s = seconds(arrivals.burst, "burst"), seconds(arrivals.every, "every")
        most = max(rate, arrivals.burst_rate)
        return _thinned(most, lambda now: arrivals.burst_rate if now % every_s < burst_s else rate, random)
    turn, swing = 2 * math.pi / seconds(arrivals.period, "period"), arrivals.swing
    # It begins at night.
    return _thinned(rate * (1 + swing), lambda now: rate * (1 - swing * math.cos(turn * now)), random)


def sizes(tokens: Tokens, random: Random) -> Callable[[], int]:
    mean, most = tokens.mean, tokens.most
    if not tokens.spread:
        return lambda: mean
    variance = math.log1p(tokens.spread**2)
    mu, sigma = math.log(mean) - variance / 2, math.sqrt(variance)
    return lambda: min(most, max(1, round(math.exp(random.gauss(mu, sigma)))))


def _thinned(most: float, rate_at: Callable[[float], float], random: Random) -> Callable[[float], float]:
    def after(now: float) -> float:
        while True:
            now += random.expovariate(most)
            if random.random() * most < rate_at(now):
                return now

    return after
