"""
What TorchServe answers: its own errors, and the lines of our handler in it.

The one idea: TorchServe's streams are bytes without a form, so the handler says one
JSON object a line. Source: TorchServe's REST API, and what 0.12.0 was seen to answer.
"""

from contextlib import suppress
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidRequest,
    NotSupported,
    Overloaded,
    PilothouseError,
    UpstreamError,
)
from pilothouse.domain.used_tokens import Usage

MAX_LINE_BYTES = 1024 * 1024
REFUSED_KEY = "InvalidKeyException"
QUEUE_IS_FULL = "ServiceUnavailableException"
"""In the words for a model without a worker; but there is one, for it took the caller's line."""
_Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class Lines:
    """Cuts bytes, however they come, into whole lines."""

    def __init__(self, *, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._rest = b""
        self._max_bytes = max_bytes

    @property
    def is_mid_line(self) -> bool:
        return bool(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """
        Raises:
            UpstreamError: A line is longer than the bound.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > self._max_bytes or any(len(line) > self._max_bytes for line in lines):
            raise UpstreamError(f"the engine's answer holds a line of more than {self._max_bytes} bytes")
        return lines


class Said(msgspec.Struct):
    """One line of the handler's."""

    text: str = ""
    finish: Literal["stop", "length"] | None = None
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    error: str = ""
    limit: int = 0


class Fault(msgspec.Struct):
    """TorchServe's own errors."""

    type: str = ""
    message: str = ""


_read_said = msgspec.json.Decoder(Said).decode
_read_fault = msgspec.json.Decoder(Fault).decode


def read_chunk(line: bytes) -> Chunk | None:
    """
    What a line of the handler's says; the last one has the usage.

    Raises:
        PilothouseError: The error that it stands for, or it cannot be read.
    """
    try:
        said = _read_said(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UpstreamError("the engine said what cannot be read") from exc
    if said.error:
        raise _meant(said)
    if said.finish:
        usage = Usage(input=said.prompt_tokens, output=said.completion_tokens)
        return Chunk((Delta(said.text, finish_reason=said.finish),), usage)
    return Chunk((Delta(said.text),)) if said.text else None


def read_fault(data: bytes) -> Fault:
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _read_fault(data)
    return Fault()


def _meant(said: Said) -> PilothouseError:
    """The error that the handler's word stands for."""
    if said.error == "too_long":
        return ContextLengthExceeded.counted(said.prompt_tokens, said.limit)
    if said.error == "no_chat_template":
        return NotSupported("this model has no chat template; ask it by /v1/completions")
    if said.error == "gone":
        return EngineUnavailable("TorchServe's worker was started again meanwhile", retry_after_s=1.0)
    return UpstreamError("the engine said what cannot be read")


def refusal(status: int, fault: Fault) -> PilothouseError:
    """The error that TorchServe's own answer stands for."""
    if status == 503 and fault.type == QUEUE_IS_FULL:
        return Overloaded("the engine takes no more requests now; try again", retry_after_s=1.0)
    if status in (500, 503, 507):
        return EngineUnavailable(
            f"TorchServe's worker died, or has no memory left ({status}); it is started again",
            retry_after_s=1.0,
        )
    if status in (400, 413):
        return InvalidRequest(f"TorchServe refused the request ({status}); check its fields and its size")
    return UpstreamError(f"the engine answered {status}")


def strangers_refusal(status: int, fault: Fault) -> PilothouseError:
    """Likewise of a TorchServe that we did not start, whose keys and workers are somebody else's."""
    if fault.type == REFUSED_KEY:
        return UpstreamError(
            "TorchServe refused the secret of this deployment: its keys end, by default after an hour; store "
            "the new one by `pilothouse secret set`, or have them last (token_expiration_min)"
        )
    if fault.type == QUEUE_IS_FULL:
        return Overloaded("TorchServe's queue is full, or the model has no worker", retry_after_s=1.0)
    if status == 404:
        return UpstreamError("TorchServe knows no such model; see provider_model of the deployment")
    return refusal(status, fault)
