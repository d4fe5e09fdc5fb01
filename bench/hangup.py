"""
A client hangs up: how long until the engine's slot is free again.

The real engine, asked for a long answer. In the middle the connection is closed
without a word, streaming and not; the engine's own list of slots says when it
stopped. Every run counts: the figure is the slowest one.

    python bench/hangup.py [--quick] [--json] [--runs N]
"""

import time

from rig.client import Door
from rig.report import Figure, Report, figure, options, publish, tell
from rig.server import Server, pulled_home, server, wait_until

ENDPOINT = "smollm2"
LONG = {
    "model": ENDPOINT,
    "prompt": "one, two, three, four, five, six, seven, eight, nine, ten, one, two, three, four, five, six,",
    "max_tokens": 1000,
    "temperature": 0,
}


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument(
        "--runs", type=int, default=0, help="hang-ups of each kind; by default 20, with --quick 5"
    )
    given = parser.parse_args()
    runs = given.runs or (5 if given.quick else 20)
    with server(pulled_home()) as running:
        bench = _Hangups(running)
        kinds = {"streaming": [], "not streaming": []}
        for number in range(runs):
            kinds["streaming"].append(bench.hang_up(stream=True))
            kinds["not streaming"].append(bench.hang_up(stream=False))
            newest = ", ".join(f"{kind} {samples[-1]:.3f} s" for kind, samples in kinds.items())
            tell(f"run {number + 1} of {runs}: {newest}")
    figures: list[Figure] = []
    for kind, samples in kinds.items():
        figures.append(figure(f"{kind}, median", samples, unit="s"))
        figures.append(figure(f"{kind}, slowest", [max(samples)], unit="s", goal="<= 1"))
    report = Report(
        bench="hangup: slot free after the client is gone, real engine",
        method=f"{runs} hang-ups of each kind in mid-answer; the engine's /slots is asked every 5 ms",
        figures=figures,
    )
    publish(report, given)


class _Hangups:
    def __init__(self, running: Server) -> None:
        self._gateway = Door(running.url, key=running.admin_key)
        self._engine = Door(running.replica()["address"])

    def hang_up(self, *, stream: bool) -> float:
        """Seconds from closing the connection to a free slot."""
        wait_until("the engine is idle", lambda: not self._is_busy(), timeout_s=30)
        door = self._gateway.send("POST", "/v1/completions", {**LONG, "stream": stream})
        if stream:
            door.recv(4096)
        wait_until("the engine works", self._is_busy, timeout_s=30, every_s=0.005)
        time.sleep(0.3)
        if not self._is_busy():
            raise RuntimeError("the answer was over before the client could hang up: ask for a longer one")
        door.close()
        return wait_until("the slot is free", lambda: not self._is_busy(), timeout_s=30, every_s=0.005)

    def _is_busy(self) -> bool:
        return any(slot["is_processing"] for slot in self._engine.ask("GET", "/slots"))


if __name__ == "__main__":
    main()
