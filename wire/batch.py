"""Many BIP340 signatures at once, for little more than half the price (BIP340, "Batch Verification"). Beside ``wire.keys`` the
only user of libsecp256k1.

A good signature ``(R, s)`` of a digest with challenge ``e`` satisfies ``s*G = R + e*P``. The equations of all signatures are
added up, each times a coefficient that nobody could know beforehand. The group's order is a prime, so a sum with a false
equation in it holds for one value of that equation's coefficient at most, and there are 2**64.

A coefficient has 256 bits, of which one is set in each of sixteen parts. So a point takes sixteen additions to be multiplied by
it, and the doublings are shared by all points: ``secp256k1_ec_pubkey_combine`` adds the total twice and once whatever belongs to
the next bit. The challenges of one author are collected and his key is multiplied once, which is why nothing is won for one who
has signed a single message: his is verified by itself.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT
from numpy.typing import NDArray

from wire.keys import verify
from wire.limits import VERIFY_TOGETHER_MIN

DICE_BYTES: Final = 8
"""Of chance for each signature."""

Signed = tuple[bytes, bytes, bytes]
"""A public key (33 compressed or 32 x-only bytes), a digest and a signature, as ``verify`` takes them."""

_ORDER: Final = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
_TAG: Final = hashlib.sha256(b"BIP0340/challenge").digest()
_CHALLENGE: Final = hashlib.sha256(_TAG + _TAG)
_CONTEXT: Final = GLOBAL_CONTEXT.ctx
_BITS: Final = 256
_PARTS: Final = 2 * DICE_BYTES  # of a coefficient, sixteen bits each: half a byte of chance says which of them is set
_PART: Final = np.arange(0, _BITS, _BITS // _PARTS, dtype=np.uint8)
_TWICE: Final = np.repeat(np.arange(_BITS, dtype=np.uint8), 2)
_combine: Final = lib.secp256k1_ec_pubkey_combine


def verify_all(items: Sequence[Signed], dice: bytes) -> list[bool]:
    """Which signatures are good, as ``verify`` says of each alone. A false one passes with a probability of 2**-64.

    ``dice`` are ``DICE_BYTES`` for each item, from a source that nobody can foresee and made after the signatures have come.
    When one of those that are verified together is false, each is verified by itself.
    """
    counts = Counter([public[-32:] for public, _, _ in items])
    authors = {key for key, count in counts.items() if count > 1}
    together = [one for one in items if one[0][-32:] in authors]
    if 3 * len(together) - 4 * len(authors) < VERIFY_TOGETHER_MIN or not _all_good(together, dice):
        return [verify(*one) for one in items]
    return [one[0][-32:] in authors or verify(*one) for one in items]


def _all_good(items: Sequence[Signed], dice: bytes) -> bool:
    count = len(items)
    halves = np.frombuffer(dice, dtype=np.uint8, count=count * DICE_BYTES).reshape(count, DICE_BYTES)
    bits = np.stack((halves & 15, halves >> 4), axis=2).reshape(count, _PARTS)
    coefficients = np.left_shift(1, bits, dtype="<u2").tobytes()
    points = point = ffi.new("secp256k1_pubkey[]", count)
    total = 0
    challenges: defaultdict[bytes, int] = defaultdict(int)
    for begin, (public, digest, signature) in zip(range(0, len(coefficients), 32), items, strict=True):
        nonce, s, key = signature[:32], int.from_bytes(signature[32:]), public[-32:]
        if len(signature) != 64 or s >= _ORDER or not _lift(point, nonce):
            return False
        point += 1
        challenge = _CHALLENGE.copy()
        challenge.update(nonce + key + digest)
        coefficient = int.from_bytes(coefficients[begin : begin + 32], "little")
        challenges[key] += coefficient * int.from_bytes(challenge.digest())
        total += coefficient * s
    sums = [_weighted_sum(points, bits | _PART), *(_times(key, factor) for key, factor in challenges.items())]
    left, right = ffi.new("secp256k1_pubkey *"), ffi.new("secp256k1_pubkey *")
    return (
        None not in sums
        and bool(_combine(_CONTEXT, right, sums, len(sums)))
        and bool(lib.secp256k1_ec_pubkey_create(_CONTEXT, left, _scalar(total)))
        and lib.secp256k1_ec_pubkey_cmp(_CONTEXT, left, right) == 0
    )


def _weighted_sum(points: Any, bits: NDArray[np.uint8]) -> Any | None:
    """The sum of ``points``, each times the number in which the ``bits`` of its row are set. None when that, or what it is made
    of, is nothing on the way: only forged signatures come to that.

    From the highest bit down: twice what there is, and the points that have this bit. There are two places for what there is,
    used by turns, because libsecp256k1 does not add into a point that it adds.
    """
    count, parts = bits.shape
    places = ffi.new("secp256k1_pubkey[2]")
    size = ffi.sizeof("secp256k1_pubkey")
    place, point = (int(ffi.cast("uintptr_t", one)) for one in (places, points))
    keys = np.concatenate((_TWICE, bits.ravel()))
    there = np.where(_TWICE % 2, place, place + size)
    addresses = np.concatenate((there, np.repeat(np.arange(point, point + count * size, size), parts)))
    summands = addresses[np.argsort(keys, kind="stable")].astype(np.uintp)
    view = ffi.from_buffer("secp256k1_pubkey *[]", summands)
    begun, end = False, len(summands)
    for bit, length in reversed(list(enumerate(np.bincount(keys).tolist()))):
        end -= length
        skip = 0 if begun else 2  # there is nothing yet that could be taken twice
        if length > skip:
            if not _combine(_CONTEXT, places + bit % 2, view + end + skip, length - skip):
                return None
            begun = True
    found = ffi.new("secp256k1_pubkey *")
    found[0] = places[0]
    return found


def _times(key: bytes, factor: int) -> Any | None:
    """The point with the x-only ``key``, ``factor`` times; None when there is no such point, or nothing is left of it."""
    point = ffi.new("secp256k1_pubkey *")
    good = _lift(point, key) and lib.secp256k1_ec_pubkey_tweak_mul(_CONTEXT, point, _scalar(factor))
    return point if good else None


def _lift(place: Any, x: bytes) -> bool:
    """Put the point with this x and an even y into ``place``; False when there is none."""
    raw = b"\x02" + x
    return bool(lib.secp256k1_ec_pubkey_parse(_CONTEXT, place, raw, len(raw)))


def _scalar(number: int) -> bytes:
    return (number % _ORDER).to_bytes(32)
