"""
A request in the words of `_generator`, whatever server it runs in.

What the generator would ignore is refused by name.
"""

from typing import Any

import msgspec

from pilothouse.domain.errors import NotSupported
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.wire.openai import messages

TAKEN = ("temperature", "top_p", "top_k", "seed", "stop")
_SYSTEM = messages.System | messages.Developer


def generator_request(request: GenerateRequest, *, engine: str) -> dict[str, Any]:
    """
    Raises:
        NotSupported: It asks for what this engine does not do; the fields are named.
    """
    asked: dict[str, Any] = msgspec.to_builtins(request.sampling, builtin_types=(msgspec.Raw,))
    unknown = sorted(asked.keys() - set(TAKEN))
    if request.choices > 1:
        unknown.append("prompt of several" if request.prompts > 1 else "n")
    if unknown:
        raise NotSupported(f"not supported by engine {engine}: {', '.join(unknown)}", param=unknown[0])
    if request.max_tokens is not None:
        asked["max_tokens"] = request.max_tokens
    if request.kind == "completion":
        return asked | {"prompt": msgspec.json.decode(request.prompt, type=str)}
    return asked | {"messages": [_plain(one, engine) for one in messages.decode(request.prompt)]}


def _plain(message: messages.Message, engine: str) -> dict[str, str]:
    """Role and text, which is what chat templates know."""
    if isinstance(message, messages.Tool) or getattr(message, "tool_calls", None):
        raise NotSupported(f"engine {engine} takes no calls of tools", param="messages")
    role = "system" if isinstance(message, _SYSTEM) else _role(message)
    content = message.content or ""
    if not isinstance(content, str):
        texts = [part.text for part in content if isinstance(part, messages.Text)]
        if len(texts) < len(content):
            raise NotSupported(f"engine {engine} reads text alone", param="messages")
        content = "".join(texts)
    return {"role": role, "content": content}


def _role(message: messages.Message) -> str:
    return "assistant" if isinstance(message, messages.Assistant) else "user"
