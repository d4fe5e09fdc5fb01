"""
Ids of requests, signed: who shows one could have got it only with an answer of his team.

The last ten digits of an id are a MAC over the rest and the team. So feedback may
be taken before anybody could look up the record, and no team can rate the answers
of another, guess how it may. Made on the request path: one keyed hash, a microsecond.
"""

import hmac
from hashlib import blake2s
from typing import Final

PREFIX: Final = "req_"
_ANSWERS = ("chatcmpl-", "cmpl-", "resp_", "msg_", "ollama-", PREFIX)
_DIGITS: Final = 32
_MAC_BYTES: Final = 5
"""40 bits: who may try a thousand a second needs 17 years for the first that fits."""
_FIRST: Final = len(PREFIX) + _DIGITS - 2 * _MAC_BYTES
"""Characters that are signed."""


def signer(key: bytes) -> blake2s:
    """The keyed hash to begin from; made once, for `sign` copies it."""
    return blake2s(key=key[:32], digest_size=_MAC_BYTES, person=b"answerid")


def sign(keyed: blake2s, request_id: str, team: str) -> str:
    """The same id with its last digits replaced; still unique, still sorting by time."""
    first = request_id[:_FIRST]
    mac = keyed.copy()
    mac.update((first + team).encode())
    return first + mac.hexdigest()


def is_signed(keyed: blake2s, request_id: str, team: str) -> bool:
    return hmac.compare_digest(sign(keyed, request_id, team).encode(), request_id.encode())


def record_of(answer_id: str) -> str | None:
    """Id of the record that an answer's id, or its `x-request-id`, leads to; None when it is none of ours."""
    for prefix in _ANSWERS:
        digits = answer_id.removeprefix(prefix)
        if digits != answer_id and len(digits) == _DIGITS and not set(digits) - set("0123456789abcdef"):
            return PREFIX + digits
    return None
