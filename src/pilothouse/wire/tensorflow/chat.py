"""
Chats for models that only continue text: each message becomes the text that the deployment says.

Nothing is guessed: how a model was taught to tell speakers apart is known to who
made it, and a chat without that is refused.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from pilothouse.domain.errors import NotSupported
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.wire.openai import messages

CONTENT = "{content}"


class ChatTexts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a chat becomes one text: what each message is written as, with `{content}` in it."""

    user: str
    """A message of the user, such as `"User: {content}\\n"`."""
    assistant: str
    """A message that the model said before."""
    system: str = ""
    """A message of the system; without it such messages are refused."""
    reply: str = ""
    """What the model's own answer begins after, such as `"Assistant:"`."""


def prompt_of(request: GenerateRequest, texts: ChatTexts | None) -> str:
    """
    Raises:
        NotSupported: A chat, or a message in it, for which there is no text.
    """
    if request.kind == "completion":
        return msgspec.json.decode(request.prompt, type=str)
    if texts is None:
        raise NotSupported(
            "this model continues text and has no form for a chat: use /v1/completions, or say by "
            "engine_options.chat how its messages are written",
            param="messages",
        )
    said = messages.decode(request.prompt)
    return "".join(_written(one, texts, f"messages[{i}]") for i, one in enumerate(said)) + texts.reply


def _written(message: messages.Message, texts: ChatTexts, at: str) -> str:
    if isinstance(message, messages.Tool) or (
        isinstance(message, messages.Assistant) and message.tool_calls is not None
    ):
        raise NotSupported(f"{at}: this model calls no tools", param=at)
    if message.name is not None:
        raise NotSupported(f"{at}.name: this model knows no names", param=f"{at}.name")
    if isinstance(message, messages.User):
        return texts.user.replace(CONTENT, _text(message.content, at))
    if isinstance(message, messages.Assistant):
        return texts.assistant.replace(CONTENT, _text(message.content or message.refusal or "", at))
    if not texts.system:
        raise NotSupported(
            f"{at}: engine_options.chat has no text for the system's messages", param=f"{at}.role"
        )
    return texts.system.replace(CONTENT, _text(message.content, at))


def _text(content: str | Sequence[messages.Part | messages.Refusal], at: str) -> str:
    if isinstance(content, str):
        return content
    if wrong := [part for part in content if not isinstance(part, messages.Text | messages.Refusal)]:
        raise NotSupported(f"{at}.content: this model reads text alone, no {type(wrong[0]).__name__.lower()}")
    return "".join(
        part.text if isinstance(part, messages.Text) else part.refusal
        for part in content
        if isinstance(part, messages.Text | messages.Refusal)
    )
