from typing import Any

import pytest

from pilothouse.domain.errors import ModelFileRefused
from pilothouse.domain.hf_model import Weights, read_config

CONFIG: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "num_hidden_layers": 36,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
}
WEIGHTS = Weights(elements=8_190_000_000, bytes_by_type={"BF16": 16_000_000_000, "F32": 1000})


def test_the_facts_are_those_of_the_configuration() -> None:
    header = read_config(CONFIG, WEIGHTS)

    assert (header.layers, header.kv_heads, header.head_dim, header.tokens) == (36, 8, 128, 151936)
    assert (header.quantization, header.parameters, header.context_tokens) == ("BF16", 8_190_000_000, 40960)


def test_a_model_without_grouped_heads_has_as_many_of_both() -> None:
    plain = {k: v for k, v in CONFIG.items() if k not in ("num_key_value_heads", "head_dim")}

    header = read_config(plain, WEIGHTS)

    assert (header.kv_heads, header.head_dim) == (32, 128)


def test_the_language_part_of_a_model_that_sees_is_what_counts() -> None:
    assert read_config({"model_type": "gemma3", "text_config": CONFIG}, WEIGHTS).layers == 36


def test_experts_are_counted() -> None:
    assert read_config({**CONFIG, "num_local_experts": 8}, WEIGHTS).experts == 8


@pytest.mark.parametrize("value", [None, "32", -1, 0, True, 1 << 40, [1]])
def test_a_fact_that_is_no_count_is_refused_by_name(value: object) -> None:
    with pytest.raises(ModelFileRefused, match="num_hidden_layers"):
        read_config({**CONFIG, "num_hidden_layers": value}, WEIGHTS)
