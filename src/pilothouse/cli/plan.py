"""`pilothouse plan`: what a model needs, whether it fits here, and what it costs where."""

from pathlib import Path

import click
import psutil

from pilothouse.app.model_facts import find_facts
from pilothouse.cli.checks import free_bytes
from pilothouse.cli.options import json_option
from pilothouse.cli.output import Output
from pilothouse.cli.text import dollars, size
from pilothouse.config import make_settings, read_prices
from pilothouse.domain.capacity import CapacityPlan, Match, Room, Slo, plan_capacity
from pilothouse.domain.duration import parse_duration_s
from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.instances import COMPILED_ON
from pilothouse.domain.prices import HOURS_PER_MONTH, Prices
from pilothouse.domain.sizing import Wish

SHOWN_A_CLOUD = 3


@click.command()
@click.argument("model")
@click.option(
    "--context", type=click.IntRange(1), metavar="N", help="Tokens of one request, with its answer."
)
@click.option("--concurrency", type=click.IntRange(1), metavar="N", help="Requests answered at once.")
@click.option(
    "--slo",
    "slos",
    multiple=True,
    metavar="NAME=TIME",
    help="tpot=50ms (a token) or ttft=1s (the first): rules out what cannot meet it. Repeatable.",
)
@click.option(
    "--prices",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Your prices an hour (docs/howto/plan-capacity.md); none are built in.",
)
@click.option("--all", "is_all", is_flag=True, help="Show every instance that fits, not the first few.")
@click.option(
    "--home", metavar="DIR", help="Folder of all state, with the registry (default: PILOTHOUSE_HOME)."
)
@json_option
def plan(
    model: str,
    *,
    context: int | None,
    concurrency: int | None,
    slos: tuple[str, ...],
    prices: Path | None,
    is_all: bool,
    home: str | None,
    is_json: bool,
) -> None:
    """
    What a model needs, and whether it fits here.

    MODEL is a GGUF file, a folder of safetensors, a model of this home's registry, or
    a name of `model suggest`. No server is needed.

    \b
    Example:
      pilothouse plan smollm2 --context 4096 --concurrency 8
      pilothouse plan qwen3-8b --slo tpot=50ms --prices prices.yaml
    """
    settings = make_settings(home=home)
    given = read_prices(prices) if prices else None
    made = plan_capacity(
        find_facts(model, settings),
        Wish(slots=concurrency or 0, context_tokens=context or 0),
        Room(
            memory_bytes=psutil.virtual_memory().available,
            disk_bytes=free_bytes(settings.home_path),
        ),
        slo=_slo(slos),
        prices=given,
    )
    out = Output(is_json=is_json)
    if is_json:
        out.json({"plan": made, "instances_compiled_on": COMPILED_ON, "prices_as_of": given and given.as_of})
        return
    _show(out, made, given, is_all=is_all)


def _slo(slos: tuple[str, ...]) -> Slo:
    found: dict[str, float | None] = {}
    for one in slos:
        name, _, time = one.partition("=")
        if name not in {"tpot", "ttft"}:
            raise InvalidRequest(f"--slo {one!r}: the name is tpot or ttft, as in tpot=50ms")
        found[f"{name}_s"] = parse_duration_s(time, param=f"--slo {name}")
    return Slo(**found)


def _show(out: Output, made: CapacityPlan, prices: Prices | None, *, is_all: bool) -> None:
    header, here = made.model.header, made.here
    fits = "yes" if here.fits else f"no: {here.remedy}"
    facts: dict[str, object] = {
        "model": f"{made.model.name} ({made.model.origin}, {made.model.format} {header.quantization}, "
        f"{header.parameters / 1e6:.0f}M parameters, {header.layers} layers, trained on "
        f"{header.context_tokens} tokens)",
        "memory": here.arithmetic,
        "fits here": f"{fits} ({size(here.free_bytes)} are free)",
        "disk": f"file {size(made.disk.file_bytes)}, {size(made.disk.free_bytes)} are free"
        + ("" if made.disk.fits else ": too little"),
        "disk, estimated": f"a full fine-tune's checkpoint {size(made.disk.checkpoint_bytes)}, "
        f"a LoRA adapter {size(made.disk.adapter_bytes)}, "
        f"a million full records at most {size(made.disk.answers_bytes)}",
    }
    if here.micro_usd_per_hour is not None:
        facts["cost here"] = _money(here.micro_usd_per_hour)
    out.facts(None, facts)
    out.line("\nQuantizations (sizes but for this file's are estimates):", style="bold")
    out.table(
        None,
        ("name", "file", "memory", "fits here", "quality"),
        [(q.name, size(q.file_bytes), size(q.total_bytes), q.fits, q.caveat) for q in made.quantizations],
    )
    splits = ", ".join(
        f"{s.tensor}x{s.pipeline} ({size(s.per_gpu_bytes)} a GPU)" for s in made.splits if s.pipeline == 1
    )
    pipelines = ", ".join(str(s.pipeline) for s in made.splits if s.tensor == 1)
    out.line(f"\nTensor splits that divide evenly: {splits}. Pipeline stages: {pipelines}.")
    _show_instances(out, made, prices, is_all=is_all)
    for note in made.notes:
        out.line(f"note: {note}")


def _show_instances(out: Output, made: CapacityPlan, prices: Prices | None, *, is_all: bool) -> None:
    out.line(f"\nGPU instances that hold it (hardware facts of {COMPILED_ON}):", style="bold")
    shown: list[Match] = []
    for cloud in ("aws", "gcp", "azure"):
        shown.extend([m for m in made.instances if m.cloud == cloud][: None if is_all else SHOWN_A_CLOUD])
    rows = [
        (
            match.cloud,
            match.instance,
            f"{match.gpus} x {match.gpu}",
            f"{match.tensor}x{match.pipeline}",
            f"{size(match.per_gpu_bytes)} of {size(match.usable_bytes)}",
            match.replicas,
            "-" if match.least_tpot_s is None else f"{match.least_tpot_s * 1000:.1f} ms",
            "" if match.meets_slo else "cannot",
            None if match.micro_usd_per_hour is None else _money(match.micro_usd_per_hour),
        )
        for match in shown
    ]
    columns = ("cloud", "instance", "gpus", "split", "a GPU", "replicas", "a token at best", "slo", "cost")
    out.table(None, columns, rows)
    if prices is None:
        out.line("Costs are shown when you give your prices: --prices FILE")
    else:
        out.line(f"Prices are yours, as of {prices.as_of}.")


def _money(micro_usd_per_hour: int) -> str:
    month = micro_usd_per_hour * HOURS_PER_MONTH
    return f"{dollars(micro_usd_per_hour)}/h, {dollars(month)}/month"
