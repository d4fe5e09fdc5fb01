"""
The gateway against bare proxies and other gateways: one core, one run, interleaved rounds.

Everything Pilothouse has is on (keys, limits on key, team, endpoint and person, a
budget, the exact cache, four replicas, metrics, a sealed record for each request);
the peers do what they can of that, most of them none. All take turns on core 0;
mock and load share core 1. All run in a real-time class where that is permitted.
Ratios are taken within a round. A direct run shows what the instruments can do.

    python bench/gateway.py [--quick] [--json] [--rounds N] [--peers NAME,...]
        [--only throughput,latency,fast,ttft,events,prompts,hits,tls,workers]
"""

import subprocess
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from msgspec import Struct

from pilothouse.app import compiled
from rig import peers as rig_peers
from rig import stalls, tls
from rig.house import House, house
from rig.instruments import CHAT, LoadResult, body_file, load, mock
from rig.machine import cpu_s
from rig.peers import Peer
from rig.report import Figure, Report, figure, options, publish, ratios, tell
from rig.worker import GatewayWorker, gateway_worker

PARTS = ("throughput", "latency", "fast", "ttft", "events", "prompts", "hits", "tls", "workers")
PEERS: dict[str, Callable[[int, Path], AbstractContextManager[Peer | None]]] = {
    "haproxy": rig_peers.haproxy,
    "envoy": rig_peers.envoy,
    "vllm-router": rig_peers.vllm_router,
    "tensorzero": rig_peers.tensorzero,
    "litellm": rig_peers.litellm,
}
OURS, ALONE, SLOW = "everything on", "pilothouse", "litellm"
INTERPRETED = "everything on, interpreted"
"""Measured beside where `make fast` compiled the request path, which the other two run then."""
GOALS = {
    "haproxy": ">= 0.22",
    "envoy": ">= 1.0",
    "vllm-router": ">= 1.3",
    "tensorzero": ">= 4",
    "litellm": ">= 200",
}
BESIDE_RATE = 19
"""Streams begun a second: with 20, each began in the very moment of an event of all others."""
STREAMS = 100
"""Concurrent streams of the events part: with an event each 10 ms, 10,000 events a second are offered."""
PROMPT_BYTES = 32_000
MAX_TOKENS: int = CHAT["max_tokens"]
MIB = 2**20
SEGMENT_BYTES = 512 * MIB
"""Of the journal: 32 kB prompts fill more than 100 MB/s, faster than segments of 64 MiB are made ready."""

FLAGS = ("--set", f"journal_segment_bytes={SEGMENT_BYTES}")


class Subject(Struct, frozen=True):
    """A section of the page: its title, the parts that it is made of, and how those are measured."""

    title: str
    parts: tuple[str, ...]
    method: str


SUBJECTS = (
    Subject("gateway", ("throughput", "hits"), f"closed loop with 32 connections ({SLOW}: 8)"),
    Subject(
        "gateway's latency",
        ("latency", "fast", "ttft"),
        "200 and 2,000 requests/s, timed from the moment each was due; first tokens of streams of one event, "
        f"one at a time, and of streams of 100 events 10 ms apart, {BESIDE_RATE} begun a second; machine: a "
        f"loop of {stalls.LOOP_US:.0f} us alone on the measured core",
    ),
    Subject(
        "gateway's streams and long prompts",
        ("events", "prompts"),
        f"{STREAMS} streams with an event each 10 ms; prompts of {PROMPT_BYTES:,} bytes in a closed loop",
    ),
    Subject("gateway with TLS and with two workers", ("tls", "workers"), "closed loop"),
)
Kind = Literal["plain", "numbered", "same"]
Samples = dict[tuple[str, str], list[float]]
"""Values in the order of the rounds, by target and by what was measured."""


class Plan(Struct, frozen=True):
    rounds: int
    seconds: float
    parts: tuple[str, ...]
    peers: tuple[str, ...]


