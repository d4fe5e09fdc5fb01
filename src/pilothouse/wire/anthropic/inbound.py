"""
From the JSON of Anthropic's clients to a valid request, or to an error that names the field.

Messages become those of the OpenAI dialect: a block of a tool's result is a message of
its own there, all that an assistant said at once is one message.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from pilothouse.domain.chat import Ability, Remembered, Sampling, Thought
from pilothouse.domain.errors import InvalidRequest, NotSupported
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.wire.anthropic import shapes
from pilothouse.wire.openai import conversation, messages, tools
from pilothouse.wire.openai.fields import invalid

NOT_CARRIED = frozenset(
    {
        "container",
        "defer_loading",
        "diagnostics",
        "inference_geo",
        "input_examples",
        "mcp_servers",
        "toolset_name",
        "transformations",
        "user_profile_id",
        "workspace_id",
    }
)
"""Anthropic's fields that no other engine has; refused by name."""

_EFFORT = {"max": "xhigh"}
_BUDGETS = ((4096, "low"), (16384, "medium"))
"""Up to how many tokens of thinking a budget is which effort; above, it is high."""
_FAILED = "Error: "
"""What a tool's result begins with where it says `is_error`: models know no other sign of it."""
_decode = msgspec.json.Decoder(shapes.Ask).decode
_decode_prompt = msgspec.json.Decoder(shapes.Prompt).decode


def read_ask(body: bytes) -> GenerateRequest:
    """
    Raises:
        InvalidRequest: With the field in `param`.
        NotSupported: For what Anthropic has and this cannot carry.
    """
    asked: shapes.Ask = _read(body, _decode, shapes.Ask)
    return _request(
        asked,
        max_tokens=asked.max_tokens,
        sampling=_sampling(asked),
        stream=asked.stream is True,
        subject=asked.metadata.user_id if asked.metadata is not None else None,
    )


def read_prompt(body: bytes) -> GenerateRequest:
    """As `read_ask`, for a prompt that is counted only."""
    asked: shapes.Prompt = _read(body, _decode_prompt, shapes.Prompt)
    return _request(asked, max_tokens=None, sampling=Sampling())


def _request(
    asked: shapes.Prompt,
    *,
    max_tokens: int | None,
    sampling: Sampling,
    stream: bool = False,
    subject: str | None = None,
) -> GenerateRequest:
    said, thoughts = _messages(asked)
    if fault := conversation.problem_of(said):
        raise InvalidRequest(f"messages: {fault[1]}", param="messages")
    written = Raw(messages.encode(said))
    beside = 0
    needs: frozenset[Ability] = conversation.needs_of(said)
    if thoughts:
        beside = sum(len(one.thought.data) + len(one.thought.signature) for one in thoughts)
        if any(one.thought.data for one in thoughts):
            needs |= {"redacted_thinking"}
    if asked.tools:
        offered = Raw(messages.encode([_tool(tool) for tool in asked.tools]))
        sampling = msgspec.structs.replace(sampling, tools=offered)
        needs |= {"tools"}
        beside += len(offered)
    if asked.tool_choice is not None:
        sampling = _choosing(sampling, asked.tool_choice)
    ask = GenerateRequest("chat", asked.model, written, len(written) + beside)
    ask.stream = stream
    ask.include_usage = True
    ask.max_tokens = max_tokens
    ask.sampling = sampling
    ask.subject = subject
    ask.needs = needs
    ask.hide_reasoning = asked.thinking is None or not _is_shown(asked.thinking)
    ask.messages = said
    ask.thoughts = tuple(thoughts)
    return ask


def _is_shown(thinking: shapes.Enabled | shapes.Adaptive | shapes.Disabled) -> bool:
    return not isinstance(thinking, shapes.Disabled) and thinking.display != "omitted"


def _sampling(asked: shapes.Ask) -> Sampling:
    output = asked.output_config
    form = output.format if output is not None else None
    return Sampling(
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        stop=asked.stop_sequences or None,
        response_format=None if form is None else _format(form),
        reasoning_effort=_effort(asked),
    )


