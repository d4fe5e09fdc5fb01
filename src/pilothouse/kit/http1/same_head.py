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

    __slots__ = ("_after", "_before", "_bytes", "_head", "_in_vain", "length")

    def __init__(self) -> None:
        self._before = b""
        self._after = b""
        self._in_vain = 0
        """Heads since one was met again; somebody whose every head differs is not looked at any more."""
        self._bytes = 0
        self._head = b""
        """What a whole message of `_bytes` begins with, if its head is the one that was learnt."""
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
        if head[start:end] != b"%d" % body_bytes:
            return False
        self._before, self._after = head[:start], head[end:]
        self.length = head[start:end]
        self._bytes, self._head = len(data), head
        return True

    def body_of(self, data: bytes) -> bytes | None:
        """The body of a message with the head that was learnt; None where the parser has to see it."""
        if not self._before or not (len(data) == self._bytes or self._expect(len(data))):
            return None
        head = self._head
        if not data.startswith(head):
            return None
        self._in_vain = 0
        return data[len(head) :]

    def _expect(self, size: int) -> bool:
        """Only one length, in its shortest form, makes a whole message of so many bytes."""
        rest = size - len(self._before) - len(self._after)
        for digits in range(1, _DIGITS + 1):
            length = b"%d" % (rest - digits)
            if len(length) == digits:
                self._bytes, self.length = size, length
                self._head = self._before + length + self._after
                return True
        return False
