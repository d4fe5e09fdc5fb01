"""The published clients for Node find their services: against a scripted engine, and the real one."""

import json
import os
import subprocess
from typing import Any

from fixtures_node import FOLDER

RUN_S = 60


def said_by(node: str, script: str, served: Any) -> dict[str, Any]:
    env = {
        "PATH": os.environ["PATH"],
        "BASE_URL": served.base_url.removesuffix("/v1"),
        "API_KEY": served.api_key,
    }
    done = subprocess.run(
        [node, script], cwd=FOLDER, env=env, capture_output=True, text=True, timeout=RUN_S, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_anthropics_client_for_node_is_answered(node: str, served: Any) -> None:
    said = said_by(node, "anthropic.mjs", served)

    assert said["whole"] != ""
    assert said["streamed"] == said["message"] != ""
    assert said["reasons"] == ["max_tokens", "max_tokens"]
    assert said["tokens"] == [4, 4]
    assert {"chat", "vectors"} <= set(said["models"])
    assert said["refused"] == ["NotFoundError", 404, "model_not_found"]


def test_openais_client_for_node_is_answered(node: str, served: Any) -> None:
    said = said_by(node, "openai.mjs", served)

    assert said["whole"] == said["streamed"] != ""
    assert said["reason"] == "length"
    assert said["tokens"] == [4, 4]
    assert said["vectors"] == 2
    assert {"chat", "vectors"} <= set(said["models"])
    assert said["refused"] == ["NotFoundError", 404, "model_not_found"]
