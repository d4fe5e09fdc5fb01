"""
CPU seconds an answer token, through Pilothouse against the bare engine.

The real engine and the default model. A pair is one turn through the gateway,
charged with every process of Pilothouse and the engine, and one turn of the same
requests straight to the engine's socket, charged with the engine alone. The bare
requests name a slot and ask for its prefix, as the gateway's do; without that
the bare engine used more CPU than through the gateway (a ratio of 0.87), which
would flatter. A turn is short, and the order changes with each pair, for the speed of
a machine that is shared drifts within seconds: a short answer charges the gateway with
more requests a token, and is the harder case. The ratio is that of the totals, for what
Pilothouse does once a second falls into some turns and not into others. Each prompt
begins differently, so that neither finds the other's prefix in the cache.

    python bench/engine_overhead.py [--quick] [--json] [--pairs N]
"""

import itertools
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from rig.client import Door
from rig.machine import cpu_s
from rig.report import Figure, Report, figure, options, publish, tell, upper_bound_of_totals
from rig.server import Server, pulled_home, server

ENDPOINT = "smollm2"
TOKENS = 16
PAIRS, QUICK_PAIRS = 400, 60
"""With one at once, seconds of CPU a pair; half as many with more."""
STORY = "Tell a long story about the keeper of a lighthouse."


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument(
        "--pairs",
        type=int,
        default=0,
        help=f"interleaved pairs with one at once; by default {PAIRS}, with --quick {QUICK_PAIRS}",
    )
    given = parser.parse_args()
    pairs = given.pairs or (QUICK_PAIRS if given.quick else PAIRS)
    figures: list[Figure] = []
    with server(pulled_home()) as running:
        bench = _Pairs(running)
        figures += bench.measure(pairs, at_once=1)
        figures += bench.measure(pairs // 2, at_once=bench.slots)
    report = Report(
        bench="engine overhead: CPU an answer token, real engine and model",
        method=(
            f"{pairs} interleaved pairs, half as many with more at once; streamed answers of up to {TOKENS} "
            "tokens, one at once and as many as the engine has slots; the ratio is that of the totals, "
            "the bound the 95th percentile of those of bootstrapped pairs"
        ),
        peer="the same engine process, asked directly on its socket",
        figures=figures,
    )
    publish(report, given)


class _Pairs:
    def __init__(self, running: Server) -> None:
        replica = running.replica()
        state = running.state()["pids"]
        self._engine_pid: int = replica["pid"]
        self._all_pids = {state["supervisor"], state["controller"], *state["workers"], self._engine_pid}
        self._gateway = Door(running.url, key=running.admin_key)
        self._engine = Door(replica["address"])
        self._sides = ((self._gateway, self._all_pids), (self._engine, {self._engine_pid}))
        self._numbers = itertools.count()
        self.slots = len(self._engine.ask("GET", "/slots"))
        self._free_slots: SimpleQueue[int] = SimpleQueue()
        for slot in range(self.slots):
            self._free_slots.put(slot)

    def measure(self, pairs: int, *, at_once: int) -> list[Figure]:
        """Ratio of the CPU a token, and its parts, with so many requests at once."""
        through: list[float] = []
        bare: list[float] = []
        for door, pids in self._sides:  # warm both
            self._turn(door, pids, at_once)
        for number in range(pairs):
            ours, theirs = self._pair(at_once, is_odd=number % 2 == 1)
            through.append(ours)
            bare.append(theirs)
            if number % 10 == 9:
                tell(f"{at_once} at once, pair {number + 1} of {pairs}: {sum(through) / sum(bare):.4f}")
        return [
            figure(f"{at_once} at once: through Pilothouse", [1000 * s for s in through], unit="ms/token"),
            figure(f"{at_once} at once: bare engine", [1000 * s for s in bare], unit="ms/token"),
            Figure(
                what=f"{at_once} at once: ratio of the totals",
                value=sum(through) / sum(bare),
                unit="x",
                samples=pairs,
            ),
            Figure(
                what=f"{at_once} at once: 95% bound",
                value=upper_bound_of_totals(through, bare),
                unit="x",
                samples=pairs,
                goal="<= 1.03",
            ),
        ]

    def _pair(self, at_once: int, *, is_odd: bool) -> list[float]:
        """CPU seconds a token through the gateway, and of the bare engine."""
        found = [0.0, 0.0]
        for side in (0, 1) if is_odd else (1, 0):
            used, made = self._turn(*self._sides[side], at_once)
            found[side] = used / made
        return found

    def _turn(self, door: Door, pids: set[int], at_once: int) -> tuple[float, int]:
        """CPU seconds and tokens of so many requests at once."""
        before = _cpu_s(pids)
        with ThreadPoolExecutor(at_once) as pool:
            tokens = sum(pool.map(lambda _: self._answer(door), range(at_once)))
        return _cpu_s(pids) - before, tokens

    def _answer(self, door: Door) -> int:
        """Ask for one answer; its tokens."""
        body: dict[str, Any] = {
            "model": ENDPOINT,
            "messages": [{"role": "user", "content": f"{next(self._numbers):06}. {STORY}"}],
            "max_tokens": TOKENS,
            "temperature": 0.0,
            "stream_options": {"include_usage": True},
        }
        slot = self._free_slots.get()
        if door is self._engine:
            body |= {"id_slot": slot, "cache_prompt": True}
        tokens = 0
        for event in door.stream("/v1/chat/completions", body):
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
        self._free_slots.put(slot)
        if not tokens:
            raise RuntimeError("the stream ended without its usage")
        return tokens


def _cpu_s(pids: set[int]) -> float:
    """Of these processes alone: the engine is charged once, whoever is its parent."""
    return sum(cpu_s(pid, alone=True) for pid in pids)


if __name__ == "__main__":
    main()
