"""
What servers of the OpenAI dialect write when a prompt does not fit, for those that have no code for it.

The words are those of vLLM, SGLang and OpenAI itself; none of them reaches a caller, the numbers do.
"""

import re
from typing import NamedTuple

_HOLDS_FIRST = re.compile(
    r"maximum context length is (\d+) tokens\. However, your [a-z ]+ (\d+) (characters|(?:input )?tokens)"
)
_HAS_FIRST = re.compile(
    r"(?:[Ii]nput|prompt) (?:length )?\((?:length )?(\d+)(?: tokens)?\)[^()]*?(?:length|context)\D+?(\d+)"
)


class TooLong(NamedTuple):
    has: int
    unit: str
    """`tokens`, or `characters` where the server did not even count."""
    holds: int


def too_long(message: str) -> TooLong | None:
    """The two counts; None for a message about something else."""
    if found := _HOLDS_FIRST.search(message):
        unit = "characters" if found[3] == "characters" else "tokens"
        return TooLong(int(found[2]), unit, int(found[1]))
    if found := _HAS_FIRST.search(message):
        return TooLong(int(found[1]), "tokens", int(found[2]))
    return None
