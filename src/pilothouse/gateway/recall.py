"""
The stage between choosing and asking: has this been answered, or is it being answered now?

An exact hit is answered at once. An identical request that is under way is
followed (`gateway.flight`). Everything else is generated, and its answer stored
when it is whole and came from what the key says. A follower has no generation
of its own: it says `hit`, as do answers from memory, and only a generation says
`miss`. Where the cache is on, nothing else may change an answer: what cannot be
decided is a `bypass`.
"""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from copy import copy
from typing import Any, Final, Literal

from pilothouse.domain import caching, likeness
from pilothouse.domain.cached_answer import CachedAnswer
from pilothouse.domain.chunk import Delta
from pilothouse.domain.errors import DeadlineExceeded, Internal, PilothouseError, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.snapshot import CachePolicy, SemanticPolicy, Snapshot
from pilothouse.gateway import generate
from pilothouse.gateway.call import Call
from pilothouse.gateway.deliver import PacedTelling
from pilothouse.gateway.flight import MAX_FOLLOWERS, Flight
from pilothouse.gateway.keep import Keeper
from pilothouse.gateway.route import EndpointRoutes
from pilothouse.gateway.semantic import Embedder, SemanticIndex, question_of
from pilothouse.gateway.state import GatewayState
from pilothouse.kit.fingerprint import OwnFingerprint, shared_fingerprint
from pilothouse.ports.cache import Cache, NearCache
from pilothouse.wire.openai import canonical

_CHANCES: Final = 2
"""Generations that a caller follows when they fail: then it fails with the last."""
_PACED_BYTES: Final = 64 * 1024
"""A replay above this goes out in parts, at the client's pace."""
_HEADER: Final = b"x-pilothouse-cache"
_new_answer: Final = CachedAnswer


class Asked:
    """A question, and the parts of its key."""

    __slots__ = ("ask", "head", "identity", "key", "prompt")

    def __init__(self, ask: GenerateRequest, identity: str, head: bytes, prompt: bytes, key: bytes) -> None:
        self.ask = ask
        self.identity = identity
        self.head = head
        self.prompt = prompt
        self.key = key


