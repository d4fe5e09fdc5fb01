"""From the JSON of a completion, OpenAI's older protocol, to a valid request; as `inbound` does for chats."""

from typing import Any, Final, cast

import msgspec
from msgspec import Raw

from pilothouse.domain.chat import Ability
from pilothouse.domain.errors import InvalidRequest, NotSupported
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.wire.openai.fields import read_object
from pilothouse.wire.openai.inbound import request_of, values_of
from pilothouse.wire.openai.shapes import COMPLETION_FATES, Completion, decode_completion

MOST_PROMPTS: Final = 64
"""Of one request."""
_encode: Final = msgspec.json.Encoder().encode


def read_completion(body: bytes) -> GenerateRequest:
    """As `inbound.read_chat`, for a plain prompt, or several."""
    asked = read_object(body, decode_completion, Completion, COMPLETION_FATES)
    if asked.best_of is not None and asked.best_of != (asked.n or 1):
        raise NotSupported(
            "best_of is not supported in this version; send n and choose among its answers", param="best_of"
        )
    if asked.max_tokens == 0 and not asked.echo:
        raise InvalidRequest("max_tokens of 0 needs echo to be true", param="max_tokens")
    prompts = _prompts_of(asked.prompt)
    prompt = prompts if len(prompts) > 1 else prompts[0]
    ask = request_of(
        values_of(asked), "completion", Raw(_encode(prompt)), asked.max_tokens, logprobs=asked.logprobs
    )
    needs: set[Ability] = set(ask.needs)
    if not isinstance(prompts[0], str):
        needs.add("token_ids")
    if asked.echo:
        needs.add("echo")
    ask.prompts = len(prompts)
    ask.choices *= len(prompts)
    ask.with_prompt = asked.echo or False
    ask.needs = frozenset(needs)
    return ask


def _prompts_of(prompt: str | list[str | int | list[int]]) -> list[str] | list[list[int]]:
    """One text, some texts, the token ids of one, or those of some."""
    kinds = {type(part) for part in prompt} if isinstance(prompt, list) else {str}
    if len(kinds) > 1:
        raise InvalidRequest("prompt mixes texts and token ids; send one kind", param="prompt")
    found: Any = prompt if isinstance(prompt, list) and kinds != {int} else [prompt]
    if not all(found):
        raise InvalidRequest("prompt is empty; send at least one character", param="prompt")
    if len(found) > MOST_PROMPTS:
        raise InvalidRequest(
            f"prompt holds {len(found)} prompts; send at most {MOST_PROMPTS} in one request", param="prompt"
        )
    return cast("list[str] | list[list[int]]", found)
