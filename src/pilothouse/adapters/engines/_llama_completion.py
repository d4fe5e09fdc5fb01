"""
What llama.cpp's server does not do for completions by itself: `echo`, and the form of log probabilities.

A prompt is scored by having the model say it: a grammar of token ids leaves it no
other choice, and the probabilities are those that it gives before the grammar is
asked. That takes as long as it takes to say the prompt.

Source: llama.cpp, `grammars/README.md`, "Tokens"; `tools/server/README.md`, `post_sampling_probs`.
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct

from pilothouse.domain.chat import Sampling
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import InvalidRequest, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.ports.engine import Chunks, Placement
from pilothouse.wire.openai import logprobs
from pilothouse.wire.openai.logprobs import Lists, Token

_encode = msgspec.json.Encoder().encode
Stream = Callable[[GenerateRequest, Placement, float], Chunks]
"""Asks the engine as it is: the request, the place, and the seconds there are."""


class Aside(Protocol):
    """Asks the engine what is no question for an answer."""

    def __call__(self, path: str, body: bytes, shape: type[Any], *, deadline_s: float) -> Awaitable[Any]: ...


class _WordForWord(Sampling, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """Of a request whose answer is given."""

    grammar: str


class _Ids(Struct):
    tokens: list[int]


class _Text(Struct):
    content: str


class Completion:
    """
    One answer to a completion.

    Args:
        stream, aside: The engine.
        deadline_s: Seconds from now until all of it must be there.
    """

    def __init__(self, request: GenerateRequest, stream: Stream, aside: Aside, deadline_s: float) -> None:
        self._request = request
        self._stream = stream
        self._aside = aside
        self._until = time.monotonic() + deadline_s
        self._offset = 0

    async def chunks(self, placement: Placement) -> AsyncGenerator[Chunk, None]:
        request = self._request
        read = Usage()
        if request.with_prompt:
            said, read = await self._prompt(placement)
            yield Chunk((said,))
            placement = Placement(placement.slot, reuse_prefix=True)
        if request.max_tokens == 0:
            yield Chunk((Delta("", 0, "length"),), Usage(read.input, 0, read.cached))
            return
        async with aclosing(self._stream(self._asked(request), placement, self._left_s)) as stream:
            async for chunk in stream:
                yield Chunk(tuple([self._formed(delta) for delta in chunk.deltas]), chunk.usage)

    @property
    def _left_s(self) -> float:
        return max(0.001, self._until - time.monotonic())

    @property
    def _top(self) -> int | None:
        return None if self._request.sampling.logprobs is None else int(self._request.sampling.logprobs)

    def _asked(self, request: GenerateRequest) -> GenerateRequest:
        """With at least one likeliest token, for without it there are no probabilities."""
        if not self._top and self._top is not None:
            sampling = msgspec.structs.replace(request.sampling, logprobs=1)
            return request.changed(sampling=sampling)
        return request

    def _formed(self, delta: Delta) -> Delta:
        if delta.logprobs is None or self._top is None:
            return delta
        formed, self._offset = logprobs.lists_of(
            logprobs.read_steps(delta.logprobs), top=self._top, offset=self._offset
        )
        return Delta(delta.text, delta.index, delta.finish_reason, formed, delta.aside)

    async def _prompt(self, placement: Placement) -> tuple[Delta, Usage]:
        """The prompt as the beginning of the answer, with its log probabilities where they are wanted."""
        try:
            return await self._prompt_scored(placement)
        except UpstreamError as exc:
            raise InvalidRequest(
                "echo: the engine could not take this prompt apart; it must hold the model's own token ids, "
                "and for logprobs none that ends a text behind the first",
                param="prompt",
            ) from exc

    async def _prompt_scored(self, placement: Placement) -> tuple[Delta, Usage]:
        prompt = msgspec.json.decode(self._request.prompt, type=str | list[int])
        text = prompt if isinstance(prompt, str) else await self._text_of(prompt)
        if self._top is None:
            self._offset = len(text)
            return Delta(text), Usage()
        ids = await self._ids_of(prompt) if isinstance(prompt, str) else prompt
        first = Token(await self._text_of(ids[:1]), 0.0)
        steps, usage = await self._scored(ids, placement)
        formed, self._offset = logprobs.lists_of([first, *steps], top=self._top, offset=0)
        lists = msgspec.json.decode(formed, type=Lists)
        lists.token_logprobs[0] = None
        if lists.top_logprobs is not None:
            lists.top_logprobs[0] = None
        return Delta(text, logprobs=Raw(_encode(lists))), usage

    async def _ids_of(self, text: str) -> list[int]:
        body = _encode({"content": text, "add_special": True, "parse_special": True})
        found: _Ids = await self._aside("/tokenize", body, _Ids, deadline_s=self._left_s)
        return found.tokens

    async def _text_of(self, ids: list[int]) -> str:
        found: _Text = await self._aside(
            "/detokenize", _encode({"tokens": ids}), _Text, deadline_s=self._left_s
        )
        return found.content

    async def _scored(self, ids: list[int], placement: Placement) -> tuple[list[Token], Usage]:
        """All but the first, which nothing stands before."""
        rest = ids[1:]
        if not rest:
            return [], Usage(len(ids))
        request = GenerateRequest(
            "completion", self._request.endpoint, Raw(_encode(ids[:1])), len(ids)
        ).changed(
            max_tokens=len(rest),
            sampling=_WordForWord(
                temperature=0.0,
                logprobs=max(1, self._top or 0),
                grammar="root ::= " + " ".join(f"<[{one}]>" for one in rest),
            ),
        )
        steps: list[Token] = []
        async with aclosing(self._stream(request, placement, self._left_s)) as stream:
            async for chunk in stream:
                for delta in chunk.deltas:
                    if delta.logprobs is not None:
                        steps.extend(logprobs.read_steps(delta.logprobs))
        if len(steps) != len(rest):
            raise UpstreamError(f"the engine scored {len(steps)} tokens of {len(rest)}")
        return steps, Usage(len(ids))


def is_needed(request: GenerateRequest) -> bool:
    """Whether llama.cpp's own answer to this completion would not do."""
    return request.kind == "completion" and (request.with_prompt or request.sampling.logprobs is not None)
