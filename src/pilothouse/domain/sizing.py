"""
How many slots and how much context a replica gets: from the model's own header and free memory.

Pure arithmetic, said out loud in the error when something cannot fit. A replica
may take half of what is free at its start: the rest is for the gateway, the
journal's page cache, and whoever else lives on the machine.
"""

from msgspec import Struct

from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.model import ModelHeader

SHARE_OF_FREE_MEMORY = 0.5
DEFAULT_CONTEXT_TOKENS = 4096
LEAST_CONTEXT_TOKENS = 512
DEFAULT_SLOTS = 4
FIXED_BYTES = 120 * 1024 * 1024
"""The process, its libraries and compute buffers, whatever the model."""
CACHE_ELEMENT_BYTES = 2
"""Keys and values are cached as 16-bit floats."""


class Sizing(Struct, frozen=True):
    slots: int
    context_tokens: int
    """Of one slot, prompt and answer together."""
    memory_bytes: int
    """Expected peak: weights, key-value cache, compute buffers, the process."""


def cache_bytes_per_token(header: ModelHeader) -> int:
    """Bytes of key-value cache for one token: layers x (keys + values) x heads x width x 2."""
    if header.pooling:
        return 0
    kv_heads = header.kv_heads or header.heads
    return header.layers * 2 * kv_heads * header.head_dim * CACHE_ELEMENT_BYTES


def memory_bytes(header: ModelHeader, weights_bytes: int, *, slots: int, context_tokens: int) -> int:
    """What a replica of that size is expected to take at its peak."""
    return weights_bytes + slots * context_tokens * cache_bytes_per_token(header) + FIXED_BYTES


def size(
    header: ModelHeader,
    weights_bytes: int,
    *,
    free_bytes: int,
    slots: int = 0,
    context_tokens: int = 0,
    least_slots: int = 1,
) -> Sizing:
    """
    Choose what was left open (0), and check that it fits.

    Context shrinks first (to 512 at the least), then slots (to `least_slots`).

    Raises:
        OperationFailed: It cannot fit, or more context is asked for than the model
            was trained on; the message shows the arithmetic.
    """
    trained = header.context_tokens or DEFAULT_CONTEXT_TOKENS
    if context_tokens > trained:
        raise OperationFailed(
            f"context_tokens {context_tokens} is more than the {trained} "
            "that this model was trained on; lower it"
        )
    allowed = int(free_bytes * SHARE_OF_FREE_MEMORY)
    wanted_slots = slots or max(least_slots, DEFAULT_SLOTS)
    context = context_tokens or min(trained, DEFAULT_CONTEXT_TOKENS)
    least_context = context_tokens or min(trained, LEAST_CONTEXT_TOKENS)
    while True:
        needed = memory_bytes(header, weights_bytes, slots=wanted_slots, context_tokens=context)
        if needed <= allowed:
            return Sizing(wanted_slots, context, needed)
        if context > least_context:
            context = max(least_context, context // 2)
        elif not slots and wanted_slots > least_slots:
            wanted_slots -= 1
        else:
            raise _does_not_fit(header, weights_bytes, wanted_slots, context, free_bytes)


def _does_not_fit(
    header: ModelHeader, weights_bytes: int, slots: int, context_tokens: int, free_bytes: int
) -> OperationFailed:
    per_token = cache_bytes_per_token(header)
    cache = slots * context_tokens * per_token
    return OperationFailed(
        f"the model does not fit: weights {_mb(weights_bytes)} + cache {_mb(cache)} "
        f"({slots} slots x {context_tokens} tokens x {per_token} bytes) + {_mb(FIXED_BYTES)} "
        f"for the process = {_mb(weights_bytes + cache + FIXED_BYTES)}, but a replica may take half "
        f"of the {_mb(free_bytes)} that are free; lower context_tokens or slots, free memory, "
        "or take a smaller model"
    )


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"
