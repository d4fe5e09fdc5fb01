"""A small Llama of random weights as safetensors, made by the environment of an engine that has torch."""

import subprocess
from pathlib import Path

from pilothouse.adapters.engines._environment import python_of
from pilothouse.app.inspect_folder import inspect
from pilothouse.domain.model import Artifact

SCRIPT = Path(__file__).parent / "fixtures" / "make_tiny_llama.py"
CONTEXT_TOKENS = 1024


def make_tiny_llama(folder: Path, *, engine: str) -> Artifact:
    """
    Args:
        engine: Whose environment makes it: `transformers`, `vllm` or `torchserve`.
    """
    subprocess.run([python_of(engine), "-I", str(SCRIPT), str(folder)], check=True, timeout=300)
    found = inspect(folder)
    return Artifact(
        name="tiny",
        digest="sha256:aa",
        path=str(folder),
        bytes=found.bytes,
        header=found.header,
        format="safetensors",
    )
