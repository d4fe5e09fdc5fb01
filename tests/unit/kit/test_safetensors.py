"""The safetensors header, and that a lying one is refused in words."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.kit.safetensors import SafetensorsError, Span, parse, read

HONEST = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "F16", "shape": [4], "data_offsets": [24, 32]},
}


def header(**changes: object) -> bytes:
    return json.dumps({**HONEST, **changes}).encode()


def test_an_honest_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header()).to_bytes(8, "little") + header() + bytes(32))
    start = 8 + len(header())

    assert read(path) == {"a": Span("F32", (2, 3), start, 24), "b": Span("F16", (4,), start + 24, 8)}


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 8, b"\xff" * 8 + b"{}", (10**7).to_bytes(8, "little") + b"{}"]
)
def test_a_file_that_is_truncated_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)

    with pytest.raises(SafetensorsError, match="truncated or not safetensors"):
        read(path)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"not json", "not what safetensors has"),
        (b"[]", "not what safetensors has"),
        (b"[" * 5000, "not what safetensors has"),
        (header(b={"dtype": "F16", "shape": [4], "data_offsets": [23, 31]}), "does not lie"),
        (header(b={"dtype": "F16", "shape": [4], "data_offsets": [25, 33]}), "does not lie"),
        (header(b={"dtype": "F16", "shape": [5], "data_offsets": [24, 32]}), "does not lie"),
        (header(b={"dtype": "F16", "shape": [-4], "data_offsets": [24, 32]}), "impossible shape"),
        (header(b={"dtype": "F16", "shape": [4], "data_offsets": [32, 24]}), "does not lie"),
        (header(b={"dtype": "X9", "shape": [4], "data_offsets": [24, 32]}), "not read here"),
        (header(c={"dtype": "I8", "shape": [10**15], "data_offsets": [32, 32 + 10**15]}), "take 1000"),
        (header(c={"dtype": "I8"}), "not what safetensors has"),
    ],
)
def test_a_lie_is_refused_in_words(raw: bytes, words: str) -> None:
    with pytest.raises(SafetensorsError, match=words):
        parse(raw, data_bytes=32)


def test_a_file_that_is_too_short_or_too_long_is_refused() -> None:
    for size in (31, 33):
        with pytest.raises(SafetensorsError, match=f"but {size} are there"):
            parse(header(), data_bytes=size)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_mutated_headers_give_tensors_or_a_refusal(data: st.DataObject) -> None:
    broken = bytearray(header())
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))

    try:
        spans = parse(bytes(broken), data_bytes=32)
    except SafetensorsError:
        return
    assert sum(span.bytes for span in spans.values()) == 32
