"""
Text through tensors: how a model that reads and writes text is asked, and what it says.

The protocol does not know text; a convention does. Its names can be said for each
deployment, and its defaults are those of Triton's `generate`: a tensor of one text
in, one of one text out. What a caller asks for and the deployment has no name for
is refused by that name.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeGuard

import msgspec
from msgspec import Struct

from pilothouse.domain.chat import Embeddings, EmbedRequest
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import NotSupported, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.price import BYTES_PER_TOKEN
from pilothouse.domain.tensors import NO_PARAMETERS, Inferred, InferRequest, Scalar, Tensor
from pilothouse.domain.used_tokens import Usage
from pilothouse.wire.kserve_v2.turns import Turns, prompt_of

PARAMETERS: Mapping[str, str] = MappingProxyType(
    {name: name for name in ("max_tokens", "temperature", "top_p", "top_k", "seed")}
)
"""Fields of a request that are passed on, and the server's names for them."""
NOT_PASSED = frozenset({"stop"})
"""Cut here where the server does not do it."""
_encode = msgspec.json.Encoder().encode
_FINISHES = {"stop": "stop", "eos_token": "stop", "stop_sequence": "stop", "length": "length"}


class Convention(Struct, frozen=True, kw_only=True):
    """The names of one deployment. "" is: the server does not say it."""

    text_input: str = "text_input"
    text_output: str = "text_output"
    parameters: Mapping[str, str] = PARAMETERS
    parameters_as: Literal["parameters", "tensors"] = "parameters"
    constants: Mapping[str, Scalar] = NO_PARAMETERS
    """Sent with every request as its parameters are."""
    finish_reason: str = "finish_reason"
    prompt_tokens: str = "prompt_tokens"
    completion_tokens: str = "completion_tokens"
    is_batched: bool = False
    """Its tensors have a first dimension for the batch."""
    turns: Turns | None = None
    messages_input: str = ""
    """Takes the messages of a chat as JSON, where the server knows its model's own template."""


def parameters_of(request: GenerateRequest, convention: Convention) -> dict[str, Scalar | list[str]]:
    """
    What to pass on beside the prompt, by the server's names.

    Raises:
        NotSupported: A field that this deployment has no name for.
    """
    if request.choices > 1:
        raise NotSupported("this deployment gives one choice; leave n out", param="n")
    given: dict[str, Any] = msgspec.to_builtins(request.sampling)
    if request.max_tokens is not None:
        given["max_tokens"] = request.max_tokens
    passed: dict[str, Scalar | list[str]] = dict(convention.constants)
    for name, value in given.items():
        if name in convention.parameters:
            passed[convention.parameters[name]] = value
        elif name not in NOT_PASSED and not _is_nothing(value):
            raise NotSupported(
                f"{name} is not passed on by this deployment; leave it out, or have "
                f"engine_options.parameters.{name} say the server's name for it",
                param=name,
            )
    return passed


def prompted(request: GenerateRequest, convention: Convention) -> tuple[str, str]:
    """
    The input that takes the prompt, and the prompt.

    Raises:
        NotSupported, InvalidRequest: A chat that this deployment has no form for.
    """
    if request.kind == "chat" and convention.messages_input:
        return convention.messages_input, bytes(request.prompt).decode()
    return convention.text_input, prompt_of(request, convention.turns)


def tensors_of(request: GenerateRequest, convention: Convention) -> InferRequest:
    """
    As `infer` has it.

    Raises:
        NotSupported, InvalidRequest: What cannot be asked of this deployment.
    """
    shape = (1, 1) if convention.is_batched else (1,)
    name, prompt = prompted(request, convention)
    inputs = [Tensor.of_texts(name, [prompt], shape=shape)]
    parameters: dict[str, Scalar] = {}
    for name, value in parameters_of(request, convention).items():
        if convention.parameters_as == "tensors":
            inputs.append(_as_tensor(name, value, shape))
        else:
            parameters[name] = _encode(value).decode() if isinstance(value, list) else value
    return InferRequest(endpoint=request.endpoint, inputs=tuple(inputs), parameters=parameters)


def write_generate(request: GenerateRequest, convention: Convention) -> bytes:
    """
    As `generate` and `generate_stream` have it: names and plain values.

    Raises:
        NotSupported, InvalidRequest: What cannot be asked of this deployment.
    """
    passed = parameters_of(request, convention)
    name, prompt = prompted(request, convention)
    body: dict[str, Any] = {name: prompt}
    if convention.parameters_as == "tensors":
        return _encode(body | passed)
    return _encode(body | {"parameters": passed} if passed else body)


