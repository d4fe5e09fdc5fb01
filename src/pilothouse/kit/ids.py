"""
Sortable ids: 48 bits of milliseconds, then 80 random bits, as 32 hex digits.

The layout is the ULID specification's; hex, because making one costs half a
microsecond and every request needs one. Unique, not secret: a key or a token
is never made here.
"""

import time
from random import getrandbits


def new_id(prefix: str = "") -> str:
    """Return `prefix` and 32 characters that sort by the time of their making."""
    return f"{prefix}{int(time.time() * 1000):012x}{getrandbits(80):020x}"
