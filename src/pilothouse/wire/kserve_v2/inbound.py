"""
From requests of the Open Inference Protocol to what the request path knows: text, vectors or tensors.

A model of text is asked by Triton's convention (`text`): `text_input` and the names
that shape an answer, as parameters or as tensors of one value. All that is not
known is refused by its name.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from pilothouse.domain.chat import EmbedRequest, Sampling
from pilothouse.domain.errors import InvalidRequest, NotSupported
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.tensors import InferRequest, Tensor, TensorFault
from pilothouse.wire.kserve_v2 import infer
from pilothouse.wire.openai.fields import invalid
from pilothouse.wire.openai.shapes import Penalty, PositiveInt, Seed, Share, Stop, Subject, Temperature

TEXT = "text_input"
MOST_TEXTS = 2048
_encode = msgspec.json.Encoder().encode


class _Wishes(Struct, forbid_unknown_fields=True, kw_only=True):
    max_tokens: PositiveInt | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    min_p: Share | None = None
    seed: Seed | None = None
    stop: Stop = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    user: Subject | None = None


class TextAsk(Struct, frozen=True):
    """A request for text; `request_id` is the caller's, and `binary` as `infer.Asked` has it."""

    request: GenerateRequest
    request_id: str = ""
    binary: frozenset[str] | None = frozenset()
    is_tensors: bool = True
    """It came as tensors, and is answered as tensors."""


def read_infer(body: bytes, length: int | None, *, endpoint: str) -> infer.Asked:
    """
    Tensors, as they are.

    Raises:
        InvalidRequest: With what is wrong.
    """
    try:
        return infer.read_request(body, length, endpoint=endpoint)
    except TensorFault as exc:
        raise InvalidRequest(str(exc), param=str(exc).partition(":")[0][:64]) from exc


def read_text(body: bytes, length: int | None, *, endpoint: str, stream: bool = False) -> TextAsk:
    """
    `infer`, or `generate_stream` as MLServer has it, of a model of text.

    Raises:
        InvalidRequest, NotSupported: With the name of what is wrong.
    """
    asked = read_infer(body, length, endpoint=endpoint)
    request = asked.request
    _check_outputs(request, "text_output")
    given: dict[str, Any] = dict(request.parameters)
    texts: list[str] = []
    for tensor in request.inputs:
        if tensor.name == TEXT:
            texts += _texts(tensor)
        elif tensor.name in given:
            raise InvalidRequest(
                f"{tensor.name[:64]} is both a tensor and a parameter", param=tensor.name[:64]
            )
        else:
            given[tensor.name] = _value(tensor)
    if len(texts) != 1:
        raise InvalidRequest(f"send one tensor {TEXT} of one text; there are {len(texts)} texts", param=TEXT)
    return TextAsk(
        _request(texts[0], given, endpoint=endpoint, stream=stream), request.id, asked.binary, is_tensors=True
    )


def read_generate(body: bytes, *, endpoint: str, stream: bool) -> TextAsk:
    """
    `generate` and `generate_stream`: plain JSON. What has `inputs` is tensors, as MLServer's clients send.

    Raises:
        InvalidRequest, NotSupported: With the name of what is wrong.
    """
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidRequest(f'the body must be a JSON object: {{"{TEXT}": "..."}}') from exc
    if "inputs" in fields:
        return read_text(body, None, endpoint=endpoint, stream=stream)
    text, request_id = fields.pop(TEXT, None), fields.pop("id", "")
    if not isinstance(text, str) or not text:
        raise InvalidRequest(f"{TEXT} must be a text that is not empty", param=TEXT)
    if not isinstance(request_id, str):
        raise InvalidRequest("id must be a text", param="id")
    inside = fields.pop("parameters", None)
    if not isinstance(inside, dict | None):
        raise InvalidRequest("parameters must be an object", param="parameters")
    for name in inside or {}:
        if name in fields:
            raise InvalidRequest(f"{name[:64]} is there twice", param=name[:64])
    request = _request(text, fields | (inside or {}), endpoint=endpoint, stream=stream)
    return TextAsk(request, request_id, is_tensors=False)


