"""
How many slots of how much context an engine of the llama.cpp kind gets, from free memory.

Arithmetic alone; its constants were measured, and the tests hold the figures.
The one idea: an upper bound a few per cent high, so that what was planned fits,
and a refusal that shows the sum, instead of a process that the kernel ends.
"""

from msgspec import Struct

from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.model import ModelHeader

DEFAULT_SLOTS = 4
DEFAULT_CONTEXT_TOKENS = 4096
LEAST_CONTEXT_TOKENS = 512
"""A default never goes below: hardly a question and its answer fit into less."""
BATCH_TOKENS = 64
"""
Tokens of prompts computed at once. A cancelled request leaves its slot between
two batches, and all other streams of the engine wait for one. 64 instead of
llama.cpp's 2048 costs 12 % more processor time per prompt token; 32 cost 50 %.
"""

_MB = 1_000_000
_PROCESS_BYTES = 75 * _MB
"""Interpreter, libraries and the engine's fixed buffers; 59 to 74 MB were measured: what is shared varies."""
_BYTES_PER_SLOT_AND_WORD = 8
"""Scores of the whole vocabulary for one slot's next token, before and after sampling."""
_BYTES_PER_BATCH_VALUE = 48
"""Intermediate results of one token of a batch, for each value of its embedding."""
_CACHE_VALUE_BYTES = 2
"""Keys and values are cached as 16-bit floats."""
_COMPUTED_AS_STORED = frozenset({"F32", "F16", "BF16", "Q4_1", "Q5_0", "Q5_1", "Q8_0"})
"""Quantizations that are used as they lie in the file; of others a rearranged copy is made."""


class Wish(Struct, frozen=True, kw_only=True):
    """What was asked for; 0 means: choose."""

    slots: int = 0
    context_tokens: int = 0
    workers: int = 1
    """Gateway workers, each of which needs a slot of its own."""


class MemoryNeed(Struct, frozen=True, kw_only=True):
    """The parts of an expected peak, in bytes."""

    weights_bytes: int
    """Pages of the file, and of the copy in another order where one is made."""
    cache_bytes: int
    """Keys and values of all slots, full."""
    engine_bytes: int
    """The process itself, its buffers for a batch and for the next tokens."""

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.cache_bytes + self.engine_bytes


class Sizing(Struct, frozen=True, kw_only=True):
    """What an engine is started with, and what it will take."""

    slots: int
    context_tokens: int
    """Of one slot, prompt and answer together."""
    batch_tokens: int
    memory_bytes: int
    """Expected peak of the resident memory, pages of the model file included."""


def choose_sizing(header: ModelHeader, file_bytes: int, wish: Wish, *, free_bytes: int) -> Sizing:
    """
    Choose what was not asked for, so that all fits.

    A choice takes at most half of the free memory, for the rest of the machine
    lives on the other half: the context is halved, down to 512 tokens, then slots
    are given up, down to one a worker. What was asked for, or the least there is,
    may take all of it.

    Raises:
        OperationFailed: It cannot fit, or the model has no such context; the
            message shows the arithmetic.
    """
    _check(header, wish)
    candidates = [
        _sizing(header, file_bytes, slots=slots, context_tokens=context)
        for slots in _slot_choices(wish)
        for context in _context_choices(header, wish)
    ]
    for one in candidates:
        if one.memory_bytes <= free_bytes // 2:
            return one
    least = min(candidates, key=lambda one: one.memory_bytes)
    if least.memory_bytes <= free_bytes:
        return least
    raise OperationFailed(_refusal(header, file_bytes, least, free_bytes))


def cache_bytes_per_token(header: ModelHeader) -> int:
    """
    Bytes of the key and value cache for one token: layers x 2 x KV heads x head size x 2.

    An upper bound: layers with a sliding window keep less. Encoders keep nothing.
    """
    if "bert" in header.architecture:
        return 0
    heads = header.kv_heads or header.heads
    values = heads * header.head_dim or header.embedding_length
    return header.layers * 2 * values * _CACHE_VALUE_BYTES


def weight_bytes(header: ModelHeader, file_bytes: int) -> int:
    """The file's pages, and once more what is copied into another order for speed."""
    return file_bytes if header.quantization in _COMPUTED_AS_STORED else 2 * file_bytes


