"""`pilothouse cache`: end cached answers, and set the threshold of a semantic cache by evidence."""

from collections.abc import Iterator, Sequence
from math import sqrt
from operator import mul
from pathlib import Path

import click
import msgspec
from msgspec import Struct

from pilothouse.cli.client import Json, Server, as_items, as_object
from pilothouse.cli.reach import Reach, client_command
from pilothouse.domain import likeness
from pilothouse.domain.calibration import Line, Scored, choose_threshold, line_at
from pilothouse.domain.errors import InvalidRequest, NotFound, OperationFailed

THRESHOLDS = tuple(round(0.70 + 0.01 * step, 2) for step in range(30))
SHOWN = (0.70, 0.75, 0.80, 0.85, 0.90, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)
BATCH = 64
"""Texts that are embedded in one request."""


class Pair(Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a file of pairs: two questions, and whether one answer serves both."""

    a: str
    b: str
    same: bool
    kind: str = ""


@click.group()
def cache() -> None:
    """
    End cached answers, and calibrate what counts as the same question.

    \b
    Example:
      pilothouse cache purge --endpoint smollm2
    """


@cache.command("purge", short_help="End cached answers at once, everywhere.")
@click.option("--endpoint", metavar="NAME", help="Only answers of this endpoint.")
@click.option("--team", metavar="TEAM", help="Only answers of this team.")
@client_command
def purge(reach: Reach, *, endpoint: str | None, team: str | None) -> None:
    """
    End cached answers at once, in all workers and in a shared cache, for good.

    \b
    Example:
      pilothouse cache purge --endpoint smollm2
      pilothouse cache purge --team research
    """
    done = reach.server().call("POST", "/admin/v1/cache/purge", body={"endpoint": endpoint, "team": team})
    if reach.out.is_json:
        reach.out.json(done)
        return
    whose = f"of team {team}" if team else "of every team that this key may see"
    reach.out.line(f"purged: answers of {endpoint or 'all endpoints'}, {whose}")


@cache.command("calibrate", short_help="Choose the threshold of a semantic cache on examples.")
@click.option(
    "--pairs", "file", required=True, metavar="FILE", help="Labelled pairs, one JSON object a line."
)
@click.option(
    "--endpoint", "name", required=True, metavar="NAME", help="The endpoint with the semantic cache."
)
@click.option(
    "--most-wrong",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Share of the pairs that need two answers which may be taken for one.",
)
@click.option("--dry-run", is_flag=True, help="Only show; leave the threshold as it is.")
@client_command
def calibrate(reach: Reach, file: str, name: str, *, most_wrong: float, dry_run: bool) -> None:
    """
    Choose the threshold of an endpoint's semantic cache on labelled pairs, and set it.

    Each line of the file is {"a": "...", "b": "...", "same": true}: two questions,
    and whether one answer serves both. The chosen threshold has the most right
    hits among those with few enough wrong ones.

    \b
    Example:
      pilothouse cache calibrate --pairs bench/corpora/questions.jsonl --endpoint support
    """
    server = reach.server()
    found = server.get_object("/admin/v1/spec")
    spec = as_object(found.get("spec"))
    pairs = read_pairs(Path(file))
    scored = score(server, _embedder(spec, name), pairs)
    chosen = choose_threshold(scored, THRESHOLDS, most_wrong=most_wrong)
    if chosen is None:
        raise OperationFailed(
            f"no threshold keeps wrong hits within {most_wrong:.1%} of these pairs. fix: allow more with "
            "--most-wrong, bring pairs of your own, or leave the semantic cache off"
        )
    _show(reach, scored, chosen)
    if dry_run:
        return
    spec["endpoints"][name]["cache"]["semantic"]["threshold"] = chosen.threshold
    server.call("PUT", "/admin/v1/spec", body=spec, headers={"if-match": f'"{found["revision"]}"'})
    reach.out.line(f"set: endpoints.{name}.cache.semantic.threshold is {chosen.threshold}")


def read_pairs(path: Path) -> list[Pair]:
    """
    Raises:
        InvalidRequest: Names the line, or what both kinds of pairs are needed for.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as exc:
        raise InvalidRequest(f"cannot read {path}: {exc.strerror}. fix: name a file of pairs") from exc
    pairs: list[Pair] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                pairs.append(msgspec.json.decode(line, type=Pair))
            except (msgspec.DecodeError, UnicodeDecodeError) as exc:
                raise InvalidRequest(f"{path}, line {number}: {exc}") from exc
    if len({pair.same for pair in pairs}) < 2:
        raise InvalidRequest(
            f"{path} needs pairs with `same` true and pairs with false: without both nothing can be chosen"
        )
    return pairs


def score(server: Server, embedder: str, pairs: Sequence[Pair]) -> list[Scored]:
    """How near the pairs are, and whether their marks agree, as a worker would see it."""
    texts = list(dict.fromkeys(text for pair in pairs for text in (pair.a, pair.b)))
    vectors = dict(zip(texts, _vectors(server, embedder, texts), strict=True))
    marks = {text: likeness.marks_of(text) for text in texts}
    return [
        Scored(
            sum(map(mul, vectors[pair.a], vectors[pair.b])),
            likeness.agree(marks[pair.a], marks[pair.b]),
            pair.same,
            pair.kind,
        )
        for pair in pairs
    ]


def _vectors(server: Server, embedder: str, texts: Sequence[str]) -> Iterator[list[float]]:
    """Of length 1."""
    for start in range(0, len(texts), BATCH):
        body = {"model": embedder, "input": texts[start : start + BATCH], "encoding_format": "float"}
        for item in as_items({"items": as_object(server.call("POST", "/v1/embeddings", body=body))["data"]}):
            vector = [float(x) for x in item["embedding"]]
            length = sqrt(sum(map(mul, vector, vector))) or 1.0
            yield [x / length for x in vector]


def _embedder(spec: Json, name: str) -> str:
    endpoints = as_object(spec.get("endpoints"))
    if name not in endpoints:
        raise NotFound(f"there is no endpoint {name!r}. fix: pilothouse get endpoints")
    semantic = as_object(endpoints[name].get("cache") or {}).get("semantic")
    if not isinstance(semantic, dict):
        raise InvalidRequest(
            f"endpoint {name} has no semantic cache. fix: declare endpoints.{name}.cache as "
            "{exact_ttl: 1h, semantic: {embedder: ENDPOINT}}"
        )
    return str(semantic["embedder"])


def _show(reach: Reach, scored: Sequence[Scored], chosen: Line) -> None:
    lines = [line_at(scored, threshold) for threshold in sorted({*SHOWN, chosen.threshold})]
    rows = [
        (
            f"{line.threshold:.2f}{' <' if line.threshold == chosen.threshold else ''}",
            line.hits,
            line.wrong,
            f"{line.precision:.1%}",
            f"{line.recall:.1%}",
            f"{line.wrong_rate:.1%}",
            f"{line.wrong_rate_below:.1%}",
        )
        for line in lines
    ]
    value = {"chosen": msgspec.to_builtins(chosen), "items": msgspec.to_builtins(lines), "next": None}
    columns = ("threshold", "hits", "wrong", "precision", "recall", "wrong rate", "below (95 %)")
    reach.out.table(value, columns, rows)
