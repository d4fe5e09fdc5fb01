"""
Hand the answer over: whole, as a stream, or as vectors.

In each form the record is kept before the last byte goes out, and the reader
sets the pace: nothing is asked of the engine that the client does not take.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from pilothouse.domain.chat import Chunk, EmbedRequest, GenerateRequest
from pilothouse.domain.errors import Internal
from pilothouse.gateway import generate, hedge
from pilothouse.gateway.call import Call
from pilothouse.gateway.keep import Keeper
from pilothouse.gateway.permit import Places
from pilothouse.gateway.place import Place
from pilothouse.kit import sse
from pilothouse.wire.openai import answers

JSON = "application/json"
EVENTS = "text/event-stream; charset=utf-8\r\ncache-control: no-store\r\nx-accel-buffering: no"


async def whole(
    call: Call, ask: GenerateRequest, place: Place, places: Places, keeper: Keeper, *, deadline_s: float
) -> None:
    asked_ns = time.perf_counter_ns()
    try:
        routes = call.routes
        if place.engine.info.whole and not (routes and routes.hedge_after_s):
            answer = await place.engine.complete(
                ask, place.placement, deadline_s=deadline_s, timeouts=routes.timeouts if routes else None
            )
            place.is_used = True
        else:
            answer = await _gathered(call, ask, place, places, deadline_s=deadline_s)
    finally:
        call.engine_ns += time.perf_counter_ns() - asked_ns
    deltas = answer.deltas
    call.usage = answer.usage or call.usage
    call.answers = ((deltas[0].text,),) if len(deltas) == 1 else [(delta.text,) for delta in deltas]
    call.finish_reason = deltas[0].finish_reason or "stop"
    body = answers.write_whole(
        ask, deltas, call.usage, answer_id=_answer_id(call), created=int(call.created_at)
    )
    await keeper.answer(call, call.answer_headers(JSON), body)


async def _gathered(
    call: Call, ask: GenerateRequest, place: Place, places: Places, *, deadline_s: float
) -> Chunk:
    """The whole answer of an engine that only streams; what was said is on record even when it is cut."""
    parts = generate.Gathered(ask.choices)
    call.answers = parts.texts
    chunks = _chunks(call, ask, place, places, deadline_s=deadline_s)
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                parts.add(chunk)
                if not call.first_token_ns and chunk.deltas and chunk.deltas[0].text:
                    call.first_token_ns = time.perf_counter_ns()
                    place.is_used = True
    finally:
        call.usage = parts.counted()
        call.finish_reason = parts.finish_reason
    return Chunk(tuple(parts.deltas()), call.usage)


async def stream(
    call: Call, ask: GenerateRequest, place: Place, places: Places, keeper: Keeper, *, deadline_s: float
) -> None:
    writer = answers.StreamWriter(ask, answer_id=_answer_id(call), created=int(call.created_at))
    responder = call.responder
    gathered = generate.Gathered(ask.choices, with_logprobs=False)
    call.answers = gathered.texts
    asked_ns = time.perf_counter_ns()
    chunks = _chunks(call, ask, place, places, deadline_s=deadline_s)
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                gathered.add(chunk)
                if not chunk.deltas:
                    continue
                if not responder.is_started:
                    call.engine_ns += time.perf_counter_ns() - asked_ns
                    responder.start(200, call.answer_headers(EVENTS))
                    responder.keepalive = sse.KEEPALIVE
                if not call.first_token_ns and chunk.deltas[0].text:
                    call.first_token_ns = time.perf_counter_ns()
                    place.is_used = True
                responder.write(writer.chunk(chunk))
                if responder.is_paused:
                    await responder.drain()
    finally:
        if not responder.is_started:  # it failed, or had nothing to say: all of that time was the engine's
            call.engine_ns += time.perf_counter_ns() - asked_ns
        call.usage = gathered.counted()
        call.finish_reason = gathered.finish_reason
    if not responder.is_started:
        responder.start(200, call.answer_headers(EVENTS))
    await keeper.keep(call)
    responder.end(writer.end(call.usage))


async def embed(call: Call, ask: EmbedRequest, place: Place, keeper: Keeper, *, deadline_s: float) -> None:
    asked_ns = time.perf_counter_ns()
    try:
        timeouts = call.routes.timeouts if call.routes else None
        embeddings = await place.engine.embed(ask, deadline_s=deadline_s, timeouts=timeouts)
    finally:
        call.engine_ns += time.perf_counter_ns() - asked_ns
    call.usage = embeddings.usage
    call.finish_reason = "stop"
    body = answers.write_embeddings(embeddings, endpoint=ask.endpoint, base64=ask.base64)
    await keeper.answer(call, call.answer_headers(JSON), body)


def _chunks(
    call: Call, ask: GenerateRequest, place: Place, places: Places, *, deadline_s: float
) -> AsyncGenerator[Chunk, None]:
    routes = call.routes
    if routes is None:
        raise Internal("a request reached its answer without a route")
    if routes.hedge_after_s:
        return hedge.chunks(call, ask, place, places, routes, deadline_s=deadline_s)
    return generate.chunks(ask, place, places, place.team, deadline_s=deadline_s, timeouts=routes.timeouts)


def _answer_id(call: Call) -> str:
    """The answer's id leads to its record."""
    return ("chatcmpl-" if call.kind == "chat" else "cmpl-") + call.id.removeprefix("req_")
