"""
Parts of the dialect's messages, taken apart for providers of other protocols.

A provider fetches nothing and takes no texts for arguments: what it is sent stands in
the request, and is what its own protocol can hold.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from pilothouse.domain.chat import Sampling
from pilothouse.domain.errors import InvalidRequest, NotSupported
from pilothouse.wire.openai import messages


def inline_data(url: str, at: str) -> tuple[str, str]:
    """
    Media type and base64 of a `data:` address.

    Raises:
        NotSupported: It is an address of the network.
        InvalidRequest: It holds no data in base64.
    """
    if not url.startswith("data:"):
        raise NotSupported(f"{at}: this provider fetches nothing; send it as data:TYPE;base64,", param=at)
    head, _, data = url.partition(",")
    kind, _, coding = head.removeprefix("data:").partition(";")
    if coding != "base64" or not data:
        raise InvalidRequest(f"{at}: a data address begins with data:TYPE;base64,", param=at)
    return kind, data


def not_there(sampling: Sampling, names: Iterable[str]) -> NotSupported:
    """The error for the first of these that is given."""
    name = next(name for name in names if getattr(sampling, name))
    return NotSupported(f"this provider has no {name}; leave it out", param=name)


def texts_said(message: messages.Assistant) -> list[str]:
    """What the model said or refused by, piece by piece; nothing empty."""
    content = message.content
    if isinstance(content, str):
        texts = [content]
    else:
        texts = [part.text if type(part) is messages.Text else part.refusal for part in content or ()]
    if message.refusal is not None:
        texts.append(message.refusal)
    return [text for text in texts if text]


def arguments_of(call: messages.Call, at: str) -> dict[str, Any]:
    """
    Args:
        at: Place of the call in the request.

    Raises:
        InvalidRequest: They are no JSON object.
    """
    try:
        return msgspec.json.decode(call.function.arguments or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as exc:
        where = f"{at}.function.arguments"
        raise InvalidRequest(f"{where} must hold a JSON object for this provider", param=where) from exc
