from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.model import ModelHeader
from pilothouse.domain.sizing import (
    BATCH_TOKENS,
    Wish,
    cache_bytes_per_token,
    choose_sizing,
    memory_bytes,
)

MB = 1_000_000
GB = 1000 * MB

SMOLLM2 = ModelHeader(
    architecture="llama",
    context_tokens=8192,
    quantization="Q4_1",
    parameters=134_515_008,
    layers=30,
    embedding_length=576,
    heads=9,
    kv_heads=3,
    head_dim=64,
    tokens=49152,
)
SMOLLM2_BYTES = 98_362_432
MINILM = ModelHeader(
    architecture="bert",
    context_tokens=512,
    quantization="F16",
    parameters=22_565_376,
    layers=6,
    embedding_length=384,
    heads=12,
    kv_heads=12,
    head_dim=32,
    tokens=30522,
    pooling="mean",
)


def model(**changes: Any) -> ModelHeader:
    return ModelHeader(**{name: getattr(SMOLLM2, name) for name in SMOLLM2.__struct_fields__} | changes)


def test_a_token_of_smollm2_takes_23_kilobytes_of_cache() -> None:
    assert cache_bytes_per_token(SMOLLM2) == 30 * 2 * 3 * 64 * 2 == 23_040


@pytest.mark.parametrize(
    ("quantization", "file_bytes", "slots", "context", "batch", "measured_mb"),
    [
        ("Q4_1", SMOLLM2_BYTES, 1, 512, 64, 182.9),
        ("Q4_1", SMOLLM2_BYTES, 4, 512, 64, 219.6),
        ("Q4_1", SMOLLM2_BYTES, 4, 1024, 64, 267.0),
        ("Q4_1", SMOLLM2_BYTES, 2, 4096, 64, 361.0),
        ("Q4_1", SMOLLM2_BYTES, 4, 4096, 64, 550.2),
        ("Q4_1", SMOLLM2_BYTES, 16, 1024, 64, 554.3),
        ("Q4_1", SMOLLM2_BYTES, 1, 8192, 64, 359.7),
        ("Q4_1", SMOLLM2_BYTES, 2, 2048, 512, 278.2),
        ("Q8_0", 144_811_072, 4, 1024, 64, 312.6),
        ("Q4_0", 91_726_912, 4, 1024, 64, 344.5),
        ("Q4_0", 91_726_912, 2, 4096, 64, 437.4),
    ],
)
def test_the_estimate_is_one_to_four_per_cent_above_the_measured_peak(
    quantization: str, file_bytes: int, slots: int, context: int, batch: int, measured_mb: float
) -> None:
    estimate = memory_bytes(
        model(quantization=quantization), file_bytes, slots=slots, context_tokens=context, batch_tokens=batch
    )

    assert 1.005 <= estimate / (measured_mb * MB) <= 1.045


@pytest.mark.parametrize(
    ("slots", "context", "measured_mb"), [(1, 512, 117.3), (4, 512, 146.1), (4, 256, 117.8), (16, 512, 146.6)]
)
def test_the_estimate_for_an_encoder_is_up_to_a_quarter_above_the_measured_peak(
    slots: int, context: int, measured_mb: float
) -> None:
    estimate = memory_bytes(MINILM, 46_220_384, slots=slots, context_tokens=context, batch_tokens=context)

    assert 1.005 <= estimate / (measured_mb * MB) <= 1.265


def test_defaults_are_four_slots_of_4096_tokens() -> None:
    sizing = choose_sizing(SMOLLM2, SMOLLM2_BYTES, Wish(), free_bytes=16 * GB)

    assert (sizing.slots, sizing.context_tokens, sizing.batch_tokens) == (4, 4096, BATCH_TOKENS)


def test_a_model_with_a_small_context_keeps_it() -> None:
    sizing = choose_sizing(model(context_tokens=256), SMOLLM2_BYTES, Wish(), free_bytes=16 * GB)

    assert sizing.context_tokens == 256


