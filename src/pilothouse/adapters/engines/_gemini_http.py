"""A provider behind Gemini's HTTP API."""

from collections.abc import Awaitable, Callable
from urllib.parse import quote

from pilothouse.adapters.engines._openai_http import parsed_address
from pilothouse.adapters.engines._provider_http import PROBE, ProviderEngine
from pilothouse.domain.chat import Chunk, Embeddings, EmbedRequest, GenerateRequest
from pilothouse.domain.errors import ContextLengthExceeded, PilothouseError, UpstreamError
from pilothouse.domain.status import Health
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.kit.sse import EventParser
from pilothouse.ports.engine import EngineInfo, Placement
from pilothouse.wire.gemini import outbound, said

_TOO_LONG = "exceeds the maximum number of tokens"
_BAD_KEY = "API key not valid"
"""Google's words, both with status 400."""


class GeminiEngine(ProviderEngine[bytes]):
    """
    Implements `ports.engine.Engine`.

    Args:
        address: `http(s)://host[:port]`, before `/v1`.
        credential: A header line that proves who asks, "" without one.
    """

    def __init__(
        self,
        info: EngineInfo,
        address: str,
        *,
        model: str,
        credential: str = "",
        pin: Callable[[], Awaitable[str]] | None = None,
        cohort: Cohort | None = None,
    ) -> None:
        _, base, where = parsed_address(address)
        super().__init__(info, where, EventParser, pin=pin, cohort=cohort)
        self._model = model
        line = f"{credential}\r\n" if credential else ""
        head = f"host: {where.host_header}\r\ncontent-type: application/json\r\n{line}"
        path = f"POST {base}/v1/models/{quote(model, safe='')}"
        self._generate = f"{path}:generateContent HTTP/1.1\r\n{head}".encode()
        self._stream = f"{path}:streamGenerateContent?alt=sse HTTP/1.1\r\n{head}".encode()
        self._embed = f"{path}:batchEmbedContents HTTP/1.1\r\n{head}".encode()

    def asked(self, request: GenerateRequest, *, stream: bool) -> bytes:
        return _posted(self._stream if stream else self._generate, outbound.write_request(request))

    def reader(self, request: GenerateRequest) -> said.AnswerReader:
        return said.AnswerReader(request.choices)

    def read_whole(self, request: GenerateRequest, body: bytes) -> Chunk:
        return said.read_whole(body, choices=request.choices)

    async def embed(
        self, request: EmbedRequest, *, deadline_s: float, timeouts: Timeouts | None = None
    ) -> Embeddings:
        data = _posted(self._embed, outbound.write_embed(request, model=self._model))
        return await self.whole(
            data,
            lambda body: said.read_vectors(body, count=len(request.inputs)),
            deadline_s=deadline_s,
            timeouts=timeouts,
        )

    async def health(self, *, deadline_s: float) -> Health:
        """One token, as of every engine; a model that gives vectors answers nothing else."""
        try:
            answer = await self.complete(PROBE, Placement(), deadline_s=deadline_s)
        except PilothouseError as exc:
            reason = exc.message
        else:
            is_ok = answer.usage is not None and answer.usage.input > 0
            return Health(ok=is_ok, reason="" if is_ok else "the provider answered without a token")
        try:
            await self.embed(EmbedRequest(endpoint="", inputs=["Hello"]), deadline_s=deadline_s)
        except PilothouseError:
            return Health(ok=False, reason=reason)
        return Health(ok=True)

    def refused(self, status: int, body: bytes) -> PilothouseError | None:
        if status != 400:
            return None
        fault = said.read_fault(body)
        if _TOO_LONG in fault.message:
            return ContextLengthExceeded("the prompt is too long for the provider's model", param="messages")
        if _BAD_KEY in fault.message:
            return UpstreamError(f"the provider refused the key of this deployment ({status})")
        return None


def _posted(head: bytes, body: bytes) -> bytes:
    return b"%scontent-length: %d\r\n\r\n%s" % (head, len(body), body)
