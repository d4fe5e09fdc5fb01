"""
A forced call of a tool for an engine that takes the wish and does nothing about it.

The tool's schema becomes the form of the answer, which engines do enforce, and what
is said in that form is handed on as the call. Pure: who asks the engine is elsewhere.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from pilothouse.domain.chat import Aside, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import AnswerUnfit
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.wire.openai import messages, tools

_encode = msgspec.json.Encoder().encode
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*')
_TAIL = re.compile(r"\s*\}?\s*$")
_ONE = "Call the function {name}: answer with the JSON of its arguments and nothing else. It is: {offers}"
_MANY = (
    'Call one of these functions: answer with the JSON {{"name": ..., "arguments": ...}} and nothing else. '
    "They are: {offers}"
)


class Forced(Struct, frozen=True):
    """The request in that form. `only` is the tool to call; empty where the model chooses one."""

    request: GenerateRequest
    only: str


def forced_call(request: GenerateRequest) -> Forced | None:
    """None where the model is free to call a tool or not."""
    sampling = request.sampling
    if sampling.tool_choice is None or sampling.tools is None:
        return None
    choice = tools.decode_choice(sampling.tool_choice)
    if choice in ("none", "auto"):
        return None
    offers = [tool.function for tool in tools.decode(sampling.tools)]
    if isinstance(choice, tools.NamedChoice):
        offers = [offer for offer in offers if offer.name == choice.function.name]
    only = offers[0].name if len(offers) == 1 else ""
    text = (_ONE if only else _MANY).format(name=only, offers=_encode(offers).decode())
    prompt = _told(messages.decode(request.prompt), text)
    form = {"type": "json_schema", "json_schema": {"name": "call", "schema": _schema(offers), "strict": True}}
    return Forced(
        request.changed(
            prompt=Raw(messages.encode(prompt)),
            messages=None,
            sampling=msgspec.structs.replace(
                sampling,
                response_format=Raw(_encode(form)),
                tools=None,
                tool_choice=None,
                parallel_tool_calls=None,
            ),
        ),
        only,
    )


def _schema(offers: Sequence[tools.Offer]) -> dict[str, Any]:
    forms = [offer.parameters or {"type": "object", "properties": {}} for offer in offers]
    if len(forms) == 1:
        return forms[0]
    return {
        "anyOf": [
            {
                "type": "object",
                "properties": {"name": {"const": offer.name}, "arguments": form},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for offer, form in zip(offers, forms, strict=True)
        ]
    }


def _told(said: list[messages.Message], text: str) -> list[messages.Message]:
    """With one more word of the system, in the message that it has, for many templates know one alone."""
    first = said[0]
    if isinstance(first, messages.System) and isinstance(first.content, str):
        return [messages.System(f"{first.content}\n\n{text}", first.name), *said[1:]]
    return [messages.System(text), *said]


class CallReader:
    """
    Reads what is said in the form as calls.

    Args:
        only: As in `Forced`.
        new_id: Makes the id of a call.
    """

    def __init__(self, only: str, new_id: Callable[[], str]) -> None:
        self._only = only
        self._new_id = new_id
        self._saying: dict[int, _Saying] = {}

    def read(self, chunk: Chunk) -> Chunk:
        """
        Raises:
            AnswerUnfit: What was said is no call, though the answer was not cut.
        """
        return Chunk(tuple(self._delta(delta) for delta in chunk.deltas), chunk.usage)

    def _delta(self, delta: Delta) -> Delta:
        saying = self._saying.get(delta.index)
        if saying is None:
            saying = self._saying[delta.index] = _Saying(self._only)
        calls: tuple[ToolCall, ...] = ()
        arguments = saying.hear(delta.text)
        if saying.name and not saying.is_begun:
            saying.is_begun = True
            calls = (ToolCall(0, self._new_id(), saying.name, arguments),)
        elif arguments:
            calls = (ToolCall(0, "", "", arguments),)
        finish = delta.finish_reason
        if finish == "stop":
            saying.check()
            finish = "tool_calls"
        reasoning = delta.aside.reasoning if delta.aside is not None else ""
        aside = Aside(reasoning, "", calls) if reasoning or calls else None
        return Delta("", delta.index, finish, delta.logprobs, aside)


class _Saying:
    """What one choice says: the name of the tool first, where it had to choose one."""

    def __init__(self, only: str) -> None:
        self.is_begun = False
        self.name = ""
        self._only = only
        self._waiting = ""
        """Cannot be handed on yet: it may belong to the form and not to the arguments."""
        self._said: list[str] = []

    def hear(self, text: str) -> str:
        """What of the arguments is certain by now."""
        if not text:
            return ""
        if self._only:
            self.name = self._only
            self._said.append(text)
            return text
        text = self._waiting + text
        if not self.name:
            head = _HEAD.match(text)
            if head is None:
                self._waiting = text
                return ""
            self.name = msgspec.json.decode(head[1])
            text = text[head.end() :]
        tail = _TAIL.search(text)
        certain = text[: tail.start()] if tail is not None else text
        self._waiting = text[len(certain) :]
        self._said.append(certain)
        return certain

    def check(self) -> None:
        try:
            msgspec.json.decode("".join(self._said), type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as exc:
            raise AnswerUnfit("the model did not call a tool as it was told to; ask again") from exc
