"""
What all sources do with the disk: look whether there is room, and write with a digest.

The one idea: room is asked for before bytes arrive, and a file that cannot be
finished leaves nothing behind.
"""

import errno
import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import IO

from pilothouse.domain.errors import ModelFileRefused, OperationFailed
from pilothouse.domain.room import check_room
from pilothouse.kit.digest import name_digest
from pilothouse.ports.source import Progress

CHUNK_BYTES = 256 * 1024

FreeBytes = Callable[[Path], int]


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def require_room(folder: Path, need_bytes: int, what: str, *, free: FreeBytes) -> None:
    """
    Raises:
        OperationFailed: There is none; the message shows the arithmetic.
    """
    check_room(need_bytes, free(folder), what=what, where=str(folder))


def chunks_of(file: IO[bytes] | RawIOBase) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def write_chunks(
    chunks: Iterable[bytes], target: Path, *, size_bytes: int, what: str, progress: Progress
) -> str:
    """
    Write a new file and return its digest.

    Raises:
        ModelFileRefused: More than `size_bytes` came: the file grew, or its archive lies.
        OperationFailed: The disk failed; what was written is removed.
    """
    digest = hashlib.sha256()
    done = 0
    with disk_errors(what, target), target.open("wb") as copy:
        for chunk in chunks:
            done += len(chunk)
            if done > size_bytes:
                raise ModelFileRefused(f"{what} holds more than the {size_bytes} bytes that it claims")
            digest.update(chunk)
            copy.write(chunk)
            progress(what, done, size_bytes)
    return name_digest(digest.hexdigest())


@contextmanager
def disk_errors(what: str, *partial: Path) -> Iterator[None]:
    """Say disk errors in words; whatever ends the block, the partial files are gone."""
    try:
        yield
    except BaseException as exc:
        for path in partial:
            path.unlink(missing_ok=True)
        if isinstance(exc, OSError):
            raise disk_failure(what, exc) from exc
        raise


def disk_failure(what: str, exc: OSError) -> OperationFailed:
    if is_full(exc):
        return OperationFailed(f"the disk became full at {what}: free some space and try again")
    return OperationFailed(f"{what} failed: {exc.strerror or exc}")


def is_full(exc: OSError) -> bool:
    return exc.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
