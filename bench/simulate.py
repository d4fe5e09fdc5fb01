"""
The simulation: how fast it is, and whether it tells what the real engine will do.

First a million requests over 1,000 replicas, on one core. Then three workloads on
the real engine (SmolLM2, four slots, one thread): the speed of its virtual twin is
fitted to the answers of one of them and judged on the two others. They take turns of
20 seconds, each turn with a seed of its own and an engine that has nothing to do.
The machine changes its speed for tens of seconds, so the workload that is fitted on is
also the clock: how fast its answers of a turn were holds for the turns beside it.

    python bench/simulate.py [--quick] [--json] [--skip-speed | --skip-engine] [--turns N] [--answers FILE]

With `--answers` the answers are kept, and those that are there count: turns may be
played at different times, and with `--turns 0` it is judged without an engine.
"""

import asyncio
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from random import Random
from statistics import quantiles

from msgspec import Struct, json
from msgspec.structs import replace

from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.domain.spec import ReplicaRange
from pilothouse.simulate.calibrate import Answered, distance, fit
from pilothouse.simulate.run import simulate
from pilothouse.simulate.scenario import (
    Arrivals,
    DeploymentModel,
    EngineModel,
    Scenario,
    TenantModel,
    Tokens,
)
from pilothouse.simulate.traffic import Request, requests_of
from rig.engine import artifact, ask, engine
from rig.report import Figure, Report, options, publish, tell

