"""
Requests whose fields repeat, but for the messages: only the messages are read.

An application sends the same model, the same sampling and the same tools with each
question. What the decoder took a moment ago needs no decoder where all around one
value is equal, byte for byte: what JSON means there is decided by what stands around it.
"""

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Raw, Struct

from pilothouse.domain.chat import Ability
from pilothouse.domain.errors import PilothouseError
from pilothouse.domain.generate_request import GenerateRequest, WrittenSampling

_PROBE: Final = b'[{"role":"user","content":"Whose messages are these?"}]'
_END: Final = ord("]")
"""Of messages. Where other fields follow, a shorter end of a body mostly has something else before it."""
_MOST: Final = 16
"""Surroundings that are known at once."""
_LARGEST_BYTES: Final = 64 * 1024
"""Of one."""
_PATIENCE: Final = 8
_SELDOM: Final = 64
"""So many may be learnt in vain; then only each so-manieth request that is not known is looked at closer."""


class Around:
    """What stands before and after the messages, and the request that it is with those of the probe."""

    __slots__ = ("after", "before", "is_met", "last", "request", "size")

    def __init__(self, before: bytes, after: bytes, request: GenerateRequest, last: int) -> None:
        self.before = before
        self.after = after
        self.size = len(before) + len(after)
        self.last = last
        """When it was learnt or met; counts requests."""
        self.is_met = False
        self.request = request
        request.written = WrittenSampling(request.sampling)

    def messages_of(self, body: bytes) -> bytes:
        """What stands between; whether that is messages, the decoder has to say."""
        return body[len(self.before) : len(body) - len(self.after)]

    def asking(self, prompt: bytes, said: Sequence[Struct], needs: frozenset[Ability]) -> GenerateRequest:
        """
        The request with other messages.

        Args:
            said: The same, decoded.
            needs: What these need of a model.
        """
        ask = self.request
        size = ask.prompt_bytes + len(prompt) - len(_PROBE)
        made = ask.about(Raw(prompt), size)
        made.messages = said
        if needs:
            made.needs |= needs
        return made


class SameFields:
    """
    Looks at the requests of one protocol.

    Args:
        read: Its decoder.
    """

    __slots__ = ("_count", "_known", "_left", "_read")

    def __init__(self, read: Callable[[bytes], GenerateRequest]) -> None:
        self._read = read
        self._known: list[Around] = []
        """The longest first: what ends as a longer one does may have that one's fields among its messages."""
        self._count = 0
        """Requests."""
        self._left = _PATIENCE
        """Surroundings that may still be learnt in vain."""

    def find(self, body: bytes) -> Around | None:
        self._count += 1
        size = len(body)
        for one in self._known:
            before, after = one.before, one.after
            if size <= one.size or body[size - len(after) - 1] != _END:
                continue
            if body.startswith(before) and body.endswith(after):
                one.last = self._count
                if not one.is_met:
                    one.is_met = True
                    self._left = _PATIENCE
                return one
        return None

    def learn(self, body: bytes, ask: GenerateRequest) -> None:
        """Remember what stands around the messages of a request that the decoder took for `ask`."""
        in_vain = not self._left
        if in_vain and self._count % _SELDOM:
            return
        prompt = bytes(ask.prompt)
        at = body.find(prompt)
        if at < 0 or len(body) - len(prompt) > _LARGEST_BYTES:
            return
        self._left = max(0, self._left - 1)
        before, after = body[:at], body[at + len(prompt) :]
        try:
            request = self._read(before + _PROBE + after)
        except PilothouseError:
            return
        # Whether these are the messages, and not the same somewhere else, the decoder says itself.
        if bytes(request.prompt) == _PROBE and prompt != _PROBE:
            known = [one for one in self._known if one.is_met] if in_vain else self._known
            if len(known) >= _MOST:
                known.remove(min(known, key=lambda one: one.last))
            known.append(Around(before, after, request, self._count))
            known.sort(key=lambda one: -one.size)
            self._known = known
