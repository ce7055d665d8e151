"""What the brain hears from its driver and asks of it, beyond what the rooms' own cores say.

Content is named by 32-byte ids, units by ``peer.core.deal.unit_key`` (34 bytes), peers by 39-byte peer ids. ``owner`` strings
name who pins content in the store; letting go of an owner unpins all that he held.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from orderbook.core.messages import Side
from wire.keys import PeerId
from wire.moments import Instant

Facts = Mapping[str, str | int | bool | None]
"""Plain values by name, for people and their programs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed; at the latest at ``next_deadline``."""


# --- from the local API ------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class BuyAsked:
    """A local program wants one unit of ``article`` computed from the stored content ``work``.

    ``bid_msat`` None means a free book, unless it is ``mandated``: then the bid is that of the owner's mandate, if there is one.
    ``wait_us`` bounds the search for a seller each time it is placed. ``once``: never place it again after money was locked
    for it, so that it costs at most one bid, whatever sellers do.
    """

    request: int
    article: str
    work: bytes
    work_bytes: int
    bid_msat: int | None
    wait_us: int
    mandated: bool = False
    once: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandoned:
    """The program that asked has hung up."""

    request: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SellAsked:
    """The owner offers ``slots`` workers of the kind ``worker`` for ``article`` at ``ask_msat`` a unit (0: in the free book).

    ``ask_msat`` None sells under the owner's mandates, and not at all without one. ``ahead`` lets the next units be sold while
    the workers are still busy. ``order`` names the stall for people, and its answer, a ``Reply``. A stall of the same worker is
    changed and keeps its name.
    """

    order: int
    article: str
    worker: str
    ask_msat: int | None
    slots: int
    ahead: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsChanged:
    """``worker`` can now do ``slots`` units at a time; 0 while it is not there."""

    worker: str
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SellStopped:
    """No further units are to be sold through ``worker``; those agreed are finished. ``gone``: it will compute no more either."""

    worker: str
    gone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainAsked:
    """The node is about to stop: sell nothing more and hand back what no worker has begun; ``all_of_it``: also what one has."""

    all_of_it: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MandateGranted:
    """The owner allows trades of ``article`` at ``price_msat`` without being asked: ``trades`` of them (None: any number), until
    ``until_us`` (None: for ever). Answered by ``Reply`` once it is kept.
    """

    request: int
    mandate: int
    side: Side
    article: str
    price_msat: int
    trades: int | None
    until_us: Instant | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MandateRevoked:
    """The owner takes a mandate back. Answered by ``Reply``."""

    request: int
    mandate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """Somebody wants to see the books of ``article``."""

    article: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AppealAsked:
    """The owner wants the arbiter to rule on a channel. ``to_seller_sat`` None: what our own books say. Answered by ``Reply``."""

    request: int
    channel: bytes
    to_seller_sat: int | None
    statement: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BondAsked:
    """The owner locks ``value_sat`` for ``blocks`` blocks. Answered by ``Reply`` with the bond's name."""

    request: int
    value_sat: int
    blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BondReleaseAsked:
    """The owner takes a bond back whose time is over. Answered by ``Reply``."""

    request: int
    bond: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleAsked:
    """The arbiter's operator rules on a case. Answered by ``Reply``."""

    request: int
    case: bytes
    to_seller_sat: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseAsked:
    """The owner wants every channel closed, for the given reason."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallAsked:
    """The owner lost his disk: these sellers are asked for what they hold of his channels."""

    peers: tuple[PeerId, ...]


# --- from the network --------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class LetterArrived:
    """A letter, its lane byte included."""

    peer: PeerId
    letter: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerUp:
    """Letters to the peer travel again."""

    peer: PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerDown:
    """Letters to the peer do not travel at the moment."""

    peer: PeerId


# --- answers to effects ------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The content that this unit was waiting for is in the store, whole and verified."""

    unit: bytes
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchFailed:
    """It could not be had, and why."""

    unit: bytes
    code: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """The worker's result is in the store as ``plain``."""

    unit: bytes
    plain: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeFailed:
    """The worker gave no result, and why."""

    unit: bytes
    code: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Encrypted:
    """The result, encrypted, is in the store as ``cipher`` (``size`` bytes)."""

    unit: bytes
    cipher: bytes
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decrypted:
    """The decrypted result is in the store as ``plain``; None when the key does not open it."""

    unit: bytes
    plain: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBack:
    """The ciphertext of a unit, as the store has it; None when it cannot be read."""

    unit: bytes
    cipher: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FundingBuilt:
    """The wallet signed ``raw``, whose output ``vout`` is the escrow that ``channel`` asked for."""

    channel: bytes
    raw: bytes
    vout: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FundingFailed:
    """The wallet could not fund the channel."""

    channel: bytes
    code: str
    sentence: str


