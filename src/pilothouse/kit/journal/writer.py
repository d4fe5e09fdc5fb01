"""
Appending to the journal: one `pwritev` for what comes together, into space that is already there.

Two segments lie ready, the current one and a spare. When the current one is
full the spare takes its place, which is the swap of a variable; making the next
spare is a background thread's work, and it goes on trying while the disk is
full, so that recovery needs nobody.
"""

import asyncio
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from threading import Event, Lock, Thread
from typing import Final, Literal

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pilothouse.kit.journal import folder as files
from pilothouse.kit.journal.frames import (
    MOST_FRAMING_BYTES,
    binding,
    encode_frame,
    encode_header,
    framed_bytes,
)
from pilothouse.kit.retry import Backoff
from pilothouse.kit.seal import NONCE_BYTES, new_key

_RETRY = Backoff(first_s=0.1, ceiling_s=5.0)
_IDLE_S = 60.0
_NONCES: Final = 256
_NONCE_BYTES: Final = NONCE_BYTES
_MOST_PARTS: Final = 1000
"""In one system call, which takes 1024 (Linux, `IOV_MAX`)."""


class JournalFull(Exception):
    """The record was not kept: no room, or the disk failed. The message says which."""


class _Segment:
    """An open, locked, preallocated file and the place of the next frame."""

    __slots__ = ("aead", "at", "binding", "end", "fd", "path")

    def __init__(self, fd: int, path: Path, *, key: bytes, shared: bytes, at: int, end: int) -> None:
        self.fd, self.path, self.at, self.end = fd, path, at, end
        self.aead = AESGCM(key)
        self.binding = shared


