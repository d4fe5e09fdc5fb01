"""A server of the Open Inference Protocol over gRPC. It stands on the extra `grpc` (`_extras.over_grpc`)."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from pilothouse.adapters.engines._grpc import IDLE_S, Channel
from pilothouse.adapters.engines._inference_grpc import FINAL, InferenceService
from pilothouse.adapters.engines._kserve import (
    PROBE_TEXT,
    Settings,
    check_task,
    probe_of,
    told,
    whole,
)
from pilothouse.adapters.engines._openai_http import parsed_address
from pilothouse.adapters.engines._probing import PLAIN_PROBE
from pilothouse.domain.chat import Embeddings, EmbedRequest
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import PilothouseError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.status import Health, Load
from pilothouse.domain.tensors import Inferred, InferRequest
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.ports.engine import EngineInfo, Placement
from pilothouse.wire.kserve_v2 import text
from pilothouse.wire.triton import said


class KServeGrpcEngine:
    """
    Implements `ports.engine.Engine`.

    Args:
        address: `http(s)://host:port` of the gRPC port; https is TLS.
        credential: A header line that goes with each call; "" is none.
        pin: Resolves and checks the host before each connection.
    """

    def __init__(
        self,
        info: EngineInfo,
        address: str,
        settings: Settings,
        *,
        credential: str = "",
        pin: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        self.info = info
        self.settings = settings
        _, _, where = parsed_address(address)
        self._channel = Channel(info.name, where, credential=credential, pin=pin, known=said.known)
        self._service = InferenceService(self._channel, model=settings.model, version=settings.version)

    def stream(
        self,
        request: GenerateRequest,
        placement: Placement,  # noqa: ARG002 - it has no slots
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        if not self.settings.streams:
            return told(self._at_once(request, deadline_s=deadline_s), request)
        idle_s = timeouts.idle_s if timeouts is not None else IDLE_S
        return told(self._said(request, deadline_s=deadline_s, idle_s=idle_s), request)

    async def complete(
        self,
        request: GenerateRequest,
        placement: Placement,  # noqa: ARG002 - it has no slots
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,  # noqa: ARG002 - one message comes, or none by the deadline
    ) -> Chunk:
        return await whole(told(self._at_once(request, deadline_s=deadline_s), request))

    async def embed(
        self, request: EmbedRequest, *, deadline_s: float, timeouts: Timeouts | None = None
    ) -> Embeddings:
        check_task(self.settings, "embedding")
        convention = self.settings.convention
        asked = text.texts_of(request, convention)
        inferred = await self.infer(asked, deadline_s=deadline_s, timeouts=timeouts)
        return text.vectors_of(inferred, request, convention)

    async def infer(
        self,
        request: InferRequest,
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,  # noqa: ARG002 - as `complete`
    ) -> Inferred:
        """Tensors out of tensors, as they are."""
        return await self._service.infer(request, deadline_s=deadline_s)

    async def load(self) -> Load:
        return Load()

    async def health(self, *, deadline_s: float) -> Health:
        """A text, or a vector: a server may say that it is ready and fail."""
        try:
            if self.settings.task == "embedding":
                await self.embed(PROBE_TEXT, deadline_s=deadline_s)
            elif self.settings.task == "tensors":
                known = await self._service.model(deadline_s=deadline_s)
                await self.infer(probe_of(known), deadline_s=deadline_s)
            else:
                await whole(self.stream(PLAIN_PROBE, Placement(), deadline_s=deadline_s))
        except PilothouseError as exc:
            return Health(ok=False, reason=exc.message)
        return Health(ok=True)

    async def aclose(self) -> None:
        await self._channel.aclose()

    async def _said(
        self, request: GenerateRequest, *, deadline_s: float, idle_s: float
    ) -> AsyncGenerator[Chunk, None]:
        check_task(self.settings, "text")
        convention = self.settings.convention
        asked = text.tensors_of(request, convention)
        said = self._service.stream(asked, deadline_s=deadline_s, idle_s=idle_s)
        async with aclosing(said):
            async for inferred in said:
                if inferred.outputs or inferred.parameters.get(FINAL) is not True:
                    yield text.chunk_of(text.said_by(inferred), convention)

    async def _at_once(self, request: GenerateRequest, *, deadline_s: float) -> AsyncGenerator[Chunk, None]:
        check_task(self.settings, "text")
        convention = self.settings.convention
        inferred = await self.infer(text.tensors_of(request, convention), deadline_s=deadline_s)
        yield text.chunk_of(text.said_by(inferred), convention)
