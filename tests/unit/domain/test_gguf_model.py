"""What a header says of a model, and which files are no model."""

import pytest
from gguf.constants import LlamaFileType
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.domain.errors import ModelFileRefused
from pilothouse.domain.gguf_model import FILE_TYPES, read_model
from pilothouse.domain.model import ModelHeader
from pilothouse.kit.gguf import GgufError, parse
from pilothouse.testing.gguf_files import TINY, Field, TensorClaim, make_gguf


def model(changes: dict[str, Field] | None = None, *tensors: TensorClaim, without: str = "") -> ModelHeader:
    fields = {key: value for key, value in {**TINY, **(changes or {})}.items() if key != without}
    data = make_gguf(fields, tensors or (TensorClaim(),), data_bytes=4096)
    return read_model(parse(data, file_bytes=len(data)))


def test_the_facts_are_read() -> None:
    assert model() == ModelHeader(
        architecture="llama",
        context_tokens=128,
        quantization="F32",
        parameters=24,
        layers=1,
        embedding_length=8,
        heads=2,
        kv_heads=1,
        head_dim=4,
        chat_template="{{ messages }}",
        pooling="",
        tokens=3,
        licence="apache-2.0",
    )


def test_heads_of_each_layer_count_by_the_largest() -> None:
    assert model({"llama.attention.head_count_kv": [0, 2, 1]}).kv_heads == 2


def test_without_kv_heads_all_heads_have_their_own() -> None:
    assert model(without="llama.attention.head_count_kv").kv_heads == 2


def test_the_key_length_wins_over_the_division() -> None:
    assert model({"llama.attention.key_length": 64}).head_dim == 64


def test_the_quantization_is_what_the_header_says() -> None:
    assert model({"general.file_type": 15}).quantization == "Q4_K_M"
    assert model({"general.file_type": 15 + 1024}).quantization == "Q4_K_M"


@pytest.mark.parametrize("said", [{"general.file_type": 999}, {}])
def test_else_it_is_the_type_of_most_bytes(said: dict[str, Field]) -> None:
    tensors = (TensorClaim(name="a", shape=(8,)), TensorClaim(name="b", shape=(1024,), type=1, offset=32))

    header = model(said, *tensors, without="" if said else "general.file_type")

    assert header.quantization == "F16"


def test_the_file_types_are_those_of_llama_cpp() -> None:
    known = {int(kind): kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in LlamaFileType}
    del known[int(LlamaFileType.GUESSED)]

    assert known == FILE_TYPES


@pytest.mark.parametrize(
    ("changes", "pooling"),
    [
        ({}, ""),
        ({"llama.pooling_type": 0}, ""),
        ({"llama.pooling_type": 3}, "last"),
        ({"general.architecture": "bert", "bert.context_length": 9}, "none"),
        ({"general.architecture": "bert", "bert.context_length": 9, "bert.pooling_type": 1}, "mean"),
        ({"general.architecture": "bert", "bert.context_length": 9, "bert.pooling_type": 4}, "rank"),
    ],
)
def test_a_pooling_says_that_it_embeds(changes: dict[str, Field], pooling: str) -> None:
    assert model(changes).pooling == pooling


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"general.type": "adapter"}, "LoRA adapter"),
        ({"general.type": "mmproj"}, "vision projector"),
        ({"general.architecture": "clip"}, "vision projector"),
        ({"split.count": 3}, "one of 3 parts"),
        ({"general.architecture": ""}, "general.architecture"),
        ({"general.architecture": 7}, "must be text"),
        ({"general.architecture": "x" * 300}, "300 characters"),
        ({"llama.context_length": 0}, "context_length"),
        ({"llama.context_length": "many"}, "must be a count"),
        ({"llama.context_length": 1.5}, "must be a count"),
        ({"llama.context_length": 2**31}, "must be a count"),
        ({"tokenizer.chat_template": "x" * 300_000}, "300000 characters"),
    ],
)
def test_what_is_no_model_is_refused(changes: dict[str, Field], words: str) -> None:
    with pytest.raises(ModelFileRefused, match=words):
        model(changes)


def test_a_vocabulary_without_weights_is_refused() -> None:
    data = make_gguf(None, ())

    with pytest.raises(ModelFileRefused, match="no weights"):
        read_model(parse(data, file_bytes=len(data)))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_mutated_files_give_a_model_or_a_refusal(data: st.DataObject) -> None:
    broken = bytearray(make_gguf())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(broken) - 1))
        broken[at] = data.draw(st.integers(0, 255))

    try:
        header = read_model(parse(bytes(broken), file_bytes=len(broken)))
    except (GgufError, ModelFileRefused):
        return
    assert header.architecture
    assert header.context_tokens > 0
