"""A server that speaks TensorFlow Serving's gRPC, asked one row at a time. It stands on the extra `grpc`."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from pilothouse.adapters.engines import _serving_pb2 as pb
from pilothouse.adapters.engines._grpc import IDLE_S, Channel
from pilothouse.adapters.engines._openai_http import parsed_address
from pilothouse.adapters.engines._probing import read_load
from pilothouse.adapters.engines._tensorflow_messages import (
    LOADING,
    SIGNATURES,
    read,
    row_message,
    row_of_message,
    signatures_of,
    spec_of,
)
from pilothouse.domain.errors import EngineUnavailable, UpstreamError
from pilothouse.domain.status import Load
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.wire.tensorflow.signature import Binding, Signature

PREDICTION = "/tensorflow.serving.PredictionService/"
MODELS = "/tensorflow.serving.ModelService/"
HOST = "/pilothouse.Host/"
ASK_S = 5.0


class GrpcServer:
    """
    Implements `_tensorflow_engine.Server`.

    Args:
        address: `unix:<path>`, or `http(s)://host:port` of the gRPC port; https is TLS.
        model: Its name there, `NAME` or `NAME/versions/N`.
        credential: A header line that proves who asks, "" without one.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str,
        credential: str = "",
        pin: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        _, _, where = parsed_address(address)
        self._channel = Channel("tensorflow", where, credential=credential, pin=pin)
        self._spec = spec_of(model)
        self._told: dict[str, Signature] = {}

    async def signatures(self, *, deadline_s: float) -> dict[str, Signature]:
        asked = pb.MetadataRequest(model_spec=self._spec, metadata_field=[SIGNATURES])
        try:
            data = await self._ask(f"{PREDICTION}GetModelMetadata", asked, deadline_s)
        except UpstreamError as exc:
            await self._refuse_loading(deadline_s, exc)
            raise
        self._told = signatures_of(read(pb.MetadataAnswer, data))
        return self._told

    async def predict(
        self,
        binding: Binding,
        row: Mapping[str, Any],
        *,
        deadline_s: float,
        timeouts: Timeouts | None,  # noqa: ARG002 - one message comes, or none by the deadline
    ) -> Mapping[str, Any]:
        asked = pb.PredictRequest(
            model_spec=self._spec,
            inputs=row_message(row, self._told[binding.signature].inputs),
            output_filter=sorted(binding.outputs.values()),
        )
        asked.model_spec.signature_name = binding.signature
        data = await self._ask(f"{PREDICTION}Predict", asked, deadline_s)
        return row_of_message(read(pb.PredictAnswer, data).outputs)

    async def aclose(self) -> None:
        await self._channel.aclose()

    async def _refuse_loading(self, deadline_s: float, refused: UpstreamError) -> None:
        """A version that is being loaded is not there for a prediction, and soon will be."""
        asked = pb.StatusRequest(model_spec=self._spec)
        data = await self._ask(f"{MODELS}GetModelStatus", asked, deadline_s)
        states = {one.state for one in read(pb.StatusAnswer, data).model_version_status}
        if states & LOADING:
            raise EngineUnavailable("the engine is loading the model", retry_after_s=1.0) from refused

    async def _ask(self, method: str, message: Any, deadline_s: float) -> bytes:
        return await self._channel.unary(method, message.SerializeToString(), deadline_s=deadline_s)


class GrpcHost(GrpcServer):
    """Our own host, which counts the answers that are open: between two pieces nothing runs there."""

    async def load(self) -> Load:
        return read_load(await self._channel.unary(f"{HOST}Load", b"", deadline_s=ASK_S))

    async def open(self, *, deadline_s: float) -> "Opened":
        """An answer is open until this is released."""
        held = self._channel.stream(f"{HOST}Open", b"", deadline_s=deadline_s, idle_s=IDLE_S)
        if await anext(held, None) is None:
            raise UpstreamError("the engine opened no answer")
        return Opened(held)


class Opened:
    def __init__(self, held: AsyncGenerator[bytes, None]) -> None:
        self._held = held
        self._releasing: object = None

    def release(self) -> None:
        self._releasing = asyncio.ensure_future(self._held.aclose())
