"""How Bedrock is asked: a valid request for Converse, or an error that names what it has no word for."""

import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec

from pilothouse.domain.chat import Remembered, Sampling, Thought
from pilothouse.domain.errors import InvalidRequest, NotSupported
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.wire import marks
from pilothouse.wire.openai import messages, tools
from pilothouse.wire.openai.parts import arguments_of, inline_data, not_there, texts_said

_NOT_THERE = (
    *("top_k", "min_p", "seed", "frequency_penalty", "presence_penalty"),
    *("logprobs", "top_logprobs"),
)
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh"}
_NO_ARGUMENTS = {"type": "object", "properties": {}}
_PICTURES = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_SOUNDS = {"wav": "wav", "mp3": "mp3"}
_OFFICE = "application/vnd.openxmlformats-officedocument"
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
    "application/msword": "doc",
    f"{_OFFICE}.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    f"{_OFFICE}.spreadsheetml.sheet": "xlsx",
}
_UNFIT_NAME = re.compile(r"[^A-Za-z0-9()\[\]-]+")
_FIT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_encode = msgspec.json.Encoder().encode

Block = dict[str, Any]


def write_request(request: GenerateRequest) -> bytes:
    """
    The body of `Converse` and of `ConverseStream`; the model stands in the path.

    Raises:
        InvalidRequest: With the field in `param`.
        NotSupported: For what Converse has no word for.
    """
    if request.kind != "chat":
        raise NotSupported("this provider answers chats alone; use /v1/chat/completions", param="model")
    if request.choices > 1:
        raise NotSupported("this provider gives one choice; leave n out, or ask again", param="n")
    said = messages.of(request)
    body = _prompt(said, request.thoughts)
    body.update(_shaping(request))
    if request.sampling.tools is not None:
        body.update(_offered(request.sampling, request.sampling.tools, said))
    return _encode(body)


def _prompt(said: Sequence[messages.Message], thoughts: Sequence[Remembered]) -> dict[str, Any]:
    """What the system says stands apart, wherever it was said; roles take turns."""
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    thought = marks.by_message(thoughts)
    for i, one in enumerate(said):
        if type(one) is messages.Tool:
            result = {"toolUseId": _call_id(one.tool_call_id), "content": _texts(one.content)}
            _append(turns, "user", [{"toolResult": result}])
            continue
        if one.name is not None:
            raise NotSupported(f"messages[{i}].name: this provider has no names", param=f"messages[{i}].name")
        if type(one) is messages.User:
            _append(turns, "user", _user(one, i))
        elif type(one) is messages.Assistant:
            own = marks.own_thoughts(thought[i], i, unread=marks.BEDROCK) if i in thought else ()
            _append(turns, "assistant", _assistant(one, i, own))
        else:
            system += _texts(one.content)
    if not turns:
        raise InvalidRequest("messages: this provider needs one of a user", param="messages")
    return {"messages": turns, "system": system} if system else {"messages": turns}


def _append(turns: list[dict[str, Any]], role: str, blocks: list[Block]) -> None:
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"].extend(blocks)
    else:
        turns.append({"role": role, "content": blocks})


def _texts(content: str | Sequence[messages.Text]) -> list[Block]:
    if isinstance(content, str):
        return [{"text": content}]
    return [{"text": part.text} for part in content]


def _user(message: messages.User, number: int) -> list[Block]:
    content = message.content
    if isinstance(content, str):
        return [{"text": content}]
    return [_part(part, f"messages[{number}].content[{i}]", i) for i, part in enumerate(content)]


def _part(part: messages.Part, at: str, number: int) -> Block:
    if isinstance(part, messages.Text):
        return {"text": part.text}
    if isinstance(part, messages.Image):
        kind, data = inline_data(part.image_url.url, at)
        return {"image": {"format": _known(kind, _PICTURES, at), "source": {"bytes": data}}}
    if isinstance(part, messages.Audio):
        sound = part.input_audio
        return {"audio": {"format": _SOUNDS[sound.format], "source": {"bytes": sound.data}}}
    if part.file.file_data is None:
        raise NotSupported(f"{at}: this provider reads no file of another's by its id", param=at)
    kind, data = inline_data(part.file.file_data, at)
    name = _UNFIT_NAME.sub(" ", part.file.filename or "").strip()[:200]
    document = {"format": _known(kind, _DOCUMENTS, at), "name": name or f"document {number + 1}"}
    return {"document": {**document, "source": {"bytes": data}}}


def _known(kind: str, formats: dict[str, str], at: str) -> str:
    if kind not in formats:
        raise NotSupported(f"{at}: this provider reads {', '.join(formats.values())}", param=at)
    return formats[kind]


