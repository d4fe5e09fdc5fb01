"""
From the JSON of Ollama's clients to a valid request, or to an error that names the field.

Options of three kinds: those that shape an answer are carried; those that tune the
engine (`ENGINE_OPTIONS`) are dropped, for the deployment says how its engine runs;
all others are refused by name.
"""

import difflib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from pilothouse.domain.chat import Ability, EmbedRequest, Sampling
from pilothouse.domain.errors import InvalidRequest, NotSupported
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.wire.openai import conversation, messages, tools
from pilothouse.wire.openai.fields import invalid, sub_read
from pilothouse.wire.openai.shapes import Penalty, Seed, Share, Stop, Temperature

_NULL = Raw(b"null")
_KINDS = (("/9j/", "jpeg"), ("iVBOR", "png"), ("R0lG", "gif"), ("UklG", "webp"))
"""How the first bytes of pictures look in base64."""


class _EngineOptions(Struct):
    """How an engine is run: the deployment's `engine_options`, not a caller's. Dropped, whatever they are."""

    num_ctx: Any = None
    num_batch: Any = None
    num_gpu: Any = None
    main_gpu: Any = None
    num_thread: Any = None
    num_keep: Any = None
    numa: Any = None
    low_vram: Any = None
    use_mmap: Any = None
    use_mlock: Any = None
    f16_kv: Any = None
    vocab_only: Any = None


ENGINE_OPTIONS = frozenset(_EngineOptions.__struct_fields__)


class _Options(_EngineOptions, forbid_unknown_fields=True, kw_only=True):
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    min_p: Share | None = None
    seed: Seed | None = None
    stop: Stop = None
    num_predict: int | None = None
    """-1 and -2 are as much as there is room for."""
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None


class _Generate(Struct, forbid_unknown_fields=True, kw_only=True):
    model: str
    stream: bool | None = None
    format: Raw = _NULL
    """`"json"`, or a JSON Schema."""
    options: _Options | None = None
    keep_alive: str | float | None = None
    """Dropped: what runs and for how long is the deployment's."""
    think: bool | Literal["low", "medium", "high"] | None = None


class _Function(Struct, forbid_unknown_fields=True):
    name: messages.FunctionName
    arguments: dict[str, Any] = {}
    index: int | None = None


class _Call(Struct, forbid_unknown_fields=True):
    function: _Function
    id: str | None = None
    type: Literal["function"] | None = None


class _Message(Struct, forbid_unknown_fields=True):
    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    images: list[str] | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class _Chat(_Generate, forbid_unknown_fields=True, kw_only=True):
    messages: Annotated[list[_Message], Meta(min_length=1)]
    tools: Raw = _NULL


class _Prompt(_Generate, forbid_unknown_fields=True, kw_only=True):
    prompt: Annotated[str, Meta(min_length=1)]
    system: str | None = None
    images: list[str] | None = None
    raw: bool | None = None


class _Embed(Struct, forbid_unknown_fields=True, kw_only=True):
    model: str
    input: str | Annotated[list[str], Meta(min_length=1, max_length=2048)]
    truncate: bool | None = None
    options: dict[str, Any] | None = None
    keep_alive: str | float | None = None


_NO_OPTIONS = _Options()
_decode_chat = msgspec.json.Decoder(_Chat).decode
_decode_prompt = msgspec.json.Decoder(_Prompt).decode
_decode_embed = msgspec.json.Decoder(_Embed).decode


class _Named(Struct):
    model: str = ""
    name: str = ""
    """As older clients call it."""


def read_chat(body: bytes) -> GenerateRequest:
    """
    Raises:
        InvalidRequest: With the field in `param`.
        NotSupported: For what Ollama has and this cannot carry.
    """
    asked: _Chat = _read(body, _decode_chat, _Chat)
    offered = None if bytes(asked.tools) == b"null" else asked.tools
    needs: frozenset[Ability] = frozenset()
    if offered is not None and msgspec.json.decode(offered) != []:
        sub_read(offered, tools.decode, "tools")
        needs = frozenset({"tools"})
    else:
        offered = None
    return _request(asked, _messages(asked.messages), tools=offered, needs=needs)


