import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import PilothouseError, UpstreamError
from pilothouse.domain.used_tokens import Usage
from pilothouse.wire.torchserve.answers import Fault, Lines, read_chunk, read_fault, refusal


@given(st.lists(st.binary(max_size=20).filter(lambda one: b"\n" not in one), max_size=6), st.integers(1, 9))
def test_lines_are_whole_however_their_bytes_come(texts: list[bytes], size: int) -> None:
    data = b"".join(text + b"\n" for text in texts)
    lines = Lines()

    found = [line for i in range(0, len(data), size) for line in lines.feed(data[i : i + size])]

    assert found == texts
    assert not lines.is_mid_line


def test_a_line_without_an_end_is_refused() -> None:
    lines = Lines(max_bytes=10)
    lines.feed(b"xxxxxxxx")

    with pytest.raises(UpstreamError):
        lines.feed(b"xxxx")


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (503, "ServiceUnavailableException", "overloaded"),
        (503, "InternalServerException", "engine_unavailable"),
        (507, "InternalServerException", "engine_unavailable"),
        (500, "InternalServerException", "engine_unavailable"),
        (413, "", "invalid_request"),
        (404, "ModelNotFoundException", "upstream_error"),
    ],
)
def test_what_torchserve_refuses_is_a_typed_error(status: int, kind: str, code: str) -> None:
    assert refusal(status, Fault(type=kind)).code == code


@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b'{"type": 1}', b"\xff"])
def test_a_refusal_that_cannot_be_read_is_one_of_no_kind(data: bytes) -> None:
    assert read_fault(data) == Fault()


def test_text_and_the_end_with_its_counts_are_read() -> None:
    last = b'{"text":"","finish":"length","prompt_tokens":3,"completion_tokens":2}'

    assert read_chunk(b'{"text":"a"}') == Chunk((Delta("a"),))
    assert read_chunk(b'{"text":""}') is None
    assert read_chunk(last) == Chunk((Delta("", finish_reason="length"),), Usage(input=3, output=2))


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"error":"too_long","prompt_tokens":9,"limit":8}', "context_length_exceeded"),
        (b'{"error":"no_chat_template"}', "not_supported"),
        (b'{"error":"gone"}', "engine_unavailable"),
        (b'{"error":"?"}', "upstream_error"),
        (b'{"text":1}', "upstream_error"),
        (b'{"finish":"stop","prompt_tokens":-1}', "upstream_error"),
        (b"\xff", "upstream_error"),
        (b"[" * 5000, "upstream_error"),
        (b"", "upstream_error"),
    ],
)
def test_an_error_or_garbage_is_typed(line: bytes, code: str) -> None:
    with pytest.raises(PilothouseError) as raised:
        read_chunk(line)

    assert raised.value.code == code
