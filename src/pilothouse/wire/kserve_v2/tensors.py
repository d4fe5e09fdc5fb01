"""
Tensors as JSON and as bytes.

As JSON the values are a flat or nested list; BYTES are texts there. As bytes they
are little-endian, one after the other; an element of BYTES has its length before it,
in four bytes. Both are bounded before anything is made of them.
"""

import struct
from collections.abc import Mapping, Sequence

from pilothouse.domain.tensors import (
    MAX_DIMENSIONS,
    MAX_ELEMENTS,
    NO_PARAMETERS,
    DataType,
    Scalar,
    Tensor,
    TensorFault,
    Values,
    count_of,
    fitting,
)

_CODES: dict[DataType, str] = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
_LENGTH = struct.Struct("<I")


def from_json(
    name: str,
    datatype: DataType,
    shape: Sequence[int],
    data: object,
    parameters: Mapping[str, Scalar] = NO_PARAMETERS,
) -> Tensor:
    """
    Raises:
        TensorFault: The values are not of the type, or not as many as the shape says.
    """
    count = count_of(shape, name)
    flat: list[object] = []
    _flatten(data if isinstance(data, list) else [data], flat, MAX_DIMENSIONS, name)
    if len(flat) != count:
        raise TensorFault(f"{name}: data has {len(flat)} values, and shape {list(shape)} says {count}")
    return Tensor(name, datatype, tuple(shape), fitting(flat, datatype, name), parameters)


def to_json(tensor: Tensor) -> Sequence[bool | int | float | str]:
    """
    The flat list.

    Raises:
        TensorFault: BYTES that are no text, or a number that JSON has no form for.
    """
    if tensor.datatype == "BYTES":
        return tensor.texts()
    if tensor.datatype.startswith("FP") and any(
        value != value or value in _INFINITE for value in tensor.values
    ):
        raise TensorFault(f"{tensor.name}: JSON has no NaN and no infinity; ask for binary data")
    return [value for value in tensor.values if not isinstance(value, bytes)]


_INFINITE = (float("inf"), float("-inf"))


def from_raw(
    name: str,
    datatype: DataType,
    shape: Sequence[int],
    data: bytes,
    parameters: Mapping[str, Scalar] = NO_PARAMETERS,
) -> Tensor:
    """
    Raises:
        TensorFault: The bytes are not those of so many elements.
    """
    count = count_of(shape, name)
    return Tensor(name, datatype, tuple(shape), _read_raw(name, datatype, count, data), parameters)


def _read_raw(name: str, datatype: DataType, count: int, data: bytes) -> Values:
    if datatype == "BYTES":
        return _read_texts(name, count, data)
    code = struct.Struct(f"<{count}{_CODES[datatype]}")
    if len(data) != code.size:
        raise TensorFault(f"{name}: {len(data)} bytes of data, and {count} of {datatype} are {code.size}")
    return code.unpack(data)


def to_raw(tensor: Tensor) -> bytes:
    if tensor.datatype == "BYTES":
        return b"".join(
            _LENGTH.pack(len(value)) + value for value in tensor.values if isinstance(value, bytes)
        )
    return struct.pack(f"<{len(tensor.values)}{_CODES[tensor.datatype]}", *tensor.values)


def _read_texts(name: str, count: int, data: bytes) -> list[bytes]:
    values: list[bytes] = []
    place = 0
    for _ in range(count):
        if place + _LENGTH.size > len(data):
            raise TensorFault(f"{name}: the data ends after {len(values)} of {count} elements")
        (length,) = _LENGTH.unpack_from(data, place)
        place += _LENGTH.size
        if place + length > len(data):
            raise TensorFault(f"{name}: an element of {length} bytes is longer than what is left of the data")
        values.append(data[place : place + length])
        place += length
    if place != len(data):
        raise TensorFault(f"{name}: {len(data) - place} bytes are left behind its {count} elements")
    return values


def _flatten(data: list[object], into: list[object], depth: int, name: str) -> None:
    if not depth:
        raise TensorFault(f"{name}: data is nested deeper than {MAX_DIMENSIONS} lists")
    for value in data:
        if isinstance(value, list):
            _flatten(value, into, depth - 1, name)
        else:
            into.append(value)
        if len(into) > MAX_ELEMENTS:
            raise TensorFault(f"{name}: more than {MAX_ELEMENTS} values")
