"""
How an engine of the OpenAI dialect is asked for text: what `_openai_http` does for every request.

It is compiled (`app.compiled`). What all requests to one engine share is written once.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from msgspec import Raw

from pilothouse.adapters.engines._asking import Asker
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import PilothouseError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.ports.engine import Chunks, Placement
from pilothouse.wire.openai.outbound import AnswerReader, RequestWriter, read_whole

_read_whole: Final = read_whole


class TextAsker:
    """
    Args:
        heads: Of requests, by the kind of text, all but their length.
        refused_within: The error that an event of an error stands for, where the request is what is wrong.
        of_llama: It is llama.cpp's server, and takes `id_slot` and `cache_prompt`.
    """

    __slots__ = ("_asker", "_heads", "_of_llama", "_refused_within", "_writer")

    def __init__(
        self,
        asker: Asker,
        heads: Mapping[str, bytes],
        writer: RequestWriter,
        refused_within: Callable[[bytes], PilothouseError | None],
        *,
        of_llama: bool,
    ) -> None:
        self._asker = asker
        self._heads = dict(heads)
        self._writer = writer
        self._refused_within = refused_within
        self._of_llama = of_llama

    def stream(
        self,
        request: GenerateRequest,
        placement: Placement,
        deadline_s: float,
        timeouts: Timeouts | None,
    ) -> Chunks:
        """As `ports.engine.Engine.stream`."""
        return self._asker.said(
            self._written(request, placement, stream=True),
            AnswerReader(request.choices, self._refused_within),
            deadline_s=deadline_s,
            timeouts=timeouts,
        )

    def complete(
        self,
        request: GenerateRequest,
        placement: Placement,
        deadline_s: float,
        timeouts: Timeouts | None,
    ) -> Coroutine[Any, Any, Chunk]:
        """As `ports.engine.Engine.complete`."""
        return self._asker.whole(
            self._written(request, placement, stream=False),
            _read_whole,
            deadline_s=deadline_s,
            timeouts=timeouts,
        )

    def _written(self, request: GenerateRequest, placement: Placement, *, stream: bool) -> bytes:
        if self._of_llama:
            slot, reuses = placement.slot, placement.reuse_prefix
            body = self._writer.write(request, stream=stream, slot=slot, reuse_prefix=reuses)
        else:
            body = self._writer.write(request, stream=stream)
        return with_length(self._heads[request.kind], body)


def with_length(head: bytes, body: Sequence[bytes | Raw]) -> bytes:
    """A whole request, of a head that lacks its length and a body in parts."""
    size = 0
    for part in body:
        size += len(part)
    return b"".join([head, b"content-length: %d\r\n\r\n" % size, *body])
