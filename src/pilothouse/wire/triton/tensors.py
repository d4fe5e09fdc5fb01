"""
The same fields as tensors, which is how they go over gRPC.

The one idea: as Triton's generate extension does it. A field that the model has an input
for is that tensor, of the type that the model says; any other is a parameter.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from pilothouse.domain.errors import InvalidRequest, UpstreamError
from pilothouse.domain.tensors import Inferred, InferRequest, Scalar, Tensor, TensorFault, data_type, fitting
from pilothouse.wire.kserve_v2.about import TensorSpec
from pilothouse.wire.triton.outbound import Fields
from pilothouse.wire.triton.said import Event


def asked_as(fields: Fields, inputs: Sequence[TensorSpec]) -> InferRequest:
    """
    Args:
        inputs: What the model says that it takes.

    Raises:
        InvalidRequest: A value does not fit into its input.
    """
    known = {one.name: one for one in inputs}
    beside = fields.get("parameters", {})
    given = {**{name: value for name, value in fields.items() if value is not beside}, **beside}
    try:
        tensors = tuple(_tensor(known[name], value) for name, value in given.items() if name in known)
    except TensorFault as exc:
        raise InvalidRequest(f"the request cannot be sent to this engine: {exc}") from exc
    parameters: dict[str, Scalar] = {
        name: value for name, value in given.items() if name not in known and isinstance(value, Scalar)
    }
    return InferRequest(endpoint="", inputs=tensors, parameters=parameters)


def event_of(inferred: Inferred) -> Event:
    """
    Raises:
        UpstreamError: A tensor is of another type than it should be.
    """
    try:
        said: dict[str, Any] = {one.name: one.texts() or list(one.values) for one in inferred.outputs}
        return msgspec.convert(said, Event)
    except (msgspec.ValidationError, TensorFault) as exc:
        raise UpstreamError("Triton's answer cannot be read") from exc


def _tensor(known: TensorSpec, value: Any) -> Tensor:
    """Of a model with a dimension for batches too: every one but the last is of one."""
    values = value if isinstance(value, list) else [value]
    datatype = data_type(known.datatype, known.name)
    shape = (1,) * (len(known.shape) - 1) + (len(values),)
    return Tensor(known.name, datatype, shape, fitting(values, datatype, known.name))
