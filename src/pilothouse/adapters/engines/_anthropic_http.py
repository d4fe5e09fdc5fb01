"""A provider behind Anthropic's HTTP API."""

from collections.abc import Awaitable, Callable

from pilothouse.adapters.engines._openai_http import parsed_address
from pilothouse.adapters.engines._provider_http import ProviderEngine
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import ContextLengthExceeded, PilothouseError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.sse import EventParser
from pilothouse.ports.engine import EngineInfo
from pilothouse.wire.anthropic import outbound, said

_TOO_LONG = "prompt is too long"
"""Anthropic's words for a prompt that does not fit the model."""


class AnthropicEngine(ProviderEngine[bytes]):
    """
    Implements `ports.engine.Engine`, and `TokenCounter`.

    Args:
        address: `http(s)://host[:port]/base`, ending in `/v1` or before it.
        prompt_cache: How long the provider keeps prompts.
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
        prompt_cache: outbound.PromptCache = "off",
    ) -> None:
        root, _, where = parsed_address(address)
        super().__init__(info, where, EventParser, pin=pin, cohort=cohort)
        self._prompt_cache = prompt_cache
        self._model = model
        line = f"{credential}\r\n" if credential else ""
        host = f"host: {where.host_header}\r\ncontent-type: application/json\r\n{line}"
        self._messages = f"POST {root}/v1/messages HTTP/1.1\r\n{host}".encode()
        self._counting = f"POST {root}/v1/messages/count_tokens HTTP/1.1\r\n{host}".encode()

    def asked(self, request: GenerateRequest, *, stream: bool) -> bytes:
        body = outbound.write_request(
            request, model=self._model, stream=stream, prompt_cache=self._prompt_cache
        )
        return _posted(self._messages, request, body)

    def reader(self, request: GenerateRequest) -> said.StreamReader:  # noqa: ARG002 - it has one answer
        return said.StreamReader()

    def read_whole(self, request: GenerateRequest, body: bytes) -> Chunk:  # noqa: ARG002 - as above
        return said.read_whole(body)

    async def count(self, request: GenerateRequest, *, deadline_s: float) -> int:
        """Implements `ports.engine.TokenCounter`: the provider counts."""
        data = _posted(self._counting, request, outbound.write_count(request, model=self._model))
        return await self.whole(data, said.read_count, deadline_s=deadline_s)

    def refused(self, status: int, body: bytes) -> PilothouseError | None:
        if status == 400 and said.read_fault(body).message.startswith(_TOO_LONG):
            return ContextLengthExceeded("the prompt is too long for the provider's model", param="messages")
        return None


def _posted(head: bytes, request: GenerateRequest, body: bytes) -> bytes:
    version = outbound.version_of(request).encode()
    return b"%santhropic-version: %s\r\ncontent-length: %d\r\n\r\n%s" % (head, version, len(body), body)
