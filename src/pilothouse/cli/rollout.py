"""`pilothouse rollout`: let a new version in, by evidence; and see what the evidence is."""

import math
from collections.abc import Iterator

import click

from pilothouse.cli.client import Json
from pilothouse.cli.get import quoted
from pilothouse.cli.output import Output
from pilothouse.cli.reach import Reach, client_command
from pilothouse.cli.text import ago

PATH = "/admin/v1/rollouts"
BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 40


@click.group()
def rollout() -> None:
    """
    Let a new version in step by step; it rolls itself back when it is worse.

    \b
    Example:
      pilothouse rollout start assistant --to assistant-v2
      pilothouse rollout status assistant
    """


@rollout.command("start")
@click.argument("endpoint")
@click.option("--to", metavar="DEPLOYMENT", help="A deployment that is declared.")
@click.option("--model", metavar="NAME[@VERSION]", help="A declared model: a deployment is made for it.")
@client_command
def start(reach: Reach, endpoint: str, *, to: str | None, model: str | None) -> None:
    """
    Begin: the candidate gets requests as soon as it is ready.

    How many, in which steps and how it is decided stands in the endpoint's `rollout` in the spec.

    \b
    Example:
      pilothouse rollout start assistant --to assistant-v2
      pilothouse rollout start assistant --model smollm2@2
    """
    body = {"endpoint": endpoint, "to": to, "model": model}
    show(reach.out, reach.server().post(PATH, {name: value for name, value in body.items() if value}))


@rollout.command("status")
@click.argument("endpoint")
@client_command
def status(reach: Reach, endpoint: str) -> None:
    """
    The rollout under way, or the last one, with its evidence.

    \b
    Example:
      pilothouse rollout status assistant
      pilothouse rollout status assistant --json
    """
    show(reach.out, reach.server().get_object(f"{PATH}/{quoted(endpoint)}"))


@rollout.command("promote")
@click.argument("endpoint")
@client_command
def promote(reach: Reach, endpoint: str) -> None:
    """
    Let the candidate serve all now, whatever the evidence says.

    \b
    Example:
      pilothouse rollout promote assistant
    """
    show(reach.out, reach.server().post(f"{PATH}/{quoted(endpoint)}/promote"))


@rollout.command("abort")
@click.argument("endpoint")
@client_command
def abort(reach: Reach, endpoint: str) -> None:
    """
    End it at once: nothing more goes to the candidate.

    \b
    Example:
      pilothouse rollout abort assistant
    """
    show(reach.out, reach.server().post(f"{PATH}/{quoted(endpoint)}/abort"))


def show(out: Output, item: Json) -> None:
    """The rollout as JSON, or as people read it: where it is, and how far the evidence is."""
    if out.is_json:
        out.json(item)
        return
    out.facts(
        item,
        {
            "endpoint": item["endpoint"],
            "phase": item["phase"],
            "reason": item["reason"],
            "candidate": candidate_of(item),
            "stable": item["stable"],
            "pairs": pairs_of(item),
            "started": ago(item["started_at"]),
        },
    )
    if item["scores"]:
        out.line("")
        rows = [score_cells(item, name) for name in item["scores"]]
        out.table(item, ("score", "pairs", "difference", "worse", "fine", "needed"), rows)
        for line in picture(item):
            out.line(line)


def candidate_of(item: Json) -> str:
    if item["ended_at"] is not None:
        part = "gets all" if item["phase"] == "promoted" else "gets nothing"
        return f"{item['candidate']} {part} since it ended {ago(item['ended_at'])}"
    return f"{item['candidate']} gets {item['weight']} % (steps {steps_of(item)})"


def pairs_of(item: Json) -> str:
    policy = item["policy"]
    if item["phase"] == "shadow":
        return f"{item['pairs']} of {policy['shadow_pairs']} unseen"
    unseen = f", {item['shadowed']} of them unseen" if item.get("shadowed") else ""
    return f"{item['pairs']} of at most {policy['max_pairs']}{unseen}"


def steps_of(item: Json) -> str:
    return ", ".join(map(str, item["policy"]["steps"]))


def score_cells(item: Json, name: str) -> tuple[object, ...]:
    score = item["scores"][name]
    return (
        name,
        score["pairs"],
        f"{score['mean_difference']:+.3f}",
        share(score["log_e_worse"], item["log_rollback_at"]),
        share(score["log_e_fine"], item["log_promote_at"]),
        score["is_required"],
    )


def share(log_e: float, bound: float) -> str:
    """How much of the evidence that is needed is there."""
    return f"{max(0.0, min(1.0, log_e / bound)):.0%}"


def picture(item: Json) -> Iterator[str]:
    """The strongest evidence against it, and the weakest for it, over the pairs."""
    points = [point for point in item["history"] if point["evidence"]]
    if len(points) < 2:
        return
    required = [name for name, score in item["scores"].items() if score["is_required"]]
    worse = [max(one[0] for one in point["evidence"].values()) for point in points]
    fine = [
        min((point["evidence"][name][1] for name in required if name in point["evidence"]), default=0.0)
        for point in points
    ]
    yield ""
    yield f"worse  {bars(worse, item['log_rollback_at'])}  rolled back when full"
    yield f"fine   {bars(fine, item['log_promote_at'])}  promoted when full"
    yield f"       pairs 1 to {points[-1]['pairs']}"


def bars(logs: list[float], bound: float) -> str:
    """One block a point, at most `WIDTH` of them; full is the bound."""
    step = max(1, math.ceil(len(logs) / WIDTH))
    chosen = [*logs[:-1:step], logs[-1]]
    heights = [max(0.0, min(1.0, value / bound)) for value in chosen]
    return "".join(BLOCKS[round(height * (len(BLOCKS) - 1))] for height in heights)
