"""
Makes small GGUF files, honest or not, for tests of whatever reads them.

Written by hand and not with the `gguf` package, so that a test can lie in any
field. The weights are zeros: the header is real, the model is not.
"""

import struct
from collections.abc import Mapping

from msgspec import Struct

_CODES = {"u32": (4, "<I"), "i32": (5, "<i"), "f32": (6, "<f"), "bool": (7, "<?"), "u64": (10, "<Q")}


class Raw(Struct, frozen=True):
    """A value of a chosen type: `Raw(4, struct.pack("<I", 1))`."""

    type: int
    data: bytes


Field = str | int | float | bool | Raw | list[str] | list[int]

TINY: dict[str, Field] = {
    "general.architecture": "llama",
    "general.name": "tiny",
    "general.file_type": 0,
    "general.license": "apache-2.0",
    "llama.context_length": 128,
    "llama.block_count": 1,
    "llama.embedding_length": 8,
    "llama.attention.head_count": 2,
    "llama.attention.head_count_kv": 1,
    "tokenizer.ggml.tokens": ["<s>", "a", "b"],
    "tokenizer.chat_template": "{{ messages }}",
}
"""Metadata of a model as small as a model can be."""


class TensorClaim(Struct, frozen=True):
    """A tensor as the header claims it."""

    name: str = "token_embd.weight"
    shape: tuple[int, ...] = (8, 3)
    type: int = 0
    offset: int = 0


def make_gguf(
    metadata: Mapping[str, Field] | None = None,
    tensors: tuple[TensorClaim, ...] = (TensorClaim(),),
    *,
    version: int = 3,
    data_bytes: int = 96,
    seed: int = 0,
) -> bytes:
    """
    Return the bytes of a file.

    Args:
        data_bytes: Size of the weights after the header; 96 is what the default tensor needs.
        seed: Byte that the weights consist of; another one gives another digest.
    """
    fields = TINY if metadata is None else metadata
    parts = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(fields))]
    parts += [_string(key) + _field(value) for key, value in fields.items()]
    parts += [_tensor(tensor) for tensor in tensors]
    header = b"".join(parts)
    return header + b"\0" * (-len(header) % 32) + bytes([seed]) * data_bytes


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _field(value: Field) -> bytes:
    if isinstance(value, Raw):
        return struct.pack("<I", value.type) + value.data
    if isinstance(value, list):
        texts = all(isinstance(item, str) for item in value)
        items = b"".join(
            _string(item) if isinstance(item, str) else struct.pack("<I", item) for item in value
        )
        return struct.pack("<IIQ", 9, 8 if texts else 4, len(value)) + items
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    kind = "bool" if isinstance(value, bool) else "f32" if isinstance(value, float) else "u32"
    code, layout = _CODES[kind]
    return struct.pack("<I", code) + struct.pack(layout, value)


def _tensor(tensor: TensorClaim) -> bytes:
    dimensions = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
    return _string(tensor.name) + dimensions + struct.pack("<IQ", tensor.type, tensor.offset)
