"""Pieces come back as they were, whole or not at all, whenever the writer was killed."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kit.seal import SealBroken
from pilothouse.kit.sealed_log import SealedLog

KEY = b"k" * 32


def written(path: Path, pieces: list[bytes]) -> SealedLog:
    log = SealedLog(path, "a", KEY)
    log.open()
    for piece in pieces:
        log.append(piece)
    log.close()
    return log


@given(st.lists(st.binary(max_size=50), max_size=6), st.data())
def test_a_log_that_was_cut_anywhere_goes_on_after_its_last_whole_piece(pieces, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        written(path, pieces)
        whole = path.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])

        kept = list(SealedLog(path, "a", KEY).pieces())
        log = written(path, [b"more"])

        assert kept == pieces[: len(kept)]
        assert len(kept) == len(pieces) or cut < len(whole)
        assert list(log.pieces()) == [*kept, b"more"]
        assert log.plain_bytes == sum(map(len, kept)) + 4


@given(st.binary(max_size=300), st.integers(1, 20))
def test_lines_are_those_of_the_text_however_it_was_cut(text, size):
    with tempfile.TemporaryDirectory() as folder:
        log = written(Path(folder) / "log", [text[at : at + size] for at in range(0, len(text), size)])

        expected = text.split(b"\n")
        assert list(log.lines()) == (expected if expected[-1] else expected[:-1])


def test_nothing_of_it_is_readable_and_no_piece_can_be_moved(tmp_path):
    log = written(tmp_path / "log", [b"secret one", b"secret two"])
    data = log.path.read_bytes()
    assert b"secret" not in data

    half = len(data) // 2
    log.path.write_bytes(data[half:] + data[:half])
    with pytest.raises(SealBroken):
        list(log.pieces())
    log.path.write_bytes(data)
    with pytest.raises(SealBroken):
        list(SealedLog(log.path, "b", KEY).pieces())