def read_generate(body: bytes) -> GenerateRequest:
    """
    As `read_chat`, for a prompt. It is a chat of one message, for Ollama puts a prompt into the model's
    template too; with `raw` it is the plain text.
    """
    asked: _Prompt = _read(body, _decode_prompt, _Prompt)
    if asked.raw:
        if asked.system or asked.images:
            raise InvalidRequest("a raw prompt has no system and no images; put all into prompt", param="raw")
        return _request(asked, None, prompt=asked.prompt)
    said: list[messages.Message] = [messages.System(asked.system)] if asked.system else []
    said.append(_user(asked.prompt, asked.images, "images"))
    return _request(asked, said)


def read_embed(body: bytes) -> EmbedRequest:
    """As `read_chat`, for texts to embed."""
    asked: _Embed = _read(body, _decode_embed, _Embed)
    if asked.truncate is True:
        raise NotSupported("truncate is not supported: no text is cut; split it", param="truncate")
    for name in asked.options or {}:
        if name not in ENGINE_OPTIONS:
            raise NotSupported(f"options.{name[:64]} changes no vector; leave it out", param="options")
    inputs = [asked.input] if isinstance(asked.input, str) else asked.input
    if not all(inputs):
        raise InvalidRequest("input holds an empty text; leave it out", param="input")
    return EmbedRequest(endpoint=endpoint_of(asked.model), inputs=inputs)


def read_name(body: bytes) -> str:
    """The endpoint that `/api/show` asks for."""
    try:
        named = msgspec.json.decode(body, type=_Named)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidRequest('send a JSON object with the model: {"model": "..."}', param="model") from exc
    return endpoint_of(named.model or named.name)


def endpoint_of(model: str) -> str:
    """Ollama's clients add the tag that it takes for granted."""
    return model.removesuffix(":latest")


def _request(
    asked: _Generate,
    said: list[messages.Message] | None,
    *,
    prompt: str = "",
    tools: Raw | None = None,
    needs: frozenset[Ability] = frozenset(),
) -> GenerateRequest:
    """
    Args:
        said: Messages; None for a plain `prompt`.
    """
    options = _NO_OPTIONS if asked.options is None else asked.options
    written = Raw(messages.encode(prompt if said is None else said))
    stop, most = options.stop, options.num_predict
    sampling = Sampling(
        options.temperature,
        options.top_p,
        options.top_k,
        options.min_p,
        options.seed,
        [stop] if isinstance(stop, str) else (stop or None),
        options.frequency_penalty,
        options.presence_penalty,
        response_format=_format(asked.format),
        tools=tools,
        reasoning_effort=_effort(asked.think),
    )
    if said is not None and (read := conversation.needs_of(said)):
        needs |= read
    ask = GenerateRequest(
        "completion" if said is None else "chat",
        endpoint_of(asked.model),
        written,
        len(written) + (len(tools) if tools is not None else 0),
    )
    ask.stream = asked.stream is not False
    ask.include_usage = True
    ask.max_tokens = most if most is not None and most > 0 else None
    ask.sampling = sampling
    ask.needs = needs
    ask.messages = said
    return ask


def _format(raw: Raw) -> Raw | None:
    written = bytes(raw)
    if written in (b"null", b'""'):
        return None
    if written == b'"json"':
        return Raw(b'{"type":"json_object"}')
    if not written.startswith(b"{"):
        raise InvalidRequest('format is "json" or a JSON Schema', param="format")
    return Raw(b'{"type":"json_schema","json_schema":{"name":"answer","schema":%s}}' % written)


def _effort(think: bool | str | None) -> str | None:  # noqa: FBT001 - the value as it is sent
    if isinstance(think, bool):
        return None if think else "none"
    return think


