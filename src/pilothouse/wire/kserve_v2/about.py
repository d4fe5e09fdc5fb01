"""What servers say of themselves and of their models, and of what went wrong."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from pilothouse.domain.tensors import TensorFault

NAME = "pilothouse"
EXTENSIONS = ("binary_tensor_data", "generate")
MAX_MESSAGE = 500
_encode = msgspec.json.Encoder().encode


class TensorSpec(Struct, frozen=True):
    """A tensor that a model takes or gives; -1 is a dimension of any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Struct, frozen=True, kw_only=True):
    name: str
    versions: list[str] | None = None
    platform: str = ""
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []


class ServerMetadata(Struct, frozen=True, kw_only=True):
    name: str
    version: str = ""
    extensions: list[str] = []


_Shape = TypeVar("_Shape", ModelMetadata, ServerMetadata)


class _Fault(Struct):
    error: Annotated[str, Meta(max_length=1024 * 1024)] | dict[str, Any] = ""


def write(value: ModelMetadata | ServerMetadata) -> bytes:
    return _encode(value)


def write_flag(**flags: bool | str) -> bytes:
    """What `live` and `ready` say: `{"live":true}`."""
    return _encode(flags)


def write_error(message: str, more: Mapping[str, str] | None = None) -> bytes:
    """The protocol's error is one text; `more` stands beside it."""
    return _encode({"error": message, **(more or {})})


def read_server(body: bytes) -> ServerMetadata:
    return _read(body, ServerMetadata)


def read_model(body: bytes) -> ModelMetadata:
    return _read(body, ModelMetadata)


def read_error(body: bytes) -> str:
    """The server's words, "" where it has none that can be read. They are for us, never for a caller."""
    try:
        fault = msgspec.json.decode(body, type=_Fault).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return fault[:MAX_MESSAGE] if isinstance(fault, str) else ""


def _read(body: bytes, shape: type[_Shape]) -> _Shape:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise TensorFault(f"what the server says of itself cannot be read: {exc}") from exc
