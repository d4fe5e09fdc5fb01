"""The Open Inference Protocol as the request path knows it: a value a request, whose path names the model."""

from collections.abc import Sequence
from typing import Any

import msgspec

from pilothouse.domain.chat import Embeddings, EmbedRequest
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import PilothouseError, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.snapshot import Task
from pilothouse.domain.tensors import Inferred, InferRequest, Tensor, TensorFault
from pilothouse.domain.used_tokens import Usage
from pilothouse.wire.dialect import JSON, EmbedDialect, GenerateDialect, TensorDialect
from pilothouse.wire.kserve_v2 import about, inbound, infer

PROTOCOL = "kserve"
VERSION = "1"
_encode = msgspec.json.Encoder().encode


def write_error(error: PilothouseError) -> bytes:
    """The protocol has a text alone; the code stands beside it, as everywhere here."""
    return about.write_error(error.message, {"code": error.code})


class _Written:
    """Tensors in the caller's way; bytes behind the JSON are said in the head."""

    def __init__(self) -> None:
        self.type = JSON

    def answer(
        self, inferred: Inferred, *, model: str, request_id: str, binary: frozenset[str] | None
    ) -> bytes:
        try:
            body, length = infer.write_answer(inferred, model=model, request_id=request_id, binary=binary)
        except TensorFault as exc:
            raise UpstreamError(f"the model's answer cannot be written: {exc}") from exc
        if length is not None:
            self.type = f"application/octet-stream\r\n{infer.LENGTH_HEADER}: {length}"
        return body


class Text(GenerateDialect):
    """
    `infer`, `generate` and `generate_stream` of a model of text.

    Args:
        length: Where the JSON of the request ends, if bytes follow.
        is_generate: It is asked in plain JSON, or may be.
    """

    protocol = PROTOCOL
    kind: Task = "completion"

    def __init__(
        self, endpoint: str, *, length: int | None = None, is_generate: bool = False, stream: bool = False
    ) -> None:
        self._endpoint, self._length = endpoint, length
        self._is_generate, self._stream = is_generate, stream
        self._asked: inbound.TextAsk | None = None
        self._written = _Written()

    def read(self, body: bytes) -> GenerateRequest:
        if self._is_generate:
            asked = inbound.read_generate(body, endpoint=self._endpoint, stream=self._stream)
        else:
            asked = inbound.read_text(body, self._length, endpoint=self._endpoint)
        self._asked = asked
        return asked.request

    def writer(self, ask: GenerateRequest, *, answer_id: str, created: int) -> "PieceWriter":  # noqa: ARG002 - it has no times
        return PieceWriter(ask.endpoint, self._id(answer_id), is_tensors=self._is_tensors)

    def whole(
        self,
        ask: GenerateRequest,
        deltas: Sequence[Delta],
        usage: Usage,
        *,
        answer_id: str,
        created: int,  # noqa: ARG002 - it has no times
    ) -> bytes:
        said = _said(deltas[0], usage)
        if not self._is_tensors:
            return _encode(_plain(ask.endpoint, self._id(answer_id), _text(deltas[0]), said))
        inferred = Inferred(outputs=(Tensor.of_texts("text_output", [_text(deltas[0])]),), parameters=said)
        binary = self._asked.binary if self._asked is not None else frozenset()
        body = self._written.answer(
            inferred, model=ask.endpoint, request_id=self._id(answer_id), binary=binary
        )
        self.whole_type = self._written.type
        return body

    def error(self, error: PilothouseError) -> bytes:
        return write_error(error)

    @property
    def _is_tensors(self) -> bool:
        return self._asked is None or self._asked.is_tensors

    def _id(self, answer_id: str) -> str:
        return (self._asked.request_id if self._asked is not None else "") or answer_id


