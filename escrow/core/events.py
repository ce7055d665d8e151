"""What happens to a channel, and what it asks for. ``channel`` is always the 32-byte channel id, amounts carry their unit."""

import dataclasses
import enum
from typing import TypeAlias

from wire.effects import Blame, Count, Save
from wire.ports import OutInfo, OutPoint, TxOut


class Phase(enum.Enum):
    """Where a channel stands. ``OFFERED``, ``FUNDING``, ``REFUNDING`` are the buyer's alone, ``AGREED`` the seller's."""

    OFFERED = "offered"
    FUNDING = "funding"
    AGREED = "agreed"
    FUNDED = "funded"
    OPEN = "open"
    CLOSING = "closing"
    CLAIMING = "claiming"
    REFUNDING = "refunding"
    CLOSED = "closed"
    BURIED = "buried"


class How(enum.Enum):
    """How a channel ended."""

    DECLINED = "declined"
    UNFUNDED = "unfunded"
    SETTLED = "settled"
    CLAIMED = "claimed"
    LAPSED = "lapsed"
    REFUNDED = "refunded"
    RULED = "ruled"


# --- events --------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LetterIn:
    """A letter from ``peer`` (39 bytes, authenticated)."""

    peer: bytes
    payload: bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FundingBuilt:
    """The wallet signed the transaction whose output ``vout`` is the escrow asked for."""

    raw: bytes
    vout: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FundingFailed:
    """The wallet could not build the funding, or the chain refused it."""

    code: str
    sentence: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OutpointSeen:
    """How a watched output stands now: told once after each ``Watch`` and again at every change, also back to None."""

    outpoint: OutPoint
    info: OutInfo | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TipSeen:
    """The height of the best block, and the going fee rate when it is known."""

    height: int
    feerate_sat_per_kvb: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pay:
    """Buyer: pay ``amount_msat`` for the key behind ``lock``. ``ref`` names the payment; the same again changes nothing."""

    ref: bytes
    lock: bytes
    amount_msat: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reveal:
    """Seller: give the key for the commitment of ``ref``."""

    ref: bytes
    key: bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CloseAsked:
    """The owner wants this channel closed."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """``next_deadline()`` has come."""


Event: TypeAlias = LetterIn | FundingBuilt | FundingFailed | OutpointSeen | TipSeen | Pay | Reveal | CloseAsked | Tick


# --- effects -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """Send ``payload`` to ``peer``; lost letters are sent again by ``resume`` or a deadline."""

    peer: bytes
    payload: bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FundingWanted:
    """Have the wallet build a transaction with this output; answer with ``FundingBuilt`` or ``FundingFailed``. ``note`` is for
    the transaction's memo, by which the escrow is found again with the key alone; empty when it cannot be.
    """

    channel: bytes
    output: TxOut
    note: bytes = b""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """Broadcast ``raw``; ``purpose`` is one of funding, close, claim, refund, lapse. Asked again until it is seen."""

    raw: bytes
    purpose: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Tell every change of this output as ``OutpointSeen``."""

    outpoint: OutPoint


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Unwatch:
    """No more news of this output is needed."""

    outpoint: OutPoint


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The chain shows the escrow with the right value and script; work may begin."""

    channel: bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """Seller: a commitment is verified, stored and its escrow confirmed; answer with ``Reveal`` if lock and amount are right."""

    channel: bytes
    ref: bytes
    lock: bytes
    amount_msat: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Revealed:
    """Buyer: this is the key that was paid for, learnt from a letter or from the chain.

    ``paid_msat`` and ``signature`` are the commitment's, for evidence; 0 and empty when a payment long past is told again.
    """

    channel: bytes
    ref: bytes
    key: bytes
    paid_msat: int = 0
    signature: bytes = b""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PayFailed:
    """Buyer: this payment will not happen; nothing was paid for it, or what was locked for it came back."""

    channel: bytes
    ref: bytes
    code: str
    sentence: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The end, as the chain shows it. The three amounts add up to the capacity, or to nothing when it was never funded."""

    channel: bytes
    how: How
    txid: bytes | None
    to_seller_sat: int
    to_buyer_sat: int
    fees_sat: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PhaseChanged:
    """For people: where the channel stands now and why."""

    channel: bytes
    phase: Phase
    sentence: str


Effect: TypeAlias = (
    Save
    | Count
    | Blame
    | Letter
    | FundingWanted
    | Submit
    | Watch
    | Unwatch
    | Ready
    | Locked
    | Revealed
    | PayFailed
    | Closed
    | PhaseChanged
)
