"""What a channel keeps: one row in table ``channel`` under its id, and in table ``channel_lock`` one small row per payment.

The second table exists because a seller may publish any state he was ever given: the buyer needs its lock to take back an
output that is not claimed, and needs to know a payment he has made when it is asked for again.
"""

import enum
from typing import Annotated, Final

from escrow.core.contract import Terms
from escrow.core.events import How, Phase
from escrow.core.messages import Der, Ref, Sequence
from wire.canon import U32, U63, Hash32, Signature64, Size, record
from wire.limits import PAYMENTS_WAITING_MAX, TX_MAX_BYTES

CHANNEL_TABLE: Final = "channel"
LOCK_TABLE: Final = "channel_lock"

Raw = Annotated[bytes, Size(0, TX_MAX_BYTES)]


class Role(enum.Enum):
    """Which side of the channel we are."""

    BUYER = "buyer"
    SELLER = "seller"


@record
class Payment:
    """A payment that waits for its turn."""

    ref: Ref
    lock: Hash32
    amount_msat: U63


@record
class Commitment:
    """A hash-locked state: the balance after it, what it added, the buyer's signature, and the key once we know it."""

    sequence: Sequence
    ref: Ref
    lock: Hash32
    paid_msat: U63
    amount_msat: U63
    signature: Der
    settled: Der | None
    key: Hash32 | None


@record
class PastLock:
    """One payment of the buyer: enough to recognise it, to lapse its output, and to give its key again."""

    channel: Hash32
    sequence: Sequence
    ref: Ref
    lock: Hash32
    key: Hash32 | None


@record
class Ending:
    """What the chain says about the end."""

    how: How
    txid: Hash32 | None
    to_seller_sat: U63
    to_buyer_sat: U63
    fees_sat: U63
    height: U32


@record
class ChannelRow:
    """The whole state of a channel. ``funding`` is txid and little-endian index.

    ``paid_msat`` counts all commitments, ``revealed_msat`` those whose key the buyer has (buyer) or was given (seller).
    ``settled_msat`` and its signature are the best unlocked state the seller holds. ``last`` is the commitment in force.
    """

    role: Role
    phase: Phase
    terms: Terms
    open_signature: Signature64
    opened_signature: Signature64 | None
    funding: Annotated[bytes, Size(36, 36)] | None
    funding_raw: Raw
    paid_msat: U63
    revealed_msat: U63
    last: Commitment | None
    queue: Annotated[tuple[Payment, ...], Size(0, PAYMENTS_WAITING_MAX)]
    settled_msat: U63
    settled_signature: Der | None
    closing: bool
    close_raw: Raw
    end_raw: Raw
    end_feerate_sat_per_kvb: U32
    ending: Ending | None


def lock_key(channel: bytes, sequence: int) -> bytes:
    """The key of a payment's row in table ``channel_lock``."""
    return channel + sequence.to_bytes(4, "big")
