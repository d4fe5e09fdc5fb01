"""
The bodies of TensorFlow Serving's REST API, rows ("instances") alone.

KServe's V1 protocol is the same for `:predict`, and has no signatures to tell.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from pilothouse.domain.errors import UpstreamError
from pilothouse.wire.tensorflow.signature import Signature, Tensor

_encode = msgspec.json.Encoder().encode


class _Dim(Struct, frozen=True):
    size: str = ""


class _Shape(Struct, frozen=True):
    dim: list[_Dim] = []
    unknown_rank: bool = False


class _Tensor(Struct, frozen=True):
    dtype: str = ""
    tensor_shape: _Shape = _Shape()


class _Signature(Struct, frozen=True):
    inputs: dict[str, _Tensor] = {}
    outputs: dict[str, _Tensor] = {}


class _Map(Struct, frozen=True):
    signature_def: dict[str, _Signature]


class _Fields(Struct, frozen=True):
    signature_def: _Map


class _Metadata(Struct, frozen=True):
    metadata: _Fields


class _Predictions(Struct, frozen=True):
    predictions: list[Any]


class _Fault(Struct, frozen=True):
    error: str = ""


_decode_metadata = msgspec.json.Decoder(_Metadata).decode
_decode_predictions = msgspec.json.Decoder(_Predictions).decode
_decode_fault = msgspec.json.Decoder(_Fault).decode
_BROKEN = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


def write_predict(signature: str, row: Mapping[str, Any]) -> bytes:
    return _encode({"signature_name": signature, "instances": [row]})


def read_predict(data: bytes, outputs: Mapping[str, str]) -> Mapping[str, Any]:
    """
    The tensors of the one row, by name; a row of a single tensor comes without its name.

    Raises:
        UpstreamError: It is no prediction of one row.
    """
    try:
        rows = _decode_predictions(data).predictions
    except _BROKEN as exc:
        raise UpstreamError("the engine's prediction cannot be read") from exc
    if len(rows) != 1:
        raise UpstreamError(f"the engine gave {len(rows)} predictions for one row")
    if isinstance(rows[0], dict):
        return rows[0]
    if len(outputs) == 1:
        return dict.fromkeys(outputs.values(), rows[0])
    raise UpstreamError("the engine's prediction has no names of tensors")


def read_signatures(data: bytes) -> dict[str, Signature]:
    """
    Raises:
        UpstreamError: It is no metadata.
    """
    try:
        told = _decode_metadata(data).metadata.signature_def.signature_def
    except _BROKEN as exc:
        raise UpstreamError("the engine's metadata cannot be read") from exc
    return {
        name: Signature(_tensors(one.inputs), _tensors(one.outputs))
        for name, one in told.items()
        if one.inputs
    }


def read_fault(data: bytes) -> str:
    """What an error says, "" where that cannot be read; it never reaches a caller."""
    try:
        return _decode_fault(data).error
    except _BROKEN:
        return ""


def _tensors(told: Mapping[str, _Tensor]) -> dict[str, Tensor]:
    return {
        name: Tensor(one.dtype, bool(one.tensor_shape.dim) or one.tensor_shape.unknown_rank)
        for name, one in told.items()
    }
