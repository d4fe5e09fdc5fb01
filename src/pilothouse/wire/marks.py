"""
Whose a thought is: a mark that begins with a provider's name is that provider's alone.

What Anthropic's models sign is carried as it came, for Anthropic's service and Bedrock
take the same signatures. All else is marked when it comes and bare again when it goes
back, so that nobody is given what another has made.
"""

from collections.abc import Sequence

from pilothouse.domain.chat import Remembered, Thought
from pilothouse.domain.errors import InvalidRequest

GEMINI, BEDROCK = "gemini:", "bedrock:"
_OTHERS = (GEMINI, BEDROCK)


def bare(mark: str, owner: str) -> str | None:
    """What that owner made of it, or None where it is another's; `owner` "" is Anthropic's service."""
    if owner:
        return mark.removeprefix(owner) if mark.startswith(owner) else None
    return None if mark.startswith(_OTHERS) else mark


def by_message(thoughts: Sequence[Remembered]) -> dict[int, list[Thought]]:
    """The thoughts of each message that has some: of a long talk, no message looks through all of them."""
    found: dict[int, list[Thought]] = {}
    for one in thoughts:
        found.setdefault(one.message, []).append(one.thought)
    return found


def own_thoughts(thoughts: Sequence[Thought], message: int, *, unread: str) -> list[Thought]:
    """
    The thoughts that Anthropic's models may have signed, with what is `unread` bare.

    Args:
        thoughts: Of one message.
        unread: Who made the data that only its maker can read: "", or `BEDROCK`.

    Raises:
        InvalidRequest: There is data of somebody else's.
    """
    found: list[Thought] = []
    left_out = 0
    for thought in thoughts:
        if thought.data:
            data = bare(thought.data, unread)
            if data is None:
                raise InvalidRequest(
                    f"messages[{message}]: another provider gave this redacted_thinking, and only that one "
                    "can read it; leave it out, or ask the endpoint that gave it",
                    param=f"messages[{message}]",
                )
            found.append(Thought(data=data, block=thought.block - left_out))
        elif bare(thought.signature, "") is None:
            left_out += 1
        else:
            found.append(Thought(thought.text, thought.signature, "", thought.block - left_out))
    return found
