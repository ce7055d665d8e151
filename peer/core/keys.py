"""Secrets of a trade, all made again from the account key alone, so that a lost disk loses none of them."""

import hashlib

from wire.keys import SecretKey


def ticket_for(key: SecretKey, content: bytes, unit: bytes) -> bytes:
    """16 unguessable bytes that entitle the other party of one unit to fetch one content."""
    return key.derive("ticket", content, unit)[:16]


def result_key(key: SecretKey, unit: bytes, plain: bytes) -> bytes:
    """The one-time key of a result. It depends on the result, so no key ever encrypts two different ones."""
    return key.derive("result", unit, plain)


def lock_of(result: bytes) -> bytes:
    """The lock that ``result``, a one-time key, opens: its SHA-256, as the escrow's script checks it."""
    return hashlib.sha256(result).digest()
