"""
An engine that says what a test wants, when it wants, and fails on demand.

Its tokens are words. A request without a script is answered with words drawn
from its seed, so that equal requests have equal answers.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from random import Random

import msgspec

from pilothouse.domain.chat import Embeddings, EmbedRequest
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineUnavailable,
    NotSupported,
    PilothouseError,
)
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.status import Health, Load
from pilothouse.domain.used_tokens import Usage
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.ports.engine import EngineInfo, Placement

_WORDS = ("the", "sea", "was", "grey", "and", "a", "lamp", "turned", "slowly", "over", "black", "rocks")
DEFAULT_MAX_TOKENS = 16
EMBEDDING_SIZE = 8


@dataclass(frozen=True)
class Script:
    """One answer: pieces of text, what to wait for before each, and how it ends."""

    pieces: tuple[str, ...]
    finish_reason: str = "stop"
    pause_s: float = 0.0
    """Before each piece."""
    first_pause_s: float = 0.0
    """Before the first, as a long prompt takes."""
    error: PilothouseError | None = None
    """Raised after the last piece, instead of an end."""
    cached: int = 0


@dataclass
class Asked:
    """A request as it came."""

    request: GenerateRequest
    placement: Placement


@dataclass
class ScriptedEngine:
    """
    Implements `ports.engine.Engine`.

    Attributes:
        script: What to answer; None draws words.
        slots: Requests at once; more wait.
        token_pause_s: Before each word that is drawn.
        prompt_token_pause_s: Before the first, for each word of the prompt.
        pause: How waiting is done.
        down: Not "": every call fails as if nobody listened, with this reason.
        asked: All requests, in the order in which they came.
        cancelled: Answers that were cut by their reader.
    """

    script: Callable[[GenerateRequest], Script] | None = None
    context_tokens: int = 512
    slots: int = 2
    embeds: bool = False
    token_pause_s: float = 0.0
    prompt_token_pause_s: float = 0.0
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    down: str = ""
    asked: list[Asked] = field(default_factory=list)
    embedded: list[EmbedRequest] = field(default_factory=list)
    cancelled: int = 0
    is_closed: bool = False

    def __post_init__(self) -> None:
        self.info = EngineInfo(
            name="scripted", context_tokens=self.context_tokens, whole=True, slots=self.slots > 0
        )
        self._places = asyncio.Semaphore(max(1, self.slots))
        self._running = 0
        self._waiting = 0

    async def stream(
        self,
        request: GenerateRequest,
        placement: Placement,
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        self._check_up()
        self.asked.append(Asked(request, placement))
        prompt_tokens = self._counted(request)
        began = asyncio.get_running_loop().time()
        ends = began + deadline_s
        first_by = min(ends, began + timeouts.first_byte_s) if timeouts is not None else ends
        try:
            await self._enter(first_by)
            try:
                for step in self._steps(request, prompt_tokens):
                    async with asyncio.timeout_at(first_by):
                        await self.pause(step.pause_s)
                    yield step.chunk
                    first_by = ends
                    if step.error is not None:
                        raise step.error
            except (asyncio.CancelledError, GeneratorExit):
                self.cancelled += 1
                raise
            finally:
                self._leave()
        except TimeoutError as exc:
            raise DeadlineExceeded("the scripted engine did not answer in time") from exc

    async def complete(
        self,
        request: GenerateRequest,
        placement: Placement,
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> Chunk:
        texts: dict[int, str] = {}
        ends: dict[int, str | None] = {}
        usage = Usage()
        async for chunk in self.stream(request, placement, deadline_s=deadline_s, timeouts=timeouts):
            usage = chunk.usage or usage
            for delta in chunk.deltas:
                texts[delta.index] = texts.get(delta.index, "") + delta.text
                ends[delta.index] = delta.finish_reason
        return Chunk(tuple(Delta(texts[i], i, ends[i]) for i in sorted(texts)), usage)

    async def embed(
        self,
        request: EmbedRequest,
        *,
        deadline_s: float,  # noqa: ARG002 - it answers at once
        timeouts: Timeouts | None = None,  # noqa: ARG002
    ) -> Embeddings:
        self._check_up()
        if not self.embeds:
            raise NotSupported("this scripted engine gives no vectors")
        self.embedded.append(request)
        vectors = [_vector(text) for text in request.inputs]
        return Embeddings(vectors, Usage(sum(len(text.split()) for text in request.inputs)))

    async def load(self) -> Load:
        self._check_up()
        return Load(running=self._running, waiting=self._waiting)

    async def health(self, *, deadline_s: float) -> Health:  # noqa: ARG002 - at once
        return Health(ok=not self.down, reason=self.down)

    async def aclose(self) -> None:
        self.is_closed = True

    def _check_up(self) -> None:
        if self.down:
            raise EngineUnavailable(f"the scripted engine is down: {self.down}", retry_after_s=1.0)

    def _counted(self, request: GenerateRequest) -> int:
        if self.embeds:
            raise NotSupported("this scripted engine gives vectors, no text")
        tokens = len(_text_of(request).split())
        if tokens >= self.context_tokens:
            raise ContextLengthExceeded.counted(tokens, self.context_tokens)
        return tokens

    async def _enter(self, ends: float) -> None:
        self._waiting += 1
        try:
            async with asyncio.timeout_at(ends):
                await self._places.acquire()
        finally:
            self._waiting -= 1
        self._running += 1

    def _leave(self) -> None:
        self._running -= 1
        self._places.release()

    def _steps(self, request: GenerateRequest, prompt_tokens: int) -> Iterable["_Step"]:
        output = cached = 0
        for index in range(request.choices):
            script = self.script(request) if self.script else self._drawn(request, index, prompt_tokens)
            pause_s = script.first_pause_s
            for count, piece in enumerate(script.pieces, 1):
                is_last = count == len(script.pieces)
                yield _Step(Chunk((Delta(piece, index),)), pause_s, script.error if is_last else None)
                pause_s = script.pause_s
            yield _Step(Chunk((Delta("", index, script.finish_reason),)), pause_s, script.error)
            output, cached = output + len(script.pieces), script.cached
        yield _Step(Chunk((), Usage(prompt_tokens, output, cached)), 0.0, None)

    def _drawn(self, request: GenerateRequest, index: int, prompt_tokens: int) -> Script:
        """Words by the seed, up to the limit or to a stop text."""
        seed = request.sampling.seed if request.sampling.temperature else 0
        random = Random(f"{seed}:{index}:{_text_of(request)}")  # noqa: S311 - repeatable, no secret
        count = request.max_tokens or DEFAULT_MAX_TOKENS
        pieces = tuple(f" {random.choice(_WORDS)}" for _ in range(count))
        text = "".join(pieces)
        found = [text.index(stop) for stop in request.sampling.stop or () if stop in text]
        if found:
            pieces = (text[: min(found)],)
        return Script(
            pieces,
            "stop" if found else "length",
            pause_s=self.token_pause_s,
            first_pause_s=self.prompt_token_pause_s * prompt_tokens,
        )


@dataclass(frozen=True)
class _Step:
    chunk: Chunk
    pause_s: float
    error: PilothouseError | None


def _text_of(request: GenerateRequest) -> str:
    return " ".join(_strings(msgspec.json.decode(request.prompt)))


def _strings(value: object) -> Iterable[str]:
    """The texts of a prompt, whatever its shape."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _strings(value.get("content", value.get("text")))
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _vector(text: str) -> list[float]:
    random = Random(text)  # noqa: S311 - repeatable, no secret
    values = [random.uniform(-1, 1) for _ in range(EMBEDDING_SIZE)]
    length = sum(value * value for value in values) ** 0.5
    return [value / length for value in values]
