"""How an engine shows that it works: by a token. That a server says that it is ready shows nothing."""

from contextlib import aclosing

from msgspec import Raw
from msgspec.structs import replace

from pilothouse.domain.chat import GenerateRequest, Sampling
from pilothouse.ports.engine import Chunks

PLAIN_PROBE = GenerateRequest(
    kind="completion", endpoint="", prompt=Raw(b'"Hello"'), prompt_bytes=7, max_tokens=1
)
"""For engines that can be told nothing but the prompt and how much to say."""
PROBE = replace(PLAIN_PROBE, sampling=Sampling(temperature=0.0))


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
