"""
How a generating model on Triton is asked, by kind of repository.

`python` is ours, `vllm` and `tensorrtllm` are those of Triton's own backends, `text` is
whatever has `text_input` and `text_output` and reads the rest as parameters.

Source: Triton's generate extension (docs/protocol/extension_generate.md), the vLLM
backend's `src/model.py`, the TensorRT-LLM backend's ensemble.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from pilothouse.domain.chat import Sampling
from pilothouse.domain.errors import NotSupported
from pilothouse.domain.generate_request import GenerateRequest

Backend = Literal["python", "vllm", "tensorrtllm", "text"]
_FIRST = {"temperature", "top_p", "top_k", "seed", "stop"}
_TAKEN: dict[str, set[str]] = {
    "vllm": _FIRST | {"min_p", "frequency_penalty", "presence_penalty"},
    "tensorrtllm": _FIRST | {"frequency_penalty", "presence_penalty"},
    "text": _FIRST - {"stop"},
}
_TENSORRT_NAMES = {"seed": "random_seed", "stop": "stop_words"}
_encode = msgspec.json.Encoder().encode
Fields = Mapping[str, Any]
"""What is asked, by the names of a model's inputs; `parameters` holds what is none."""
LOAD_QUESTION: Fields = {"text_input": "", "about": "load"}
"""To our own model: how much is going on, whose process answers."""


def written(fields: Fields) -> bytes:
    """The body of `generate` and `generate_stream`."""
    return _encode(fields)


def own_fields(asked: dict[str, Any]) -> Fields:
    """For our own model, of a request in the generator's words."""
    texts = {"text_input": asked.pop("prompt", "")}
    if "messages" in asked:
        texts["messages"] = _text(asked.pop("messages"))
    return {**texts, "sampling_parameters": _text(asked)}


def fields_of(request: GenerateRequest, backend: Backend) -> Fields:
    """
    For a repository of somebody else.

    Raises:
        NotSupported: With the field that this kind of repository has no word for.
    """
    asked = _sampling(request, backend)
    if request.max_tokens is not None:
        asked["max_tokens"] = request.max_tokens
    if request.kind == "chat":
        raise NotSupported(
            f"a {backend} repository of Triton has no chat template; use /v1/completions", param="messages"
        )
    prompt = msgspec.json.decode(request.prompt)
    if not isinstance(prompt, str):
        raise NotSupported("Triton's repositories take one text as prompt", param="prompt")
    text = {"text_input": prompt}
    if backend == "vllm":
        wanted = ("finish_reason", "num_input_tokens", "num_output_tokens")
        about = {
            "stream": True,
            "exclude_input_in_output": True,
            **{f"return_{name}": True for name in wanted},
        }
        return {**text, **about, "sampling_parameters": _text(asked)}
    if backend == "tensorrtllm":
        renamed = {_TENSORRT_NAMES.get(name, name): value for name, value in asked.items()}
        return {**text, "stream": True, **renamed}
    return {**text, "parameters": {"stream": True, **asked}}


def _sampling(request: GenerateRequest, backend: Backend) -> dict[str, Any]:
    if request.choices > 1:
        raise NotSupported("Triton's repositories give one answer a request", param="n")
    said = {
        name: value
        for name in Sampling.__struct_fields__
        if (value := getattr(request.sampling, name)) is not None
    }
    if beyond := sorted(said.keys() - _TAKEN[backend]):
        raise NotSupported(
            f"a {backend} repository of Triton does not take {', '.join(beyond)}", param=beyond[0]
        )
    return said


def _text(value: Any) -> str:
    return _encode(value).decode()