def _assistant(message: messages.Assistant, number: int, thoughts: Sequence[Thought]) -> list[Block]:
    """Of what it thought before, only what is signed is sent, in its place: no other is taken back."""
    blocks: list[Block] = [{"text": text} for text in texts_said(message)]
    for i, call in enumerate(message.tool_calls or ()):
        given = arguments_of(call, f"messages[{number}].tool_calls[{i}]")
        use = {"toolUseId": _call_id(call.id), "name": call.function.name, "input": given}
        blocks.append({"toolUse": use})
    for thought in thoughts:
        blocks.insert(thought.block, {"reasoningContent": _thought(thought)})
    return blocks


def _thought(thought: Thought) -> Block:
    if thought.data:
        return {"redactedContent": thought.data}
    return {"reasoningText": {"text": thought.text, "signature": thought.signature}}


def _call_id(name: str) -> str:
    """As it is, or where Bedrock would refuse it (it was another provider's) one that stands for it."""
    return name if _FIT_ID.fullmatch(name) else f"call_{sha256(name.encode()).hexdigest()[:32]}"


def _shaping(request: GenerateRequest) -> dict[str, Any]:
    sampling = request.sampling
    if (
        (sampling.top_k or sampling.min_p or sampling.seed)
        or (sampling.frequency_penalty or sampling.presence_penalty)
        or (sampling.logprobs or sampling.top_logprobs)
    ):  # zero is what it is without it
        raise not_there(sampling, _NOT_THERE)
    if sampling.temperature is not None and sampling.temperature > 1:
        raise InvalidRequest("temperature: 0 to 1 with this provider", param="temperature")
    config: dict[str, Any] = {}
    if request.max_tokens is not None:
        config["maxTokens"] = request.max_tokens
    if sampling.temperature is not None:
        config["temperature"] = sampling.temperature
    if sampling.top_p is not None:
        config["topP"] = sampling.top_p
    if sampling.stop:
        config["stopSequences"] = sampling.stop
    shaped: dict[str, Any] = {"inferenceConfig": config} if config else {}
    if sampling.reasoning_effort is None and sampling.response_format is None:
        return shaped
    output: dict[str, Any] = {}
    if (effort := sampling.reasoning_effort) is not None:
        if effort not in _EFFORTS:
            known = ", ".join(_EFFORTS)
            raise NotSupported(
                f"reasoning_effort: with this provider one of {known}", param="reasoning_effort"
            )
        output["effort"] = _EFFORTS[effort]
    if sampling.response_format is not None:
        output.update(_format(sampling.response_format))
    if output:
        shaped["outputConfig"] = output
    return shaped


def _offered(sampling: Sampling, given: msgspec.Raw, said: Sequence[messages.Message]) -> dict[str, Any]:
    if sampling.parallel_tool_calls is False:
        raise NotSupported(
            "parallel_tool_calls: this provider cannot be kept from several calls; leave it out",
            param="parallel_tool_calls",
        )
    offered: dict[str, Any] = {"tools": [_tool(tool.function) for tool in tools.decode(given)]}
    chosen = None if sampling.tool_choice is None else tools.decode_choice(sampling.tool_choice)
    if isinstance(chosen, tools.NamedChoice):
        offered["toolChoice"] = {"tool": {"name": chosen.function.name}}
    elif chosen == "required":
        offered["toolChoice"] = {"any": {}}
    elif chosen == "auto":
        offered["toolChoice"] = {"auto": {}}
    elif chosen == "none":
        if any(isinstance(one, messages.Assistant) and one.tool_calls for one in said):
            raise NotSupported(
                "tool_choice: this provider cannot be kept from calling where it has called; use auto",
                param="tool_choice",
            )
        return {}
    return {"toolConfig": offered}


def _tool(function: tools.Offer) -> dict[str, Any]:
    spec: dict[str, Any] = {"name": function.name}
    if function.description:
        spec["description"] = function.description
    spec["inputSchema"] = {"json": function.parameters or _NO_ARGUMENTS}
    if function.strict is not None:
        spec["strict"] = function.strict
    return {"toolSpec": spec}


class _Schema(msgspec.Struct):
    schema: dict[str, Any]
    name: str | None = None
    description: str | None = None


class _Format(msgspec.Struct):
    type: str
    json_schema: _Schema | None = None


def _format(raw: msgspec.Raw) -> dict[str, Any]:
    try:
        form = msgspec.json.decode(raw, type=_Format)
    except msgspec.ValidationError as exc:
        raise InvalidRequest("response_format: a json_schema has a schema", param="response_format") from exc
    if form.type == "text":
        return {}
    if form.json_schema is None:
        raise NotSupported(
            "response_format: this provider needs a schema; send json_schema", param="response_format"
        )
    given = form.json_schema
    schema = {"schema": _encode(given.schema).decode(), "name": given.name, "description": given.description}
    structure = {"jsonSchema": {name: value for name, value in schema.items() if value is not None}}
    return {"textFormat": {"type": "json_schema", "structure": structure}}
