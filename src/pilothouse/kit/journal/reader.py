"""
Reading the journal: live segments too, and telling a torn tail from damage.

The reader keeps no place of its own: whoever uses it stores, with what it made
of the frames, the offset to go on from.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from pilothouse.kit.journal import folder as files
from pilothouse.kit.journal.frames import (
    ALIGN,
    FRAME_HEAD_BYTES,
    HEADER_READ_BYTES,
    MARK,
    FrameHead,
    Header,
    binding,
    decode_head,
    decode_header,
)
from pilothouse.kit.seal import TAG_BYTES

_SCAN_BYTES = 1 << 20
_WINDOW_BYTES = 1 << 17


class Batch(Struct, frozen=True, kw_only=True):
    """
    Some frames of a segment, and how to go on.

    `state`: "more" there may be more at `offset` now; "waiting" the writer lives
    and has not written on; "done" everything was read and nobody will write;
    "damaged" the frames before `offset` are good, what stands there is not, and
    `resume` is where the next good frame starts (the end, when there is none).
    """

    frames: list[bytes]
    offset: int
    state: Literal["more", "waiting", "done", "damaged"]
    resume: int = 0
    reason: str = ""
    """With "damaged": what is wrong. With "done": why the torn end was dropped; "" when it ended clean."""


class _Damaged(Exception):
    """A frame, or a header, that is not whole."""


class JournalReader:
    """
    Args:
        folder: Where segments lie; may not exist yet.
        unwrap: Undoes the writer's `wrap`. Its errors pass through untouched:
            a key that is not here is no damage.
    """

    def __init__(self, folder: Path, *, unwrap: Callable[[bytes], bytes]) -> None:
        self._folder = folder
        self._unwrap = unwrap
        self._opened: dict[str, tuple[AESGCM, bytes]] = {}

    def segments(self) -> list[str]:
        """Names of all segments, damaged ones too, in the order of their making within a writer."""
        return sorted(p.stem for p in self._folder.glob("*-*") if p.suffix in (files.SEGMENT, files.CORRUPT))

    def damaged(self) -> list[str]:
        """Names of segments that were put aside."""
        return sorted(p.stem for p in self._folder.glob(f"*{files.CORRUPT}"))

    def read(self, name: str, offset: int, *, max_frames: int = 500, max_bytes: int = 8 << 20) -> Batch:
        """
        Read frames from `offset` (0: from the start) until a limit is reached.

        Args:
            max_bytes: No further frame is read once the payloads together exceed it.

        Raises:
            FileNotFoundError: The segment is gone.
        """
        with self._open(name) as fd:
            # Asked before reading: a writer that appended and died in between would otherwise
            # leave a frame that is neither read nor waited for.
            alive = files.is_written(fd)
            size = os.fstat(fd).st_size
            header = decode_header(os.pread(fd, HEADER_READ_BYTES, 0))
            if header is None:
                return _without_header(fd, offset, size)
            aead, shared = self._unlock(name, header)
            window = _Window(fd)
            frames: list[bytes] = []
            at, taken = max(offset, header.size), 0
            try:
                while len(frames) < max_frames and taken < max_bytes:
                    head = _head_at(window, at, size)
                    if head is None:
                        break
                    frames.append(_payload(window, at, head, aead, shared))
                    taken += head.length
                    at += head.framed_bytes
                else:
                    return Batch(frames=frames, offset=at, state="more")
            except _Damaged as exc:
                return _bad_frame(fd, at, size, frames, reason=str(exc), alive=alive)
            return _bad_frame(fd, at, size, frames, reason="", alive=alive)

    def pending(self, name: str, offset: int) -> tuple[int, int]:
        """Frames and bytes from `offset` on, counted by their heads alone."""
        with self._open(name) as fd:
            size = os.fstat(fd).st_size
            header = decode_header(os.pread(fd, HEADER_READ_BYTES, 0))
            start = at = max(offset, header.size if header else size)
            frames = 0
            window = _Window(fd)
            while (head := decode_head(window.read(FRAME_HEAD_BYTES, at), room=size - at)) is not None:
                frames, at = frames + 1, at + head.framed_bytes
            return frames, at - start

    def used_bytes(self, name: str) -> int:
        """Bytes from the start that hold everything: all of a segment that is worth copying."""
        with self._open(name) as fd:
            size = os.fstat(fd).st_size
            last = max((at for at in _blocks(fd, 0, size) if any(os.pread(fd, _SCAN_BYTES, at))), default=0)
            used = last + len(os.pread(fd, _SCAN_BYTES, last).rstrip(b"\0"))
            # The last tag may itself end in zeros.
            return min(size, used + TAG_BYTES)

    def delete(self, name: str) -> None:
        """Delete a segment that is done, for good: when this returns, power loss does not bring it back."""
        self._path(name).unlink(missing_ok=True)
        self._opened.pop(name, None)
        files.sync_folder(self._folder)

    def quarantine(self, name: str) -> Path:
        """Put a damaged segment aside: renamed, still readable, and never to be deleted by a drain."""
        path = self._folder / (name + files.CORRUPT)
        if not path.exists():
            (self._folder / (name + files.SEGMENT)).rename(path)
            files.sync_folder(self._folder)
        return path

    def remove_leftovers(self) -> None:
        """Delete unfinished files of dead writers."""
        files.remove_leftovers(self._folder)

    def path(self, name: str) -> Path:
        """Where a segment lies, put aside or not."""
        return self._path(name)

    def _path(self, name: str) -> Path:
        path = self._folder / (name + files.SEGMENT)
        return path if path.exists() else path.with_name(name + files.CORRUPT)

    @contextmanager
    def _open(self, name: str) -> Iterator[int]:
        fd = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    def _unlock(self, name: str, header: Header) -> tuple[AESGCM, bytes]:
        opened = self._opened.get(name)
        if opened is None:
            opened = AESGCM(self._unwrap(header.wrapped_key)), binding(header.writer, header.seq)
            self._opened[name] = opened
        return opened


def _without_header(fd: int, offset: int, size: int) -> Batch:
    """A segment whose key cannot be known: empty after power loss, passed over before, or damaged."""
    if offset >= size or not any(any(os.pread(fd, _SCAN_BYTES, at)) for at in _blocks(fd, 0, size)):
        return Batch(frames=[], offset=size, state="done")
    return Batch(frames=[], offset=0, state="damaged", resume=size, reason="its header is not whole")


class _Window:
    """A part of a file in memory: frames are small, and each would take three system calls."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._start = 0
        self._data = b""

    def read(self, size: int, at: int) -> bytes:
        """As `os.pread`; what was looked at once is not looked at again."""
        first = at - self._start
        if first < 0 or first + size > len(self._data):
            self._start, first = at, 0
            self._data = os.pread(self._fd, max(size, _WINDOW_BYTES), at)
        return self._data[first : first + size]


