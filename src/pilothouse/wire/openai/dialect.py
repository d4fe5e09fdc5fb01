"""The OpenAI dialect as the request path knows it. Answers that are given again are kept as written."""

from collections.abc import Sequence

from pilothouse.domain.cached_answer import CachedAnswer
from pilothouse.domain.caching import steps_of
from pilothouse.domain.chat import Embeddings, EmbedRequest
from pilothouse.domain.chunk import Delta
from pilothouse.domain.errors import Internal, PilothouseError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.snapshot import Task
from pilothouse.domain.used_tokens import Usage
from pilothouse.wire.dialect import EmbedDialect, GenerateDialect, Writer
from pilothouse.wire.openai import answers, completions, inbound
from pilothouse.wire.openai.answers import StreamWriter


class _Generate(GenerateDialect):
    protocol = "openai"

    def writer(self, ask: GenerateRequest, *, answer_id: str, created: int) -> StreamWriter:
        return StreamWriter(ask, answer_id=answer_id, created=created)

    def whole(
        self, ask: GenerateRequest, deltas: Sequence[Delta], usage: Usage, *, answer_id: str, created: int
    ) -> bytes:
        return answers.write_whole(ask, deltas, usage, answer_id=answer_id, created=created)

    def error(self, error: PilothouseError) -> bytes:
        return answers.write_error(error)

    def again(self, ask: GenerateRequest, answer: CachedAnswer, *, answer_id: str, created: int) -> bytes:
        if not answer.whole:
            written = answers.write_whole(ask, answer.deltas, answer.usage, answer_id="", created=0)
            answer.whole = answers.rest_of_whole(written)
        return answers.write_whole_again(ask, answer.whole, answer_id=answer_id, created=created)

    def replay(self, answer: CachedAnswer, writer: Writer) -> bytes:
        if not isinstance(writer, StreamWriter):
            raise Internal("an answer was begun in another protocol than it is replayed in")
        if not answer.events:
            answer.events = writer.bare(steps_of(answer.deltas))
        return writer.dress(answer.events)


class _Chat(_Generate):
    kind: Task = "chat"
    id_prefix = "chatcmpl-"

    def read(self, body: bytes) -> GenerateRequest:
        return inbound.read_chat(body)


class _Completion(_Generate):
    kind: Task = "completion"
    id_prefix = "cmpl-"

    def read(self, body: bytes) -> GenerateRequest:
        return completions.read_completion(body)

    def error(self, error: PilothouseError) -> bytes:
        return answers.write_error(error, prompt="prompt")


class _Embeddings(EmbedDialect):
    protocol = "openai"

    def read(self, body: bytes) -> EmbedRequest:
        return inbound.read_embed(body)

    def vectors(self, ask: EmbedRequest, embeddings: Embeddings) -> bytes:
        return answers.write_embeddings(embeddings, endpoint=ask.endpoint, base64=ask.base64)

    def error(self, error: PilothouseError) -> bytes:
        return answers.write_error(error)


CHAT = _Chat()
COMPLETION = _Completion()
EMBEDDINGS = _Embeddings()
