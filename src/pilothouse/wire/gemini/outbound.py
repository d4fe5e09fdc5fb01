"""How Gemini is asked: a valid request as contents, or an error that names what it has no word for."""

from collections.abc import Sequence
from typing import Any

import msgspec

from pilothouse.domain.chat import EmbedRequest, Remembered, Sampling, Thought
from pilothouse.domain.errors import InvalidRequest, NotSupported
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.wire import marks
from pilothouse.wire.openai import messages, tools
from pilothouse.wire.openai.parts import arguments_of, inline_data, not_there, texts_said

THINKING_TOKENS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24576}
"""Of `reasoning_effort`; all but `minimal` as Google's own OpenAI dialect has them."""
_NOT_THERE = ("min_p", "logprobs", "top_logprobs", "logit_bias")
_MODES = {"auto": "AUTO", "required": "ANY", "none": "NONE"}
_SOUNDS = {"wav": "audio/wav", "mp3": "audio/mp3"}
_UNSIGNED = "skip_thought_signature_validator"
"""Google's word for a call that comes without the signature it was given."""
_encode = msgspec.json.Encoder().encode

Part = dict[str, Any]


def write_request(request: GenerateRequest, *, signed: bool = False) -> bytes:
    """
    The body of `generateContent`, streamed or not; the model stands in the path.

    Args:
        signed: The model refuses calls of the present turn that come without a signature, as Gemini 3 does.

    Raises:
        InvalidRequest: With the field in `param`.
        NotSupported: For what Gemini has no word for.
    """
    if request.kind != "chat":
        raise NotSupported("this provider answers chats alone; use /v1/chat/completions", param="model")
    said = messages.of(request)
    body = _prompt(said, request.thoughts, signed_from=_turn_of(said) if signed else len(said))
    if request.sampling.tools is not None:
        body.update(_offered(request.sampling, request.sampling.tools))
    if (config := _config(request)) != _AS_IT_IS:
        body["generationConfig"] = config
    return _encode(body)


def write_embed(request: EmbedRequest, *, model: str) -> bytes:
    """The body of `batchEmbedContents`."""
    asked = [{"model": f"models/{model}", "content": {"parts": [{"text": text}]}} for text in request.inputs]
    return _encode({"requests": asked})


def write_predict(request: EmbedRequest) -> bytes:
    """The body of `predict` of an embedding model on Vertex AI."""
    return _encode({"instances": [{"content": text} for text in request.inputs]})


def _turn_of(said: Sequence[messages.Message]) -> int:
    """Where the present turn begins: behind what a user said last."""
    return max((i + 1 for i, one in enumerate(said) if type(one) is messages.User), default=0)


def _prompt(
    said: Sequence[messages.Message], thoughts: Sequence[Remembered], *, signed_from: int
) -> dict[str, Any]:
    """What the system says stands apart, wherever it was said."""
    system: list[Part] = []
    contents: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    thought = marks.by_message(thoughts)
    for i, one in enumerate(said):
        if type(one) is messages.Tool:
            _add_result(contents, _result(one, names[one.tool_call_id]))
            continue
        if one.name is not None:
            raise NotSupported(f"messages[{i}].name: this provider has no names", param=f"messages[{i}].name")
        if type(one) is messages.User:
            contents.append({"role": "user", "parts": _user(one, i)})
        elif type(one) is messages.Assistant:
            for call in one.tool_calls or ():
                names[call.id] = call.function.name
            parts = _assistant(one, i)
            if i in thought:
                parts = _thinking(parts, thought[i])
            if i >= signed_from:
                _sign(parts)
            contents.append({"role": "model", "parts": parts})
        else:
            system += _texts(one.content)
    if not contents:
        raise InvalidRequest("messages: this provider needs one of a user", param="messages")
    prompt: dict[str, Any] = {"contents": contents}
    if system:
        prompt["systemInstruction"] = {"parts": system}
    return prompt


def _add_result(contents: list[dict[str, Any]], result: Part) -> None:
    """What tools gave for one turn is one content."""
    if contents and "functionResponse" in contents[-1]["parts"][-1]:
        contents[-1]["parts"].append(result)
    else:
        contents.append({"role": "user", "parts": [result]})


def _texts(content: str | Sequence[messages.Text]) -> list[Part]:
    if isinstance(content, str):
        return [{"text": content}]
    return [{"text": part.text} for part in content]


def _user(message: messages.User, number: int) -> list[Part]:
    content = message.content
    if isinstance(content, str):
        return [{"text": content}]
    return [_part(part, f"messages[{number}].content[{i}]") for i, part in enumerate(content)]


def _part(part: messages.Part, at: str) -> Part:
    if isinstance(part, messages.Text):
        return {"text": part.text}
    if isinstance(part, messages.Audio):
        sound = part.input_audio
        return {"inlineData": {"mimeType": _SOUNDS[sound.format], "data": sound.data}}
    if isinstance(part, messages.Image):
        return _inline(part.image_url.url, at)
    if part.file.file_data is not None:
        return _inline(part.file.file_data, at)
    raise NotSupported(f"{at}: this provider reads no file of another's by its id", param=at)


