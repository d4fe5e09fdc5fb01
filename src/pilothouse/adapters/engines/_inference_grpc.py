"""
The Open Inference Protocol over gRPC: GRPCInferenceService, with what Triton added to it.

Belongs here: its messages to and from our tensors. Does not: what a model's tensors
mean. It stands on the extra `grpc`: get it through `_extras.over_grpc`.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from pilothouse.adapters.engines import _inference_pb2 as pb
from pilothouse.adapters.engines._grpc import IDLE_S, Channel
from pilothouse.domain.errors import UpstreamError
from pilothouse.domain.tensors import Inferred, InferRequest, Scalar, Tensor, TensorFault, data_type
from pilothouse.wire.kserve_v2.about import ModelMetadata, ServerMetadata, TensorSpec
from pilothouse.wire.kserve_v2.tensors import from_json, from_raw, to_raw
from pilothouse.wire.triton import said

SERVICE = "/inference.GRPCInferenceService/"
FINAL = "triton_final_response"
"""Parameter of a streamed answer: nothing follows it."""
_HAS_REALS = "triton"
"""What its server calls itself that added `double_param`; the published protocol has no such parameter."""
_CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_Said = TypeVar("_Said", bound=Message)


class InferenceService:
    """A client of one server. `version` "" lets the server choose."""

    def __init__(self, channel: Channel, *, model: str, version: str = "") -> None:
        self._channel = channel
        self._model = model
        self._version = version
        self._reals: bool | None = None

    async def infer(self, request: InferRequest, *, deadline_s: float) -> Inferred:
        message = await self._message(request, deadline_s)
        data = await self._channel.unary(
            f"{SERVICE}ModelInfer", message.SerializeToString(), deadline_s=deadline_s
        )
        return from_message(_read(pb.InferAnswer, data))

    async def stream(
        self, request: InferRequest, *, deadline_s: float, idle_s: float = IDLE_S
    ) -> AsyncGenerator[Inferred, None]:
        """
        All answers to one request. Triton is asked to mark the last one (`FINAL`).

        Raises:
            PilothouseError: The server said that it failed, which only Triton does in words: it is read as
                Triton's.
        """
        answers = self.told(request, deadline_s=deadline_s, idle_s=idle_s)
        async with aclosing(answers):
            async for one in answers:
                if isinstance(one, str):
                    raise said.refused(one)
                yield one

    async def told(
        self, request: InferRequest, *, deadline_s: float, idle_s: float = IDLE_S
    ) -> AsyncGenerator[Inferred | str, None]:
        """As `stream`, with the server's own words where it said that it failed: they may hold a prompt."""
        asked = await self._message(request, deadline_s)
        asked.parameters["triton_enable_empty_final_response"].bool_param = True
        method = f"{SERVICE}ModelStreamInfer"
        told = self._channel.stream(method, asked.SerializeToString(), deadline_s=deadline_s, idle_s=idle_s)
        async with aclosing(told):
            async for data in told:
                one = streamed(data, model=self._model)
                yield one if isinstance(one, str) else from_message(one)

    async def live(self, *, deadline_s: float) -> bool:
        data = await self._channel.unary(f"{SERVICE}ServerLive", b"", deadline_s=deadline_s)
        return _read(pb.Live, data).live

    async def ready(self, *, deadline_s: float) -> bool:
        """Whether the model is. It may say so and fail: ask it something."""
        data = await self._channel.unary(f"{SERVICE}ModelReady", self._named(), deadline_s=deadline_s)
        return _read(pb.Ready, data).ready

    async def server(self, *, deadline_s: float) -> ServerMetadata:
        data = await self._channel.unary(f"{SERVICE}ServerMetadata", b"", deadline_s=deadline_s)
        told = _read(pb.ServerMetadata, data)
        return ServerMetadata(name=told.name, version=told.version, extensions=list(told.extensions))

    async def model(self, *, deadline_s: float) -> ModelMetadata:
        data = await self._channel.unary(f"{SERVICE}ModelMetadata", self._named(), deadline_s=deadline_s)
        told = _read(pb.ModelMetadata, data)
        return ModelMetadata(
            name=told.name,
            versions=list(told.versions),
            platform=told.platform,
            inputs=_specs(told.inputs),
            outputs=_specs(told.outputs),
        )

    async def counts(self, *, deadline_s: float) -> said.Counts:
        """Of Triton's: all versions of the model together."""
        data = await self._channel.unary(f"{SERVICE}ModelStatistics", self._named(), deadline_s=deadline_s)
        stats = [one.inference_stats for one in _read(pb.Statistics, data).model_stats]
        return said.Counts(
            success=sum(one.success.count for one in stats), fail=sum(one.fail.count for one in stats)
        )

    async def load_anew(self, *, deadline_s: float) -> None:
        """
        By Triton's repository.

        A load of what is loaded is done at once there, also where its process has ended.
        """
        named = pb.RepositoryModel(model_name=self._model).SerializeToString()
        for action in ("RepositoryModelUnload", "RepositoryModelLoad"):
            await self._channel.unary(f"{SERVICE}{action}", named, deadline_s=deadline_s)

    async def _message(self, request: InferRequest, deadline_s: float) -> pb.InferRequest:
        """A number with a fraction is asked for in the way that this server reads: it says who it is."""
        has_some = any(isinstance(value, float) for value in request.parameters.values())
        if has_some and self._reals is None:
            known = await self.server(deadline_s=deadline_s)
            self._reals = known.name.lower() == _HAS_REALS
        return to_message(request, model=self._model, version=self._version, reals=bool(self._reals))

    def _named(self) -> bytes:
        return pb.ModelName(name=self._model, version=self._version).SerializeToString()


