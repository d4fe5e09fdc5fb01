"""Digests and files that are what they seem."""

import hashlib
import os
from pathlib import Path

import pytest

from pilothouse.kit.digest import NotRegular, digest_of, is_digest, name_digest, open_regular


def test_a_digest_has_one_spelling(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"hello")
    hexadecimal = hashlib.sha256(b"hello").hexdigest()

    with open_regular(path) as file:
        assert digest_of(file) == name_digest(hexadecimal.upper()) == f"sha256:{hexadecimal}"


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:" + "g" * 64, "sha256:" + "a" * 63, "a" * 64])
def test_what_is_no_digest_is_told(text: str) -> None:
    assert not is_digest(text)
    assert is_digest("sha256:" + "a" * 64)


def test_only_plain_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/hostname")

    for path in (tmp_path, tmp_path / "pipe", tmp_path / "link"):
        with pytest.raises(NotRegular), open_regular(path):
            pass
    with pytest.raises(FileNotFoundError), open_regular(tmp_path / "absent"):
        pass
