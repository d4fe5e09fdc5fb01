"""
A process's own output in two files of bounded size.

`capture` points the output of this process (file descriptors 1 and 2, so that
native code is caught too) at a file, and a thread moves to a fresh file when
that grew too large. Nothing stands in between: a line that was written is in
the file, however the process ends, and nobody who could be slow reads a pipe.

Only the standard library is imported: a child that needs this starts fast.
"""

import os
import threading
from io import BufferedReader
from pathlib import Path

MAX_BYTES = 1024 * 1024
"""Of one file; there are two."""
LOOK_S = 0.25
"""How often the size is looked at: what is written in between is how far a file may grow too large."""
MAX_LINE_CHARS = 4096


class RingLog:
    """
    The output of this process, written to `path` and before that to `<path>.1`.

    A crash between any two steps of a rotation leaves both files readable; the
    next start goes on with them.
    """

    def __init__(self, path: Path, *, fds: tuple[int, ...] = (1, 2), max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._fds = fds
        self._max_bytes = max_bytes

    def attach(self) -> None:
        """Point the descriptors at the file, appending."""
        fresh = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            for fd in self._fds:
                os.dup2(fresh, fd)
        finally:
            os.close(fresh)

    def rotate_when_large(self) -> bool:
        """Move on to a fresh file when this one is full; say whether that was so."""
        if os.fstat(self._fds[0]).st_size < self._max_bytes:
            return False
        try:
            if self._path.exists():  # not so after a rotation that was cut in the middle
                self._path.replace(older_part(self._path))
            self.attach()
        except OSError:  # a full disk, or a folder that is gone: going on in the old file loses least
            return False
        return True

    def watch(self, stop: threading.Event) -> None:
        """Rotate as needed until `stop` is set."""
        while not stop.wait(LOOK_S):
            self.rotate_when_large()


def capture(path: Path, *, max_bytes: int = MAX_BYTES) -> threading.Event:
    """
    Have all output of this process in `path` from now on; a daemon thread keeps it bounded.

    Returns:
        Set it to end the thread; the output still goes to the file.
    """
    log = RingLog(path, max_bytes=max_bytes)
    log.attach()
    stop = threading.Event()
    threading.Thread(target=log.watch, args=(stop,), name="ringlog", daemon=True).start()
    return stop


def older_part(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def remove(path: Path) -> None:
    """Delete both files, where they exist."""
    path.unlink(missing_ok=True)
    older_part(path).unlink(missing_ok=True)


def tail(path: Path, lines: int, *, max_bytes: int = 2 * MAX_BYTES) -> list[str]:
    """
    The newest lines, oldest first; none when there is no log.

    Control characters are replaced, for whoever prints a log must not have the
    terminal told what to do by it; endless lines are cut.
    """
    if lines <= 0:
        return []
    data = _read(path, max_bytes)
    text = data.decode(errors="replace").replace("\r\n", "\n")
    found = text.split("\n")
    if found and not found[-1]:
        found.pop()
    return [_printable(line) for line in found[-lines:]]


def _read(path: Path, max_bytes: int) -> bytes:
    """Both parts, newest bytes at the end. The writer may rotate in the very moment."""
    # The newer part first: if it becomes the older one in between, the same file
    # is opened twice, which shows, instead of a part being missed, which does not.
    newer, older = _open(path), _open(older_part(path))
    try:
        data = b""
        if older is not None and not (newer is not None and _is_same(newer, older)):
            data = _end_of(older, max_bytes)
        if newer is not None:
            data += _end_of(newer, max_bytes)
    finally:
        for file in (newer, older):
            if file is not None:
                file.close()
    return data[-max_bytes:]


def _open(path: Path) -> BufferedReader | None:
    try:
        return path.open("rb")
    except OSError:
        return None


def _is_same(one: BufferedReader, other: BufferedReader) -> bool:
    return os.path.samestat(os.fstat(one.fileno()), os.fstat(other.fileno()))


def _end_of(file: BufferedReader, max_bytes: int) -> bytes:
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - max_bytes))
    return file.read(max_bytes)


def _printable(line: str) -> str:
    cut = line[:MAX_LINE_CHARS]
    if cut.isprintable():
        return cut
    return "".join([char if char.isprintable() or char == "\t" else "\ufffd" for char in cut])
