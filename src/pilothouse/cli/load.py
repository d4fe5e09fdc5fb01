"""
Load on a server: in a closed loop, or at a constant rate, and what came of it.

How a request is made is the transport's; here are the two ways to send many. At
a constant rate a request has a due time, and its latency counts from there: a
server that stands still delays the requests behind it, and so it is counted
(no "coordinated omission", Tene 2013). In a closed loop nothing can be due.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import Protocol

from msgspec import Struct, field

OK = "ok"
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)


class Answer(Struct, frozen=True, kw_only=True):
    """How one request ended. Times are those of the clock that the load runs by, in seconds."""

    code: str
    ended_s: float
    first_s: float | None = None
    """When the first token was there; None when none came."""
    prompt_tokens: int = 0
    """Those that the engine computed: without a beginning that it had already."""
    tokens: int = 0
    gaps_s: tuple[float, ...] = ()
    """Between one token and the next."""


class Transport(Protocol):
    async def ask(self, number: int) -> Answer:
        """Send request `number` and take all of its answer; a failure is an answer too."""
        ...


class Sample(Struct, frozen=True, kw_only=True):
    due_s: float
    sent_s: float
    answer: Answer

    @property
    def latency_s(self) -> float:
        return self.answer.ended_s - self.due_s

    @property
    def ttft_s(self) -> float | None:
        return None if self.answer.first_s is None else self.answer.first_s - self.due_s


class Plan(Struct, frozen=True, kw_only=True):
    """How long to send, and by which clock (the event loop's own counts whole milliseconds only)."""

    duration_s: float
    stop: asyncio.Event
    now: Callable[[], float] = time.perf_counter


class Load(Struct, kw_only=True):
    """All that was sent, and what could not be."""

    samples: list[Sample] = field(default_factory=list)
    missed: int = 0
    """Due, and not sent because too many were in flight already: failures, not omissions."""
    wall_s: float = 0.0
    worst_late_s: float = 0.0
    """The most that this program itself sent a request after its due time."""


async def closed_loop(transport: Transport, plan: Plan, *, concurrency: int) -> Load:
    """`concurrency` callers, each of which asks again when it has its answer."""
    began = plan.now()
    load = Load()
    numbers = count()

    async def caller() -> None:
        while plan.now() < began + plan.duration_s and not plan.stop.is_set():
            due = plan.now()
            load.samples.append(Sample(due_s=due, sent_s=due, answer=await transport.ask(next(numbers))))

    await asyncio.gather(*(caller() for _ in range(concurrency)))
    load.wall_s = plan.now() - began
    return load


async def constant_rate(transport: Transport, plan: Plan, *, rate: float, max_inflight: int) -> Load:
    """A request every 1/rate seconds, whether the earlier ones have their answers or not."""
    began = plan.now()
    load = Load()
    inflight: set[asyncio.Task[None]] = set()

    async def one(number: int, due: float) -> None:
        sent = plan.now()
        load.worst_late_s = max(load.worst_late_s, sent - due)
        load.samples.append(Sample(due_s=due, sent_s=sent, answer=await transport.ask(number)))

    for number in range(math.ceil(rate * plan.duration_s)):
        due = began + number / rate
        if due > plan.now():
            await _sleep_or_stop(due - plan.now(), plan.stop)
        elif not number % 100:
            await asyncio.sleep(0)  # late already: still let the answers come in
        if plan.stop.is_set():
            break
        if len(inflight) >= max_inflight:
            load.missed += 1
            continue
        task = asyncio.create_task(one(number, due))
        inflight.add(task)
        task.add_done_callback(inflight.discard)
    if inflight:
        await asyncio.gather(*inflight)
    load.wall_s = plan.now() - began
    return load


async def _sleep_or_stop(seconds: float, stop: asyncio.Event) -> None:
    if stop.is_set():
        return
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass


class Spread(Struct, frozen=True, kw_only=True):
    """A distribution in milliseconds; the percentiles are of the nearest rank."""

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    p99_9_ms: float
    max_ms: float


class Report(Struct, frozen=True, kw_only=True):
    requests: int
    """All that were due: answered, failed and missed."""
    ok: int
    failed: int
    missed: int
    duration_s: float
    requests_per_s: float
    """Answered without an error, over the whole time."""
    output_tokens: int
    tokens_per_s: float
    goodput_ratio: float
    """Share of all that were due which were answered within the objective."""
    slo_ttft_ms: float | None
    errors: dict[str, int]
    worst_late_ms: float
    latency: Spread | None
    ttft: Spread | None
    inter_token: Spread | None


def report(load: Load, *, slo_ttft_s: float | None) -> Report:
    """Add up. Times of failed requests are left out of the spreads; the failures stand beside them."""
    good = [sample for sample in load.samples if sample.answer.code == OK]
    due = len(load.samples) + load.missed
    within = [sample for sample in good if slo_ttft_s is None or _first_s(sample) <= slo_ttft_s]
    tokens = sum(sample.answer.tokens for sample in good)
    errors = Counter(sample.answer.code for sample in load.samples if sample.answer.code != OK)
    wall_s = max(load.wall_s, 1e-9)
    return Report(
        requests=due,
        ok=len(good),
        failed=len(load.samples) - len(good),
        missed=load.missed,
        duration_s=round(load.wall_s, 3),
        requests_per_s=round(len(good) / wall_s, 3),
        output_tokens=tokens,
        tokens_per_s=round(tokens / wall_s, 2),
        goodput_ratio=round(len(within) / due, 6) if due else 0.0,
        slo_ttft_ms=None if slo_ttft_s is None else slo_ttft_s * 1000,
        errors=dict(errors.most_common()),
        worst_late_ms=round(load.worst_late_s * 1000, 3),
        latency=spread([sample.latency_s for sample in good]),
        ttft=spread([sample.ttft_s for sample in good if sample.ttft_s is not None]),
        inter_token=spread([gap for sample in good for gap in sample.answer.gaps_s]),
    )


def _first_s(sample: Sample) -> float:
    """Unstreamed, the first token is there with the last."""
    return sample.latency_s if sample.ttft_s is None else sample.ttft_s


def spread(values_s: Sequence[float]) -> Spread | None:
    """None of no values."""
    if not values_s:
        return None
    ordered = sorted(values_s)
    p50, p90, p95, p99, p99_9 = (round(percentile(ordered, p) * 1000, 3) for p in PERCENTILES)
    return Spread(
        count=len(ordered),
        mean_ms=round(sum(ordered) / len(ordered) * 1000, 3),
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        p99_9_ms=p99_9,
        max_ms=round(ordered[-1] * 1000, 3),
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """
    The smallest value that at least `percent` of all are not above (nearest rank).

    Args:
        ordered: Ascending, not empty.
        percent: 0 to 100.
    """
    # Rounded before the ceiling: 99.9 per cent of 1000 is 999, and not 999.0000000000001.
    rank = math.ceil(round(len(ordered) * percent / 100, 9))
    return ordered[max(rank, 1) - 1]
