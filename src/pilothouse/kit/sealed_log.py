"""
A file of sealed pieces, appended one after the other.

    | length 4 bytes | nonce 12 bytes | ciphertext and tag | ...

Each piece is bound to the file's name and to its place in it: none can be left
out, moved or exchanged unseen. A piece that a killed process wrote in part is
cut off when the file is opened again, so that a piece is there whole or not.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pilothouse.kit.seal import NONCE_BYTES, TAG_BYTES, SealBroken, bind

PIECE_BYTES = 64 * 1024
"""A good size for pieces of what is one stream."""
_LENGTH = 4
_LARGEST = 256 * 1024 * 1024


class SealedLog:
    """
    Args:
        name: What the pieces are bound to.
        key: 32 bytes, of this file alone.
    """

    def __init__(self, path: Path, name: str, key: bytes) -> None:
        self.path = path
        self.plain_bytes = 0
        """Bytes in all pieces, once `open` was called."""
        self._name = name
        self._aead = AESGCM(key)
        self._fd = -1
        self._pieces = 0

    def open(self) -> None:
        """For appending: made where it is not there, and without a torn end."""
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        end, self._pieces, self.plain_bytes = 0, 0, 0
        for size in self._sizes(os.fstat(self._fd).st_size):
            end += _LENGTH + size
            self._pieces += 1
            self.plain_bytes += size - NONCE_BYTES - TAG_BYTES
        os.ftruncate(self._fd, end)
        os.lseek(self._fd, end, os.SEEK_SET)

    def append(self, piece: bytes) -> None:
        """
        Raises:
            OSError: It was not written; what was of it is cut off.
        """
        nonce = os.urandom(NONCE_BYTES)
        body = nonce + self._aead.encrypt(nonce, piece, self._place(self._pieces))
        data = len(body).to_bytes(_LENGTH, "big") + body
        begin = os.lseek(self._fd, 0, os.SEEK_CUR)
        try:
            written = 0
            while written < len(data):
                written += os.write(self._fd, memoryview(data)[written:])
        except OSError:
            os.ftruncate(self._fd, begin)
            os.lseek(self._fd, begin, os.SEEK_SET)
            raise
        self._pieces += 1
        self.plain_bytes += len(piece)

    def sync(self) -> None:
        """Wait until all of it is on the disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def pieces(self) -> Iterator[bytes]:
        """
        All pieces, read as they are taken.

        Raises:
            SealBroken: Altered, or under another key.
            FileNotFoundError: It was removed.
        """
        with self.path.open("rb") as file:
            place = 0
            while len(head := file.read(_LENGTH)) == _LENGTH:
                body = file.read(int.from_bytes(head, "big"))
                if len(body) < int.from_bytes(head, "big"):
                    return
                try:
                    yield self._aead.decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], self._place(place))
                except InvalidTag as exc:
                    raise SealBroken(f"{self.path.name} was altered at piece {place}") from exc
                place += 1

    def lines(self) -> Iterator[bytes]:
        """The pieces as one text, by its lines, without their ends."""
        rest = b""
        for piece in self.pieces():
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
        if rest:
            yield rest

    def _place(self, number: int) -> bytes:
        return bind("sealed-log", self._name, number)

    def _sizes(self, file_bytes: int) -> Iterator[int]:
        at = 0
        while at + _LENGTH <= file_bytes:
            size = int.from_bytes(os.pread(self._fd, _LENGTH, at), "big")
            at += _LENGTH + size
            if at > file_bytes or not NONCE_BYTES + TAG_BYTES <= size <= _LARGEST:
                return
            yield size
