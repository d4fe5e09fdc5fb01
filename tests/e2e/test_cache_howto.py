"""The how-to of the cache does what it says: with the real program, the real models, and its own blocks."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOWTO = ROOT / "docs" / "howto" / "cache.md"

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", HOWTO.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PILOTHOUSE_", "XDG_", "PYTEST_"))}
    path = f"{Path(sys.executable).parent}:{kept['PATH']}"
    return {**kept, "PATH": path, "HOME": str(tmp_path), "PILOTHOUSE_HOME": str(tmp_path / "home")}


def test_the_how_to_of_the_cache_works_from_top_to_bottom(env: dict[str, str], tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    spec = tmp_path / "cache.yaml"
    spec.write_text(blocks("yaml")[0])
    up, ask, calibrate = (block.replace("8420", port) for block in blocks("sh"))
    up = up.replace("cache.yaml", f"{spec} --port {port}")
    waits = (
        "for i in $(seq 600); do pilothouse get endpoints --json | "
        "python -c \"import json,sys; x=json.load(sys.stdin)['items']; "
        "sys.exit(any(e['status']['phase'] != 'ready' for e in x))\" && break; sleep 0.2; done\n"
    )
    expected = [word for line in ask.splitlines() if (word := re.search(r"# (\w+)", line))]
    script = "trap 'pilothouse down >/dev/null 2>&1 || true' EXIT\n" + up + waits + ask + calibrate
    script += 'pilothouse spec | grep threshold\ncurl -s "http://127.0.0.1:' + port + '/metrics"\n'

    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    said = re.findall(r"(?im)^x-pilothouse-cache: (\w+)", done.stdout)
    assert said == [word[1] for word in expected]
    assert "set: endpoints.support.cache.semantic.threshold" in done.stdout
    assert re.search(r"threshold: 0\.9\d", done.stdout)
    assert 'result="semantic"} 1\n' in done.stdout
