"""Proof-of-work stamps: a message that is larger or lives longer costs its author more hashing.

The stamp is the last field of every gossiped body, eight bytes, so a body is ``prefix + stamp``. It is good when the digest of
the body for the purpose ``stamp`` begins with enough zero bits. How many depends on the bytes alone: never on load, so every
node judges a message alike. Minting counts from zero, hence the same body always gets the same stamp.
"""

import functools
from typing import Final

from wire.digest import context, digest, digest_for
from wire.errors import Misbehaved, require

STAMP_BYTES: Final = 8
_SIZE_STEP_BYTES: Final = 256
_LIFE_STEP_EPOCHS: Final = 5
_TRIES_MAX: Final = 1 << 32


class BadStamp(Misbehaved):
    """Too little work stands behind the message."""


def bits_needed(base_bits: int, size_bytes: int, life_epochs: int) -> int:
    """Zero bits asked of a body of ``size_bytes`` that stays in the book for ``life_epochs``.

    One bit more for every doubling of the size above 256 bytes and of the life above five epochs.
    """
    return base_bits + ((size_bytes - 1) // _SIZE_STEP_BYTES).bit_length() + ((life_epochs - 1) // _LIFE_STEP_EPOCHS).bit_length()


def zero_bits(network: str, body: bytes) -> int:
    """How much work stands behind ``body``: the zero bits its stamp digest begins with."""
    return 256 - int.from_bytes(digest_for(network, "stamp", body), "big").bit_length()


def mint(network: str, body: bytes, bits: int) -> bytes:
    """``body`` with its last eight bytes replaced by the first counter that is worth ``bits``."""
    prefix = body[:-STAMP_BYTES]
    of, end = context(network, "stamp"), _end(bits)
    for counter in range(_TRIES_MAX):
        stamp = counter.to_bytes(STAMP_BYTES, "big")
        if digest(of, prefix, stamp) < end:
            return prefix + stamp
    require(holds=False, code="stamp", sentence=f"no stamp of {bits} bits in {_TRIES_MAX} tries")
    return body


def check_stamp(network: str, base_bits: int, body: bytes, life_epochs: int) -> None:
    """Raise ``BadStamp`` unless enough work stands behind ``body``."""
    if digest_for(network, "stamp", body) >= _end_for(base_bits, len(body), life_epochs):
        found, needed = zero_bits(network, body), bits_needed(base_bits, len(body), life_epochs)
        raise BadStamp("bad-stamp", f"the stamp is worth {found} bits where {needed} are needed", penalty=20)


@functools.cache
def _end(bits: int) -> bytes:
    """The first digest, in order, that does not begin with so many zero bits; a byte longer where all of them do."""
    return (1 << (256 - bits)).to_bytes(32, "big") if bits > 0 else b"\xff" * 33


@functools.lru_cache(maxsize=4_096)
def _end_for(base_bits: int, size_bytes: int, life_epochs: int) -> bytes:
    return _end(bits_needed(base_bits, size_bytes, life_epochs))
