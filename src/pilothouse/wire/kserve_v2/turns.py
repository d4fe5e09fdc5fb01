"""
A chat as one prompt, for models that take only a prompt: what stands around each turn is said, never guessed.

A template of a model's own is a program in Jinja; these are the plain texts that
nearly all of them come down to.
"""

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from pilothouse.domain.errors import InvalidRequest, NotSupported, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest

PLACE = "{content}"
_Shape = TypeVar("_Shape")
_Turn = Annotated[str, Meta(pattern=r"\{content\}")]


class Turns(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a chat becomes a prompt; `{content}` is where a message's text goes."""

    user: _Turn
    """A user's message, such as `<|im_start|>user\\n{content}<|im_end|>\\n`."""
    assistant: _Turn
    """An answer that was given before."""
    system: str = ""
    """What the model is told to be, with its `{content}`; "" where it knows no such message."""
    begin: str = ""
    """What every prompt begins with."""
    answer: str = ""
    """What the prompt ends with, so that the model's turn begins: `<|im_start|>assistant\\n`."""


class _Part(Struct):
    type: str
    text: str = ""


class _Message(Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[_Part] | None = None
    tool_calls: Any = None


def prompt_of(request: GenerateRequest, turns: Turns | None) -> str:
    """
    The prompt of a completion, or of a chat where there are `turns`.

    Raises:
        NotSupported: A chat without them.
        InvalidRequest: A message that they have no place for.
    """
    if request.kind == "completion":
        if request.prompts > 1 or request.with_prompt or not bytes(request.prompt).startswith(b'"'):
            raise NotSupported(
                "this deployment takes one prompt, as text, and does not repeat it", param="prompt"
            )
        return _decoded(request.prompt, str)
    if turns is None:
        raise NotSupported(
            "this deployment's model takes a prompt and no chat; use /v1/completions, or have "
            "engine_options.chat say how a chat becomes a prompt",
            param="messages",
        )
    said = [turns.begin]
    for i, message in enumerate(_decoded(request.prompt, list[_Message])):
        said.append(_turn(message, turns, f"messages[{i}]").replace(PLACE, _text(message, f"messages[{i}]")))
    return "".join([*said, turns.answer])


def _turn(message: _Message, turns: Turns, at: str) -> str:
    if message.role in ("tool", "function") or message.tool_calls:
        raise InvalidRequest(f"{at}: this deployment takes no tools; leave them out", param=f"{at}.role")
    if message.role == "user":
        return turns.user
    if message.role == "assistant":
        return turns.assistant
    if not turns.system:
        raise InvalidRequest(
            f"{at}: this deployment's model takes no {message.role} message; put it into the user's",
            param=f"{at}.role",
        )
    return turns.system


def _text(message: _Message, at: str) -> str:
    if message.content is None:
        return ""
    if isinstance(message.content, str):
        return message.content
    for part in message.content:
        if part.type != "text":
            raise InvalidRequest(f"{at}: this deployment reads text only", param=f"{at}.content")
    return "".join(part.text for part in message.content)


def _decoded(raw: msgspec.Raw, shape: type[_Shape]) -> _Shape:
    try:
        return msgspec.json.decode(raw, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UpstreamError("a request came through that its codec should have refused") from exc
