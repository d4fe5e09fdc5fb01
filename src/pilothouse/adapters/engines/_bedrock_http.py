"""A provider behind Bedrock's HTTP API, each request signed."""

import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from pilothouse.adapters.engines._openai_http import parsed_address
from pilothouse.adapters.engines._provider_http import ProviderEngine
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import ContextLengthExceeded, PilothouseError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.sigv4 import SigningKey, sign
from pilothouse.ports.engine import EngineInfo
from pilothouse.wire.bedrock import outbound, said
from pilothouse.wire.bedrock.eventstream import Message, MessageParser

_JSON = {"content-type": "application/json"}


class BedrockEngine(ProviderEngine[Message]):
    """
    Implements `ports.engine.Engine`.

    Args:
        address: `http(s)://host[:port]`.
        model: Its id, an inference profile's, or an ARN.
        prover: What proves who asks: a key to sign with, or a header line ("" without one).
        now: Unix seconds; a signature holds for some minutes.
    """

    def __init__(
        self,
        info: EngineInfo,
        address: str,
        *,
        model: str,
        prover: SigningKey | str = "",
        pin: Callable[[], Awaitable[str]] | None = None,
        cohort: Cohort | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        _, base, where = parsed_address(address)
        super().__init__(info, where, MessageParser, pin=pin, cohort=cohort)
        self._host = where.host_header
        self._prover = prover
        self._now = now
        path = f"{base}/model/{quote(model, safe='-_.~')}"
        self._whole_target, self._stream_target = f"{path}/converse", f"{path}/converse-stream"

    def asked(self, request: GenerateRequest, *, stream: bool) -> bytes:
        target = self._stream_target if stream else self._whole_target
        body = outbound.write_request(request)
        lines = "".join([f"{name}: {value}\r\n" for name, value in self._headers(target, body).items()])
        head = f"POST {target} HTTP/1.1\r\nhost: {self._host}\r\n{lines}content-length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def _headers(self, target: str, body: bytes) -> dict[str, str]:
        if isinstance(self._prover, SigningKey):
            now = self._now()
            return _JSON | sign("POST", self._host, target, _JSON, key=self._prover, now=now, body=body)
        name, _, value = self._prover.partition(": ")
        return {**_JSON, name: value} if name else _JSON

    def reader(self, request: GenerateRequest) -> said.StreamReader:  # noqa: ARG002 - it has one answer
        return said.StreamReader()

    def read_whole(self, request: GenerateRequest, body: bytes) -> Chunk:  # noqa: ARG002 - as above
        return said.read_whole(body)

    def refused(self, status: int, body: bytes) -> PilothouseError | None:
        if status == 400 and said.is_too_long(said.read_fault(body)):
            return ContextLengthExceeded("the prompt is too long for the provider's model", param="messages")
        return None
