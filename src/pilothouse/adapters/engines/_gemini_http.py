"""A provider behind Gemini's HTTP API."""

import re
from collections.abc import Awaitable, Callable

from pilothouse.adapters.engines._openai_http import parsed_address
from pilothouse.adapters.engines._provider_http import PROBE, ProviderEngine
from pilothouse.domain.chat import Embeddings, EmbedRequest
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import ContextLengthExceeded, PilothouseError, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.status import Health
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.kit.sse import EventParser
from pilothouse.ports.engine import EngineInfo, Placement
from pilothouse.wire.gemini import outbound, said

_WHOLE, _STREAM = "generateContent", "streamGenerateContent?alt=sse"
_TOO_LONG = "exceeds the maximum number of tokens"
_BAD_KEY = "API key not valid"
"""Google's words, both with status 400."""
_VERSION = re.compile(r"gemini-(\d{1,3})")
_FIRST_SIGNED = 3
"""The first release of Gemini that refuses a call of the present turn without the signature it was given."""


class GeminiEngine(ProviderEngine[bytes]):
    """
    Implements `ports.engine.Engine`.

    Args:
        address: `http(s)://host[:port]`, before `/v1`.
        path: Of the model, from `/v1` on.
        credential: A header line that proves who asks, "" without one.
    """

    def __init__(
        self,
        info: EngineInfo,
        address: str,
        *,
        model: str,
        path: str,
        credential: str = "",
        pin: Callable[[], Awaitable[str]] | None = None,
        cohort: Cohort | None = None,
    ) -> None:
        _, base, where = parsed_address(address)
        super().__init__(info, where, EventParser, pin=pin, cohort=cohort)
        self._model = model
        self._is_signed = _is_signed(model)
        self.credential = f"{credential}\r\n".encode() if credential else b""
        head = f" HTTP/1.1\r\nhost: {where.host_header}\r\ncontent-type: application/json\r\n"
        self._heads = {
            method: f"POST {base}{path}:{method}{head}".encode()
            for method in (_WHOLE, _STREAM, "batchEmbedContents", "predict")
        }

    def asked(self, request: GenerateRequest, *, stream: bool) -> bytes:
        body = outbound.write_request(request, signed=self._is_signed)
        return self.posted(_STREAM if stream else _WHOLE, body)

    def posted(self, method: str, body: bytes) -> bytes:
        """The whole HTTP request for a method of the model."""
        head = self._heads[method]
        return b"%s%scontent-length: %d\r\n\r\n%s" % (head, self.credential, len(body), body)

    def reader(self, request: GenerateRequest) -> said.AnswerReader:
        return said.AnswerReader(request.choices)

    def read_whole(self, request: GenerateRequest, body: bytes) -> Chunk:
        return said.read_whole(body, choices=request.choices)

    async def embed(
        self, request: EmbedRequest, *, deadline_s: float, timeouts: Timeouts | None = None
    ) -> Embeddings:
        data = self.posted("batchEmbedContents", outbound.write_embed(request, model=self._model))
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


def _is_signed(model: str) -> bool:
    found = _VERSION.match(model)
    return found is not None and int(found[1]) >= _FIRST_SIGNED
