"""
A file that is not whole yet: `<name>.part`, and a note of what it is part of.

The one idea: a partial file is only continued when the server (by its strong
ETag) or the expected digest proves that the two halves belong together.
"""

from http.client import HTTPResponse
from pathlib import Path

import msgspec
from msgspec import Struct

from pilothouse.adapters.sources._disk import disk_failure, is_full
from pilothouse.kit.digest import digest_of, open_regular


class _Note(Struct, frozen=True):
    """No address stands here: it may carry a token."""

    etag: str = ""
    total_bytes: int = 0


class Partial:
    """The part of `target` that is here. `what` names it in messages."""

    def __init__(self, target: Path, *, what: str) -> None:
        self.folder = target.parent
        self._target = target
        self._part = target.with_name(target.name + ".part")
        self._note = target.with_name(target.name + ".part.json")
        self._what = what

    @property
    def size_bytes(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def etag(self) -> str:
        """The strong ETag that the part was received under, if any."""
        try:
            return msgspec.json.decode(self._note.read_bytes(), type=_Note).etag
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return ""

    def begin(self, response: HTTPResponse) -> None:
        """Start anew, and note what is being received."""
        self.discard()
        etag = response.getheader("ETag") or ""
        note = _Note(etag="" if etag.startswith("W/") else etag)
        try:
            self._note.write_bytes(msgspec.json.encode(note))
            self._part.touch()
        except OSError as exc:
            raise disk_failure(self._what, exc) from exc

    def append(self, chunk: bytes) -> None:
        """
        Raises:
            OperationFailed: The disk failed. When it is full the part is given up, to free it.
        """
        try:
            with self._part.open("ab", buffering=0) as file:
                file.write(chunk)
        except OSError as exc:
            if is_full(exc):
                self.discard()
            raise disk_failure(self._what, exc) from exc

    def digest(self) -> str:
        with open_regular(self._part) as file:
            return digest_of(file)

    def finish(self) -> None:
        self._part.replace(self._target)
        self._note.unlink(missing_ok=True)

    def discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