def _format(form: shapes.Format) -> Raw:
    schema = {"name": "answer", "schema": form.schema, "strict": True}
    return Raw(messages.encode({"type": "json_schema", "json_schema": schema}))


def _effort(asked: shapes.Ask) -> str | None:
    """How much a model is to think: as it is said, else by the budget that is given for it."""
    thinking = asked.thinking
    if thinking is None and asked.output_config is None:
        return None
    if isinstance(thinking, shapes.Enabled) and thinking.budget_tokens >= asked.max_tokens:
        raise InvalidRequest(
            "thinking.budget_tokens must be below max_tokens, which it is a part of",
            param="thinking.budget_tokens",
        )
    if isinstance(thinking, shapes.Disabled):
        return "none"
    if asked.output_config is not None and asked.output_config.effort is not None:
        effort = asked.output_config.effort
        return _EFFORT.get(effort, effort)
    if isinstance(thinking, shapes.Enabled):
        return next((effort for most, effort in _BUDGETS if thinking.budget_tokens <= most), "high")
    return None


def _tool(tool: shapes.Tool) -> tools.FunctionTool:
    return tools.FunctionTool(tools.Offer(tool.name, tool.description, tool.input_schema, tool.strict))


def _choosing(
    sampling: Sampling, choice: shapes.AutoTool | shapes.AnyTool | shapes.NamedTool | shapes.NoTool
) -> Sampling:
    chosen: tools.Choice
    if isinstance(choice, shapes.NamedTool):
        chosen = tools.NamedChoice(tools.Named(choice.name))
    elif isinstance(choice, shapes.AnyTool):
        chosen = "required"
    else:
        chosen = "none" if isinstance(choice, shapes.NoTool) else "auto"
    tools.check_choice(chosen, sampling.tools)
    if sampling.tools is None:
        return sampling
    one_at_once = not isinstance(choice, shapes.NoTool) and choice.disable_parallel_tool_use
    return msgspec.structs.replace(
        sampling,
        tool_choice=Raw(messages.encode(chosen)),
        parallel_tool_calls=False if one_at_once else None,
    )


def _messages(asked: shapes.Prompt) -> tuple[list[messages.Message], list[Remembered]]:
    """And what their shape has no place for."""
    said: list[messages.Message] = []
    thoughts: list[Remembered] = []
    if asked.system:
        said.append(messages.System(_plain(asked.system)))
    for i, message in enumerate(asked.messages):
        if type(message) is shapes.User:
            if isinstance(message.content, str):
                said.append(messages.User(message.content))
            else:
                said.extend(_user(message, f"messages[{i}].content"))
        elif type(message) is shapes.Assistant:
            if isinstance(message.content, str):
                said.append(messages.Assistant(message.content))
            else:
                thoughts.extend(_remembered(message.content, len(said)))
                said.append(_assistant(message.content))
        else:
            said.append(messages.System(_plain(message.content)))
    return said, thoughts


def _remembered(content: Iterable[shapes.Block], number: int) -> Iterable[Remembered]:
    """The thoughts that a provider signed; others are a message's `reasoning_content`, and no block there."""
    place = 0
    for block in content:
        thought = None
        if isinstance(block, shapes.RedactedThinking):
            thought = Thought(data=block.data, block=place)
        elif isinstance(block, shapes.Thinking):
            if not block.signature:
                continue
            thought = Thought(block.thinking, block.signature, "", place)
        elif isinstance(block, shapes.Text) and not block.text:
            continue
        if thought is not None:
            yield Remembered(number, thought)
        place += 1


def _user(message: shapes.User, at: str) -> Iterable[messages.Message]:
    """First what tools gave, each in a message of its own, then what the user says."""
    parts: list[messages.Part] = []
    for i, block in enumerate(message.content):
        if isinstance(block, shapes.ToolResult):
            if parts:
                raise InvalidRequest(f"{at}[{i}]: results of tools come before all else", param=f"{at}[{i}]")
            yield messages.Tool(_result(block), block.tool_use_id)
        elif isinstance(block, shapes.Text):
            parts.append(messages.Text(block.text))
        elif isinstance(block, shapes.Image):
            parts.append(_image(block, f"{at}[{i}].source"))
        elif isinstance(block, shapes.Document):
            parts.extend(_document(block, f"{at}[{i}].source"))
    if len(parts) == 1 and isinstance(parts[0], messages.Text):
        yield messages.User(parts[0].text)
    elif parts:
        yield messages.User(parts)


