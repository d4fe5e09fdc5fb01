"""
How a model divides among GPUs, and what each of them then holds.

Tensor: each layer is cut across its heads, so heads and key-value heads must
divide evenly. Pipeline: whole layers go to each stage, so layers must. What does
not divide is left out, though some engines pad or copy to force it.

Source: Shoeybi et al., "Megatron-LM" (2019), for the tensor split.
"""

from msgspec import Struct

from pilothouse.domain.model import ModelHeader
from pilothouse.domain.sizing import buffer_bytes, cache_bytes_per_token

GPU_BATCH_TOKENS = 2048
"""Tokens of prompts that engines on GPUs compute at once by default, or about."""
GPU_PROCESS_BYTES = 1_000_000_000
"""Driver, kernels and communication buffers on each GPU: assumed, not measured here."""
GPU_USED_RATIO = 0.9
"""Of a GPU's memory, what an engine is usually given."""
MOST_WAYS = 16


class Split(Struct, frozen=True, kw_only=True):
    tensor: int
    pipeline: int

    @property
    def gpus(self) -> int:
        return self.tensor * self.pipeline


class GpuNeed(Struct, frozen=True, kw_only=True):
    """What one GPU of a split holds, in bytes."""

    weights_bytes: int
    cache_bytes: int
    engine_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.cache_bytes + self.engine_bytes


def even_splits(header: ModelHeader) -> list[Split]:
    """Every split in which nothing is left over, the fewest GPUs first, tensor before pipeline."""
    kv_heads = header.kv_heads or header.heads
    splits = [
        Split(tensor=tensor, pipeline=pipeline)
        for tensor in range(1, MOST_WAYS + 1)
        for pipeline in range(1, MOST_WAYS + 1)
        if tensor * pipeline <= MOST_WAYS
        and _divides(tensor, header.heads)
        and _divides(tensor, kv_heads)
        and _divides(pipeline, header.layers)
    ]
    return sorted(splits, key=lambda split: (split.gpus, split.pipeline))


def gpu_need(
    header: ModelHeader, file_bytes: int, split: Split, *, slots: int, context_tokens: int
) -> GpuNeed:
    """
    What one GPU holds: its share of weights and cache, and its own buffers.

    The weights count once: the copy in another order that a processor wants is
    not made on a GPU. Buffers are not divided, which is on the safe side.
    """
    cache = slots * context_tokens * cache_bytes_per_token(header)
    buffers = buffer_bytes(
        header, slots=slots, context_tokens=context_tokens, batch_tokens=min(GPU_BATCH_TOKENS, context_tokens)
    )
    return GpuNeed(
        weights_bytes=-(-file_bytes // split.gpus),
        cache_bytes=-(-cache // split.gpus),
        engine_bytes=buffers + GPU_PROCESS_BYTES,
    )


def _divides(ways: int, whole: int) -> bool:
    """What a header does not say can only stay whole."""
    return ways == 1 or (whole > 0 and whole % ways == 0)
