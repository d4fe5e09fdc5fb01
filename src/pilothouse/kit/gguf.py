"""
Reads the header of a GGUF file: its metadata and its list of tensors.

Belongs here: the format, and bounds on everything that a header claims. Does
not: what the facts mean, and the tensors' contents. The one idea: a header is a
stranger's word, so each count and length is checked against a limit and against
the bytes that are there before anything is reserved for it.

Source: the GGUF specification, versions 2 and 3, and ggml's type table.
"""

import struct
from pathlib import Path

from msgspec import Struct

MAGIC = b"GGUF"
MAX_HEADER_BYTES = 64 * 1024 * 1024
"""Vocabularies of 262,144 tokens with their merges take about 15 MB."""
MAX_ENTRIES = 10_000
MAX_TENSORS = 65_536
MAX_ARRAY = 4 * 1024 * 1024
"""Vocabularies reach 262,144 tokens and some more merges."""
MAX_KEY_BYTES = 65_535
MAX_NAME_BYTES = 64
MAX_DIMENSIONS = 4
KEPT_ARRAY = 1024
"""Arrays of so many numbers keep their values (heads of each layer), longer ones only their length."""

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_STRING, _ARRAY = 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
"""ggml's tensor types that occur in files: name, elements of a block, bytes of a block."""


class GgufError(ValueError):
    """The bytes are not a header that may be believed; the text says which claim failed."""


class Array(Struct, frozen=True):
    length: int
    values: tuple[int | float, ...] = ()
    """Empty for strings and for more than `KEPT_ARRAY` numbers."""


Value = int | float | str | Array


class Tensor(Struct, frozen=True):
    name: str
    type: str
    elements: int
    bytes: int
    """0 where the type is not known here."""
    offset: int


class Gguf(Struct, frozen=True):
    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    header_bytes: int


