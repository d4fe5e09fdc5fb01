"""
How Anthropic is asked: a valid request as a message, or an error that names what it has no word for.

Source: the types of Anthropic's published client, release 2.14, and its API reference.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import msgspec

from pilothouse.domain.chat import Remembered, Sampling, Thought
from pilothouse.domain.errors import InvalidRequest, NotSupported
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.wire import marks
from pilothouse.wire.openai import messages, tools
from pilothouse.wire.openai.parts import arguments_of, inline_data, not_there, texts_said

VERSION = "2026-10-21"
OLDER_VERSION = "2023-06-01"
_MAX_TOKENS = 4096
"""Where nothing bounds an answer: Anthropic has to be told something."""
_NOT_THERE = (
    *("min_p", "seed", "frequency_penalty", "presence_penalty"),
    *("logprobs", "top_logprobs", "logit_bias"),
)
_EFFORT = {"minimal": "low"}
_NO_ARGUMENTS = {"type": "object", "properties": {}}
_encode = msgspec.json.Encoder().encode

Block = dict[str, Any]
PromptCache = Literal["off", "5m", "1h"]


def version_of(request: GenerateRequest) -> str:
    """The API version to ask in: the newest has no word for temperature and its like."""
    one = request.sampling
    is_older = one.temperature is not None or one.top_p is not None or one.top_k is not None
    return OLDER_VERSION if is_older else VERSION


def write_request(
    request: GenerateRequest, *, model: str, stream: bool, prompt_cache: PromptCache = "off"
) -> bytes:
    """
    Args:
        prompt_cache: How long the provider is to keep all of this prompt.

    Raises:
        InvalidRequest: With the field in `param`.
        NotSupported: For what Anthropic has no word for.
    """
    body: dict[str, Any] = {"model": model, "max_tokens": request.max_tokens or _MAX_TOKENS}
    body.update(_prompt(request))
    body.update(_shaping(request))
    if stream:
        body["stream"] = True
    if prompt_cache != "off":
        body["cache_control"] = {"type": "ephemeral", "ttl": prompt_cache}
    return _encode(body)


def write_count(request: GenerateRequest, *, model: str) -> bytes:
    """The body of `/v1/messages/count_tokens`."""
    return _encode({"model": model, **_prompt(request), **_offered(request.sampling)})


def _prompt(request: GenerateRequest) -> dict[str, Any]:
    if request.kind != "chat":
        raise NotSupported("this provider answers chats alone; use /v1/chat/completions", param="model")
    said = messages.of(request)
    begin = 0
    system: list[Block] = []
    while begin < len(said):
        one = said[begin]
        if type(one) is not messages.System and type(one) is not messages.Developer:
            break
        system += _texts(one.content)
        begin += 1
    prompt: dict[str, Any] = {"messages": _messages(said, begin, request.thoughts)}
    if system:
        prompt["system"] = system[0]["text"] if len(system) == 1 else system
    return prompt


def _messages(said: Sequence[messages.Message], begin: int, thoughts: Sequence[Remembered] = ()) -> list[Any]:
    """What tools gave stands in the message of the user after it. Plain messages are the same there."""
    written: list[Any] = []
    results: list[Block] = []
    thought = marks.by_message(thoughts)
    for i in range(begin, len(said)):
        one = said[i]
        if type(one) is messages.Tool:
            content = _short(_texts(one.content))
            results.append({"type": "tool_result", "tool_use_id": one.tool_call_id, "content": content})
            continue
        if one.name is not None:
            raise NotSupported(f"messages[{i}].name: this provider has no names", param=f"messages[{i}].name")
        if type(one) is messages.User:
            if results or not isinstance(one.content, str):
                blocks = [*results, *_user(one, f"messages[{i}].content")]
                written.append({"role": "user", "content": _short(blocks)})
                results = []
            else:
                written.append(one)
            continue
        if results:
            written.append({"role": "user", "content": results})
            results = []
        if type(one) is messages.Assistant:
            own = marks.own_thoughts(thought[i], i, unread="") if i in thought else ()
            written.append(_assistant(one, f"messages[{i}]", own))
        else:
            written.append({"role": "system", "content": _short(_texts(one.content))})
    if results:
        written.append({"role": "user", "content": results})
    return written


def _short(blocks: list[Block]) -> str | list[Block]:
    """One text alone needs no block."""
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        text: str = blocks[0]["text"]
        return text
    return blocks


def _texts(content: str | Sequence[messages.Text]) -> list[Block]:
    texts = [content] if isinstance(content, str) else [part.text for part in content]
    return [{"type": "text", "text": text} for text in texts]


def _user(message: messages.User, at: str) -> Iterator[Block]:
    if isinstance(message.content, str):
        yield {"type": "text", "text": message.content}
        return
    for i, part in enumerate(message.content):
        yield _part(part, f"{at}[{i}]")


def _part(part: messages.Part, at: str) -> Block:
    if isinstance(part, messages.Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, messages.Image):
        return {"type": "image", "source": _source(part.image_url.url, at)}
    if isinstance(part, messages.File) and part.file.file_data is not None:
        document: Block = {"type": "document", "source": _source(part.file.file_data, at)}
        if document["source"].get("media_type") != "application/pdf":
            raise NotSupported(f"{at}: this provider reads files that are PDF alone", param=at)
        if part.file.filename:
            document["title"] = part.file.filename
        return document
    raise NotSupported(f"{at}: this provider reads texts, pictures and PDF in base64 alone", param=at)


def _source(url: str, at: str) -> Block:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    media_type, data = inline_data(url, at)
    return {"type": "base64", "media_type": media_type, "data": data}


def _assistant(message: messages.Assistant, at: str, thoughts: Sequence[Thought]) -> Any:
    """
    Of what it thought before, only what is signed is sent: Anthropic takes back its own thoughts alone.
    """
    content = message.content
    if not thoughts and isinstance(content, str) and message.tool_calls is None and message.refusal is None:
        return messages.Assistant(content)
    blocks = [block for block in _spoken(message, at) if not thoughts or block.get("text") != ""]
    for thought in thoughts:
        blocks.insert(thought.block, _thought(thought))
    return {"role": "assistant", "content": _short(blocks)}


def _thought(thought: Thought) -> Block:
    if thought.data:
        return {"type": "redacted_thinking", "data": thought.data}
    return {"type": "thinking", "thinking": thought.text, "signature": thought.signature}


def _spoken(message: messages.Assistant, at: str) -> Iterator[Block]:
    for text in texts_said(message):
        yield {"type": "text", "text": text}
    for i, call in enumerate(message.tool_calls or ()):
        given = arguments_of(call, f"{at}.tool_calls[{i}]")
        yield {"type": "tool_use", "id": call.id, "name": call.function.name, "input": given}


def _shaping(request: GenerateRequest) -> dict[str, Any]:
    sampling = request.sampling
    if request.choices > 1:
        raise NotSupported("this provider gives one choice; leave n out, or ask again", param="n")
    if sampling == _PLAIN:
        return {}
    if (sampling.min_p or sampling.seed or sampling.frequency_penalty or sampling.presence_penalty) or (
        sampling.logprobs or sampling.top_logprobs or sampling.logit_bias
    ):  # zero is what it is without it
        raise not_there(sampling, _NOT_THERE)
    shaped: dict[str, Any] = {}
    if (temperature := sampling.temperature) is not None:
        if temperature > 1:
            raise InvalidRequest("temperature: 0 to 1 with this provider", param="temperature")
        shaped["temperature"] = temperature
    if sampling.top_p is not None:
        shaped["top_p"] = sampling.top_p
    if sampling.top_k is not None:
        shaped["top_k"] = sampling.top_k
    if sampling.stop:
        shaped["stop_sequences"] = sampling.stop
    if sampling.tools is not None:
        shaped.update(_offered(sampling))
    if sampling.reasoning_effort is not None or sampling.response_format is not None:
        shaped.update(_thinking(sampling))
    return shaped


_PLAIN = Sampling()


def _offered(sampling: Sampling) -> dict[str, Any]:
    if sampling.tools is None:
        return {}
    offered: dict[str, Any] = {"tools": list(_tools(tools.decode(sampling.tools)))}
    chosen = None if sampling.tool_choice is None else tools.decode_choice(sampling.tool_choice)
    choice: dict[str, Any] = {"type": "auto"}
    if isinstance(chosen, tools.NamedChoice):
        choice = {"type": "tool", "name": chosen.function.name}
    elif chosen is not None:
        choice = {"type": "any" if chosen == "required" else chosen}
    if sampling.parallel_tool_calls is False and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = True
    if chosen is not None or len(choice) > 1:
        offered["tool_choice"] = choice
    return offered


def _tools(given: Iterable[tools.FunctionTool]) -> Iterator[dict[str, Any]]:
    for tool in given:
        function = tool.function
        offer: dict[str, Any] = {"name": function.name, "input_schema": function.parameters or _NO_ARGUMENTS}
        if function.description is not None:
            offer["description"] = function.description
        if function.strict is not None:
            offer["strict"] = function.strict
        yield offer


class _Schema(msgspec.Struct):
    schema: dict[str, Any]


class _Format(msgspec.Struct):
    type: str
    json_schema: _Schema | None = None


def _thinking(sampling: Sampling) -> dict[str, Any]:
    """How much is thought, and in which form the answer comes: both are one field there."""
    shaped: dict[str, Any] = {}
    output: dict[str, Any] = {}
    effort = sampling.reasoning_effort
    if effort == "none":
        shaped["thinking"] = {"type": "disabled"}
    elif effort is not None:
        shaped["thinking"] = {"type": "adaptive"}
        output["effort"] = _EFFORT.get(effort, effort)
    if sampling.response_format is not None:
        form = _format(sampling.response_format)
        if form is not None:
            output["format"] = form
    if output:
        shaped["output_config"] = output
    return shaped


def _format(raw: msgspec.Raw) -> dict[str, Any] | None:
    try:
        form = msgspec.json.decode(raw, type=_Format)
    except msgspec.ValidationError as exc:
        raise InvalidRequest("response_format: a json_schema has a schema", param="response_format") from exc
    if form.json_schema is not None:
        return {"type": "json_schema", "schema": form.json_schema.schema}
    if form.type == "text":
        return None
    raise NotSupported(
        "response_format: this provider needs a schema; send json_schema", param="response_format"
    )
