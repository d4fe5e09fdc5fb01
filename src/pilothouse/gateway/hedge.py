"""
Ask a second replica when the first is late, and take who speaks first.

For endpoints that ask for it: it trades work for the slowest answers. The other
one is cancelled at once, which frees its slot; the prompt that it read is
not charged: see `pilothouse_hedges_total` (`Call.asked_twice`).

Source: Dean and Barroso, "The Tail at Scale" (2013), hedged requests.
"""

import asyncio
from collections.abc import AsyncGenerator

from pilothouse.domain.breaker import is_fault
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import PilothouseError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.gateway import generate
from pilothouse.gateway.call import Call
from pilothouse.gateway.permit import Places
from pilothouse.gateway.place import Place
from pilothouse.gateway.route import EndpointRoutes
from pilothouse.ports.engine import Chunks


class _Lane:
    """One replica's answer, and its first piece."""

    def __init__(
        self, ask: GenerateRequest, place: Place, places: Places, routes: EndpointRoutes, deadline_s: float
    ) -> None:
        self.place = place
        self.chunks = generate.chunks(
            ask, place, places, place.team, deadline_s=deadline_s, timeouts=routes.timeouts
        )
        self.first = asyncio.ensure_future(_first(self.chunks))

    async def close(self) -> None:
        """Its slot is free when this returns."""
        self.first.cancel()
        await asyncio.wait([self.first])
        if not self.first.cancelled():
            self.first.exception()  # looked at, so that nobody warns of it
        await self.chunks.aclose()


async def chunks(
    call: Call,
    ask: GenerateRequest,
    place: Place,
    places: Places,
    routes: EndpointRoutes,
    *,
    deadline_s: float,
) -> AsyncGenerator[Chunk, None]:
    """
    The answer of the replica that began first.

    `place` stays the caller's: when the other one wins, it stands for that one's
    place from then on, and the loser's is given back here.
    """
    lanes = [_Lane(ask, place, places, routes, deadline_s)]
    spare: Place | None = None
    winner: _Lane | None = None
    try:
        await asyncio.wait([lanes[0].first], timeout=routes.hedge_after_s)
        if not lanes[0].first.done():
            spare = places.try_take(place.team, routes.terms, place.prefix, {place.replica})
        if spare is not None:
            call.asked_twice = True
            lanes.append(_Lane(ask, spare, places, routes, deadline_s))
        winner = await _winner(lanes, places, deadline_s)
        if winner.place is spare:
            place.swap(spare)
            call.second_won = True
            call.replica = place.replica.entry.name
        if spare is not None:
            await (lanes[0] if winner is lanes[1] else lanes[1]).close()
            places.release(spare)
            spare = None
        lanes = [winner]
        chunk = winner.first.result()
        if chunk is not None:
            yield chunk
            async for chunk in winner.chunks:
                yield chunk
    finally:
        for lane in lanes:
            await lane.close()
        if spare is not None:
            places.release(spare)
        # An error holds frames; were it held by one of them, both would wait for the collector.
        winner = None
        lanes.clear()


async def _winner(lanes: list[_Lane], places: Places, deadline_s: float) -> _Lane:
    """The first with something to say; when all failed, the first of all, for its error."""
    while True:
        await asyncio.wait([lane.first for lane in lanes], return_when=asyncio.FIRST_COMPLETED)
        for lane in lanes:
            if lane.first.done() and lane.first.exception() is None:
                return lane
        waiting = [lane for lane in lanes if not lane.first.done()]
        if not waiting:
            return lanes[0]
        for lane in lanes:
            error = lane.first.exception() if lane.first.done() else None
            if isinstance(error, PilothouseError) and is_fault(error, left_s=deadline_s):
                places.failed(lane.place)
        lanes = waiting


async def _first(chunks: Chunks) -> Chunk | None:
    async for chunk in chunks:
        return chunk
    return None
