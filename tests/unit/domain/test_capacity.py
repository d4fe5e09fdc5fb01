from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.capacity import CapacityPlan, Facts, Room, Slo, plan_capacity
from pilothouse.domain.catalogue import CATALOGUE
from pilothouse.domain.catalogue_shapes import shape_of
from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.instances import INSTANCES
from pilothouse.domain.model import ModelHeader
from pilothouse.domain.prices import Prices
from pilothouse.domain.sizing import Wish, choose_sizing
from pilothouse.domain.splits import even_splits

GB = 1_000_000_000
QWEN3_8B = ModelHeader(
    architecture="qwen3",
    context_tokens=32768,
    quantization="Q4_K_M",
    parameters=8_190_000_000,
    layers=36,
    embedding_length=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    tokens=151_936,
)
FILE_BYTES = 5_028_000_000
FACTS = Facts(name="qwen3-8b", origin="file", format="gguf", file_bytes=FILE_BYTES, header=QWEN3_8B)


def plan(
    *, memory_bytes: int = 64 * GB, disk_bytes: int = 100 * GB, wish: Wish | None = None, **more: Any
) -> CapacityPlan:
    room = Room(memory_bytes=memory_bytes, disk_bytes=disk_bytes)
    return plan_capacity(FACTS, wish or Wish(slots=4, context_tokens=4096), room, **more)


def test_the_plan_is_what_the_engine_would_be_started_with() -> None:
    started = choose_sizing(QWEN3_8B, FILE_BYTES, Wish(), free_bytes=64 * GB)

    here = plan(wish=Wish()).here

    assert (here.slots, here.context_tokens, here.total_bytes) == (
        started.slots,
        started.context_tokens,
        started.memory_bytes,
    )


def test_what_does_not_fit_is_planned_all_the_same_with_what_would() -> None:
    here = plan(memory_bytes=11_500_000_000, wish=Wish(slots=4, context_tokens=32768)).here

    assert not here.fits
    assert "4 slots x 32768 tokens x 147456 bytes" in here.arithmetic
    assert here.remedy == "4 slots of 2048 tokens would fit"


def test_what_cannot_be_made_to_fit_says_how_much_is_missing() -> None:
    assert "MB of memory are missing" in plan(memory_bytes=2 * GB).here.remedy


def test_more_context_than_the_model_knows_is_refused() -> None:
    with pytest.raises(OperationFailed, match="more than the 32768"):
        plan(wish=Wish(context_tokens=40_000))