class Round(Struct, frozen=True):
    """Where the values of one round go."""

    plan: Plan
    folder: Path
    samples: Samples

    def keep(self, target: Peer, what: str, value: float) -> None:
        self.samples[target.name, what].append(value)

    def has(self, part: str) -> bool:
        return part in self.plan.parts

    def load(self, target: Peer, *, kind: Kind = "numbered", **more: Any) -> LoadResult:
        """
        Raises:
            RuntimeError: A request failed.
        """
        body = body_file(
            self.folder,
            model=target.model,
            kind=kind,
            stream=more.pop("stream", False),
            prompt_bytes=more.pop("prompt_bytes", 0),
            max_tokens=more.pop("max_tokens", MAX_TOKENS),
        )
        more.setdefault("seconds", self.plan.seconds)
        result = load(target.port, body, headers=target.headers, path=target.path, **more)
        if result.failed:
            raise RuntimeError(f"{target.name}: {result.failed} requests failed: {result.fault}")
        return result

    def charged(self, target: Peer, **more: Any) -> tuple[LoadResult, float]:
        """A closed loop, and the CPU microseconds that the target's process tree used for it."""
        more.setdefault("connections", 32)
        before_s = _used_s(target)
        result = self.load(target, **more)
        return result, (_used_s(target) - before_s) * 1e6


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument(
        "--rounds", type=int, default=0, help="interleaved rounds; by default 5, with --quick 3"
    )
    parser.add_argument("--seconds", type=float, default=0, help="of each run; by default 5, with --quick 2")
    parser.add_argument("--only", default=",".join(PARTS), help="parts to run, by comma: " + ", ".join(PARTS))
    parser.add_argument("--peers", default=",".join(PEERS), help="peers, by comma: " + ", ".join(PEERS))
    given = parser.parse_args()
    parts, peers = tuple(given.only.split(",")), tuple(filter(None, given.peers.split(",")))
    if unknown := {*parts} - {*PARTS} | {*peers} - {*PEERS}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    rounds = given.rounds or (3 if given.quick else 5)
    plan = Plan(rounds, given.seconds or (2.0 if given.quick else 5.0), parts, peers)
    samples, on = measure(plan)
    for report in _reports(plan, samples, on):
        publish(report, given)


def measure(plan: Plan) -> tuple[Samples, list[str]]:
    samples: Samples = defaultdict(list)
    on: list[str] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="ph-bench-")))
        upstream = stack.enter_context(mock())
        started = [stack.enter_context(PEERS[name](upstream, folder)) for name in plan.peers]
        now = Round(plan, folder, samples)
        for number in range(plan.rounds):
            targets = [Peer("direct", upstream, 0), *filter(None, started)]
            with (
                ExitStack() as more,
                gateway_worker(upstream, journal_segment_bytes=SEGMENT_BYTES) as alone,
                house(upstream, name=OURS, flags=FLAGS) as ours,
            ):
                on = ours.policies
                targets += [alone, ours]
                if now.has("throughput") and compiled.default_folder().exists():
                    plain = house(upstream, name=INTERPRETED, flags=(*FLAGS, "--set", "compiled=false"))
                    targets.append(more.enter_context(plain))
                # Another order each round, so that none always follows the same neighbour.
                for target in targets[number % len(targets) :] + targets[: number % len(targets)]:
                    tell(f"round {number + 1} of {plan.rounds}: {target.name}")
                    _measure_target(target, now)
            if now.has("latency"):
                _measure_machine(now)
            if now.has("tls"):
                _measure_tls(upstream, now)
            if now.has("workers"):
                _measure_workers(upstream, now)
    return samples, on


def _measure_target(target: Peer, now: Round) -> None:
    if target.name == INTERPRETED:
        _measure_throughput(target, now)
        return
    if target.name == SLOW:  # it answers some dozens of requests a second
        if now.has("throughput"):
            result, cpu_us = now.charged(target, connections=8)
            now.keep(target, "rate", result.rate)
            now.keep(target, "cpu_us", cpu_us / result.answered)
        return
    if now.has("throughput"):
        _measure_throughput(target, now)
    for part, rate in (("latency", 200), ("fast", 2000)):
        if now.has(part) and not (part == "fast" and target.name == "tensorzero"):
            result = now.load(target, rate=rate)
            now.keep(target, f"p50_{rate}", result.p50_us)
            now.keep(target, f"p99_{rate}", result.p99_us)
    if now.has("ttft"):
        short = now.load(target, connections=1, stream=True, max_tokens=1)
        now.keep(target, "ttft_us", short.first_byte_p50_us)
        beside = now.load(target, rate=BESIDE_RATE, stream=True)
        now.keep(target, "beside_us", beside.first_byte_p50_us)
    if now.has("events"):
        result, cpu_us = now.charged(target, stream=True, connections=STREAMS)
        now.keep(target, "event_us", cpu_us / result.events)
    if now.has("prompts"):
        now.keep(target, "prompt_rate", now.load(target, prompt_bytes=PROMPT_BYTES).rate)
    if now.has("hits") and isinstance(target, House) and "cache" in target.policies:
        now.keep(target, "hit_rate", now.load(target, kind="same").rate)


