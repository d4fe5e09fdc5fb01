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

from pilothouse.domain.chat import Ability, EmbedRequest, GenerateRequest, Sampling
from pilothouse.domain.errors import InvalidRequest, NotSupported
from pilothouse.wire.openai import conversation, messages, tools
from pilothouse.wire.openai.fields import invalid, sub_read
from pilothouse.wire.openai.shapes import Penalty, Seed, Share, Stop, Temperature

ENGINE_OPTIONS = frozenset(
    {
        "num_ctx",
        "num_batch",
        "num_gpu",
        "main_gpu",
        "num_thread",
        "num_keep",
        "numa",
        "low_vram",
        "use_mmap",
        "use_mlock",
        "f16_kv",
        "vocab_only",
    }
)
"""How an engine is run: the deployment's `engine_options`, not a caller's."""

_NULL = Raw(b"null")
_KINDS = (("/9j/", "jpeg"), ("iVBOR", "png"), ("R0lG", "gif"), ("UklG", "webp"))
"""How the first bytes of pictures look in base64."""


class _Options(Struct, forbid_unknown_fields=True, kw_only=True):
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
    options: dict[str, Any] | None = None
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
    asked: _Chat = _read(body, _Chat)
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
    asked: _Prompt = _read(body, _Prompt)
    if asked.raw:
        if asked.system or asked.images:
            raise InvalidRequest("a raw prompt has no system and no images; put all into prompt", param="raw")
        return _request(asked, None, prompt=asked.prompt)
    said: list[messages.Message] = [messages.System(asked.system)] if asked.system else []
    said.append(_user(asked.prompt, asked.images, "images"))
    return _request(asked, said)


def read_embed(body: bytes) -> EmbedRequest:
    """As `read_chat`, for texts to embed."""
    asked: _Embed = _read(body, _Embed)
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
    options = _options(asked.options or {})
    written = messages.encode(prompt if said is None else said)
    return GenerateRequest(
        "completion" if said is None else "chat",
        endpoint_of(asked.model),
        Raw(written),
        len(written) + (len(tools) if tools is not None else 0),
        stream=asked.stream is not False,
        include_usage=True,
        max_tokens=options.num_predict if options.num_predict and options.num_predict > 0 else None,
        sampling=Sampling(
            temperature=options.temperature,
            top_p=options.top_p,
            top_k=options.top_k,
            min_p=options.min_p,
            seed=options.seed,
            stop=[options.stop] if isinstance(options.stop, str) else (options.stop or None),
            frequency_penalty=options.frequency_penalty,
            presence_penalty=options.presence_penalty,
            response_format=_format(asked.format),
            tools=tools,
            reasoning_effort=_effort(asked.think),
        ),
        needs=needs | conversation.needs_of(said or ()),
    )


def _options(given: dict[str, Any]) -> _Options:
    kept = {name: value for name, value in given.items() if name not in ENGINE_OPTIONS}
    for name in kept:
        if name not in _Options.__struct_fields__:
            near = difflib.get_close_matches(name, _Options.__struct_fields__, n=1)
            hint = f"did you mean {near[0]}?" if near else "leave it out"
            raise NotSupported(
                f"options.{name[:64]} cannot be carried to every engine; {hint}", param=f"options.{name[:64]}"
            )
    try:
        return msgspec.convert(kept, _Options)
    except msgspec.ValidationError as exc:
        raise invalid(str(exc), "options") from exc


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
        at = f"messages[{i}]"
        if message.tool_calls is not None and message.role != "assistant":
            raise InvalidRequest(f"{at}: only an assistant calls tools", param=f"{at}.tool_calls")
        if message.role == "system":
            said.append(messages.System(message.content))
        elif message.role == "user":
            said.append(_user(message.content, message.images, f"{at}.images"))
        elif message.role == "assistant":
            calls = [
                messages.Call(
                    call.id or f"call_{i}_{j}",
                    messages.Function(call.function.name, messages.encode(call.function.arguments).decode()),
                )
                for j, call in enumerate(message.tool_calls or ())
            ]
            waiting = [(call.id, call.function.name) for call in calls]
            said.append(
                messages.Assistant(
                    content=message.content if message.content or not calls else None,
                    tool_calls=calls or None,
                    reasoning_content=message.thinking,
                )
            )
        else:
            said.append(messages.Tool(message.content, _answered(message, waiting, at)))
    return said


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


def _read(body: bytes, shape: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=shape)
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
    return invalid(str(cause), "")
