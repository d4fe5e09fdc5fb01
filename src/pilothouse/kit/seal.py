"""
Sealed envelopes: AES-256-GCM with the key's id in front.

    | version 1 byte | length of the id 1 byte | id | nonce 12 bytes | ciphertext and tag |

The id is readable without a key, so that rotation never guesses. What a
ciphertext belongs to is bound to it as associated data (`bind`): moved to
another place, it no longer opens. Nonces are random, which is safe up to 2**32
envelopes a key (NIST SP 800-38D, section 8.3).
"""

import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
_VERSION = 1
_OWN_KEY = "own"


class SealBroken(Exception):
    """It does not open: another key, another place, or altered bytes. Which of them, nobody can tell."""


def new_key() -> bytes:
    """A random 256-bit key."""
    return os.urandom(KEY_BYTES)


def bind(*parts: str | int) -> bytes:
    """Join the names of a place into associated data; different parts never give the same bytes."""
    encoded = [str(part).encode() for part in parts]
    return b"".join([len(part).to_bytes(4, "big") + part for part in encoded])


def key_id_of(envelope: bytes) -> str:
    """Id of the key that an envelope was sealed with."""
    if len(envelope) < 2 or envelope[0] != _VERSION:
        raise SealBroken("not a sealed envelope of a known version")
    try:
        return envelope[2 : 2 + envelope[1]].decode("ascii")
    except UnicodeDecodeError as exc:
        raise SealBroken("the key id in the envelope is not readable") from exc


def enclose(plain: bytes, aad: bytes, wrap: Callable[[bytes], bytes]) -> bytes:
    """Seal with a key of its own, which lies wrapped in front: for few and small things."""
    key = new_key()
    wrapped = wrap(key)
    return len(wrapped).to_bytes(2, "big") + wrapped + Sealer(_OWN_KEY, key).seal(plain, aad)


def disclose(enclosed: bytes, aad: bytes, unwrap: Callable[[bytes], bytes]) -> bytes:
    """
    Raises:
        SealBroken: Sealed for another place, or altered.
    """
    start = 2 + int.from_bytes(enclosed[:2], "big")
    return Sealer(_OWN_KEY, unwrap(enclosed[2:start])).open(enclosed[start:], aad)


class Sealer:
    """One key, ready to seal and to open."""

    __slots__ = ("_aead", "_prefix", "key_id")

    def __init__(self, key_id: str, key: bytes) -> None:
        encoded = key_id.encode("ascii")
        if not 0 < len(encoded) < 256:
            raise ValueError(f"a key id has 1 to 255 characters, got {len(encoded)}")
        self.key_id = key_id
        self._prefix = bytes((_VERSION, len(encoded))) + encoded
        self._aead = AESGCM(key)

    def seal(self, plain: bytes, aad: bytes) -> bytes:
        """Seal; the same `aad` is needed to open."""
        nonce = os.urandom(NONCE_BYTES)
        return self._prefix + nonce + self._aead.encrypt(nonce, plain, self._prefix + aad)

    def open(self, envelope: bytes, aad: bytes) -> bytes:
        """
        Raises:
            SealBroken: Sealed with another key, for another place, or altered.
        """
        start = len(self._prefix)
        if envelope[:start] != self._prefix:
            raise SealBroken("sealed with another key")
        nonce, body = envelope[start : start + NONCE_BYTES], envelope[start + NONCE_BYTES :]
        if len(body) < TAG_BYTES:
            raise SealBroken("the envelope is cut short")
        try:
            return self._aead.decrypt(nonce, body, self._prefix + aad)
        except InvalidTag as exc:
            raise SealBroken("altered, or sealed for another place") from exc

    def __repr__(self) -> str:
        return f"Sealer({self.key_id!r}, ***)"