class Recall:
    """
    Args:
        near: Answers in this worker's memory.
        far: Answers that several workers share, if any.
    """

    def __init__(
        self, state: GatewayState, keeper: Keeper, near: NearCache, far: Cache | None = None
    ) -> None:
        self._state = state
        self._keeper = keeper
        self._near = near
        self._far = far
        self._fingerprint = shared_fingerprint if far is not None else OwnFingerprint().of
        self._flights: dict[bytes, Flight] = {}
        self._index = SemanticIndex()
        self._embedder = Embedder(state)
        self._snapshot: Snapshot | None = None
        self._stems: dict[tuple[str, str, str], tuple[str, bytes] | None] = {}
        """By team, endpoint and deployment, of this snapshot: what answers there, and the key's stem."""

    def answers(self, call: Call, ask: GenerateRequest, deadline: float) -> Coroutine[Any, Any, bool] | None:
        """
        Answer from a cache or along with another call; None or, after a wait, False: it has to be generated.

        Then `call.flight` is where to say what is generated, unless it is None.

        Args:
            deadline: When the answer must be there, as `time.monotonic` says it.

        Raises:
            PilothouseError: What the call that this one followed failed with, or its own deadline.
        """
        principal, routes = call.principal, call.routes
        policy = routes.cache if routes is not None else None
        if principal is None or routes is None or policy is None:
            raise Internal("a request reached the cache before it was admitted")
        if not caching.is_cacheable(ask, policy) or call.request.headers.get(_HEADER) == caching.NO_STORE:
            return None
        found = self._stem(principal.team, routes, call.deployment)
        if found is None:
            return None
        identity, stem = found
        head = caching.head_of(stem, ask, canonical.canonical_sampling(ask))
        prompt = canonical.canonical_prompt(ask)
        asked = Asked(ask, identity, head, prompt, self._fingerprint(head, prompt))
        if asked.key in self._flights:
            return self._along(call, asked, policy, deadline)
        return self._first(call, asked, policy)

    def _first(self, call: Call, asked: "Asked", policy: CachePolicy) -> Coroutine[Any, Any, bool] | None:
        """Nobody generates it now: it is known here, or others who ask the same wait for this call."""
        answer = self._near.find(asked.key)
        if answer is not None:
            call.cache = "hit"
            return self._give(call, asked.ask, answer)
        call.cache = "miss"
        call.flight = flight = self._flights[asked.key] = Flight(
            asked.key, call.responder, self.land, deployment=call.deployment, identity=asked.identity
        )
        flight.snapshot = self._snapshot
        semantic = policy.semantic
        return None if self._far is None and semantic is None else self._lead(call, flight, asked, semantic)

    async def _along(self, call: Call, asked: "Asked", policy: CachePolicy, deadline: float) -> bool:
        """Answer along with who generates it now, or with who is the next to do so."""
        ask, key = asked.ask, asked.key
        for chance in range(_CHANCES):
            flight = self._flights.get(key)
            if flight is None:
                leads = self._first(call, asked, policy)
                return leads is not None and await leads
            if flight.followers >= MAX_FOLLOWERS:
                break
            if await self._follow(call, ask, flight, deadline, is_last=chance == _CHANCES - 1):
                return True
        call.cache = "miss"
        return False

    async def _lead(
        self, call: Call, flight: Flight, asked: "Asked", semantic: SemanticPolicy | None
    ) -> bool:
        """Where others may know it, or what is much like it."""
        answer = None
        if self._far is not None and (answer := await self._far.get(asked.key)) is not None:
            self._near.put(asked.key, answer)
        if answer is None and semantic is not None:
            answer = await self._similar(call, flight, asked, semantic)
            if answer is not None:
                flight.result = "semantic"
        if answer is None:
            return False
        call.cache = flight.result
        self._end(flight, answer=answer)
        return await self._give(call, asked.ask, answer)

    async def _similar(
        self, call: Call, flight: Flight, asked: "Asked", policy: SemanticPolicy
    ) -> CachedAnswer | None:
        """The answer to the same question in other words; from now on this one is known too."""
        found = canonical.last_question(asked.prompt) if asked.ask.kind == "chat" else None
        embedder = self._embedder.identity(policy)
        if found is None or embedder is None or not found[1] or len(found[1]) > likeness.MAX_CHARS:
            return None
        rest, text = found
        began_ns = time.perf_counter_ns()
        vector = await self._embedder.vector(policy, text, call.principal.team if call.principal else "")
        call.engine_ns += time.perf_counter_ns() - began_ns
        if vector is None:
            return None
        scene = caching.scene_of(asked.head, rest, embedder)
        question = flight.question = question_of(scene, text, vector)
        key = self._index.find(question, policy.threshold) if question is not None else None
        if question is None or key is None:
            return None
        answer = self._near.find(key)
        if answer is None:
            self._index.remove(question, key)
        return answer

    async def _follow(
        self, call: Call, ask: GenerateRequest, flight: Flight, deadline: float, *, is_last: bool
    ) -> bool:
        """Answer along with another call; False when that failed before this client was told anything."""
        call.cache = flight.result
        told = PacedTelling(call, ask, flight.chunks) if ask.stream else None
        await self._listen(call, flight, told, deadline)
        answer, error = flight.answer, flight.error
        if answer is None:
            if call.responder.is_started or (error is not None and (is_last or not error.retryable)):
                # Each gets his own: one that is raised twice would hold the frames of both.
                raise copy(error) if error is not None else UpstreamError("the shared generation was ended")
            return False
        call.cache = flight.result
        if told is None or not flight.chunks:
            return await self._give(call, ask, answer)
        _take_over(call, answer)
        await told.catch_up_and_finish(self._keeper)
        return True

    async def _listen(self, call: Call, flight: Flight, told: PacedTelling | None, deadline: float) -> None:
        """Until it is over. What the client gets meanwhile it gets at its own pace."""
        asked_ns = time.perf_counter_ns()
        flight.join()
        try:
            async with asyncio.timeout(max(0.001, deadline - time.monotonic())):
                while not flight.is_over:
                    if told is not None:
                        told.catch_up()
                        if call.responder.is_started and not call.first_token_ns:
                            call.first_token_ns = time.perf_counter_ns()
                            call.engine_ns += call.first_token_ns - asked_ns
                        if call.responder.is_paused:
                            await call.responder.drain()
                            continue
                    await flight.news()
        except TimeoutError as exc:
            raise DeadlineExceeded("the answer to the same question did not come in time") from exc
        finally:
            flight.leave()
            if not call.first_token_ns:
                call.engine_ns += time.perf_counter_ns() - asked_ns

    async def _give(self, call: Call, ask: GenerateRequest, answer: CachedAnswer) -> Literal[True]:
        """Answer with what is known."""
        _take_over(call, answer)
        dialect = call.generating
        if not ask.stream:
            body = dialect.again(ask, answer, answer_id=call.answer_id, created=int(call.created_at))
            kept = self._keeper.answer(call, call.answer_headers(call.dialect.whole_type), body)
            if kept is not None:
                await kept
            return True
        writer = call.begin_writer(ask)
        responder = call.responder
        responder.start(200, call.answer_headers(dialect.stream_type))
        call.first_token_ns = time.perf_counter_ns()
        events = dialect.replay(answer, writer)
        for i in range(0, len(events) - _PACED_BYTES, _PACED_BYTES):
            responder.write(events[i : i + _PACED_BYTES])
            await responder.drain()
        await self._keeper.keep(call)
        rest = events[(len(events) - 1) // _PACED_BYTES * _PACED_BYTES :]
        responder.end(rest + writer.end(answer.usage))
        return True

    # what was generated

    def land(self, call: Call, deltas: Sequence[Delta]) -> None:
        """The call's answer is whole: for those who follow, and for those who ask again."""
        flight, routes, principal = call.flight, call.routes, call.principal
        policy = routes.cache if routes is not None else None
        if flight is None or principal is None or routes is None or policy is None:
            raise Internal("an answer was stored that nobody looked for")
        expires_at = time.time() + policy.exact_ttl_s
        answer = _new_answer(principal.team, routes.name, tuple(deltas), call.usage, expires_at)
        self._end(flight, answer=answer)
        if caching.is_complete(deltas) and self._answered_as_said(call, flight):
            self._near.put(flight.key, answer)
            if self._far is not None:
                self._far.put(flight.key, answer)
            if flight.question is not None and (semantic := policy.semantic) is not None:
                self._index.add(flight.question, flight.key, expires_at=time.time() + semantic.ttl_s)

    def give_up(self, flight: Flight, error: PilothouseError | None) -> None:
        """The call failed, or was cancelled. When it had landed before, this does nothing."""
        self._end(flight, error=error)

    def _end(
        self, flight: Flight, *, answer: CachedAnswer | None = None, error: PilothouseError | None = None
    ) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        flight.end(answer=answer, error=error)

    def _answered_as_said(self, call: Call, flight: Flight) -> bool:
        """Whether the model answered that the key names: a fallback, or a successor, may have."""
        if call.deployment != flight.deployment:
            return False
        if self._snapshot is self._state.snapshot and flight.snapshot is self._snapshot:
            return True  # all of its replicas were of one model, and still are
        places = self._state.places.get(call.deployment)
        replica = places.replicas.get(call.replica) if places is not None else None
        return replica is not None and caching.identity_of((replica.entry,)) == flight.identity

    # what keys stand on

    def _stem(self, team: str, routes: EndpointRoutes, deployment: str) -> tuple[str, bytes] | None:
        if self._snapshot is not self._state.snapshot:
            self._follow_snapshot(self._state.snapshot)
        where = (team, routes.name, deployment)
        known = self._stems.get(where)
        if known is not None or where in self._stems:
            return known
        snapshot = self._state.snapshot
        identity = caching.identity_of(snapshot.replicas.get(deployment, ()))
        found = None
        if identity is not None:
            found = identity, caching.stem_of(team, routes.entry, deployment, identity, snapshot.purges)
        self._stems[where] = found
        return found

    def _follow_snapshot(self, snapshot: Snapshot) -> None:
        before = self._snapshot.purges if self._snapshot is not None else {}
        self._snapshot = snapshot
        self._stems = {}
        purged = {scope for scope, count in snapshot.purges.items() if before.get(scope) != count}
        if purged:
            self._near.drop(
                lambda answer: not purged.isdisjoint(caching.purge_scopes(answer.team, answer.endpoint))
            )


def _take_over(call: Call, answer: CachedAnswer) -> None:
    """The call's record tells of this answer as the client gets it."""
    call.usage = answer.usage
    call.answers = [(delta.text,) for delta in answer.deltas]
    call.asides = generate.beside(answer.deltas)
    call.finish_reason = answer.deltas[0].finish_reason or "stop"
