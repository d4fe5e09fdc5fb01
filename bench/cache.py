"""
Processor time of a request by what the exact cache has for it: nothing declared, a miss, a hit.

The real worker, alone, against an instant mock. One connection, for identical
requests at the same time would share a generation and be no misses; a miss is
made with answers that end at once. Rounds are interleaved; ratios are taken
within a round.

    python bench/cache.py [--quick] [--json] [--rounds N]
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from pilothouse.domain.snapshot import CachePolicy
from rig.instruments import CHAT, load, mock
from rig.machine import cpu_s
from rig.report import Report, figure, options, publish, ratios, tell
from rig.worker import gateway_worker

CASES = {
    "off": None,
    "miss": CachePolicy(exact_ttl_s=0.0),
    "hit": CachePolicy(exact_ttl_s=3600.0),
}
ASKED = {**CHAT, "temperature": 0}


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument(
        "--rounds", type=int, default=0, help="interleaved rounds; by default 5, with --quick 2"
    )
    given = parser.parse_args()
    rounds = given.rounds or (2 if given.quick else 5)
    seconds = 1.0 if given.quick else 3.0
    found: dict[str, list[float]] = {name: [] for name in CASES}
    with TemporaryDirectory(prefix="ph-bench-") as folder, mock() as upstream:
        body = Path(folder) / "body.json"
        body.write_bytes(msgspec.json.encode(ASKED))
        for number in range(rounds):
            for name, policy in CASES.items():
                tell(f"round {number + 1}: {name}")
                with gateway_worker(upstream, cache=policy) as worker:
                    run = {"seconds": seconds, "connections": 1, "headers": worker.headers}
                    load(worker.port, body, **{**run, "seconds": 0.5})
                    before = cpu_s(worker.pid)
                    result = load(worker.port, body, **run)
                    found[name].append((cpu_s(worker.pid) - before) * 1e6 / result.answered)
    figures = [figure(f"processor time, {name}", values, unit="us") for name, values in found.items()]
    figures.append(figure("a miss to no cache", ratios(found["miss"], found["off"])))
    figures.append(figure("hits a second to misses", ratios(found["miss"], found["hit"]), goal=">= 1.6"))
    report = Report(
        bench="exact cache: processor time of a request",
        method=f"{rounds} interleaved rounds of {seconds:.0f} s on one connection, journal on, instant mock",
        peer="the same worker without a cache",
        figures=figures,
    )
    publish(report, given)


if __name__ == "__main__":
    main()
