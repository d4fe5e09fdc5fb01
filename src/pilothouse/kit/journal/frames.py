"""
The journal's file format, as pure functions on bytes. Numbers are little-endian.

Segment `<writer>-<seq>.journal`, sealed with a key of its own:

    header: | magic 8 | length of writer 2 | length of wrapped key 2 | zero 4 | seq 8 |
            | writer | wrapped key | crc32 4 | pad |
    frame:  | mark 4 | length of body 4 | crc32 4 | nonce 12 | body: ciphertext and tag | pad |
    then zeros, to the end of the preallocated file

Everything starts at a multiple of 8, so that a frame's head never straddles a
page and a torn write always tells how long it was to be. The crc32 covers the
nonce and the tag, which is written last and whose place the length gives: it
tells a complete frame from a partial one without the key. The rest of the body
is the tag's to prove: a checksum of all of it would cost 1 us for 2 kB and tell
nothing more.
A frame's writer, sequence number and offset are bound to it, so that frames
swapped, repeated or moved do not open.
"""

import struct
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from pilothouse.kit.seal import NONCE_BYTES, TAG_BYTES

MAGIC: Final = b"sealjrn1"
MARK: Final = b"\xf5jR\x0e"
ALIGN: Final = 8
HEADER_READ_BYTES = 4096
"""Enough to hold any header."""

_HEADER: Final = struct.Struct("<8sHH4xQ")
_HEAD: Final = struct.Struct(f"<4sII{NONCE_BYTES}s")
_CRC: Final = struct.Struct("<I")

_PADDING: Final = [b"\0" * size for size in range(ALIGN)]
_pack_head: Final = _HEAD.pack
_crc32: Final = crc32

FRAME_HEAD_BYTES: Final = _HEAD.size
_TAG_BYTES: Final = TAG_BYTES
MOST_FRAMING_BYTES: Final = FRAME_HEAD_BYTES + TAG_BYTES + ALIGN - 1
"""What a frame takes beside its payload at most."""


@dataclass(frozen=True)
class Header:
    """What stands at the start of a segment. `size` is where its first frame begins."""

    writer: str
    seq: int
    wrapped_key: bytes
    size: int


def aligned(size: int) -> int:
    """The next multiple of `ALIGN`."""
    return -(-size // ALIGN) * ALIGN


def framed_bytes(payload_bytes: int) -> int:
    """Room that a payload of that length takes in a segment."""
    return (payload_bytes + MOST_FRAMING_BYTES) & -ALIGN  # rounds up, for up to ALIGN - 1 was added


def encode_header(writer: str, seq: int, wrapped_key: bytes) -> bytes:
    name = writer.encode()
    body = _HEADER.pack(MAGIC, len(name), len(wrapped_key), seq) + name + wrapped_key
    body += _CRC.pack(crc32(body))
    if len(body) > HEADER_READ_BYTES:
        raise ValueError(
            f"writer name and wrapped key take {len(body)} bytes, at most {HEADER_READ_BYTES} fit"
        )
    return body.ljust(aligned(len(body)), b"\0")


def decode_header(data: bytes) -> Header | None:
    """Read a header from the first `HEADER_READ_BYTES`; None when it is damaged or cut."""
    if len(data) < _HEADER.size:
        return None
    magic, name_bytes, key_bytes, seq = _HEADER.unpack_from(data)
    end = _HEADER.size + name_bytes + key_bytes
    if magic != MAGIC or len(data) < end + _CRC.size:
        return None
    if _CRC.unpack_from(data, end)[0] != crc32(data[:end]):
        return None
    name = data[_HEADER.size : _HEADER.size + name_bytes].decode()
    return Header(name, seq, data[_HEADER.size + name_bytes : end], aligned(end + _CRC.size))


def binding(writer: str, seq: int) -> bytes:
    """The part of the associated data that all frames of a segment share; the offset follows."""
    name = writer.encode()
    return len(name).to_bytes(2, "little") + name + seq.to_bytes(8, "little")


def encode_frame(nonce: bytes, body: bytes, size: int) -> tuple[bytes, bytes, bytes]:
    """A frame of `size` bytes in its parts, to be joined once with those of the frames beside it."""
    head = _pack_head(MARK, len(body), _crc32(nonce + body[-_TAG_BYTES:]), nonce)
    return head, body, _PADDING[size - FRAME_HEAD_BYTES - len(body)]


@dataclass(frozen=True)
class FrameHead:
    """The readable start of a frame."""

    length: int
    crc: int
    nonce: bytes

    def fits(self, tag: bytes) -> bool:
        """Whether the frame that ends in `tag` was written to its end."""
        return crc32(self.nonce + tag) == self.crc

    @property
    def framed_bytes(self) -> int:
        return aligned(FRAME_HEAD_BYTES + self.length)


def decode_head(data: bytes, *, room: int) -> FrameHead | None:
    """Read a frame's head; None when there is none, or when it claims more than `room` bytes."""
    if len(data) < FRAME_HEAD_BYTES:
        return None
    mark, length, crc, nonce = _HEAD.unpack_from(data)
    if mark != MARK or length < TAG_BYTES or FRAME_HEAD_BYTES + length > room:
        return None
    return FrameHead(length, crc, nonce)
