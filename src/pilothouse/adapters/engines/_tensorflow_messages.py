"""
TensorFlow Serving's messages: to and from a row's values, signatures and states.

Belongs here: which field of a tensor holds which type, in one row. Does not: asking
(`_tensorflow_grpc`). It stands on the extra `grpc`.

Source: tensorflow/core/framework/tensor.proto and types.proto, tensorflow_serving/apis,
release 2.21.
"""

import struct
from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from pilothouse.adapters.engines import _serving_pb2 as pb
from pilothouse.domain.errors import InvalidRequest, OperationFailed, UpstreamError
from pilothouse.wire.tensorflow.signature import Signature, Tensor

SIGNATURES = "signature_def"
LOADING = frozenset({10, 20})
"""States of a version that will be there: START and LOADING."""
_TYPES = {
    1: ("DT_FLOAT", "float_val", "f"),
    2: ("DT_DOUBLE", "double_val", "d"),
    3: ("DT_INT32", "int_val", "i"),
    4: ("DT_UINT8", "int_val", "B"),
    5: ("DT_INT16", "int_val", "h"),
    6: ("DT_INT8", "int_val", "b"),
    7: ("DT_STRING", "string_val", ""),
    9: ("DT_INT64", "int64_val", "q"),
    10: ("DT_BOOL", "bool_val", "?"),
    17: ("DT_UINT16", "int_val", "H"),
    22: ("DT_UINT32", "uint32_val", "I"),
    23: ("DT_UINT64", "uint64_val", "Q"),
}
"""By number: its name, the field of a tensor for its values, and how bytes hold one."""
_NUMBERS = {name: number for number, (name, _, _) in _TYPES.items()}
_ONE_ROW = pb.Shape(dim=[pb.Dim(size=1)])
_VERSION, _LABEL = "/versions/", "/labels/"
_MOST_LENGTH_BYTES = 5
_Said = TypeVar("_Said", bound=Message)


def read(kind: type[_Said], data: bytes) -> _Said:
    """
    Raises:
        UpstreamError: It is no such message.
    """
    try:
        return kind.FromString(data)
    except DecodeError as exc:
        raise UpstreamError("the engine's answer is no message of the protocol") from exc


def spec_of(model: str) -> pb.ModelSpec:
    """
    Args:
        model: `NAME`, `NAME/versions/N` or `NAME/labels/LABEL`, as REST has it.

    Raises:
        OperationFailed: The version is no number.
    """
    name, _, label = model.partition(_LABEL)
    name, _, version = name.partition(_VERSION)
    spec = pb.ModelSpec(name=name, version_label=label)
    if version:
        if not version.isascii() or not version.isdigit() or int(version) >= 2**63:
            raise OperationFailed(f"provider_model: {version[:32]!r} is no version, which is a number")
        spec.version.value = int(version)
    return spec


def row_message(row: Mapping[str, Any], inputs: Mapping[str, Tensor]) -> dict[str, pb.Tensor]:
    """
    Tensors of one row each.

    Raises:
        InvalidRequest: A value does not fit into its tensor.
    """
    if gone := sorted(row.keys() - inputs.keys()):
        raise InvalidRequest(f"{gone[0]}: the model was loaded anew and takes it no more; ask again")
    return {name: _tensor(name, value, inputs[name].dtype) for name, value in row.items()}


def row_of_message(outputs: Mapping[str, pb.Tensor]) -> dict[str, Any]:
    """
    The value of each tensor of one row; a tensor of another shape or type has none.

    Raises:
        UpstreamError: Its bytes are not those of its type.
    """
    found = {}
    for name, one in outputs.items():
        if all(dim.size == 1 for dim in one.tensor_shape.dim) and one.dtype in _TYPES:
            found[name] = _value(name, one)
    return found


def signatures_of(answer: pb.MetadataAnswer) -> dict[str, Signature]:
    """
    Raises:
        UpstreamError: It has none.
    """
    if SIGNATURES not in answer.metadata:
        raise UpstreamError("the engine's metadata cannot be read")
    told = read(pb.Signatures, answer.metadata[SIGNATURES].value)
    return {
        name: Signature(_tensors(one.inputs), _tensors(one.outputs))
        for name, one in told.signature_def.items()
        if one.inputs
    }


def _tensor(name: str, value: Any, dtype: str) -> pb.Tensor:
    if dtype not in _NUMBERS:
        raise UpstreamError(f"the signature's input {name} is a {dtype}, which no value of a request is")
    number = _NUMBERS[dtype]
    content = value.encode() if isinstance(value, str) else value
    _, field, code = _TYPES[number]
    values: dict[str, Any] = {field: [content]}
    try:
        if code:
            struct.pack(f"<{code}", content)
        return pb.Tensor(dtype=number, tensor_shape=_ONE_ROW, **values)
    except (TypeError, ValueError, OverflowError, struct.error) as exc:
        raise InvalidRequest(f"{name}: the model takes a {dtype}, which {value!r:.40} is not") from exc


def _value(name: str, one: pb.Tensor) -> Any:
    dtype, field, code = _TYPES[one.dtype]
    if not one.tensor_content:
        values = getattr(one, field)
        if not values:
            # TensorFlow leaves zeros at a tensor's end out.
            return b"" if dtype == "DT_STRING" else False if dtype == "DT_BOOL" else 0
        return values[0]
    try:
        return struct.unpack(f"<{code}", one.tensor_content)[0] if code else _text(one.tensor_content)
    except (struct.error, ValueError) as exc:
        raise UpstreamError(f"the engine's tensor {name} does not hold what it should") from exc


def _text(content: bytes) -> bytes:
    """One string of a tensor's bytes: its length, seven bits a byte, the lowest first, and itself."""
    length = 0
    for i, byte in enumerate(content[:_MOST_LENGTH_BYTES]):
        length |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            if len(content) != i + 1 + length:
                break
            return content[i + 1 :]
    raise ValueError("no string")


def _tensors(told: Mapping[str, pb.TensorInfo]) -> dict[str, Tensor]:
    return {
        name: Tensor(
            _TYPES[one.dtype][0] if one.dtype in _TYPES else f"tensor of type {one.dtype}",
            bool(one.tensor_shape.dim) or one.tensor_shape.unknown_rank,
        )
        for name, one in told.items()
    }
