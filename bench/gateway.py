"""
The data plane alone against bare proxies: one core, one run, interleaved rounds.

One gateway worker (keys, limits, a sealed journal record for each request) and
the peers (none of that) take turns on core 0; mock and load share core 1. All of
them run in a real-time class where that is permitted. Ratios are taken within a
round. A direct run without any gateway shows what the instruments can do.

    python bench/gateway.py [--quick] [--json] [--rounds N] [--only throughput,latency,ttft,events]
"""

from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import Struct

from rig.instruments import LoadResult, body_file, load, mock
from rig.machine import cpu_s
from rig.peers import Peer, envoy, haproxy
from rig.report import Figure, Report, figure, options, publish, ratios, tell
from rig.worker import GatewayWorker, gateway_worker

PARTS = ("throughput", "latency", "ttft", "events")
OURS = "pilothouse"
GOALS = {"haproxy": ">= 0.22", "envoy": ">= 1.0"}
STREAMS = 100
"""Concurrent streams of the events part: with an event each 10 ms, 10,000 events a second are offered."""


class Plan(Struct, frozen=True):
    rounds: int
    seconds: float
    parts: tuple[str, ...]


class Bodies(Struct, frozen=True):
    whole: Path
    stream: Path


Samples = dict[tuple[str, str], list[float]]
"""Values in the order of the rounds, by target and by what was measured."""


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument(
        "--rounds", type=int, default=0, help="interleaved rounds; by default 5, with --quick 3"
    )
    parser.add_argument("--only", default=",".join(PARTS), help="parts to run, by comma: " + ", ".join(PARTS))
    given = parser.parse_args()
    parts = tuple(given.only.split(","))
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only knows {', '.join(PARTS)}, not {', '.join(unknown)}")
    rounds = given.rounds or (3 if given.quick else 5)
    plan = Plan(rounds, 3.0 if given.quick else 5.0, parts)
    publish(_report(plan, measure(plan)), given)


def measure(plan: Plan) -> Samples:
    samples: Samples = defaultdict(list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="ph-bench-")))
        upstream = stack.enter_context(mock())
        bodies = Bodies(body_file(folder), body_file(folder, stream=True))
        peers = [stack.enter_context(start(upstream, folder)) for start in (haproxy, envoy)]
        for number in range(plan.rounds):
            targets = [Peer("direct", upstream, 0), *filter(None, peers)]
            with gateway_worker(upstream) as worker:
                targets.append(worker)
                # Another order each round, so that none always follows the same neighbour.
                for target in targets[number % len(targets) :] + targets[: number % len(targets)]:
                    tell(f"round {number + 1} of {plan.rounds}: {target.name}")
                    _measure_target(target, plan, bodies, samples)
    return samples


def _measure_target(target: Peer, plan: Plan, bodies: Bodies, samples: Samples) -> None:
    def keep(what: str, value: float) -> None:
        samples[target.name, what].append(value)

    if "throughput" in plan.parts:
        journaled = target.journaled() if isinstance(target, GatewayWorker) else (0, 0)
        result, cpu_us = _charged(target, bodies.whole, seconds=plan.seconds)
        keep("rate", result.rate)
        keep("cpu_us", cpu_us / result.answered)
        if isinstance(target, GatewayWorker):
            records, size = (
                after - before for after, before in zip(target.journaled(), journaled, strict=True)
            )
            if records < result.answered:
                raise RuntimeError(f"{result.answered} requests were answered, {records} records kept")
            keep("record_bytes", size / records)
            keep("journal_mb_s", size / records * result.rate / 1e6)
    if "latency" in plan.parts:
        result = _load(target, bodies.whole, seconds=plan.seconds, rate=200)
        keep("p50_us", result.p50_us)
        keep("p99_us", result.p99_us)
    if "ttft" in plan.parts:
        keep("ttft_us", _load(target, bodies.stream, seconds=plan.seconds, rate=20).first_byte_p50_us)
    if "events" in plan.parts:
        result, cpu_us = _charged(target, bodies.stream, seconds=plan.seconds, connections=STREAMS)
        keep("event_us", cpu_us / result.events)


def _charged(target: Peer, body: Path, *, seconds: float, connections: int = 32) -> tuple[LoadResult, float]:
    """A closed loop, and the CPU microseconds that the target's process tree used for it."""
    before_s = cpu_s(target.pid) if target.pid else 0.0
    result = _load(target, body, seconds=seconds, connections=connections)
    after_s = cpu_s(target.pid) if target.pid else 0.0
    return result, (after_s - before_s) * 1e6


def _load(target: Peer, body: Path, *, seconds: float, rate: float = 0, connections: int = 32) -> LoadResult:
    headers = target.headers if isinstance(target, GatewayWorker) else []
    result = load(target.port, body, seconds=seconds, rate=rate, connections=connections, headers=headers)
    if result.failed:
        raise RuntimeError(f"{target.name}: {result.failed} requests failed: {result.fault}")
    return result


def _report(plan: Plan, samples: Samples) -> Report:
    names = list(dict.fromkeys(name for name, _ in samples))
    figures: list[Figure] = []
    for what, unit, label in _LINES:
        figures += [
            figure(f"{name}: {label}", samples[name, what], unit=unit)
            for name in names
            if (name, what) in samples and any(samples[name, what])
        ]
    if "throughput" in plan.parts:
        figures += [
            figure(
                f"{OURS} / {name}", ratios(samples[OURS, "rate"], samples[name, "rate"]), unit="x", goal=goal
            )
            for name, goal in GOALS.items()
            if (name, "rate") in samples
        ]
    if "ttft" in plan.parts:
        pairs = zip(samples[OURS, "ttft_us"], samples["direct", "ttft_us"], strict=True)
        added = [(ours - direct) / 1000 for ours, direct in pairs]
        figures.append(figure("added to the first token, median", added, unit="ms", goal="<= 1.0"))
    return Report(
        bench="gateway: one worker on one core, mock upstream, keys and sealed records on",
        method=(
            f"{plan.rounds} interleaved rounds of {plan.seconds:.0f} s; closed loop with 32 connections; "
            f"latency at 200 requests/s from the moment each was due; {STREAMS} streams for events; "
            "medians (least .. most)"
        ),
        peer="HAProxy and Envoy as bare proxies, in the same rounds on the same core",
        figures=figures,
    )


_LINES = [
    ("rate", "req/s", "closed loop"),
    ("cpu_us", "us", "CPU a request"),
    ("record_bytes", "bytes", "sealed record"),
    ("journal_mb_s", "MB/s", "journal"),
    ("p50_us", "us", "p50 at 200/s"),
    ("p99_us", "us", "p99 at 200/s"),
    ("ttft_us", "us", "first byte of a stream, p50"),
    ("event_us", "us", "CPU an event"),
]


if __name__ == "__main__":
    main()
