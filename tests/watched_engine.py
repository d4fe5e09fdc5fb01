"""An engine that says what a test tells it to, and sees whether it is used as it must be."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from copy import copy

from pilothouse.domain.chat import Ability, Embeddings, EmbedRequest
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.status import Health, Load
from pilothouse.domain.used_tokens import Usage
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.ports.engine import EngineInfo, Placement

Say = Callable[[GenerateRequest], AsyncIterator[Chunk]]


def words(*texts: str, pause_s: float = 0.0, usage: Usage | None = None, finish: str = "stop") -> Say:
    """Says these texts as deltas of each choice, then the end and the usage."""

    async def say(request: GenerateRequest) -> AsyncIterator[Chunk]:
        for text in texts:
            yield Chunk(tuple(Delta(text, index) for index in range(request.choices)))
            await asyncio.sleep(pause_s)
        yield Chunk(tuple(Delta("", index, finish) for index in range(request.choices)))
        yield Chunk((), usage or Usage(7, len(texts) * request.choices, 0))

    return say


def endless(pause_s: float = 0.01, text: str = "on and ") -> Say:
    async def say(request: GenerateRequest) -> AsyncIterator[Chunk]:
        while True:
            yield Chunk((Delta(text),))
            await asyncio.sleep(pause_s)

    return say


def silent() -> Say:
    """Takes the request and says nothing, for ever."""

    async def say(request: GenerateRequest) -> AsyncIterator[Chunk]:
        await asyncio.get_running_loop().create_future()
        yield Chunk()

    return say


def fails(error: Exception, *, after: Sequence[str] = ()) -> Say:
    async def say(request: GenerateRequest) -> AsyncIterator[Chunk]:
        for text in after:
            yield Chunk((Delta(text),))
            await asyncio.sleep(0)
        raise copy(error)  # one that is raised twice would hold the frames of both

    return say


class WatchedEngine:
    """Implements `ports.engine.Engine`. Two requests on one slot at once fail the test."""

    def __init__(
        self,
        say: Say | None = None,
        *,
        slots: bool = False,
        whole: bool = False,
        can: frozenset[Ability] = frozenset(),
    ) -> None:
        self.info = EngineInfo(name="scripted", context_tokens=4096, slots=slots, whole=whole, can=can)
        self.say = say or words("Hello", " world")
        self.asked: list[tuple[GenerateRequest, Placement]] = []
        self.embedded: list[EmbedRequest] = []
        self.running = 0
        self.is_closed = False
        self.collisions: list[int] = []
        self._busy: set[int] = set()

    async def stream(
        self,
        request: GenerateRequest,
        placement: Placement,
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        self.asked.append((request, placement))
        slot = placement.slot
        if slot is not None:
            if slot in self._busy:
                self.collisions.append(slot)
            self._busy.add(slot)
        self.running += 1
        try:
            async for chunk in self.say(request):
                yield chunk
        finally:
            self.running -= 1
            if slot is not None:
                self._busy.discard(slot)

    async def complete(
        self,
        request: GenerateRequest,
        placement: Placement,
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> Chunk:
        texts = [""] * request.choices
        finish: list[str | None] = [None] * request.choices
        usage = Usage()
        async for chunk in self.stream(request, placement, deadline_s=deadline_s):
            usage = chunk.usage or usage
            for delta in chunk.deltas:
                texts[delta.index] += delta.text
                finish[delta.index] = delta.finish_reason or finish[delta.index]
        return Chunk(tuple(Delta(text, i, finish[i]) for i, text in enumerate(texts)), usage)

    async def embed(
        self, request: EmbedRequest, *, deadline_s: float, timeouts: Timeouts | None = None
    ) -> Embeddings:
        self.embedded.append(request)
        vectors = [[float(len(text)), 0.5, -2.0] for text in request.inputs]
        return Embeddings(vectors, Usage(sum(map(len, request.inputs))))

    async def load(self) -> Load:
        return Load(running=self.running)

    async def health(self, *, deadline_s: float) -> Health:
        return Health(ok=not self.is_closed)

    async def aclose(self) -> None:
        self.is_closed = True
