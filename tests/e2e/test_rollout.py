"""A worse version is let in, caught and taken out by itself; then a good one is let in for good."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from client_rig import Client, wait_until
from program_rig import Program, program
from worse_model import make_worse

pytestmark = [pytest.mark.engine, pytest.mark.slow]
DECIDED_S = 120.0


def declared(good: Path, worse: Path) -> dict[str, Any]:
    options = {"context_tokens": 512, "slots": 2}
    return {
        "version": 1,
        "models": {
            "capitals": {"source": f"file:{good}", "licence": "Apache-2.0"},
            "cheaper": {"source": f"file:{worse}", "licence": "Apache-2.0"},
        },
        "deployments": {
            "v1": {"model": "capitals", "engine_options": options},
            "v2": {"model": "cheaper", "engine_options": options},
            "v3": {"model": "capitals", "engine_options": {**options, "context_tokens": 640}},
        },
        "endpoints": {
            "assistant": {
                "routes": [{"deployment": "v1"}],
                "judges": {"knows_it": {"kind": "contains", "text": "Paris"}},
                "rollout": {
                    "shadow_pairs": 4,
                    "steps": [20, 50],
                    "step_pairs": 5,
                    "margin": 0.2,
                    "alpha": 0.05,
                },
            }
        },
    }


class User:
    """The command line of the server that runs."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def json(self, *arguments: str) -> Any:
        argv = [str(Path(sys.executable).with_name("pilothouse")), *arguments]
        done = subprocess.run(
            [*argv, "--home", str(self._program.home), "--json"],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    def is_ready(self, *deployments: str) -> bool:
        items = self.json("get", "deployments")["items"]
        ready = {item["name"] for item in items if (item.get("status") or {}).get("ready")}
        return ready >= set(deployments)

    def has_ended(self) -> bool:
        return self.json("rollout", "status", "assistant")["ended_at"] is not None


@pytest.fixture
def server(tmp_path: Path, smollm2_gguf: Path) -> Iterator[Program]:
    worse = make_worse(smollm2_gguf, tmp_path / "worse.gguf")
    home = tmp_path / "home"
    with program(home, json.dumps(declared(smollm2_gguf, worse))) as running:
        yield running


def test_a_worse_version_is_rolled_back_by_itself_and_a_good_one_promoted(
    server: Program, record_property: Callable[[str, object], None]
) -> None:
    user, client = User(server), Client(server, "assistant")
    wait_until(lambda: user.is_ready("v1", "v2", "v3"), what="ready deployments", within_s=60)

    with client.load(3, rates=True) as outcomes:
        user.json("rollout", "start", "assistant", "--to", "v2")
        wait_until(user.has_ended, what="decision", within_s=DECIDED_S)
        worse = user.json("rollout", "status", "assistant")
        user.json("rollout", "start", "assistant", "--to", "v3")
        wait_until(user.has_ended, what="decision", within_s=DECIDED_S)
        good = user.json("rollout", "status", "assistant")

    assert worse["phase"] == "rolled_back", worse["reason"]
    caught_by = next(name for name in ("knows_it", "feedback:thumbs") if name in worse["reason"])
    assert worse["scores"]["answers"]["mean_difference"] == 0
    assert worse["scores"][caught_by]["mean_difference"] < 0  # a judge may have known before any thumb came
    assert good["phase"] == "promoted", good["reason"]
    assert good["shadowed"] >= 4
    assert "feedback:thumbs" in good["scores"]
    assert user.json("spec")["spec"]["endpoints"]["assistant"]["routes"][0]["deployment"] == "v3"
    failed = {what: count for what, count in outcomes.items() if what not in (200, ("rated", 202))}
    assert not failed
    record_property(
        "note", f"rolled back after {worse['pairs']} pairs, promoted after {good['pairs']}; {dict(outcomes)}"
    )
