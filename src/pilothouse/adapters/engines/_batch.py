"""
Answers several requests at once with one model: each step reads one token of every answer.

Runs in the engine's own environment, beside `_generator.py`. The one idea: a prompt is
read alone, a piece a step, and its memory then joins that of the others, so that
requests come and go between any two tokens.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

from ._generator import Answer, Generator, Piece, Request

Say = Callable[[Piece | None], None]
"""Takes the pieces of one answer; None is its end, whatever the reason."""


class Row:
    """One request on its way."""

    def __init__(self, request: Request, say: Say, cancelled: Callable[[], bool]) -> None:
        self.request = request
        self.say = say
        self.cancelled = cancelled
        self.answer: Answer
        self.cache: Any = None
        """Its own memory, while its prompt is read."""
        self.tokens = 0
        """That the model has read of it."""


class Batch:
    """
    The requests of one model, answered by the thread that calls `run`.

    Args:
        places: Requests answered at once.
        waiting: Most requests that wait for a place.
    """

    def __init__(self, generator: Generator, *, places: int, waiting: int) -> None:
        if places > 1 and any(type(layer) is not DynamicLayer for layer in generator.new_cache().layers):
            raise ValueError("the memory of this model cannot be shared by requests: set slots to 1")
        self._generator = generator
        self._places = places
        self._most_waiting = waiting
        self._queue: deque[Row] = deque()
        self._changed = threading.Condition()
        self._reading: Row | None = None
        self._rows: list[Row] = []
        self._shared: Any = None
        """The memory of all rows, padded on the left to the longest."""
        self._has_to_end = False

    @property
    def running(self) -> int:
        return len(self._rows) + (self._reading is not None)

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def put(self, row: Row) -> bool:
        """Whether there is room for it."""
        with self._changed:
            has_room = len(self._queue) < self._most_waiting + self._places - self.running
            if has_room:
                self._queue.append(row)
                self._changed.notify()
            return has_room

    def end(self) -> None:
        with self._changed:
            self._has_to_end = True
            self._changed.notify()

    def run(self) -> None:
        while self._wait_for_work():
            self._drop_who_left()
            self._admit()
            if self._reading is not None:
                self._read_on(self._reading)
            if self._rows:
                self._say_on()

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._has_to_end or self._queue or self.running)
            return not self._has_to_end

    def _drop_who_left(self) -> None:
        with self._changed:
            for row in [row for row in self._queue if row.cancelled()]:
                self._queue.remove(row)
                row.say(None)
        if self._reading is not None and self._reading.cancelled():
            self._reading.say(None)
            self._reading = None
        self._keep([row for row in self._rows if not row.cancelled()])

    def _admit(self) -> None:
        while self._reading is None and len(self._rows) < self._places:
            with self._changed:
                if not self._queue:
                    return
                row = self._queue.popleft()
                self._reading = row
            answer = self._generator.begin(row.request)
            if isinstance(answer, dict):
                row.say(answer)
                row.say(None)
                self._reading = None
            else:
                row.answer, row.cache = answer, self._generator.new_cache()

    def _read_on(self, row: Row) -> None:
        row.say({"text": ""})  # a server may hear of a hang-up only when it writes
        piece = row.answer.take_piece()
        logits = self._generator.read(piece, row.cache)
        row.tokens += len(piece)
        if row.answer.ahead:
            return
        self._reading = None
        _tell(row, row.answer.go_on(logits))
        if row.answer.is_over:
            return
        self._shared = row.cache if self._shared is None else _joined(self._shared, row.cache)
        row.cache = None
        self._rows.append(row)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _say_on(self) -> None:
        width = self._shared.get_seq_length()
        own = torch.tensor([row.tokens for row in self._rows])
        mask = torch.arange(width + 1)[None, :] >= (width - own)[:, None]
        logits = self._generator.model(
            input_ids=torch.tensor([row.answer.take_piece() for row in self._rows]),
            attention_mask=mask.long(),
            position_ids=own[:, None],
            past_key_values=self._shared,
            use_cache=True,
        ).logits
        for row, line in zip(self._rows, logits[:, -1], strict=True):
            row.tokens += 1
            _tell(row, row.answer.go_on(line))
        self._keep([row for row in self._rows if not row.answer.is_over])

    def _keep(self, kept: list[Row]) -> None:
        """Let the others go, with their part of the memory."""
        if len(kept) == len(self._rows):
            return
        for row in self._rows:
            if row not in kept and not row.answer.is_over:
                row.say(None)
        if kept:
            places = torch.tensor([self._rows.index(row) for row in kept])
            longest = max(row.tokens for row in kept)
            for layer in self._shared.layers:
                layer.keys = layer.keys[places, :, -longest:]
                layer.values = layer.values[places, :, -longest:]
        else:
            self._shared = None
        self._rows = kept


def _tell(row: Row, pieces: Iterable[Piece]) -> None:
    for piece in pieces:
        row.say(piece)
    if row.answer.is_over:
        row.say(None)


def _joined(one: Any, other: Any) -> Any:
    """Both caches in `one`, the shorter padded on the left; the mask hides what is padded."""
    width = max(one.get_seq_length(), other.get_seq_length())
    for mine, new in zip(one.layers, other.layers, strict=True):
        mine.keys = torch.cat([_padded(mine.keys, width), _padded(new.keys, width)])
        mine.values = torch.cat([_padded(mine.values, width), _padded(new.values, width)])
    return one


def _padded(states: Any, width: int) -> Any:
    """Of shape (rows, heads, tokens, size)."""
    return torch.nn.functional.pad(states, (0, 0, width - states.shape[-2], 0))