SLOTS, CONTEXT = 4, 1024
GUESS = EngineModel(
    slots=SLOTS, batch_tokens=64, reads="by_slot", step_ms=10, prefill_ms=8, decode_ms=8, request_ms=5
)
FITTED_ON = "even"
TURN_S, TURNS = 20.0, 8
FITTINGS = 6
SPEEDS = tuple(math.exp(step / 40) for step in range(-40, 41))
"""What a turn may be slower by; in steps of a fortieth of e."""
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
    parser.add_argument("--turns", type=int, help=f"of each workload, {TURN_S:.0f} s each ({TURNS})")
    parser.add_argument("--answers", type=Path, help="keep them here, and judge by all that are here")
    given = parser.parse_args()
    figures = [] if given.skip_speed else _speed(100_000 if given.quick else 1_000_000)
    turns = (1 if given.quick else TURNS) if given.turns is None else given.turns
    played = 0
    if not given.skip_engine:
        answers = _kept(given.answers)
        asyncio.run(_play_turns(answers, turns, given.answers))
        figures += _judged(answers)
        played = len({one.turn for one in answers})
    report = Report(
        bench="simulate: speed, and against the real engine",
        method=(
            "1,000 replicas, Poisson and bursty tenants, least_load; then SmolLM2 with four slots and one "
            f"thread: {played} turns of {TURN_S:.0f} s of each of three workloads; fitted on "
            f"`{FITTED_ON}` alone, and so is the speed of the machine in each turn"
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


class _Answer(Struct, frozen=True, kw_only=True):
    """One request to the engine; times in seconds of its turn."""

    workload: str
    turn: int
    prompt: int
    tokens: int
    due: float
    began: float
    """When it had one of the places."""
    first: float
    ended: float


def _kept(file: Path | None) -> list[_Answer]:
    if file is None or not file.exists():
        return []
    return [json.decode(line, type=_Answer) for line in file.read_bytes().splitlines()]


async def _play_turns(answers: list[_Answer], turns: int, file: Path | None) -> None:
    """Of each workload as many turns more, and their answers to the others."""
    if not turns:
        return
    begin = max((one.turn for one in answers), default=0) + 1
    async with engine(artifact(), slots=SLOTS, context_tokens=CONTEXT) as (connected, _, pid):
        _prefer(pid)
        await ask(connected, " the" * 64, max_tokens=8)
        for turn in range(begin, begin + turns):
            for name in WORKLOADS:
                played = await _play(connected, name, turn)
                tell(f"turn {turn}, {name}: {_told(played)}")
                answers += played
                if file is not None:
                    with file.open("ab") as kept:
                        kept.writelines(json.encode(one) + b"\n" for one in played)


async def _play(connected: OpenAIEngine, name: str, turn: int) -> list[_Answer]:
    """Each is sent when due, at most as many at once as there are slots; their answers in that order."""
    places = asyncio.Semaphore(SLOTS)
    start = time.monotonic()

    async def one(asked: Request) -> _Answer:
        await asyncio.sleep(max(0.0, start + asked.arrived - time.monotonic()))
        async with places:
            began = time.monotonic()
            first, last, made = await ask(connected, " the" * asked.prompt, max_tokens=asked.output)
        if made != asked.output:
            tell(f"asked for {asked.output} tokens, got {made}")
        return _Answer(
            workload=name,
            turn=turn,
            prompt=asked.prompt,
            tokens=made,
            due=asked.arrived,
            began=began - start,
            first=first - start,
            ended=last - start,
        )

    return await asyncio.gather(*(one(asked) for asked in _requests(name, turn)))


def _requests(name: str, turn: int) -> list[Request]:
    """The very requests of the simulation whose seed is the turn's number."""
    arriving = requests_of("t", 0, WORKLOADS[name], Random(f"{turn}/t"))
    return list(takewhile(lambda request: request.arrived < TURN_S, arriving))


def _judged(answers: Sequence[_Answer]) -> list[Figure]:
    turns = sorted({one.turn for one in answers})
    plays = {turn: [_answered(one) for one in _of(answers, FITTED_ON, turn)] for turn in turns}
    fitted, slow = _fitted({turn: play for turn, play in plays.items() if play})
    tell(
        f"fitted: step {fitted.step_ms:.2f} ms, prompt token {fitted.prefill_ms:.2f} ms, "
        f"answer {fitted.decode_ms:.2f} ms, request {fitted.request_ms:.2f} ms; "
        f"times that by turn: {', '.join(f'{factor:.2f}' for factor in slow.values())}"
    )
    engines = {turn: _slowed(fitted, factor) for turn, factor in slow.items()}
    return [figure for name in WORKLOADS for figure in _compared(name, answers, engines)]


def _fitted(plays: Mapping[int, Sequence[Answered]]) -> tuple[EngineModel, dict[int, float]]:
    """One engine for all turns, and by what each was slower: found one by the other, some times."""
    model, slow = GUESS, dict.fromkeys(plays, 1.0)
    for _ in range(FITTINGS):
        model = fit([_quickened(play, slow[turn]) for turn, play in plays.items()], model)
        for turn, play in plays.items():
            slow[turn] = _slowness(play, model)
    return model, slow


def _slowness(play: Sequence[Answered], model: EngineModel) -> float:
    return min(SPEEDS, key=lambda by: distance([_quickened(play, by)], model))


def _quickened(play: Sequence[Answered], by: float) -> list[Answered]:
    """As it would have been, arrivals included, with all times divided."""
    return [replace(one, began=one.began / by, first=one.first / by, ended=one.ended / by) for one in play]


def _slowed(model: EngineModel, by: float) -> EngineModel:
    return replace(
        model,
        step_ms=model.step_ms * by,
        prefill_ms=model.prefill_ms * by,
        decode_ms=model.decode_ms * by,
    )


def _compared(name: str, answers: Sequence[_Answer], engines: Mapping[int, EngineModel]) -> Iterator[Figure]:
    """Simulated beside measured: first tokens of all turns, and tokens a second until the last of each."""
    turns = {turn: _of(answers, name, turn) for turn in engines}
    turns = {turn: played for turn, played in turns.items() if played}
    real_s = [one.first - one.due for played in turns.values() for one in played]
    tokens = sum(one.tokens for played in turns.values() for one in played)
    rate = tokens / sum(max(one.ended for one in played) for played in turns.values())
    virtual_s: list[float] = []
    outcomes = [
        simulate(
            _scenario(name, turn, engines[turn]),
            answered=lambda request, _: virtual_s.append(request.first_at - request.arrived),
        )
        for turn in turns
    ]
    simulated = sum(one.total.output_tokens for one in outcomes) / sum(one.simulated_s for one in outcomes)
    for what, ours, real in (
        ("TTFT p50, ms", *(_percentile_ms(seconds, 50) for seconds in (virtual_s, real_s))),
        ("TTFT p95, ms", *(_percentile_ms(seconds, 95) for seconds in (virtual_s, real_s))),
        ("tokens/s", simulated, rate),
    ):
        yield Figure(
            what=f"{name}{' (fitted)' if name == FITTED_ON else ''}: {what}: {ours:.1f} for {real:.1f}",
            value=abs(ours / real - 1) * 100,
            unit="% off",
            goal="" if name == FITTED_ON else "<= 25",
        )


def _percentile_ms(values_s: Sequence[float], rank: int) -> float:
    return quantiles(values_s, n=100, method="inclusive")[rank - 1] * 1000


def _scenario(name: str, turn: int, model: EngineModel) -> Scenario:
    return Scenario(
        duration=f"{TURN_S:.0f}s",
        seed=turn,
        queue_size=1000,
        timeout="10m",
        deployments={"engine": DeploymentModel(engine=model)},
        tenants={"t": WORKLOADS[name]},
    )


def _of(answers: Sequence[_Answer], name: str, turn: int) -> list[_Answer]:
    return [one for one in answers if one.workload == name and one.turn == turn]


def _answered(one: _Answer) -> Answered:
    return Answered(began=one.began, prompt=one.prompt, output=one.tokens, first=one.first, ended=one.ended)


def _told(played: Sequence[_Answer]) -> str:
    waits = ", ".join(f"{one.first - one.due:.2f}" for one in played)
    return f"first tokens after {waits or 'nothing asked'} s"


def _prefer(pid: int) -> None:
    """Into the real-time class, where that is permitted: as in every bench, the measured comes first."""
    for thread in (*Path(f"/proc/{pid}/task").iterdir(), Path(str(os.getpid()))):
        try:
            os.sched_setscheduler(int(thread.name), os.SCHED_RR, os.sched_param(10))
        except PermissionError:
            return


if __name__ == "__main__":
    main()
