"""Many signatures at once say what each says alone: by BIP340's vectors, by chance, and where a forger knows the dice."""

import csv
import secrets
from collections.abc import Iterator
from hashlib import shake_256
from pathlib import Path
from unittest.mock import patch

import pytest
from coincurve import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from wire import batch
from wire.batch import DICE_BYTES, Signed, verify_all
from wire.keys import SecretKey, verify

VECTORS = Path(__file__).parent.parent / "vectors" / "bitcoin" / "bip340-test-vectors.csv"
ROWS = list(csv.DictReader(VECTORS.read_text(encoding="utf-8").splitlines()))
KEYS = [SecretKey(bytes([number]) * 32) for number in range(1, 9)]
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def signed(author: int, number: int) -> Signed:
    digest = bytes([author]) + number.to_bytes(31)
    return KEYS[author].public, digest, KEYS[author].sign(digest)


GOOD = [signed(author, number) for author in range(8) for number in range(12)]
"""As many as are verified together: thrice 96 less four times 8."""


def dice(items: list[Signed]) -> bytes:
    return secrets.token_bytes(DICE_BYTES * len(items))


@pytest.fixture
def never_alone() -> Iterator[None]:
    """Nothing may be verified by itself."""
    with patch.object(batch, "verify", side_effect=AssertionError("verified by itself")):
        yield


@pytest.mark.usefixtures("never_alone")
def test_good_ones_are_verified_together() -> None:
    for size in (len(GOOD), 1_000):
        items = (GOOD * 11)[:size]
        assert verify_all(items, dice(items)) == [True] * size


def test_too_few_are_not() -> None:
    few = GOOD[:36]  # thrice 36 less four times 3 are 96
    with patch.object(batch, "_all_good", side_effect=AssertionError("together")) as together:
        assert verify_all(few[:-1], dice(few)) == [True] * 35
        assert verify_all([], b"") == []
        with pytest.raises(AssertionError, match="together"):
            verify_all(few, dice(few))
    assert together.call_count == 1


@pytest.mark.parametrize("good", [True, False])
def test_who_has_signed_but_one_is_verified_by_himself(good: bool) -> None:
    lonely = SecretKey(b"\x77" * 32)
    one = (lonely.public, bytes(32), lonely.sign(bytes(32) if good else bytes(31) + b"\x01"))
    items = [*GOOD[:50], one, *GOOD[50:]]
    with patch.object(batch, "verify", side_effect=verify) as alone:
        assert verify_all(items, dice(items)) == [item is not one or good for item in items]
    alone.assert_called_once_with(*one)


@pytest.mark.parametrize("row", ROWS, ids=[row["index"] for row in ROWS])
def test_bip340(row: dict[str, str]) -> None:
    one = (bytes.fromhex(row["public key"]), bytes.fromhex(row["message"]), bytes.fromhex(row["signature"]))
    expected = row["verification result"] == "TRUE"
    items = [one, *GOOD, one]
    with patch.object(batch, "verify", side_effect=verify) as alone:
        assert verify_all(items, dice(items)) == [expected, *[True] * len(GOOD), expected]
    assert alone.call_count == (0 if expected else len(items))


def broken(how: str, at: int, place: int) -> Signed:
    """The good one at ``at``, changed; ``place`` says where, if that matters."""
    public, digest, signature = GOOD[at]
    nonce, s = signature[:32], signature[32:]
    return {
        "one bit": (public, digest, (int.from_bytes(signature) ^ 1 << place).to_bytes(64)),
        "digest": (public, digest + b"\x00", signature),
        "short": (public, digest, signature[: place // 8]),
        "long": (public, digest, signature + b"\x00"),
        "too large": (public, digest, nonce + ((int.from_bytes(s) + ORDER) % 2**256).to_bytes(32)),
        "no nonce": (public, digest, b"\xff" * 32 + s),
        "another's": (GOOD[(at + 12) % len(GOOD)][0], digest, signature),
        "no key": (b"\x02" + b"\xff" * 32, digest, signature),
        "short key": (public[: place // 16], digest, signature),
        "x-only": (public[1:], digest, signature),
        "other half": (bytes([5 - public[0]]) + public[1:], digest, signature),
    }[how]


HOW = ["one bit", "digest", "short", "long", "too large", "no nonce", "another's", "no key", "short key", "x-only", "other half"]
CHANGES = st.lists(st.tuples(st.sampled_from(HOW), st.integers(0, 95), st.integers(0, 511)), max_size=4)


@given(changes=CHANGES, seed=st.binary(max_size=8))
def test_together_says_what_each_says_alone(changes: list[tuple[str, int, int]], seed: bytes) -> None:
    items = list(GOOD)
    for change in changes:
        items += [broken(*change)] * 2
    chance = shake_256(seed).digest(DICE_BYTES * len(items))
    assert verify_all(items, chance) == [verify(*one) for one in items]


def test_errors_that_cancel_out_are_found_unless_the_dice_were_known() -> None:
    items = list(GOOD)
    for at, change in ((5, 1), (70, -1)):
        public, digest, signature = items[at]
        items[at] = (public, digest, signature[:32] + ((int.from_bytes(signature[32:]) + change) % ORDER).to_bytes(32))
    known = bytes(DICE_BYTES * len(items))
    assert all(verify_all(items, known)), "all coefficients are equal, so the sum is right"
    alone = [verify(*one) for one in items]
    assert alone.count(False) == 2
    assert verify_all(items, dice(items)) == alone
    for turned in range(2 * DICE_BYTES):  # any half byte of one of them is enough
        changed = bytearray(known)
        changed[5 * DICE_BYTES + turned // 2] = 1 << 4 * (turned % 2)
        assert verify_all(items, bytes(changed)) == alone


def test_a_sum_that_comes_to_nothing_is_not_good() -> None:
    """Twice one nonce and the other are nothing: a forger who knew the dice could have that on the way down."""
    first, second = next(
        (one, two)
        for number in range(1, 100)
        if (one := point(number))[0] == (two := point(ORDER - 2 * number))[0] == 2  # both have an even y
    )
    (key, digest, _), (other, message, _) = GOOD[:2]
    forged = [(key, digest, first[1:] + bytes(32)), (other, message, second[1:] + bytes(32))]
    chance = b"\x11" * DICE_BYTES + bytes(DICE_BYTES * (1 + len(GOOD)))
    items = [*forged, *GOOD[2:]]
    with patch.object(batch, "verify", side_effect=verify) as alone:
        assert verify_all(items, chance) == [False, False, *[True] * (len(GOOD) - 2)]
    assert alone.call_count == len(items)


def point(secret: int) -> bytes:
    return bytes(PrivateKey(secret.to_bytes(32)).public_key.format())


def test_with_too_little_chance_nothing_is_verified() -> None:
    with pytest.raises(ValueError, match="buffer"):
        verify_all(GOOD, dice(GOOD)[:-1])
