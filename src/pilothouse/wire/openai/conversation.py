"""
What the shapes of `messages` alone do not say: whether they belong together, and what a model must read.

Every request comes by here, so it is compiled (`app.compiled`), which shapes cannot be.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from pilothouse.domain.chat import Ability
from pilothouse.wire.openai.messages import (
    Assistant,
    Audio,
    Developer,
    File,
    Image,
    Message,
    System,
    Tool,
    User,
)

_NO_NEEDS: Final[frozenset[Ability]] = frozenset()
_NEEDS: Final[dict[type[Struct], Ability]] = {Image: "image", Audio: "audio", File: "file"}
_USER: Final = User
_SYSTEM: Final = System
_DEVELOPER: Final = Developer


def problem_of(messages: Sequence[Message]) -> tuple[str, str] | None:
    """
    What the shapes alone do not say: the path of a message's fault and the fault, if there is one.

    An assistant says or calls something; a tool's answer belongs to an earlier call.
    """
    calls: set[str] | None = None
    for i, message in enumerate(messages):
        kind = type(message)  # `isinstance` of a Struct says no at the price of a call
        if kind is _USER or kind is _SYSTEM or kind is _DEVELOPER:
            continue
        if isinstance(message, Assistant):
            if message.tool_calls is not None:
                ids = {call.id for call in message.tool_calls}
                if len(ids) < len(message.tool_calls):
                    return f"[{i}].tool_calls", "two calls have the same id"
                calls = ids if calls is None else calls | ids
            elif message.content is None and message.refusal is None:
                return f"[{i}].content", "an assistant's message has content, a refusal or tool_calls"
        elif isinstance(message, Tool) and (calls is None or message.tool_call_id not in calls):
            return f"[{i}].tool_call_id", "no tool_calls of a message before it have this id"
    return None


def needs_of(messages: Sequence[Message]) -> frozenset[Ability]:
    """What a model must be able to read for these."""
    found: set[Ability] | None = None
    for message in messages:
        if type(message) is _USER and not isinstance(message.content, str):
            found = set() if found is None else found
            for part in message.content:
                if type(part) in _NEEDS:
                    found.add(_NEEDS[type(part)])
    return frozenset(found) if found else _NO_NEEDS
