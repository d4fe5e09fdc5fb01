"""
What probes ask, and how it is read.

An engine shows that it works by a token: that a server says that it is ready shows nothing.
"""

from contextlib import aclosing

import msgspec
from msgspec import Raw

from pilothouse.domain.chat import Sampling
from pilothouse.domain.errors import UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.status import Load
from pilothouse.ports.engine import Chunks

PLAIN_PROBE = GenerateRequest("completion", "", Raw(b'"Hello"'), 7).changed(max_tokens=1)
"""For engines that can be told nothing but the prompt and how much to say."""
PROBE = PLAIN_PROBE.changed(sampling=Sampling(temperature=0.0))


async def says_a_token(stream: Chunks) -> bool:
    """
    Whether something comes. The stream is closed.

    Raises:
        PilothouseError: What the engine failed with.
    """
    async with aclosing(stream) as chunks:
        async for chunk in chunks:
            if chunk.usage is not None and chunk.usage.output > 0:
                return True
            if any(delta.text or delta.finish_reason for delta in chunk.deltas):
                return True
    return False


def read_load(data: bytes) -> Load:
    """
    As servers say it that run code of ours.

    Raises:
        UpstreamError: It is none.
    """
    try:
        return msgspec.json.decode(data, type=Load)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise UpstreamError("the engine's load cannot be read") from exc
