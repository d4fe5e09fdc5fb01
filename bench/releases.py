"""
What a change costs those who ask: rolling updates and canaries under load, on the real engine.

The engine's options are changed back and forth, so that every replica is
replaced again and again, until a thousand requests have been answered meanwhile;
then canaries are begun, one after the other, until a thousand more have.

    python bench/releases.py [--quick] [--json]
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rig.askers import asking
from rig.engine import artifact
from rig.report import Figure, Report, options, publish, tell
from rig.server import PILOTHOUSE, Server, server, wait_until

CLIENTS = 4
CONTEXTS = (512, 640)


def main() -> None:
    given = options(__doc__ or "").parse_args()
    requests = 100 if given.quick else 1000
    with TemporaryDirectory(prefix="ph-releases-") as folder:
        spec = Path(folder) / "spec.json"
        spec.write_text(json.dumps(declared(artifact().path)))
        with server(Path(folder) / "home", config=spec) as running:
            house = _House(running, spec)
            house.until_ready()
            figures = [
                *house.measure("updates", requests, house.update),
                *house.measure("canaries", requests, house.canary),
            ]
    report = Report(
        bench="releases: rolling updates and canaries under load, real engine",
        method=f"SmolLM2, replicas of 4 slots, {CLIENTS} clients, each request with a new connection",
        figures=figures,
    )
    publish(report, given)


def declared(model: str, *, context_tokens: int = CONTEXTS[0]) -> dict[str, Any]:
    own = {"model": "smollm2", "engine_options": {"context_tokens": context_tokens, "slots": 4}}
    return {
        "version": 1,
        "models": {"smollm2": {"source": f"file:{model}", "licence": "Apache-2.0"}},
        "deployments": {
            "updated": {**own, "replicas": {"min": 2, "max": 2}},
            "v1": {"model": "smollm2", "engine_options": {"context_tokens": 512, "slots": 4}},
            "v2": {"model": "smollm2", "engine_options": {"context_tokens": 768, "slots": 4}},
        },
        "endpoints": {
            "updates": {"routes": [{"deployment": "updated"}]},
            "canaries": {
                "routes": [{"deployment": "v1"}],
                "judges": {"says_something": {"kind": "length", "min_chars": 1}},
                "rollout": {"steps": [10, 50], "step_pairs": 20, "margin": 0.2, "alpha": 0.05},
            },
        },
    }


class _House:
    def __init__(self, running: Server, spec: Path) -> None:
        self._server, self._spec = running, spec
        self._changes = 0

    def measure(self, what: str, requests: int, change: Callable[[], str]) -> list[Figure]:
        done: list[str] = []
        with asking(self._server, what, at_once=CLIENTS, max_tokens=1) as askers:
            began = askers.answered
            while askers.answered - began < requests:
                done.append(change())
                tell(f"{what}: {done[-1]}, {dict(askers.outcomes)}")
        return [
            Figure(what=f"{what}: made meanwhile", value=len(done)),
            Figure(what=f"{what}: answered requests", value=askers.answered, goal=f">= {requests}"),
            Figure(
                what=f"{what}: failed requests", value=askers.failed + askers.outcomes["refused"], goal="<= 0"
            ),
        ]

    def update(self) -> str:
        """Replace every replica by one with another context."""
        self._changes += 1
        tokens = CONTEXTS[self._changes % 2]
        before = self._replicas("updated")
        self._spec.write_text(json.dumps(declared(artifact().path, context_tokens=tokens)))
        self._command("apply", "-f", str(self._spec))
        took = wait_until(
            "all are replaced",
            lambda: len(now := self._replicas("updated")) == 2 and not now & before,
            timeout_s=180,
        )
        return f"to {tokens} tokens in {took:.1f} s"

    def canary(self) -> str:
        """From the deployment that serves to the other one, decided by evidence."""
        routes = self._command("spec")["spec"]["endpoints"]["canaries"]["routes"]
        to = "v2" if routes[0]["deployment"] == "v1" else "v1"
        self._command("rollout", "start", "canaries", "--to", to)
        wait_until("it is decided", lambda: self._rollout()["ended_at"], timeout_s=300, every_s=0.2)
        ended = self._rollout()
        return f"{to} {ended['phase']} after {ended['pairs']} pairs"

    def until_ready(self) -> None:
        wait_until(
            "all are ready",
            lambda: len(self._replicas("updated")) == 2 and self._replicas("v1") and self._replicas("v2"),
            timeout_s=120,
        )

    def _rollout(self) -> dict[str, Any]:
        return dict(self._server.get("/admin/v1/rollouts/canaries"))

    def _replicas(self, deployment: str) -> set[int]:
        items = self._server.get("/admin/v1/replicas")["items"]
        return {one["pid"] for one in items if one["deployment"] == deployment and one["state"] == "ready"}

    def _command(self, *arguments: str) -> Any:
        argv = [str(PILOTHOUSE), *arguments, "--home", str(self._server.home), "--json"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
        return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
