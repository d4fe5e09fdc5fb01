"""Small folders of safetensors, for whoever tests what reads them. Zeros, not a model that says anything."""

import json
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "max_position_embeddings": 128,
    "vocab_size": 16,
}


def make_safetensors(*, values: int = 4) -> bytes:
    """One tensor of 32-bit zeros."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4 * values)


def make_folder(folder: Path, **config: Any) -> Path:
    """A folder with weights, a configuration and a tokenizer's file."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(make_safetensors())
    return folder
