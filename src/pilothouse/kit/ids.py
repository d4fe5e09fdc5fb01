"""
Sortable ids: 48 bits of milliseconds, then 80 random bits, as 32 hex digits.

The layout is the ULID specification's; hex, because making one costs a
microsecond and every request needs one. Unique, not secret: a key or a token
is never made here.
"""

import time
from random import getrandbits


def new_id(prefix: str = "") -> str:
    """Return `prefix` and 32 characters that sort by the time of their making."""
    return prefix + (time.time_ns() // 1_000_000 << 80 | getrandbits(80)).to_bytes(16).hex()
