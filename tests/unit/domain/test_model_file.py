"""What a file is, by its first bytes."""

import io
import tarfile

import pytest

from pilothouse.domain.model_file import why_not_gguf
from pilothouse.testing.gguf_files import make_gguf


def _tar() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("data.pkl"))
    return target.getvalue()


def test_gguf_is_taken() -> None:
    assert why_not_gguf(make_gguf()) is None


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"", "empty"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"\x80\x04}\x94.", "pickle"),
        (b"\x80\x05}\x94.", "pickle"),
        (b"PK\x03\x04rest", "zip archive"),
        (_tar(), "tar archive"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"<!DOCTYPE html>", "web page"),
        (b"  <html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b'\x10\0\0\0\0\0\0\0{"a":1}', "safetensors"),
        (b"FUGG\x03\0\0\0", "big-endian"),
        (b"\x7fELF", "program"),
        (b"hello", "not GGUF"),
    ],
)
def test_another_file_is_refused_by_name(head: bytes, words: str) -> None:
    assert words in (why_not_gguf(head) or "")
