"""
Questions that were asked in other words: found by their vectors, then held against rules.

Only the last message of a user may differ. All else (team, endpoint, model,
system prompt, history, sampling) names a scene, and each scene is an index of
its own: nothing is ever compared across. The vectors come from an endpoint of
ours. A candidate must be near enough and agree in its marks (`domain.likeness`).

No numerical library is loaded into a worker for this: the signs of a vector's
coordinates are one integer, and the few whose signs differ least are compared in
full.
"""

import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from heapq import nsmallest
from math import sqrt
from operator import mul

from msgspec import Struct

from pilothouse.domain import likeness
from pilothouse.domain.caching import identity_of
from pilothouse.domain.chat import EmbedRequest
from pilothouse.domain.errors import PilothouseError
from pilothouse.domain.likeness import Marks
from pilothouse.domain.snapshot import SemanticPolicy
from pilothouse.gateway.permit import Places
from pilothouse.gateway.state import GatewayState

MAX_ENTRIES = 4096
"""Questions in one worker, of all scenes; about 2.5 kB each at 384 dimensions."""
MAX_PER_SCENE = 1024
_CANDIDATES = 8
EMBED_S = 1.0
"""How long the vector may take, waiting for a place included; then the question counts as new."""


class Question(Struct):
    """What was asked in a scene, and its vector of length 1."""

    scene: bytes
    vector: "array[float]"
    signs: int
    marks: Marks


class _Entry(Struct):
    question: Question
    key: bytes
    expires_at: float


class SemanticIndex:
    """
    Args:
        now: Unix seconds.
    """

    def __init__(
        self,
        *,
        max_entries: int = MAX_ENTRIES,
        max_per_scene: int = MAX_PER_SCENE,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._scenes: OrderedDict[bytes, OrderedDict[bytes, _Entry]] = OrderedDict()
        self._max_entries = max_entries
        self._max_per_scene = max_per_scene
        self._now = now
        self.entries = 0

    def find(self, question: Question, threshold: float) -> bytes | None:
        """The key of the answer to the nearest question that is near enough and agrees, if there is one."""
        scene = self._scenes.get(question.scene)
        if scene is None:
            return None
        self._scenes.move_to_end(question.scene)
        signs, now = question.signs, self._now()
        near = nsmallest(
            _CANDIDATES, scene.values(), key=lambda entry: (entry.question.signs ^ signs).bit_count()
        )
        scored = [
            (dot(entry.question.vector, question.vector), entry) for entry in near if entry.expires_at > now
        ]
        for score, entry in sorted(scored, key=lambda pair: -pair[0]):
            if score < threshold:
                return None
            if likeness.agree(entry.question.marks, question.marks):
                return entry.key
        return None

    def add(self, question: Question, key: bytes, *, expires_at: float) -> None:
        scene = self._scenes.setdefault(question.scene, OrderedDict())
        self._scenes.move_to_end(question.scene)
        self.entries += key not in scene
        scene.pop(key, None)
        scene[key] = _Entry(question, key, expires_at)
        if len(scene) > self._max_per_scene:
            scene.popitem(last=False)
            self.entries -= 1
        while self.entries > self._max_entries:
            self._forget_oldest()

    def remove(self, question: Question, key: bytes) -> None:
        """Its answer is gone."""
        scene = self._scenes.get(question.scene)
        if scene is not None and scene.pop(key, None) is not None:
            self.entries -= 1
            if not scene:
                del self._scenes[question.scene]

    def clear(self) -> None:
        self._scenes.clear()
        self.entries = 0

    def _forget_oldest(self) -> None:
        """One question of the scene that was not asked in for the longest time."""
        name, scene = next(iter(self._scenes.items()))
        scene.popitem(last=False)
        self.entries -= 1
        if not scene:
            del self._scenes[name]


def dot(one: Sequence[float], other: Sequence[float]) -> float:
    return float(sum(map(mul, one, other)))


def question_of(scene: bytes, text: str, vector: Sequence[float]) -> Question | None:
    """None for a vector without a direction."""
    length = sqrt(dot(vector, vector))
    if not length:
        return None
    unit = array("f", [x / length for x in vector])
    signs = int("".join(["1" if x > 0 else "0" for x in unit]), 2)
    return Question(scene, unit, signs, likeness.marks_of(text))


class Embedder:
    """Asks an endpoint of ours for vectors."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state

    def identity(self, policy: SemanticPolicy) -> str | None:
        """What makes the vectors; those of two models are not compared. None: nothing certain does now."""
        places = self._places(policy)
        replicas = self._state.snapshot.replicas.get(places.deployment, ()) if places is not None else ()
        return identity_of(replicas)

    async def vector(self, policy: SemanticPolicy, text: str, team: str) -> list[float] | None:
        """None where it cannot be had in time: a cache is no reason to fail."""
        places = self._places(policy)
        if places is None:
            return None
        try:
            terms = self._state.routes[policy.embedder].terms
            place = await places.take(team, terms, timeout_s=EMBED_S)
            try:
                ask = EmbedRequest(endpoint=policy.embedder, inputs=[text])
                return (await place.engine.embed(ask, deadline_s=EMBED_S)).vectors[0]
            finally:
                places.release(place)
        except PilothouseError:
            return None

    def _places(self, policy: SemanticPolicy) -> Places | None:
        """Of its first deployment: one model's vectors are compared with each other alone."""
        routes = self._state.routes.get(policy.embedder)
        order = routes.order(0.0) if routes is not None and "embedding" in routes.entry.tasks else ()
        return order[0] if order else None
