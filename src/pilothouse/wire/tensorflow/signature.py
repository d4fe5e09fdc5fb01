"""
Which tensors of a signature stand for what.

The one idea: roles. A request has roles (its prompt, its temperature), a signature
has tensors; they are bound once, by name, and what is asked for and has no tensor
is refused by its name.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from pilothouse.domain.chat import Sampling
from pilothouse.domain.errors import NotSupported, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest

PREFERRED, DEFAULT = "generate", "serving_default"
NEUTRAL: Mapping[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
}
"""What a signature is fed where a request leaves it open: every tensor must be fed."""
_ALSO_NEUTRAL: Mapping[str, Any] = {"logprobs": False, "top_logprobs": 0, "parallel_tool_calls": True}
_OURS = frozenset({"stop"})
"""Kept on this side, whatever the signature takes."""
INPUT_ROLES = frozenset({"prompt", "max_tokens", "context_tokens", "seed", "state", *NEUTRAL})
OUTPUT_ROLES = frozenset({"text", "finish_reason", "prompt_tokens", "completion_tokens", "state"})
STATE = "state_bytes"
"""What `state` is called by default: names that end so are carried as base64 in JSON."""
_EMPTY: tuple[Any, ...] = (None, "", b"", {"b64": ""})


class Tensor(Struct, frozen=True):
    """`is_row`: its first dimension is that of the rows."""

    dtype: str
    is_row: bool = True


class Signature(Struct, frozen=True):
    """As the server tells it: tensors by name."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


class Binding(Struct, frozen=True):
    """A signature's name, and its tensors' names by role."""

    signature: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    @property
    def goes_on(self) -> bool:
        """An answer can be had piece by piece."""
        return "state" in self.inputs and "state" in self.outputs

    @property
    def counts(self) -> bool:
        return "prompt_tokens" in self.outputs and "completion_tokens" in self.outputs


def bind(
    told: Mapping[str, Signature] | None,
    *,
    signature: str,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
) -> Binding:
    """
    Args:
        told: The server's signatures, None where it tells none.
        signature: Its name, "" for the usual ones.
        inputs: Names of tensors by role, for those that are not called as their role.

    Raises:
        UpstreamError: They do not fit; the message says what to write into the deployment.
    """
    if told is None:
        if "prompt" not in inputs or "text" not in outputs:
            raise UpstreamError(
                "this server does not tell its signatures: name its tensors by engine_options.inputs and "
                "engine_options.outputs, with prompt and text at the least"
            )
        return Binding(signature or DEFAULT, inputs, outputs)
    name = signature or next((one for one in (PREFERRED, DEFAULT) if one in told), "")
    if name not in told:
        raise UpstreamError(
            f"the model has no signature {name or PREFERRED!r}, it has {_listed(told)}: "
            "write the one that generates text into engine_options.signature"
        )
    found = told[name]
    if single := sorted(one for one, tensor in found.inputs.items() if not tensor.is_row):
        raise UpstreamError(
            f"the signature's input {single[0]} has no dimension of rows: export it with the shape [None]"
        )
    return Binding(
        name,
        _bound(found.inputs, inputs, roles=INPUT_ROLES, text="prompt", side="inputs"),
        _bound(found.outputs, outputs, roles=OUTPUT_ROLES, text="text", side="outputs"),
    )


def _bound(
    tensors: Mapping[str, Tensor], named: Mapping[str, str], *, roles: frozenset[str], text: str, side: str
) -> dict[str, str]:
    if absent := sorted(name for name in named.values() if name not in tensors):
        raise UpstreamError(
            f"engine_options.{side}: the signature has no {absent[0]}, it has {_listed(tensors)}"
        )
    bound = {role: role for role in roles if role in tensors} | dict(named)
    if STATE in tensors:
        bound.setdefault("state", STATE)
    if text not in bound:
        strings = sorted(
            name for name, one in tensors.items() if one.dtype == "DT_STRING" and name not in bound.values()
        )
        if len(strings) != 1:
            raise UpstreamError(
                f"the signature has {_listed(tensors)}: write into engine_options.{side} which is the {text}"
            )
        bound[text] = strings[0]
    if side == "inputs" and (left := sorted(tensors.keys() - bound.values())):
        raise UpstreamError(
            f"the signature wants {left[0]}, which stands for nothing that a request has: give it a default "
            "in the model, or say by engine_options.inputs what it is"
        )
    return bound


def refuse_unbound(binding: Binding, request: GenerateRequest) -> None:
    """
    Raises:
        NotSupported: The request asks for what the signature has no tensor for.
    """
    if request.choices > 1:
        raise NotSupported("this engine gives one answer to a request; leave n out", param="n")
    for name in Sampling.__struct_fields__:
        value = getattr(request.sampling, name)
        if value is None or name in _OURS or name in binding.inputs:
            continue
        if value != NEUTRAL.get(name, _ALSO_NEUTRAL.get(name)):
            raise NotSupported(f"the model's signature has no {name}; leave it out", param=name)


def row_of(binding: Binding, values: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of one row; `values` are by role, and what is not there is neutral."""
    return {
        tensor: values[role] if role in values else NEUTRAL[role] for role, tensor in binding.inputs.items()
    }


class Piece(Struct, frozen=True):
    """What one call gave. `state` is as the server carries it; None where there is nothing to go on from."""

    text: str
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    state: Any = None


def read_row(binding: Binding, said: Mapping[str, Any]) -> Piece:
    """
    Raises:
        UpstreamError: A tensor that was promised is not there, or of another kind.
    """
    values = {}
    for role, tensor in binding.outputs.items():
        if tensor not in said:
            raise UpstreamError(f"the model's answer has no {tensor}")
        values[role] = said[tensor]
    try:
        return Piece(
            text=_text(values["text"]),
            finish_reason=_text(values.get("finish_reason", "")),
            prompt_tokens=_count(values.get("prompt_tokens", 0)),
            completion_tokens=_count(values.get("completion_tokens", 0)),
            state=None if values.get("state") in _EMPTY else values["state"],
        )
    except (TypeError, ValueError) as exc:
        raise UpstreamError("the model's answer has a tensor of another kind than it should be") from exc


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise TypeError("no count")
    return value


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)[:20]) or "none"
