"""What two parties of a trade say to each other, and the lanes their letters travel in.

Every letter between two peers is one byte of lane and a payload of that lane's room. The deal lane is defined here; the
others belong to ``orderbook.core.desk`` and ``escrow.core.messages``. A deal's id is the id of its Match, so both know it from
the start. Every letter may arrive twice or not at all: receivers act on state, senders repeat what is still owed after a
reconnect.
"""

from enum import IntEnum
from typing import Annotated, Final

from wire.canon import U16, U63, Choice, Hash32, Range, Signature64, Size, WrongShape, record
from wire.limits import BATCH_UNITS_MAX, CONTENT_MAX_BYTES, PRICE_MAX_MSAT, REASON_MAX_CHARS

OFFER_PURPOSE: Final = "offer"
RECEIPT_PURPOSE: Final = "receipt"
RECEIPT_BUYER: Final = "receipt-buyer"
RECEIPT_SELLER: Final = "receipt-seller"
DRAINING: Final = "draining"  # the code of a refusal by a seller that is shutting down in good order

UnitName = Annotated[bytes, Size(34, 34)]
"""Deal and unit number, see ``peer.core.deal.unit_key``."""
Ticket = Annotated[bytes, Size(16, 16)]
Code = Annotated[str, Size(1, 40)]
Sentence = Annotated[str, Size(0, REASON_MAX_CHARS)]


class Lane(IntEnum):
    """Which room a letter is for."""

    DESK = 1
    CHANNEL = 2
    DEAL = 3
    COURT = 4
    PROOF = 5
    BOND = 6


def address(lane: Lane, payload: bytes) -> bytes:
    """A letter as the courier carries it."""
    return bytes([lane]) + payload


def sort(letter: bytes) -> tuple[Lane, bytes]:
    """The lane and the payload of a letter. Raises ``WrongShape``."""
    try:
        return Lane(letter[0]), letter[1:]
    except (IndexError, ValueError):
        raise WrongShape("unknown-lane", "a letter begins with the lane it is for") from None


@record
class Bind:
    """Buyer: the units of this deal are paid through ``channel``; None in a free book."""

    deal: Hash32
    channel: Hash32 | None


@record
class Task:
    """Buyer: this unit's work is the content ``work``, to be fetched from me with ``ticket``."""

    deal: Hash32
    unit: U16
    work: Hash32
    size: Annotated[int, Range(0, CONTENT_MAX_BYTES)]
    ticket: Ticket


@record
class Working:
    """Seller: the work of this unit has arrived and is being computed (``begun``) or waits for a free worker."""

    deal: Hash32
    unit: U16
    begun: bool


@record
class OfferBody:
    """What a seller signs when a result is ready: evidence for both sides, see escrow.

    ``cipher`` and ``plain`` are content ids of the encrypted and of the plain result, ``lock`` is SHA-256 of the key.
    """

    deal: Hash32
    unit: U16
    work: Hash32
    cipher: Hash32
    plain: Hash32
    lock: Hash32
    price_msat: Annotated[int, Range(0, PRICE_MAX_MSAT)]


@record
class Offer:
    """Seller: the encrypted result is ready, to be fetched from me with ``ticket``."""

    body: OfferBody
    signature: Signature64
    size: Annotated[int, Range(0, CONTENT_MAX_BYTES + 4_096)]
    ticket: Ticket


@record
class FreeKey:
    """Seller, in a free book only: the key of an offered result."""

    deal: Hash32
    unit: U16
    key: Hash32


@record
class Taken:
    """Buyer: I have the result of this unit; you may forget it."""

    deal: Hash32
    unit: U16


@record
class WorkRefused:
    """Seller: this unit will not be delivered, and why."""

    deal: Hash32
    unit: U16
    code: Code
    sentence: Sentence


@record
class Withdraw:
    """Buyer: I no longer want this unit; nothing is owed for it."""

    deal: Hash32
    unit: U16
    code: Code


@record
class Gather:
    """Buyer: I have these units' results and would pay for them together; put them under one key."""

    channel: Hash32
    units: Annotated[tuple[UnitName, ...], Size(2, BATCH_UNITS_MAX)]


@record
class SealedKey:
    """The key of one unit's result behind the batch's key, see ``peer.core.batches``."""

    unit: UnitName
    seal: Hash32


@record
class BatchBody:
    """What a seller signs to sell several results under one key: ``lock`` is its SHA-256, ``amount_msat`` pays for all."""

    channel: Hash32
    lock: Hash32
    amount_msat: U63
    units: Annotated[tuple[SealedKey, ...], Size(2, BATCH_UNITS_MAX)]


@record
class Batch:
    """Seller: the units that you named, under one key."""

    body: BatchBody
    signature: Signature64


@record
class ReceiptBody:
    """One line of the log of a deal: a unit was delivered, paid for as agreed, and opened to what was promised.

    Lines are numbered from 0 in the order in which the buyer had the results; ``previous`` is the id of the line before, and of
    the first line the deal. ``at_us`` is the buyer's clock.
    """

    deal: Hash32
    number: U16
    previous: Hash32
    unit: U16
    work: Hash32
    plain: Hash32
    lock: Hash32
    price_msat: Annotated[int, Range(0, PRICE_MAX_MSAT)]
    at_us: U63


@record
class Receipt:
    """Buyer: I sign this line of our log; sign it, too."""

    body: ReceiptBody
    signature: Signature64


@record
class Countersigned:
    """Seller: my signature under line ``number`` of our log."""

    deal: Hash32
    number: U16
    signature: Signature64


DEAL: Final = Choice(
    "deal",
    {
        1: Bind,
        2: Task,
        3: Working,
        4: Offer,
        5: FreeKey,
        6: Taken,
        7: WorkRefused,
        8: Withdraw,
        9: Gather,
        10: Batch,
        11: Receipt,
        12: Countersigned,
    },
)

DealLetter = Bind | Task | Working | Offer | FreeKey | Taken | WorkRefused | Withdraw | Gather | Batch | Receipt | Countersigned

LETTER_MAX_BYTES: Final = 4_096