def memory_bytes(
    header: ModelHeader, file_bytes: int, *, slots: int, context_tokens: int, batch_tokens: int
) -> int:
    """
    Expected peak. Measured on four files in 15 combinations: it was 1 to 4 % above
    the true peak, and for an encoder of 46 MB 1 to 26 %.
    """
    return memory_need(
        header, file_bytes, slots=slots, context_tokens=context_tokens, batch_tokens=batch_tokens
    ).total_bytes


def memory_need(
    header: ModelHeader, file_bytes: int, *, slots: int, context_tokens: int, batch_tokens: int
) -> MemoryNeed:
    """The parts of `memory_bytes`."""
    return MemoryNeed(
        weights_bytes=weight_bytes(header, file_bytes),
        cache_bytes=slots * context_tokens * cache_bytes_per_token(header),
        engine_bytes=_PROCESS_BYTES
        + buffer_bytes(header, slots=slots, context_tokens=context_tokens, batch_tokens=batch_tokens),
    )


def buffer_bytes(header: ModelHeader, *, slots: int, context_tokens: int, batch_tokens: int) -> int:
    """Intermediate results of one batch, and the scores of each slot's next token."""
    per_batch_token = _BYTES_PER_BATCH_VALUE * header.embedding_length
    if header.pooling:  # without a causal mask all scores of a batch exist at once
        per_batch_token += 5 * header.heads * context_tokens
    return slots * header.tokens * _BYTES_PER_SLOT_AND_WORD + batch_tokens * per_batch_token


def arithmetic(header: ModelHeader, file_bytes: int, sizing: Sizing) -> str:
    """The sum, for people: `weights .. + cache .. (..) + engine .. = ..`."""
    need = memory_need(
        header,
        file_bytes,
        slots=sizing.slots,
        context_tokens=sizing.context_tokens,
        batch_tokens=sizing.batch_tokens,
    )
    return (
        f"weights {_mb(need.weights_bytes)} + cache {_mb(need.cache_bytes)} "
        f"({sizing.slots} slots x {sizing.context_tokens} tokens x {cache_bytes_per_token(header)} bytes) "
        f"+ engine {_mb(need.engine_bytes)} = {_mb(need.total_bytes)}"
    )


def _sizing(header: ModelHeader, file_bytes: int, *, slots: int, context_tokens: int) -> Sizing:
    # A text is embedded in one batch, so that has to hold the longest.
    batch = context_tokens if header.pooling else max(BATCH_TOKENS, slots)
    memory = memory_bytes(header, file_bytes, slots=slots, context_tokens=context_tokens, batch_tokens=batch)
    return Sizing(slots=slots, context_tokens=context_tokens, batch_tokens=batch, memory_bytes=memory)


def _check(header: ModelHeader, wish: Wish) -> None:
    if wish.context_tokens < 0 or wish.slots < 0:
        raise OperationFailed("context_tokens and slots are numbers from 1 up, or 0 to have them chosen")
    if header.context_tokens and wish.context_tokens > header.context_tokens:
        raise OperationFailed(
            f"context_tokens {wish.context_tokens} is more than the {header.context_tokens} "
            "that this model was trained on; lower it, or leave it out"
        )
    if 0 < wish.slots < wish.workers:
        raise OperationFailed(
            f"slots {wish.slots} is fewer than the {wish.workers} gateway workers, and each needs one; "
            "raise slots, or lower --workers"
        )


def _slot_choices(wish: Wish) -> list[int]:
    if wish.slots:
        return [wish.slots]
    least = max(1, wish.workers)
    return list(range(max(DEFAULT_SLOTS, least), least - 1, -1))


def _context_choices(header: ModelHeader, wish: Wish) -> list[int]:
    if wish.context_tokens:
        return [wish.context_tokens]
    most = min(header.context_tokens or DEFAULT_CONTEXT_TOKENS, DEFAULT_CONTEXT_TOKENS)
    least = min(most, LEAST_CONTEXT_TOKENS)
    choices = [most]
    while choices[-1] > least:
        choices.append(max(least, choices[-1] // 2))
    return choices


def _refusal(header: ModelHeader, file_bytes: int, sizing: Sizing, free_bytes: int) -> str:
    return (
        f"the model does not fit: {arithmetic(header, file_bytes, sizing)}, "
        f"but {_mb(free_bytes)} of memory are free; "
        "lower context_tokens or slots, free memory, or take a smaller model"
    )


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / _MB:.0f} MB"