def _messages(given: list[_Message]) -> list[messages.Message]:
    """
    In the OpenAI shape. Calls have no ids with Ollama: their order is what a tool's answer belongs by.
    """
    said: list[messages.Message] = []
    waiting: list[tuple[str, str]] = []
    """Ids and names of calls that no answer came to yet."""
    for i, message in enumerate(given):
        role = message.role
        if role == "assistant":
            spoken = _assistant(message, i)
            waiting = [(call.id, call.function.name) for call in spoken.tool_calls or ()]
            said.append(spoken)
        elif message.tool_calls is not None:
            at = f"messages[{i}]"
            raise InvalidRequest(f"{at}: only an assistant calls tools", param=f"{at}.tool_calls")
        elif role == "user":
            said.append(_user(message.content, message.images, f"messages[{i}].images"))
        elif role == "system":
            said.append(messages.System(message.content))
        else:
            said.append(messages.Tool(message.content, _answered(message, waiting, f"messages[{i}]")))
    return said


def _assistant(message: _Message, number: int) -> messages.Assistant:
    if not message.tool_calls:
        return messages.Assistant(message.content, reasoning_content=message.thinking)
    calls = [
        messages.Call(
            call.id or f"call_{number}_{i}",
            messages.Function(call.function.name, messages.encode(call.function.arguments).decode()),
        )
        for i, call in enumerate(message.tool_calls)
    ]
    return messages.Assistant(message.content or None, None, None, calls, message.thinking)


def _answered(message: _Message, waiting: list[tuple[str, str]], at: str) -> str:
    """The id of the call that a tool's message answers: by its id, else its name, else the next."""
    for place, (call_id, name) in enumerate(waiting):
        if message.tool_call_id == call_id or (
            not message.tool_call_id and message.tool_name in (None, "", name)
        ):
            return waiting.pop(place)[0]
    raise InvalidRequest(f"{at}: no call of a tool before it has waited for this answer", param=at)


def _user(content: str, images: list[str] | None, at: str) -> messages.User:
    if not images:
        return messages.User(content)
    parts: list[messages.Part] = [messages.Text(content)] if content else []
    parts.extend(messages.Image(messages.ImageUrl(_data_url(image, at))) for image in images)
    return messages.User(parts)


def _data_url(image: str, at: str) -> str:
    for beginning, kind in _KINDS:
        if image.startswith(beginning):
            return f"data:image/{kind};base64,{image}"
    raise InvalidRequest(f"{at}: send JPEG, PNG, GIF or WebP in base64", param=at)


def _read(body: bytes, decode: Any, shape: type[Struct]) -> Any:
    try:
        return decode(body)
    except msgspec.ValidationError as exc:
        raise _explained(body, shape, exc) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidRequest("the request body is not valid JSON") from exc
    except RecursionError as exc:
        raise InvalidRequest("the request body is nested too deeply") from exc


def _explained(
    body: bytes, shape: type[Struct], cause: msgspec.ValidationError
) -> InvalidRequest | NotSupported:
    try:
        fields = msgspec.json.decode(body, type=dict[str, Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return InvalidRequest("the request body must be a JSON object")
    for name in fields:
        if name not in shape.__struct_fields__:
            return NotSupported(f"{name[:64]} is not supported; leave it out", param=name[:64])
    error = invalid(str(cause), "")
    if error.param == "options" and str(cause).startswith("Object contains unknown field `"):
        return _unknown_option(str(cause).split("`")[1])
    return error


def _unknown_option(name: str) -> NotSupported:
    near = difflib.get_close_matches(name, set(_Options.__struct_fields__) - ENGINE_OPTIONS, n=1)
    hint = f"did you mean {near[0]}?" if near else "leave it out"
    at = f"options.{name[:64]}"
    return NotSupported(f"{at} cannot be carried to every engine; {hint}", param=at)
