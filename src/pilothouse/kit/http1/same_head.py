"""
The head that a connection's messages share, but for the length of their bodies.

Who keeps a connection sends nearly the same head each time, and the one that the
parser took a moment ago needs no parser: equal bytes mean the same. What differs in
more than the digits of its length goes through the parser, as does what comes in
parts, or with something behind it.
"""

from typing import Final

_FIELD: Final = b"\r\ncontent-length: "
_LENGTH: Final = b"\r\ncontent-length"
_CODING: Final = b"\r\ntransfer-encoding"
_EMPTY_LINE: Final = b"\r\n\r\n"
_DIGITS: Final = 9
"""Of a length, at most."""
_PATIENCE: Final = 8
"""So many heads that were never met again, and no more are remembered."""


class SameHead:
    """Looks at whole messages: a head with a length, a body of that length, and no more."""

    __slots__ = ("_after", "_before", "_in_vain", "length")

    def __init__(self) -> None:
        self._before = b""
        self._after = b""
        self._in_vain = 0
        """Heads since one was met again; somebody whose every head differs is not looked at any more."""
        self.length = b""
        """The digits of the body's length in the message that was looked at last."""

    def learn(self, data: bytes, body_bytes: int) -> bool:
        """
        Remember the head of a message; whether it is one that can be met again.

        Args:
            data: What began with the message, as the parser took it.
        """
        self._before = b""
        if self._in_vain >= _PATIENCE:
            return False
        self._in_vain += 1
        head = data[: len(data) - body_bytes]
        # It ends with its first empty line, and no line ends otherwise: what stands before is all of it.
        if data.find(_EMPTY_LINE) + len(_EMPTY_LINE) != len(head) or head.count(b"\n") != head.count(b"\r\n"):
            return False
        plain = head.lower()
        at = plain.find(_FIELD)
        # Two lengths, or a coding beside one, are the parser's to judge each time.
        if at < 0 or plain.count(_LENGTH) > 1 or _CODING in plain:
            return False
        start = at + len(_FIELD)
        end = plain.find(b"\r", start)
        if not head[start:end].isdigit() or int(head[start:end]) != body_bytes:
            return False
        self._before, self._after = head[:start], head[end:]
        self.length = head[start:end]
        return True

    def body_of(self, data: bytes) -> bytes | None:
        """The body of a message with the head that was learnt; None where the parser has to see it."""
        before, after = self._before, self._after
        if not before or not data.startswith(before):
            return None
        start = len(before)
        end = data.find(b"\r", start, start + _DIGITS + 1)
        if end < 0:
            return None
        digits = data[start:end]
        if not digits.isdigit() or not data.startswith(after, end):
            return None
        begin = end + len(after)
        if len(data) - begin != int(digits):
            return None
        self._in_vain = 0
        self.length = digits
        return data[begin:]