def read_texts(body: bytes, length: int | None, *, endpoint: str) -> tuple[EmbedRequest, infer.Asked]:
    """
    `infer` of a model that gives vectors.

    Raises:
        InvalidRequest, NotSupported: With the name of what is wrong.
    """
    asked = read_infer(body, length, endpoint=endpoint)
    _check_outputs(asked.request, "embedding")
    for name in asked.request.parameters:
        raise NotSupported(f"{name[:64]} changes no vector; leave it out", param=name[:64])
    texts: list[str] = []
    for tensor in asked.request.inputs:
        if tensor.name != TEXT:
            raise InvalidRequest(f"the tensor {tensor.name[:64]!r} is not known; send {TEXT}", param=TEXT)
        texts += _texts(tensor)
    if not 0 < len(texts) <= MOST_TEXTS or not all(texts):
        raise InvalidRequest(f"{TEXT} must hold 1 to {MOST_TEXTS} texts, none of them empty", param=TEXT)
    return EmbedRequest(endpoint=endpoint, inputs=texts), asked


def _request(text: str, given: Mapping[str, Any], *, endpoint: str, stream: bool) -> GenerateRequest:
    given = dict(given)
    stop = given.get("stop")
    if isinstance(stop, str) and stop.startswith("["):  # a parameter is no list: it is one in JSON
        given["stop"] = _listed(stop)
    for name in given:
        if name not in _Wishes.__struct_fields__:
            raise NotSupported(f"{name[:64]} is not supported; leave it out", param=name[:64])
    try:
        wishes = msgspec.convert(given, _Wishes)
    except msgspec.ValidationError as exc:
        raise invalid(str(exc), "parameters") from exc
    if not text:
        raise InvalidRequest(f"{TEXT} is empty", param=TEXT)
    prompt = _encode(text)
    ask = GenerateRequest("completion", endpoint, Raw(prompt), len(prompt))
    ask.stream = stream
    ask.include_usage = True
    ask.max_tokens = wishes.max_tokens
    ask.sampling = Sampling(
        temperature=wishes.temperature,
        top_p=wishes.top_p,
        top_k=wishes.top_k,
        min_p=wishes.min_p,
        seed=wishes.seed,
        stop=[wishes.stop] if isinstance(wishes.stop, str) else (wishes.stop or None),
        frequency_penalty=wishes.frequency_penalty,
        presence_penalty=wishes.presence_penalty,
    )
    ask.subject = wishes.user
    return ask


def _check_outputs(request: InferRequest, known: str) -> None:
    for name in request.outputs:
        if name != known:
            raise InvalidRequest(f"the output {name[:64]!r} is not known; there is {known}", param="outputs")


def _texts(tensor: Tensor) -> list[str]:
    if tensor.datatype != "BYTES":
        raise InvalidRequest(f"{tensor.name} must be of BYTES, and is {tensor.datatype}", param=tensor.name)
    try:
        return tensor.texts()
    except TensorFault as exc:
        raise InvalidRequest(str(exc), param=tensor.name) from exc


def _value(tensor: Tensor) -> Any:
    """Of a tensor that stands for a parameter."""
    values = _texts(tensor) if tensor.datatype == "BYTES" else list(tensor.values)
    if tensor.name == "stop":
        return values
    if len(values) != 1:
        raise InvalidRequest(f"{tensor.name[:64]} must hold one value", param=tensor.name[:64])
    return values[0]


def _listed(text: str) -> list[str]:
    try:
        return msgspec.json.decode(text, type=list[str])
    except msgspec.DecodeError as exc:
        raise InvalidRequest("stop must be a text, or a list of texts in JSON", param="stop") from exc
