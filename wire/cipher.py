"""Encryption of results under one-time keys. The only door to ``cryptography`` for it.

A key encrypts exactly one plaintext in its life, so the nonce is zero. The lock (SHA-256 of the key) is signed in the offer,
and so is the plaintext's id: a second key that also opens the ciphertext would be of no use. Source: RFC 8439.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wire.errors import Refused

OVERHEAD_BYTES = 16
_NONCE = bytes(12)


class DoesNotOpen(Refused):
    """The key does not open this ciphertext."""


def encrypt(key: bytes, plain: bytes) -> bytes:
    """``plain`` under the 32-byte one-time ``key``; 16 bytes longer."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, plain, None)


def decrypt(key: bytes, cipher: bytes) -> bytes:
    """The plaintext. Raises ``DoesNotOpen``."""
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, cipher, None)
    except InvalidTag:
        raise DoesNotOpen("does-not-open", "the key does not open this ciphertext") from None
