"""
Messages on a byte stream: four bytes of length (big endian), then the message.

What the bytes mean is the caller's. A length beyond the limit ends the
connection before anything is read, so that no peer makes us hold much memory.
"""

import asyncio

MAX_FRAME_BYTES = 16 * 1024 * 1024
_HEAD_BYTES = 4


async def read_frame(reader: asyncio.StreamReader, *, max_bytes: int = MAX_FRAME_BYTES) -> bytes | None:
    """
    The next message; None at a clean end.

    Raises:
        ConnectionError: The stream ended inside a message, or one is over the limit.
    """
    try:
        head = await reader.readexactly(_HEAD_BYTES)
        size = int.from_bytes(head, "big")
        if size > max_bytes:
            raise ConnectionError(f"a message of {size} bytes is over the limit of {max_bytes}")
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError as exc:
        if not exc.partial and exc.expected == _HEAD_BYTES:
            return None
        raise ConnectionError("the stream ended inside a message") from exc


async def write_frame(
    writer: asyncio.StreamWriter, message: bytes, *, timeout_s: float, max_bytes: int = MAX_FRAME_BYTES
) -> None:
    """
    Send one message and wait until the peer took nearly all of it.

    Raises:
        ConnectionError: It is over the limit, or the peer is gone.
        TimeoutError: The peer takes nothing; the stream is of no use any more.
    """
    if len(message) > max_bytes:
        raise ConnectionError(f"a message of {len(message)} bytes is over the limit of {max_bytes}")
    writer.write(len(message).to_bytes(_HEAD_BYTES, "big") + message)
    async with asyncio.timeout(timeout_s):
        await writer.drain()
