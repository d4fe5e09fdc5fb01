"""The GGUF header: what is read from honest files, and that dishonest ones are refused in words."""

import struct
from pathlib import Path

import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.kit.gguf import TENSOR_TYPES, Array, GgufError, parse, read
from pilothouse.testing.gguf_files import TINY, Field, Raw, TensorClaim, make_gguf

TINY_FILE = make_gguf()


def parsed(data: bytes) -> object:
    return parse(data, file_bytes=len(data))


@pytest.mark.parametrize("version", [2, 3])
def test_an_honest_header_is_read(version: int, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(make_gguf(version=version))

    gguf = read(path)

    assert gguf.version == version
    assert gguf.metadata["general.architecture"] == "llama"
    assert gguf.metadata["llama.context_length"] == 128
    assert gguf.metadata["tokenizer.ggml.tokens"] == Array(3)
    [tensor] = gguf.tensors
    assert (tensor.name, tensor.type, tensor.elements, tensor.bytes) == ("token_embd.weight", "F32", 24, 96)


def test_numbers_of_each_layer_are_kept_and_long_arrays_only_counted() -> None:
    gguf = parse(make_gguf({"few": [3, 1, 2], "many": [0] * 2000}, ()), file_bytes=10_000)

    assert gguf.metadata == {"few": Array(3, (3, 1, 2)), "many": Array(2000)}


def test_the_tensor_types_are_those_of_ggml() -> None:
    known = {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}

    # Q8_1 and Q8_K are for intermediate results and occur in no file.
    absent = {int(GGMLQuantizationType.Q8_1), int(GGMLQuantizationType.Q8_K)}
    assert {kind: sizes for kind, sizes in known.items() if kind not in absent} == TENSOR_TYPES


def _claim(**changes: object) -> tuple[TensorClaim, ...]:
    return (TensorClaim(**changes),)  # type: ignore[arg-type]


U64 = struct.Struct("<Q")
LIES: list[tuple[str, bytes, str]] = [
    ("empty", b"", "ends within the magic number"),
    ("other magic", b"GGML" + TINY_FILE[4:], "does not begin with"),
    ("version 1", make_gguf(version=1), "version 1"),
    ("version 9", make_gguf(version=9), "version 9 is unknown"),
    ("big endian", make_gguf(version=3 << 24), "big-endian"),
    ("many tensors", TINY_FILE[:8] + U64.pack(2**63) + TINY_FILE[16:], "9223372036854775808 tensors"),
    ("many entries", TINY_FILE[:16] + U64.pack(2**40) + TINY_FILE[24:], "1099511627776 metadata entries"),
    ("huge key", TINY_FILE[:24] + U64.pack(2**62) + TINY_FILE[32:], "metadata key claims"),
    ("huge text", make_gguf({"a": Raw(8, U64.pack(2**64 - 1))}), "ends within the value of 'a'"),
    ("huge array", make_gguf({"a": Raw(9, struct.pack("<IQ", 4, 2**61))}), "2305843009213693952 elements"),
    ("array past the end", make_gguf({"a": Raw(9, struct.pack("<IQ", 12, 10**6))}), "ends within"),
    ("texts past the end", make_gguf({"a": Raw(9, struct.pack("<IQ", 8, 10**6))}), "ends within"),
    (
        "a text of an array past the end",
        make_gguf({"a": Raw(9, struct.pack("<IQQ", 8, 1, 2**63))}),
        "ends within",
    ),
    ("array of arrays", make_gguf({"a": Raw(9, struct.pack("<IQ", 9, 1))}), "array of arrays"),
    ("unknown type", make_gguf({"a": Raw(99, b"")}), "unknown type 99"),
    ("unknown element type", make_gguf({"a": Raw(9, struct.pack("<IQ", 77, 1))}), "unknown type 77"),
    ("alignment 0", make_gguf({"general.alignment": 0}), "power of two"),
    ("alignment 33", make_gguf({"general.alignment": 33}), "power of two"),
    ("alignment as text", make_gguf({"general.alignment": "32"}), "power of two"),
    ("five dimensions", make_gguf(None, _claim(shape=(1, 1, 1, 1, 1))), "5 dimensions"),
    ("a shape that overflows", make_gguf(None, _claim(shape=(2**32, 2**32))), "impossible shape"),
    ("an empty shape", make_gguf(None, _claim(shape=(8, 0))), "impossible shape"),
    ("broken rows", make_gguf(None, _claim(shape=(8, 3), type=2)), "whole blocks of 32"),
    ("odd offset", make_gguf(None, _claim(offset=7)), "not a multiple of 32"),
    ("far offset", make_gguf(None, _claim(offset=2**62)), "truncated or lies"),
    ("unknown type past the end", make_gguf(None, _claim(type=99, offset=96)), "truncated or lies"),
    ("long name", make_gguf(None, _claim(name="x" * 65)), "claims 65 bytes"),
    (
        "two of one name",
        make_gguf(None, (TensorClaim(), TensorClaim(offset=96)), data_bytes=192),
        "same name",
    ),
    (
        "overlap",
        make_gguf(None, (TensorClaim(), TensorClaim(name="b", offset=32)), data_bytes=192),
        "lies over",
    ),
    ("truncated weights", TINY_FILE[:-1], "of which the file has 95"),
]


@pytest.mark.parametrize(("data", "words"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES])
def test_a_lie_is_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(GgufError, match=words):
        parsed(data)


def test_a_key_that_stands_twice_is_refused() -> None:
    data = make_gguf({"aaaa": 1, "bbbb": 2}).replace(b"bbbb", b"aaaa")

    with pytest.raises(GgufError, match="twice"):
        parsed(data)


def test_a_key_that_is_not_text_is_refused() -> None:
    with pytest.raises(GgufError, match="UTF-8"):
        parsed(make_gguf({"aaaa": 1}).replace(b"aaaa", b"\xff\xff\xff\xff"))


def test_a_header_larger_than_the_bound_is_told_from_a_truncated_file() -> None:
    with pytest.raises(GgufError, match="larger than 60 bytes"):
        parse(TINY_FILE[:60], file_bytes=len(TINY_FILE))


def test_every_truncation_is_refused() -> None:
    for size in range(len(TINY_FILE)):
        with pytest.raises(GgufError):
            parsed(TINY_FILE[:size])


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_mutated_bytes_give_a_header_or_a_refusal(data: st.DataObject) -> None:
    broken = bytearray(TINY_FILE)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(broken) - 1))
        patch = data.draw(st.binary(min_size=1, max_size=9))
        broken[at : at + len(patch)] = patch

    try:
        gguf = parse(bytes(broken), file_bytes=len(broken))
    except GgufError:
        return
    assert sum(tensor.bytes for tensor in gguf.tensors) <= len(broken)


fields = st.dictionaries(
    st.text(max_size=20),
    st.one_of(
        st.text(max_size=20),
        st.integers(0, 2**32 - 1),
        st.floats(width=32, allow_nan=False),
        st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5),
    ),
    max_size=8,
)


@settings(deadline=None, max_examples=80)
@given(fields)
def test_what_was_written_is_read_back(metadata: dict[str, Field]) -> None:
    metadata.pop("general.alignment", None)

    gguf = parse(make_gguf(metadata), file_bytes=10**6)

    expected = {key: Array(len(v), tuple(v)) if isinstance(v, list) else v for key, v in metadata.items()}
    assert gguf.metadata == expected
    assert TINY["general.name"] == "tiny"
