"""The Responses protocol as the request path knows it."""

from collections.abc import Sequence

from pilothouse.domain.chunk import Delta
from pilothouse.domain.errors import PilothouseError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.snapshot import Task
from pilothouse.domain.used_tokens import Usage
from pilothouse.wire.dialect import GenerateDialect
from pilothouse.wire.openai.answers import write_error
from pilothouse.wire.openai.messages import Message
from pilothouse.wire.responses import answers, inbound
from pilothouse.wire.responses.answers import EventWriter


class Responses(GenerateDialect):
    """
    Args:
        before: What was said before this request: it goes on from an earlier response.
    """

    protocol = "responses"
    kind: Task = "chat"
    id_prefix = "resp_"

    def __init__(self, before: Sequence[Message] = ()) -> None:
        self._before = before

    def read(self, body: bytes) -> GenerateRequest:
        return inbound.read(body, list(self._before))

    def writer(self, ask: GenerateRequest, *, answer_id: str, created: int) -> EventWriter:
        return EventWriter(ask, answer_id=answer_id, created=created)

    def whole(
        self, ask: GenerateRequest, deltas: Sequence[Delta], usage: Usage, *, answer_id: str, created: int
    ) -> bytes:
        return answers.write_whole(ask, deltas[0], usage, answer_id=answer_id, created=created)

    def error(self, error: PilothouseError) -> bytes:
        return write_error(error, prompt="input")


RESPONSES = Responses()
