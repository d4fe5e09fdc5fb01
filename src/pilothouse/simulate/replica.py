"""
A virtual engine: continuous batching, with a step at a time only where it matters.

While prompts are read, a step of the engine is long and a first token comes at the
end of one, so each of these steps is an event. While only answers are written, all
of them grow at the same rate: an answer's end is a point on a clock that counts
tokens, and costs one heap operation however long it is.
"""

from collections import OrderedDict, deque
from heapq import heappop, heappush
from itertools import count

from pilothouse.domain.breaker import HEALTHY, Health
from pilothouse.domain.routing import seed_of
from pilothouse.simulate.scenario import EngineModel
from pilothouse.simulate.traffic import Request

_EPSILON = 1e-9
_ENDLESS = float("inf")


class VirtualReplica:
    """A `domain.routing.Candidate`, and the engine behind it."""

    __slots__ = (
        "_answers", "_at", "_batch", "_by_slot", "_clock", "_decode_s", "_kept", "_most", "_most_kept",
        "_prefill_s", "_prompts", "_read", "_request_s", "_sequence", "_slots", "_step_ends", "_step_s",
        "deployment", "error_ratio", "free", "health", "is_draining", "is_gone", "load", "name", "seed",
        "slow", "started_at", "turn",
    )  # fmt: skip

    def __init__(self, name: str, deployment: int, model: EngineModel, now: float) -> None:
        self.name = name
        self.deployment = deployment
        self.seed = seed_of(name)
        self.free = model.slots
        self.load = 0
        self.health: Health = HEALTHY
        self.is_draining = False
        self.is_gone = False
        self.error_ratio = 0.0
        self.slow = 1.0
        self.started_at = now
        self.turn = 0
        """Grows with each change, so that what was planned before it is known to be stale."""
        self._batch = model.batch_tokens
        self._step_s = model.step_ms / 1000
        self._prefill_s = model.prefill_ms / 1000
        self._decode_s = model.decode_ms / 1000
        self._request_s = model.request_ms / 1000
        self._by_slot = model.reads == "by_slot"
        self._most = model.slots
        self._slots = deque(range(model.slots))
        """Those that are free, the longest unused first."""
        self._prompts: deque[Request] = deque()
        self._read: list[Request] = []
        """Prompts that the step under way completes."""
        self._step_ends = _ENDLESS
        """Of a step that reads prompts; endless when none is under way."""
        self._answers: list[tuple[float, int, Request]] = []
        self._clock = 0.0
        """Tokens that an answer that began at the start would have."""
        self._at = now
        self._sequence = count()
        self._kept: OrderedDict[int, None] = OrderedDict()
        self._most_kept = model.prefixes

    def begin(self, request: Request, prefix_tokens: int, now: float) -> None:
        """Take a request in; its place is taken from now."""
        self.advance(now)
        self.free -= 1
        self.load += 1
        request.left = request.prompt
        if self._most_kept and request.prefix:
            if request.prefix in self._kept:
                self._kept.move_to_end(request.prefix)
                request.left -= prefix_tokens
            else:
                self._kept[request.prefix] = None
                if len(self._kept) > self._most_kept:
                    self._kept.popitem(last=False)
        request.left = max(request.left, 1)
        request.replica = self
        request.slot = self._slots.popleft() if self._slots else self._most
        self._prompts.append(request)
        if self._by_slot:
            self._prompts = deque(sorted(self._prompts, key=_slot_of))
        if self._step_ends == _ENDLESS:
            self._begin_step(now)

    def end(self, now: float) -> list[Request]:
        """Everything in it is lost; returns that."""
        self.advance(now)
        lost = [*self._read, *self._prompts, *(request for _, _, request in self._answers)]
        self._prompts.clear()
        self._read.clear()
        self._answers.clear()
        self._step_ends = _ENDLESS
        self.load = 0
        self.is_gone = True
        self.free = 0
        return lost

    def advance(self, now: float) -> None:
        passed = now - self._at
        self._at = now
        answers = len(self._answers)
        if passed > 0 and answers and self._step_ends == _ENDLESS:
            self._clock += passed / (self.slow * (self._step_s + self._decode_s * answers))

    def due(self) -> float:
        """When a step with prompts ends, or else the next answer, if nothing changes before."""
        if self._step_ends != _ENDLESS:
            return self._step_ends
        answers = len(self._answers)
        if not answers:
            return _ENDLESS
        step_s = self.slow * (self._step_s + self._decode_s * answers)
        return self._at + max((self._answers[0][0] - self._clock) * step_s, 0.0)

    def happened(self, now: float) -> tuple[list[Request], list[Request]]:
        """Which requests have their first token now, and which are done."""
        self.advance(now)
        first: list[Request] = []
        done: list[Request] = []
        answers = self._answers
        is_step = now >= self._step_ends
        if is_step:
            self._step_ends = _ENDLESS
            self._clock += 1.0
            first, self._read = self._read, []
        while answers and answers[0][0] <= self._clock + _EPSILON * max(1.0, self._clock):
            done.append(heappop(answers)[2])
        for request in first:
            request.first_at = now + self._request_s
            if request.output > 1:
                heappush(answers, (self._clock + request.output - 1, next(self._sequence), request))
            else:
                done.append(request)
        if is_step and self._prompts:
            self._begin_step(now)
        self.free += len(done)
        self.load -= len(done)
        self._slots.extend(request.slot for request in done if request.slot < self._most)
        return first, done

    @property
    def request_s(self) -> float:
        return self._request_s

    def _begin_step(self, now: float) -> None:
        """A token of each answer, and prompts in turn, as many of their tokens as there is room for."""
        answers, prompts = len(self._answers), self._prompts
        room = max(1, self._batch - answers)
        read = 0
        while prompts and read < room:
            taken = min(prompts[0].left, room - read)
            read += taken
            prompts[0].left -= taken
            if not prompts[0].left:
                self._read.append(prompts.popleft())
        whole_s = self._step_s + self._prefill_s * read + self._decode_s * answers
        self._step_ends = now + self.slow * whole_s


def _slot_of(request: Request) -> int:
    return request.slot
