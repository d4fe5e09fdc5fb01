"""`pilothouse simulate`: the production policies over virtual replicas and traffic."""

import math
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from msgspec.structs import asdict, replace

from pilothouse.cli.options import json_option
from pilothouse.cli.output import Output
from pilothouse.cli.text import dollars
from pilothouse.config import read_prices, read_values
from pilothouse.domain.errors import InvalidRequest
from pilothouse.simulate.calibrate import TIMES, Answered, distance, fit
from pilothouse.simulate.run import simulate as run
from pilothouse.simulate.scenario import Scenario, check
from pilothouse.simulate.tally import Group, Outcome

SHOWN_DECISIONS = 20


@click.command()
@click.option(
    "-f",
    "--file",
    "file",
    type=click.Path(path_type=Path),
    required=True,
    metavar="SCENARIO",
    help="Scenario file (docs/howto/simulate.md).",
)
@click.option("--seed", type=int, metavar="N", help="In the place of the file's own seed.")
@click.option("--prices", type=click.Path(path_type=Path), metavar="FILE", help="Your prices an hour.")
@click.option(
    "--fit",
    "answers",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="ANSWERS",
    help="Print how fast the engine is that gave these answers (bench --answers), and simulate nothing.",
)
@json_option
def simulate(
    *, file: Path, seed: int | None, prices: Path | None, answers: tuple[Path, ...], is_json: bool
) -> None:
    """
    Try a scenario of traffic and failures with the policies that production runs.

    Nothing real is started. The same file and seed give the same outcome.

    \b
    Example:
      pilothouse simulate -f scenario.yaml --prices prices.yaml
      pilothouse simulate -f scenario.yaml --fit answers.jsonl
    """
    scenario = read_values(file, Scenario, hint="see docs/howto/simulate.md")
    if answers:
        _fit(scenario, answers, Output(is_json=is_json))
        return
    if seed is not None:
        scenario = replace(scenario, seed=seed)
    outcome = run(scenario, prices=read_prices(prices) if prices else None)
    out = Output(is_json=is_json)
    if is_json:
        out.json(outcome)
        return
    _show(out, outcome)


def _fit(scenario: Scenario, files: Sequence[Path], out: Output) -> None:
    """Print the scenario's only engine as these answers show it to be."""
    check(scenario)
    if len(scenario.deployments) != 1:
        raise InvalidRequest("--fit is of one engine. fix: a scenario with one deployment")
    (deployment,) = scenario.deployments.values()
    plays = [_answers(file) for file in files]
    fitted = fit(plays, deployment.engine)
    fitted = replace(fitted, **{name: float(f"{getattr(fitted, name):.3g}") for name in TIMES})
    if out.is_json:
        out.json(fitted)
        return
    fields = ", ".join(f"{name}: {value}" for name, value in asdict(fitted).items())
    out.line(f"engine: {{{fields}}}")
    off = math.expm1(distance(plays, fitted))
    out.line(f"the times of {sum(map(len, plays))} answers are off by {off:.0%} in the mean")


def _answers(file: Path) -> list[Answered]:
    try:
        lines = file.read_bytes().splitlines()
    except OSError as exc:
        raise InvalidRequest(f"{file} cannot be read: {exc.strerror}") from exc
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(msgspec.json.decode(line, type=Answered))
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise InvalidRequest(f"{file}:{number}: {exc}. fix: pilothouse bench --answers") from exc
    return sorted(found, key=lambda one: one.began)


def _show(out: Output, outcome: Outcome) -> None:
    out.facts(
        None,
        {
            "simulated": f"{outcome.simulated_s:.0f} s, seed {outcome.seed}",
            "answered": f"{outcome.requests_per_s:.2f} requests/s, "
            f"{outcome.output_tokens_per_s:.0f} tokens/s",
            **{f"slo {name}": "met" if met else "MISSED" for name, met in outcome.met.items()},
        },
    )
    out.line("")
    columns = (
        "tenant",
        "requests",
        "ok",
        "failed",
        "in ttft slo",
        "ttft p50/p95/p99",
        "token p50",
        "latency p95",
    )
    out.table(None, columns, [_row(group) for group in (*outcome.tenants, outcome.total)])
    out.line("")
    out.table(
        None,
        ("deployment", "most replicas", "replica hours", "cost"),
        [
            (cost.deployment, cost.most_replicas, f"{cost.replica_hours:.3f}", _money(cost.micro_usd))
            for cost in outcome.deployments
        ],
    )
    if outcome.micro_usd_per_million_tokens is not None:
        out.line(
            f"{dollars(outcome.micro_usd_per_million_tokens)} per million tokens written, at your prices"
        )
    if outcome.decisions:
        out.line("\nDecisions:", style="bold")
        shown = outcome.decisions[:SHOWN_DECISIONS]
        out.table(None, ("at", "kind", "what"), [(f"{d.at_s:.0f} s", d.kind, d.what) for d in shown])
        counted = ", ".join(f"{count} {kind}" for kind, count in outcome.decision_counts.items())
        out.line(f"in all: {counted}")


def _row(group: Group) -> tuple[object, ...]:
    failed = ", ".join(f"{count} {code}" for code, count in sorted(group.codes.items()) if code != "ok")
    ttft, tpot, latency = group.ttft, group.tpot, group.latency
    return (
        group.name,
        group.requests,
        group.ok,
        failed,
        f"{group.within_ttft:.1%}",
        f"{ttft.p50_ms:.0f}/{ttft.p95_ms:.0f}/{ttft.p99_ms:.0f} ms" if ttft else None,
        f"{tpot.p50_ms:.1f} ms" if tpot else None,
        f"{latency.p95_ms:.0f} ms" if latency else None,
    )


def _money(micro_usd: int | None) -> str | None:
    return None if micro_usd is None else dollars(micro_usd)
