"""Ollama's protocol as the request path knows it."""

from collections.abc import Sequence

from pilothouse.domain.chat import Embeddings, EmbedRequest
from pilothouse.domain.chunk import Delta
from pilothouse.domain.errors import PilothouseError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.snapshot import Task
from pilothouse.domain.used_tokens import Usage
from pilothouse.wire.dialect import EmbedDialect, GenerateDialect
from pilothouse.wire.ollama import answers, inbound
from pilothouse.wire.ollama.answers import LineWriter


class _Generate(GenerateDialect):
    protocol = "ollama"
    kind: Task = "chat"
    id_prefix = "ollama-"
    stream_type = "application/x-ndjson\r\ncache-control: no-store\r\nx-accel-buffering: no"
    keepalive = None

    def __init__(self, *, is_chat: bool) -> None:
        self._is_chat = is_chat

    def read(self, body: bytes) -> GenerateRequest:
        return inbound.read_chat(body) if self._is_chat else inbound.read_generate(body)

    def writer(self, ask: GenerateRequest, *, answer_id: str, created: int) -> LineWriter:  # noqa: ARG002 - an answer has no id there
        return LineWriter(ask, is_chat=self._is_chat, created=created)

    def whole(
        self,
        ask: GenerateRequest,
        deltas: Sequence[Delta],
        usage: Usage,
        *,
        answer_id: str,  # noqa: ARG002 - an answer has no id there
        created: int,
    ) -> bytes:
        return answers.write_whole(ask, deltas, usage, is_chat=self._is_chat, created=created)

    def error(self, error: PilothouseError) -> bytes:
        return answers.write_error(error)


class _Embed(EmbedDialect):
    protocol = "ollama"

    def read(self, body: bytes) -> EmbedRequest:
        return inbound.read_embed(body)

    def vectors(self, ask: EmbedRequest, embeddings: Embeddings) -> bytes:
        return answers.write_embeddings(embeddings, endpoint=ask.endpoint)

    def error(self, error: PilothouseError) -> bytes:
        return answers.write_error(error)


CHAT = _Generate(is_chat=True)
GENERATE = _Generate(is_chat=False)
EMBED = _Embed()
