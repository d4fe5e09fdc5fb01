"""
What the configuration beside safetensors files says of a model.

For planning only: such files are served by engines on GPUs. The one idea is that
of `gguf_model`: facts are read, or the folder is refused; nothing is guessed.
"""

from collections import Counter
from collections.abc import Mapping

from msgspec import Struct

from pilothouse.domain.errors import ModelFileRefused
from pilothouse.domain.model import ModelHeader

MAX_NUMBER = 1 << 31


class Weights(Struct, frozen=True, kw_only=True):
    """All tensors of a model together."""

    elements: int
    bytes_by_type: dict[str, int]


def read_config(config: Mapping[str, object], weights: Weights) -> ModelHeader:
    """
    The facts of a model from its `config.json` and the headers of its tensors.

    Raises:
        ModelFileRefused: A fact that the plan needs is missing or no count.
    """
    # Models that see or hear keep the language model's part apart.
    inner = config.get("text_config")
    facts = inner if isinstance(inner, Mapping) else config
    heads = _count(facts, "num_attention_heads")
    embedding = _count(facts, "hidden_size")
    kind = config.get("model_type")
    types = Counter(weights.bytes_by_type)
    return ModelHeader(
        architecture=kind[:64] if isinstance(kind, str) and kind else "unknown",
        context_tokens=_count(facts, "max_position_embeddings"),
        quantization=types.most_common(1)[0][0],
        parameters=weights.elements,
        layers=_count(facts, "num_hidden_layers"),
        embedding_length=embedding,
        heads=heads,
        kv_heads=_count(facts, "num_key_value_heads", default=heads),
        head_dim=_count(facts, "head_dim", default=embedding // heads),
        tokens=_count(facts, "vocab_size"),
        experts=max(_count(facts, name, default=0) for name in _EXPERTS),
    )


_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def _count(facts: Mapping[str, object], name: str, *, default: int | None = None) -> int:
    value = facts.get(name)
    if value is None and default is not None:
        return default
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < MAX_NUMBER:
        return value
    shown = "missing" if value is None else repr(value)[:40]
    raise ModelFileRefused(f"{name} in config.json is {shown}; it must be a count from 1 up")
