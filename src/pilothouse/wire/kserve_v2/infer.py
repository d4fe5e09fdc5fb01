"""
Requests and answers of `infer`, in both directions.

A body is JSON; with the extension for binary data, the bytes of the tensors that
say `binary_data_size` follow it in their order, and the header
`Inference-Header-Content-Length` says where the JSON ends.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from pilothouse.domain.tensors import (
    NO_PARAMETERS,
    Inferred,
    InferRequest,
    Scalar,
    Tensor,
    TensorFault,
    data_type,
)
from pilothouse.wire.kserve_v2.tensors import from_json, from_raw, to_json, to_raw

LENGTH_HEADER = "inference-header-content-length"
MAX_TENSORS = 256
_SIZE, _WANTED, _SHARED = "binary_data_size", "binary_data", "shared_memory"

_Dimensions = list[Annotated[int, Meta(ge=0, le=2**40)]]


class _Tensor(Struct, kw_only=True):
    name: str
    datatype: str
    shape: _Dimensions
    parameters: dict[str, Any] = {}
    data: Any = None


class _Wanted(Struct, kw_only=True):
    name: str
    parameters: dict[str, Any] = {}


class _Request(Struct, kw_only=True, forbid_unknown_fields=True):
    inputs: Annotated[list[_Tensor], Meta(min_length=1, max_length=MAX_TENSORS)]
    outputs: Annotated[list[_Wanted], Meta(max_length=MAX_TENSORS)] | None = None
    parameters: dict[str, Any] | None = None
    id: str | None = None


class _Answer(Struct, kw_only=True):
    outputs: Annotated[list[_Tensor], Meta(max_length=MAX_TENSORS)]
    model_name: str = ""
    model_version: str | None = None
    parameters: dict[str, Any] | None = None
    id: str | None = None


class Asked(Struct, frozen=True):
    """A request that came in, and which of its answer's tensors are wanted as bytes: None is all."""

    request: InferRequest
    binary: frozenset[str] | None = frozenset()


_read_request = msgspec.json.Decoder(_Request).decode
_read_answer = msgspec.json.Decoder(_Answer).decode
_encode = msgspec.json.Encoder().encode


def write_request(request: InferRequest, *, binary: bool = False) -> tuple[bytes, int | None]:
    """
    The body, and where its JSON ends: None where nothing follows.

    Raises:
        TensorFault: A tensor that JSON cannot hold, unless `binary`.
    """
    body: dict[str, Any] = {"id": request.id} if request.id else {}
    parameters: dict[str, Scalar] = dict(request.parameters)
    if binary:
        parameters["binary_data_output"] = True
    if parameters:
        body["parameters"] = parameters
    if request.outputs:
        body["outputs"] = [{"name": name} for name in request.outputs]
    return _written(body, "inputs", request.inputs, lambda _: binary)


def write_answer(
    inferred: Inferred, *, model: str, request_id: str = "", binary: frozenset[str] | None = frozenset()
) -> tuple[bytes, int | None]:
    """
    As `write_request`.

    Args:
        binary: Names of the outputs to write as bytes; None is all.
    """
    body: dict[str, Any] = {"model_name": model, "model_version": "1"}
    if request_id:
        body["id"] = request_id
    if inferred.parameters:
        body["parameters"] = dict(inferred.parameters)
    return _written(body, "outputs", inferred.outputs, lambda name: binary is None or name in binary)


def read_request(body: bytes, length: int | None, *, endpoint: str) -> Asked:
    """
    Args:
        length: Where the JSON ends, if bytes follow it.

    Raises:
        TensorFault: What is wrong, with its field.
    """
    asked, raw = _parted(body, length, _read_request)
    parameters = dict(asked.parameters or {})
    is_binary = parameters.pop("binary_data_output", False) is True
    wanted = asked.outputs or []
    for one in wanted:
        for name in one.parameters.keys() - {_WANTED}:
            raise TensorFault(
                f"outputs.{one.name[:64]}.parameters.{name[:64]} is not supported; leave it out"
            )
    binary = frozenset(one.name for one in wanted if one.parameters.get(_WANTED, is_binary) is True)
    request = InferRequest(
        endpoint=endpoint,
        inputs=_tensors(asked.inputs, raw, _hints),
        outputs=tuple(one.name for one in wanted),
        parameters=_scalars(parameters),
        id=asked.id or "",
    )
    return Asked(request, None if is_binary and not wanted else binary)