def _inline(url: str, at: str) -> Part:
    kind, data = inline_data(url, at)
    return {"inlineData": {"mimeType": kind, "data": data}}


def _assistant(message: messages.Assistant, number: int) -> list[Part]:
    """What it thought before is sent where Gemini signed it (`_thinking`): it takes back no other."""
    parts: list[Part] = [{"text": text} for text in texts_said(message)]
    for i, call in enumerate(message.tool_calls or ()):
        given = arguments_of(call, f"messages[{number}].tool_calls[{i}]")
        parts.append({"functionCall": {"name": call.function.name, "args": given}})
    return parts or [{"text": ""}]


def _thinking(parts: list[Part], thoughts: Sequence[Thought]) -> list[Part]:
    """The parts with Gemini's own signatures, each at the part it came with: the one behind its thought."""
    placed: list[Part | Thought] = list(parts)
    for thought in thoughts:
        placed.insert(thought.block, thought)
    written: list[Part] = []
    signature: str | None = None
    for one in [*placed, Thought()]:
        if isinstance(one, Thought):
            if signature is not None:  # it came with a part of no text
                written.append({"text": "", "thoughtSignature": signature})
            signature = marks.bare(one.signature, marks.GEMINI)
            if signature is not None and one.text:
                written.append({"text": one.text, "thought": True})
        else:
            written.append(one if signature is None else {**one, "thoughtSignature": signature})
            signature = None
    return written


def _sign(parts: Sequence[Part]) -> None:
    """The first of a step's calls has the signature; where a protocol had no place for it, Google's word."""
    for part in parts:
        if "functionCall" in part:
            part.setdefault("thoughtSignature", _UNSIGNED)
            return


def _result(message: messages.Tool, name: str) -> Part:
    """Gemini takes an object: what is none is put into one."""
    text = "".join(part["text"] for part in _texts(message.content))
    try:
        given: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        given = text
    response = given if isinstance(given, dict) else {"output": given}
    return {"functionResponse": {"name": name, "response": response}}


def _offered(sampling: Sampling, given: msgspec.Raw) -> dict[str, Any]:
    if sampling.parallel_tool_calls is False:
        raise NotSupported(
            "parallel_tool_calls: this provider cannot be kept from several calls; leave it out",
            param="parallel_tool_calls",
        )
    declared = [_declared(tool.function) for tool in tools.decode(given)]
    offered: dict[str, Any] = {"tools": [{"functionDeclarations": declared}]}
    if sampling.tool_choice is not None:
        chosen = tools.decode_choice(sampling.tool_choice)
        config: dict[str, Any]
        if isinstance(chosen, tools.NamedChoice):
            config = {"mode": "ANY", "allowedFunctionNames": [chosen.function.name]}
        else:
            config = {"mode": _MODES[chosen]}
        offered["toolConfig"] = {"functionCallingConfig": config}
    return offered


def _declared(function: tools.Offer) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        declared["description"] = function.description
    if function.parameters is not None:
        declared["parametersJsonSchema"] = function.parameters
    return declared


class _Thinking(msgspec.Struct, omit_defaults=True, rename="camel"):
    thinking_budget: int
    include_thoughts: bool = False


class _Config(msgspec.Struct, omit_defaults=True, rename="camel"):
    """How to generate, in Google's names."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop_sequences: list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_output_tokens: int | None = None
    candidate_count: int = 1
    response_mime_type: str | None = None
    response_json_schema: dict[str, Any] | None = None
    thinking_config: _Thinking | None = None


_AS_IT_IS = _Config()


class _Schema(msgspec.Struct):
    schema: dict[str, Any]


class _Format(msgspec.Struct):
    type: str
    json_schema: _Schema | None = None


def _config(request: GenerateRequest) -> _Config:
    asked = request.sampling
    if asked.min_p or asked.logprobs or asked.top_logprobs or asked.logit_bias:
        raise not_there(asked, _NOT_THERE)
    config = _Config(
        asked.temperature,
        asked.top_p,
        asked.top_k,
        asked.seed,
        asked.stop,
        asked.presence_penalty,
        asked.frequency_penalty,
        request.max_tokens,
        request.choices,
    )
    if asked.response_format is not None:
        _shape(config, asked.response_format)
    if (effort := asked.reasoning_effort) is not None:
        if effort not in THINKING_TOKENS:
            known = ", ".join(THINKING_TOKENS)
            raise NotSupported(
                f"reasoning_effort: with this provider one of {known}", param="reasoning_effort"
            )
        config.thinking_config = _Thinking(
            THINKING_TOKENS[effort], effort != "none" and not request.hide_reasoning
        )
    return config


def _shape(config: _Config, raw: msgspec.Raw) -> None:
    try:
        form = msgspec.json.decode(raw, type=_Format)
    except msgspec.ValidationError as exc:
        raise InvalidRequest("response_format: a json_schema has a schema", param="response_format") from exc
    if form.type == "text":
        return
    config.response_mime_type = "application/json"
    if form.json_schema is not None:
        config.response_json_schema = form.json_schema.schema
