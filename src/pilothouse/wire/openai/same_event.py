"""
The event that the steps of one stream share, but for their text.

An engine says the same again with each token: an id, a model, a time, an index. What
the decoder took a moment ago needs no decoder where all but one string is equal, byte
for byte: what a string means in JSON is decided by what stands around it.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from pilothouse.domain.chunk import Chunk, Delta

_encode: Final = msgspec.json.Encoder().encode
_decode_text: Final = msgspec.json.Decoder(str).decode
_FIELDS: Final = (b'"content":', b'"text":')
"""Of a chat's step, and of a plain completion's."""
_PROBE: Final = "Whose text is this?"
_PATIENCE: Final = 8
"""So many events that were never met again, and no more are remembered."""


class SameEvent:
    """
    Looks at the events of one stream.

    Args:
        read: The decoder.
    """

    __slots__ = ("_after", "_before", "_chunk", "_data", "_in_vain", "_index", "_read")

    def __init__(self, read: Callable[[bytes], Chunk]) -> None:
        self._read = read
        self._before = b""
        self._after = b""
        self._index = 0
        self._data = b""
        self._chunk: Chunk | None = None
        """What the decoder took the last event for, and there is still to learn from it."""
        self._in_vain = 0
        """Events since one was met again; a stream whose every event differs is not looked at any more."""

    def chunk_of(self, data: bytes) -> Chunk | None:
        """
        What an event says that was learnt but for its text, of which it has some.

        None: the decoder has to see it.
        """
        if self._chunk is not None:
            self._learn(self._data, self._chunk)
            self._chunk = None
        before, after = self._before, self._after
        if not before or not data.startswith(before) or not data.endswith(after):
            return None
        try:
            text: str = _decode_text(data[len(before) : len(data) - len(after)])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        if not text:
            return None
        self._in_vain = 0
        return Chunk((Delta(text, self._index),))

    def remember(self, data: bytes, chunk: Chunk) -> None:
        """
        An event that the decoder took for `chunk`.

        It is learnt from when the next one is here: the first token of a stream does not wait for that.
        """
        self._data, self._chunk = data, chunk

    def _learn(self, data: bytes, chunk: Chunk) -> None:
        """Of an event that says a text and nothing else."""
        self._before = b""
        delta = chunk.deltas[0] if len(chunk.deltas) == 1 else None
        if self._in_vain >= _PATIENCE or delta is None or not delta.text:
            return
        said = _encode(delta.text)
        for field in _FIELDS:
            at = data.find(field + said)
            if at < 0:
                continue
            before, after = data[: at + len(field)], data[at + len(field) + len(said) :]
            # Whether it is this string that the decoder takes for the text, it says itself.
            probe = Chunk((Delta(_PROBE, delta.index),))
            if self._read(before + _encode(_PROBE) + after) == probe:
                self._before, self._after, self._index = before, after, delta.index
                self._in_vain += 1
            return