def read(path: Path) -> Gguf:
    """
    Read the header of a file.

    Raises:
        GgufError: Not a GGUF header, or one that claims what cannot be.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(MAX_HEADER_BYTES)
        file_bytes = file.seek(0, 2)
    return parse(data, file_bytes=file_bytes)


def parse(data: bytes, *, file_bytes: int) -> Gguf:
    """
    Read a header from the first bytes of a file.

    Args:
        data: The beginning of the file, up to `MAX_HEADER_BYTES`.
        file_bytes: Size of the whole file, which the tensors must lie within.

    Raises:
        GgufError: Not a GGUF header, or one that claims what cannot be.
    """
    cursor = _Cursor(data, whole=len(data) >= file_bytes)
    version = _version(cursor)
    tensor_count = cursor.count("tensors", MAX_TENSORS)
    entry_count = cursor.count("metadata entries", MAX_ENTRIES)
    metadata: dict[str, Value] = {}
    for _ in range(entry_count):
        key = cursor.text("a metadata key", MAX_KEY_BYTES)
        if key in metadata:
            raise GgufError(f"the metadata key {key!r} stands twice")
        metadata[key] = _value(cursor, key)
    alignment = _alignment(metadata)
    tensors = tuple(_tensor(cursor, alignment) for _ in range(tensor_count))
    start = -(-cursor.at // alignment) * alignment
    _check_places(tensors, room=file_bytes - start)
    return Gguf(version, metadata, tensors, cursor.at)


class _Cursor:
    """Walks over the bytes; whatever would pass the end raises."""

    __slots__ = ("_data", "_whole", "at")

    def __init__(self, data: bytes, *, whole: bool) -> None:
        self._data = data
        self._whole = whole
        self.at = 0

    def skip(self, size: int, what: str) -> int:
        """Step over `size` bytes that must be there; return where they begin."""
        begin = self.at
        if size > len(self._data) - begin:
            raise self._past_the_end(what)
        self.at = begin + size
        return begin

    def _past_the_end(self, what: str) -> GgufError:
        if self._whole:
            return GgufError(f"the file ends within {what}: it is truncated or lies")
        return GgufError(f"the header is larger than {len(self._data)} bytes, at {what}")

    def raw(self, size: int, what: str) -> bytes:
        begin = self.skip(size, what)
        return self._data[begin : begin + size]

    def u32(self, what: str) -> int:
        return int(_U32.unpack_from(self._data, self.skip(4, what))[0])

    def u64(self, what: str) -> int:
        return int(_U64.unpack_from(self._data, self.skip(8, what))[0])

    def count(self, what: str, limit: int) -> int:
        number = self.u64(f"the number of {what}")
        if number > limit:
            raise GgufError(f"it claims {number} {what}; at most {limit} are read")
        return number

    def text(self, what: str, limit: int) -> str:
        """A name: short, and exact, for two names must not look alike after a repair."""
        size = self.u64(f"the length of {what}")
        if size > limit:
            raise GgufError(f"{what} claims {size} bytes; at most {limit} are read")
        try:
            return self.raw(size, what).decode()
        except UnicodeDecodeError as exc:
            raise GgufError(f"{what} is not UTF-8") from exc

    def skip_strings(self, length: int, what: str) -> None:
        """Step over many strings quickly: a vocabulary has up to a quarter of a million."""
        data, at, end, unpack = self._data, self.at, len(self._data), _U64.unpack_from
        for _ in range(length):
            if at > end - 8:
                raise self._past_the_end(what)
            at += 8 + unpack(data, at)[0]
        if at > end:
            raise self._past_the_end(what)
        self.at = at


def _version(cursor: _Cursor) -> int:
    if cursor.raw(4, "the magic number") != MAGIC:
        raise GgufError("it does not begin with the bytes GGUF")
    version = cursor.u32("the version")
    if version in {2, 3}:
        return version
    if version == 1:
        raise GgufError("GGUF version 1 is no longer used by anything; convert the model again")
    if int.from_bytes(version.to_bytes(4, "little"), "big") in {2, 3}:
        raise GgufError("it is a big-endian GGUF file; only little-endian ones can be loaded here")
    raise GgufError(f"GGUF version {version} is unknown; 2 and 3 are read")


def _value(cursor: _Cursor, key: str) -> Value:
    what = f"the value of {key!r}"
    kind = cursor.u32(f"the type of {key!r}")
    if kind == _STRING:
        size = cursor.u64(f"the length of {key!r}")
        return cursor.raw(size, what).decode(errors="replace")
    if kind == _ARRAY:
        return _array(cursor, what)
    return _numbers(cursor, kind, 1, what)[0]


def _array(cursor: _Cursor, what: str) -> Array:
    kind = cursor.u32(f"the element type of {what}")
    length = cursor.count(f"elements in {what}", MAX_ARRAY)
    if kind == _ARRAY:
        raise GgufError(f"{what} is an array of arrays, which no model needs")
    if kind == _STRING:
        cursor.skip_strings(length, what)
        return Array(length)
    if length > KEPT_ARRAY:
        cursor.skip(length * struct.calcsize("<" + _code(kind, what)), what)
        return Array(length)
    return Array(length, _numbers(cursor, kind, length, what))


def _numbers(cursor: _Cursor, kind: int, length: int, what: str) -> tuple[int | float, ...]:
    layout = struct.Struct(f"<{length}{_code(kind, what)}")
    return layout.unpack(cursor.raw(layout.size, what))


def _code(kind: int, what: str) -> str:
    code = _NUMBERS.get(kind)
    if code is None:
        raise GgufError(f"{what} has the unknown type {kind}")
    return code


def _alignment(metadata: dict[str, Value]) -> int:
    value = metadata.get("general.alignment", 32)
    if isinstance(value, int) and 8 <= value <= 65_536 and value & (value - 1) == 0:
        return value
    raise GgufError(f"general.alignment is {value!r}; it must be a power of two from 8 to 65536")


def _tensor(cursor: _Cursor, alignment: int) -> Tensor:
    name = cursor.text("a tensor's name", MAX_NAME_BYTES)
    what = f"the tensor {name!r}"
    count = cursor.u32(f"the dimensions of {what}")
    if count > MAX_DIMENSIONS:
        raise GgufError(f"{what} claims {count} dimensions; there are at most {MAX_DIMENSIONS}")
    shape = [cursor.u64(f"the shape of {what}") for _ in range(count)]
    elements = 1
    for size in shape:
        elements *= size
        if not 0 < elements < 1 << 62:
            raise GgufError(f"{what} has the impossible shape {shape}")
    kind = cursor.u32(f"the type of {what}")
    offset = cursor.u64(f"the offset of {what}")
    if offset % alignment:
        raise GgufError(f"{what} begins at {offset}, which is not a multiple of {alignment}")
    type_name, block, block_bytes = TENSOR_TYPES.get(kind, (f"type-{kind}", 1, 0))
    if (shape[0] if shape else 1) % block:
        raise GgufError(
            f"{what} has rows of {shape[0]} elements, not whole blocks of {block} as {type_name} needs"
        )
    return Tensor(name, type_name, elements, elements // block * block_bytes, offset)


def _check_places(tensors: tuple[Tensor, ...], *, room: int) -> None:
    """All tensors lie within the file, and none lies over another."""
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise GgufError("two tensors have the same name")
    end = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.offset < end:
            raise GgufError(f"the tensor {tensor.name!r} lies over another one")
        end = tensor.offset + tensor.bytes
        if end > room or tensor.offset >= room:
            raise GgufError(
                f"the tensor {tensor.name!r} ends at byte {end} of the data, of which the file has "
                f"{max(room, 0)}; the file is truncated or lies"
            )
