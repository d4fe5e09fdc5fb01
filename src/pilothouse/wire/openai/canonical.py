"""
A valid request without what means nothing, for caches: of two that ask the same, both forms are equal.
"""

from typing import Final

import msgspec
from msgspec import Raw

from pilothouse.domain.chat import Sampling
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.wire.openai import messages
from pilothouse.wire.openai.messages import Message

_encode: Final = msgspec.json.Encoder().encode
_pack: Final = msgspec.msgpack.Encoder().encode
"""Messages are packed: in JSON each byte of a text would be looked at for what is to be escaped."""
_unpack: Final = msgspec.msgpack.Decoder(list[Message]).decode


def canonical_prompt(ask: GenerateRequest) -> bytes:
    """
    The prompt of a valid request without what means nothing: whitespace, the order of keys, escapes.

    A response format keeps its order, for a grammar is made from it in that order.
    """
    if ask.kind == "completion":
        return bytes(ask.prompt)
    return _pack(messages.of(ask))


def last_question(prompt: bytes) -> tuple[bytes, str] | None:
    """
    The last message of a canonical chat prompt, if a user wrote it and it is one text, and all before it.

    Returns:
        The canonical rest, with the message's place but not its text, and the text.
    """
    said = _unpack(prompt)
    last = said[-1]
    if not isinstance(last, messages.User) or not isinstance(last.content, str):
        return None
    text, last.content = last.content, ""
    return _pack(said), text


def canonical_sampling(ask: GenerateRequest) -> bytes:
    """As `canonical_prompt`, for what is carried as it came: its whitespace goes, its order stays."""
    written = ask.written
    if written is None or written.sampling is not ask.sampling:
        return _canonical(ask.sampling)
    if not written.canonical:
        written.canonical = _canonical(ask.sampling)
    return written.canonical


def _canonical(sampling: Sampling) -> bytes:
    if sampling.response_format is not None or sampling.tools is not None:
        sampling = msgspec.structs.replace(
            sampling,
            response_format=_compact(sampling.response_format),
            tools=_compact(sampling.tools),
            tool_choice=_compact(sampling.tool_choice),
        )
    return _encode(sampling)


def _compact(raw: Raw | None) -> Raw | None:
    return None if raw is None else Raw(_encode(msgspec.json.decode(raw)))
