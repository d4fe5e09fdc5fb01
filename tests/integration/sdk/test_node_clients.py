"""The published clients for Node find their services: against a scripted engine, and the real one."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "node"
INSTALL_S = 180
RUN_S = 60


@pytest.fixture(scope="session")
def node() -> str:
    """Node, with the locked clients installed beside their lock."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if found is None or npm is None:
        pytest.skip("node and npm are not installed")
    installed = FOLDER / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (FOLDER / "package-lock.json").stat().st_mtime:
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
        try:
            done = subprocess.run(
                command, cwd=FOLDER, capture_output=True, text=True, timeout=INSTALL_S, check=False
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm ci took longer than {INSTALL_S} s")
        if done.returncode:
            pytest.skip(f"npm ci failed: {done.stderr.strip().splitlines()[-1:]}")
    return found


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
