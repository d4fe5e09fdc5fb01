"""
Reads the header of a safetensors file: which tensors lie where.

Belongs here: the format and its bounds. Does not: the tensors' contents. As
with GGUF, every claim is checked against the bytes that are there.

Source: the safetensors format description: 8 bytes of header length, little
endian, a JSON object, then the data, without holes or overlaps.
"""

import os
from math import prod
from pathlib import Path

import msgspec
from msgspec import Struct

MAX_HEADER_BYTES = 16 * 1024 * 1024
MAX_TENSORS = 65_536
ELEMENT_BYTES = {
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F64": 8,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}


class SafetensorsError(ValueError):
    """Not a header that may be believed; the text says which claim failed."""


class Span(Struct, frozen=True):
    """Where a tensor lies in its file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int


class _Entry(Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def read(path: Path) -> dict[str, Span]:
    """
    Read the header of a file.

    Raises:
        SafetensorsError: Not safetensors, or a claim that cannot be.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        file_bytes = os.fstat(file.fileno()).st_size
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= min(MAX_HEADER_BYTES, file_bytes - 8):
            raise SafetensorsError(
                f"the header claims {size} bytes; the file is truncated or not safetensors"
            )
        header = file.read(size)
    return parse(header, data_bytes=file_bytes - 8 - size)


def parse(header: bytes, *, data_bytes: int) -> dict[str, Span]:
    """Read a header's JSON; `data_bytes` is the size of what follows it."""
    try:
        raw = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        raw.pop("__metadata__", None)
        entries = {name: msgspec.json.decode(value, type=_Entry) for name, value in raw.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise SafetensorsError(f"the header is not what safetensors has: {exc}") from exc
    if len(entries) > MAX_TENSORS:
        raise SafetensorsError(f"it claims {len(entries)} tensors; at most {MAX_TENSORS} are read")
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        _check(name, entry, end)
        end = entry.data_offsets[1]
    if end != data_bytes:
        raise SafetensorsError(
            f"the tensors take {end} bytes, but {data_bytes} are there: truncated, or it lies"
        )
    start = 8 + len(header)
    return {
        name: Span(entry.dtype, entry.shape, start + entry.data_offsets[0], _size(entry))
        for name, entry in entries.items()
    }


def _size(entry: _Entry) -> int:
    return entry.data_offsets[1] - entry.data_offsets[0]


def _check(name: str, entry: _Entry, end: int) -> None:
    element = ELEMENT_BYTES.get(entry.dtype)
    if element is None:
        raise SafetensorsError(f"the tensor {name!r} has the type {entry.dtype!r}, which is not read here")
    if any(size < 0 for size in entry.shape) or len(entry.shape) > 8:
        raise SafetensorsError(f"the tensor {name!r} has the impossible shape {entry.shape}")
    if entry.data_offsets[0] != end or _size(entry) != prod(entry.shape) * element:
        raise SafetensorsError(f"the tensor {name!r} does not lie where and as large as its shape says")
