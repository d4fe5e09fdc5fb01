"""
Where a request goes: which deployment, and which of its replicas.

Pure decisions over numbers, so that the simulation takes the very same ones.
Chance comes in as a number drawn evenly from 0..1 (1 excluded).
"""

import math
from collections.abc import Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import Protocol, TypeVar

PREFIX_BYTES = 1024
"""The most bytes of a prompt that make its prefix: a long system prompt."""
_END_OF_MESSAGE = b'"},'
"""Ends the first message of a chat: within a string of JSON, the quote would be escaped."""
LOAD_BOUND = 1.25
"""The most of the mean load that affinity may give to one replica."""
_MASK = (1 << 64) - 1


class Candidate(Protocol):
    """What the choice of a replica asks of each."""

    @property
    def free(self) -> int:
        """Places that can be taken now; 0 or less is none."""
        ...

    @property
    def load(self) -> int:
        """Requests in flight there, from everybody."""
        ...

    @property
    def seed(self) -> int:
        """`seed_of` its name."""
        ...


_Replica = TypeVar("_Replica", bound=Candidate)


class Split:
    """
    Routes of an endpoint, drawn by weight.

    Args:
        weights: Of each route; one of weight 0 is never tried.
    """

    __slots__ = ("_bounds", "_total", "orders")

    def __init__(self, weights: Sequence[int]) -> None:
        places = [place for place, weight in enumerate(weights) if weight > 0]
        heaviest = sorted(places, key=lambda place: -weights[place])
        self._bounds = list(accumulate(weights[place] for place in places))
        self._total = self._bounds[-1] if places else 0
        self.orders: tuple[tuple[int, ...], ...] = tuple(
            (first, *(place for place in heaviest if place != first)) for first in places
        )
        """All that `order` may give."""

    def order(self, draw: float) -> tuple[int, ...]:
        """
        The order in which routes are tried: the one that was drawn, then the others, the heaviest first.

        Equal draws give equal orders, so a draw made from a subject keeps that
        subject where it is as long as the weights stay.
        """
        return self.orders[self.drawn(draw)] if self.orders else ()

    def drawn(self, draw: float) -> int:
        """Which of `orders` that is; 0 where there is none."""
        share, last = draw * self._total, len(self._bounds) - 1
        at = 0
        while at < last and self._bounds[at] <= share:
            at += 1
        return at


def sticky_draw(endpoint: str, subject: str) -> float:
    """The draw that a subject always has at an endpoint; at another endpoint it has another."""
    digest = blake2b(f"{endpoint}\0{subject}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / 2**53


def least_load(replicas: Sequence[_Replica], draw: float) -> _Replica | None:
    """
    The less loaded of two that are drawn, or, when both are full, the least loaded that has a place.

    With loads that are a moment old, taking the least loaded of all sends everybody
    to the same one; two choices do nearly as well as knowing all.

    Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (1996).
    """
    count = len(replicas)
    if count < 2:
        return replicas[0] if count and replicas[0].free > 0 else None
    first, second = divmod(int(draw * count * (count - 1)), count - 1)
    one, other = replicas[first], replicas[second + 1 if second >= first else second]
    if one.free > 0 and (one.load <= other.load or other.free <= 0):
        return one
    if other.free > 0:
        return other
    if count == 2:
        return None
    return min((replica for replica in replicas if replica.free > 0), key=lambda r: r.load, default=None)


def round_robin(replicas: Sequence[_Replica], turn: int) -> _Replica | None:
    """The one whose turn it is, or the next that has a place."""
    count = len(replicas)
    for step in range(count):
        replica = replicas[(turn + step) % count]
        if replica.free > 0:
            return replica
    return None


def prefix_affinity(replicas: Sequence[_Replica], prefix: int) -> _Replica | None:
    """
    The replica that a prefix belongs to, unless that one is too loaded; then the next.

    Each replica has a score for each prefix, and the highest wins: when one comes
    or goes, only its own prefixes move. A replica at `LOAD_BOUND` times the mean
    load is passed over, so that a popular prefix is spread.

    Source: Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous"
    (1996); Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded
    Loads" (2018), for the bound.
    """
    total = 1
    for replica in replicas:
        total += replica.load
    bound = math.ceil(LOAD_BOUND * total / len(replicas)) if replicas else 0
    home: _Replica | None = None
    home_score = -1
    for replica in replicas:
        if replica.free > 0 and replica.load < bound:
            score = _score(prefix, replica.seed)
            if score > home_score:
                home, home_score = replica, score
    # All that are within the bound are full: their places are few. Any other place is better than none.
    return home or min((r for r in replicas if r.free > 0), key=lambda r: r.load, default=None)


def prefix_of(prompt: bytes, team: str) -> int:
    """
    A number that equal beginnings of one team's prompts share; other teams' have another. Never 0.

    The beginning is the first message, as far as `PREFIX_BYTES` reach: the system
    prompt where there is one, else what opened the conversation. So it stays the
    same while a conversation grows.
    """
    end = prompt.find(_END_OF_MESSAGE, 0, PREFIX_BYTES)
    beginning = prompt[: end if end >= 0 else PREFIX_BYTES]
    return int.from_bytes(blake2b(beginning, digest_size=8, key=team.encode()[:64]).digest()) or 1


def seed_of(name: str) -> int:
    """A number for a replica's name, as good as random."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest())


def _score(prefix: int, seed: int) -> int:
    """Mix two numbers: the finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    mixed = prefix ^ seed
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)
