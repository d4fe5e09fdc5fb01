"""
Hand the answer over: whole, as a stream, or as vectors.

In each form the record is kept before the last byte goes out, and the reader
sets the pace: nothing is asked of the engine that the client does not take.
"""

import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from pilothouse.domain.chat import EmbedRequest
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import Internal, NotSupported
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.tensors import InferRequest
from pilothouse.gateway import generate, hedge
from pilothouse.gateway.call import Call
from pilothouse.gateway.flight import Flight
from pilothouse.gateway.keep import Keeper
from pilothouse.gateway.permit import Places
from pilothouse.gateway.place import Place
from pilothouse.ports.engine import Chunks, TensorEngine
from pilothouse.wire.dialect import EmbedDialect, TensorDialect, Writer
from pilothouse.wire.openai import formats

_perf_counter_ns: Final = time.perf_counter_ns


async def whole(
    call: Call, ask: GenerateRequest, place: Place, places: Places, keeper: Keeper, *, deadline_s: float
) -> None:
    asked_ns = _perf_counter_ns()
    try:
        routes = call.routes
        if place.engine.info.whole and ask.prompts == 1 and not (routes and routes.hedge_after_s):
            answer = await place.engine.complete(
                ask, place.placement, deadline_s=deadline_s, timeouts=routes.timeouts if routes else None
            )
            place.is_used = True
        else:
            answer = await _gathered(call, ask, place, places, deadline_s=deadline_s)
    finally:
        call.engine_ns += _perf_counter_ns() - asked_ns
    deltas, usage = answer.deltas, answer.usage
    call.usage = usage = (
        usage if usage is not None and (usage.input or usage.output) else generate.guessed(deltas)
    )
    call.answers = ((deltas[0].text,),) if len(deltas) == 1 else [(delta.text,) for delta in deltas]
    call.asides = generate.beside(deltas)
    call.finish_reason = deltas[0].finish_reason or "stop"
    if call.has_form:
        formats.check(ask.sampling, deltas)
    body = call.generating.whole(ask, deltas, usage, answer_id=call.answer_id, created=int(call.created_at))
    if call.flight is not None:
        call.flight.land(call, deltas)
    kept = keeper.answer(call, call.answer_headers(call.dialect.whole_type), body)
    if kept is not None:
        await kept


async def _gathered(
    call: Call, ask: GenerateRequest, place: Place, places: Places, *, deadline_s: float
) -> Chunk:
    """The whole answer of an engine that only streams; what was said is on record even when it is cut."""
    parts = generate.Gathered(ask.choices)
    call.answers = parts.texts
    chunks = _chunks(call, ask, place, places, deadline_s=deadline_s)
    try:
        async with _Closing(chunks):
            async for chunk in chunks:
                parts.add(chunk)
                if call.flight is not None:
                    call.flight.add(chunk)
                if not call.first_token_ns and generate.says_something(chunk):
                    call.first_token_ns = _perf_counter_ns()
                    place.is_used = True
    finally:
        call.usage = parts.counted()
        call.finish_reason = parts.finish_reason
        call.asides = parts.asides()
    return Chunk(tuple(parts.deltas(unnamed=None)), call.usage)


def stream(
    call: Call, ask: GenerateRequest, place: Place, places: Places, keeper: Keeper, *, deadline_s: float
) -> Coroutine[Any, Any, None]:
    if call.flight is not None:
        return _stream_for_all(call, call.flight, ask, place, places, keeper, deadline_s)
    return _stream_for_one(call, ask, place, places, keeper, deadline_s)


async def _stream_for_one(
    call: Call, ask: GenerateRequest, place: Place, places: Places, keeper: Keeper, deadline_s: float
) -> None:
    responder, told = call.responder, Telling(call, ask)
    responder.meanwhile(told.get_ready)
    gathered = generate.Gathered(ask.choices, with_logprobs=False)
    call.answers = gathered.texts
    asked_ns = _perf_counter_ns()
    chunks = _chunks(call, ask, place, places, deadline_s=deadline_s)
    try:
        async with _Closing(chunks):
            async for chunk in chunks:
                gathered.add(chunk)
                if not chunk.deltas:
                    continue
                if not responder.is_started:
                    call.engine_ns += _perf_counter_ns() - asked_ns
                if not call.first_token_ns and (chunk.deltas[0].text or chunk.deltas[0].aside):
                    call.first_token_ns = _perf_counter_ns()
                    place.is_used = True
                told.tell(chunk)
                if responder.is_paused:
                    await responder.drain()
    finally:
        if not responder.is_started:  # it failed, or had nothing to say: all of that time was the engine's
            call.engine_ns += _perf_counter_ns() - asked_ns
        call.usage = gathered.counted()
        call.finish_reason = gathered.finish_reason
        call.asides = gathered.asides()
    if call.has_form:
        formats.check(ask.sampling, gathered.deltas(unnamed=None))
    await told.finish(keeper)


