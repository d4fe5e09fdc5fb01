"""
Which answers may be given again, and to what question exactly: pure decisions.

A key stands for one tenant, one policy, one version and one question. Whatever
could change the answer is part of it, so that nothing has to be found and thrown
away when something changes: old entries are never asked for again.
"""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Final

import msgspec

from pilothouse.domain.cached_answer import CachedAnswer
from pilothouse.domain.chat import Aside, Sampling
from pilothouse.domain.chunk import Delta
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.snapshot import CachePolicy, EndpointEntry, ReplicaEntry

NO_STORE: Final = b"no-store"
"""Value of `x-pilothouse-cache` that a request keeps out of every cache with."""
COMPLETE: Final = frozenset({"stop", "length", "tool_calls"})
"""How an answer ended that may be given again; a filtered or a cut one may not."""
PIECES: Final = 16
"""Events that an answer is replayed in at most: several, for a client that shows text as it comes."""
_OVERHEAD_BYTES: Final = 1024
"""Of one entry in memory: its key, its place in the order, and the structs that hold it together."""

_NO_THOUGHTS: Final = b"[]"
_encode: Final = msgspec.json.Encoder().encode


def is_complete(deltas: Iterable[Delta]) -> bool:
    """Whether every choice came to an end that the engine itself named."""
    return all(delta.finish_reason in COMPLETE for delta in deltas)


def size_bytes(answer: CachedAnswer) -> int:
    """What it will take up in memory at most, once both of its written forms were asked for."""
    size = _OVERHEAD_BYTES
    for delta in answer.deltas:
        text, logprobs, aside = delta.text, delta.logprobs, delta.aside
        # Python has up to four bytes a character, as UTF-8 has. Each text is there three times.
        size += (3 if text.isascii() else 12) * len(text) + 100 * PIECES
        if logprobs is not None:
            size += 3 * len(logprobs)
        if aside is not None:
            size += 3 * len(_encode(aside))
    return size


def is_repeatable(sampling: Sampling) -> bool:
    """Whether the same question would get the same answer anyway: at temperature 0, or by a seed."""
    return sampling.temperature == 0 or sampling.seed is not None


def is_cacheable(ask: GenerateRequest, policy: CachePolicy) -> bool:
    """
    Whether this question's answer may be given again under this policy.

    Log probabilities of plain completions are left out: those of a stream cannot
    be put together into those of a whole answer.
    """
    if ask.prompts > 1 or (
        ask.kind == "completion" and (ask.sampling.logprobs is not None or ask.with_prompt)
    ):
        return False
    return policy.always or is_repeatable(ask.sampling)


def identity_of(replicas: Iterable[ReplicaEntry]) -> str | None:
    """
    What answers behind a deployment: the model's digest, or a provider's address and model.

    None while that is not certain: no replica, or two of different models as one
    takes the other's place. Then nothing is read from a cache nor written to it.
    """
    found = {_identity(replica) for replica in replicas}
    return found.pop() if len(found) == 1 else None


def _identity(replica: ReplicaEntry) -> str:
    if replica.model_digest:
        return f"{replica.engine}\n{replica.model_digest}"
    return f"{replica.engine}\n{replica.address}\n{replica.model}"


def purge_scope(team: str, endpoint: str) -> str:
    """The name of a purge of what these have in caches; "" is all. No such name holds a line end."""
    return f"{team}\n{endpoint}"


def purge_scopes(team: str, endpoint: str) -> tuple[str, str, str, str]:
    """The names under which a purge may have been asked for that touches this team's use of this endpoint."""
    return (
        purge_scope("", ""),
        purge_scope(team, ""),
        purge_scope("", endpoint),
        purge_scope(team, endpoint),
    )


def stem_of(
    team: str, endpoint: EndpointEntry, deployment: str, identity: str, purges: Mapping[str, int]
) -> bytes:
    """
    All of a key but the question: 32 bytes that differ by tenant, policy, version and purge.

    Args:
        purges: How often each scope was purged (`purge_scopes`).
    """
    fingerprint = endpoint.cache.fingerprint if endpoint.cache is not None else ""
    epochs = [purges.get(scope, 0) for scope in purge_scopes(team, endpoint.name)]
    return sha256(_encode([team, endpoint.name, fingerprint, deployment, identity, epochs])).digest()


def head_of(stem: bytes, ask: GenerateRequest, sampling: bytes) -> bytes:
    """
    What is in the exact key beside the prompt: it tells itself where it ends, and is short.

    How the answer is handed over (`stream`, `stream_options`) and who asks (`user`) is no part of it.

    Args:
        sampling: JSON of that of the request, in its canonical form.
    """
    thoughts = ask.thoughts
    # `{` begins the sampling and no number, so no two questions give the same bytes.
    return b"%s%s %d %d%s%s" % (
        stem,
        ask.kind.encode(),
        ask.max_tokens or 0,
        ask.choices,
        sampling,
        _encode(thoughts) if thoughts else _NO_THOUGHTS,
    )


def scene_of(head: bytes, rest: bytes, embedder: str) -> bytes:
    """
    All that must be equal for questions to be compared at all: a key without the question.

    Args:
        rest: The canonical prompt but for the question.
        embedder: What makes the vectors: those of two models have nothing in common.
    """
    return sha256(b"scene%s%s\0%s" % (head, embedder.encode(), rest)).digest()


def pieces_of(text: str) -> list[str]:
    """The text in several parts for a stream, in order, none of them empty."""
    if not text:
        return []
    step = max(8, -(-len(text) // PIECES))
    return [text[i : i + step] for i in range(0, len(text), step)]


def steps_of(deltas: Iterable[Delta]) -> Iterator[Delta]:
    """
    A whole answer as the steps of a stream.

    Log probabilities belong to tokens, whose borders are not known any more: a
    choice that has them is one step.
    """
    for delta in deltas:
        before, after = (None, None) if delta.aside is None else _around(delta.aside)
        if before is not None:
            yield Delta("", delta.index, None, None, before)
        if delta.logprobs is not None:
            yield Delta(delta.text, delta.index, None, delta.logprobs)
        else:
            for piece in pieces_of(delta.text):
                yield Delta(piece, delta.index)
        if after is not None:
            yield Delta("", delta.index, None, None, after)
        yield Delta("", delta.index, delta.finish_reason or "stop")


def _around(aside: Aside) -> tuple[Aside | None, Aside | None]:
    """What is said before the text, and what behind it: calls, and thoughts that were had after it began."""
    early = tuple([thought for i, thought in enumerate(aside.thoughts) if thought.block == i])
    late = aside.thoughts[len(early) :]
    if not aside.tools and not late:
        return aside, None
    is_thought_late = any(one.text for one in late) and not any(one.text for one in early)
    first, then = ("", aside.reasoning) if is_thought_late else (aside.reasoning, "")
    before = Aside(first, aside.refusal, (), early)
    return before if before != Aside() else None, Aside(then, "", aside.tools, late)
