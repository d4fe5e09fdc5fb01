"""
A dialect: how one protocol asks for one kind of answer, and how it is answered.

The request path speaks to this alone, so that limits, caches, retries and records
hold for every protocol alike. A new protocol is one more `Dialect` and its routes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

from pilothouse.domain.cached_answer import CachedAnswer
from pilothouse.domain.caching import steps_of
from pilothouse.domain.chat import Embeddings, EmbedRequest
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import PilothouseError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.snapshot import Task
from pilothouse.domain.tensors import Inferred, InferRequest
from pilothouse.domain.used_tokens import Usage

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8\r\ncache-control: no-store\r\nx-accel-buffering: no"
"""Value of `content-type` of server-sent events, with the lines that go with it."""


class Writer(Protocol):
    """Writes one answer as a stream."""

    def chunk(self, chunk: Chunk) -> bytes:
        """What to send for a chunk's deltas, which may be nothing yet; its usage waits for `end`."""
        ...

    def end(self, usage: Usage) -> bytes:
        """All that is left to send, the protocol's sign of a good end included."""
        ...

    def fail(self, error: PilothouseError) -> bytes:
        """The error, inside of a stream that has begun; no sign of a good end."""
        ...


Ask_co = TypeVar("Ask_co", bound=GenerateRequest | EmbedRequest | InferRequest, covariant=True)


class Dialect(ABC, Generic[Ask_co]):
    """What every kind of request needs. Values are made once and hold no state."""

    protocol: ClassVar[str]
    """What records name it by: "openai", "anthropic" ..."""
    kind: Task
    whole_type: str = JSON
    """`content-type` of an answer in one piece, with the lines that go with it; read when that is written."""
    id_prefix: ClassVar[str] = ""
    """What an answer's id begins with; the digits of its record follow (`domain.answer_id`)."""

    @abstractmethod
    def read(self, body: bytes) -> Ask_co:
        """
        A valid request.

        Raises:
            InvalidRequest: With the field in `param`.
            NotSupported: For a field that is known and cannot be carried.
        """

    @abstractmethod
    def error(self, error: PilothouseError) -> bytes:
        """The body of an answer that is an error."""

    def status(self, error: PilothouseError) -> int:
        """The status that it is sent with."""
        return error.status


class EmbedDialect(Dialect[EmbedRequest]):
    """For vectors."""

    kind = "embedding"

    @abstractmethod
    def vectors(self, ask: EmbedRequest, embeddings: Embeddings) -> bytes: ...


class TensorDialect(Dialect[InferRequest]):
    """For tensors."""

    kind = "tensors"

    @abstractmethod
    def tensors(self, ask: InferRequest, inferred: Inferred) -> bytes: ...


class GenerateDialect(Dialect[GenerateRequest]):
    """For generated text. `created` is in Unix seconds."""

    stream_type: ClassVar[str] = EVENTS
    keepalive: ClassVar[bytes | None] = b": keep-alive\n\n"
    """What to send into a stream in which nothing happens; None where the protocol has nothing for it."""

    @abstractmethod
    def writer(self, ask: GenerateRequest, *, answer_id: str, created: int) -> Writer: ...

    @abstractmethod
    def whole(
        self, ask: GenerateRequest, deltas: Sequence[Delta], usage: Usage, *, answer_id: str, created: int
    ) -> bytes:
        """An answer in one piece: one delta a choice, each with all of its text."""

    # An answer that is given again. A protocol whose speed matters keeps in it what can be used again.

    def again(self, ask: GenerateRequest, answer: CachedAnswer, *, answer_id: str, created: int) -> bytes:
        """As `whole`, of an earlier answer."""
        return self.whole(ask, answer.deltas, answer.usage, answer_id=answer_id, created=created)

    def replay(self, answer: CachedAnswer, writer: Writer) -> bytes:
        """All that `writer` says of an earlier answer before the end."""
        return b"".join([writer.chunk(Chunk((step,))) for step in steps_of(answer.deltas)])
