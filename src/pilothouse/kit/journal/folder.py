"""
The folder of segments: their names, who still writes them, and what is left over.

    <writer>-<seq>.journal   a segment
    <writer>-<seq>.corrupt   a segment that was found damaged; never deleted here
    <writer>-<seq>.tmp       one that is just being made
"""

import fcntl
import os
import re
import sys
from pathlib import Path

from pilothouse.kit.journal.frames import FRAME_HEAD_BYTES, HEADER_READ_BYTES, decode_header

SEGMENT, CORRUPT, UNFINISHED = ".journal", ".corrupt", ".tmp"
_WRITER = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ZEROS = bytes(1 << 20)


def check_writer(writer: str) -> str:
    """A writer's name becomes a file's name: letters, digits, `_`, `.` and `-`, at most 64."""
    if not _WRITER.fullmatch(writer):
        raise ValueError(f"a journal writer's name has 1 to 64 of A-Z a-z 0-9 _ . -, got {writer!r}")
    return writer


def segment_name(writer: str, seq: int) -> str:
    """Sorts by the time of its making, within one writer."""
    return f"{writer}-{seq:020d}"


def lock_for_writing(fd: int) -> None:
    """Say that the writer of this file lives: held until the descriptor is closed, a kill included."""
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_written(fd: int) -> bool:
    """Whether a living writer holds the file. Readers share, so that they never mistake one another."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def preallocate(fd: int, size_bytes: int) -> None:
    """Take the disk space now, so that a later write cannot find it gone."""
    if sys.platform == "linux":
        os.posix_fallocate(fd, 0, size_bytes)
    else:
        for at in range(0, size_bytes, len(_ZEROS)):
            os.pwrite(fd, _ZEROS[: size_bytes - at], at)


def sync_data(fd: int) -> None:
    if sys.platform == "linux":
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def sync_folder(folder: Path) -> None:
    """Make creations, renames and deletions in a folder survive power loss."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_leftovers(folder: Path) -> None:
    """
    Delete what dead writers left without a record in it: unfinished files and empty segments.

    Otherwise a writer that dies again and again would fill the disk with
    preallocated nothing while nobody drains.
    """
    for path in [*folder.glob(f"*{UNFINISHED}"), *folder.glob(f"*{SEGMENT}")]:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            if not is_written(fd) and (path.suffix == UNFINISHED or _is_empty(fd)):
                path.unlink(missing_ok=True)
        finally:
            os.close(fd)


def _is_empty(fd: int) -> bool:
    """A good header and nothing after it; a damaged one is for the reader to tell about."""
    header = decode_header(os.pread(fd, HEADER_READ_BYTES, 0))
    return header is not None and not any(os.pread(fd, FRAME_HEAD_BYTES, header.size))