def to_message(
    request: InferRequest, *, model: str, version: str = "", reals: bool = False
) -> pb.InferRequest:
    """
    Tensors go as raw bytes, which every server reads.

    Args:
        reals: Numbers with a fraction go as such; else as text, for other servers would not see them.
    """
    message = pb.InferRequest(model_name=model, model_version=version, id=request.id)
    for name, value in request.parameters.items():
        _set(message.parameters[name], value, reals=reals)
    for tensor in request.inputs:
        one = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        for name, value in tensor.parameters.items():
            _set(one.parameters[name], value, reals=reals)
        message.raw_input_contents.append(to_raw(tensor))
    for name in request.outputs:
        message.outputs.add(name=name)
    return message


def from_message(message: pb.InferAnswer) -> Inferred:
    """
    Raises:
        UpstreamError: A tensor that is none.
    """
    raws = message.raw_output_contents
    if raws and len(raws) != len(message.outputs):
        raise UpstreamError("the engine's answer has raw contents for some of its tensors only")
    try:
        tensors = [_tensor(one, raws[i] if raws else None) for i, one in enumerate(message.outputs)]
    except TensorFault as exc:
        raise UpstreamError(f"the engine's answer cannot be read: {exc}") from exc
    return Inferred(outputs=tuple(tensors), parameters=_parameters(message.parameters))


def streamed(data: bytes, *, model: str) -> pb.InferAnswer | str:
    """One answer of a stream, wrapped as Triton does or bare as MLServer does; a text is an error's."""
    told = _read(pb.Streamed, data)
    if told.id or told.parameters or told.outputs or told.raw or told.error_or_name == model.encode():
        return _read(pb.InferAnswer, data)
    if told.error_or_name:
        return told.error_or_name.decode(errors="replace")
    return _read(pb.InferAnswer, told.answer_or_version)


def _read(kind: type[_Said], data: bytes) -> _Said:
    try:
        return kind.FromString(data)
    except DecodeError as exc:
        raise UpstreamError("the engine's answer is no message of the protocol") from exc


def _tensor(one: pb.Tensor, raw: bytes | None) -> Tensor:
    kind = data_type(one.datatype, one.name)
    if raw is not None:
        return from_raw(one.name, kind, tuple(one.shape), raw)
    if kind not in _CONTENTS:
        raise TensorFault(f"{one.name}: {kind} has raw contents only")
    return from_json(one.name, kind, tuple(one.shape), list(getattr(one.contents, _CONTENTS[kind])))


def _set(parameter: pb.Parameter, value: Scalar, *, reals: bool) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    elif isinstance(value, float) and reals:
        parameter.double_param = value
    else:
        parameter.string_param = str(value)


def _parameters(given: Mapping[str, pb.Parameter]) -> dict[str, Scalar]:
    found: dict[str, Any] = {}
    for name, parameter in given.items():
        which = parameter.WhichOneof("choice")
        if which is not None:
            found[name] = getattr(parameter, which)
    return found


def _specs(given: Iterable[pb.TensorMetadata]) -> list[TensorSpec]:
    return [TensorSpec(one.name, one.datatype, list(one.shape)) for one in given]
