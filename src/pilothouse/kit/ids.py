"""
Sortable ids: 48 bits of milliseconds, 80 random bits, in Crockford's base 32.

Source: the ULID specification, without its monotonic mode.
"""

import os
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]


def new_id(prefix: str = "") -> str:
    """Return `prefix` and 26 characters that sort by the time of their making."""
    value = (int(time.time() * 1000) << 80) | int.from_bytes(os.urandom(10), "big")
    pairs = _PAIRS
    return prefix + "".join([pairs[(value >> shift) & 1023] for shift in range(120, -1, -10)])
