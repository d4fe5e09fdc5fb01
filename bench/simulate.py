"""
The simulation: how fast it is, and whether it tells what the real engine will do.

First a million requests over 1,000 replicas, on one core. Then three workloads on
the real engine (SmolLM2, four slots, one thread): the speed of its virtual twin is
fitted to the answers of one of them and judged on the two others. Three minutes of
each are played, in turns of a minute, so that a machine that is slower for a while is
so for all three.

    python bench/simulate.py [--quick] [--json] [--skip-engine]
"""

import asyncio
import os
import time
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from random import Random

from msgspec import Struct
from msgspec.structs import replace

from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.domain.spec import ReplicaRange
from pilothouse.simulate.calibrate import Answered, fit
from pilothouse.simulate.run import simulate
from pilothouse.simulate.scenario import (
    Arrivals,
    DeploymentModel,
    EngineModel,
    Scenario,
    TenantModel,
    Tokens,
)
from pilothouse.simulate.tally import Spread
from pilothouse.simulate.traffic import Request, requests_of
from rig.engine import artifact, ask, engine
from rig.report import Figure, Report, options, publish, tell

SLOTS, CONTEXT = 4, 1024
GUESS = EngineModel(slots=SLOTS, batch_tokens=64, step_ms=10, prefill_ms=8, decode_ms=8, request_ms=5)
FITTED_ON = "even"
TURNS = 3
WORKLOADS = {
    "long prompts": TenantModel(
        arrivals=Arrivals(rate=0.15),
        prompt=Tokens(mean=160, spread=0.4, most=500),
        output=Tokens(mean=12, spread=0.4),
    ),
    "even": TenantModel(
        arrivals=Arrivals(rate=0.4),
        prompt=Tokens(mean=60, spread=0.5, most=300),
        output=Tokens(mean=24, spread=0.5),
    ),
    "bursts": TenantModel(
        arrivals=Arrivals(kind="bursty", rate=0.1, burst_rate=1.2, burst="4s", every="20s"),
        prompt=Tokens(mean=40, spread=0.3, most=300),
        output=Tokens(mean=32, spread=0.3),
    ),
}


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--skip-speed", action="store_true", help="only against the engine")
    parser.add_argument("--skip-engine", action="store_true", help="only how fast the simulation is")
    given = parser.parse_args()
    figures = [] if given.skip_speed else _speed(100_000 if given.quick else 1_000_000)
    if not given.skip_engine:
        figures += asyncio.run(_against_the_engine(20.0 if given.quick else 60.0))
    report = Report(
        bench="simulate: speed, and against the real engine",
        method=(
            "1,000 replicas, Poisson and bursty tenants, least_load; then SmolLM2 with four slots and one "
            f"thread, {TURNS} minutes of three workloads, in turns of a minute; fitted on `{FITTED_ON}` alone"
        ),
        figures=figures,
    )
    publish(report, given)


def _speed(requests: int) -> list[Figure]:
    scenario = Scenario(
        duration="10h",
        most_requests=requests,
        queue_size=1000,
        deployments={"fleet": DeploymentModel(replicas=ReplicaRange(min=1000, max=1000))},
        tenants={
            "even": TenantModel(arrivals=Arrivals(rate=150.0)),
            "bursts": TenantModel(arrivals=Arrivals(kind="bursty", rate=60.0, burst_rate=100.0)),
        },
    )
    wall, cpu = time.perf_counter(), time.process_time()
    outcome = simulate(scenario)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    tell(f"{outcome.total.requests:,} requests in {wall:.1f} s, {cpu:.1f} s of processor")
    figures = [
        Figure(what=f"{requests:,} requests, 1,000 replicas: processor", value=cpu, unit="s", goal="<= 60"),
        Figure(what=f"{requests:,} requests, 1,000 replicas: wall", value=wall, unit="s"),
    ]
    small = replace(scenario, most_requests=20_000)
    same = simulate(small) == simulate(small)
    return [*figures, Figure(what="runs of one seed that differ", value=float(not same), goal="<= 0")]


