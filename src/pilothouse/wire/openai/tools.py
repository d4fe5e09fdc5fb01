"""
The tools that a chat offers and how far the model is forced to call one, in the OpenAI dialect.

Source: the OpenAI API reference, chat completions, `tools` and `tool_choice`.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from pilothouse.domain.errors import InvalidRequest
from pilothouse.wire.openai.messages import FunctionName


class Offer(Struct, forbid_unknown_fields=True, omit_defaults=True):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """JSON Schema of the arguments; none means no arguments."""
    strict: bool | None = None


class FunctionTool(Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    function: Offer


class Named(Struct, forbid_unknown_fields=True):
    name: FunctionName


class NamedChoice(Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    """This tool and no other."""

    function: Named


Choice = Literal["none", "auto", "required"] | NamedChoice

decode = msgspec.json.Decoder(Annotated[list[FunctionTool], Meta(min_length=1, max_length=128)]).decode
decode_choice = msgspec.json.Decoder(Choice).decode


def check_choice(choice: Choice, offered: Raw | None) -> None:
    """
    Raises:
        InvalidRequest: A tool is demanded that is not offered.
    """
    if offered is None:
        if choice == "none":
            return
        raise InvalidRequest("tool_choice needs tools to choose from", param="tool_choice")
    if isinstance(choice, NamedChoice):
        names = [tool.function.name for tool in decode(offered)]
        if choice.function.name not in names:
            raise InvalidRequest(
                f"tool_choice names {choice.function.name!r}, and tools offers {', '.join(names)[:300]}",
                param="tool_choice",
            )
