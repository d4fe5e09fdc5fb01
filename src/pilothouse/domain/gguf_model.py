"""
What a GGUF header says of a model.

Belongs here: the meaning of metadata keys, and which files are no model that
can be served. Does not: the format (`kit.gguf`). The one idea: facts are read
from the header or the file is refused; nothing is guessed from a file's name.

Source: the GGUF specification (standardised keys) and llama.cpp's file types.
"""

from collections import Counter

from pilothouse.domain.errors import ModelFileRefused
from pilothouse.domain.model import ModelHeader
from pilothouse.kit.gguf import Array, Gguf

FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
}
_GUESSED = 1024  # a flag that llama.cpp adds when a file does not say its type

_POOLING = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
_ENCODERS = frozenset(
    {"bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3"}
)
"""Architectures that cannot generate: they embed even when no pooling is written down."""

MAX_TEMPLATE_CHARS = 256 * 1024
MAX_NAME_CHARS = 200
MAX_NUMBER = 1 << 31
_KINDS = {"adapter": "a LoRA adapter", "mmproj": "a vision projector", "imatrix": "an importance matrix"}


def read_model(gguf: Gguf) -> ModelHeader:
    """
    The facts of a model that can be served.

    Raises:
        ModelFileRefused: A part of a model, an adapter, a vocabulary without
            weights, or a header without the facts that every model has.
    """
    facts = _Facts(gguf)
    architecture = facts.text("general.architecture")
    _refuse_what_is_no_model(gguf, facts, architecture)
    embedding = facts.number(f"{architecture}.embedding_length")
    heads = facts.number(f"{architecture}.attention.head_count")
    return ModelHeader(
        architecture=architecture,
        context_tokens=facts.number(f"{architecture}.context_length"),
        quantization=_quantization(gguf, facts),
        parameters=sum(tensor.elements for tensor in gguf.tensors),
        layers=facts.number(f"{architecture}.block_count"),
        embedding_length=embedding,
        heads=heads,
        kv_heads=facts.number(f"{architecture}.attention.head_count_kv") or heads,
        head_dim=facts.number(f"{architecture}.attention.key_length") or (embedding // heads if heads else 0),
        chat_template=facts.text("tokenizer.chat_template", limit=MAX_TEMPLATE_CHARS),
        pooling=_pooling(facts, architecture),
        licence=facts.text("general.license"),
        experts=facts.number(f"{architecture}.expert_count"),
        tokens=facts.length("tokenizer.ggml.tokens") or facts.number(f"{architecture}.vocab_size"),
    )


class _Facts:
    """Metadata by key, with the type that the specification gives it."""

    def __init__(self, gguf: Gguf) -> None:
        self._metadata = gguf.metadata

    def text(self, key: str, *, limit: int = MAX_NAME_CHARS) -> str:
        value = self._metadata.get(key, "")
        if not isinstance(value, str):
            raise ModelFileRefused(f"{key} is {_shown(value)} in the header; it must be text")
        if len(value) > limit:
            raise ModelFileRefused(f"{key} has {len(value)} characters; at most {limit} are accepted")
        return value

    def number(self, key: str) -> int:
        """A count; where each layer has its own, the largest. 0 when absent."""
        value = self._metadata.get(key, 0)
        given = value.values if isinstance(value, Array) else (value,)
        counts = [item for item in given if isinstance(item, int) and 0 <= item < MAX_NUMBER]
        if len(counts) < len(given):
            raise ModelFileRefused(f"{key} is {_shown(value)} in the header; it must be a count")
        return max(counts, default=0)

    def length(self, key: str) -> int:
        value = self._metadata.get(key)
        return value.length if isinstance(value, Array) else 0


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."


def _refuse_what_is_no_model(gguf: Gguf, facts: _Facts, architecture: str) -> None:
    kind = facts.text("general.type")
    if kind in _KINDS or architecture == "clip":
        what = _KINDS.get(kind, "a vision projector")
        raise ModelFileRefused(f"the file is {what}, not a model; pull the model it belongs to")
    parts = facts.number("split.count")
    if parts > 1:
        raise ModelFileRefused(
            f"the file is one of {parts} parts; join them first: llama-gguf-split --merge FIRST JOINED.gguf"
        )
    if not architecture:
        raise ModelFileRefused("the header has no general.architecture: it does not describe a model")
    if not gguf.tensors:
        raise ModelFileRefused(
            "the file has a header and no weights: it is a vocabulary or a truncated download"
        )
    if not facts.number(f"{architecture}.context_length"):
        raise ModelFileRefused(
            f"the header does not say {architecture}.context_length, which every model has"
        )


def _quantization(gguf: Gguf, facts: _Facts) -> str:
    """What the header says, else the type that most of the weights' bytes have."""
    if "general.file_type" in gguf.metadata:
        named = FILE_TYPES.get(facts.number("general.file_type") & ~_GUESSED)
        if named:
            return named
    weights: Counter[str] = Counter()
    for tensor in gguf.tensors:
        weights[tensor.type] += tensor.bytes
    return weights.most_common(1)[0][0]


def _pooling(facts: _Facts, architecture: str) -> str:
    name = _POOLING.get(facts.number(f"{architecture}.pooling_type"), "")
    encodes = architecture in _ENCODERS
    return (name or "none") if encodes or name != "none" else ""
