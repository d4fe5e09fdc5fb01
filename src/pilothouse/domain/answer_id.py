"""
Ids of requests, signed: who shows one could have got it only with an answer of his team.

The last ten digits of an id are a MAC over the rest and the team. So feedback may
be taken before anybody could look up the record, and no team can rate the answers
of another, guess how it may. One keyed hash signs some ids that a team gets one soon
after the other: they share their beginning, and each takes its own part of the hash.
"""

import hmac
from hashlib import blake2b
from typing import Final

from pilothouse.kit.ids import new_id

PREFIX: Final = "req_"
_ANSWERS = ("chatcmpl-", "cmpl-", "resp_", "msg_", "ollama-", PREFIX)
_DIGITS: Final = 32
_MAC_DIGITS: Final = 10
"""40 bits: who may try a thousand a second needs 17 years for the first that fits."""
_NUMBERS: Final = "0123456789ab"
"""The digit before its MAC is an id's number: which part of the hash is its own. More parts it has not."""
_SHARED_DIGITS: Final = _DIGITS - _MAC_DIGITS - 1
"""Twelve of the time, as `kit.ids` has them, and nine that are random."""
_SHARED: Final = len(PREFIX) + _SHARED_DIGITS
_SHARED_S: Final = 0.01
"""For so long: ids sort by their time but for that much."""
_MOST_TEAMS: Final = 1_000
"""As many may have ids that were begun; beyond it all begin anew."""


class _Begun:
    """What the next ids of one team share, and how many of them it got."""

    __slots__ = ("at", "given", "macs", "shared")

    def __init__(self, at: float, shared: str, macs: str) -> None:
        self.at, self.shared, self.macs = at, shared, macs
        self.given = 0


class AnswerIds:
    """Makes ids and knows them again. Of one process: a fork would make the same."""

    __slots__ = ("_begun", "_key")

    def __init__(self, key: bytes) -> None:
        self._key = key[: blake2b.MAX_KEY_SIZE]
        self._begun: dict[str, _Begun] = {}

    def make(self, team: str, now: float) -> str:
        """An id that no other is like. `now` in seconds, by a clock that may be set back."""
        begun = self._begun.get(team)
        if begun is None or not 0.0 <= now - begun.at < _SHARED_S or begun.given == len(_NUMBERS):
            begun = self._begin(team, now)
        number = begun.given
        begun.given = number + 1
        start = number * _MAC_DIGITS
        return f"{begun.shared}{_NUMBERS[number]}{begun.macs[start : start + _MAC_DIGITS]}"

    def is_signed(self, request_id: str, team: str) -> bool:
        """Whether it was made for this team, by who has the same key."""
        shared = request_id[:_SHARED]
        start = _NUMBERS.find(request_id[_SHARED : _SHARED + 1]) * _MAC_DIGITS
        if start < 0 or len(request_id) != len(PREFIX) + _DIGITS:
            return False
        mac = self._macs(shared, team)[start : start + _MAC_DIGITS]
        return hmac.compare_digest(mac.encode(), request_id[_SHARED + 1 :].encode())

    def _begin(self, team: str, now: float) -> _Begun:
        shared = new_id(PREFIX)[:_SHARED]
        if len(self._begun) >= _MOST_TEAMS:
            self._begun.clear()
        begun = self._begun[team] = _Begun(now, shared, self._macs(shared, team))
        return begun

    def _macs(self, shared: str, team: str) -> str:
        """One after the other, by number. `shared` has one length, so no other team makes the same text."""
        size = len(_NUMBERS) * _MAC_DIGITS // 2
        text = (shared + team).encode()
        return blake2b(text, digest_size=size, key=self._key, person=b"answerid").hexdigest()


def record_of(answer_id: str) -> str | None:
    """Id of the record that an answer's id, or its `x-request-id`, leads to; None when it is none of ours."""
    for prefix in _ANSWERS:
        digits = answer_id.removeprefix(prefix)
        if digits != answer_id and len(digits) == _DIGITS and not set(digits) - set("0123456789abcdef"):
            return PREFIX + digits
    return None