class JournalWriter:
    """
    The one writer of its segments. Used from one thread, not across a fork.

    Args:
        folder: Where segments lie; made when absent.
        writer: Part of the file names; one living writer a name.
        segment_bytes: Size of a segment; two are on disk at least.
        wrap: Wraps a segment's 32-byte key for its header. Called from another
            thread too.
        sync: "process" survives a killed process. "power" survives power loss as
            well, once `durable` has returned.
    """

    def __init__(
        self,
        folder: Path,
        *,
        writer: str,
        segment_bytes: int,
        wrap: Callable[[bytes], bytes],
        sync: Literal["process", "power"] = "process",
    ) -> None:
        self._folder = folder
        self._writer = files.check_writer(writer)
        self._segment_bytes = segment_bytes
        self._wrap = wrap
        self._power = sync == "power"
        self._seq = 0
        self._nonces: list[bytes] = []
        self._current: _Segment | None = None
        self._spare: _Segment | None = None
        self._retired: list[_Segment] = []
        self._retiring = Lock()
        self._wanted = Event()
        self._stop = Event()
        self._spare_maker = Thread(target=self._keep_a_spare, name=f"journal-{writer}", daemon=True)
        self._appended = self._synced = 0
        self._group: asyncio.Task[OSError | None] | None = None
        self._failed: _Segment | None = None
        self._failed_at_close: OSError | None = None
        self.problem = ""
        """Why there is no spare segment, while there is none; for health and logs."""

    def open(self) -> None:
        """
        Make both segments. A full disk is no error here: `has_room` says so, and it is tried again.

        Raises:
            OSError: The folder cannot be written at all.
            ValueError: A segment of this size holds nothing.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.remove_leftovers(self._folder)
        # Names are never used twice, also not by a writer of the same name in a later life:
        # a reader remembers how far it came by the name.
        self._seq = time.time_ns()
        try:
            self._current = self._allocate()
            self._spare = self._allocate()
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                self.close()
                raise
            self._note(exc)
        self._spare_maker.start()

    def append(self, *payloads: bytes | bytearray) -> None:
        """
        Write a frame for each payload, all with one system call where a segment holds them.

        When this returns, a kill of the process no longer loses any.

        Raises:
            JournalFull: Not all were written.
        """
        segment = self._current
        at = start = segment.at if segment is not None else 0
        frames: list[bytes] = []
        """Parts of frames, in their order."""
        nonces = self._nonces
        for payload in payloads:
            size = framed_bytes(len(payload))
            if segment is None or at + size > segment.end:
                if segment is not None:
                    self._write(segment, frames, start)
                segment = self._rotate(size)
                at = start = segment.at
                frames = []
            if not nonces:
                nonces = self._draw_nonces()
            nonce = nonces.pop()
            body = segment.aead.encrypt(nonce, payload, segment.binding + at.to_bytes(8, "little"))
            frames += encode_frame(nonce, body, size)
            at += size
        if segment is not None:
            self._write(segment, frames, start)
        self._appended += len(payloads)

    def _write(self, segment: _Segment, frames: list[bytes], start: int) -> None:
        if len(frames) > _MOST_PARTS:
            frames = [b"".join(frames)]
        try:
            written = os.pwritev(segment.fd, frames, start)
        except OSError as exc:
            self._retire_current()
            raise JournalFull(f"the journal's disk failed: {exc.strerror}") from exc
        size = sum([len(part) for part in frames])
        if written != size:
            self._retire_current()
            raise JournalFull(f"the journal's disk took {written} of {size} bytes")
        segment.at = start + written

    def has_room(self, size_bytes: int) -> bool:
        """Whether a payload of that length would be kept now. Looks at memory only."""
        current = self._current
        if current is not None and current.at + size_bytes + MOST_FRAMING_BYTES <= current.end:
            return True
        size = framed_bytes(size_bytes)
        return any(one is not None and one.at + size <= one.end for one in (current, self._spare))

    async def durable(self) -> None:
        """
        Return when everything appended so far survives what `sync` promises.

        Waiters share one fdatasync. Cancelling one leaves the others alone.

        Raises:
            JournalFull: The disk refused; what was appended may be lost at power loss.
        """
        if not self._power:
            return
        target = self._appended
        while self._synced < target:
            if self._group is None or self._group.done():
                self._group = asyncio.ensure_future(asyncio.to_thread(self._sync))
            failed = await asyncio.shield(self._group)
            if failed is not None:
                if self._current is self._failed:
                    self._retire_current()
                raise JournalFull(f"the journal's disk failed to sync: {failed.strerror}") from failed

    def close(self) -> None:
        """Let go of the segments, synced when `sync` is "power"; a reader finds them finished."""
        self._stop.set()
        self._wanted.set()
        if self._spare_maker.is_alive():
            self._spare_maker.join(timeout=10.0)
        self._retired += [segment for segment in (self._current, self._spare) if segment is not None]
        self._current = self._spare = None
        self._close_retired()

    def _draw_nonces(self) -> list[bytes]:
        """Random nonces, drawn many at a time: one system call each would be a tenth of an append."""
        drawn = os.urandom(_NONCE_BYTES * _NONCES)
        self._nonces = [drawn[at : at + _NONCE_BYTES] for at in range(0, len(drawn), _NONCE_BYTES)]
        return self._nonces

    def _rotate(self, size: int) -> _Segment:
        spare = self._spare
        if spare is None or spare.at + size > spare.end:
            self._wanted.set()
            raise JournalFull(self.problem or f"no journal segment has room for {size} bytes")
        # The old one goes to the retired list first: `_sync` looks at the current one, then there.
        if self._current is not None:
            self._retired.append(self._current)
        self._current, self._spare = spare, None
        self._wanted.set()
        return spare

    def _retire_current(self) -> None:
        """
        Write nothing more into a segment whose disk failed.

        After a failed write its tail is unknown, and after a failed sync the
        kernel may have dropped pages that a second sync would call clean.
        """
        if self._current is not None:
            self._retired.append(self._current)
            self._current = None
            self._wanted.set()

    def _sync(self) -> OSError | None:
        """Runs in a thread. Returns the error, so that a group without waiters left warns nobody."""
        mark = self._appended
        with self._retiring:
            current = self._current
            if (failed := self._failed_at_close) is not None:
                self._failed_at_close = None
                return failed
            try:
                for segment in {*self._retired, current}:
                    if segment is not None:
                        files.sync_data(segment.fd)
            except OSError as exc:
                self._failed = current
                return exc
        self._synced = mark
        return None

    def _keep_a_spare(self) -> None:
        random, attempt = Random(), 0  # noqa: S311 - spreads retries, no secret
        while not self._stop.is_set():
            if attempt:
                self._stop.wait(_RETRY.delay_s(attempt, random))
            elif self._spare is not None:
                self._wanted.wait(_IDLE_S)
            self._wanted.clear()
            try:
                self._close_retired()
                if self._spare is None and not self._stop.is_set():
                    self._spare = self._allocate()
                attempt, self.problem = 0, ""
            # Serving is protected from a key service or a disk that fails for any reason: without
            # this thread the journal would end for good at the next full segment.
            except Exception as exc:  # noqa: BLE001
                attempt += 1
                self._note(exc)

    def _close_retired(self) -> None:
        """Closing frees the lock, which tells a reader that the segment is finished."""
        with self._retiring:
            while self._retired:
                segment = self._retired[0]
                try:
                    if self._power:
                        files.sync_data(segment.fd)
                except OSError as exc:
                    self._failed_at_close = exc
                finally:
                    self._retired.pop(0)
                    os.close(segment.fd)

    def _allocate(self) -> _Segment:
        self._seq += 1
        name = files.segment_name(self._writer, self._seq)
        key = new_key()
        header = encode_header(self._writer, self._seq, self._wrap(key))
        if len(header) + framed_bytes(0) > self._segment_bytes:
            raise ValueError(
                f"a journal segment of {self._segment_bytes} bytes holds nothing; give it 64 KiB or more"
            )
        unfinished, path = (self._folder / (name + suffix) for suffix in (files.UNFINISHED, files.SEGMENT))
        fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Locked before it has its name: a reader never sees a segment that seems abandoned.
            files.lock_for_writing(fd)
            files.preallocate(fd, self._segment_bytes)
            os.pwrite(fd, header, 0)
            if self._power:
                os.fsync(fd)
            unfinished.rename(path)
            if self._power:
                files.sync_folder(self._folder)
        except BaseException:
            os.close(fd)
            unfinished.unlink(missing_ok=True)
            raise
        shared = binding(self._writer, self._seq)
        return _Segment(fd, path, key=key, shared=shared, at=len(header), end=self._segment_bytes)

    def _note(self, exc: Exception) -> None:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        self.problem = f"no new journal segment of {self._segment_bytes} bytes can be made: {reason}"