async def _against_the_engine(turn_s: float) -> list[Figure]:
    turns: dict[str, list[list[_Answer]]] = {name: [] for name in WORKLOADS}
    async with engine(artifact(), slots=SLOTS, context_tokens=CONTEXT) as (connected, _, pid):
        _prefer(pid)
        await ask(connected, " the" * 64, max_tokens=8)
        for turn in range(TURNS):
            for name in WORKLOADS:
                asked = [one for one in _requests(name, TURNS * turn_s) if one.arrived // turn_s == turn]
                turns[name].append(await _play(connected, asked, turn * turn_s))
                tell(f"turn {turn + 1} of {TURNS}, {name}: {_told(turns[name][-1])}")
    found = {name: _measured(played) for name, played in turns.items()}
    for name, (spread, rate) in found.items():
        tell(f"{name}: TTFT p50 {spread.p50_ms:.0f} ms, p95 {spread.p95_ms:.0f} ms, {rate:.1f} tokens/s")
    fitted = fit([[one.answered() for one in answers] for answers in turns[FITTED_ON]], GUESS)
    tell(
        f"fitted: step {fitted.step_ms:.2f} ms, prompt token {fitted.prefill_ms:.2f} ms, "
        f"answer {fitted.decode_ms:.2f} ms, request {fitted.request_ms:.2f} ms"
    )
    figures = []
    for name, (real_ttft, tokens_per_s) in found.items():
        outcome = simulate(_scenario(name, TURNS * turn_s, fitted))
        ttft = outcome.total.ttft
        assert ttft is not None
        goal = "" if name == FITTED_ON else "<= 25"
        for what, simulated, real in (
            ("TTFT p50", ttft.p50_ms, real_ttft.p50_ms),
            ("TTFT p95", ttft.p95_ms, real_ttft.p95_ms),
            ("tokens/s", outcome.output_tokens_per_s, tokens_per_s),
        ):
            off = abs(simulated / real - 1) * 100
            label = f"{name}{' (fitted)' if name == FITTED_ON else ''}: {what} {simulated:.1f} for {real:.1f}"
            figures.append(Figure(what=label, value=off, unit="% off", goal=goal))
    return figures


def _scenario(name: str, duration_s: float, model: EngineModel) -> Scenario:
    return Scenario(
        duration=f"{duration_s:.0f}s",
        queue_size=1000,
        timeout="10m",
        deployments={"engine": DeploymentModel(engine=model)},
        tenants={"t": WORKLOADS[name]},
    )


class _Answer(Struct, frozen=True):
    """One request to the engine; times in seconds of the scenario."""

    prompt: int
    tokens: int
    due: float
    began: float
    """When it had one of the places."""
    first: float
    ended: float

    @property
    def ttft(self) -> float:
        return self.first - self.due

    def answered(self) -> Answered:
        return Answered(
            began=self.began, prompt=self.prompt, output=self.tokens, first=self.first, ended=self.ended
        )


def _requests(name: str, duration_s: float) -> list[Request]:
    """The very requests of the simulation's seed."""
    arriving = requests_of("t", 0, WORKLOADS[name], Random("1/t"))
    return list(takewhile(lambda request: request.arrived < duration_s, arriving))


async def _play(connected: OpenAIEngine, requests: Sequence[Request], begins_s: float) -> list[_Answer]:
    """Each is sent when due, at most as many at once as there are slots; their answers in that order."""
    places = asyncio.Semaphore(SLOTS)
    start = time.monotonic() - begins_s

    async def one(due: float, prompt: int, output: int) -> _Answer:
        await asyncio.sleep(max(0.0, start + due - time.monotonic()))
        async with places:
            began = time.monotonic()
            first, last, made = await ask(connected, " the" * prompt, max_tokens=output)
        if made != output:
            tell(f"asked for {output} tokens, got {made}")
        return _Answer(prompt, made, due, began - start, first - start, last - start)

    return await asyncio.gather(*(one(r.arrived, r.prompt, r.output) for r in requests))


def _measured(turns: Sequence[Sequence[_Answer]]) -> tuple[Spread, float]:
    """First tokens of all turns, and tokens a second until the last."""
    answers = [answer for turn in turns for answer in turn]
    ended = max(answer.ended for answer in answers)
    return _spread([one.ttft for one in answers]), sum(one.tokens for one in answers) / ended


def _told(answers: Sequence[_Answer]) -> str:
    ttft = _spread([answer.ttft for answer in answers])
    return f"{len(answers)} requests, TTFT p50 {ttft.p50_ms:.0f} ms, p95 {ttft.p95_ms:.0f} ms"


def _spread(values: Sequence[float]) -> Spread:
    ordered = sorted(values)
    p50, p95, p99 = (
        ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000 for share in (0.5, 0.95, 0.99)
    )
    return Spread(mean_ms=sum(ordered) / len(ordered) * 1000, p50_ms=p50, p95_ms=p95, p99_ms=p99)


def _prefer(pid: int) -> None:
    """Into the real-time class, where that is permitted: as in every bench, the measured comes first."""
    for thread in (*Path(f"/proc/{pid}/task").iterdir(), Path(str(os.getpid()))):
        try:
            os.sched_setscheduler(int(thread.name), os.SCHED_RR, os.sched_param(10))
        except PermissionError:
            return


if __name__ == "__main__":
    main()