def read_generate(body: bytes) -> dict[str, Any]:
    """
    What `generate` answered, all names together, for `chunk_of`.

    Raises:
        UpstreamError: It is no such answer, or an error within it.
    """
    try:
        said = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UpstreamError("the engine's answer is no JSON object") from exc
    if "error" in said:
        raise UpstreamError("the engine failed while it answered; see its own log")
    for inner in ("parameters", "details"):
        if isinstance(found := said.get(inner), dict):
            said = found | said
    return said


def said_by(inferred: Inferred) -> dict[str, Any]:
    """The same of tensors: the first value of each, and the parameters."""
    said: dict[str, Any] = dict(inferred.parameters)
    for tensor in inferred.outputs:
        if len(tensor.values):
            value = tensor.values[0]
            said[tensor.name] = value.decode(errors="replace") if isinstance(value, bytes) else value
    return said


def chunk_of(said: Mapping[str, Any], convention: Convention) -> Chunk:
    """
    One piece of an answer; its usage where the server says both counts.

    Raises:
        UpstreamError: It holds no text.
    """
    text = said.get(convention.text_output)
    if isinstance(text, list) and text:
        text = text[0]
    if not isinstance(text, str):
        raise UpstreamError(
            f"the engine's answer has no text {convention.text_output!r}: "
            "see engine_options.text_output of this deployment"
        )
    reason = said.get(convention.finish_reason) if convention.finish_reason else None
    finish = _FINISHES.get(reason) if isinstance(reason, str) else None
    return Chunk((Delta(text, 0, finish),), usage_of(said, convention))


def usage_of(said: Mapping[str, Any], convention: Convention) -> Usage | None:
    given, made = said.get(convention.prompt_tokens), said.get(convention.completion_tokens)
    return Usage(given, made) if _is_count(given) and _is_count(made) else None


def ended(chunk: Chunk, *, made: int, limit: int | None) -> str:
    """
    Why an answer ended of which the server did not say it.

    Args:
        made: Its tokens, as far as they are known.
    """
    return "length" if limit is not None and chunk.usage is not None and made >= limit else "stop"


def texts_of(request: EmbedRequest, convention: Convention) -> InferRequest:
    """The texts of a request for vectors as one tensor."""
    count = len(request.inputs)
    shape = (count, 1) if convention.is_batched else (count,)
    tensor = Tensor.of_texts(convention.text_input, request.inputs, shape=shape)
    return InferRequest(endpoint=request.endpoint, inputs=(tensor,), parameters=dict(convention.constants))


def vectors_of(inferred: Inferred, request: EmbedRequest, convention: Convention) -> Embeddings:
    """
    Raises:
        UpstreamError: There are not as many vectors as texts.
    """
    tensor = inferred.output(convention.text_output)
    count = len(request.inputs)
    if tensor is None or not tensor.datatype.startswith("FP") or not tensor.shape or tensor.shape[0] != count:
        found = (
            ", ".join(f"{one.name} {one.datatype}{list(one.shape)}" for one in inferred.outputs) or "nothing"
        )
        raise UpstreamError(
            f"the engine gave {found or 'nothing'}, and no {count} vectors {convention.text_output!r}: "
            "see engine_options.text_output of this deployment"
        )
    size = len(tensor.values) // count
    numbers = [float(value) for value in tensor.values]
    vectors = [numbers[i * size : (i + 1) * size] for i in range(count)]
    tokens = said_by(inferred).get(convention.prompt_tokens)
    given = tokens if _is_count(tokens) else sum(map(_likely_tokens, request.inputs))
    return Embeddings(vectors, Usage(given))


def _likely_tokens(text: str) -> int:
    """What limits count where the server does not say."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def _as_tensor(name: str, value: Scalar | list[str], shape: tuple[int, ...]) -> Tensor:
    if isinstance(value, list):
        return Tensor.of_texts(name, value, shape=(*shape[:-1], len(value)))
    if isinstance(value, str):
        return Tensor.of_texts(name, [value], shape=shape)
    if isinstance(value, bool):
        return Tensor(name, "BOOL", shape, [value])
    if isinstance(value, int):
        is_wide = not -(2**31) <= value < 2**31
        return Tensor(name, "INT64" if is_wide else "INT32", shape, [value])
    return Tensor(name, "FP32", shape, [value])


def _is_nothing(value: object) -> bool:
    """What is asked for where a field says what would hold without it."""
    return value in (None, False, 0, [], "none", {"type": "text"})


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
