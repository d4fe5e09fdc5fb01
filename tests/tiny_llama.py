"""A small Llama of random weights as safetensors, made by the environment of an engine that has torch."""

import json
import subprocess
from pathlib import Path

import numpy as np

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


def add_adapter(folder: Path, name: str, *, rank: int = 8) -> None:
    """A LoRA adapter of random weights that changes what the model says."""
    place = folder / "adapters" / name
    place.mkdir(parents=True)
    told = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 8 * rank, "bias": "none"}
    (place / "adapter_config.json").write_text(json.dumps(told | {"target_modules": ["o_proj"]}))
    random = np.random.default_rng(7)
    width = json.loads((folder / "config.json").read_text())["hidden_size"]
    head: dict[str, object] = {}
    data = b""
    for layer in range(10):
        for part, shape in (("lora_A", (rank, width)), ("lora_B", (width, rank))):
            values = random.normal(size=shape).astype("<f4").tobytes()
            path = f"base_model.model.model.layers.{layer}.self_attn.o_proj.{part}.weight"
            head[path] = {
                "dtype": "F32",
                "shape": shape,
                "data_offsets": [len(data), len(data) + len(values)],
            }
            data += values
    text = json.dumps(head).encode()
    (place / "adapter_model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
