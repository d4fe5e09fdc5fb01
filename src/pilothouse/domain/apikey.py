"""
API keys: their text, how it is taken apart, and what is kept of them.

A key reads `ph_<id>_<secret>_<crc>`. The id is public and finds the entry; the
secret proves; the crc tells a mistyped key from a wrong one without any I/O.
Only a MAC with a pepper is stored, and the pepper lies outside the database, so
that a dump alone verifies nothing. Making randomness is not done here.

A key that another gateway made, `sk-...`, is carried over by the SHA-256 that is
stored there: from its text follow an id and a secret as well, and the rest is the
same. Such a secret has a colon, which no `ph_` key can have, so that who knows
only the SHA-256 cannot write a key that passes for it.
"""

import hmac
import re
from hashlib import sha256
from typing import Any
from zlib import crc32

from msgspec import Struct

ID_BYTES = 8
"""Random bytes behind an id: 64 bits, so that two keys never share one."""
SECRET_BYTES = 32
"""Random bytes behind a secret: 256 bits, for which a fast MAC is as good as a slow hash."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_SHAPE = re.compile(r"ph_([0-9a-z]{8,32})_([0-9A-Za-z]{32,64})_([0-9a-f]{8})")
_FOREIGN = re.compile(r"sk-[!-~]{17,253}")
_DELEGATED = re.compile(r"pb_([0-9a-z]{8,32})_([0-9]{1,12})_([0-9a-f]{64})")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class ParsedKey(Struct, frozen=True):
    """A well-formed key. Whether it is a valid one, its MAC says."""

    id: str
    secret: str

    def __repr__(self) -> str:
        return f"ParsedKey(id={self.id!r}, secret=...)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # msgspec gives structs one with every field, which `rich` prefers to repr().
        return [("id", self.id), ("secret", "...")]


def encode(value: bytes) -> str:
    """Bytes in Crockford's base 32, lower case, every bit of them: 8 bytes give 13 characters."""
    number = int.from_bytes(value, "big")
    length = -(-len(value) * 8 // 5)
    return "".join([_ALPHABET[(number >> 5 * place) & 31] for place in range(length - 1, -1, -1)])


def make(key_id: str, secret: str) -> str:
    """
    The key's text, as its owner sees it once.

    Args:
        key_id: 8 to 32 lower-case letters and digits.
        secret: 32 to 64 letters and digits.
    """
    body = f"ph_{key_id}_{secret}"
    return f"{body}_{crc32(body.encode()):08x}"


def parse(token: str) -> ParsedKey | None:
    """
    Take a key apart; None for everything that is not one. No I/O, never raises.

    A crc finds every change of one character, so such a token never reaches the
    MAC. The crc's digits are lower case only, or a change of case would pass.
    """
    found = _SHAPE.fullmatch(token)
    if found is None:
        return carried(sha256(token.encode()).hexdigest()) if _FOREIGN.fullmatch(token) else None
    key_id, secret, check = found.groups()
    if int(check, 16) != crc32(token[:-9].encode()):
        return None
    return ParsedKey(key_id, secret)


def carried(token_sha256: str) -> ParsedKey | None:
    """
    The key of another gateway whose text has this SHA-256; None when it is not one.

    Args:
        token_sha256: 64 lower-case hex digits.
    """
    if _SHA256.fullmatch(token_sha256) is None:
        return None
    return ParsedKey(f"sk{token_sha256[:30]}", f"sha256:{token_sha256}")


def mac(pepper: bytes, key_id: str, secret: str) -> bytes:
    """HMAC-SHA256 of id and secret (RFC 2104): compare it with `hmac.compare_digest` only."""
    return hmac.digest(pepper, f"{key_id}.{secret}".encode(), "sha256")


def delegate(pepper: bytes, key_id: str, *, until: int) -> str:
    """
    What the control plane presents to ask in the name of a key whose secret nobody here knows.

    Args:
        until: Unix seconds; soon, for the key itself may be revoked.
    """
    return f"pb_{key_id}_{until}_{_delegation(pepper, key_id, until)}"


def delegated(pepper: bytes, token: str) -> tuple[str, int] | None:
    """The key's id and `until` of such a token; None for everything that is not one. Never raises."""
    found = _DELEGATED.fullmatch(token)
    if found is None:
        return None
    key_id, until = found[1], int(found[2])
    return (key_id, until) if hmac.compare_digest(_delegation(pepper, key_id, until), found[3]) else None


def _delegation(pepper: bytes, key_id: str, until: int) -> str:
    """No MAC of a key, which has no NUL in what it is made of."""
    return hmac.digest(pepper, f"delegate\0{key_id}\0{until}".encode(), "sha256").hex()
