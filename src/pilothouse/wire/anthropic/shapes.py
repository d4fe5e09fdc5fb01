"""
What a request of Anthropic's clients may hold, strictly typed: what is not named here is refused.

Source: the types of Anthropic's published client (`anthropic.types`).
"""

from typing import Annotated, Any, Literal, final

from msgspec import Meta, Struct

from pilothouse.wire.openai.messages import CallId, FunctionName
from pilothouse.wire.openai.shapes import PositiveInt, Share, StopText, Subject

Nothing = Annotated[list[Any], Meta(max_length=0)] | None
"""A field that clients send back empty; a filled one cannot be carried."""


class CacheControl(Struct, tag_field="type", tag="ephemeral", forbid_unknown_fields=True):
    """Dropped wherever it stands: engines keep the longest prefix they know, asked or not."""

    ttl: Literal["5m", "1h"] | None = None


class Caller(Struct, tag_field="type", tag="direct", forbid_unknown_fields=True):
    """Who called a tool: the model itself, and nothing else here."""


class Text(Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    text: str
    cache_control: CacheControl | None = None
    citations: Nothing = None


class Base64(Struct, tag_field="type", tag="base64", forbid_unknown_fields=True):
    data: str
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp", "application/pdf"]


class Url(Struct, tag_field="type", tag="url", forbid_unknown_fields=True):
    url: Annotated[str, Meta(min_length=1)]


class Plain(Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    data: str
    media_type: Literal["text/plain"]


class Image(Struct, tag_field="type", tag="image", forbid_unknown_fields=True):
    source: Base64 | Url
    cache_control: CacheControl | None = None


class Content(Struct, tag_field="type", tag="content", forbid_unknown_fields=True):
    content: str | list[Text | Image]


class Citations(Struct, forbid_unknown_fields=True):
    enabled: Literal[False] = False


class Document(Struct, tag_field="type", tag="document", forbid_unknown_fields=True):
    source: Base64 | Plain | Content
    title: str | None = None
    context: str | None = None
    cache_control: CacheControl | None = None
    citations: Citations | None = None


class Thinking(Struct, tag_field="type", tag="thinking", forbid_unknown_fields=True):
    thinking: str
    signature: str = ""
    """It proves to its provider what that one's model thought; no other engine is given it."""


class RedactedThinking(Struct, tag_field="type", tag="redacted_thinking", forbid_unknown_fields=True):
    data: Annotated[str, Meta(min_length=1)]


class ToolUse(Struct, tag_field="type", tag="tool_use", forbid_unknown_fields=True):
    id: CallId
    name: FunctionName
    input: dict[str, Any]
    cache_control: CacheControl | None = None
    caller: Caller | None = None
    toolset_name: None = None


class ToolResult(Struct, tag_field="type", tag="tool_result", forbid_unknown_fields=True):
    tool_use_id: CallId
    content: str | list[Text] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None
    toolset_name: None = None


@final
class User(Struct, tag_field="role", tag="user", forbid_unknown_fields=True):
    content: str | Annotated[list[Text | Image | Document | ToolResult], Meta(min_length=1)]


Block = Text | Thinking | RedactedThinking | ToolUse


@final
class Assistant(Struct, tag_field="role", tag="assistant", forbid_unknown_fields=True):
    content: str | list[Block]


@final
class System(Struct, tag_field="role", tag="system", forbid_unknown_fields=True):
    content: str | Annotated[list[Text], Meta(min_length=1)]


class Tool(Struct, forbid_unknown_fields=True):
    """A function of the client's; tools that Anthropic runs itself have another `type`."""

    name: FunctionName
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None
    eager_input_streaming: bool | None = None
    """Dropped: arguments are always sent as they come."""
    allowed_callers: list[Literal["direct"]] | None = None
    defer_loading: Literal[False] | None = None
    input_examples: Nothing = None


class AutoTool(Struct, tag_field="type", tag="auto", forbid_unknown_fields=True):
    disable_parallel_tool_use: bool | None = None


class AnyTool(Struct, tag_field="type", tag="any", forbid_unknown_fields=True):
    disable_parallel_tool_use: bool | None = None


class NamedTool(Struct, tag_field="type", tag="tool", forbid_unknown_fields=True):
    name: FunctionName
    disable_parallel_tool_use: bool | None = None


class NoTool(Struct, tag_field="type", tag="none", forbid_unknown_fields=True):
    pass


class Enabled(Struct, tag_field="type", tag="enabled", forbid_unknown_fields=True):
    budget_tokens: Annotated[int, Meta(ge=1024)]
    display: Literal["summarized", "omitted"] | None = None


class Adaptive(Struct, tag_field="type", tag="adaptive", forbid_unknown_fields=True):
    display: Literal["summarized", "omitted"] | None = None


class Disabled(Struct, tag_field="type", tag="disabled", forbid_unknown_fields=True):
    pass


class Format(Struct, tag_field="type", tag="json_schema", forbid_unknown_fields=True):
    schema: dict[str, Any]


class Output(Struct, forbid_unknown_fields=True):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: Format | None = None


class KeepThinking(Struct, tag_field="type", tag="clear_thinking_20251015", forbid_unknown_fields=True):
    keep: Literal["all"]


class Editing(Struct, forbid_unknown_fields=True):
    """How a service is to shorten a conversation, in a beta: not at all, which is what is done here."""

    edits: list[KeepThinking] = []


class Metadata(Struct, forbid_unknown_fields=True):
    user_id: Subject | None = None


class Prompt(Struct, forbid_unknown_fields=True, kw_only=True):
    """What there is to count."""

    model: str
    messages: Annotated[list[User | Assistant | System], Meta(min_length=1)]
    system: str | list[Text] | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: AutoTool | AnyTool | NamedTool | NoTool | None = None
    thinking: Enabled | Adaptive | Disabled | None = None
    output_config: Output | None = None
    cache_control: CacheControl | None = None
    context_management: Editing | None = None
    speed: Literal["standard"] | None = None


class Ask(Prompt, forbid_unknown_fields=True, kw_only=True):
    max_tokens: PositiveInt
    stream: bool | None = None
    stop_sequences: Annotated[list[StopText], Meta(max_length=16)] | None = None
    temperature: Share | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    """Dropped: what waits for what is `x-pilothouse-priority`."""
