"""
Server-sent events: a parser that takes any chunking, and the writer's one line.

Source: the HTML Living Standard, section 9.2 (event stream interpretation). Only
the `data` and `event` fields matter here; ids and retry times are passed over.
"""

from typing import Final

_LF: Final = ord("\n")
_CR: Final = ord("\r")


class EventTooLarge(ValueError):
    """An event grew over the parser's bound."""


class EventParser:
    """
    Turns bytes, however cut, into the data of events.

    Lines end in LF, CRLF or CR; several `data` lines of an event are joined by
    LF; comments are dropped; an event that the stream's end cut is never given.
    """

    __slots__ = ("_after_cr", "_data", "_max_bytes", "_rest", "_size")

    def __init__(self, *, max_bytes: int = 4 * 1024 * 1024) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._max_bytes = max_bytes

    @property
    def is_mid_event(self) -> bool:
        """Something was received that is not a whole event yet."""
        return bool(self._rest.strip() or self._data)

    def feed(self, data: bytes) -> list[bytes]:
        """
        Return the data of every event that is now complete.

        Raises:
            EventTooLarge: An event is longer than the bound.
        """
        if not self._rest and not self._data and not self._after_cr:
            whole = _whole_events(data)
            if whole is not None:
                return whole
        return self._feed_lines(data)

    def _feed_lines(self, data: bytes) -> list[bytes]:
        if data:
            if self._after_cr and data.startswith(b"\n"):
                data = data[1:]
            self._after_cr = data.endswith(b"\r")
        buffer = self._rest + data
        if b"\r" in buffer:
            buffer = buffer.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = buffer.split(b"\n")
        self._rest = lines.pop()
        events: list[bytes] = []
        for line in lines:
            if not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                    self._data = []
                    self._size = 0
            elif line.startswith(b"data"):
                self._take_data(line)
        if len(self._rest) + self._size > self._max_bytes:
            raise EventTooLarge(f"an event is longer than {self._max_bytes} bytes")
        return events

    def _take_data(self, line: bytes) -> None:
        if line.startswith(b"data: "):
            value = line[6:]
        elif line.startswith(b"data:"):
            value = line[5:]
        elif line == b"data":
            value = b""
        else:
            return
        self._data.append(value)
        self._size += len(value)


def _whole_events(data: bytes) -> list[bytes] | None:
    """The usual case, cheaply: whole events of one `data` line each; None when it is not so."""
    # Numbers are looked for, for `in` makes an error of what is none before it looks.
    if not data.startswith(b"data: ") or not data.endswith(b"\n\n") or _CR in data:
        return None
    event = data[6:-2]
    if _LF not in event:
        return [event]
    events: list[bytes] = []
    for block in data[:-2].split(b"\n\n"):
        if not block.startswith(b"data: ") or _LF in block:
            return None
        events.append(block[6:])
    return events


def event(data: bytes) -> bytes:
    """One event whose data is a single line."""
    return b"data: " + data + b"\n\n"


DONE: Final = b"data: [DONE]\n\n"
KEEPALIVE: Final = b": keep-alive\n\n"