async def _stream_for_all(
    call: Call,
    flight: Flight,
    ask: GenerateRequest,
    place: Place,
    places: Places,
    keeper: Keeper,
    deadline_s: float,
) -> None:
    """As for one, where others may listen: what this client does not take yet waits for it alone."""
    told = PacedTelling(call, ask, flight.chunks)
    call.responder.meanwhile(told.get_ready)
    gathered = generate.Gathered(ask.choices)
    call.answers = gathered.texts
    asked_ns = _perf_counter_ns()
    chunks = _chunks(call, ask, place, places, deadline_s=deadline_s)
    try:
        async with _Closing(chunks):
            async for chunk in chunks:
                gathered.add(chunk)
                flight.add(chunk)
                if not call.first_token_ns and generate.says_something(chunk):
                    call.engine_ns += _perf_counter_ns() - asked_ns
                    call.first_token_ns = _perf_counter_ns()
                    place.is_used = True
                told.catch_up()
                if call.responder.is_paused:
                    await flight.pace(call.responder)
    finally:
        if not call.first_token_ns:
            call.engine_ns += _perf_counter_ns() - asked_ns
        call.usage = gathered.counted()
        call.finish_reason = gathered.finish_reason
        call.asides = gathered.asides()
    deltas = gathered.deltas(unnamed=None)
    if call.has_form:
        formats.check(ask.sampling, deltas)
    flight.land(call, deltas)
    if call.responder.is_gone:
        call.code = "client_closed"
    await told.catch_up_and_finish(keeper)


class _Closing:
    """
    `contextlib.aclosing`, compiled.

    Not a `finally` with the same in it: compiled, one that awaits leaves the error it was entered with to all
    tasks of the loop.
    """

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        await self._chunks.aclose()


class Telling:
    """Tells one client of an answer, as a stream."""

    _writer: Writer
    _write: Callable[[Chunk], bytes]
    """Of the writer, once: each event is written by it."""

    def __init__(self, call: Call, ask: GenerateRequest) -> None:
        self.responder = call.responder
        self._call = call
        self._ask = ask
        self._headers = b""
        self._is_ready = False

    def get_ready(self) -> None:
        """Make what is known before the first token, so that it need not wait: the engine works meanwhile."""
        if not self._is_ready:
            self._is_ready, call = True, self._call
            self._writer = call.begin_writer(self._ask)
            self._write = self._writer.chunk
            self._headers = call.known_headers(call.generating.stream_type)

    def tell(self, chunk: Chunk) -> None:
        """The events of a chunk, if it has some, and the head before the first."""
        if chunk.deltas:
            if not self.responder.is_started:
                self._start()
            self.responder.write(self._write(chunk))

    async def finish(self, keeper: Keeper) -> None:
        """Keep the record, and end the stream."""
        if not self.responder.is_started:
            self._start()
        await keeper.keep(self._call)
        self.responder.end(self._writer.end(self._call.usage))

    def _start(self) -> None:
        self.get_ready()
        self.responder.start(200, self._call.with_overhead(self._headers))
        self.responder.keepalive = self._call.generating.keepalive


class PacedTelling(Telling):
    """Of an answer that grows and has other readers: this one takes it at its own pace."""

    def __init__(self, call: Call, ask: GenerateRequest, chunks: list[Chunk]) -> None:
        super().__init__(call, ask)
        self._chunks = chunks
        self._position = 0

    def catch_up(self) -> None:
        """Tell all that is new, until the client is slow."""
        chunks = self._chunks
        while self._position < len(chunks) and not self.responder.is_paused:
            self._position += 1
            self.tell(chunks[self._position - 1])

    async def catch_up_and_finish(self, keeper: Keeper) -> None:
        """Tell the rest at the client's pace, keep the record, and end the stream."""
        while self._position < len(self._chunks):
            await self.responder.drain()
            self.catch_up()
        await self.finish(keeper)


async def embed(call: Call, ask: EmbedRequest, place: Place, keeper: Keeper, *, deadline_s: float) -> None:
    asked_ns = _perf_counter_ns()
    try:
        timeouts = call.routes.timeouts if call.routes else None
        embeddings = await place.engine.embed(ask, deadline_s=deadline_s, timeouts=timeouts)
    finally:
        call.engine_ns += _perf_counter_ns() - asked_ns
    call.usage = embeddings.usage
    call.finish_reason = "stop"
    if not isinstance(call.dialect, EmbedDialect):
        raise Internal("vectors were made for a request for text")
    body = call.dialect.vectors(ask, embeddings)
    kept = keeper.answer(call, call.answer_headers(call.dialect.whole_type), body)
    if kept is not None:
        await kept


async def infer(call: Call, ask: InferRequest, place: Place, keeper: Keeper, *, deadline_s: float) -> None:
    """Tensors have no tokens: their usage is nothing, and only requests are limited."""
    engine = place.engine
    if not isinstance(engine, TensorEngine) or not isinstance(call.dialect, TensorDialect):
        raise NotSupported(f"deployment {place.replica.entry.deployment} takes no tensors", param="model")
    asked_ns = _perf_counter_ns()
    try:
        timeouts = call.routes.timeouts if call.routes else None
        inferred = await engine.infer(ask, deadline_s=deadline_s, timeouts=timeouts)
    finally:
        call.engine_ns += _perf_counter_ns() - asked_ns
    call.finish_reason = "stop"
    body = call.dialect.tensors(ask, inferred)
    kept = keeper.answer(call, call.answer_headers(call.dialect.whole_type), body)
    if kept is not None:
        await kept


def _chunks(call: Call, ask: GenerateRequest, place: Place, places: Places, *, deadline_s: float) -> Chunks:
    routes = call.routes
    if routes is None:
        raise Internal("a request reached its answer without a route")
    if routes.hedge_after_s:
        return hedge.chunks(call, ask, place, places, routes, deadline_s=deadline_s)
    return generate.chunks(ask, place, places, place.team, deadline_s=deadline_s, timeouts=routes.timeouts)
