"""
A virtual engine: continuous batching, without simulating each step.

Between two changes (a request begins, has its first token, ends) all answers
grow at the same rate, and the prompts are computed one after the other at a
rate of their own. So an answer's end is a point on a clock that counts tokens,
and a change costs one heap operation, however long answers are.
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
        "_answers", "_at", "_batch", "_clock", "_decode_s", "_kept", "_most_kept", "_prefill_s", "_prompts",
        "_request_s", "_sequence", "_step_s", "deployment", "error_ratio", "free", "health", "is_draining",
        "is_gone", "load", "name", "seed", "slow", "started_at", "turn",
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
        self._prompts: deque[Request] = deque()
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
        request.left = float(request.prompt)
        if self._most_kept and request.prefix:
            if request.prefix in self._kept:
                self._kept.move_to_end(request.prefix)
                request.left -= prefix_tokens
            else:
                self._kept[request.prefix] = None
                if len(self._kept) > self._most_kept:
                    self._kept.popitem(last=False)
        request.left = max(request.left, 1.0)
        request.replica = self
        self._prompts.append(request)

    def end(self, now: float) -> list[Request]:
        """Everything in it is lost; returns that."""
        self.advance(now)
        lost = [*self._prompts, *(request for _, _, request in self._answers)]
        self._prompts.clear()
        self._answers.clear()
        self.load = 0
        self.is_gone = True
        self.free = 0
        return lost

    def advance(self, now: float) -> None:
        passed = now - self._at
        self._at = now
        if passed <= 0:
            return
        answers = len(self._answers)
        if self._prompts:
            whole, room = self._prefill_step(answers)
            self._clock += passed / whole
            self._prompts[0].left -= passed * room / whole
        elif answers:
            self._clock += passed / (self.slow * (self._step_s + self._decode_s * answers))

    def due(self) -> float:
        """When the next request has its first token or its end, if nothing changes before."""
        answers = len(self._answers)
        if self._prompts:
            whole, room = self._prefill_step(answers)
            wait_s = self._prompts[0].left * whole / room
            if answers:
                wait_s = min(wait_s, (self._answers[0][0] - self._clock) * whole)
        elif answers:
            step_s = self.slow * (self._step_s + self._decode_s * answers)
            wait_s = (self._answers[0][0] - self._clock) * step_s
        else:
            return _ENDLESS
        return self._at + max(wait_s, 0.0)

    def happened(self, now: float) -> tuple[list[Request], list[Request]]:
        """Which requests have their first token now, and which are done."""
        self.advance(now)
        first: list[Request] = []
        done: list[Request] = []
        prompts, answers = self._prompts, self._answers
        while prompts and prompts[0].left <= _EPSILON * self._batch:
            request = prompts.popleft()
            request.first_at = now + self._request_s
            first.append(request)
            if request.output > 1:
                heappush(answers, (self._clock + request.output - 1, next(self._sequence), request))
            else:
                done.append(request)
        while answers and answers[0][0] <= self._clock + _EPSILON * max(1.0, self._clock):
            done.append(heappop(answers)[2])
        self.free += len(done)
        self.load -= len(done)
        return first, done

    @property
    def request_s(self) -> float:
        return self._request_s

    def _prefill_step(self, answers: int) -> tuple[float, int]:
        """How long a full step takes, and how many tokens of prompts are in it."""
        room = max(1, self._batch - answers)
        return self.slow * (self._step_s + self._prefill_s * room + self._decode_s * answers), room