class PieceWriter:
    """Implements `wire.dialect.Writer`: events of one piece each, the last with the end and the usage."""

    def __init__(self, endpoint: str, answer_id: str, *, is_tensors: bool) -> None:
        self._endpoint, self._id, self._is_tensors = endpoint, answer_id, is_tensors
        self._reason = "stop"

    def chunk(self, chunk: Chunk) -> bytes:
        events = []
        for delta in chunk.deltas:
            self._reason = delta.finish_reason or self._reason
            if text := _text(delta):
                events.append(self._event(text, {}))
        return b"".join(events)

    def end(self, usage: Usage) -> bytes:
        return self._event("", _said(Delta("", 0, self._reason), usage))

    def fail(self, error: PilothouseError) -> bytes:
        return b"data: %s\n\n" % write_error(error)

    def _event(self, text: str, said: dict[str, str | int]) -> bytes:
        if not self._is_tensors:
            return b"data: %s\n\n" % _encode(_plain(self._endpoint, self._id, text, said))
        inferred = Inferred(outputs=(Tensor.of_texts("text_output", [text]),), parameters=said)
        body, _ = infer.write_answer(inferred, model=self._endpoint, request_id=self._id)
        return b"data: %s\n\n" % body


class Vectors(EmbedDialect):
    """`infer` of a model that gives vectors."""

    protocol = PROTOCOL

    def __init__(self, endpoint: str, *, length: int | None) -> None:
        self._endpoint, self._length = endpoint, length
        self._asked: infer.Asked | None = None

    def read(self, body: bytes) -> EmbedRequest:
        request, self._asked = inbound.read_texts(body, self._length, endpoint=self._endpoint)
        return request

    def vectors(self, ask: EmbedRequest, embeddings: Embeddings) -> bytes:
        size = len(embeddings.vectors[0]) if embeddings.vectors else 0
        numbers = [number for vector in embeddings.vectors for number in vector]
        tensor = Tensor("embedding", "FP32", (len(embeddings.vectors), size), numbers)
        said = Inferred(outputs=(tensor,), parameters={"prompt_tokens": embeddings.usage.input})
        written, asked = _Written(), self._asked
        body = written.answer(
            said,
            model=ask.endpoint,
            request_id=asked.request.id if asked is not None else "",
            binary=asked.binary if asked is not None else frozenset(),
        )
        self.whole_type = written.type
        return body

    def error(self, error: PilothouseError) -> bytes:
        return write_error(error)


class Tensors(TensorDialect):
    """`infer` of a model whose tensors nobody here knows."""

    protocol = PROTOCOL

    def __init__(self, endpoint: str, *, length: int | None) -> None:
        self._endpoint, self._length = endpoint, length
        self._binary: frozenset[str] | None = frozenset()

    def read(self, body: bytes) -> InferRequest:
        asked = inbound.read_infer(body, self._length, endpoint=self._endpoint)
        self._binary = asked.binary
        return asked.request

    def tensors(self, ask: InferRequest, inferred: Inferred) -> bytes:
        written = _Written()
        body = written.answer(inferred, model=ask.endpoint, request_id=ask.id, binary=self._binary)
        self.whole_type = written.type
        return body

    def error(self, error: PilothouseError) -> bytes:
        return write_error(error)


def described(endpoint: str, tasks: Sequence[Task]) -> about.ModelMetadata:
    """What an endpoint takes and gives; of tensors that nobody here knows, nothing."""
    platform, inputs, outputs = "pilothouse_tensors", [], []
    if "completion" in tasks:
        platform = "pilothouse_text"
        inputs = [about.TensorSpec(inbound.TEXT, "BYTES", [1])]
        outputs = [about.TensorSpec("text_output", "BYTES", [1])]
    elif "embedding" in tasks:
        platform = "pilothouse_embedding"
        inputs = [about.TensorSpec(inbound.TEXT, "BYTES", [-1])]
        outputs = [about.TensorSpec("embedding", "FP32", [-1, -1])]
    return about.ModelMetadata(
        name=endpoint, versions=[VERSION], platform=platform, inputs=inputs, outputs=outputs
    )


def _text(delta: Delta) -> str:
    return delta.text + (delta.aside.refusal if delta.aside is not None else "")


def _said(delta: Delta, usage: Usage) -> dict[str, str | int]:
    return {
        "finish_reason": delta.finish_reason or "stop",
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
    }


def _plain(endpoint: str, answer_id: str, text: str, said: dict[str, str | int]) -> dict[str, Any]:
    return {"model_name": endpoint, "model_version": VERSION, "id": answer_id, "text_output": text, **said}
