"""
Shadows: copies of requests that were answered, for a candidate whose answers nobody sees.

A copy is sent after its request's answer was handed over, in a task of its own:
a caller never waits for one. It takes a place only where one is free now, gives
it up as soon as a request waits for it, and counts as nobody's use. Whatever does
not fit is dropped and counted: a shadow is a sample.
"""

import asyncio
import time
from contextlib import aclosing

from msgspec import Struct
from msgspec.structs import replace

from pilothouse.domain.chat import Aside, EmbedRequest
from pilothouse.domain.errors import PilothouseError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.record import FOUND, Content, InferenceRecord, JournalEntry, Shadowed
from pilothouse.domain.rollout import FAULTS
from pilothouse.domain.tensors import InferRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.gateway import admit, generate
from pilothouse.gateway.call import Call
from pilothouse.gateway.keep import ROOM_FOR_ANSWER_BYTES, Keeper
from pilothouse.gateway.meter import Meters
from pilothouse.gateway.permit import Places
from pilothouse.gateway.place import Place
from pilothouse.gateway.route import EndpointRoutes
from pilothouse.kit.ids import new_id
from pilothouse.kit.log import Log
from pilothouse.kit.tasks import Tasks

MOST_AT_ONCE = 4
"""In one worker."""
CLOSE_S = 1.0


class _Copy(Struct, frozen=True):
    """What is left of a request when its connection goes on."""

    ask: GenerateRequest | EmbedRequest
    body: bytes
    protocol: str
    shadowed: Shadowed
    routes: EndpointRoutes


class _Answer(Struct):
    """What the candidate says, as far as it got."""

    texts: list[str] = []
    asides: list[Aside] = []
    usage: Usage = Usage()
    finish_reason: str = ""
    ttft_ms: float | None = None
    code: str = "ok"


class Shadows:
    def __init__(self, keeper: Keeper, meters: Meters, log: Log) -> None:
        self._keeper = keeper
        self._meters = meters
        self._tasks = Tasks(
            lambda record, exc: log.failure("shadow_defect", exc, record=record), limit=MOST_AT_ONCE
        )
        self._is_closed = False

    @property
    def running(self) -> int:
        return len(self._tasks.names)

    def copy(self, call: Call, routes: EndpointRoutes, places: Places) -> None:
        """
        Send a copy of a call that has ended, soon, where the deployment that is compared was asked first.

        Args:
            places: The candidate's.
        """
        shadow, ask = routes.entry.shadow, call.ask
        first = call.failed_first or call.deployment
        if self._is_closed or shadow is None or ask is None or first != shadow.stable:
            return
        if call.cache in FOUND or not (call.code == "ok" or call.code in FAULTS):
            return
        body = call.request.body
        if not self._keeper.has_room(2 * (len(body) + ROOM_FOR_ANSWER_BYTES)):
            self._drop(routes, places, "no_room")
            return
        if isinstance(ask, InferRequest):  # nothing of two tensors is compared
            return
        if isinstance(ask, GenerateRequest):
            ask = admit.bounded(ask, routes.max_tokens)
        said = ["".join(parts) for parts in call.answers] if routes.entry.records == "sealed" else []
        shadowed = Shadowed(self._keeper.facts(call), said, bool(call.failed_first))
        copy = _Copy(ask, body, call.dialect.protocol, shadowed, routes)
        if not self._tasks.start(shadowed.record.id, lambda: self._send(copy, places)):
            self._drop(routes, places, "busy")

    async def aclose(self) -> None:
        """Send none any more, and end those under way: they leave no record."""
        self._is_closed = True
        await self._tasks.aclose(timeout_s=CLOSE_S)

    async def _send(self, copy: _Copy, places: Places) -> None:
        await asyncio.sleep(0)  # what closes the turn, the answer's last bytes among it, goes first
        team = copy.shadowed.record.team
        # One that failed is left for those who are asked for real: a copy says nothing of its health.
        place = None if places.sick else places.try_take(team, copy.routes.terms)
        if place is None:
            self._drop(copy.routes, places, "no_place")
            return
        guest = asyncio.current_task()
        answer, began, began_ns = _Answer(), time.time(), time.perf_counter_ns()
        try:
            if guest is not None:
                places.guests.add(guest)
            await _ask(copy, place, places, answer)
        except PilothouseError as exc:
            answer.code = exc.code
        except asyncio.CancelledError:
            self._drop(copy.routes, places, "gave_way")
            raise
        finally:
            places.guests.discard(guest)
            places.release(place)
        record = replace(
            _facts(copy.shadowed.record, answer),
            time=began,
            deployment=places.deployment,
            replica=place.replica.entry.name,
            duration_ms=(time.perf_counter_ns() - began_ns) / 1e6,
        )
        self._meters.shadows.labels(record.endpoint, record.deployment, record.code).inc()
        content = None
        if copy.routes.entry.records == "sealed":
            content = Content(copy.body, answer.texts, copy.protocol, answer.asides)
        self._keeper.keep_shadow(JournalEntry(record, content, shadowed=copy.shadowed))

    def _drop(self, routes: EndpointRoutes, places: Places, reason: str) -> None:
        self._meters.shadows_dropped.labels(routes.entry.name, places.deployment, reason).inc()


async def _ask(copy: _Copy, place: Place, places: Places, answer: _Answer) -> None:
    """Always chunk by chunk, for the times; a caller who streams is told no more than one who does not."""
    ask, routes = copy.ask, copy.routes
    deadline_s, timeouts = routes.entry.timeout_s, routes.timeouts
    if isinstance(ask, EmbedRequest):
        embeddings = await place.engine.embed(ask, deadline_s=deadline_s, timeouts=timeouts)
        answer.usage, answer.finish_reason = embeddings.usage, "stop"
        return
    asked_ns = time.perf_counter_ns()
    gathered = generate.Gathered(ask.choices, with_logprobs=False)
    chunks = generate.chunks(ask, place, places, place.team, deadline_s=deadline_s, timeouts=timeouts)
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                gathered.add(chunk)
                if answer.ttft_ms is None and generate.says_something(chunk):
                    answer.ttft_ms = (time.perf_counter_ns() - asked_ns) / 1e6
                    place.is_used = True
    finally:
        answer.texts = ["".join(parts) for parts in gathered.texts]
        answer.asides = gathered.asides()
        answer.usage = gathered.counted()
        answer.finish_reason = gathered.finish_reason


def _facts(original: InferenceRecord, answer: _Answer) -> InferenceRecord:
    """Its team's, for whoever may read the original may read this; and it costs nobody anything."""
    return replace(
        original,
        id=new_id("req_"),
        shadow_of=original.id,
        code=answer.code,
        input_tokens=answer.usage.input,
        output_tokens=answer.usage.output,
        cached_tokens=answer.usage.cached,
        ttft_ms=answer.ttft_ms,
        overhead_us=0,
        cost_micro_usd=0,
        cache="bypass",
        finish_reason=answer.finish_reason,
    )
