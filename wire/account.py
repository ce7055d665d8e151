"""Accounts and key export as Bitcoin wallets write them: P2PKH addresses and WIF, base58check.

An account is the mainnet-style P2PKH address of the compressed key, whichever network settles.
Sources: Bitcoin wiki "Base58Check encoding" and "Wallet import format"; BIP137 for signed messages.
"""

import base64
import hashlib
from typing import Final, NewType

import base58
from coincurve import PublicKey
from Crypto.Hash import RIPEMD160

from wire.errors import Refused
from wire.keys import SecretKey

Account = NewType("Account", str)
"""A P2PKH address starting with 1; who somebody is, and where he could be paid."""

_P2PKH: Final = b"\x00"
_WIF: Final = b"\x80"
_WIF_TEST: Final = b"\xef"


class BadText(Refused):
    """The text is not an address or a key."""


def sha256d(data: bytes) -> bytes:
    """Bitcoin's double SHA-256."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def hash160(data: bytes) -> bytes:
    """RIPEMD-160 of SHA-256, 20 bytes. Not from OpenSSL, which may come without RIPEMD-160."""
    return RIPEMD160.new(hashlib.sha256(data).digest()).digest()


def account_of(public: bytes) -> Account:
    """The account of a 33-byte public key."""
    return Account(base58.b58encode_check(_P2PKH + hash160(public)).decode())


def _decode(text: str, what: str) -> bytes:
    try:
        return bytes(base58.b58decode_check(text))
    except ValueError:
        raise BadText("bad-text", f"this is not {what}: its checksum or its characters are wrong") from None


def account_hash(account: str) -> bytes:
    """The 20 bytes inside an account. Raises ``BadText``."""
    raw = _decode(account, "an account")
    if len(raw) != 21 or raw[:1] != _P2PKH:
        raise BadText("bad-account", "this is an address of another kind; accounts start with 1")
    return raw[1:]


def to_wif(key: SecretKey, *, test: bool = False) -> str:
    """The key in wallet import format, compressed; ``test`` for networks without real money. ``from_wif`` reads mainnet's."""
    return str(base58.b58encode_check((_WIF_TEST if test else _WIF) + key.secret + b"\x01").decode())


def from_wif(text: str) -> SecretKey:
    """The key written as ``text``; both the compressed and the older form are read. Raises ``BadText``."""
    raw = _decode(text.strip(), "a key in wallet import format")
    if raw[:1] != _WIF or not (len(raw) == 33 or (len(raw) == 34 and raw[33:] == b"\x01")):
        raise BadText("bad-wif", "this is not a mainnet key in wallet import format")
    return SecretKey(raw[1:33])


def _compact(length: int) -> bytes:
    if length < 253:
        return bytes([length])
    if length < 1 << 16:
        return b"\xfd" + length.to_bytes(2, "little")
    return b"\xfe" + length.to_bytes(4, "little")


def _message_digest(message: bytes) -> bytes:
    return sha256d(b"\x18Bitcoin Signed Message:\n" + _compact(len(message)) + message)


def verify_message(account: str, message: bytes, signature: str) -> bool:
    """Whether ``signature`` (base64, 65 bytes) signs ``message`` for ``account``, as any Bitcoin wallet does it."""
    try:
        raw = base64.b64decode(signature, validate=True)
    except ValueError:
        return False
    if len(raw) != 65 or not 27 <= raw[0] <= 34:
        return False
    recoverable = raw[1:] + bytes([(raw[0] - 27) & 3])
    try:
        public = PublicKey.from_signature_and_message(recoverable, _message_digest(message), hasher=None)
    except ValueError:
        return False
    return account_of(public.format(compressed=raw[0] >= 31)) == account