def _head_at(window: _Window, at: int, size: int) -> FrameHead | None:
    """The frame at `at`; None where the segment ends. Raises `_Damaged` for neither."""
    data = window.read(FRAME_HEAD_BYTES, at)
    head = decode_head(data, room=size - at)
    if head is not None:
        tail = window.read(TAG_BYTES, at + FRAME_HEAD_BYTES + head.length - TAG_BYTES)
        if len(tail) == TAG_BYTES and head.fits(tail):
            return head
        raise _Damaged("a frame is not complete")
    if any(data):
        raise _Damaged("a frame is not complete")
    return None


def _payload(window: _Window, at: int, head: FrameHead, aead: AESGCM, shared: bytes) -> bytes:
    body = window.read(head.length, at + FRAME_HEAD_BYTES)
    try:
        return aead.decrypt(head.nonce, body, shared + at.to_bytes(8, "little"))
    except InvalidTag as exc:
        raise _Damaged("a frame does not authenticate") from exc


def _bad_frame(fd: int, at: int, size: int, frames: list[bytes], *, reason: str, alive: bool) -> Batch:
    """What it means that no good frame stands at `at`."""
    if alive:
        return Batch(frames=frames, offset=at, state="waiting")
    resume = _next_good(fd, at + ALIGN, size)
    if resume is not None:
        return Batch(frames=frames, offset=at, state="damaged", resume=resume, reason=reason)
    return Batch(frames=frames, offset=size, state="done", reason=reason)


def _next_good(fd: int, start: int, size: int) -> int | None:
    """Offset of the next whole frame, wherever it starts."""
    for block in _blocks(fd, start, size):
        # Blocks overlap by a mark, so that none is missed across their border.
        data = os.pread(fd, _SCAN_BYTES + len(MARK) - 1, block)
        found = data.find(MARK)
        while found >= 0:
            at = block + found
            if at % ALIGN == 0 and _is_whole(fd, at, size):
                return at
            found = data.find(MARK, found + 1)
    return None


def _is_whole(fd: int, at: int, size: int) -> bool:
    try:
        return _head_at(_Window(fd), at, size) is not None
    except _Damaged:
        return False


def _blocks(fd: int, start: int, size: int) -> Iterator[int]:
    """Offsets of blocks to look through; those that were never written are left out where the disk knows."""
    at = start
    while at < size:
        try:
            at = max(at, os.lseek(fd, at, os.SEEK_DATA))
        except OSError:  # ENXIO: nothing but holes from here on
            return
        yield at
        at += _SCAN_BYTES