def _measure_machine(now: Round) -> None:
    """What a tail is made of where no gateway is."""
    found = stalls.stalls(now.plan.seconds)
    for what in stalls.Stalls.__struct_fields__:
        now.samples["machine", what].append(getattr(found, what))


def _measure_throughput(target: Peer, now: Round) -> None:
    before = target.journaled() if isinstance(target, GatewayWorker) else (0, 0)
    result, cpu_us = now.charged(target)
    now.keep(target, "rate", result.rate)
    now.keep(target, "cpu_us", cpu_us / result.answered)
    if isinstance(target, GatewayWorker):
        records, size = (after - b for after, b in zip(target.journaled(), before, strict=True))
        if records < result.answered:
            raise RuntimeError(f"{result.answered} requests were answered, {records} records kept")
        now.keep(target, "record_bytes", size / records)
        now.keep(target, "journal_mb_s", size / records * result.rate / 1e6)


def _measure_tls(upstream: int, now: Round) -> None:
    """What TLS 1.3 costs on kept connections, by the CPU of the worker alone."""
    with _certificate(now.folder) as (certificate, key):
        for name, changes in (("plain", {}), ("tls", {"tls_certificate": certificate, "tls_key": key})):
            with gateway_worker(upstream, **changes) as worker:
                worker.name = name
                before_s = cpu_s(worker.pid)
                answered = tls.ask(worker, now.plan.seconds, is_tls=bool(changes))
                now.keep(worker, "tls_cpu_us", (cpu_s(worker.pid) - before_s) * 1e6 / answered)


@contextmanager
def _certificate(folder: Path) -> Any:
    files = str(folder / "tls.pem"), str(folder / "tls.key")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-out", files[0], "-keyout", files[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    yield files


def _measure_workers(upstream: int, now: Round) -> None:
    """CPU of a request with one worker and with two, which share the measured core."""
    for count in (1, 2):
        with house(upstream, workers=count, name=f"{count} workers") as served:
            result, cpu_us = now.charged(served)
            now.keep(served, "workers_cpu_us", cpu_us / result.answered)


def _used_s(target: Peer) -> float:
    if isinstance(target, House):
        return sum(cpu_s(pid) for pid in target.workers)
    return cpu_s(target.pid) if target.pid else 0.0


def _reports(plan: Plan, samples: Samples, on: list[str]) -> list[Report]:
    """One for each subject, so that they may be measured at different times."""
    compared = _compared(samples)
    names = list(dict.fromkeys(name for name, _ in samples))
    reports: list[Report] = []
    for subject in SUBJECTS:
        figures = [
            figure(f"{name}: {label}", samples[name, what], unit=unit)
            for part, what, unit, label in _LINES
            if part in subject.parts
            for name in names
            if (name, what) in samples and any(samples[name, what])
        ]
        figures += [one for part, one in compared if part in subject.parts]
        if figures:
            reports.append(
                Report(
                    bench=(
                        f"{subject.title}: one core, mock upstream; on in ours: {', '.join(on)}, keys, "
                        "sealed records"
                    ),
                    method=(
                        f"{plan.rounds} interleaved rounds of {plan.seconds:.0f} s; the request path "
                        f"{_form()}; {subject.method}; segments of {SEGMENT_BYTES // MIB} MiB; medians "
                        "(least .. most)"
                    ),
                    peer=f"{', '.join(plan.peers)}; same core" if plan.peers else "",
                    figures=figures,
                )
            )
    return reports


def _form() -> str:
    return "compiled (make fast)" if compiled.default_folder().exists() else "interpreted"


