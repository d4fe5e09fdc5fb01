"""
Several choices of an engine with slots, which answers one choice a slot.

They are asked for one by one or side by side, as far as free places allow, each with
its own seed. So no choice ever lands on a slot that another team's prompt will be
compared with.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import DeadlineExceeded
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.gateway.permit import Places
from pilothouse.gateway.place import Place
from pilothouse.kit.http1.peer import Timeouts

_QUEUE = 32
"""Chunks that may wait between several choices and one slow reader."""


async def several(
    ask: GenerateRequest,
    place: Place,
    places: Places,
    team: str,
    *,
    deadline_s: float,
    timeouts: Timeouts | None,
) -> AsyncGenerator[Chunk, None]:
    extra: list[Place] = []
    while len(extra) < ask.choices - 1 and (another := places.try_take(team)) is not None:
        extra.append(another)
    lanes = [place, *extra]
    queue: asyncio.Queue[_Item] = asyncio.Queue(_QUEUE)
    ends = time.monotonic() + deadline_s
    asked = _one_by_one(ask)
    tasks = [
        asyncio.create_task(_lane(asked[i :: len(lanes)], lane, ends, queue, timeouts=timeouts))
        for i, lane in enumerate(lanes)
    ]
    total = _Total(ask)
    running = len(tasks)
    item: _Item = None
    try:
        while running:
            item = await queue.get()
            if item is None:
                running -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                index, chunk = item
                if chunk.usage is not None:
                    total.add(index, chunk.usage)
                if chunk.deltas:
                    yield Chunk(chunk.deltas)
        yield Chunk((), total.usage)
    finally:
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for lane in extra:
                places.release(lane)
            # An error holds frames; were it held by one of them, both would wait for the collector.
            item = None
            while not queue.empty():
                queue.get_nowait()


_Item = tuple[int, Chunk] | BaseException | None
"""A choice's index and its next chunk; what went wrong; None where a lane is at its end."""


async def _lane(
    asked: list[tuple[int, GenerateRequest]],
    place: Place,
    ends: float,
    queue: "asyncio.Queue[_Item]",
    *,
    timeouts: Timeouts | None,
) -> None:
    """Answer these choices one after the other in one place."""
    try:
        for index, one in asked:
            stream = place.engine.stream(one, place.placement, deadline_s=_left_s(ends), timeouts=timeouts)
            async with aclosing(stream):
                async for chunk in stream:
                    place.is_used = place.is_used or any(delta.text for delta in chunk.deltas)
                    deltas = tuple([_at(delta, index) for delta in chunk.deltas])
                    await queue.put((index, Chunk(deltas, chunk.usage)))
        await queue.put(None)
    except Exception as exc:  # noqa: BLE001 - the task ends here; the consumer raises what went wrong
        await queue.put(exc)


def _left_s(ends: float) -> float:
    left_s = ends - time.monotonic()
    if left_s <= 0:
        raise DeadlineExceeded("the answer's time was over before all choices were there")
    return left_s


def _one_by_one(ask: GenerateRequest) -> list[tuple[int, GenerateRequest]]:
    """Each choice as a request of its own, with its index: those of the first prompt first."""
    prompts = msgspec.json.decode(ask.prompt, type=list[msgspec.Raw]) if ask.prompts > 1 else [ask.prompt]
    each = ask.choices // ask.prompts
    return [
        (place * each + i, _one_choice(ask, prompt, i))
        for place, prompt in enumerate(prompts)
        for i in range(each)
    ]


def _one_choice(ask: GenerateRequest, prompt: msgspec.Raw, index: int) -> GenerateRequest:
    sampling = ask.sampling
    if index and sampling.seed is not None:
        sampling = msgspec.structs.replace(sampling, seed=sampling.seed + index)
    return ask.changed(prompt=prompt, prompt_bytes=len(prompt), prompts=1, choices=1, sampling=sampling)


def _at(delta: Delta, index: int) -> Delta:
    return Delta(delta.text, index, delta.finish_reason, delta.logprobs, delta.aside)


class _Total:
    """Sums what choices used: each prompt is counted once, as OpenAI does, the answers all."""

    def __init__(self, ask: GenerateRequest) -> None:
        self._each = ask.choices // ask.prompts
        self._read = [Usage()] * ask.prompts
        self._output = 0

    def add(self, index: int, used: Usage) -> None:
        place = index // self._each
        seen = self._read[place]
        self._read[place] = Usage(max(seen.input, used.input), 0, max(seen.cached, used.cached))
        self._output += used.output

    @property
    def usage(self) -> Usage:
        read = self._read
        return Usage(sum(one.input for one in read), self._output, sum(one.cached for one in read))
