"""Accounts and keys as Bitcoin wallets write them."""

import base64

import base58
import pytest
from coincurve import PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from wire.account import BadText, account_hash, account_of, from_wif, hash160, sha256d, to_wif, verify_message
from wire.keys import SecretKey

# Secret, compressed WIF, compressed account; the first three are the smallest and the largest key and one in between.
VECTORS = [
    (1, "KwDiBf89QgGbjEhKnhXJuH7LrciVrZi3qYjgd9M7rFU73sVHnoWn", "1BgGZ9tcN4rm9KBzDn7KprQz87SZ26SAMH"),
    (2, "KwDiBf89QgGbjEhKnhXJuH7LrciVrZi3qYjgd9M7rFU74NMTptX4", "1cMh228HTCiwS8ZsaakH8A8wze1JR5ZsP"),
    (
        0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364140,
        "L5oLkpV3aqBjhki6LmvChTCV6odsp4SXM6FfU2Gppt5kFLaHLuZ9",
        "1GrLCmVQXoyJXaPJQdqssNqwxvha1eUo2E",
    ),
    (
        0x0C28FCA386C7A227600B2FE50B7CAE11EC86D3BF1FBE471BE89827E19D72AA1D,
        "KwdMAjGmerYanjeui5SHS7JkmpZvVipYvB2LJGU1ZxJwYvP98617",
        "1LoVGDgRs9hTfTNJNuXKSpywcbdvwRXpmK",
    ),
]


@pytest.mark.parametrize(("secret", "wif", "account"), VECTORS)
def test_wif_and_account(secret: int, wif: str, account: str) -> None:
    key = SecretKey(secret.to_bytes(32, "big"))
    assert to_wif(key) == wif
    assert account_of(key.public) == account
    assert from_wif(f" {wif}\n").secret == key.secret
    assert account_hash(account) == hash160(key.public)


def test_the_older_wif_is_read() -> None:
    old = "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ"
    assert from_wif(old).secret.hex() == "0c28fca386c7a227600b2fe50b7cae11ec86d3bf1fbe471be89827e19d72aa1d"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "KwDiBf89QgGbjEhKnhXJuH7LrciVrZi3qYjgd9M7rFU73sVHnoWm",
        "1BgGZ9tcN4rm9KBzDn7KprQz87SZ26SAMH",
        base58.b58encode_check(b"\xef" + b"\x01" * 32 + b"\x01").decode(),
        base58.b58encode_check(b"\x80" + b"\x01" * 32 + b"\x02").decode(),
        base58.b58encode_check(b"\x80" + b"\x01" * 31).decode(),
        base58.b58encode_check(b"\x80" + b"\x01" * 34).decode(),
        "0OIl",
    ],
)
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(BadText):
        from_wif(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy",
        "1BgGZ9tcN4rm9KBzDn7KprQz87SZ26SAMh",
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
    ],
)
def test_what_is_no_account(text: str) -> None:
    with pytest.raises(BadText):
        account_hash(text)


def test_hashes() -> None:
    assert hash160(b"").hex() == "b472a266d0bd89c13706a4132ccfb16f7c3b9fcb"
    assert sha256d(b"hello").hex() == "9595c9df90075148eb06860365df33584b75bff782a510c6cd4883a419833d50"


def sign_message(secret: bytes, message: bytes, header: int) -> str:
    """As wallets do it: compact recoverable signature behind a header byte."""
    prefix = b"\x18Bitcoin Signed Message:\n" + (
        bytes([len(message)]) if len(message) < 253 else b"\xfd" + len(message).to_bytes(2, "little")
    )
    raw = PrivateKey(secret).sign_recoverable(sha256d(prefix + message), hasher=None)
    return base64.b64encode(bytes([header + raw[64]]) + raw[:64]).decode()


@given(message=st.binary(max_size=400), secret=st.integers(1, 1 << 200))
def test_signed_messages(message: bytes, secret: int) -> None:
    raw = secret.to_bytes(32, "big")
    account = account_of(SecretKey(raw).public)
    signature = sign_message(raw, message, 31)
    assert verify_message(account, message, signature)
    assert not verify_message(account, message + b"x", signature)
    assert not verify_message("1BgGZ9tcN4rm9KBzDn7KprQz87SZ26SAMH", message, signature) or secret == 1
    old = account_of(PrivateKey(raw).public_key.format(compressed=False))
    assert verify_message(old, message, sign_message(raw, message, 27))


@pytest.mark.parametrize(
    "signature", ["", "x", "AAAA", base64.b64encode(bytes(65)).decode(), base64.b64encode(b"\x1f" * 65).decode()]
)
def test_bad_message_signatures_are_only_false(signature: str) -> None:
    assert not verify_message("1BgGZ9tcN4rm9KBzDn7KprQz87SZ26SAMH", b"m", signature)


def test_a_message_signed_elsewhere() -> None:
    """An example that older wallets and their libraries carry in their own tests."""
    signature = "H85WKpqtNZDrajOnYDgUY+abh0KCAcOsAIOQwx2PftAbLEPRA7mzXA/CjXRxzz0MC225pR/hx02Vf2Ag2x33kU4="
    assert verify_message("1F26pNMrywyZJdr22jErtKcjF8R3Ttt55G", b"1F26pNMrywyZJdr22jErtKcjF8R3Ttt55G", signature)