def _compared(samples: Samples) -> list[tuple[str, Figure]]:
    """The figures that have goals, with the part they belong to: ratios and differences, round by round."""
    figures: list[tuple[str, Figure]] = []

    def ratio(part: str, label: str, ours: tuple[str, str], theirs: tuple[str, str], goal: str) -> None:
        if ours in samples and theirs in samples:
            found = figure(label, ratios(samples[ours], samples[theirs]), unit="x", goal=goal)
            figures.append((part, found))

    def added(part: str, label: str, what: str, goal: str, *, by: str = OURS) -> None:
        if (by, what) in samples and ("direct", what) in samples:
            pairs = zip(samples[by, what], samples["direct", what], strict=True)
            found = figure(label, [(a - b) / 1000 for a, b in pairs], unit="ms", goal=goal)
            figures.append((part, found))

    for name, goal in GOALS.items():
        ratio("throughput", f"requests/s: ours / {name}", (OURS, "rate"), (name, "rate"), goal)
    for name in ("haproxy", "envoy"):
        ratio("throughput", f"requests/s: ours alone / {name}", (ALONE, "rate"), (name, "rate"), GOALS[name])
    ratio("hits", "requests/s: cache hits / misses", (OURS, "hit_rate"), (OURS, "rate"), ">= 1.6")
    label = "CPU a request: interpreted / compiled"
    ratio("throughput", label, (INTERPRETED, "cpu_us"), (OURS, "cpu_us"), "")
    for part, rate in (("latency", 200), ("fast", 2000)):
        added(part, f"added p50 at {rate}/s", f"p50_{rate}", "<= 0.35")
        added(part, f"added p99 at {rate}/s", f"p99_{rate}", "<= 1.0")
        theirs = "vllm-router", f"p50_{rate}"
        ratio(part, f"p50 at {rate}/s: ours / vllm-router", (OURS, f"p50_{rate}"), theirs, "<= 1.3")
    added("ttft", "added to the first token, one stream at a time", "ttft_us", "<= 0.6")
    added("ttft", "that, ours alone", "ttft_us", "<= 1.0", by=ALONE)
    added(
        "ttft",
        f"added to the first token, {BESIDE_RATE} streams a second of 100 events",
        "beside_us",
        "<= 0.6",
    )
    added("ttft", "that, ours alone", "beside_us", "<= 1.0", by=ALONE)
    if (OURS, "event_us") in samples:
        found = figure("CPU an event, ours", samples[OURS, "event_us"], unit="us", goal="<= 25")
        figures.append(("events", found))
    theirs = "vllm-router", "event_us"
    ratio("events", "CPU an event: ours / vllm-router", (OURS, "event_us"), theirs, "<= 1.5")
    theirs = "haproxy", "prompt_rate"
    ratio("prompts", "32 kB prompts: ours / haproxy", (OURS, "prompt_rate"), theirs, ">= 0.35")
    ratio("tls", "CPU a request: TLS 1.3 / plain", ("tls", "tls_cpu_us"), ("plain", "tls_cpu_us"), "")
    two, one = ("2 workers", "workers_cpu_us"), ("1 workers", "workers_cpu_us")
    ratio("workers", "CPU a request: 2 workers / 1", two, one, "<= 1.15")
    return figures


_LINES = [
    ("throughput", "rate", "req/s", "closed loop"),
    ("hits", "hit_rate", "req/s", "cache hits"),
    ("throughput", "cpu_us", "us", "CPU a request"),
    ("throughput", "record_bytes", "bytes", "sealed record"),
    ("throughput", "journal_mb_s", "MB/s", "journal at that rate"),
    ("latency", "p50_200", "us", "p50 at 200/s"),
    ("latency", "p99_200", "us", "p99 at 200/s"),
    ("latency", "p50_us", "us", "the loop, p50"),
    ("latency", "p99_us", "us", "the loop, p99"),
    ("latency", "most_us", "us", "the loop, slowest"),
    ("latency", "slow_percent", "%", "time at less than a quarter of its speed"),
    ("fast", "p50_2000", "us", "p50 at 2,000/s"),
    ("fast", "p99_2000", "us", "p99 at 2,000/s"),
    ("ttft", "ttft_us", "us", "first byte of a stream, one at a time, p50"),
    ("ttft", "beside_us", "us", f"first byte of a stream, {BESIDE_RATE} a second, p50"),
    ("events", "event_us", "us", "CPU an event"),
    ("prompts", "prompt_rate", "req/s", "32 kB prompts"),
    ("tls", "tls_cpu_us", "us", "CPU a request, kept connections"),
    ("workers", "workers_cpu_us", "us", "CPU a request"),
]


if __name__ == "__main__":
    main()
