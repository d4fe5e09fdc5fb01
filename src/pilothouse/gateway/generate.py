"""
Have an engine answer: one stream of chunks, whatever the engine can.

Several choices of an engine with slots are `several`'s.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from pilothouse.domain.chat import Aside, Thought, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.price import BYTES_PER_TOKEN
from pilothouse.domain.used_tokens import Usage
from pilothouse.gateway.permit import Places
from pilothouse.gateway.place import Place
from pilothouse.gateway.several import several
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.ports.engine import Chunks
from pilothouse.wire.openai.logprobs import joined

MAX_ANSWER_CHARS: Final = 16 * 1024 * 1024
"""Of all choices, with their log probabilities: it is held in memory, for the record."""


def chunks(
    ask: GenerateRequest,
    place: Place,
    places: Places,
    team: str,
    *,
    deadline_s: float,
    timeouts: Timeouts | None = None,
) -> Chunks:
    """The answer as it comes. Close the iterator to cancel; `place` stays the caller's."""
    if ask.choices == 1 or not (place.engine.info.slots or ask.prompts > 1):
        return place.engine.stream(ask, place.placement, deadline_s=deadline_s, timeouts=timeouts)
    return several(ask, place, places, team, deadline_s=deadline_s, timeouts=timeouts)


def says_something(chunk: Chunk) -> bool:
    """Whether it holds a first token, of text or beside it."""
    return bool(chunk.deltas) and bool(chunk.deltas[0].text or chunk.deltas[0].aside)


def beside(deltas: Sequence[Delta]) -> list[Aside]:
    """
    Of a whole answer what was said beside the text of each choice; empty where nothing was.

    Raises:
        UpstreamError: It calls tools as nobody can answer it.
    """
    if all(delta.aside is None for delta in deltas):
        return []
    for delta in deltas:
        if delta.aside is not None:
            _Beside().add(delta.aside)
    return [delta.aside or Aside() for delta in deltas]


def guessed(deltas: Sequence[Delta]) -> Usage:
    """The usage of a whole answer whose engine gave none: what its bytes stand for."""
    texts = [delta.text for delta in deltas]
    for aside in [delta.aside for delta in deltas if delta.aside is not None]:
        texts += [aside.reasoning, aside.refusal, *(call.arguments for call in aside.tools)]
    return Usage(0, -(-sum(len(text.encode()) for text in texts) // BYTES_PER_TOKEN), 0)


class Gathered:
    """
    Collects chunks into whole choices.

    Args:
        with_logprobs: Join the log probabilities of the steps as well; a stream has no use for that.
    """

    __slots__ = ("_asides", "_finish", "_logprobs", "_size", "_with_logprobs", "texts", "usage")

    def __init__(self, choices: int, *, with_logprobs: bool = True) -> None:
        self.texts: list[list[str]] = [[] for _ in range(choices)]
        self.usage = Usage()
        self._size = 0
        self._with_logprobs = with_logprobs
        self._finish: list[str | None] = [None] * choices
        self._logprobs: list[list[msgspec.Raw]] = [[] for _ in range(choices)]
        self._asides: dict[int, _Beside] = {}

    def add(self, chunk: Chunk) -> None:
        """
        Raises:
            UpstreamError: The answer grew over every bound, as from an engine that ignores `max_tokens`.
        """
        usage = chunk.usage
        if usage is not None:
            self.usage = usage
        for delta in chunk.deltas:
            text, index, finish = delta.text, delta.index, delta.finish_reason
            logprobs, aside = delta.logprobs, delta.aside
            if index >= len(self.texts):
                continue
            if text:
                self.texts[index].append(text)
                self._size += len(text)
            if finish:
                self._finish[index] = finish
            if self._with_logprobs and logprobs is not None:
                self._logprobs[index].append(logprobs)
                self._size += len(logprobs)
            if aside is not None:
                beside = self._asides.get(index)
                if beside is None:
                    beside = self._asides[index] = _Beside()
                self._size += beside.add(aside)
        if self._size > MAX_ANSWER_CHARS:
            raise UpstreamError(f"the engine's answer is longer than {MAX_ANSWER_CHARS} characters")

    @property
    def finish_reason(self) -> str:
        return self._finish[0] or ""

    def counted(self) -> Usage:
        """The engine's usage, or what could be counted where it gave none."""
        if self.usage.input or self.usage.output:
            return self.usage
        said = sum(map(len, self.texts)) + sum(beside.pieces for beside in self._asides.values())
        return Usage(0, said, 0)

    def deltas(self, *, unnamed: str | None = "stop") -> list[Delta]:
        """
        One a choice, each with all of its text.

        Args:
            unnamed: Why a choice ended of which the engine did not say it.
        """
        return [
            Delta("".join(text), i, self._finish[i] or unnamed, joined(self._logprobs[i]), self._aside(i))
            for i, text in enumerate(self.texts)
        ]

    def asides(self) -> list[Aside]:
        """Of each choice what was said beside its text; empty where nothing was."""
        return [self._aside(i) or Aside() for i in range(len(self.texts))] if self._asides else []

    def _aside(self, index: int) -> Aside | None:
        beside = self._asides.get(index)
        return beside.whole() if beside is not None else None


class _Beside:
    """Collects what one choice says beside its text."""

    __slots__ = ("_calls", "_reasoning", "_refusal", "_thoughts", "pieces")

    def __init__(self) -> None:
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._thoughts: list[Thought] = []
        self._calls: dict[int, tuple[list[str], list[str], list[str]]] = {}
        self.pieces = 0

    def add(self, aside: Aside) -> int:
        """Its size in characters."""
        self.pieces += 1
        self._reasoning.append(aside.reasoning)
        self._refusal.append(aside.refusal)
        size = len(aside.reasoning) + len(aside.refusal)
        for thought in aside.thoughts:
            self._thoughts.append(thought)
            size += len(thought.text) + len(thought.signature) + len(thought.data)
        for call in aside.tools:
            if call.index not in self._calls:
                self._begin(call)
            ids, names, arguments = self._calls[call.index]
            ids.append(call.id)
            names.append(call.name)
            arguments.append(call.arguments)
            size += len(call.id) + len(call.name) + len(call.arguments) + 1
        return size

    def _begin(self, call: ToolCall) -> None:
        """
        Raises:
            UpstreamError: Nobody could answer this call: it has no name, or the id of another.
        """
        if not call.name:
            raise UpstreamError("the engine sent arguments of a call that it never began")
        if call.id and any(call.id in ids for ids, _, _ in self._calls.values()):
            raise UpstreamError("the engine gave two calls the same id")
        self._calls[call.index] = ([], [], [])

    def whole(self) -> Aside:
        calls = [
            ToolCall(index, "".join(ids), "".join(names), "".join(arguments))
            for index, (ids, names, arguments) in sorted(self._calls.items())
        ]
        return Aside("".join(self._reasoning), "".join(self._refusal), tuple(calls), tuple(self._thoughts))
