"""One secp256k1 key is everything: account, peer id, order signatures, escrow root. The door to coincurve; many signatures
at once are verified by ``wire.batch``.

Sources: BIP340 (Schnorr signatures), RFC 6979 and BIP62 low-S (ECDSA), libp2p peer-id spec (identity multihash of secp256k1).
"""

import functools
from typing import Any, Final, NewType

import base58
from blake3 import blake3
from coincurve import PrivateKey, PublicKey, PublicKeyXOnly
from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT

from wire.digest import context
from wire.errors import Misbehaved

Public = NewType("Public", bytes)
"""33 bytes, compressed secp256k1 point."""

PeerId = NewType("PeerId", bytes)
"""39 bytes: libp2p's identity multihash of a secp256k1 public key. Printed as base58 ``16Uiu2HA…``."""

_PEER_PREFIX: Final = bytes.fromhex("002508021221")

_verify: Final = lib.secp256k1_schnorrsig_verify
_CONTEXT: Final = GLOBAL_CONTEXT.ctx


class BadKey(Misbehaved):
    """The bytes are not a secp256k1 key."""


def peer_id_of(public: bytes) -> PeerId:
    """The libp2p peer id of an account key."""
    return PeerId(_PEER_PREFIX + public)


def public_of(peer_id: bytes) -> Public:
    """The account key inside a libp2p peer id. Raises ``BadKey`` when it holds no secp256k1 key."""
    if len(peer_id) != 39 or peer_id[:6] != _PEER_PREFIX:
        raise BadKey("bad-peer-id", "this peer id does not hold a secp256k1 key")
    return Public(bytes(peer_id[6:]))


def show_peer(peer_id: bytes) -> str:
    """A peer id as people and multiaddrs write it."""
    return str(base58.b58encode(peer_id).decode())


def read_peer(text: str) -> PeerId:
    """The peer id written as ``text``."""
    try:
        raw = base58.b58decode(text)
    except ValueError:
        raise BadKey("bad-peer-id", f"{text!r} is not a peer id") from None
    public_of(raw)
    return PeerId(raw)


@functools.lru_cache(maxsize=16_384)
def _x_only(public: bytes) -> Any:
    return PublicKeyXOnly(public[-32:]).public_key


@functools.lru_cache(maxsize=4_096)
def _point(public: bytes) -> PublicKey:
    return PublicKey(public)


def verify(public: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether ``signature`` (64 bytes, BIP340) over ``digest`` is by ``public`` (33 compressed or 32 x-only bytes)."""
    try:
        point = _x_only(public)
    except ValueError:
        return False
    return len(signature) == 64 and _verify(_CONTEXT, signature, digest, len(digest), point) == 1


def verify_ecdsa(public: bytes, digest: bytes, der: bytes) -> bool:
    """Whether ``der`` is an ECDSA signature by ``public`` (33 bytes) over the 32-byte ``digest``."""
    try:
        return bool(_point(public).verify(der, digest, hasher=None))
    except (ValueError, TypeError):
        return False


def is_public(public: bytes) -> bool:
    """Whether the 33 bytes are a point of the curve."""
    try:
        _point(public)
    except ValueError:
        return False
    return len(public) == 33


def tweak_public(public: bytes, tweak: bytes) -> Public:
    """``P + tweak * G`` in 33 bytes; ``tweak`` is 32 bytes."""
    try:
        return Public(_point(public).add(tweak).format())
    except ValueError:
        raise BadKey("bad-key", "this key cannot be tweaked") from None


class SecretKey:
    """A secret key. Never printed, never pickled; ``derive`` gives secrets that only its holder can make again."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32:
            raise BadKey("bad-key", "a secret key has 32 bytes")
        try:
            self._key = PrivateKey(secret)
        except ValueError:
            raise BadKey("bad-key", "these 32 bytes are not a secret key") from None
        self._secret = secret
        self.public = Public(self._key.public_key.format())
        self._pair: Any = ffi.new("secp256k1_keypair *")
        if not lib.secp256k1_keypair_create(GLOBAL_CONTEXT.ctx, self._pair, secret):
            raise BadKey("bad-key", "these 32 bytes are not a secret key")

    def __repr__(self) -> str:
        return f"SecretKey(of {self.public.hex()})"

    def __reduce__(self) -> Any:
        raise TypeError("a secret key is not pickled")

    @property
    def secret(self) -> bytes:
        """The 32 secret bytes, for the key file and libp2p's host alone."""
        return self._secret

    @property
    def peer_id(self) -> PeerId:
        """The libp2p peer id of this key."""
        return peer_id_of(self.public)

    def sign(self, digest: bytes, aux: bytes = bytes(32)) -> bytes:
        """64 bytes: BIP340 over a 32-byte digest. Without ``aux`` it is the same every time."""
        if len(digest) != 32 or len(aux) != 32:
            raise ValueError("BIP340 here signs 32-byte digests with 32 bytes of aux")
        signature = ffi.new("unsigned char[64]")
        if not lib.secp256k1_schnorrsig_sign32(GLOBAL_CONTEXT.ctx, signature, digest, self._pair, aux):
            raise ValueError("libsecp256k1 refused to sign")
        return bytes(ffi.buffer(signature, 64))

    def sign_ecdsa(self, digest: bytes) -> bytes:
        """DER, low-S, RFC 6979, over a 32-byte digest, without a sighash byte."""
        return bytes(self._key.sign(digest, hasher=None))

    def tweaked(self, tweak: bytes) -> "SecretKey":
        """The key whose public half is ``tweak_public(self.public, tweak)``."""
        return SecretKey(self._key.add(tweak).secret)

    def derive(self, purpose: str, *parts: bytes, length: int = 32) -> bytes:
        """Secret bytes for one purpose, made again from the key alone. Parts are length-prefixed."""
        hasher = blake3(self._secret, derive_key_context=context("", "secret/" + purpose))
        for part in parts:
            hasher.update(len(part).to_bytes(4, "little") + part)
        return hasher.digest(length=length)
