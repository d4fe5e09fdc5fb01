"""
Shapes of the catalogue's models, for planning before anything is pulled.

From the models' published configurations, compiled with `domain.catalogue`. A model
whose shape is not known for certain is absent: pull it, and its file will say.
"""

from pilothouse.domain.catalogue import CatalogueModel
from pilothouse.domain.model import ModelHeader

_SHAPES: dict[str, tuple[str, int, int, int, int, int, int, int]] = {
    # architecture, layers, embedding, heads, key-value heads, head size, vocabulary, experts
    "llama-3.2-1b": ("llama", 16, 2048, 32, 8, 64, 128_256, 0),
    "llama-3.2-3b": ("llama", 28, 3072, 24, 8, 128, 128_256, 0),
    "gemma-3-1b": ("gemma3", 26, 1152, 4, 1, 256, 262_144, 0),
    "gemma-3-4b": ("gemma3", 34, 2560, 8, 4, 256, 262_144, 0),
    "smollm2-1.7b": ("llama", 24, 2048, 32, 32, 64, 49_152, 0),
    "phi-4-mini": ("phi3", 32, 3072, 24, 8, 128, 200_064, 0),
    "qwen3-0.6b": ("qwen3", 28, 1024, 16, 8, 128, 151_936, 0),
    "qwen3-1.7b": ("qwen3", 28, 2048, 16, 8, 128, 151_936, 0),
    "qwen3-4b": ("qwen3", 36, 2560, 32, 8, 128, 151_936, 0),
    "qwen3-8b": ("qwen3", 36, 4096, 32, 8, 128, 151_936, 0),
    "qwen3-14b": ("qwen3", 40, 5120, 40, 8, 128, 151_936, 0),
    "mistral-7b": ("llama", 32, 4096, 32, 8, 128, 32_768, 0),
    "mistral-small-24b": ("llama", 40, 5120, 32, 8, 128, 131_072, 0),
    "gpt-oss-20b": ("gpt-oss", 24, 2880, 64, 8, 64, 201_088, 32),
}


def shape_of(model: CatalogueModel) -> ModelHeader | None:
    """What its header would say; None when that is not known here."""
    shape = _SHAPES.get(model.name)
    if shape is None:
        return None
    architecture, layers, embedding, heads, kv_heads, head_dim, tokens, experts = shape
    return ModelHeader(
        architecture=architecture,
        context_tokens=model.context_tokens,
        quantization=model.quantization,
        parameters=model.parameters,
        layers=layers,
        embedding_length=embedding,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        tokens=tokens,
        experts=experts,
    )