def read_answer(body: bytes, length: int | None) -> Inferred:
    """As `read_request`."""
    answer, raw = _parted(body, length, _read_answer)
    # Servers say more in their answers' parameters than the protocol has: what is no scalar is nobody's.
    said = {name: one for name, one in (answer.parameters or {}).items() if _is_scalar(one)}
    return Inferred(outputs=_tensors(answer.outputs, raw, lambda _: NO_PARAMETERS), parameters=said)


def _written(
    body: dict[str, Any], place: str, tensors: Sequence[Tensor], is_binary: Callable[[str], bool]
) -> tuple[bytes, int | None]:
    written, raws = [], []
    for tensor in tensors:
        one: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if is_binary(tensor.name):
            raw = to_raw(tensor)
            raws.append(raw)
            one["parameters"] = {**tensor.parameters, _SIZE: len(raw)}
        else:
            if tensor.parameters:
                one["parameters"] = dict(tensor.parameters)
            one["data"] = to_json(tensor)
        written.append(one)
    head = _encode(body | {place: written})
    return (b"".join([head, *raws]), len(head)) if raws else (head, None)


def _parted(body: bytes, length: int | None, read: Any) -> tuple[Any, bytes]:
    if length is not None and not 0 <= length <= len(body):
        raise TensorFault(f"{LENGTH_HEADER}: {length} is more than the {len(body)} bytes of the body")
    head = body if length is None else body[:length]
    try:
        return read(head), body[len(head) :]
    except msgspec.ValidationError as exc:
        raise TensorFault(f"the body: {exc}") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise TensorFault("the body is not valid JSON") from exc
    except RecursionError as exc:
        raise TensorFault("the body is nested too deeply") from exc


def _tensors(
    found: list[_Tensor], raw: bytes, hints: Callable[[_Tensor], Mapping[str, Scalar]]
) -> tuple[Tensor, ...]:
    """In their order; all the bytes must be somebody's."""
    tensors, place = [], 0
    for one in found:
        kind = data_type(one.datatype, one.name)
        size = one.parameters.get(_SIZE)
        if size is None:
            tensors.append(from_json(one.name, kind, one.shape, one.data, hints(one)))
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(raw) - place:
            raise TensorFault(f"{one.name}: {_SIZE} is more than the bytes behind the JSON")
        if one.data is not None:
            raise TensorFault(f"{one.name}: it has both data and {_SIZE}")
        tensors.append(from_raw(one.name, kind, one.shape, raw[place : place + size], hints(one)))
        place += size
    if place != len(raw):
        raise TensorFault(f"{len(raw) - place} bytes behind the JSON belong to no tensor")
    return tuple(tensors)


def _hints(tensor: _Tensor) -> Mapping[str, Scalar]:
    if not tensor.parameters:
        return NO_PARAMETERS
    for name in tensor.parameters:
        if name.startswith(_SHARED):
            raise TensorFault(f"{tensor.name}: {name[:64]} is not supported; send the data itself")
    return _scalars({name: value for name, value in tensor.parameters.items() if name != _SIZE})


def _scalars(parameters: Mapping[str, Any]) -> dict[str, Scalar]:
    for name, value in parameters.items():
        if not _is_scalar(value):
            raise TensorFault(f"parameters.{name[:64]}: must be a text, a number, true or false")
    return dict(parameters)


def _is_scalar(value: object) -> bool:
    return isinstance(value, bool | int | float | str)
