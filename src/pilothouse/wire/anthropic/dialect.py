"""Anthropic's protocol as the request path knows it."""

from collections.abc import Sequence

from pilothouse.domain.chunk import Delta
from pilothouse.domain.errors import PilothouseError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.snapshot import Task
from pilothouse.domain.used_tokens import Usage
from pilothouse.wire.anthropic import answers, inbound
from pilothouse.wire.anthropic.answers import EventWriter
from pilothouse.wire.dialect import GenerateDialect


class _Messages(GenerateDialect):
    protocol = "anthropic"
    kind: Task = "chat"
    id_prefix = "msg_"
    keepalive = answers.PING

    def read(self, body: bytes) -> GenerateRequest:
        return inbound.read_ask(body)

    def writer(self, ask: GenerateRequest, *, answer_id: str, created: int) -> EventWriter:  # noqa: ARG002 - a message has no time there
        return EventWriter(ask, answer_id=answer_id)

    def whole(
        self,
        ask: GenerateRequest,
        deltas: Sequence[Delta],
        usage: Usage,
        *,
        answer_id: str,
        created: int,  # noqa: ARG002 - a message has no time there
    ) -> bytes:
        return answers.write_whole(ask, deltas[0], usage, answer_id=answer_id)

    def error(self, error: PilothouseError) -> bytes:
        return answers.write_error(error)

    def status(self, error: PilothouseError) -> int:
        return answers.status_of(error)


MESSAGES = _Messages()
