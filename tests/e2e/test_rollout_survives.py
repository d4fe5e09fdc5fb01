"""The controller dies in the middle of a rollout under load: no request fails, and the rollout goes on."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client_rig import Client, wait_until
from program_rig import program
from program_shell import Shell

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def declared(model: Path) -> str:
    options = {"context_tokens": 512, "slots": 2}
    return json.dumps(
        {
            "version": 1,
            "models": {"capitals": {"source": f"file:{model}", "licence": "Apache-2.0"}},
            "deployments": {
                "v1": {"model": "capitals", "engine_options": options},
                "v2": {"model": "capitals", "engine_options": {**options, "context_tokens": 640}},
            },
            "endpoints": {
                "assistant": {
                    "routes": [{"deployment": "v1"}],
                    "judges": {"says_something": {"kind": "length", "min_chars": 1}},
                    "rollout": {"steps": [20, 50], "step_pairs": 8, "margin": 0.2, "alpha": 0.05},
                }
            },
        }
    )


def test_a_rollout_goes_on_after_its_controller_was_killed_and_no_request_fails(
    tmp_path: Path, smollm2_gguf: Path, record_property: Callable[[str, object], None]
) -> None:
    with program(tmp_path / "home", declared(smollm2_gguf)) as server:
        client, shell = Client(server, "assistant"), Shell(server)

        def rollout() -> dict[str, Any]:
            status, seen = client.call("GET", "/admin/v1/rollouts/assistant")
            return seen if status == 200 else {}

        def controller() -> int:
            return int(json.loads((server.home / "server.json").read_text())["pids"]["controller"])

        def engines() -> set[int]:
            status, page = client.call("GET", "/admin/v1/replicas")
            return (
                {one["pid"] for one in page["items"] if one["state"] == "ready"} if status == 200 else set()
            )

        wait_until(lambda: len(engines()) == 2, what="two replicas", within_s=60)
        running, killed = engines(), controller()
        with client.load(3) as outcomes:
            shell.run("rollout", "start", "assistant", "--to", "v2")
            wait_until(lambda: rollout().get("pairs", 0) >= 3, what="evidence", within_s=60)
            before, answered = rollout(), outcomes[200]

            os.kill(killed, signal.SIGKILL)
            back_s = wait_until(lambda: controller() != killed and rollout(), what="controller", within_s=30)
            after, meanwhile = rollout(), outcomes[200] - answered
            wait_until(lambda: rollout().get("ended_at"), what="decision", within_s=120)
            ended = rollout()

        assert set(outcomes) == {200}
        assert engines() == running, "engines are adopted, none is started twice"

    assert before["phase"] == "canary"
    assert (after["id"], after["weight"] > 0) == (before["id"], True)
    assert ended["id"] == before["id"]
    assert ended["phase"] == "promoted", ended["reason"]
    assert ended["pairs"] > before["pairs"]
    note = f"the controller answered again after {back_s:.1f} s; {meanwhile} answers meanwhile, none failed"
    record_property("note", note)