def test_splits_leave_nothing_over() -> None:
    splits = {(split.tensor, split.pipeline) for split in even_splits(QWEN3_8B)}

    assert {(1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (1, 3), (4, 4), (2, 6)} <= splits
    assert not {(3, 1), (16, 1), (1, 5), (1, 7)} & splits  # 8 key-value heads; 36 layers


def test_a_split_divides_weights_and_cache() -> None:
    by = {(one.tensor, one.pipeline): one.per_gpu for one in plan().splits}

    assert by[(4, 1)].weights_bytes * 4 == FILE_BYTES
    assert by[(1, 1)].cache_bytes == 2 * by[(2, 1)].cache_bytes == 4 * 4096 * 147_456


def test_an_instance_is_named_with_the_smallest_split_that_fits() -> None:
    long = Wish(slots=16, context_tokens=16384)  # 39 GB of cache
    found = {match.instance: match for match in plan(wish=long).instances}

    assert "g5.xlarge" not in found
    assert (found["g5.12xlarge"].tensor, found["g5.12xlarge"].pipeline) == (1, 3)
    assert found["g5.12xlarge"].replicas == 1
    assert (found["p5.48xlarge"].tensor, found["p5.48xlarge"].replicas) == (1, 8)


def test_all_that_matches_fits_and_all_clouds_are_there() -> None:
    matches = plan().instances

    assert all(match.per_gpu_bytes <= match.usable_bytes for match in matches)
    assert {match.cloud for match in matches} == {"aws", "gcp", "azure"}


def test_an_objective_rules_out_a_memory_that_is_too_slow() -> None:
    found = {match.instance: match for match in plan(slo=Slo(tpot_s=0.01)).instances}

    # 5.028 GB at 300 GB/s are 16.8 ms, at 3350 GB/s 1.5 ms.
    assert found["g6.xlarge"].least_tpot_s == pytest.approx(0.01676)
    assert not found["g6.xlarge"].meets_slo
    assert found["p5.48xlarge"].meets_slo


def test_a_mixture_of_experts_has_no_bound_on_time() -> None:
    model = next(one for one in CATALOGUE if one.name == "gpt-oss-20b")
    header = shape_of(model)
    assert header is not None
    facts = Facts(name="x", origin="catalogue", format="gguf", file_bytes=model.bytes, header=header)

    made = plan_capacity(facts, Wish(), Room(memory_bytes=64 * GB, disk_bytes=GB), slo=Slo(tpot_s=0.000001))

    assert all(match.least_tpot_s is None and match.meets_slo for match in made.instances)


def test_money_is_only_what_the_user_says() -> None:
    without = plan()
    prices = Prices(as_of=date(2026, 11, 1), usd_per_hour={"g6.xlarge": 0.8, "here": 0.05})
    priced = plan(prices=prices)

    assert {match.micro_usd_per_hour for match in without.instances} == {None}
    assert without.here.micro_usd_per_hour is None
    assert priced.here.micro_usd_per_hour == 50_000
    assert [m.instance for m in priced.instances if m.micro_usd_per_hour] == ["g6.xlarge"]
    assert priced.instances[0].micro_usd_per_hour == 800_000


def test_quantizations_stand_from_fine_to_coarse_with_this_file_among_them() -> None:
    choices = plan().quantizations

    assert [one.name for one in choices if one.is_this_file] == ["Q4_K_M"]
    assert [one.file_bytes for one in choices] == sorted((one.file_bytes for one in choices), reverse=True)
    assert all("original weights" in one.caveat for one in choices if one.file_bytes > FILE_BYTES)


def test_estimated_sizes_of_a_known_model_are_within_a_tenth() -> None:
    # Qwen3-8B's published files: Q8_0 8.71 GB, Q6_K 6.73 GB, Q5_K_M 5.85 GB.
    sizes = {one.name: one.file_bytes / GB for one in plan().quantizations}

    for name, published in (("Q8_0", 8.71), ("Q6_K", 6.73), ("Q5_K_M", 5.85)):
        assert sizes[name] == pytest.approx(published, rel=0.1)


def test_a_disk_that_is_too_small_is_said() -> None:
    assert not plan(disk_bytes=5 * GB).disk.fits
    assert plan(disk_bytes=6 * GB).disk.fits


def test_shapes_belong_to_models_of_the_catalogue_and_agree_with_their_parameters() -> None:
    for model in CATALOGUE:
        header = shape_of(model)
        if header is None or header.experts:
            continue
        attention = 2 * header.embedding_length * header.head_dim * (header.heads + header.kv_heads)
        assert header.layers * attention < model.parameters
        assert header.heads % header.kv_heads == 0
        assert header.tokens * header.embedding_length < model.parameters


def test_the_instances_are_each_listed_once_and_plausible() -> None:
    assert len({one.name for one in INSTANCES}) == len(INSTANCES)
    assert all((one.link == "none") == (one.gpus == 1) for one in INSTANCES)


@given(slots=st.integers(1, 64), context=st.integers(1, 32768), memory=st.integers(0, 200 * GB))
def test_it_fits_when_and_only_when_the_engine_would_start(slots: int, context: int, memory: int) -> None:
    wish = Wish(slots=slots, context_tokens=context)
    here = plan(memory_bytes=memory, wish=wish).here

    try:
        choose_sizing(QWEN3_8B, FILE_BYTES, wish, free_bytes=memory)
    except OperationFailed:
        assert not here.fits
        assert here.remedy
    else:
        assert here.fits
        assert not here.remedy
