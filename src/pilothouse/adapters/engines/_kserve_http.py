"""A server of the Open Inference Protocol over HTTP."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Literal
from urllib.parse import quote

from pilothouse.adapters.engines._asking import Asker
from pilothouse.adapters.engines._kserve import (
    PROBE_TEXT,
    Settings,
    check_task,
    probe_of,
    refused,
    told,
    whole,
)
from pilothouse.adapters.engines._openai_http import parsed_address
from pilothouse.adapters.engines._probing import PLAIN_PROBE
from pilothouse.adapters.engines._provider_http import ProviderEngine, refusal_of
from pilothouse.domain.chat import Embeddings, EmbedRequest
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import PilothouseError, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.status import Health
from pilothouse.domain.tensors import Inferred, InferRequest, TensorFault
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.kit.sse import EventParser
from pilothouse.ports.engine import Chunks, EngineInfo, Placement
from pilothouse.wire.kserve_v2 import infer, text
from pilothouse.wire.kserve_v2.about import ModelMetadata, read_model

Api = Literal["infer", "generate"]


class KServeEngine(ProviderEngine[bytes]):
    """
    Implements `ports.engine.Engine`.

    Args:
        address: `unix:<path>`, or `http(s)://host[:port]/base`, before its `/v2`.
        api: `infer` asks with tensors, `generate` with plain JSON, as Triton's extension has it.
        pin: Resolves and checks the host before each connection.
    """

    def __init__(
        self,
        info: EngineInfo,
        address: str,
        settings: Settings,
        *,
        api: Api = "infer",
        credential: str = "",
        pin: Callable[[], Awaitable[str]] | None = None,
        cohort: Cohort | None = None,
    ) -> None:
        _, base, where = parsed_address(address)
        base = "" if address.startswith("unix:") else base.removesuffix("/v2")
        super().__init__(info, where, EventParser, pin=pin, cohort=cohort)
        self._asker = Asker(self._client, info.name, self._refused)
        self.settings = settings
        self._api = api
        line = f"{credential}\r\n" if credential else ""
        version = f"/versions/{quote(settings.version, safe='')}" if settings.version else ""
        self.root = f"{base}/v2/models/{quote(settings.model, safe='')}{version}"
        self.lines = f"host: {where.host_header}\r\ncontent-type: application/json\r\n{line}"

    # ProviderEngine

    def asked(self, request: GenerateRequest, *, stream: bool) -> bytes:
        if self._api == "generate":
            path = "generate_stream" if stream else "generate"
            return self._post(path, text.write_generate(request, self.settings.convention))
        asked = text.tensors_of(request, self.settings.convention)
        return self._infer(asked, "generate_stream" if stream else "infer")

    def reader(self, request: GenerateRequest) -> "_Reader":  # noqa: ARG002 - it has one answer
        return _Reader(self.piece)

    def read_whole(self, request: GenerateRequest, body: bytes) -> Chunk:  # noqa: ARG002 - as above
        return self.piece(body)

    def refused(self, status: int, body: bytes) -> PilothouseError | None:  # noqa: ARG002 - its words are for its own log
        if status in (404, 405, 501):
            return UpstreamError(
                f"the server answered {status}: it knows no such model, or is not asked like this; see "
                "provider_model, and engine_options.api and .stream of this deployment"
            )
        return None

    # Engine

    def stream(
        self,
        request: GenerateRequest,
        placement: Placement,
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        return told(self._said(request, placement, deadline_s=deadline_s, timeouts=timeouts), request)

    async def complete(
        self,
        request: GenerateRequest,
        placement: Placement,
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> Chunk:
        said = self._at_once(request, placement, deadline_s=deadline_s, timeouts=timeouts)
        return await whole(told(said, request))

    async def embed(
        self, request: EmbedRequest, *, deadline_s: float, timeouts: Timeouts | None = None
    ) -> Embeddings:
        check_task(self.settings, "embedding")
        convention = self.settings.convention
        inferred = await self.infer(
            text.texts_of(request, convention), deadline_s=deadline_s, timeouts=timeouts
        )
        return text.vectors_of(inferred, request, convention)

    async def infer(
        self, request: InferRequest, *, deadline_s: float, timeouts: Timeouts | None = None
    ) -> Inferred:
        """Tensors out of tensors, as they are."""
        return await self.whole(
            self._infer(request, "infer"), self.read, deadline_s=deadline_s, timeouts=timeouts
        )

    async def health(self, *, deadline_s: float) -> Health:
        """A text, or a vector: a server may say that it is ready and fail."""
        try:
            if self.settings.task == "embedding":
                await self.embed(PROBE_TEXT, deadline_s=deadline_s)
            elif self.settings.task == "tensors":
                await self.infer(probe_of(await self._metadata(deadline_s)), deadline_s=deadline_s)
            else:
                await whole(self.stream(PLAIN_PROBE, Placement(), deadline_s=deadline_s))
        except PilothouseError as exc:
            return Health(ok=False, reason=exc.message)
        return Health(ok=True)

    # parts

    async def _metadata(self, deadline_s: float) -> ModelMetadata:
        data = f"GET {self.root} HTTP/1.1\r\n{self.lines}\r\n".encode()
        return await self.whole(data, _metadata, deadline_s=deadline_s)

    def _said(
        self,
        request: GenerateRequest,
        placement: Placement,
        *,
        deadline_s: float,
        timeouts: Timeouts | None,
    ) -> Chunks:
        if not self.settings.streams:
            return self._at_once(request, placement, deadline_s=deadline_s, timeouts=timeouts)
        check_task(self.settings, "text")
        data = self.asked(request, stream=True)
        return self._asker.said(data, self.reader(request), deadline_s=deadline_s, timeouts=timeouts)

    async def _at_once(
        self,
        request: GenerateRequest,
        placement: Placement,
        *,
        deadline_s: float,
        timeouts: Timeouts | None,
    ) -> AsyncGenerator[Chunk, None]:
        check_task(self.settings, "text")
        yield await super().complete(request, placement, deadline_s=deadline_s, timeouts=timeouts)

    def _refused(self, status: int, headers: dict[bytes, bytes], body: bytes) -> PilothouseError:
        return self.refused(status, body) or refusal_of(status, headers.get(b"retry-after", b""))

    def piece(self, body: bytes) -> Chunk:
        convention = self.settings.convention
        if self._api == "generate":
            return text.chunk_of(text.read_generate(body), convention)
        return text.chunk_of(text.said_by(self.read(body)), convention)

    def read(self, body: bytes) -> Inferred:
        """
        Raises:
            PilothouseError: It is no answer.
        """
        try:
            return infer.read_answer(body, None)
        except TensorFault as exc:
            raise UpstreamError(f"the engine's answer cannot be read: {exc}") from exc

    def _infer(self, request: InferRequest, path: str) -> bytes:
        try:
            body, _ = infer.write_request(request)
        except TensorFault as exc:
            raise refused(exc) from exc
        return self._post(path, body)

    def _post(self, path: str, body: bytes) -> bytes:
        head = f"POST {self.root}/{path} HTTP/1.1\r\n{self.lines}content-length: {len(body)}\r\n\r\n"
        return head.encode() + body


class _Reader:
    """Implements `_provider_http.AnswerReader`: an answer is over when the server ends it."""

    is_over = False

    def __init__(self, piece: Callable[[bytes], Chunk]) -> None:
        self.piece = piece

    def read(self, data: bytes) -> Chunk:
        return self.piece(data)

    def end(self) -> None:
        return None


def _metadata(body: bytes) -> ModelMetadata:
    try:
        return read_model(body)
    except TensorFault as exc:
        raise UpstreamError(str(exc)) from exc
