"""The letters of a channel. Every one names its channel, so the router never has to ask what state it is in.

Signatures of states are DER without the sighash byte (which is always ALL); those of the terms are BIP340 over the channel's
id, which is the digest of the terms, so they prove to anyone who agreed to what.
"""

from typing import Annotated, Final, TypeAlias

from escrow.core.contract import OPENED_PURPOSE, Terms
from wire.canon import U16, U63, Choice, Hash32, Range, Signature64, Size, record
from wire.digest import context, digest
from wire.limits import ESCROW_LETTER_MAX_BYTES, PAYMENT_REF_MAX_BYTES, PAYMENTS_PER_CHANNEL_MAX, REASON_MAX_CHARS

Der: TypeAlias = Annotated[bytes, Size(8, 72)]
Ref: TypeAlias = Annotated[bytes, Size(1, PAYMENT_REF_MAX_BYTES)]
Sequence: TypeAlias = Annotated[int, Range(1, PAYMENTS_PER_CHANNEL_MAX)]
Code: TypeAlias = Annotated[str, Size(1, 40)]
Sentence: TypeAlias = Annotated[str, Size(0, REASON_MAX_CHARS)]


@record
class Open:
    """Buyer: let us open a channel on these terms. Signed by the buyer's account key."""

    channel: Hash32
    terms: Terms
    signature: Signature64


@record
class Opened:
    """Seller: agreed. Signed by the seller's account key."""

    channel: Hash32
    signature: Signature64


@record
class Declined:
    """Seller: no, and why."""

    channel: Hash32
    code: Code
    sentence: Sentence


@record
class Funded:
    """Buyer: the escrow is this output. The seller believes the chain, not the letter."""

    channel: Hash32
    txid: Hash32
    vout: U16


@record
class Commit:
    """Buyer: the balance is now ``paid_msat``, locked to ``lock``. ``settled`` signs the unlocked state of what is revealed."""

    channel: Hash32
    sequence: Sequence
    ref: Ref
    paid_msat: U63
    lock: Hash32
    signature: Der
    settled: Der | None


@record
class Key:
    """Seller: the key behind the lock of commitment ``sequence``."""

    channel: Hash32
    sequence: Sequence
    key: Hash32


@record
class Done:
    """Buyer: close with this balance, unlocked."""

    channel: Hash32
    paid_msat: U63
    signature: Der


@record
class AskClose:
    """Either: let us close."""

    channel: Hash32
    reason: Sentence


@record
class Recall:
    """Buyer: I have lost what I knew of this channel, or (32 zero bytes) of all; tell me what you hold."""

    channel: Hash32


@record
class Latest:
    """The last commitment as the seller holds it; ``key`` is there when he has given it."""

    sequence: Sequence
    ref: Ref
    lock: Hash32
    paid_msat: U63
    amount_msat: U63
    signature: Der
    settled: Der | None
    key: Hash32 | None


@record
class Held:
    """Seller: this is what I hold, with your own signatures. ``opened`` is mine under the terms."""

    channel: Hash32
    terms: Terms
    signature: Signature64
    opened: Signature64
    txid: Hash32
    vout: U16
    last: Latest | None


Letters = Choice(
    "escrow",
    {1: Open, 2: Opened, 3: Declined, 4: Funded, 5: Commit, 6: Key, 7: Done, 8: AskClose, 9: Recall, 10: Held},
)
AnyLetter: TypeAlias = Open | Opened | Declined | Funded | Commit | Key | Done | AskClose | Recall | Held

ALL_CHANNELS: Final = bytes(32)


def read_letter(payload: bytes) -> AnyLetter:
    """The letter in ``payload``. Raises ``EncodingError``."""
    letter: AnyLetter = Letters.unpack(payload, ESCROW_LETTER_MAX_BYTES)
    return letter


def channel_of(payload: bytes) -> bytes:
    """The 32-byte channel a letter belongs to. Raises ``EncodingError``."""
    return read_letter(payload).channel


def opened_digest(network: str, channel: bytes) -> bytes:
    """What the seller's signature in ``Opened`` signs."""
    return digest(context(network, OPENED_PURPOSE), channel)