# --- effects -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """Send a letter (lane byte included) to a peer; the courier may lose it when the peer goes away."""

    peer: PeerId
    letter: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Interest:
    """Take part in the books of ``article``."""

    article: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seek:
    """Be findable and find others in the DHT under ``article``."""

    article: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Banish:
    """Have nothing more to do with the peer for now: end its connections, and why."""

    peer: bytes
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Serve ``content`` to whoever shows ``ticket``."""

    content: bytes
    ticket: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """Serve nothing more for ``ticket``."""

    ticket: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Get ``content`` of ``size`` bytes from ``peer`` with ``ticket``, pinned for ``owner``; answer Fetched or FetchFailed."""

    unit: bytes
    peer: PeerId
    content: bytes
    size: int
    ticket: bytes
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Let the worker ``worker`` compute ``work`` within ``time_s``; answer Computed or ComputeFailed."""

    unit: bytes
    worker: str
    work: bytes
    time_s: int
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Give up whatever fetch or computation runs for this unit; no answer is wanted."""

    unit: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Encrypt:
    """Encrypt ``plain`` under the one-time ``key``; answer Encrypted (or ComputeFailed)."""

    unit: bytes
    plain: bytes
    key: bytes
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decrypt:
    """Decrypt ``cipher`` with ``key``; answer Decrypted."""

    unit: bytes
    cipher: bytes
    key: bytes
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """Read the stored ``cipher`` of a unit back, for a proof; answer ReadBack."""

    unit: bytes
    cipher: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpin:
    """``owner`` needs nothing of what was pinned for it any longer."""

    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to a request: the result's content id, or a refusal by code and sentence; neither when there is only a done."""

    request: int
    result: bytes | None
    code: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """The peer let us down in a trade, without proof for others: remember it locally."""

    peer: PeerId
    code: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something the owner may want to see, in plain values; ``kind`` is order, mandate, book, case, appeal, fraud
    or bond.
    """

    kind: str
    facts: Facts


# --- between the parts of the brain ----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelWanted:
    """Deal ``deal`` with ``peer`` needs ``amount_msat`` of channel capacity, in payments of ``unit_msat``; ``more_msat`` is
    what the requests that still wait would cost at its price, whoever sells to them.
    """

    deal: bytes
    peer: PeerId
    amount_msat: int
    unit_msat: int
    more_msat: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelBound:
    """Deal ``deal`` is paid through ``channel``; ``ready`` when its funding is already seen. ``units``: for so many of its units
    there is money, None for all.
    """

    deal: bytes
    channel: bytes
    ready: bool
    units: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFailed:
    """No channel can be had for the deal."""

    deal: bytes
    code: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PayWanted:
    """Pay ``amount_msat`` through ``channel``, locked to ``lock``, for ``unit``, or for the batch of that name and ``units``."""

    channel: bytes
    unit: bytes
    lock: bytes
    amount_msat: int
    units: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RevealWanted:
    """Give the key of a locked payment."""

    channel: bytes
    unit: bytes
    key: bytes
