"""
What is asked of a model that makes text. Every request is one and each stage reads it, so it is compiled.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct

from pilothouse.domain.chat import Ability, Remembered, Sampling

_PLAIN: Final = Sampling()
_NONE: Final[frozenset[Ability]] = frozenset()
_encode: Final = msgspec.json.Encoder().encode


class WrittenSampling:
    """One in JSON, for all requests that share it."""

    __slots__ = ("canonical", "json", "sampling")

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.json = _encode(sampling)
        self.canonical = b""
        """In its canonical form, once a cache asked for that (`wire.openai.canonical`)."""


class GenerateRequest:
    """
    A valid request for generated text. Who makes one fills it; then nobody changes it, for others hold it.

    `prompt` is the JSON of the messages (chat), or of the prompt (completion): a
    string, or a list of the model's token ids: bytes that are carried, not taken apart. Whatever protocol a
    request came in, its messages are in the OpenAI dialect's shape
    (`wire.openai.messages`). `prompt_bytes` bounds the prompt's tokens from above,
    tools included, for no token is shorter than a byte.
    """

    stream = False
    include_usage = False
    max_tokens: int | None = None
    choices = 1
    """Answers, to all prompts together."""
    sampling: Sampling = _PLAIN
    subject: str | None = None
    needs: frozenset[Ability] = _NONE
    """What not every engine can, and this request cannot do without."""
    store: bool | None = None
    """Whether prompt and answer may be kept; None is as the endpoint says."""
    hide_reasoning = False
    """The caller is not shown what the model thinks, in a protocol where that is asked for."""
    prompts = 1
    """Of a completion: with more than one, `prompt` is their list, and `choices` are shared out evenly."""
    with_prompt = False
    """The answer begins with the prompt, and so do its log probabilities."""
    messages: Sequence[Struct] | None = None
    """
    `prompt` taken apart, where the codec that read it keeps that (`wire.openai.messages.of`); never changed.

    Whoever puts another prompt in its place puts None here: answers are remembered by it.
    """
    thoughts: tuple[Remembered, ...] = ()
    """Beside `prompt`, in whose shape they have no place: for the provider that gave them, and no other."""
    repeated = b""
    """What its answer says again of it, where the protocol does that: the end of a JSON object."""
    written: WrittenSampling | None = None
    """Where other requests have the same sampling, and it was written before."""

    def __init__(
        self, kind: Literal["chat", "completion"], endpoint: str, prompt: Raw, prompt_bytes: int
    ) -> None:
        self.kind: Literal["chat", "completion"] = kind
        self.endpoint = endpoint
        self.prompt = prompt
        self.prompt_bytes = prompt_bytes

    @property
    def sampling_json(self) -> bytes:
        written = self.written
        if written is not None and written.sampling is self.sampling:
            return written.json
        return _encode(self.sampling)

    def about(self, prompt: Raw, prompt_bytes: int) -> "GenerateRequest":
        """The same with another prompt; what goes with that is still to be filled in."""
        made = GenerateRequest(self.kind, self.endpoint, prompt, prompt_bytes)
        made.stream = self.stream
        made.include_usage = self.include_usage
        made.max_tokens = self.max_tokens
        made.choices = self.choices
        made.sampling = self.sampling
        made.subject = self.subject
        made.needs = self.needs
        made.store = self.store
        made.hide_reasoning = self.hide_reasoning
        made.prompts = self.prompts
        made.with_prompt = self.with_prompt
        made.thoughts = self.thoughts
        made.repeated = self.repeated
        made.written = self.written
        return made

    def changed(self, **fields: Any) -> "GenerateRequest":
        """The same with other values of these fields, as `dataclasses.replace` gives it."""
        made = self.about(self.prompt, self.prompt_bytes)
        made.messages = self.messages
        for name, value in fields.items():
            if not hasattr(made, name):
                raise TypeError(f"a request has no field {name}")
            setattr(made, name, value)
        return made

    def within(self, max_tokens: int) -> "GenerateRequest":
        """The same with another bound on new tokens."""
        made = self.about(self.prompt, self.prompt_bytes)
        made.messages = self.messages
        made.max_tokens = max_tokens
        return made

    def _values(self) -> tuple[object, ...]:
        return (
            self.kind, self.endpoint, self.prompt, self.prompt_bytes, self.stream, self.include_usage,
            self.max_tokens, self.choices, self.sampling, self.subject, self.needs, self.store,
            self.hide_reasoning, self.prompts, self.with_prompt, self.messages, self.thoughts, self.repeated,
        )  # fmt: skip

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GenerateRequest) and self._values() == other._values()

    def __repr__(self) -> str:
        return f"GenerateRequest{self._values()}"

    __hash__ = None  # type: ignore[assignment]
