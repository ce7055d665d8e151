"""One key for everything: BIP340 by its public vectors, ECDSA, tweaks, peer ids, secrets."""

import csv
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.keys import (
    BadKey,
    SecretKey,
    is_public,
    peer_id_of,
    public_of,
    read_peer,
    show_peer,
    tweak_public,
    verify,
    verify_ecdsa,
)

VECTORS = Path(__file__).parent.parent / "vectors" / "bitcoin" / "bip340-test-vectors.csv"
ROWS = list(csv.DictReader(VECTORS.read_text(encoding="utf-8").splitlines()))
KEY = SecretKey(b"\x01" * 32)
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def test_there_are_all_rows() -> None:
    assert [int(row["index"]) for row in ROWS] == list(range(19))


@pytest.mark.parametrize("row", ROWS, ids=[row["index"] for row in ROWS])
def test_bip340(row: dict[str, str]) -> None:
    message, signature = bytes.fromhex(row["message"]), bytes.fromhex(row["signature"])
    assert verify(bytes.fromhex(row["public key"]), message, signature) == (row["verification result"] == "TRUE")
    if row["secret key"] and len(message) == 32:
        key = SecretKey(bytes.fromhex(row["secret key"]))
        assert key.sign(message, bytes.fromhex(row["aux_rand"])) == signature
        assert key.public[1:] == bytes.fromhex(row["public key"])
        assert verify(key.public, message, signature)


def test_messages_of_other_lengths_are_only_verified() -> None:
    assert sum(len(bytes.fromhex(row["message"])) != 32 for row in ROWS) == 4
    for size in (0, 31, 33):
        with pytest.raises(ValueError, match="32"):
            KEY.sign(bytes(size))


@given(digest=st.binary(min_size=32, max_size=32), secret=st.integers(1, ORDER - 1), flip=st.integers(0, 511))
def test_signatures_are_made_again_and_break_at_any_bit(digest: bytes, secret: int, flip: int) -> None:
    key = SecretKey(secret.to_bytes(32, "big"))
    signature = key.sign(digest)
    assert signature == key.sign(digest)
    assert verify(key.public, digest, signature)
    broken = bytearray(signature)
    broken[flip // 8] ^= 1 << flip % 8
    assert not verify(key.public, digest, bytes(broken))


@given(digest=st.binary(min_size=32, max_size=32), secret=st.integers(1, ORDER - 1))
def test_ecdsa_is_der_and_low(digest: bytes, secret: int) -> None:
    key = SecretKey(secret.to_bytes(32, "big"))
    der = key.sign_ecdsa(digest)
    assert 8 <= len(der) <= 71
    assert verify_ecdsa(key.public, digest, der)
    size = der[3]
    value = int.from_bytes(der[6 + size :], "big")
    assert 0 < value <= ORDER // 2
    assert not verify_ecdsa(key.public, digest[::-1] + b"", der[:-1] + bytes([der[-1] ^ 1]))


@given(tweak=st.integers(1, ORDER - 1), secret=st.integers(1, ORDER - 1))
def test_tweaks_commute_with_publishing(tweak: int, secret: int) -> None:
    key, by = SecretKey(secret.to_bytes(32, "big")), tweak.to_bytes(32, "big")
    if (secret + tweak) % ORDER:
        assert key.tweaked(by).public == tweak_public(key.public, by)


def test_bad_keys_are_named() -> None:
    for secret in (b"", bytes(32), b"\xff" * 32, b"\x01" * 31):
        with pytest.raises(BadKey):
            SecretKey(secret)
    for public in (b"", bytes(33), b"\x02" + b"\xff" * 32, b"\x04" + bytes(64)):
        assert not is_public(public)
    assert is_public(KEY.public)
    with pytest.raises(BadKey):
        tweak_public(bytes(33), b"\x01" * 32)
    for bad in (b"", KEY.peer_id[:-1], b"\x00" * 39, KEY.public):
        with pytest.raises(BadKey):
            public_of(bad)
    for junk in (bytes(64), b"", b"\x00" * 63):
        assert not verify(KEY.public, bytes(32), junk)
        assert not verify_ecdsa(KEY.public, bytes(32), junk)
    assert not verify(b"\x02" + b"\xff" * 32, bytes(32), KEY.sign(bytes(32)))


def test_peer_ids_hold_the_account_key() -> None:
    assert public_of(peer_id_of(KEY.public)) == KEY.public
    assert show_peer(KEY.peer_id).startswith("16Uiu2HA")
    assert read_peer(show_peer(KEY.peer_id)) == KEY.peer_id
    for text in ("", "0OIl", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"):
        with pytest.raises(BadKey):
            read_peer(text)


def test_secrets_are_for_one_purpose_and_not_shown() -> None:
    assert KEY.derive("a", b"1") == KEY.derive("a", b"1")
    different = {KEY.derive("a", b"1"), KEY.derive("b", b"1"), KEY.derive("a", b"1", b""), KEY.derive("a", b"", b"1")}
    assert len(different | {SecretKey(b"\x02" * 32).derive("a", b"1")}) == 5
    assert KEY.secret.hex() not in repr(KEY)
    with pytest.raises(TypeError):
        pickle.dumps(KEY)
