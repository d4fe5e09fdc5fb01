"""
Short names for long bytes: two that differ never get the same one.

Where several processes must agree on a name it is a SHA-256. Where one process
alone asks, what is short is its own name, and what is long has the tag of AES-GCM
under a key that was drawn for this process: a fourteenth of the time for 32 kB, and
nobody else can say what it will be.

Source: McGrew and Viega, "The Security and Performance of the Galois/Counter Mode
of Operation" (2004), section 5: under a secret key, two different messages of up
to 2**n blocks have equal tags with a probability of at most 2**(n - 127). The nonce
may be the same each time, for no tag and no ciphertext is ever shown.
"""

from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pilothouse.kit.seal import NONCE_BYTES, TAG_BYTES, new_key

_NONCE: Final = bytes(NONCE_BYTES)
_SHORT_BYTES: Final = 1024
_ENDS: Final = [size.to_bytes(2) for size in range(_SHORT_BYTES + 1)]
"""Where a head of so many bytes ends."""


def shared_fingerprint(head: bytes, rest: bytes) -> bytes:
    """32 bytes, the same in every process. `head` must tell itself where it ends."""
    found = sha256(head)
    found.update(rest)
    return found.digest()


class OwnFingerprint:
    """Names of at most 1026 bytes, no two alike."""

    __slots__ = ("_aead",)

    def __init__(self) -> None:
        self._aead = AESGCM(new_key())

    def of(self, head: bytes, rest: bytes) -> bytes:
        """
        As `shared_fingerprint`.

        Args:
            head: Longer than a tag, so that no name is taken for one; short, for it is enciphered in vain.
        """
        if len(head) + len(rest) <= _SHORT_BYTES:
            return head + rest + _ENDS[len(head)]
        return self._aead.encrypt(_NONCE, head, rest)[-TAG_BYTES:]
