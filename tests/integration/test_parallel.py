"""Two processes that share a model say what one says, and each holds half of it: PyTorch on processors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pilothouse.adapters.engines._environment import python_of
from tiny_llama import make_tiny_llama

BENCH = Path(__file__).parents[2] / "bench"
TORCH = next((name for name in ("vllm", "transformers") if Path(python_of(name)).exists()), "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not TORCH, reason="no engine with torch is here: pilothouse engine install transformers"
    ),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_llama(folder, engine=TORCH)
    argv = [sys.executable, str(BENCH / "parallel.py"), "--quick", "--json", "--model", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return {one["what"]: one["value"] for one in json.loads(done.stdout)["figures"]}


@pytest.mark.parametrize(("way", "apart"), [("tensor parallel", 1e-3), ("FSDP2", 0.0)])
def test_they_say_what_one_says(way: str, apart: float, found: dict[str, float]) -> None:
    assert found[f"{way}, 2 processes: largest difference of a logit"] <= apart


@pytest.mark.parametrize("way", ["tensor parallel", "FSDP2"])
def test_each_holds_half(way: str, found: dict[str, float]) -> None:
    whole = found["one process: parameters that one holds"]

    assert 0.5 * whole <= found[f"{way}, 2 processes: parameters that one holds"] < 0.55 * whole
