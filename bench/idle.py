"""
What Pilothouse costs when nobody asks, and when few do: processor time by process.

The real engine is there and has nothing to do; the requests go to a mock, so that
what is counted is Pilothouse alone. A window is ten seconds.

    python bench/idle.py [--quick] [--json]
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from rig.engine import artifact
from rig.instruments import body_file, loading, mock
from rig.machine import cpu_s
from rig.report import Figure, Report, figure, options, publish, tell
from rig.server import Server, server

RATE = 20
"""Streamed requests a second."""
WINDOW_S, SETTLES_S = 10.0, 5.0
DELAY_US, EVENTS, INTERVAL_US = 20_000, 8, 5_000


def main() -> None:
    given = options(__doc__ or "").parse_args()
    windows = 1 if given.quick else 4
    with TemporaryDirectory(prefix="ph-idle-") as folder:
        figures = list(measured(Path(folder), windows))
    report = Report(
        bench="idle: what Pilothouse costs when nobody asks, and when few do",
        method=(
            f"{windows} windows of {WINDOW_S:.0f} s each, one worker, SmolLM2 asleep in its engine; "
            f"{RATE} requests a second are streamed from a mock"
        ),
        figures=figures,
    )
    publish(report, given)


def measured(folder: Path, windows: int) -> Iterator[Figure]:
    with mock(delay_us=DELAY_US, events=EVENTS, interval_us=INTERVAL_US) as port:
        spec = folder / "spec.json"
        spec.write_text(json.dumps(declared(port)))
        with server(folder / "home", config=spec) as house:
            time.sleep(SETTLES_S)
            yield from shares(house, windows, "nobody asks")
            body = body_file(folder, stream=True, model="m")
            argv = ["--port", str(house.port), "--body", str(body), "--connections", "32"]
            argv += ["--rate", str(RATE), "--seconds", "600"]
            with loading(argv, [f"Authorization: Bearer {house.admin_key}"]) as run:
                time.sleep(SETTLES_S)
                yield from shares(house, windows, f"{RATE} requests/s")
                if (found := run.end()).failed:
                    raise RuntimeError(f"{found.failed} requests failed: {found.fault}")


def declared(port: int) -> dict[str, object]:
    reach = {"base_url": f"http://127.0.0.1:{port}/v1", "allow_private_network": True, "max_inflight": 64}
    return {
        "version": 1,
        "models": {"smollm2": {"source": f"file:{artifact().path}", "licence": "Apache-2.0"}},
        "deployments": {
            "m": {"provider_model": "mock", "engine": "openai", "engine_options": reach},
            "smollm2": {"model": "smollm2", "engine_options": {"context_tokens": 512, "slots": 2}},
        },
        "endpoints": {name: {"routes": [{"deployment": name}]} for name in ("m", "smollm2")},
    }


def shares(house: Server, windows: int, when: str) -> list[Figure]:
    """Of a core, by role, in per cent."""
    pids = house.state()["pids"]
    roles = {
        "supervisor": pids["supervisor"],
        "controller": pids["controller"],
        "worker": pids["workers"][0],
        "engine": next(one["pid"] for one in house.get("/admin/v1/replicas")["items"] if one["pid"]),
    }
    found: dict[str, list[float]] = {role: [] for role in roles}
    for _ in range(windows):
        before = {role: cpu_s(pid, alone=True) for role, pid in roles.items()}
        began = time.monotonic()
        time.sleep(WINDOW_S)
        passed_s = time.monotonic() - began
        for role, pid in roles.items():
            found[role].append((cpu_s(pid, alone=True) - before[role]) / passed_s * 100)
    for role, seen in found.items():
        tell(f"{when}: {role} {', '.join(f'{share:.2f}' for share in seen)} %")
    return [figure(f"{when}: {role}", seen, unit="% of a core") for role, seen in found.items()]


if __name__ == "__main__":
    main()