def _result(block: shapes.ToolResult) -> str | list[messages.Text]:
    content = block.content or ""
    text = _plain(content) if content else ""
    if not block.is_error:
        return text
    return _FAILED + text if isinstance(text, str) else [messages.Text(_FAILED), *text]


def _assistant(content: Iterable[shapes.Block]) -> messages.Assistant:
    """All of its text is one, before its calls."""
    texts: list[shapes.Text] = []
    thoughts: list[str] = []
    calls: list[messages.Call] = []
    for block in content:
        if isinstance(block, shapes.Thinking):
            thoughts.append(block.thinking)
        elif isinstance(block, shapes.Text):
            texts.append(block)
        elif isinstance(block, shapes.ToolUse):
            arguments = messages.encode(block.input).decode()
            calls.append(messages.Call(block.id, messages.Function(block.name, arguments)))
    spoken: Any = _plain(texts) if texts else None
    return messages.Assistant(
        content=spoken if spoken is not None or calls else "",
        tool_calls=calls or None,
        reasoning_content="".join(thoughts) or None,
    )


def _plain(content: str | Sequence[shapes.Text]) -> Any:
    """One text where there is one, for that is what every engine takes."""
    if isinstance(content, str):
        return content
    return content[0].text if len(content) == 1 else [messages.Text(block.text) for block in content]


def _image(block: shapes.Image, at: str) -> messages.Image:
    source = block.source
    if isinstance(source, shapes.Url):
        return messages.Image(messages.ImageUrl(source.url))
    if source.media_type == "application/pdf":
        raise InvalidRequest(f"{at}.media_type: a PDF is a document, no image", param=f"{at}.media_type")
    return messages.Image(messages.ImageUrl(f"data:{source.media_type};base64,{source.data}"))


def _document(block: shapes.Document, at: str) -> Iterable[messages.Part]:
    """What is said of a document stands before it."""
    source = block.source
    if isinstance(source, shapes.Base64):
        if source.media_type != "application/pdf":
            raise InvalidRequest(f"{at}.media_type: a picture is an image block", param=f"{at}.media_type")
        if block.context:
            yield messages.Text(block.context)
        data = f"data:application/pdf;base64,{source.data}"
        yield messages.File(messages.FileData(file_data=data, filename=block.title or "document.pdf"))
        return
    for text in (block.title, block.context):
        if text:
            yield messages.Text(text)
    if isinstance(source, shapes.Plain):
        yield messages.Text(source.data)
    elif isinstance(source.content, str):
        yield messages.Text(source.content)
    else:
        for i, part in enumerate(source.content):
            if isinstance(part, shapes.Text):
                yield messages.Text(part.text)
            else:
                yield _image(part, f"{at}.content[{i}].source")


def _read(body: bytes, decode: Any, shape: type[Struct]) -> Any:
    try:
        return decode(body)
    except msgspec.ValidationError as exc:
        raise _explained(str(exc), shape) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidRequest("the request body is not valid JSON") from exc
    except RecursionError as exc:
        raise InvalidRequest("the request body is nested too deeply") from exc


def _explained(message: str, shape: type[Struct]) -> InvalidRequest | NotSupported:
    error = invalid(message, "")
    place = error.param or ""
    if message.startswith("Object contains unknown field `"):
        name = message.split("`")[1][:64]
        where = f"{place}.{name}".lstrip(".")
        if name in NOT_CARRIED:
            return NotSupported(f"{where} is not supported; leave it out", param=where)
        near = [] if place else difflib.get_close_matches(name, shape.__struct_fields__, n=1)
        hint = f"did you mean {near[0]}?" if near else "leave it out"
        return InvalidRequest(f"unknown field {where!r}; {hint}", param=where)
    if message.startswith(("Invalid value '", "Invalid enum value '")) and place.endswith(".type"):
        return NotSupported(f"{place}: {message.split(chr(39))[1][:64]!r} is not supported here", param=place)
    return error
