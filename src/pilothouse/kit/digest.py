"""
SHA-256 of files, as `sha256:<64 hex digits>`.

The one idea: one spelling of a digest everywhere, and files that are read
through a descriptor that was checked, never by a name twice.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

_SHAPE = re.compile(r"sha256:[0-9a-f]{64}")


class NotRegular(OSError):
    """A link, a folder, a device or a pipe where a plain file is meant."""


def is_digest(text: str) -> bool:
    return _SHAPE.fullmatch(text) is not None


def name_digest(hexadecimal: str) -> str:
    return f"sha256:{hexadecimal.lower()}"


def digest_of(file: FileIO) -> str:
    """Read from where the file stands to its end."""
    return name_digest(hashlib.file_digest(file, "sha256").hexdigest())


@contextmanager
def open_regular(path: Path) -> Iterator[FileIO]:
    """
    Open a plain file for reading; a link in the last place is not followed, a pipe does not block.

    Raises:
        NotRegular: It is something else.
        OSError: It cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        if path.is_symlink():
            raise NotRegular(f"{path} is a symbolic link to {path.readlink()}: name the file itself") from exc
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegular(f"{path} is not a regular file")
    with FileIO(descriptor, "rb") as file:
        yield file