def test_every_worker_gets_a_slot() -> None:
    assert choose_sizing(SMOLLM2, SMOLLM2_BYTES, Wish(workers=7), free_bytes=16 * GB).slots == 7


def test_less_memory_first_halves_the_context() -> None:
    sizing = choose_sizing(SMOLLM2, SMOLLM2_BYTES, Wish(), free_bytes=800 * MB)

    assert (sizing.slots, sizing.context_tokens) == (4, 2048)


def test_little_memory_then_takes_slots_down_to_one_a_worker() -> None:
    sizing = choose_sizing(SMOLLM2, SMOLLM2_BYTES, Wish(workers=2), free_bytes=410 * MB)

    assert (sizing.slots, sizing.context_tokens) == (2, 512)


def test_the_least_may_take_more_than_half() -> None:
    sizing = choose_sizing(SMOLLM2, SMOLLM2_BYTES, Wish(), free_bytes=200 * MB)

    assert (sizing.slots, sizing.context_tokens) == (1, 512)


def test_what_was_asked_for_may_take_all_of_the_memory() -> None:
    sizing = choose_sizing(SMOLLM2, SMOLLM2_BYTES, Wish(slots=4, context_tokens=4096), free_bytes=560 * MB)

    assert (sizing.slots, sizing.context_tokens) == (4, 4096)


def test_what_cannot_fit_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(OperationFailed) as refused:
        choose_sizing(SMOLLM2, SMOLLM2_BYTES, Wish(slots=8, context_tokens=8192), free_bytes=1 * GB)

    assert (
        "weights 98 MB + cache 1510 MB (8 slots x 8192 tokens x 23040 bytes) + engine 80 MB = 1688 MB, "
        "but 1000 MB of memory are free" in refused.value.message
    )


def test_a_default_that_cannot_fit_is_refused_at_its_least() -> None:
    with pytest.raises(OperationFailed, match="1 slots x 512 tokens"):
        choose_sizing(SMOLLM2, SMOLLM2_BYTES, Wish(), free_bytes=100 * MB)


def test_more_context_than_the_model_was_trained_on_is_refused() -> None:
    with pytest.raises(OperationFailed, match="context_tokens 8193 is more than the 8192"):
        choose_sizing(SMOLLM2, SMOLLM2_BYTES, Wish(context_tokens=8193), free_bytes=16 * GB)


def test_fewer_slots_than_workers_are_refused() -> None:
    with pytest.raises(OperationFailed, match="slots 1 is fewer than the 2 gateway workers"):
        choose_sizing(SMOLLM2, SMOLLM2_BYTES, Wish(slots=1, workers=2), free_bytes=16 * GB)


@pytest.mark.parametrize("wish", [Wish(slots=-1), Wish(context_tokens=-1)])
def test_negative_sizes_are_refused(wish: Wish) -> None:
    with pytest.raises(OperationFailed, match="numbers from 1 up"):
        choose_sizing(SMOLLM2, SMOLLM2_BYTES, wish, free_bytes=16 * GB)


def test_an_encoder_sees_its_longest_text_in_one_batch() -> None:
    sizing = choose_sizing(MINILM, 46_220_384, Wish(), free_bytes=16 * GB)

    assert sizing.batch_tokens == sizing.context_tokens == 512


@settings(deadline=None, max_examples=200)
@given(
    slots=st.integers(0, 32),
    context=st.integers(0, 8192),
    workers=st.integers(1, 8),
    free=st.integers(0, 4 * GB),
)
def test_whatever_is_chosen_fits_and_is_what_was_asked_for(
    slots: int, context: int, workers: int, free: int
) -> None:
    try:
        sizing = choose_sizing(
            SMOLLM2,
            SMOLLM2_BYTES,
            Wish(slots=slots, context_tokens=context, workers=workers),
            free_bytes=free,
        )
    except OperationFailed:
        return

    assert sizing.memory_bytes <= free
    assert sizing.slots == slots or (not slots and sizing.slots >= workers)
    assert sizing.context_tokens == context or (not context and sizing.context_tokens >= 512)
